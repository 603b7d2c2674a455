import { visible } from '@engine/core/errors';
import { compileTemplate } from './template.ts';
import { table } from './text.ts';

/** Turn the escapes people type in a shell's single quotes into what they mean. */
const unescape = (text: string): string => text.replaceAll('\\t', '\t').replaceAll('\\n', '\n');

const visibleRow = (row: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> =>
  Object.fromEntries(Object.entries(row).map(([name, value]) => [name, typeof value === 'string' ? visible(value, true) : value]));

/**
 * Rows for `--format`: `json`, a template per row, or `table TEMPLATE` with headings. `columns`: heading per field name.
 */
export function formatRows(rows: readonly Record<string, unknown>[], format: string, columns: Readonly<Record<string, unknown>>): string {
  if (format === 'json') return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
  const isTable = /^table\s/.test(format);
  const source = unescape(isTable ? format.replace(/^table\s+/, '') : format);
  const render = compileTemplate(source);
  // one row is one line: nothing in it may begin another or speak to the terminal
  const lines = rows.map((row) => render(visibleRow(row)));
  if (!isTable) return lines.map((line) => `${line}\n`).join('');
  return table([render(columns), ...lines].map((line) => line.split('\t')));
}

/** The default table. */
export function formatTable(rows: readonly Record<string, unknown>[], columns: Readonly<Record<string, string>>): string {
  const names = Object.keys(columns);
  return table([Object.values(columns), ...rows.map((row) => names.map((name) => visible(String(row[name] ?? ''), true)))]);
}

/** `inspect`: JSON with four blanks, as Docker prints it, or a template per object. */
export function formatInspect(objects: readonly unknown[], format: string | undefined): string {
  if (format === undefined || format === '') return `${JSON.stringify(objects, null, 4)}\n`;
  if (format === 'json') return `${JSON.stringify(objects)}\n`;
  const render = compileTemplate(unescape(format));
  return objects.map((object) => `${render(object)}\n`).join('');
}
