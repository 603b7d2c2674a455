import { ENTRY, MAX_DATA, MAX_DEPTH, MAX_PATH, type EntryKind } from '@engine/core/plan';
import { badEntry, type TarEntry } from './tar/header.ts';
import { type TarHandler } from './tar/reader.ts';

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** aufs kept its own bookkeeping under these names; nothing of it belongs to the tree. */
const AUFS = '.wh..wh.';
const BLOCK_SIZE = 256 << 10;
/** Longest body of an entry that the interpreter reads. */
const MAX_HEAD = 192 << 10;
/** Data up to this many bytes is copied behind the head before it, so that small files cost no write of their own. */
const COPY_BELOW = 32 << 10;

/** A cleaned path relative to the layer's root, '' for the root itself. Errors: ERR_TAR_ENTRY. */
export function cleanPath(path: string, whole: string = path): string {
  if (path.includes('\0')) throw badEntry(whole, 'its name contains a NUL');
  if (path.length > MAX_PATH) throw badEntry(whole.slice(0, 200), `its name has ${path.length} bytes, more than ${MAX_PATH}`);
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) throw badEntry(whole, 'its name contains ".."');
  if (parts.length > MAX_DEPTH) throw badEntry(`${whole.slice(0, 200)}…`, `it lies ${parts.length} folders deep, more than ${MAX_DEPTH}`);
  for (const part of parts) if (part.length > 255) throw badEntry(whole.slice(0, 200), 'a part of its name has more than 255 bytes');
  return parts.join('/');
}

/**
 * Turns the entries of a layer's archive into the entry stream that `unpack` reads (core/plan/entries.ts): paths cleaned, whiteouts
 * recognised, everything that may not be refused with ERR_TAR_ENTRY. `take` hands out what has been written so far.
 */
export class EntryWriter implements TarHandler {
  /** Bytes of file content so far, holes not counted. */
  contentBytes = 0;
  #parts: Buffer[] = [];
  #block = Buffer.allocUnsafeSlow(BLOCK_SIZE);
  #at = 0;
  #from = 0;
  #skipping = false;

  entry(entry: TarEntry): void {
    this.#skipping = false;
    const path = cleanPath(entry.path);
    const slash = path.lastIndexOf('/');
    const base = path.slice(slash + 1);
    const folder = slash < 0 ? '' : path.slice(0, slash);
    if (path.startsWith(WHITEOUT) || path.includes(`/${WHITEOUT}`)) {
      this.#whiteout(entry, folder, base);
      return;
    }
    if (path === '' && entry.kind !== 'folder') throw badEntry(entry.path, 'the root of a layer is a folder');
    let link = '';
    if (entry.kind === 'hardlink') {
      link = cleanPath(entry.linkPath, entry.path);
      if (link === '') throw badEntry(entry.path, 'it is a hard link to nothing');
      if (link === path) {
        this.#skipping = true;
        return;
      }
    } else if (entry.kind === 'symlink') {
      link = entry.linkPath;
      if (link === '' || link.includes('\0') || link.length >= MAX_PATH) throw badEntry(entry.path, 'its link target is empty, too long or contains a NUL');
    }
    this.#head(entry.kind, entry, path === '' ? '.' : path, link);
  }

  data(chunk: Buffer): void {
    if (this.#skipping) return;
    this.contentBytes += chunk.length;
    for (let at = 0; at < chunk.length; at += MAX_DATA) {
      const part = chunk.length <= MAX_DATA ? chunk : chunk.subarray(at, at + MAX_DATA);
      this.#frame(ENTRY.data, part.length);
      if (part.length <= COPY_BELOW) {
        this.#room(part.length);
        part.copy(this.#block, this.#at);
        this.#at += part.length;
      } else {
        this.#seal();
        this.#parts.push(part);
      }
    }
  }

  hole(length: number): void {
    if (this.#skipping || length === 0) return;
    this.#frame(ENTRY.hole, 8);
    this.#room(8);
    this.#at = this.#block.writeBigUInt64LE(BigInt(length), this.#at);
  }

  /** The frame that says the stream is whole. Only after everything was verified. */
  end(): void {
    this.#frame(ENTRY.end, 0);
  }

  /** What is ready to be sent; the buffers stay untouched afterwards. */
  take(): Buffer[] {
    this.#seal();
    const parts = this.#parts;
    this.#parts = [];
    // a block that was handed out belongs to the socket; a mostly empty one is used on
    if (this.#at > BLOCK_SIZE / 2) this.#fresh();
    return parts;
  }

  #whiteout(entry: TarEntry, folder: string, base: string): void {
    const parent = `/${folder}`;
    if (base.startsWith(AUFS) && base !== OPAQUE) {
      this.#skipping = true;
      return;
    }
    if (parent.includes(`/${AUFS}`)) {
      this.#skipping = true;
      return;
    }
    if (parent.includes(`/${WHITEOUT}`)) throw badEntry(entry.path, 'it lies below a whiteout');
    const found = readWhiteout(entry, folder, base);
    this.#skipping = true;
    this.#head(found.kind, NOTHING, found.path, '');
  }

  #head(kind: EntryKind, entry: typeof NOTHING, path: string, link: string): void {
    let length = 40 + 8 + path.length + link.length;
    for (const [name, value] of entry.xattrs) length += 8 + name.length + value.length;
    if (length > MAX_HEAD) throw badEntry(path, 'its extended attributes are too long');
    this.#frame(ENTRY[kind], length);
    this.#room(length);
    const out = this.#block;
    let at = this.#at;
    at = out.writeUInt32LE(entry.mode, at);
    at = out.writeUInt32LE(entry.uid, at);
    at = out.writeUInt32LE(entry.gid, at);
    at = out.writeUInt32LE(entry.xattrs.length, at);
    at = out.writeBigInt64LE(entry.mtime, at);
    at = out.writeBigUInt64LE(BigInt(entry.size), at);
    at = out.writeUInt32LE(entry.major, at);
    at = out.writeUInt32LE(entry.minor, at);
    at = out.writeUInt32LE(path.length, at);
    at += out.write(path, at, 'latin1');
    at = out.writeUInt32LE(link.length, at);
    at += out.write(link, at, 'latin1');
    for (const [name, value] of entry.xattrs) {
      if (name === '' || name.includes('\0') || name.length > 255 || value.length > 65536) throw badEntry(path, 'an extended attribute is too long');
      at = out.writeUInt32LE(name.length, at);
      at += out.write(name, at, 'latin1');
      at = out.writeUInt32LE(value.length, at);
      at += value.copy(out, at);
    }
    this.#at = at;
  }

  #frame(kind: number, length: number): void {
    this.#room(8);
    this.#block[this.#at] = kind;
    this.#block[this.#at + 1] = 0;
    this.#block.writeUInt16LE(0, this.#at + 2);
    this.#at = this.#block.writeUInt32LE(length, this.#at + 4);
  }
  #room(n: number): void {
    if (this.#at + n <= this.#block.length) return;
    this.#seal();
    this.#fresh(n);
  }
  #fresh(n = 0): void {
    this.#block = Buffer.allocUnsafeSlow(Math.max(BLOCK_SIZE, n));
    this.#at = 0;
    this.#from = 0;
  }
  #seal(): void {
    if (this.#at > this.#from) this.#parts.push(this.#block.subarray(this.#from, this.#at));
    this.#from = this.#at;
  }
}

const NOTHING: Pick<TarEntry, 'mode' | 'uid' | 'gid' | 'xattrs' | 'mtime' | 'size' | 'major' | 'minor'> = { mode: 0, uid: 0, gid: 0, xattrs: [], mtime: 0n, size: 0, major: 0, minor: 0 };

function readWhiteout(entry: TarEntry, folder: string, base: string): { kind: 'whiteout' | 'opaque'; path: string } {
  if (base === OPAQUE) return { kind: 'opaque', path: folder === '' ? '.' : folder };
  const name = base.slice(WHITEOUT.length);
  if (name === '' || name === '.' || name === '..') throw badEntry(entry.path, 'it is a whiteout of something outside its folder');
  return { kind: 'whiteout', path: folder === '' ? name : `${folder}/${name}` };
}
