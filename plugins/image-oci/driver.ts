import { fail } from '@engine/core/errors';
import { type DriverDeps } from '@engine/core/contracts/common';
import { type ImageInfo, type ImageSource } from '@engine/core/contracts/image';
import { type MakePipe } from './feed.ts';
import { createImages, nameKey, type ImageRecord } from './images.ts';
import type { Workshop } from './load.ts';
import { platformArchitecture } from './manifest.ts';
import { canonicalName, parseReference } from './reference.ts';
import { historyOf, removeImage } from './remove.ts';
import { createStore } from './store.ts';

export interface ImageOciOptions {
  /** Most bytes one image may unpack to; default 64 GiB. */
  readonly maxSize?: number;
  /** Most bytes out of a compressed layer per byte in, from 64 MiB on; default 500. */
  readonly maxRatio?: number;
  /** Most entries of a layer; default 2,000,000. */
  readonly maxEntries?: number;
  /** Layers unpacked at a time; default 3. */
  readonly parallel?: number;
}

/**
 * Images in an OCI content store (`FOLDER/blobs/sha256`). `makePipe` makes the pipes that layers go through to the helper.
 * Blobs reach the store only by a commit. A removal, and the commit of a load, are made under a lock of the core (`image`, `store`), so
 * that no removal takes away what a load that is just being committed stands on.
 */
export function createImageOci(deps: DriverDeps, options: ImageOciOptions, makePipe: MakePipe): ImageSource {
  const { log, state, folder } = deps;
  const store = createStore(folder);
  const images = createImages(state, 'oci');
  const base = {
    makePipe,
    limits: { maxSize: options.maxSize ?? 64 * 2 ** 30, maxRatio: options.maxRatio ?? 500, maxEntries: options.maxEntries ?? 2_000_000 },
    parallel: options.parallel ?? 4,
  };
  const shop: Workshop = { store, images, log, base, architecture: platformArchitecture(deps.machine.architecture) };
  const need = (image: ImageInfo): ImageRecord => {
    const record = images.record(image.id);
    if (!record) throw fail('ERR_NO_SUCH_IMAGE', `no such image: ${image.names[0] ?? image.id}`, { path: image.id });
    return record;
  };

  return {
    name: 'oci',
    features: new Set(['load', 'import', 'history']),
    probe: () => ({ available: true, score: 50, reasons: [`content store in ${folder}`] }),

    async resolve(reference) {
      const found = images.find(reference);
      return found && images.info(found.record);
    },
    async list() {
      return images.records().map((record) => images.info(record)).toSorted((a, b) => (b.created ?? '').localeCompare(a.created ?? ''));
    },
    async unpack(effects, image, storage, { signal, progress }) {
      const [{ storedTasks }, { bringLayers }] = await Promise.all([import('./load.ts'), import('./unpack.ts')]);
      const context = { ...base, effects, storage, ...(signal ? { signal } : {}), ...(progress ? { progress } : {}) };
      await bringLayers(storedTasks(need(image), store.blob), context);
    },
    // node-tar and the readers are loaded when they are needed: looking an image up is on the way of every start
    async load(effects, request) {
      const { loadImages } = await import('./load.ts');
      return loadImages(shop, effects, request);
    },
    async importRootfs(effects, request) {
      const { importRootfs } = await import('./import.ts');
      return importRootfs(shop, effects, request);
    },
    async tag(image, reference) {
      const parsed = parseReference(reference);
      if (parsed.digest !== undefined) throw fail('ERR_INVALID_VALUE', `an image cannot be given a digest as its name: ${reference}`, { path: reference });
      state.set(nameKey(canonicalName(parsed)), need(image).id);
    },
    async remove(effects, reference, request) {
      return removeImage(store, images, effects, reference, request);
    },
    async history(image) {
      return historyOf(store, need(image));
    },
  };
}
