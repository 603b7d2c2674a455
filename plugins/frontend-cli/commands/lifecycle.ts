import { type Session } from '@engine/core/api';
import { fail, isEngineError } from '@engine/core/errors';
import { attachTo, parseDetachKeys, windowSize } from '../attach.ts';
import { command, type Command } from '../command.ts';
import { reachFiles } from '../reach-files.ts';
import { environment } from '../request.ts';
import { traced, traceFlag } from '../trace.ts';
import { parseInteger } from '../units.ts';

const keys = { type: 'string', value: 'KEYS', help: 'keys that detach (default ctrl-p,ctrl-q)' } as const;
const DEFAULT_KEYS = 'ctrl-p,ctrl-q';

export const startCommand = command({
  name: 'start', usage: '[FLAGS] CONTAINER...', summary: 'start containers', args: [1, Infinity],
  flags: { attach: { type: 'boolean', short: 'a', help: 'attach its output' }, interactive: { type: 'boolean', short: 'i', help: 'attach its input' }, 'detach-keys': keys, trace: traceFlag },
  run: (context, flags, refs) => traced(context, flags.trace, async (context, tracing) => {
    const engine = await context.open();
    const onWarning = (text: string): void => context.warn(text);
    if (!flags.attach && !flags.interactive) {
      return context.forEach(refs, async (ref) => {
        try {
          (await engine.containers.start(ref, { ...tracing, onWarning })).detach();
        } catch (error) {
          // as Docker: what runs already is fine
          if (!isEngineError(error, 'ERR_ALREADY_RUNNING')) throw error;
        }
        await context.print(`${ref}\n`);
      });
    }
    const [ref = ''] = refs;
    if (refs.length > 1) throw fail('ERR_USAGE', 'only one container can be attached at a time');
    const { record } = await engine.containers.resolve(ref);
    const attach = { stdin: flags.interactive && record.request.openStdin, stdout: true, stderr: true };
    const size = windowSize(context.invocation);
    return attachTo(
      context.invocation,
      { attach, terminal: record.request.terminal, stdin: attach.stdin, endInput: record.request.stdinOnce, detachKeys: flags['detach-keys'] ?? DEFAULT_KEYS, proxySignals: true, whole: tracing.trace !== undefined, session: 0 },
      (client) => engine.containers.start(ref, { ...tracing, ...client, attach, onWarning, ...(size ? { windowSize: size } : {}) }),
    );
  }),
});

const ending = (name: 'stop' | 'restart', summary: string): Command => command({
  name, usage: '[FLAGS] CONTAINER...', summary, args: [1, Infinity],
  flags: { time: { type: 'string', short: 't', value: 'SECONDS', help: 'time until it is killed (10)' }, timeout: { type: 'string', value: 'SECONDS', help: 'the same' }, signal: { type: 'string', short: 's', value: 'SIGNAL', help: 'signal to ask with' } },
  async run(context, flags, refs) {
    const text = flags.time ?? flags.timeout;
    const timeout = text === undefined ? {} : { timeout: parseInteger('-t', text, -1) };
    const engine = await context.open();
    return context.forEach(refs, async (ref) => {
      await engine.containers[name](ref, { ...timeout, ...(flags.signal ? { signal: flags.signal } : {}) });
      await context.print(`${ref}\n`);
    });
  },
});
export const stopCommand = ending('stop', 'ask containers to end, and kill those that do not');
export const restartCommand = ending('restart', 'stop containers and start them again');

const freezing = (name: 'pause' | 'unpause', summary: string): Command => command({
  name, usage: 'CONTAINER...', summary, args: [1, Infinity], flags: {},
  async run(context, _flags, refs) {
    const engine = await context.open();
    return context.forEach(refs, async (ref) => {
      await engine.containers[name](ref);
      await context.print(`${ref}\n`);
    });
  },
});
export const pauseCommand = freezing('pause', 'stop all processes of containers where they are');
export const unpauseCommand = freezing('unpause', 'let the processes of paused containers go on');

export const killCommand = command({
  name: 'kill', usage: '[FLAGS] CONTAINER...', summary: 'send a signal to containers', args: [1, Infinity],
  flags: { signal: { type: 'string', short: 's', value: 'SIGNAL', help: 'name or number (KILL)' } },
  async run(context, flags, refs) {
    const engine = await context.open();
    return context.forEach(refs, async (ref) => {
      await engine.containers.kill(ref, flags.signal ?? 'KILL');
      await context.print(`${ref}\n`);
    });
  },
});

export const rmCommand = command({
  name: 'rm', usage: '[FLAGS] CONTAINER...', summary: 'remove containers', args: [1, Infinity],
  flags: { force: { type: 'boolean', short: 'f', help: 'kill it first if it runs; a missing one is no error' }, volumes: { type: 'boolean', short: 'v', help: 'remove its anonymous volumes too' } },
  async run(context, flags, refs) {
    const engine = await context.open();
    return context.forEach(refs, async (ref) => {
      try {
        await engine.containers.remove(ref, { force: flags.force, volumes: flags.volumes });
      } catch (error) {
        if (!flags.force || !isEngineError(error, 'ERR_NO_SUCH_CONTAINER')) throw error;
        return context.warn(error.message); // as Docker: told, and no failure
      }
      await context.print(`${ref}\n`);
    });
  },
});

export const waitCommand = command({
  name: 'wait', usage: 'CONTAINER...', summary: 'wait until containers have ended, print their exit codes', args: [1, Infinity], flags: {},
  async run(context, _flags, refs) {
    const engine = await context.open();
    return context.forEach(refs, async (ref) => context.print(`${(await engine.containers.wait(ref, 'not-running', context.invocation.signal)).code}\n`));
  },
});

export const attachCommand = command({
  name: 'attach', usage: '[FLAGS] CONTAINER', summary: 'connect with the streams of a running container', args: [1, 1],
  flags: { 'no-stdin': { type: 'boolean', help: 'do not attach its input' }, 'detach-keys': keys, 'sig-proxy': { type: 'string', value: 'BOOL', help: 'pass signals on (true)' } },
  async run(context, flags, [ref = '']) {
    const detachKeys = flags['detach-keys'] ?? DEFAULT_KEYS;
    parseDetachKeys(detachKeys);
    const engine = await context.open();
    const { record } = await engine.containers.resolve(ref);
    const stdin = record.request.openStdin && !flags['no-stdin'];
    if (record.request.terminal && stdin && !context.invocation.stdin.isTTY) throw fail('ERR_USAGE', 'the input device is not a terminal', { hint: 'use --no-stdin' });
    const attach = { stdin, stdout: true, stderr: true };
    const proxySignals = !/^(0|f|false)$/i.test(flags['sig-proxy'] ?? 'true');
    return attachTo(context.invocation, { attach, terminal: record.request.terminal, stdin, endInput: record.request.stdinOnce, detachKeys, proxySignals, session: 0 }, (client) => engine.containers.attach(ref, attach, client));
  },
});

export const execCommand = command({
  name: 'exec', usage: '[FLAGS] CONTAINER COMMAND [ARG...]', summary: 'run a command in a running container', args: [1, Infinity], passThrough: true,
  flags: {
    detach: { type: 'boolean', short: 'd', help: 'run in the background' }, 'detach-keys': keys,
    env: { type: 'list', short: 'e', value: 'NAME[=VALUE]', help: 'set an environment variable' }, 'env-file': { type: 'list', value: 'FILE', help: 'read environment variables from a file' },
    interactive: { type: 'boolean', short: 'i', help: 'attach input' }, privileged: { type: 'boolean', help: 'all capabilities' },
    tty: { type: 'boolean', short: 't', help: 'give it a terminal' }, user: { type: 'string', short: 'u', value: 'USER[:GROUP]', help: 'user name or id' }, workdir: { type: 'string', short: 'w', value: 'DIR', help: 'working directory' },
  },
  async run(context, flags, [ref = '', ...args]) {
    if (args.length === 0) throw fail('ERR_USAGE', '"engine exec" takes a container and a command', { hint: 'see: engine exec --help' });
    const detachKeys = flags['detach-keys'] ?? DEFAULT_KEYS;
    parseDetachKeys(detachKeys);
    if (flags.tty && flags.interactive && !flags.detach && !context.invocation.stdin.isTTY) throw fail('ERR_USAGE', 'the input device is not a terminal', { hint: 'leave out -t' });
    await reachFiles(flags, context.invocation.cwd);
    const engine = await context.open();
    const size = windowSize(context.invocation);
    const attach = flags.detach ? { stdin: false, stdout: false, stderr: false } : { stdin: flags.interactive, stdout: true, stderr: true };
    const begin = (client: { readonly client?: number }): Promise<Session> => engine.containers.exec(ref, {
      args, env: environment(flags['env-file'], flags.env, context.invocation.env, context.invocation.cwd), terminal: flags.tty, openStdin: flags.interactive && !flags.detach, attach,
      privileged: flags.privileged, detached: flags.detach, ...(flags.user === undefined ? {} : { user: flags.user }), ...(flags.workdir === undefined ? {} : { workdir: flags.workdir }), ...(size && flags.tty ? { windowSize: size } : {}), ...client,
    });
    if (flags.detach) {
      (await begin({})).detach();
      return 0;
    }
    return attachTo(context.invocation, { attach, terminal: flags.tty, stdin: attach.stdin, endInput: true, detachKeys, proxySignals: false }, begin);
  },
});
