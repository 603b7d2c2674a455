import { fail } from '@engine/core/errors';
import { parseSize } from '@engine/core/contracts/storage';

export const OPTIONS = ['max-size', 'max-file', 'mode', 'max-buffer-size'] as const;

const DEFAULT_SIZE = 10n << 20n;
const DEFAULT_FILES = 3;
const DEFAULT_RING = 1n << 20n;
/** A line of up to 16 KiB with its head must fit into a file and into the ring. */
const LEAST = 32n << 10n;
const MOST_FILES = 1000;
const MOST_RING = 1n << 30n;

export interface CriSettings {
  /** Bytes per file; 0 = no bound. */
  readonly maxSize: bigint;
  readonly maxFiles: number;
  /** Bytes of the buffer of mode=non-blocking; 0 = blocking. */
  readonly ring: number;
}

function invalid(name: string, value: string, why: string): Error {
  return fail('ERR_INVALID_VALUE', `log option ${name}=${value}: ${why}`, { path: name, plugin: 'log-cri' });
}

/** Check and decode `--log-opt`. Errors: ERR_INVALID_VALUE names the option. */
export function parseOptions(options: Readonly<Record<string, string>>): CriSettings {
  for (const name of Object.keys(options)) {
    if (!(OPTIONS as readonly string[]).includes(name)) throw fail('ERR_INVALID_VALUE', `the log driver cri has no option ${JSON.stringify(name)}`, { path: name, plugin: 'log-cri', hint: `it has ${OPTIONS.join(', ')}` });
  }
  const { 'max-size': size, 'max-file': files, mode = 'blocking', 'max-buffer-size': buffer } = options;
  const maxSize = size === undefined ? DEFAULT_SIZE : size === '-1' ? 0n : parseSize('log option max-size', size);
  if (size !== undefined && maxSize !== 0n && maxSize < LEAST) throw invalid('max-size', size, 'must be at least 32k, or -1 for no bound');
  const maxFiles = files === undefined ? DEFAULT_FILES : Number(files);
  if (files !== undefined && (!/^\d+$/.test(files) || maxFiles < 1 || maxFiles > MOST_FILES)) throw invalid('max-file', files, `must be a number from 1 to ${MOST_FILES}`);
  if (maxSize === 0n && files !== undefined && maxFiles > 1) throw invalid('max-file', files, 'needs a max-size');
  if (mode !== 'blocking' && mode !== 'non-blocking') throw invalid('mode', mode, 'must be blocking or non-blocking');
  if (mode === 'blocking') {
    if (buffer !== undefined) throw invalid('max-buffer-size', buffer, 'is only for mode=non-blocking');
    return { maxSize, maxFiles, ring: 0 };
  }
  const ring = buffer === undefined ? DEFAULT_RING : parseSize('log option max-buffer-size', buffer);
  if (ring < LEAST || ring > MOST_RING) throw invalid('max-buffer-size', buffer ?? '', 'must be from 32k to 1g');
  return { maxSize, maxFiles, ring: Number(ring) };
}
