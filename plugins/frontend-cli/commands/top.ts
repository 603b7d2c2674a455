import { execFile } from 'node:child_process';
import { fail, visible } from '@engine/core/errors';
import { command } from '../command.ts';
import { HEADINGS, processTable } from '../ps-table.ts';

/** Columns as Docker's `top` has them: 20 wide at least, three blanks between. */
const columns = (rows: readonly (readonly string[])[]): string => {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(20, ...rows.map((row) => (row[i] ?? '').length + 3)));
  return rows.map((row) => `${row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join('')}\n`).join('');
};

/** What ps(1) of the host says; undefined: there is none. Errors: ERR_INVALID_VALUE with its words. */
function runPs(options: readonly string[], signal: AbortSignal | undefined): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const env = { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', ...(process.env['TZ'] === undefined ? {} : { TZ: process.env['TZ'] }) };
    execFile('ps', options, { maxBuffer: 1 << 26, env, ...(signal && { signal }) }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return resolve(undefined);
      const [said = error.message] = stderr.split('\n').filter(Boolean);
      return reject(fail('ERR_INVALID_VALUE', `cannot run ps ${options.join(' ')}: ${said}`, { operation: 'top', exitCode: 1, cause: error }));
    });
  });
}

/** The lines of these processes, headings first; the last column takes the rest of its line. Errors: ERR_INVALID_VALUE without a column PID. */
export function select(text: string, pids: ReadonlySet<number>): string[][] {
  const [first = '', ...lines] = text.split('\n');
  const headings = first.trim().split(/\s+/);
  const at = headings.indexOf('PID');
  if (at < 0) throw fail('ERR_INVALID_VALUE', "couldn't find PID field in ps output", { operation: 'top', exitCode: 1, hint: 'let ps print it, as with -o pid,cmd' });
  const rows = lines.map((line) => line.trim().split(/\s+/)).filter((words) => words.length >= headings.length && pids.has(Number(words[at])));
  return [headings, ...rows.map((words) => [...words.slice(0, headings.length - 1), words.slice(headings.length - 1).join(' ')])];
}

export const topCommand = command({
  name: 'top', usage: 'CONTAINER [ps OPTIONS]', summary: 'show the processes of a container, as the host sees them', args: [1, Infinity], flags: {}, passThrough: true,
  async run(context, _flags, [ref = '', ...options]) {
    const engine = await context.open();
    const pids = await engine.containers.top(ref);
    const text = await runPs(options.length > 0 ? options : ['-ef'], context.invocation.signal);
    if (text === undefined && options.length > 0) throw fail('ERR_NOT_SUPPORTED', 'cannot use options of ps: this machine has no ps', { operation: 'top', exitCode: 1, hint: 'leave them out, or install procps' });
    const rows = text === undefined ? [[...HEADINGS], ...processTable(pids)] : select(text, new Set(pids));
    await context.print(columns(rows.map((row) => row.map((cell) => visible(cell, true)))));
    return 0;
  },
});
