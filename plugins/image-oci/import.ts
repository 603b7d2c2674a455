import { closeSync, type Stats } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { fail, isEngineError } from '@engine/core/errors';
import { reach, uniqueName, type Effects } from '@engine/core/contracts/common';
import { type ImageInfo, type ImportRequest } from '@engine/core/contracts/image';
import { streamChunks } from './archive.ts';
import { applyChanges } from './changes.ts';
import { BrokenFeed, Feed } from './feed.ts';
import { imageKey, nameKey, type ImageRecord } from './images.ts';
import { unpackLayer } from './layer.ts';
import { composeManifest, type Workshop } from './load.ts';
import { layerMediaType } from './manifest.ts';
import { canonicalName, parseReference } from './reference.ts';
import { createStaging, type StagedBlob, type Staging } from './store.ts';

/** A rootfs tar (gzip, zstd, plain; file or stream) becomes an image of one layer, stored as it came. */
export async function importRootfs(shop: Workshop, effects: Effects, request: ImportRequest): Promise<ImageInfo> {
  const { base, store } = shop;
  const { storage, signal, progress, path } = request;
  // what can be wrong with the command line is found before anything is read
  const config = applyChanges({}, request.changes);
  const reference = request.reference === undefined ? undefined : parseReference(request.reference);
  if (reference?.digest !== undefined) throw fail('ERR_INVALID_VALUE', `an image cannot be given a digest as its name: ${request.reference}`, { path: request.reference ?? '' });
  const staging = await createStaging(store, effects, signal);
  const blob = await stageInput(shop, staging, request);
  const what = path ?? 'standard input';
  let done = 0;
  const total = blob.size === undefined ? {} : { total: blob.size };
  const token = uniqueName();
  const facts = await unpackLayer(
    { what, blob, limits: base.limits, ...(signal ? { signal } : {}), progress: (bytes) => progress?.({ what: 'importing', done: (done += bytes), ...total }) },
    effects, base.makePipe, await storage.prepareLayer(effects, { token }),
  );
  await blob.written;
  // what came before in a pipe has failed, mostly, perhaps ahead of a compressor; a tar with nothing in it still has its end mark
  if (facts.tarSize === 0) {
    throw fail('ERR_IMAGE_INVALID', facts.blobSize === 0 ? `${what} is empty; a tar archive is needed` : `${what} is empty once decompressed (${facts.compression}); a tar archive is needed`, {
      path: what, hint: path === undefined ? 'see what the command before it in the pipe says; for an image without files: tar -cT /dev/null | engine import -' : 'for an image without files: tar -cT /dev/null | engine import -',
    });
  }
  await storage.commitLayer(effects, { token, chainID: facts.diffID });
  staging.keep(blob, facts.digest);
  progress?.({ what: 'importing', done, ...total, finished: true });

  const created = new Date().toISOString();
  const comment = request.message ?? `Imported from ${path ?? '-'}`;
  const document = Buffer.from(JSON.stringify({
    created, architecture: shop.architecture, os: 'linux', config,
    rootfs: { type: 'layers', diff_ids: [facts.diffID] },
    history: [{ created, comment }],
  }));
  const layer = { digest: facts.digest, mediaType: layerMediaType(facts.compression), size: facts.blobSize, bytes: facts.bytes, diffID: facts.diffID, chainID: facts.diffID };
  const [id = '', manifest = ''] = await staging.documents([document, composeManifest(document, [layer])]);
  const record: ImageRecord = { id, manifest, created, size: facts.bytes, architecture: shop.architecture, config, layers: [layer] };
  effects.setState(imageKey(id), record);
  const names = reference ? [canonicalName(reference)] : [];
  for (const name of names) effects.setState(nameKey(name), id);
  staging.finish();
  return shop.images.info(record, names);
}

async function stageInput({ base }: Workshop, staging: Staging, { path, stream, signal }: ImportRequest): Promise<StagedBlob> {
  if (path === undefined) {
    if (!stream) throw fail('ERR_INVALID_VALUE', 'nothing to import: neither a file nor a stream was given');
    return stageStream(staging, base, streamChunks(stream, signal));
  }
  let found: Stats | undefined;
  try {
    found = await reach('stat', path, () => stat(path));
  } catch (cause) {
    if (isEngineError(cause)) throw cause;
    const errno = (cause as NodeJS.ErrnoException).code;
    if (errno === 'ENOENT') throw fail('ERR_INVALID_VALUE', `no such file: ${path}`, { path });
    throw fail('ERR_INVALID_VALUE', `cannot read ${path}`, { path, cause, ...(errno ? { errno } : {}) });
  }
  if (found.isDirectory()) throw fail('ERR_INVALID_VALUE', `${path} is a folder; a tar archive is needed`, { path, hint: `use: tar -C ${path} -c . | engine import -` });
  if (found.isFile()) return staging.write({ kind: 'file', path, offset: 0, size: found.size });
  const file = await open(path, 'r');
  return stageStream(staging, base, streamChunks(file.createReadStream(), signal));
}

/** A stream of unknown length, read while the layer is unpacked from what has come so far. */
async function stageStream(staging: Staging, { makePipe, limits }: Workshop['base'], chunks: AsyncGenerator<Buffer>): Promise<StagedBlob> {
  const { read, write } = makePipe();
  const feed = new Feed(write);
  const staged = await staging.write({ kind: 'stream', fd: read, limit: limits.maxSize });
  const fed = (async (): Promise<void> => {
    for await (const chunk of chunks) {
      feed.push([chunk]);
      await feed.room();
    }
    await feed.end();
  })();
  fed.catch(() => {});
  const written = staged.written.finally(() => {
    feed.close();
    closeSync(read);
  });
  const both = Promise.allSettled([written, fed]).then(([helper, feeder]) => {
    // the helper's error explains a broken feed; a feed that failed by itself explains a short file
    if (helper.status === 'rejected') throw helper.reason;
    if (feeder.status === 'rejected' && !(feeder.reason instanceof BrokenFeed)) throw feeder.reason;
  });
  fed.catch(() => feed.close());
  both.catch(() => {});
  return { path: staged.path, written: both };
}
