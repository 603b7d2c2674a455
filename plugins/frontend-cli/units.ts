import { fail } from '@engine/core/errors';

const invalid = (flag: string, text: string, expected: string): Error => fail('ERR_INVALID_VALUE', `invalid value "${text}" for ${flag}: ${expected}`, { operation: flag });

const SIZES: Readonly<Record<string, number>> = { '': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4, p: 1024 ** 5 };

/** `512m`, `1.5g`, `64MB`, `1GiB`, `1000` → bytes (binary multiples, as Docker's RAM sizes). */
export function parseBytes(flag: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?$/i.exec(text.trim());
  const unit = SIZES[match?.[2]?.toLowerCase() ?? ''];
  const bytes = match && unit !== undefined ? Math.floor(Number(match[1]) * unit) : NaN;
  if (!Number.isSafeInteger(bytes)) throw invalid(flag, text, 'a size such as 512m or 2g is expected');
  return bytes;
}

/** A whole number within bounds. */
export function parseInteger(flag: string, text: string, least = 0, most = Number.MAX_SAFE_INTEGER): number {
  const value = /^[+-]?\d+$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw invalid(flag, text, `a whole number ${most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`} is expected`);
  }
  return value;
}

/** `--cpus 1.5` → nanocpus. Bounded by the machine's number, as Docker does. */
export function parseCpus(text: string, available: number): number {
  const match = /^\d+(\.\d{1,9})?$/.exec(text);
  const nano = match ? Math.round(Number(text) * 1e9) : NaN;
  if (!Number.isSafeInteger(nano) || (nano !== 0 && nano < 1e7)) throw invalid('--cpus', text, 'a number such as 0.5 is expected, at least 0.01');
  if (nano > available * 1e9) throw invalid('--cpus', text, `this machine has ${available}`);
  return nano;
}

const DURATIONS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Go's duration (`1h30m`, `10s`) in ms; undefined when it isn't one. */
export function parseDuration(text: string): number | undefined {
  let total = 0;
  let rest = text;
  while (rest !== '') {
    const match = /^(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/.exec(rest);
    if (!match) return undefined;
    total += Number(match[1]) * (DURATIONS[match[2] ?? ''] ?? 0);
    rest = rest.slice(match[0].length);
  }
  return text === '' ? undefined : total;
}

/** `--since`/`--until`: RFC 3339, a date, unix seconds, or a duration before now. */
export function parseTime(flag: string, text: string): Date {
  const ago = parseDuration(text);
  if (ago !== undefined) return new Date(Date.now() - ago);
  const date = /^\d+(\.\d+)?$/.test(text) ? new Date(Number(text) * 1000) : new Date(/^\d{4}-\d{2}-\d{2}(T|$)/.test(text) ? text : NaN);
  if (Number.isNaN(date.getTime())) throw invalid(flag, text, 'a time such as 2026-01-31T12:00:00Z, unix seconds or 10m is expected');
  return date;
}

/** `name=value` pairs; a missing `=` gives an empty value. */
export function parsePairs(flag: string, items: readonly string[]): Record<string, string> {
  const pairs: Record<string, string> = {};
  for (const item of items) {
    const at = item.indexOf('=');
    const name = at < 0 ? item : item.slice(0, at);
    if (name === '') throw invalid(flag, item, 'a name is missing before "="');
    pairs[name] = at < 0 ? '' : item.slice(at + 1);
  }
  return pairs;
}

/** `host:port`-like text whose value must contain a separator. */
export function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** One CSV record as `--mount` and `--network` take it: fields may be quoted. */
export function csvFields(flag: string, text: string): string[] {
  const fields: string[] = [];
  let field = '';
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"') {
      if (quoted && text[i + 1] === '"') field += text[++i] ?? '';
      else quoted = !quoted;
    } else if (c === ',' && !quoted) {
      fields.push(field);
      field = '';
    } else field += c;
  }
  if (quoted) throw invalid(flag, text, 'a quote is not closed');
  return [...fields, field];
}

export { invalid };
