import { fail } from '@engine/core/errors';
import { badArchive, badEntry, BLOCK, decodeHeader, isZeroBlock, parsePax, parsePaxNumber, parsePaxTime, type RawHeader, type TarEntry, type TarKind } from './header.ts';
import { beginSparse, type SparseFile } from './sparse.ts';

/** What the reader calls, in the order of the archive. `data` hands out views of the chunk that was fed: use or copy at once. */
export interface TarHandler {
  entry(entry: TarEntry): void;
  data(chunk: Buffer): void;
  /** Bytes of a sparse file that read as zero. */
  hole(length: number): void;
}
export interface TarLimits {
  readonly maxEntries: number;
}

/** Longest PAX header or GNU long name, bytes (CVE-2017-14992: an endless one filled the memory). */
const MAX_META = 1 << 20;
const KINDS: Readonly<Record<string, TarKind>> = { '0': 'file', '7': 'file', '1': 'hardlink', '2': 'symlink', '3': 'character', '4': 'block', '5': 'folder', '6': 'fifo', S: 'file' };
const MAX_ID = 0xfffffffe;

/**
 * A tar reader that is fed: `write` chunks of any size, then `end`. Understands ustar, GNU (long names, base-256, old sparse) and PAX
 * (paths, ids, sizes, ns times, SCHILY.xattr.*, sparse 0.0, 0.1, 1.0). Throws ERR_TAR_ENTRY with the entry's name, ERR_IMAGE_INVALID for
 * a broken archive, ERR_IMAGE_LIMIT when a limit is passed.
 */
export class TarReader {
  readonly #handler: TarHandler;
  readonly #limits: TarLimits;
  readonly #stash = Buffer.alloc(BLOCK);
  #stashed = 0;
  /** Content of the current entry that is still to come, and its padding. */
  #body = 0;
  #padding = 0;
  #meta: { readonly type: string; readonly parts: Buffer[] } | undefined;
  #sparse: SparseFile | undefined;
  #pax: Map<string, Buffer> | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;
  #zeroBlocks = 0;
  #offset = 0;
  #entries = 0;
  #last = '';

  constructor(handler: TarHandler, limits: TarLimits) {
    this.#handler = handler;
    this.#limits = limits;
  }

  /** True behind the two zero blocks that end an archive; what follows is ignored. */
  get ended(): boolean {
    return this.#zeroBlocks >= 2;
  }
  get entries(): number {
    return this.#entries;
  }
  /** Bytes of plain file content that may be passed over with {@link skip} instead of being fed. */
  get skippable(): number {
    return this.#meta || this.#sparse || this.#stashed > 0 ? 0 : this.#body + this.#padding;
  }
  skip(length: number): void {
    if (length !== this.skippable) throw new RangeError('only the whole rest of an entry can be skipped');
    this.#offset += length;
    this.#body = 0;
    this.#padding = 0;
  }

  write(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && this.#zeroBlocks < 2) {
      const rest = chunk.length - at;
      // an old GNU sparse map goes on in blocks between header and content
      const inMap = this.#sparse?.wantsBlock === true;
      if (this.#body > 0 && !inMap) {
        const n = Math.min(this.#body, rest);
        this.#body -= n;
        this.#offset += n;
        this.#content(chunk.subarray(at, at + n));
        at += n;
        if (this.#body === 0) this.#contentEnd();
      } else if (this.#padding > 0 && !inMap) {
        const n = Math.min(this.#padding, rest);
        this.#padding -= n;
        this.#offset += n;
        at += n;
      } else if (this.#stashed === 0 && rest >= BLOCK) {
        this.#offset += BLOCK;
        this.#block(chunk.subarray(at, at + BLOCK));
        at += BLOCK;
      } else {
        const n = Math.min(BLOCK - this.#stashed, rest);
        chunk.copy(this.#stash, this.#stashed, at, at + n);
        this.#stashed += n;
        this.#offset += n;
        at += n;
        if (this.#stashed === BLOCK) {
          this.#stashed = 0;
          this.#block(Buffer.from(this.#stash));
        }
      }
    }
  }

  /** Errors: ERR_IMAGE_INVALID when the archive ends inside an entry. */
  end(): void {
    if (this.#zeroBlocks >= 2) return;
    if (this.#body > 0 || this.#stashed > 0 || this.#meta || this.#sparse) throw badArchive(`it ends inside "${this.#last}"`);
  }

  #content(data: Buffer): void {
    if (this.#meta) this.#meta.parts.push(Buffer.from(data));
    else if (this.#sparse) this.#sparse.write(data);
    else this.#handler.data(data);
  }

  #contentEnd(): void {
    if (this.#sparse) {
      this.#sparse.end();
      this.#sparse = undefined;
      return;
    }
    if (!this.#meta) return;
    const { type, parts } = this.#meta;
    this.#meta = undefined;
    const body = Buffer.concat(parts);
    if (type === 'x') {
      const records = parsePax(body);
      // GNU sparse 0.0 repeats keys, which a map would lose; tar has not written it since 2003
      if (records.has('GNU.sparse.offset')) throw badArchive('a sparse file in GNU format 0.0 cannot be read');
      this.#pax = records;
    } else if (type === 'L') this.#longName = body.toString('latin1', 0, body.length).replace(/\0[^]*$/, '');
    else if (type === 'K') this.#longLink = body.toString('latin1', 0, body.length).replace(/\0[^]*$/, '');
    // type g: nothing in a global header concerns the tree
  }

  #block(block: Buffer): void {
    if (this.#sparse?.wantsBlock) {
      this.#sparse.block(block);
      if (!this.#sparse.wantsBlock && this.#body === 0) this.#contentEnd();
      return;
    }
    if (isZeroBlock(block)) {
      this.#zeroBlocks++;
      return;
    }
    if (this.#zeroBlocks > 0) throw badArchive('something follows a lone block of zeros');
    const raw = decodeHeader(block);
    this.#padding = (BLOCK - (raw.size % BLOCK)) % BLOCK;
    if (raw.type === 'x' || raw.type === 'g' || raw.type === 'L' || raw.type === 'K') {
      if (raw.size > MAX_META) throw fail('ERR_IMAGE_LIMIT', `the archive has an extended header of ${raw.size} bytes, more than ${MAX_META}`, { operation: 'read archive', path: raw.path });
      this.#body = raw.size;
      this.#meta = { type: raw.type, parts: [] };
      if (raw.size === 0) this.#contentEnd();
      return;
    }
    this.#entry(raw, block);
  }

  #entry(raw: RawHeader, block: Buffer): void {
    const pax = this.#pax;
    const value = (key: string): string | undefined => pax?.get(key)?.toString('latin1');
    const path = value('path') ?? this.#longName ?? raw.path;
    const linkPath = value('linkpath') ?? this.#longLink ?? raw.linkPath;
    this.#pax = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#last = path;
    let kind = KINDS[raw.type];
    if (kind === undefined) throw badEntry(path, `its type "${raw.type}" is unknown`);
    if (kind === 'file' && raw.type !== 'S' && path.endsWith('/')) kind = 'folder';
    if (++this.#entries > this.#limits.maxEntries) throw fail('ERR_IMAGE_LIMIT', `the archive has more than ${this.#limits.maxEntries} entries`, { operation: 'read archive', path });
    const number = (key: string, other: number): number => {
      const given = value(key);
      return given === undefined ? other : parsePaxNumber(key, given);
    };
    const stored = kind === 'file' ? number('size', raw.size) : 0;
    const uid = number('uid', raw.uid);
    const gid = number('gid', raw.gid);
    // CVE-2024-40635: an id that overflows must not become another one
    if (uid < 0 || uid > MAX_ID || gid < 0 || gid > MAX_ID) throw badEntry(path, 'its owner is out of range');
    const mtime = value('mtime');
    const xattrs: [string, Buffer][] = [];
    for (const [key, bytes] of pax ?? []) {
      if (key.startsWith('SCHILY.xattr.')) xattrs.push([key.slice('SCHILY.xattr.'.length), bytes]);
    }
    this.#body = stored;
    this.#padding = (BLOCK - (stored % BLOCK)) % BLOCK;
    const base = {
      kind, linkPath, uid, gid, xattrs, mode: raw.mode, major: raw.major, minor: raw.minor, offset: this.#offset,
      mtime: mtime === undefined ? BigInt(raw.seconds) * 1_000_000_000n : parsePaxTime(mtime),
    };
    const sparse = kind === 'file' ? beginSparse(raw, block, pax, stored, this.#handler) : undefined;
    this.#handler.entry({ ...base, path: sparse?.path ?? path, size: sparse?.size ?? stored });
    if (!sparse) return;
    this.#sparse = sparse.file;
    if (stored === 0 && !sparse.file.wantsBlock) this.#contentEnd();
  }
}
