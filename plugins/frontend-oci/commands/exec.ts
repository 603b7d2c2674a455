import { readFile } from 'node:fs/promises';
import { fail } from '@engine/core/errors';
import { type Process } from '@engine/core/spec';
import { callerOf, command, type CommandContext } from '../command.ts';
import { claimPidFile, reachable } from '../files.ts';
import { execProcess } from '../process.ts';
import { streamFlags, streamsOf } from '../streams.ts';

/** process.json. Errors: ERR_INVALID_VALUE; what its fields say is checked by who compiles them. */
async function readProcess(context: CommandContext, file: string): Promise<Process> {
  const wrong = (why: string, errno?: string): Error => fail('ERR_INVALID_VALUE', `--process ${file}: ${why}`, { operation: 'exec', path: file, hint: '', ...(errno !== undefined && { errno }) });
  let text: string;
  try {
    text = await readFile(reachable(context.invocation, file), 'utf8');
  } catch (error) {
    throw wrong('cannot be read', (error as NodeJS.ErrnoException).code ?? 'EIO');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrong(`not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong('not a JSON object');
  return value as Process;
}

export const execCommand = command({
  name: 'exec', usage: '<container-id> <command> [arg...] | --process FILE <container-id>', summary: 'run another process in a container',
  description: "Its process is the container's own (capabilities, user, environment, limits, labels), changed by the flags, or the one of --process.\nWithout --detach it ends with the process, whose exit code it has (128 + n for signals); 255 when that could not be started.",
  prefix: 'exec failed: ', exitCode: 255,
  flags: {
    ...streamFlags,
    cwd: { type: 'string', value: 'DIR', help: 'working directory in the container' },
    env: { type: 'list', short: 'e', value: 'NAME=VALUE', help: 'add to the environment' },
    tty: { type: 'boolean', short: 't', help: 'with a terminal' },
    user: { type: 'string', short: 'u', value: 'UID[:GID]', help: 'as this user' },
    'additional-gids': { type: 'list', short: 'g', value: 'GID', help: 'add a group' },
    process: { type: 'string', short: 'p', value: 'FILE', help: 'JSON of the whole process, as in config.json' },
    detach: { type: 'boolean', short: 'd', help: 'do not wait for its end' },
    'process-label': { type: 'string', value: 'LABEL', help: 'SELinux label' },
    apparmor: { type: 'string', value: 'PROFILE', help: 'AppArmor profile' },
    'no-new-privs': { type: 'boolean', help: 'it cannot gain privileges' },
    cap: { type: 'list', short: 'c', value: 'CAP', help: 'add a capability' },
    cgroup: { type: 'list', value: 'PATH', help: "a group below the container's own, which is there: PATH or CONTROLLER[,CONTROLLER]:PATH" },
    'ignore-paused': { type: 'boolean', help: 'also in a paused container: it begins when that goes on' },
  },
  args: [1, Infinity], passThrough: true,
  async run(context, flags, [id = '', ...args]) {
    const { invocation } = context;
    if (args.length === 0 && !flags.process) throw fail('ERR_INVALID_VALUE', 'process args cannot be empty', { operation: 'exec', hint: 'name a command, or --process FILE' });
    const bundles = await context.bundles();
    const ref = context.ref(id);
    const { process: own } = await bundles.state(ref);
    const given = flags.process ? await readProcess(context, flags.process) : execProcess(own, args, {
      cwd: flags.cwd, env: flags.env, tty: flags.tty, user: flags.user, additionalGids: flags['additional-gids'].flatMap((one) => one.split(',')), processLabel: flags['process-label'], apparmor: flags.apparmor, caps: flags.cap,
      ...(flags['no-new-privs'] && { noNewPrivs: true }),
    });
    const { streams, env } = streamsOf(context, 'exec', flags, flags.detach || Boolean(flags['console-socket']));
    const caller = callerOf(context, 'exec');
    const process: Process = env.length > 0 ? { ...given, env: [...(given.env ?? []), ...env] } : given;
    const pidFile = claimPidFile(invocation, flags['pid-file']);
    if (!flags.detach) caller.adopt();
    try {
      const { pid } = await bundles.exec(ref, { ...streams, process, cgroups: flags.cgroup, ignorePaused: flags['ignore-paused'] });
      const waiting = flags.detach ? undefined : caller.wait(pid);
      waiting?.catch(() => {}); // told below
      pidFile?.write(pid);
      if (flags['pidfd-socket']) await caller.sendPidfd(pid, reachable(invocation, flags['pidfd-socket']));
      context.report.settle();
      return waiting ? await waiting : 0;
    } finally {
      pidFile?.abandon();
    }
  },
});
