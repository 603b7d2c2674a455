import { ENTRY, MAX_DATA } from '../../plan/entries.ts';

/** An entry as a suite writes and compares it. */
export interface Entry {
  readonly kind: Exclude<keyof typeof ENTRY, 'data' | 'hole' | 'end'>;
  readonly path: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** ns since the epoch */
  readonly mtime?: bigint;
  readonly major?: number;
  readonly minor?: number;
  readonly link?: string;
  readonly xattrs?: Readonly<Record<string, Uint8Array>>;
  /** Content of a file; a number stands for that many bytes of hole. */
  readonly content?: readonly (string | Uint8Array | number)[];
}

const length32 = (n: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(n);
  return b;
};
const text = (value: string | Uint8Array): Buffer => {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([length32(bytes.length), bytes]);
};
function frame(kind: number, body: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt8(kind);
  head.writeUInt32LE(body.length, 4);
  return Buffer.concat([head, body]);
}
const sizeOf = (part: string | Uint8Array | number): number => (typeof part === 'number' ? part : Buffer.from(part as string).length);

/** Entries as the stream that operation `unpack` reads. */
export function encodeEntries(entries: readonly Entry[]): Buffer {
  const frames: Buffer[] = [];
  for (const entry of entries) {
    const { content = [], xattrs = {} } = entry;
    const head = Buffer.alloc(40);
    head.writeUInt32LE(entry.mode ?? (entry.kind === 'folder' ? 0o755 : 0o644));
    head.writeUInt32LE(entry.uid ?? 0, 4);
    head.writeUInt32LE(entry.gid ?? 0, 8);
    head.writeUInt32LE(Object.keys(xattrs).length, 12);
    head.writeBigInt64LE(entry.mtime ?? 1_000_000_000_000_000_000n, 16);
    head.writeBigUInt64LE(BigInt(content.reduce<number>((sum, part) => sum + sizeOf(part), 0)), 24);
    head.writeUInt32LE(entry.major ?? 0, 32);
    head.writeUInt32LE(entry.minor ?? 0, 36);
    const attributes = Object.entries(xattrs).flatMap(([name, value]) => [text(name), text(value)]);
    frames.push(frame(ENTRY[entry.kind], Buffer.concat([head, text(entry.path), text(entry.link ?? ''), ...attributes])));
    for (const part of content) {
      if (typeof part === 'number') {
        const hole = Buffer.alloc(8);
        hole.writeBigUInt64LE(BigInt(part));
        frames.push(frame(ENTRY.hole, hole));
      } else {
        const bytes = Buffer.from(part as string);
        for (let at = 0; at < bytes.length; at += MAX_DATA) frames.push(frame(ENTRY.data, bytes.subarray(at, at + MAX_DATA)));
      }
    }
  }
  frames.push(frame(ENTRY.end, Buffer.alloc(0)));
  return Buffer.concat(frames);
}

/** What `pack` wrote, by path; content as one byte string, holes filled with zeros and counted in `holes`. */
export interface PackedEntry extends Required<Omit<Entry, 'content'>> { readonly content: Buffer; readonly holes: number; readonly size: number }

export function decodeEntries(stream: Buffer): ReadonlyMap<string, PackedEntry> {
  const kinds = new Map<number, Entry['kind']>(Object.entries(ENTRY).map(([name, kind]) => [kind, name as Entry['kind']]));
  const entries = new Map<string, PackedEntry>();
  let last: PackedEntry | undefined;
  let at = 0;
  while (at < stream.length) {
    const kind = stream.readUInt8(at);
    const body = stream.subarray(at + 8, at + 8 + stream.readUInt32LE(at + 4));
    at += 8 + body.length;
    if (kind === ENTRY.end) return entries;
    if (kind === ENTRY.data || kind === ENTRY.hole) {
      const bytes = kind === ENTRY.data ? body : Buffer.alloc(Number(body.readBigUInt64LE(0)));
      if (last) last = { ...last, content: Buffer.concat([last.content, bytes]), holes: last.holes + (kind === ENTRY.hole ? bytes.length : 0) };
    } else {
      let place = 40;
      const next = (): Buffer => {
        const length = body.readUInt32LE(place);
        place += 4 + length;
        return body.subarray(place - length, place);
      };
      const path = next().toString();
      const link = next().toString();
      const xattrs: Record<string, Buffer> = {};
      for (let i = body.readUInt32LE(12); i > 0; i--) {
        const name = next().toString();
        xattrs[name] = Buffer.from(next());
      }
      last = {
        kind: kinds.get(kind) ?? 'file', path, link, xattrs, mode: body.readUInt32LE(0), uid: body.readUInt32LE(4), gid: body.readUInt32LE(8), mtime: body.readBigInt64LE(16),
        size: Number(body.readBigUInt64LE(24)), major: body.readUInt32LE(32), minor: body.readUInt32LE(36), content: Buffer.alloc(0), holes: 0,
      };
    }
    if (last) entries.set(last.kind === 'opaque' ? `${last.path}/.opaque` : last.path, last);
  }
  throw new Error('the stream ends without an end');
}
