import { fail } from '../errors/index.ts';

/** JSON pointer (RFC 6901) of a value that a tap put into the spec -> the plugin that did. */
export type Asked = ReadonlyMap<string, string>;

/** Deeper than any spec; a cycle ends here too. */
const MAX_NESTING = 64;

type Plain = Record<string, unknown>;
const isBranch = (value: unknown): value is Plain | unknown[] => typeof value === 'object' && value !== null && !ArrayBuffer.isView(value);
const escapePart = (key: string): string => key.replaceAll('~', '~0').replaceAll('/', '~1');

/**
 * A frozen copy of plain data. Subtrees that are in `known` (frozen by us before) are taken as they are, so an edit of one field costs
 * one field. Errors: ERR_INVALID_VALUE for what is not plain data.
 */
export function frozenCopy<T>(value: T, known: WeakSet<object>, trail: string[] = []): T {
  const at = (): string => trail.map((key) => `/${escapePart(key)}`).join('');
  if (typeof value === 'function' || typeof value === 'symbol') throw fail('ERR_INVALID_VALUE', `${at() || 'the value'} is a ${typeof value}, not plain data`);
  if (typeof value !== 'object' || value === null || known.has(value)) return value;
  if (trail.length > MAX_NESTING) throw fail('ERR_INVALID_VALUE', `${at()} is nested deeper than ${MAX_NESTING}`);
  if (ArrayBuffer.isView(value)) return structuredClone(value);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw fail('ERR_INVALID_VALUE', `${at() || 'the value'} is an instance of a class, not plain data`);
  }
  const copy: Plain | unknown[] = Array.isArray(value) ? [...(value as unknown[])] : { ...(value as Plain) };
  for (const key of Object.keys(copy)) {
    const item = (copy as Plain)[key];
    if (typeof item === 'string' || typeof item === 'number' || typeof item === 'boolean') continue;
    trail.push(key);
    (copy as Plain)[key] = frozenCopy(item, known, trail);
    trail.pop();
  }
  Object.freeze(copy);
  known.add(copy);
  return copy as T;
}

function equal(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (!isBranch(a) || !isBranch(b) || Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && equal((a as Plain)[key], (b as Plain)[key]));
}

/**
 * Who asked for what after `plugin` turned `before` into `after`. Objects are compared by key; lists of objects element by element,
 * wherever they moved to; other lists as a whole. A removed key names its remover; a removed element is `<list>/-`.
 */
export function attribute(asked: Asked, before: unknown, after: unknown, plugin: string): Asked {
  const result = new Map<string, string>();
  const carry = (from: string, to: string): void => {
    for (const [pointer, who] of asked) if (pointer === from || pointer.startsWith(`${from}/`)) result.set(to + pointer.slice(from.length), who);
  };
  const compare = (a: unknown, b: unknown, from: string, to: string): void => {
    if (a === b) return carry(from, to);
    if (!isBranch(a) || !isBranch(b) || Array.isArray(a) !== Array.isArray(b)) return equal(a, b) ? carry(from, to) : void result.set(to, plugin);
    if (asked.has(from)) result.set(to, asked.get(from) as string);
    if (Array.isArray(a) && Array.isArray(b)) return compareLists(a, b, from, to);
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      const part = `/${escapePart(key)}`;
      compare((a as Plain)[key], (b as Plain)[key], from + part, to + part);
    }
  };
  const compareLists = (a: readonly unknown[], b: readonly unknown[], from: string, to: string): void => {
    if (!a.some(isBranch) && !b.some(isBranch)) return equal(a, b) ? carry(from, to) : void result.set(to, plugin);
    const unused = new Set(a.keys());
    const old = b.map((item, i) => {
      const at = unused.has(i) && equal(a[i], item) ? i : [...unused].find((candidate) => equal(a[candidate], item));
      if (at !== undefined) unused.delete(at);
      return at;
    });
    old.forEach((at, i) => (at === undefined ? result.set(`${to}/${i}`, plugin) : carry(`${from}/${at}`, `${to}/${i}`)));
    if (asked.has(`${from}/-`)) result.set(`${to}/-`, asked.get(`${from}/-`) as string);
    if (b.length < a.length) result.set(`${to}/-`, plugin);
  };
  compare(before, after, '', '');
  return result;
}

/** The plugin behind the value at `pointer`: of itself or the nearest value around it, else of what lies inside it. */
export function whoAsked(asked: Asked, pointer: string): string | undefined {
  for (let at = pointer; at !== ''; at = at.slice(0, at.lastIndexOf('/'))) {
    const who = asked.get(at);
    if (who !== undefined) return who;
  }
  const inside = new Set<string>();
  for (const [candidate, who] of asked) if (candidate.startsWith(`${pointer}/`)) inside.add(who);
  return inside.size === 0 ? asked.get('') : [...inside].join(', ');
}
