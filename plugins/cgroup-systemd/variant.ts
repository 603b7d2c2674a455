/** Values of D-Bus in GVariant's text format <https://docs.gtk.org/glib/gvariant-text-format.html>, as annotations of bundles have them. */

/** A signature and a value of it: numbers of 64 bits as text, bytes and other numbers as numbers. */
export interface Variant { readonly signature: string; readonly value: unknown }

const KEYWORDS: Readonly<Record<string, string>> = { boolean: 'b', byte: 'y', int16: 'n', uint16: 'q', int32: 'i', uint32: 'u', int64: 'x', uint64: 't', double: 'd', string: 's', objectpath: 'o', signature: 'g' };
const RANGES: Readonly<Record<string, readonly [bigint, bigint]>> = {
  y: [0n, 255n], n: [-(2n ** 15n), 2n ** 15n - 1n], q: [0n, 2n ** 16n - 1n], i: [-(2n ** 31n), 2n ** 31n - 1n], u: [0n, 2n ** 32n - 1n], x: [-(2n ** 63n), 2n ** 63n - 1n], t: [0n, 2n ** 64n - 1n],
};
const ESCAPES: Readonly<Record<string, string>> = { a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };
const TOKEN = /\s*(?:(?<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|@(?<type>[a-z()]+)|(?<word>[a-z][a-z0-9]*)|(?<number>[+-]?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?))|(?<mark>[[\](),]))/ysu;
const MAX_DEPTH = 8;

interface Token { readonly kind: 'text' | 'type' | 'word' | 'number' | 'mark' | 'end'; readonly text: string }

function tokensOf(source: string): Token[] {
  const tokens: Token[] = [];
  const end = source.trimEnd().length;
  TOKEN.lastIndex = 0;
  for (let at = 0; at < end; at = TOKEN.lastIndex) {
    TOKEN.lastIndex = at;
    const groups = TOKEN.exec(source)?.groups;
    const [kind, text] = Object.entries(groups ?? {}).find(([, found]) => found !== undefined) ?? [];
    if (kind === undefined || text === undefined) throw new Error(`not understood from ${JSON.stringify(source.slice(at).trim().slice(0, 20))} on`);
    tokens.push({ kind: kind as Token['kind'], text });
  }
  return [...tokens, { kind: 'end', text: '' }];
}

/** The first whole type of a signature. */
export function firstType(signature: string): string {
  const [first = ''] = signature;
  if (first === 'a') return `a${firstType(signature.slice(1))}`;
  if (first !== '(') return /^[bynqiuxtdsog]$/.test(first) ? first : bad(signature);
  let at = 1;
  while (at < signature.length && signature[at] !== ')') at += firstType(signature.slice(at)).length;
  return at < signature.length && at > 1 ? signature.slice(0, at + 1) : bad(signature);
}
const bad = (signature: string): never => {
  throw new Error(`${JSON.stringify(signature)} is not a type`);
};
/** The types in `(...)`. */
export function membersOf(signature: string): readonly string[] {
  const found: string[] = [];
  for (let rest = signature.slice(1, -1); rest; rest = rest.slice(found.at(-1)?.length)) found.push(firstType(rest));
  return found;
}

const unquote = (text: string): string => text.slice(1, -1).replace(/\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)/gsu, (_, code: string) => (code.length > 1 ? String.fromCodePoint(Number.parseInt(code.slice(1), 16)) : (ESCAPES[code] ?? code)));

function numberOf(text: string, signature: string): unknown {
  if (signature === 'd') return Number(text);
  const range = RANGES[signature];
  if (!range || !/^[+-]?(?:0x[0-9a-fA-F]+|\d+)$/.test(text)) throw new Error(`${text} is not of type ${signature}`);
  const value = text.startsWith('-') ? -BigInt(text.slice(1)) : BigInt(text.replace(/^\+/, ''));
  if (value < range[0] || value > range[1]) throw new Error(`${text} is out of range for type ${signature}`);
  return signature === 'x' || signature === 't' ? String(value) : Number(value);
}

/** Throws a plain Error that says what is wrong. */
export function parseVariant(source: string): Variant {
  const tokens = tokensOf(source);
  let at = 0;
  const next = (): Token => tokens[at++] ?? { kind: 'end', text: '' };
  const isMark = (text: string): boolean => tokens[at]?.kind === 'mark' && tokens[at]?.text === text;
  const expected = (wanted: string | undefined, signature: string): void => {
    if (wanted !== undefined && wanted !== signature) throw new Error(`a value of type ${signature} where one of type ${wanted} is to be`);
  };
  /** Values up to `end`; `typeOf` the one after those that are found. */
  const list = (end: string, depth: number, typeOf: (found: readonly Variant[]) => string | undefined): Variant[] => {
    const found: Variant[] = [];
    while (!isMark(end)) {
      found.push(value(typeOf(found), depth + 1));
      if (isMark(',')) at++;
      else if (!isMark(end)) throw new Error(`${end} is missing`);
    }
    at++;
    return found;
  };
  function value(wanted: string | undefined, depth: number): Variant {
    if (depth > MAX_DEPTH) throw new Error('nested too deeply');
    const { kind, text } = next();
    if (kind === 'type') {
      if (firstType(text) !== text) bad(text);
      expected(wanted, text);
      return value(text, depth + 1);
    }
    if (kind === 'word' && KEYWORDS[text]) {
      expected(wanted, KEYWORDS[text]);
      return value(KEYWORDS[text], depth + 1);
    }
    if (kind === 'word' && (text === 'true' || text === 'false')) {
      expected(wanted, 'b');
      return { signature: 'b', value: text === 'true' };
    }
    if (kind === 'number') {
      const signature = wanted ?? (/[.e]/.test(text) && !text.includes('x') ? 'd' : 'i');
      return { signature, value: numberOf(text, signature) };
    }
    if (kind === 'text') {
      if (wanted !== undefined && !/^[sog]$/.test(wanted)) expected(wanted, 's');
      return { signature: wanted ?? 's', value: unquote(text) };
    }
    if (kind === 'mark' && text === '[') {
      if (wanted !== undefined && !wanted.startsWith('a')) expected(wanted, 'an array');
      const found = list(']', depth, ([first]) => wanted?.slice(1) ?? first?.signature);
      const element = wanted?.slice(1) ?? found[0]?.signature;
      if (element === undefined) throw new Error('an empty array needs its type, e.g. @as []');
      return { signature: `a${element}`, value: found.map((one) => one.value) };
    }
    if (kind === 'mark' && text === '(') {
      const types = wanted === undefined ? undefined : wanted.startsWith('(') ? membersOf(wanted) : bad(wanted);
      const found = list(')', depth, ({ length }) => types?.[length]);
      if (found.length === 0 || (types && types.length !== found.length)) throw new Error('a tuple has too few or too many values');
      return { signature: `(${found.map(({ signature }) => signature).join('')})`, value: found.map((one) => one.value) };
    }
    throw new Error(kind === 'end' ? 'it ends too early' : `${text} is not understood`);
  }
  const found = value(undefined, 0);
  if (next().kind !== 'end') throw new Error('there is more than one value');
  return found;
}
