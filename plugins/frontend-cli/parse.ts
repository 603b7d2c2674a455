import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';
import { fail } from '@engine/core/errors';

/** One flag. `list` may be given several times; `optional` has a value only when written with `=`. */
export interface Flag {
  readonly type: 'boolean' | 'string' | 'list' | 'optional';
  readonly short?: string;
  /** Another name that means the same. */
  readonly also?: string;
  /** Name of the value in the help. */
  readonly value?: string;
  readonly help: string;
}
export type Flags = Readonly<Record<string, Flag>>;

type FlagValue<F extends Flag> = F['type'] extends 'boolean' ? boolean : F['type'] extends 'list' ? string[] : string | undefined;
export type Values<F extends Flags> = { [K in keyof F]: FlagValue<F[K]> };
export interface Parsed<F extends Flags> {
  readonly flags: Values<F>;
  readonly args: readonly string[];
}

const usage = (command: string, message: string): Error => fail('ERR_USAGE', message, { operation: command, hint: `see: engine ${command} --help` });

/** Levenshtein distance of two short words. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** ` (did you mean X?)` for the nearest of `known`, or nothing when none is near. */
export function didYouMean(word: string, known: Iterable<string>): string {
  if (/^-?.$/.test(word)) return ''; // every letter is near every other
  let best: string | undefined;
  let least = Math.max(2, Math.floor(word.length / 3)) + 0.5;
  for (const candidate of known) {
    const d = distance(word, candidate);
    if (d < least) {
      least = d;
      best = candidate;
    }
  }
  return best === undefined ? '' : ` (did you mean ${best}?)`;
}

function toBoolean(command: string, flag: string, text: string | undefined): boolean {
  if (text === undefined) return true;
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw usage(command, `--${flag} takes true or false, not "${text}"`);
}

/**
 * Parse what follows a command's name. With `passThrough`, everything from the second positional on belongs to the container and is not
 * looked at. Errors: ERR_USAGE.
 */
export function parse<F extends Flags>(command: string, table: F, argv: readonly string[], options: { passThrough?: boolean } = {}): Parsed<F> {
  const config: ParseArgsOptionsConfig = {};
  for (const [name, flag] of Object.entries(table)) {
    const type = flag.type === 'string' || flag.type === 'list' ? 'string' : 'boolean';
    config[name] = { type, ...(flag.short ? { short: flag.short } : {}) };
    if (flag.also) config[flag.also] = { type };
  }
  const { tokens } = parseArgs({ args: [...argv], options: config, strict: false, allowPositionals: true, tokens: true });
  const others = new Map(Object.entries(table).flatMap(([name, { also }]) => (also ? [[also, name]] : [])));
  const values: Record<string, unknown> = {};
  for (const [name, flag] of Object.entries(table)) values[name] = flag.type === 'boolean' ? false : flag.type === 'list' ? [] : undefined;
  const args: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') {
      if (options.passThrough) return { flags: values as Values<F>, args: argv.slice(token.index) };
      args.push(token.value);
    } else if (token.kind === 'option') {
      const canonical = others.get(token.name) ?? token.name;
      const flag = table[canonical];
      if (!flag) {
        const names = Object.entries(table).flatMap(([name, f]) => (f.short ? [`--${name}`, `-${f.short}`] : [`--${name}`]));
        throw usage(command, `unknown flag: ${token.rawName}${didYouMean(token.rawName, names)}`);
      }
      setValue(command, canonical, flag, token.value, values);
    }
  }
  return { flags: values as Values<F>, args };
}

function setValue(command: string, name: string, flag: Flag, text: string | undefined, values: Record<string, unknown>): void {
  switch (flag.type) {
    case 'boolean':
      values[name] = toBoolean(command, name, text);
      break;
    case 'optional':
      values[name] = text ?? '';
      break;
    default:
      if (text === undefined) throw usage(command, `flag needs a value: --${name}`);
      if (flag.type === 'list') (values[name] as string[]).push(text);
      else values[name] = text;
  }
}

/** Errors: ERR_USAGE unless there are between `least` and `most` arguments. */
export function countArgs(command: string, args: readonly string[], least: number, most = Infinity): void {
  if (args.length >= least && args.length <= most) return;
  const wanted = least === most ? `exactly ${least}` : most === Infinity ? `at least ${least}` : `${least} to ${most}`;
  throw usage(command, `"engine ${command}" takes ${wanted} argument${wanted.endsWith(' 1') ? '' : 's'}, got ${args.length}`);
}
