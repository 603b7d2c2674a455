/** The subset of JSON Schema that types derive from. */
export type JsonSchema = {
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: boolean | JsonSchema;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly pattern?: string;
  readonly anyOf?: readonly JsonSchema[];
  readonly default?: unknown;
  readonly [keyword: string]: unknown;
};

/** The type of the values that a schema (written `as const`) admits. */
export type FromSchema<S> = S extends { readonly enum: readonly (infer E)[] }
  ? E
  : S extends { readonly const: infer C }
    ? C
    : S extends { readonly anyOf: readonly (infer A)[] }
      ? A extends unknown
        ? FromSchema<A>
        : never
      : S extends { readonly type: 'string' }
        ? string
        : S extends { readonly type: 'number' | 'integer' }
          ? number
          : S extends { readonly type: 'boolean' }
            ? boolean
            : S extends { readonly type: 'array'; readonly items: infer I }
              ? FromSchema<I>[]
              : S extends { readonly properties: infer P }
                ? { -readonly [K in keyof P]?: FromSchema<P[K]> }
                : S extends { readonly additionalProperties: infer A }
                  ? Record<string, FromSchema<A>>
                  : S extends { readonly type: 'object' }
                    ? Record<string, unknown>
                    : unknown;

/** One thing that is wrong with a value. `pointer` is a JSON pointer to it. */
export interface Problem {
  readonly pointer: string;
  readonly message: string;
}

/** Everything that is wrong with `value`, in words, innermost first; an empty list when it is valid. */
export async function validate(schema: JsonSchema, value: unknown): Promise<Problem[]> {
  const { Validator } = await import('@cfworker/json-schema');
  // Plain copies: the validator marks nothing, but a frozen or null-prototype value must not trip it.
  const { errors } = new Validator(schema as object, '2020-12', false).validate(structuredClone(value));
  const problems = errors
    .filter(({ keyword }) => !['properties', 'items', 'additionalProperties', 'patternProperties', '$ref'].includes(keyword))
    .map((error) => describe(schema, value, error));
  const deepest = Math.max(0, ...problems.map(({ pointer }) => pointer.split('/').length));
  // Inside anyOf every branch complains; one line about the place itself says more.
  const seen = new Set<string>();
  return problems
    .filter((problem) => !seen.has(problem.pointer) && seen.add(problem.pointer))
    .sort((a, b) => (b.pointer.split('/').length === deepest ? 1 : 0) - (a.pointer.split('/').length === deepest ? 1 : 0));
}

function describe(schema: JsonSchema, value: unknown, error: { keyword: string; instanceLocation: string; error: string }): Problem {
  const pointer = error.instanceLocation.replace(/^#/, '');
  const at = schemaAt(schema, pointer);
  const known = schemaAt(schema, pointer.slice(0, pointer.lastIndexOf('/')));
  const key = unescapePointer(pointer.slice(pointer.lastIndexOf('/') + 1));
  if (error.keyword === 'false' && known?.properties) {
    const near = didYouMean(key, Object.keys(known.properties));
    return { pointer, message: `unknown key "${key}"${near ? `, did you mean "${near}"?` : ''}` };
  }
  const got = show(valueAt(value, pointer));
  if (at?.enum) return { pointer, message: `${got} is not one of ${at.enum.map((item) => show(item)).join(', ')}` };
  if (error.keyword === 'required')
    return { pointer, message: error.error.replace(/^Instance does not have required property /, 'misses ').replace(/\.$/, '') };
  if (at?.anyOf)
    return {
      pointer,
      message: `${got} is none of: ${at.anyOf.map((branch) => branch.description ?? branch.type ?? show(branch.const ?? branch.enum)).join('; ')}`,
    };
  if (error.keyword === 'type' && at?.type) return { pointer, message: `${got} is not ${article(String(at.type))}` };
  if (error.keyword === 'pattern') return { pointer, message: `${got} is not ${at?.description ?? `of the form ${at?.pattern}`}` };
  return { pointer, message: `${got}: ${error.error.replace(/\.$/, '').toLowerCase()}` };
}

const article = (type: string): string => (/^[aeiou]/.test(type) ? `an ${type}` : `a ${type}`);
const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
};

/** The schema that governs the place `pointer`, as far as `properties`, `additionalProperties` and `items` lead. */
function schemaAt(schema: JsonSchema, pointer: string): JsonSchema | undefined {
  let at: JsonSchema | undefined = schema;
  for (const part of pointer.split('/').slice(1).map(unescapePointer)) {
    if (!at) return undefined;
    if (at.items && /^\d+$/.test(part)) at = at.items;
    else at = at.properties?.[part] ?? (typeof at.additionalProperties === 'object' ? at.additionalProperties : undefined);
  }
  return at;
}

/** `value` at a JSON pointer, undefined when there is nothing. */
export function valueAt(value: unknown, pointer: string): unknown {
  let at = value;
  for (const part of pointer.split('/').slice(1).map(unescapePointer)) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, part)) return undefined;
    at = (at as Record<string, unknown>)[part];
  }
  return at;
}

export const escapePointer = (part: string): string => part.replaceAll('~', '~0').replaceAll('/', '~1');
export const unescapePointer = (part: string): string =>
  decodeURIComponent(part.replaceAll('%', '%25')).replaceAll('~1', '/').replaceAll('~0', '~');

/** `value` with the schema's defaults filled in, recursively, where a key is missing. Returns a copy. */
export function withDefaults(schema: JsonSchema | undefined, value: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, unknown> = { ...value };
  for (const [key, property] of Object.entries(schema?.properties ?? {})) {
    const own = result[key];
    if (own === undefined && property.default !== undefined) result[key] = structuredClone(property.default);
    else if (property.properties && (own === undefined || isRecord(own))) {
      const filled = withDefaults(property, own ?? {});
      if (own !== undefined || Object.keys(filled).length > 0) result[key] = filled;
    }
  }
  return result;
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The candidate that `word` was probably meant to be, undefined when none is near. */
export function didYouMean(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** Optimal string alignment distance: a transposition counts as one. */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let value = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) value = Math.min(value, rows[i - 2]![j - 2]! + 1);
      row.push(value);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}
