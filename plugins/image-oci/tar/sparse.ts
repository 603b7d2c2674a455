import { badArchive, badEntry, BLOCK, parsePaxNumber, type RawHeader } from './header.ts';

/** Where the content of a sparse file goes. */
export interface SparseSink {
  data(chunk: Buffer): void;
  hole(length: number): void;
}
interface Region { readonly offset: number; readonly length: number }
/** Most regions of one file. */
const MAX_REGIONS = 1 << 17;

/**
 * A sparse file that is being read: stored bytes come in, data and holes go out. The map stands in the header and in blocks after it
 * (old GNU), in the PAX header (0.1) or at the start of the content (1.0).
 */
export class SparseFile {
  readonly #path: string;
  readonly #size: number;
  readonly #sink: SparseSink;
  readonly #regions: Region[] = [];
  /** Old GNU: another block of the map follows the header. */
  wantsBlock = false;
  #mapBytes: Buffer | undefined;
  #next = 0;
  #inRegion = 0;
  #position = 0;

  constructor(path: string, size: number, sink: SparseSink, mapInContent: boolean) {
    this.#path = path;
    this.#size = size;
    this.#sink = sink;
    if (mapInContent) this.#mapBytes = Buffer.alloc(0);
  }

  add(offset: number, length: number): void {
    const last = this.#regions.at(-1);
    if (!Number.isSafeInteger(offset + length) || offset < 0 || length < 0 || offset + length > this.#size || (last && offset < last.offset + last.length)) throw badEntry(this.#path, 'its sparse map is wrong');
    if (this.#regions.length >= MAX_REGIONS) throw badEntry(this.#path, `its sparse map has more than ${MAX_REGIONS} parts`);
    this.#regions.push({ offset, length });
  }
  /** The next block of an old GNU map: 21 pairs and whether one more follows. */
  block(block: Buffer): void {
    readPairs(block, 0, 21, this);
    this.wantsBlock = block[504] !== 0;
  }
  write(stored: Buffer): void {
    let data = stored;
    if (this.#mapBytes) {
      this.#mapBytes = Buffer.concat([this.#mapBytes, data]);
      const used = this.#parseMap(this.#mapBytes);
      if (used < 0) return;
      data = this.#mapBytes.subarray(used);
      this.#mapBytes = undefined;
    }
    while (data.length > 0) {
      const region = this.#regions[this.#next];
      if (!region) throw badEntry(this.#path, 'it has more content than its sparse map says');
      if (this.#inRegion === 0) this.#holeTo(region.offset);
      const n = Math.min(data.length, region.length - this.#inRegion);
      if (n > 0) this.#sink.data(data.subarray(0, n));
      data = data.subarray(n);
      this.#inRegion += n;
      this.#position += n;
      if (this.#inRegion === region.length) {
        this.#next++;
        this.#inRegion = 0;
      }
    }
  }
  end(): void {
    if (this.#mapBytes) throw badEntry(this.#path, 'its sparse map is cut off');
    for (; this.#next < this.#regions.length; this.#next++) {
      const region = this.#regions[this.#next];
      if (this.#inRegion > 0 || (region && region.length > 0)) throw badEntry(this.#path, 'it has less content than its sparse map says');
    }
    this.#holeTo(this.#size);
  }

  #holeTo(offset: number): void {
    if (offset > this.#position) this.#sink.hole(offset - this.#position);
    this.#position = Math.max(this.#position, offset);
  }
  /** Format 1.0: lines of decimal numbers (count, then pairs), padded to a block. Bytes used, -1 when more are needed. */
  #parseMap(bytes: Buffer): number {
    if (bytes.length > MAX_REGIONS * 48) throw badEntry(this.#path, 'its sparse map is too long');
    let at = 0;
    const line = (): number | undefined => {
      const end = bytes.indexOf(0x0a, at);
      if (end < 0) return undefined;
      const number = parsePaxNumber('sparse map', bytes.toString('latin1', at, end));
      at = end + 1;
      return number;
    };
    const count = line();
    if (count === undefined) return -1;
    if (count > MAX_REGIONS) throw badEntry(this.#path, `its sparse map has more than ${MAX_REGIONS} parts`);
    const pairs: number[] = [];
    while (pairs.length < count * 2) {
      const number = line();
      if (number === undefined) return -1;
      pairs.push(number);
    }
    const used = Math.ceil(at / BLOCK) * BLOCK;
    if (bytes.length < used) return -1;
    for (let i = 0; i < pairs.length; i += 2) this.add(pairs[i] ?? 0, pairs[i + 1] ?? 0);
    return used;
  }
}

function number12(block: Buffer, at: number): number {
  if (((block[at] ?? 0) & 0x80) !== 0) return Number(block.readBigUInt64BE(at + 4));
  const value = Number.parseInt(block.toString('latin1', at, at + 12).replace(/\0[^]*$/, '').trim(), 8);
  return Number.isNaN(value) ? -1 : value;
}
function readPairs(block: Buffer, from: number, count: number, file: SparseFile): void {
  for (let i = 0; i < count; i++) {
    const at = from + i * 24;
    if (block[at] === 0) return;
    file.add(number12(block, at), number12(block, at + 12));
  }
}

/** The sparse file that a header begins, undefined when it is an ordinary one. `stored` is the content's length in the archive. */
export function beginSparse(raw: RawHeader, block: Buffer, pax: ReadonlyMap<string, Buffer> | undefined, stored: number, sink: SparseSink): { file: SparseFile; size: number; path?: string } | undefined {
  if (raw.type === 'S') {
    const size = number12(block, 483);
    if (size < 0 || !Number.isSafeInteger(size)) throw badEntry(raw.path, 'its size is not a number');
    const file = new SparseFile(raw.path, size, sink, false);
    readPairs(block, 386, 4, file);
    file.wantsBlock = block[482] !== 0;
    return { file, size };
  }
  const value = (key: string): string | undefined => pax?.get(`GNU.sparse.${key}`)?.toString('latin1');
  const map = value('map');
  const major = value('major');
  if (map === undefined && major === undefined) return undefined;
  const size = parsePaxNumber('GNU.sparse.size', value('realsize') ?? value('size') ?? String(stored));
  const path = value('name');
  if (map === undefined && (major !== '1' || value('minor') !== '0')) throw badArchive(`sparse format ${major}.${value('minor')} is unknown`);
  const file = new SparseFile(path ?? raw.path, size, sink, map === undefined);
  if (map !== undefined && map !== '') {
    const numbers = map.split(',').map((text) => parsePaxNumber('GNU.sparse.map', text));
    for (let i = 0; i < numbers.length; i += 2) file.add(numbers[i] ?? 0, numbers[i + 1] ?? -1);
  }
  return { file, size, ...(path === undefined ? {} : { path }) };
}
