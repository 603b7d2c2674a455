import { escapePointer, isRecord } from './json-schema.ts';

/** Where a value came from: `built-in`, a file's path (with `#/hosts/N`), `environment NAME`, `flag --NAME`. By JSON pointer of the leaf. */
export type Origins = Map<string, string>;

/** Lay `over` on top of `base`: objects merge, arrays and scalars replace. Records the origin of every leaf that comes from `over`. */
export function merge(
  base: Record<string, unknown>,
  over: Readonly<Record<string, unknown>>,
  source: string,
  origins: Origins,
  at = '',
): Record<string, unknown> {
  const result = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const pointer = `${at}/${escapePointer(key)}`;
    const below = result[key];
    if (isRecord(value)) {
      if (!isRecord(below)) forget(origins, pointer);
      result[key] = merge(isRecord(below) ? below : {}, value, source, origins, pointer);
      if (Object.keys(value).length === 0 && !isRecord(below)) origins.set(pointer, source);
    } else {
      forget(origins, pointer);
      result[key] = structuredClone(value);
      origins.set(pointer, source);
    }
  }
  return result;
}

function forget(origins: Origins, pointer: string): void {
  for (const known of origins.keys()) if (known === pointer || known.startsWith(`${pointer}/`)) origins.delete(known);
}
