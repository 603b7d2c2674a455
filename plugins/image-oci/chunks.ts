import { open, type FileHandle } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Transform } from 'node:stream';
import { fail, isEngineError } from '@engine/core/errors';
import { type StagedBlob } from './store.ts';
import { ZstdFrames } from './zstd.ts';

/** Bytes per read: hashing them takes half a millisecond on a slow machine, in which nobody else is served. */
export const CHUNK = 256 << 10;
/** Ratio limits count from this many bytes out: small files of zeros compress a thousandfold. */
const RATIO_FROM = 64 << 20;

/**
 * The bytes of a blob, also while it is still being written: so verifying and unpacking go on while the disk syncs. A chunk is valid until
 * the next one is asked for: two buffers serve the whole blob.
 * Does not wait for the sync itself: await `written` before relying on the blob. Errors: whatever `written` rejects with.
 */
export async function* followBlob(blob: StagedBlob, signal?: AbortSignal): AsyncGenerator<Buffer> {
  let finished = false;
  let failure: unknown;
  void blob.written.then(
    () => void (finished = true),
    (error: unknown) => {
      finished = true;
      failure = error ?? new Error('the blob could not be written');
    },
  );
  let file: FileHandle | undefined;
  let position = 0;
  const buffers = [Buffer.allocUnsafeSlow(CHUNK), Buffer.allocUnsafeSlow(CHUNK)] as const;
  let turn = 0;
  const readNext = (): Promise<Buffer> | undefined => {
    const buffer = buffers[(turn ^= 1) as 0 | 1];
    return file?.read(buffer, 0, CHUNK, position).then(({ bytesRead }) => buffer.subarray(0, bytesRead));
  };
  let ahead: Promise<Buffer> | undefined;
  let aheadIsLast = false;
  try {
    for (;;) {
      signal?.throwIfAborted();
      // a read that began before the end was known says nothing about the end
      const last = ahead ? aheadIsLast : finished;
      if (failure !== undefined) throw failure;
      file ??= await openIfThere(blob.path);
      const chunk = await (ahead ?? readNext());
      ahead = undefined;
      if (chunk && chunk.length > 0) {
        position += chunk.length;
        // the disk works while this chunk is being hashed
        aheadIsLast = finished;
        ahead = readNext();
        ahead?.catch(() => {});
        yield chunk;
      } else if (last || (blob.size !== undefined && position >= blob.size)) break;
      else await sleep(2);
    }
    if (!file) throw fail('ERR_STATE', `a blob is missing: ${blob.path}`, { path: blob.path });
  } finally {
    await ahead?.catch(() => {});
    await file?.close();
  }
}
async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

export type Compression = 'none' | 'gzip' | 'zstd';
const FOREIGN: readonly (readonly [magic: string, name: string])[] = [['425a68', 'bzip2'], ['fd377a585a00', 'xz'], ['04224d18', 'lz4'], ['504b0304', 'zip']];

/** How content is compressed, by its first bytes. Errors: ERR_IMAGE_INVALID for what images do not use. */
export function detectCompression(head: Buffer, what: string): Compression {
  const hex = head.subarray(0, 6).toString('hex');
  if (hex.startsWith('1f8b')) return 'gzip';
  // a zstd frame, or a skippable frame before one
  if (hex.startsWith('28b52ffd') || /^5.2a4d18/.test(hex)) return 'zstd';
  for (const [magic, name] of FOREIGN) {
    if (hex.startsWith(magic)) throw fail('ERR_IMAGE_INVALID', `${what} is compressed with ${name}; gzip, zstd and plain tar are understood`, { path: what });
  }
  return 'none';
}

/** Take the first chunk off, to look at it; the returned chunks begin with it. Closing `chunks` stays the caller's. */
export async function peek(chunks: AsyncGenerator<Buffer>): Promise<{ head: Buffer; all: AsyncGenerator<Buffer> }> {
  const first = await chunks.next();
  const head = first.done ? Buffer.alloc(0) : first.value;
  return {
    head,
    all: (async function* all() {
      if (!first.done) yield first.value;
      yield* chunks;
    })(),
  };
}

/** A write is done when its bytes have been used: before that no other chunk may be asked for, because its buffer comes again. */
const OPTIONS = { chunkSize: CHUNK, writableHighWaterMark: 1 };

/** Decompress. Errors: ERR_IMAGE_INVALID damaged, ERR_IMAGE_LIMIT more than `maxRatio` times as much comes out as went in. */
export async function* decompress(chunks: AsyncGenerator<Buffer>, compression: Compression, what: string, maxRatio: number): AsyncGenerator<Buffer> {
  if (compression === 'none') {
    yield* chunks;
    return;
  }
  let bytesIn = 0;
  let bytesOut = 0;
  const counted = (async function* count(): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      bytesIn += chunk.length;
      yield chunk;
    }
  })();
  const checked = async function* checked(unzip: Transform, input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const fed = pipeline(input, unzip);
    fed.catch(() => {});
    try {
      for await (const chunk of unzip as AsyncIterable<Buffer>) {
        bytesOut += chunk.length;
        if (bytesOut > RATIO_FROM && bytesOut > bytesIn * maxRatio) {
          throw fail('ERR_IMAGE_LIMIT', `${what} decompresses to more than ${maxRatio} times its size`, { path: what, hint: 'raise options.image-oci.maxRatio if it is meant to' });
        }
        yield chunk;
      }
      await fed;
    } finally {
      unzip.destroy();
    }
  };
  try {
    if (compression === 'gzip') yield* checked(createGunzip(OPTIONS), counted);
    else {
      const frames = new ZstdFrames(counted, what);
      while (await frames.next()) yield* checked(createZstdDecompress(OPTIONS), frames.frame());
    }
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (isEngineError(error) || (typeof code === 'string' && !/^(Z_|ZSTD_)/.test(code))) throw error;
    throw fail('ERR_IMAGE_INVALID', `${what} cannot be decompressed (${compression})`, { path: what, cause: error });
  }
}
