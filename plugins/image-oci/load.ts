import { fail } from '@engine/core/errors';
import { type ImageInfo, type LoadRequest } from '@engine/core/contracts/image';
import { type DriverDeps, type Effects } from '@engine/core/contracts/common';
import { openArchive } from './archive.ts';
import { chainIDs, imageKey, nameKey, type ImageRecord, type Images } from './images.ts';
import { layerMediaType, MEDIA, parseConfig } from './manifest.ts';
import { readImages, type FoundImage, type FoundLayer } from './read-images.ts';
import { canonicalName, parseReference } from './reference.ts';
import { createStaging, digestOf, type Staging, type StagedBlob, type Store } from './store.ts';
import { bringLayers, type LayerTask, type UnpackContext } from './unpack.ts';

/** What load, import and unpack have in common. */
export interface Workshop {
  readonly store: Store;
  readonly images: Images;
  readonly log: DriverDeps['log'];
  /** GOARCH of this machine. */
  readonly architecture: string;
  readonly base: Pick<UnpackContext, 'makePipe' | 'limits' | 'parallel'>;
}
type RecordLayer = ImageRecord['layers'][number];

/** Load every image of an archive: all blobs verified and staged, all layers in `request.storage`, records and names set by the commit. */
export async function loadImages(shop: Workshop, effects: Effects, request: LoadRequest): Promise<readonly ImageInfo[]> {
  const { store, base, log } = shop;
  const { signal, progress } = request;
  const staging = await createStaging(store, effects, signal);
  let read = 0;
  const archive = await openArchive(request.path, request.stream, {
    staging, makePipe: base.makePipe, maxSize: base.limits.maxSize, maxRatio: base.limits.maxRatio,
    ...(signal ? { signal } : {}),
    progress: (bytes) => progress?.({ what: 'reading archive', done: (read += bytes) }),
  });
  if (read > 0) progress?.({ what: 'reading archive', done: read, finished: true });
  const loaded: ImageInfo[] = [];
  const fresh = new Map<string, RecordLayer>();
  const context: UnpackContext = { ...base, effects, storage: request.storage, ...(signal ? { signal } : {}), ...(progress ? { progress } : {}) };
  for (const found of await readImages(archive, shop.architecture)) {
    const record = await loadOne(shop, staging, found, fresh, context);
    effects.setState(imageKey(record.id), record);
    const names: string[] = [];
    for (const name of found.names) {
      try {
        const canonical = canonicalName(parseReference(name));
        effects.setState(nameKey(canonical), record.id);
        if (!names.includes(canonical)) names.push(canonical);
      } catch (error) {
        log.warn({ err: error, image: record.id }, 'a name in the archive is left out');
      }
    }
    loaded.push(shop.images.info(record, names));
  }
  staging.finish();
  return loaded;
}

async function loadOne(shop: Workshop, staging: Staging, found: FoundImage, fresh: Map<string, RecordLayer>, context: UnpackContext): Promise<ImageRecord> {
  const { store, images, log } = shop;
  const id = digestOf(found.config);
  const dropped: string[] = [];
  const config = parseConfig(found.config, found.what, dropped);
  if (dropped.length > 0) log.warn({ image: id, labels: dropped }, 'labels in the namespace of the engine are ignored: an image does not steer it');
  if (config.diffIDs.length !== found.layers.length) {
    throw fail('ERR_IMAGE_INVALID', `${found.what} has ${found.layers.length} layers, its config names ${config.diffIDs.length}`, { path: found.what });
  }
  if (config.architecture !== '' && config.architecture !== shop.architecture) log.warn({ image: id, architecture: config.architecture }, 'the image is for another architecture than this machine');
  const known = images.record(id);
  if (known) {
    const digests = [id, known.manifest, ...known.layers.map(({ digest }) => digest)];
    const held = await staging.hold(digests);
    if (digests.every((digest) => held.has(digest))) {
      await bringLayers(storedTasks(known, (digest) => staging.find(digest) ?? store.blob(digest)), context);
      return known;
    }
  }
  const chains = chainIDs(config.diffIDs);
  const layers: (RecordLayer | undefined)[] = chains.map(() => undefined);
  const wanted = new Set(found.layers.map(({ digest }, i) => digest ?? config.diffIDs[i]));
  const stored = images.records().flatMap((record) => record.layers).filter(({ digest, diffID }) => wanted.has(digest) || wanted.has(diffID));
  const held = await staging.hold(stored.map(({ digest }) => digest));
  const tasks = found.layers.map((layer, i): LayerTask => {
    const diffID = config.diffIDs[i] ?? '';
    const chainID = chains[i] ?? '';
    const parent = chains[i - 1];
    const same = (other: RecordLayer): boolean => (layer.digest === undefined ? other.diffID === diffID : other.digest === layer.digest && other.diffID === diffID);
    const there = fresh.get(layer.digest ?? diffID) ?? stored.find((other) => same(other) && held.has(other.digest));
    const place = { what: layer.what, diffID, chainID, ...(parent === undefined ? {} : { parent }) };
    if (there) {
      layers[i] = { ...there, chainID };
      return { ...place, digest: there.digest, verify: false, open: () => Promise.resolve(storedBlob(staging.find(there.digest) ?? store.blob(there.digest), there.size)) };
    }
    return {
      ...place,
      ...(layer.digest === undefined ? {} : { digest: layer.digest }),
      ...(layer.compression === undefined ? {} : { compression: layer.compression }),
      verify: true,
      open: () => stageLayer(staging, layer),
      done(facts, blob) {
        staging.keep(blob, facts.digest);
        const record: RecordLayer = { digest: facts.digest, size: facts.blobSize, bytes: facts.bytes, mediaType: layer.mediaType ?? layerMediaType(facts.compression), diffID, chainID };
        layers[i] = record;
        fresh.set(layer.digest ?? diffID, record);
      },
    };
  });
  await bringLayers(tasks, context);
  const complete = layers.filter((layer) => layer !== undefined);
  const manifest = found.manifest ?? composeManifest(found.config, complete);
  const [, manifestDigest = ''] = await staging.documents([found.config, manifest]);
  return {
    id, manifest: manifestDigest, architecture: config.architecture, config: config.config, layers: complete,
    size: complete.reduce((sum, { bytes }) => sum + bytes, 0),
    ...(config.created === undefined ? {} : { created: config.created }),
  };
}

async function stageLayer(staging: Staging, layer: FoundLayer): Promise<StagedBlob> {
  const { member, size, what } = layer;
  if (size !== undefined && member.size !== size) throw fail('ERR_DIGEST_MISMATCH', `${what} has ${member.size} bytes, its descriptor says ${size}`, { path: what });
  return member.stage(staging);
}
export function storedBlob(path: string, size: number): StagedBlob {
  return { path, size, written: Promise.resolve() };
}

/** Tasks for an image whose blobs are all here. */
export function storedTasks({ layers }: Pick<ImageRecord, 'layers'>, pathOf: (digest: string) => string): LayerTask[] {
  return layers.map(({ digest, diffID, chainID, size }, i) => ({
    what: `layer ${digest}`, chainID, diffID, digest, verify: false,
    open: () => Promise.resolve(storedBlob(pathOf(digest), size)),
    ...(i === 0 ? {} : { parent: layers[i - 1]?.chainID ?? '' }),
  }));
}

/** A manifest for an image that came without one. */
export function composeManifest(config: Buffer, layers: readonly Pick<RecordLayer, 'digest' | 'size' | 'mediaType'>[]): Buffer {
  return Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: digestOf(config), size: config.length },
    layers: layers.map(({ digest, size, mediaType }) => ({ mediaType, digest, size })),
  }));
}
