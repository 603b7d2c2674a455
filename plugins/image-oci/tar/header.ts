import { Header } from 'tar/header';
import { fail } from '@engine/core/errors';

/** Bytes of a tar block. */
export const BLOCK = 512;
export type TarKind = 'file' | 'hardlink' | 'symlink' | 'character' | 'block' | 'folder' | 'fifo';

/**
 * One entry of an archive, extensions (PAX, GNU) applied. `path` and `linkPath` are byte strings (one character per byte), because names
 * in an archive need not be UTF-8; {@link shown} makes them readable.
 */
export interface TarEntry {
  readonly kind: TarKind;
  readonly path: string;
  readonly linkPath: string;
  /** Permission bits with setuid, setgid, sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of the file's content, holes included. 0 for anything but files. */
  readonly size: number;
  /** ns since the epoch. */
  readonly mtime: bigint;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: readonly (readonly [name: string, value: Buffer])[];
  /** Where the content begins, bytes from the start of the archive. */
  readonly offset: number;
}

/** A header block as it stands, without extensions. */
export interface RawHeader {
  readonly type: string;
  readonly path: string;
  readonly linkPath: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly seconds: number;
  readonly major: number;
  readonly minor: number;
}

/** A byte string for people. */
export function shown(path: string): string {
  return JSON.stringify(Buffer.from(path, 'latin1').toString('utf8')).slice(1, -1);
}
export function badEntry(path: string, why: string, details: { cause?: unknown } = {}): Error {
  return fail('ERR_TAR_ENTRY', `archive entry "${shown(path)}" is refused: ${why}`, { path: shown(path), operation: 'read archive', ...details });
}
export function badArchive(why: string, cause?: unknown): Error {
  return fail('ERR_IMAGE_INVALID', `the archive is damaged: ${why}`, { operation: 'read archive', ...(cause === undefined ? {} : { cause }) });
}

function text(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at);
  return block.toString('latin1', at, end < 0 || end > at + length ? at + length : end);
}
function octal(block: Buffer, at: number, length: number): number {
  const value = Number.parseInt(text(block, at, length).trim(), 8);
  return Number.isNaN(value) ? 0 : value;
}
export function isZeroBlock(block: Buffer): boolean {
  for (let i = 0; i < BLOCK; i += 4) if (block.readInt32LE(i) !== 0) return false;
  return true;
}

/**
 * Decode a header block. node-tar's Header checks the sum and reads the numbers (octal and base-256); names are taken as bytes and
 * device numbers also from GNU headers, which it does not do.
 */
export function decodeHeader(block: Buffer): RawHeader {
  let header: Header;
  try {
    header = new Header(block);
  } catch (error) {
    throw badArchive('a number in a header cannot be read', error);
  }
  const name = text(block, 0, 100);
  if (!header.cksumValid) throw badArchive(block.toString('latin1', 257, 262) !== 'ustar' ? 'it is no tar archive' : `the checksum of the header of "${shown(name)}" is wrong`);
  const magic = block.toString('latin1', 257, 263);
  const ustar = magic === 'ustar\0';
  const prefix = ustar ? text(block, 345, 155) : '';
  const size = header.size ?? (block[124] === 0 || block[124] === 0x20 ? 0 : undefined);
  if (size === undefined || !Number.isSafeInteger(size) || size < 0) throw badEntry(name, 'its size is not a number');
  const typeByte = block[156] ?? 0;
  return {
    type: typeByte === 0 ? '0' : String.fromCharCode(typeByte),
    path: prefix === '' ? name : `${prefix}/${name}`,
    linkPath: text(block, 157, 100),
    mode: (header.mode ?? 0) & 0o7777,
    uid: header.uid ?? 0,
    gid: header.gid ?? 0,
    size,
    seconds: header.mtime === undefined ? 0 : Math.floor(header.mtime.getTime() / 1000),
    major: magic.startsWith('ustar') ? octal(block, 329, 8) : 0,
    minor: magic.startsWith('ustar') ? octal(block, 337, 8) : 0,
  };
}

/**
 * The records of a PAX header, `LENGTH KEY=VALUE\n`, values as bytes. node-tar's own parser decodes values as UTF-8, splits them at
 * newlines and forgets SCHILY.xattr.*, so binary attributes (security.capability) would be lost.
 */
export function parsePax(body: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  let at = 0;
  while (at < body.length) {
    if (body[at] === 0) break; // padding some writers count in
    const space = body.indexOf(0x20, at);
    const digits = space < 0 || space - at > 10 ? '' : body.toString('latin1', at, space);
    const length = /^[1-9][0-9]*$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    if (length === 0 || end > body.length || end <= space + 1 || body[end - 1] !== 0x0a) throw badArchive('a PAX record has a wrong length');
    const equals = body.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end) throw badArchive('a PAX record has no "="');
    records.set(body.toString('latin1', space + 1, equals), body.subarray(equals + 1, end - 1));
    at = end;
  }
  return records;
}

/** `1234.5` or `-1.25` seconds to ns. */
export function parsePaxTime(value: string): bigint {
  const match = /^(-?)(\d{1,12})(?:\.(\d*))?$/.exec(value);
  if (!match) throw badArchive(`a PAX time is not a number: ${shown(value)}`);
  const ns = BigInt(match[2] ?? '0') * 1_000_000_000n + BigInt((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  return match[1] === '-' ? -ns : ns;
}
export function parsePaxNumber(key: string, value: string): number {
  const number = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw badArchive(`PAX ${key} is not a number: ${shown(value)}`);
  return number;
}
