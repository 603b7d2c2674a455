import { fail } from '@engine/core/errors';
import { type BundleState } from '@engine/core/api';
import { command } from '../command.ts';

/** Go counts code points. */
const charactersIn = (text: string): number => Array.from(text).length;

/** Columns as Go's tabwriter makes them with a least width of 12 and 3 blanks between; the last is as wide as it is. */
function columns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(12, ...rows.map((row) => charactersIn(row[i] ?? '') + 3)));
  return rows.map((row) => `${row.map((cell, i) => (i === row.length - 1 ? cell : cell + ' '.repeat((widths[i] ?? 0) - charactersIn(cell)))).join('')}\n`).join('');
}

const jsonOf = ({ ociVersion, id, pid, status, bundle, rootfs, created, annotations, owner }: BundleState): unknown => ({ ociVersion, id, pid, status, bundle, rootfs, created, ...(Object.keys(annotations).length > 0 && { annotations }), owner });

export const listCommand = command({
  name: 'list', usage: '', summary: 'list the containers below --root',
  flags: {
    format: { type: 'string', short: 'f', value: 'FORMAT', help: 'table or json (default table)' },
    quiet: { type: 'boolean', short: 'q', help: 'ids only' },
  },
  args: [0, 0],
  async run(context, flags) {
    const { format = 'table' } = flags;
    const states = await (await context.bundles()).list(context.ref('').root, { onWarning: (text) => context.report.warn(text) });
    if (flags.quiet) await context.print(states.map(({ id }) => `${id}\n`).join(''));
    else if (format === 'table') await context.print(columns([['ID', 'PID', 'STATUS', 'BUNDLE', 'CREATED', 'OWNER'], ...states.map(({ id, pid, status, bundle, created, owner }) => [id, String(pid), status, bundle, created, owner])]));
    else if (format === 'json') await context.print(`${states.length === 0 ? 'null' : JSON.stringify(states.map(jsonOf))}\n`);
    else throw fail('ERR_INVALID_VALUE', `invalid format option: ${format}`, { operation: 'list', hint: 'table or json' });
    return 0;
  },
});
