import { fail } from '../errors/index.ts';

/** Is this value, found at the field `at`, what the spec says? Errors: ERR_INVALID_VALUE names the field. */
export type Check = (value: unknown, at: string) => void;

export const invalid = (field: string, why: string, hint?: string): Error => fail('ERR_INVALID_VALUE', `${field}: ${why}`, { operation: 'config', path: field, ...(hint !== undefined && { hint }) });
const shown = (value: unknown): string => (typeof value === 'bigint' ? String(value) : (JSON.stringify(value) ?? 'undefined').slice(0, 100));
/** What a writer in Go leaves for a field that it does not set. */
export const isAbsent = (value: unknown): boolean => value === undefined || value === null;

export const flag: Check = (value, at) => {
  if (typeof value !== 'boolean') throw invalid(at, `${shown(value)} is neither true nor false`);
};
export const text: Check = (value, at) => {
  if (typeof value !== 'string') throw invalid(at, `${shown(value)} is not a text`);
  if (value.includes('\0')) throw invalid(at, 'a NUL in it');
};
export const some: Check = (value, at) => {
  text(value, at);
  if (value === '') throw invalid(at, 'it is empty');
};
export const absolute: Check = (value, at) => {
  text(value, at);
  if (!(value as string).startsWith('/')) throw invalid(at, `${shown(value)} is not an absolute path`);
};
const integerIn = (low: bigint, high: bigint, name: string): Check => (value, at) => {
  const whole = typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));
  if (!whole) throw invalid(at, `${shown(value)} is not an integer`);
  // a double next to 2^64 is what JSON.parse makes of 2^64-1
  if (BigInt(value as number) < low || BigInt(value as number) > high) throw invalid(at, `${shown(value)} is not in ${name}`);
};
export const between = (low: number, high: number): Check => integerIn(BigInt(low), BigInt(high), `${low}..${high}`);
export const uint16 = integerIn(0n, 0xffffn, '0..65535');
export const uint32 = integerIn(0n, 0xffff_ffffn, '0..4294967295');
export const int32 = integerIn(-0x8000_0000n, 0x7fff_ffffn, '-2147483648..2147483647');
export const int64 = integerIn(-(1n << 63n), 1n << 63n, '-2^63..2^63-1');
export const uint64 = integerIn(0n, 1n << 64n, '0..2^64-1');
export const oneOf = (...known: readonly string[]): Check => (value, at) => {
  text(value, at);
  if (!known.includes(value as string)) throw invalid(at, `unknown value ${shown(value)}`, `known are ${known.join(', ')}`);
};
export const list = (of: Check): Check => (value, at) => {
  if (!Array.isArray(value)) throw invalid(at, 'not a list');
  value.forEach((item, i) => of(item, `${at}[${i}]`));
};
const isFields = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
/** Any names, values of one kind. */
export const map = (of: Check): Check => (value, at) => {
  if (!isFields(value)) throw invalid(at, 'not an object');
  for (const [name, item] of Object.entries(value)) of(item, `${at}.${name}`);
};
/** An object; what it has besides `known` is not looked at. `needed`: fields that must be there. */
export const fields = (known: Readonly<Record<string, Check>>, ...needed: readonly string[]): Check => (value, at) => {
  if (!isFields(value)) throw invalid(at === '' ? 'config.json' : at, 'not an object');
  const under = (name: string): string => (at === '' ? name : `${at}.${name}`);
  for (const name of needed) if (isAbsent(value[name])) throw invalid(under(name), 'it is not set');
  for (const [name, check] of Object.entries(known)) if (!isAbsent(value[name])) check(value[name], under(name));
};
/** A field of the spec that this engine can't do: only what says nothing is let through. */
export const refused = (why: string): Check => (value, at) => {
  const says = (part: unknown): boolean => !isAbsent(part) && part !== false && part !== '' && (typeof part !== 'object' || Object.values(part as object).some(says));
  if (says(value)) throw fail('ERR_NOT_SUPPORTED', `${at}: ${why}`, { operation: 'config', path: at });
};
