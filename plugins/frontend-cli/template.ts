import { fail } from '@engine/core/errors';
import { tokenize, type Word } from './template-words.ts';

/**
 * The part of Go's text/template that `--format` is used with: fields, pipelines, variables, if/else, range, with, trim markers, and
 * Docker's functions. No npm package of it is alive.
 */
type Scope = ReadonlyMap<string, unknown>;
type Evaluate = (dot: unknown, scope: Scope) => unknown;
type Node = (dot: unknown, scope: Map<string, unknown>, out: string[]) => void;

const wrong = (why: string): Error => fail('ERR_INVALID_VALUE', `invalid --format template: ${why}`, { operation: '--format' });

function isTrue(value: unknown): boolean {
  if (Array.isArray(value) || typeof value === 'string') return value.length > 0;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

/** Go prints maps as `map[a:1]`, lists as `[a b]`, nothing as `<no value>`. */
export function goText(value: unknown): string {
  if (value === undefined) return '<no value>';
  if (value === null) return '<nil>';
  if (Array.isArray(value)) return `[${value.map(goText).join(' ')}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `map[${entries.map(([k, v]) => `${k}:${goText(v)}`).join(' ')}]`;
  }
  return String(value as string | number | boolean | bigint);
}

function field(value: unknown, name: string): unknown {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'object') throw wrong(`"${name}" is no field of ${goText(value)}`);
  const object = value as Record<string, unknown>;
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** A slip in the first name is told; what lies deeper may be a map. */
function known(value: unknown, name: string): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || name in value) return;
  throw fail('ERR_INVALID_VALUE', `invalid --format template: there is no "${name}"`, { operation: '--format', hint: `there are ${Object.keys(value).join(', ')}` });
}

function format(pattern: string, values: readonly unknown[]): string {
  let i = 0;
  return pattern.replace(/%(-?\d*)(?:\.(\d+))?([sdvqtfx%])/g, (_, width: string, precision: string | undefined, verb: string) => {
    if (verb === '%') return '%';
    const value = values[i++];
    let text = verb === 'q' ? JSON.stringify(goText(value)) : verb === 'x' ? Number(value).toString(16) : verb === 'f' ? Number(value).toFixed(Number(precision ?? 6)) : goText(value);
    const n = Number(width || 0);
    text = n < 0 ? text.padEnd(-n) : text.padStart(n);
    return text;
  });
}

const compare = (a: unknown, b: unknown): number => {
  const [x, y] = [a, b] as [number | string, number | string];
  return x < y ? -1 : x > y ? 1 : 0;
};
const functions: Readonly<Record<string, (...args: unknown[]) => unknown>> = {
  json: (value) => JSON.stringify(value) ?? 'null',
  join: (list, separator) => (list as unknown[] | undefined)?.map(goText).join(goText(separator)) ?? '',
  split: (text, separator) => goText(text).split(goText(separator)),
  upper: (text) => goText(text).toUpperCase(),
  lower: (text) => goText(text).toLowerCase(),
  title: (text) => goText(text).replace(/\b\w/g, (c) => c.toUpperCase()),
  len: (value) => (typeof value === 'string' || Array.isArray(value) ? value.length : Object.keys((value ?? {}) as object).length),
  index: (value, ...keys) => keys.reduce<unknown>((v, key) => (Array.isArray(v) ? (v as unknown[])[Number(key)] : (field(v, String(key)) ?? '')), value),
  slice: (value, from, to) => (value as string | unknown[]).slice(Number(from ?? 0), to === undefined ? undefined : Number(to)),
  println: (...args) => `${args.map(goText).join(' ')}\n`,
  print: (...args) => args.map(goText).join(''),
  printf: (pattern, ...args) => format(goText(pattern), args),
  truncate: (text, n) => goText(text).slice(0, Number(n)),
  pad: (text, before, after) => ' '.repeat(Number(before)) + goText(text) + ' '.repeat(Number(after)),
  eq: (a, ...others) => others.some((b) => a === b),
  ne: (a, b) => a !== b,
  lt: (a, b) => compare(a, b) < 0,
  le: (a, b) => compare(a, b) <= 0,
  gt: (a, b) => compare(a, b) > 0,
  ge: (a, b) => compare(a, b) >= 0,
  and: (...args) => args.find((arg) => !isTrue(arg)) ?? args.at(-1),
  or: (...args) => args.find(isTrue) ?? args.at(-1),
  not: (value) => !isTrue(value),
};

/** Reads the words of one action. */
class Action {
  readonly #words: readonly Word[];
  #at = 0;
  constructor(words: readonly Word[]) {
    this.#words = words;
  }
  peek(offset = 0): Word | undefined {
    return this.#words[this.#at + offset];
  }
  take(): Word | undefined {
    return this.#words[this.#at++];
  }
  accept(text: string): boolean {
    if (this.peek()?.kind !== 'mark' || this.peek()?.text !== text) return false;
    this.#at++;
    return true;
  }

  /** `[$x :=] command | command …` */
  pipeline(closer?: string): Evaluate {
    let result = this.#command();
    while (this.accept('|')) {
      const before = result;
      const next = this.#command((dot, scope) => before(dot, scope));
      result = next;
    }
    if (closer ? !this.accept(closer) : this.peek() !== undefined) throw wrong(`unexpected "${this.peek()?.text ?? 'end'}"`);
    return result;
  }

  #command(piped?: Evaluate): Evaluate {
    const first = this.peek();
    if (first?.kind === 'name' && !['true', 'false', 'nil'].includes(first.text)) {
      this.take();
      const call = functions[first.text];
      if (!call) throw wrong(`function "${first.text}" not defined`);
      const args: Evaluate[] = [];
      while (this.peek() && !['|', ')'].includes(this.peek()?.kind === 'mark' ? (this.peek()?.text ?? '') : '')) args.push(this.#operand());
      if (piped) args.push(piped);
      return (dot, scope) => call(...args.map((arg) => arg(dot, scope)));
    }
    const second = this.peek(1);
    if (first?.kind === 'field' && second && second.kind !== 'mark') return this.#method(piped);
    if (piped) throw wrong(`"${first?.text ?? 'nothing'}" cannot take a piped value`);
    return this.#operand();
  }

  /** `.Label "a"` */
  #method(piped?: Evaluate): Evaluate {
    const name = this.peek()?.text ?? '';
    const method = this.#operand();
    const args: Evaluate[] = [];
    while (this.peek() && this.peek()?.kind !== 'mark') args.push(this.#operand());
    if (piped) args.push(piped);
    return (dot, scope) => {
      const call = method(dot, scope);
      if (typeof call !== 'function') throw wrong(`${name} takes no arguments`);
      return (call as (...values: unknown[]) => unknown)(...args.map((arg) => arg(dot, scope)));
    };
  }

  #operand(): Evaluate {
    const word = this.take();
    if (!word) throw wrong('a value is missing');
    let base: Evaluate;
    if (word.kind === 'text') base = () => word.text;
    else if (word.kind === 'number') base = () => Number(word.text);
    else if (word.kind === 'variable') base = (_, scope) => {
      if (!scope.has(word.text)) throw wrong(`undefined variable "${word.text}"`);
      return scope.get(word.text);
    };
    else if (word.kind === 'name') {
      if (word.text === 'true' || word.text === 'false') base = () => word.text === 'true';
      else if (word.text === 'nil') base = () => undefined;
      else base = functions[word.text] ? () => functions[word.text]?.() : () => { throw wrong(`function "${word.text}" not defined`); };
    } else if (word.text === '(') base = this.pipeline(')');
    else if (word.kind === 'field') base = word.text === '.' ? (dot) => dot : (dot, scope) => {
      const names = word.text.slice(1).split('.');
      if (dot === scope.get('$')) known(dot, names[0] ?? '');
      return names.reduce(field, dot);
    };
    else throw wrong(`unexpected "${word.text}"`);
    while (word.kind !== 'field' && this.peek()?.kind === 'field' && this.peek()?.joined) {
      const names = this.take()?.text.slice(1).split('.') ?? [];
      const inner = base;
      base = (dot, scope) => names.reduce(field, inner(dot, scope));
    }
    return base;
  }

  /** `$a, $b :=` or `$a :=` in front of a pipeline. */
  declarations(): string[] {
    const names: string[] = [];
    const start = this.#at;
    while (this.peek()?.kind === 'variable') {
      names.push(this.take()?.text ?? '');
      if (this.accept(':=')) return names;
      if (!this.accept(',')) break;
    }
    this.#at = start;
    return [];
  }
}

/** Compile `text`; the result renders one value. Errors: ERR_INVALID_VALUE. */
export function compileTemplate(text: string): (value: unknown) => string {
  const pieces = tokenize(text, wrong);
  let at = 0;

  function block(): { nodes: Node[]; end: string; rest: Action | undefined } {
    const nodes: Node[] = [];
    for (;;) {
      const piece = pieces[at++];
      if (piece === undefined) return { nodes, end: '', rest: undefined };
      if (typeof piece === 'string') {
        nodes.push((_, __, out) => void out.push(piece));
        continue;
      }
      const action = new Action(piece);
      const first = action.peek();
      const keyword = first?.kind === 'name' ? first.text : '';
      if (keyword === 'end' || keyword === 'else') {
        action.take();
        return { nodes, end: keyword, rest: action };
      }
      if (keyword === 'if' || keyword === 'with' || keyword === 'range') {
        action.take();
        nodes.push(control(keyword, action));
      } else nodes.push(output(action));
    }
  }

  function output(action: Action): Node {
    const [name] = action.declarations();
    const value = action.pipeline();
    return (dot, scope, out) => {
      const result = value(dot, scope);
      if (name) scope.set(name, result);
      else out.push(goText(result));
    };
  }

  function control(keyword: string, action: Action): Node {
    const names = action.declarations();
    const value = action.pipeline();
    const body = block();
    let otherwise: Node[] = [];
    if (body.end === 'else') {
      const next = body.rest?.peek();
      if (next?.kind === 'name' && (next.text === 'if' || next.text === 'with')) {
        body.rest?.take();
        otherwise = [control(next.text, body.rest as Action)];
      } else {
        const rest = block();
        if (rest.end !== 'end') throw wrong(`{{${keyword}}} without {{end}}`);
        otherwise = rest.nodes;
      }
    } else if (body.end !== 'end') throw wrong(`{{${keyword}}} without {{end}}`);
    return (dot, scope, out) => {
      const result = value(dot, scope);
      const run = (nodes: readonly Node[], inner: unknown, variables: readonly (readonly [string, unknown])[]): void => {
        const nested = new Map([...scope, ...variables]);
        for (const node of nodes) node(inner, nested, out);
      };
      if (!isTrue(result)) return run(otherwise, dot, []);
      if (keyword !== 'range') return run(body.nodes, keyword === 'with' ? result : dot, names[0] ? [[names[0], result]] : []);
      const entries: [unknown, unknown][] = Array.isArray(result)
        ? result.map((item, i) => [i, item])
        : Object.entries(result as object).sort(([a], [b]) => (a < b ? -1 : 1));
      for (const [key, item] of entries) run(body.nodes, item, names.length === 2 ? [[names[0] ?? '', key], [names[1] ?? '', item]] : names[0] ? [[names[0], item]] : []);
    };
  }

  const { nodes, end } = block();
  if (end !== '') throw wrong(`unexpected {{${end}}}`);
  return (value) => {
    const out: string[] = [];
    const scope = new Map<string, unknown>([['$', value]]);
    for (const node of nodes) node(value, scope, out);
    return out.join('');
  };
}
