import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { fail, isEngineError } from '@engine/core/errors';
import { effect, op } from '@engine/core/plan';
import { goesWithStaging, type Effects } from '@engine/core/contracts/common';
import { type LayerTarget } from '@engine/core/contracts/storage';
import { EntryWriter } from './entries.ts';
import { decompress, detectCompression, followBlob, peek, type Compression } from './chunks.ts';
import { BrokenFeed, Feed, type MakePipe } from './feed.ts';
import { TarReader, type TarHandler } from './tar/reader.ts';
import { type StagedBlob } from './store.ts';

export interface Limits {
  /** Bytes that one image may unpack to. */
  readonly maxSize: number;
  readonly maxRatio: number;
  readonly maxEntries: number;
}

export interface LayerJob {
  /** For messages: what the archive calls it. */
  readonly what: string;
  readonly blob: StagedBlob;
  /** Compression that the media type promises (CVE-2021-41190); whatever it is when undefined. */
  readonly compression?: Compression;
  /** Digests it must have, `sha256:…`; unknown ones are only computed. */
  readonly digest?: string;
  readonly diffID?: string;
  readonly limits: Limits;
  readonly signal?: AbortSignal;
  readonly progress?: (bytes: number) => void;
}
export interface LayerFacts {
  /** Of the blob as stored, and of the tar inside. */
  readonly digest: string;
  readonly diffID: string;
  readonly compression: Compression;
  /** Bytes of file content. */
  readonly bytes: number;
  readonly blobSize: number;
  /** Bytes of the tar inside. */
  readonly tarSize: number;
}

/** Read a layer once: hash, decompress, parse, hand the entries to `handler`, verify. `flush` is awaited after every chunk. */
async function readLayer(job: LayerJob, handler: TarHandler, flush: () => Promise<void> | undefined, contentBytes: () => number): Promise<LayerFacts> {
  const { what, limits } = job;
  const outer = createHash('sha256');
  let blobSize = 0;
  let tarSize = 0;
  const hashed = async function* hashed(): AsyncGenerator<Buffer> {
    for await (const chunk of followBlob(job.blob, job.signal)) {
      outer.update(chunk);
      blobSize += chunk.length;
      job.progress?.(chunk.length);
      yield chunk;
    }
  };
  const source = hashed();
  try {
    const { head, all } = await peek(source);
    const compression = detectCompression(head, what);
    if (job.compression !== undefined && head.length > 0 && compression !== job.compression) {
      throw fail('ERR_IMAGE_INVALID', `${what}: the media type says ${job.compression === 'none' ? 'plain tar' : job.compression}, the content is ${compression === 'none' ? 'not compressed' : compression}`, { path: what });
    }
    // the diffID of a plain tar is its digest: hashed once
    const inner = compression === 'none' ? undefined : createHash('sha256');
    const reader = new TarReader(handler, limits);
    for await (const chunk of decompress(all, compression, what, limits.maxRatio)) {
      inner?.update(chunk);
      tarSize += chunk.length;
      reader.write(chunk);
      if (contentBytes() > limits.maxSize) throw fail('ERR_IMAGE_LIMIT', `${what} unpacks to more than ${limits.maxSize} bytes`, { path: what, hint: 'raise options.image-oci.maxSize if it is meant to' });
      await flush();
    }
    reader.end();
    const digest = `sha256:${outer.digest('hex')}`;
    const diffID = inner ? `sha256:${inner.digest('hex')}` : digest;
    if (job.digest !== undefined && digest !== job.digest) throw fail('ERR_DIGEST_MISMATCH', `${what} has digest ${digest}, not ${job.digest}`, { path: what });
    if (job.diffID !== undefined && diffID !== job.diffID) throw fail('ERR_DIGEST_MISMATCH', `${what} has diffID ${diffID}, not ${job.diffID}`, { path: what });
    return { digest, diffID, compression, bytes: contentBytes(), blobSize, tarSize };
  } finally {
    await source.return(undefined);
  }
}

/** Hash and parse only. */
export async function verifyLayer(job: LayerJob): Promise<LayerFacts> {
  const writer = new EntryWriter();
  return readLayer(job, writer, () => void writer.take(), () => writer.contentBytes);
}

/**
 * Verify a layer and unpack it into `target` in one pass. The stream's last frame is sent only after both digests were found right, so the
 * `unpack` operation of a wrong layer fails, and its tree goes with the undo.
 */
export async function unpackLayer(job: LayerJob, effects: Effects, makePipe: MakePipe, target: LayerTarget): Promise<LayerFacts> {
  const writer = new EntryWriter();
  const { read, write } = makePipe();
  const feed = new Feed(write);
  const { maxSize, maxEntries } = job.limits;
  const operation = op.unpack({ path: target.path, stream: 'fd0', whiteouts: target.whiteouts === 'overlay' ? 1 : 0, maxBytes: BigInt(maxSize), maxEntries });
  let refusal: unknown;
  const unpacked = effects
    .run([effect(operation, goesWithStaging)], { streams: [read], ...(job.signal ? { signal: job.signal } : {}) })
    .catch((error: unknown) => {
      refusal = error ?? new Error('unpack failed');
      feed.close();
    })
    .finally(() => closeSync(read));
  try {
    const facts = await readLayer(job, writer, () => {
      feed.push(writer.take());
      return feed.room();
    }, () => writer.contentBytes);
    writer.end();
    feed.push(writer.take());
    await feed.end();
    await unpacked;
    if (refusal === undefined) return facts;
  } catch (error) {
    feed.close();
    await unpacked;
    if (!(error instanceof BrokenFeed)) throw error;
  }
  throw explain(refusal ?? fail('ERR_SHIM_GONE', `${job.what} could not be unpacked`), job.what);
}

/** Errnos that say the archive is to blame and not the machine. */
const BLAMED = new Set(['ELOOP', 'EXDEV', 'ENOTDIR', 'EISDIR', 'EINVAL', 'ENAMETOOLONG', 'EEXIST', 'ENOENT', 'EBADMSG', 'E2BIG', 'EFBIG']);
function explain(error: unknown, what: string): unknown {
  if (!isEngineError(error, 'ERR_OPERATION_FAILED') || error.operation !== 'unpack' || !BLAMED.has(error.errno ?? '')) return error;
  const detail = error.data?.['detail'];
  return fail('ERR_TAR_ENTRY', `${what} cannot be unpacked${typeof detail === 'string' && detail !== '' ? `: ${detail}` : ''}`, { cause: error, operation: 'unpack', ...(error.errno ? { errno: error.errno } : {}) });
}
