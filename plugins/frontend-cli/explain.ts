import { partOf, type PlannedStep } from '@engine/core/plan';

/** Longest value shown of one argument in the text form; JSON shows all. */
const MAX_SHOWN = 72;

/** Modes as people write them, masks of flags in hexadecimal. */
function showNumber(name: string, value: number): string {
  if (name === 'mode') return `0${value.toString(8)}`;
  return ['flags', 'attributes', 'set', 'clear', 'propagation'].includes(name) ? `0x${value.toString(16)}` : String(value);
}

function show(name: string, value: unknown): string {
  if (typeof value === 'number') return showNumber(name, value);
  if (value instanceof Uint8Array) {
    const text = Buffer.from(value).toString('utf8');
    const printable = /^[\t\n\x20-\x7e]*$/.test(text) && text.length <= MAX_SHOWN;
    return printable ? JSON.stringify(text) : `<${value.length} bytes>`;
  }
  if (Array.isArray(value)) return `[${value.map((item) => show(name, item)).join(' ')}]`;
  const text = typeof value === 'string' ? value : String(value);
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}

/** One line per operation: slot, name, arguments, undo, and the plugin behind it. */
export function explainText(steps: readonly PlannedStep[]): string {
  const lines: string[] = [];
  let part = '';
  for (const { slot, operation, undo, noUndo, origin } of steps) {
    if (partOf(slot) !== part) {
      part = partOf(slot);
      lines.push(`${part}:`);
    }
    const args = Object.entries(operation.args).map(([name, value]) => `${name}=${show(name, value)}`);
    const from = origin.asked && origin.asked !== origin.plugin ? `${origin.plugin}, asked by ${origin.asked}` : origin.plugin;
    const back = undo.length ? `  undo: ${undo.map((o) => o.name).join(', ')}` : noUndo ? `  no undo: ${noUndo}` : '';
    lines.push(`  ${slot.slice(part.length + 1).padEnd(10)} ${operation.name} ${args.join(' ')}  (${from}${origin.pointer ? ` ${origin.pointer}` : ''})${back}`);
  }
  return `${lines.join('\n')}\n`;
}

/** The same as plain JSON: bytes as base64 with `$bytes`, big numbers as text. */
export function explainJson(steps: readonly PlannedStep[]): string {
  return JSON.stringify(
    steps.map(({ slot, operation, undo, noUndo, origin }) => ({ part: partOf(slot), slot, operation: operation.name, arguments: operation.args, flags: operation.flags, undo, noUndo, origin })),
    (_, value: unknown) => {
      if (typeof value === 'bigint') return value.toString();
      if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString('base64') };
      return value;
    },
    2,
  );
}
