import { execFile } from 'node:child_process';
import { fail, isEngineError } from '@engine/core/errors';
import { type Invocation } from '@engine/core/contracts/frontend';
import { command } from '../command.ts';

/** What ps(1) of the host says. Errors: ERR_INVALID_VALUE with its words, ERR_NOT_SUPPORTED without one. */
function runPs(options: readonly string[], { env, signal }: Invocation): Promise<string> {
  const names = ['PATH', 'TZ', 'LC_ALL', 'LC_TIME', 'COLUMNS', 'PS_FORMAT', 'PS_PERSONALITY'];
  const own = Object.fromEntries(names.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])));
  return new Promise((resolve, reject) => {
    execFile('ps', options, { maxBuffer: 1 << 26, env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...own }, ...(signal && { signal }) }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return reject(fail('ERR_NOT_SUPPORTED', 'this machine has no ps', { operation: 'ps', hint: 'install procps, or use --format json' }));
      const [said = error.message] = stderr.split('\n').filter(Boolean);
      return reject(fail('ERR_INVALID_VALUE', `ps ${options.join(' ')}: ${said}`, { operation: 'ps', hint: '' }));
    });
  });
}

/** The lines of ps of these processes, as they are, headings first. Errors: ERR_INVALID_VALUE without a column PID. */
export function linesOf(text: string, pids: ReadonlySet<number>): string {
  const [headings = '', ...lines] = text.split('\n');
  const at = headings.trim().split(/\s+/).indexOf('PID');
  if (at < 0) throw fail('ERR_INVALID_VALUE', "couldn't find PID field in ps output", { operation: 'ps', hint: 'let ps print it, as with -o pid,cmd' });
  const kept = lines.filter((line) => line !== '' && pids.has(Number(line.trim().split(/\s+/)[at])));
  return [headings, ...kept].map((line) => `${line}\n`).join('');
}

export const psCommand = command({
  name: 'ps', usage: '<container-id> [ps options]', summary: 'show the processes of a container, with their ids on the host',
  flags: { format: { type: 'string', short: 'f', value: 'FORMAT', help: 'table, what ps (default: -ef) of the host says, or json, the ids (default table)' } },
  args: [1, Infinity], passThrough: true,
  async run(context, flags, [id = '', ...options]) {
    const { format = 'table' } = flags;
    if (format !== 'table' && format !== 'json') throw fail('ERR_INVALID_VALUE', `invalid format option: ${format}`, { operation: 'ps', hint: 'table or json' });
    // one that has ended has none; null is what Go writes for none
    const pids = await (await context.bundles()).processes(context.ref(id)).catch((error: unknown) => {
      if (isEngineError(error, 'ERR_NOT_RUNNING')) return [];
      throw error;
    });
    await context.print(format === 'json' ? `${pids.length === 0 ? 'null' : JSON.stringify(pids)}\n` : linesOf(await runPs(options.length > 0 ? options : ['-ef'], context.invocation), new Set(pids)));
    return 0;
  },
});
