import { fail } from '@engine/core/errors';

/** One flag. `list` may be given several times. */
export interface Flag {
  readonly type: 'boolean' | 'string' | 'list';
  readonly short?: string;
  /** Name of the value in the help. */
  readonly value?: string;
  readonly help: string;
}
export type Flags = Readonly<Record<string, Flag>>;
type FlagValue<F extends Flag> = F['type'] extends 'boolean' ? boolean : F['type'] extends 'list' ? string[] : string | undefined;
export type Values<F extends Flags> = { -readonly [K in keyof F]: FlagValue<F[K]> };
export interface Parsed<F extends Flags> {
  readonly flags: Values<F>;
  readonly args: readonly string[];
}
export interface ParseOptions {
  /** The first word that is no flag ends the flags: what follows is somebody else's. */
  readonly passThrough?: boolean;
}

const usage = (command: string, message: string): Error =>
  fail('ERR_USAGE', message, { operation: command, exitCode: 1, hint: `see: engine-oci ${command === '' ? '' : `${command} `}--help` });

/** As Go reads booleans. */
export function readBoolean(command: string, flag: string, text: string): boolean {
  if (/^(1|t|T|true|TRUE|True)$/.test(text)) return true;
  if (/^(0|f|F|false|FALSE|False)$/.test(text)) return false;
  throw usage(command, `invalid boolean value "${text}" for --${flag}`);
}

/**
 * Words as callers write them for runc (Go: one dash or two, `-flag=value`, `-flag value`, flags behind the id too) and for crun (GNU: `-dt`, `-b/path`). A name
 * as a whole goes before letters in a row. Errors: ERR_USAGE.
 */
export function parse<F extends Flags>(command: string, table: F, argv: readonly string[], { passThrough = false }: ParseOptions = {}): Parsed<F> {
  const values: Record<string, unknown> = {};
  const byName = new Map<string, string>();
  for (const [name, flag] of Object.entries(table)) {
    values[name] = flag.type === 'boolean' ? false : flag.type === 'list' ? [] : undefined;
    byName.set(name, name);
    if (flag.short !== undefined) byName.set(flag.short, name);
  }
  const args: string[] = [];
  let i = 0;
  const take = (name: string, given: string | undefined): void => {
    const flag = table[name] as Flag;
    if (flag.type === 'boolean') {
      values[name] = given === undefined ? true : readBoolean(command, name, given);
      return;
    }
    const text = given ?? argv[++i];
    if (text === undefined) throw usage(command, `flag needs an argument: --${name}`);
    if (flag.type === 'list') (values[name] as string[]).push(text);
    else values[name] = text;
  };
  /** `-dt`, `-b/path`: false when a letter is none. */
  const takeLetters = (letters: string): boolean => {
    const taken: [string, string | undefined][] = [];
    for (let at = 0; at < letters.length; at++) {
      const name = byName.get(letters[at] ?? '');
      if (name === undefined) return false;
      if (table[name]?.type !== 'boolean') {
        taken.push([name, at + 1 < letters.length ? letters.slice(at + 1) : undefined]);
        break;
      }
      taken.push([name, undefined]);
    }
    for (const [name, given] of taken) take(name, given);
    return true;
  };
  for (; i < argv.length; i++) {
    const word = argv[i] ?? '';
    if (word === '--') {
      args.push(...argv.slice(i + 1));
      break;
    }
    const [, dashes = '', name = '', value] = /^(--?)([^=-][^=]*)(?:=([^]*))?$/.exec(word) ?? [];
    const known = dashes === '' ? undefined : byName.get(name);
    if (known !== undefined) take(known, value);
    else if (dashes === '-' && takeLetters(word.slice(1))) continue;
    // a number is a signal, or nothing that we know better
    else if (dashes !== '' && !/^-\d+$/.test(word)) throw usage(command, `flag provided but not defined: -${name}`);
    else if (passThrough) {
      args.push(...argv.slice(i));
      break;
    } else args.push(word);
  }
  return { flags: values as Values<F>, args };
}

/** Errors: ERR_USAGE unless there are between `least` and `most`. */
export function countArgs(command: string, args: readonly string[], least: number, most = Infinity): void {
  if (args.length >= least && args.length <= most) return;
  const wanted = least === most ? `exactly ${least}` : args.length < least ? `a minimum of ${least}` : `a maximum of ${most}`;
  throw usage(command, `"${command}" requires ${wanted} argument(s), ${args.length} given`);
}

/** Errors: ERR_USAGE unless it is an integer between `least` and `most`. */
export function readInteger(command: string, flag: string, text: string, least: number, most: number): number {
  const value = /^[+-]?\d+$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value) || value < least || value > most) throw usage(command, `invalid value "${text}" for --${flag}: not an integer between ${least} and ${most}`);
  return value;
}
