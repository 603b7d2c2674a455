import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { decompress, detectCompression } from './chunks.ts';

async function* pieces(data: Buffer, step: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += step) yield data.subarray(at, at + step);
}
async function unzip(data: Buffer, step = 100, ratio = 100): Promise<Buffer> {
  const out: Buffer[] = [];
  for await (const chunk of decompress(pieces(data, step), detectCompression(data, 'it'), 'it', ratio)) out.push(Buffer.from(chunk));
  return Buffer.concat(out);
}
const text = Buffer.from('some text, '.repeat(5000));
/** A zstd frame that decoders pass over; zstd:chunked puts its table of contents there. */
const skippable = Buffer.concat([Buffer.from('502a4d1804000000', 'hex'), Buffer.from('toc!')]);

describe('decompression', () => {
  it.each([
    ['plain', text], ['gzip', gzipSync(text)], ['zstd', zstdCompressSync(text)],
    ['gzip in members', Buffer.concat([gzipSync(text.subarray(0, 7000)), gzipSync(text.subarray(7000))])],
    ['zstd in frames', Buffer.concat([zstdCompressSync(text.subarray(0, 7000)), zstdCompressSync(text.subarray(7000))])],
    ['zstd with skippable frames', Buffer.concat([skippable, zstdCompressSync(text), skippable])],
  ])('of %s', async (_, data) => {
    for (const step of [1 << 20, 1000, 13]) expect((await unzip(data, step)).equals(text)).toBe(true);
  });
  it.each([['gzip', gzipSync(text)], ['zstd', zstdCompressSync(text)]])('notices damaged %s', async (_, data) => {
    const broken = Buffer.from(data);
    broken[data.length >> 1] = (broken[data.length >> 1] ?? 0) ^ 0xff;
    await expect(unzip(data.subarray(0, -10))).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' });
    // zstd without a checksum notices only some damage; the digest notices all
    if (detectCompression(data, '') === 'gzip') await expect(unzip(broken)).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' });
  });
  it('stops when far more comes out than went in', async () => {
    await expect(unzip(zstdCompressSync(Buffer.alloc(70 << 20)), 1 << 20)).rejects.toMatchObject({ code: 'ERR_IMAGE_LIMIT' });
  });
  it('never asks for a chunk while one before is in use', async () => {
    for (const data of [gzipSync(text), zstdCompressSync(text)]) {
      const shared = Buffer.alloc(50);
      const reused = (async function* reused(): AsyncGenerator<Buffer> {
        for (let at = 0; at < data.length; at += 50) {
          shared.fill(0xee);
          const n = data.copy(shared, 0, at, at + 50);
          yield shared.subarray(0, n);
        }
      })();
      const out: Buffer[] = [];
      for await (const chunk of decompress(reused, detectCompression(data, ''), 'it', 1000)) out.push(Buffer.from(chunk));
      expect(Buffer.concat(out).equals(text)).toBe(true);
    }
  });
  it('ends when nobody reads on', async () => {
    let closed = false;
    const source = (async function* endless(): AsyncGenerator<Buffer> {
      try {
        for (const data = gzipSync(text); ; ) yield data;
      } finally {
        closed = true;
      }
    })();
    for await (const chunk of decompress(source, 'gzip', 'it', 1e9)) if (chunk.length > 0) break;
    await source.return(undefined);
    expect(closed).toBe(true);
  });
});
