import path from 'node:path';
import { describeError } from '../errors/index.ts';
import { removeByRename } from '../contracts/common/index.ts';
import { names } from '../state/files.ts';
import { type Images } from '../api/index.ts';
import { type StorageDriver } from '../contracts/storage/index.ts';
import { type Core } from './core.ts';
import { loadedStorages, storeLock } from './images.ts';
import { type ResolvedDriver } from './parts.ts';

export interface OrphanLayer { readonly storage: ResolvedDriver<StorageDriver>; readonly chainID: string }

/**
 * Layers that no image has: a load made them, and was killed before it made the image. Nobody's, only when nothing is in flight (a load may
 * be about to need them) and when the image of every container is known (a layer does not say what stands on it).
 */
export async function orphanLayers(core: Core): Promise<readonly OrphanLayer[]> {
  const { state } = core.parts;
  if (state.inFlight()) return [];
  const images = (await Promise.all((await core.registry.all('image')).map((source) => source.driver.list()))).flat();
  const known = new Set(images.flatMap(({ rootfs }) => (rootfs.kind === 'layers' ? rootfs.layers.map(({ chainID }) => chainID) : [])));
  if (state.containers.list().some(({ rootfs: { chainID } }) => chainID !== undefined && !known.has(chainID))) return [];
  const all = await Promise.all((await loadedStorages(core)).map(async (storage) => (await storage.driver.listLayers()).map((chainID) => ({ storage, chainID }))));
  return all.flat().filter(({ chainID }) => !known.has(chainID));
}

/** Remove them; what was removed, in words. A layer is derived: should somebody miss it, it is unpacked again. */
export async function sweepLayers(core: Core): Promise<readonly string[]> {
  try {
    return await core.locked([storeLock], async () => {
      const layers = await orphanLayers(core);
      if (layers.length === 0) return [];
      await core.locked(layers.map(({ chainID }) => ['layer', chainID.replace(/^sha256:/, '')] as const), () => core.transact('remove layers of no image', async (transaction) => {
        for (const { storage, chainID } of layers) transaction.effects(storage.choice.plugin).onCommit(storage.driver.removeLayer(chainID));
        await transaction.commit(() => {});
      }));
      return layers.map(({ storage, chainID }) => `removed: ${storage.choice.driver} layer ${chainID}`);
    });
  } catch (error) {
    core.parts.log.warn({ err: error }, `layers of no image are left for later: ${describeError(error)}`);
    return [];
  }
}

/** Most snapshots of one container: filesystems of this machine's own root. */
const SNAPSHOTS = 32;

/** Remove what an ephemeral container has on disk when the power went before its row was there, and its run is lost with that boot. */
export async function sweepContainers(core: Core): Promise<readonly string[]> {
  const { state } = core.parts;
  const folder = path.dirname(core.folderOf('x'));
  const isUnknown = (id: string): boolean => state.containers.get(id) === undefined && state.runs.find(id) === undefined;
  const ids = names(folder).filter((id) => /^[0-9a-f]{64}$/.test(id) && isUnknown(id));
  if (ids.length === 0 || state.inFlight()) return [];
  const done: string[] = [];
  for (const id of ids) {
    const lock = await state.lock('container', id, { timeout: 0 }).catch(() => undefined);
    try {
      if (!lock || !isUnknown(id)) continue;
      const storages = await loadedStorages(core);
      await core.transact(`remove container ${id}, which has no row`, async (transaction) => {
        for (const { driver, choice } of storages) for (let i = 0; i < SNAPSHOTS; i++) transaction.effects(choice.plugin).onCommit(driver.removeSnapshot(i === 0 ? id : `${id}-${i}`));
        transaction.effects('core').onCommit(removeByRename(path.join(folder, id), path.join(folder, '.trash')));
        await transaction.commit(() => {});
      });
      done.push(`removed: container ${id}, which has no row`);
    } finally {
      lock?.release();
    }
  }
  return done;
}

/** Loads and imports that fail take the layers with them that they have made so far. */
export function sweepingAfterFailure(core: Core, images: Images): Images {
  const sweeping = <T>(work: Promise<T>): Promise<T> => work.catch((error: unknown) => sweepLayers(core).then(() => Promise.reject(error)));
  return { ...images, load: (options) => sweeping(images.load(options)), import: (options) => sweeping(images.import(options)) };
}
