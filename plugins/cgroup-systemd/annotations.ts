import { describeError, fail } from '@engine/core/errors';
import { type Property } from './systemd.ts';
import { parseVariant, type Variant } from './variant.ts';

const PREFIX = 'org.systemd.property.';
/** What the engine says of a scope, and must be so for it to find and end what is in there. */
const OURS = new Set(['Slice', 'Delegate', 'PIDs', 'Controller', 'Scope']);

/** Times are said in seconds there (`TimeoutStopSec`), and in microseconds on the bus. */
function inMicroseconds(key: string, name: string, { signature, value }: Variant): Property {
  const seconds = Number(value);
  if (!/^[ynqiuxtd]$/.test(signature) || !(seconds >= 0)) throw fail('ERR_INVALID_VALUE', `annotation ${key}: not a number of seconds`, { path: key });
  return [name.replace(/Sec$/, 'USec'), 't', String(Math.round(seconds * 1e6))];
}

/**
 * Properties that a bundle asks of its unit, as runc takes them: `org.systemd.property.NAME` with a value in GVariant's text format.
 * Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED by the name of the annotation.
 */
export function annotatedProperties(annotations: Readonly<Record<string, string>> = {}): readonly Property[] {
  return Object.entries(annotations).filter(([key]) => key.startsWith(PREFIX)).map(([key, text]): Property => {
    const name = key.slice(PREFIX.length);
    if (!/^[A-Za-z]{3,}$/.test(name)) throw fail('ERR_INVALID_VALUE', `annotation ${key}: not the name of a property of a unit`, { path: key });
    if (OURS.has(name)) throw fail('ERR_NOT_SUPPORTED', `annotation ${key}: the engine sets ${name} itself`, { path: key, hint: 'the slice is said by linux.cgroupsPath' });
    let variant: Variant;
    try {
      variant = parseVariant(text);
    } catch (error) {
      throw fail('ERR_INVALID_VALUE', `annotation ${key}: ${describeError(error)}`, { path: key, cause: error, hint: 'values are GVariant text, e.g. true, \'text\', uint64 5, [\'a\', \'b\']' });
    }
    return /[a-z]Sec$/.test(name) && !name.endsWith('USec') ? inMicroseconds(key, name, variant) : [name, variant.signature, variant.value];
  });
}
