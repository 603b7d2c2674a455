import { fail, isEngineError } from '../errors/index.ts';
import { type Images } from '../api/index.ts';
import { type Effects } from '../contracts/common/index.ts';
import { type ImageInfo, type ImageSource, type Progress } from '../contracts/image/index.ts';
import { type StorageDriver } from '../contracts/storage/index.ts';
import { defined, shortId, type Core } from './core.ts';
import { awaitGoing } from './finish.ts';
import { inspectImage } from './inspect.ts';
import { type ResolvedDriver } from './parts.ts';

export interface FoundImage { readonly image: ImageInfo; readonly source: ResolvedDriver<ImageSource> }

/** An image may not be removed while a container is made of it. */
export function imageLock(id: string): readonly [kind: string, id: string] {
  return ['image', id.replace(/[^A-Za-z0-9_.-]/g, '-')];
}

/**
 * No removal between what it finds unused and what it deletes, and no commit of a load in between: that load may stand on it. Reading an
 * archive, which takes long, needs no lock.
 */
export const storeLock = ['image', 'store'] as const;

/** The first source that knows it, in the order of the configuration. Errors: ERR_NO_SUCH_IMAGE, ERR_AMBIGUOUS. */
export async function findImage(core: Core, reference: string): Promise<FoundImage> {
  for (const source of await core.registry.all('image')) {
    const image = await source.driver.resolve(reference);
    if (image) return { image, source };
  }
  throw fail('ERR_NO_SUCH_IMAGE', `no such image: ${reference}`, { path: reference });
}

/** Unpack what the storage driver lacks of an image; a derived copy, so it is final by itself. */
export async function ensureUnpacked(core: Core, { image, source }: FoundImage, storage: StorageDriver, options: { progress?: Progress; signal?: AbortSignal } = {}): Promise<void> {
  if (image.rootfs.kind !== 'layers') return;
  const top = image.rootfs.layers.at(-1)?.chainID;
  if (top === undefined || (await storage.hasLayer(top))) return;
  if (!source.driver.unpack) throw fail('ERR_FEATURE_MISSING', `image source ${source.driver.name} cannot unpack its images`, { plugin: source.choice.plugin });
  await core.locked([['layer', top.replace(/^sha256:/, '')]], () => core.transact(`unpack image ${image.names[0] ?? image.id}`, async (transaction) => {
    if (!(await storage.hasLayer(top))) await source.driver.unpack?.(transaction.effects(source.choice.plugin), image, storage, options);
    await transaction.commit(() => {});
  }));
}

export function createImages(core: Core): Images {
  const { registry } = core;
  /** By the first source that can: read an archive, then commit what it has become, and tell. */
  const take = async (what: 'load' | 'import', can: 'load' | 'importRootfs', work: (driver: ImageSource, effects: Effects, storage: StorageDriver) => Promise<readonly ImageInfo[] | undefined>): Promise<readonly ImageInfo[]> => {
    const source = (await registry.all('image')).find((s) => s.driver[can]);
    if (!source) throw fail('ERR_FEATURE_MISSING', `no image source can ${what}`);
    const storage = (await registry.chosen('storage')).driver;
    return core.transact(`${what} images`, async (transaction) => {
      const images = (await work(source.driver, transaction.effects(source.choice.plugin), storage)) ?? [];
      await core.locked([storeLock], () => transaction.commit(() => {}));
      for (const image of images) core.emit('image', what, image.id, { name: image.names[0] ?? '' });
      return images;
    });
  };
  const usersOf = (id: string): string[] => core.parts.state.containers.list().filter((c) => c.image.id === id).map((c) => c.id);
  return {
    async list() {
      await core.request('image list', {});
      return (await Promise.all((await registry.all('image')).map((s) => s.driver.list()))).flat();
    },
    resolve: async (ref) => (await findImage(core, ref)).image,
    async load({ stream, ...options }) {
      await core.request('image load', defined({ path: options.path }));
      return take('load', 'load', async (driver, effects, storage) => driver.load?.(effects, { ...options, ...(stream && { stream }), storage }));
    },
    async import({ stream, ...options }) {
      await core.request('image import', defined({ path: options.path, reference: options.reference, changes: options.changes }));
      const [image] = await take('import', 'importRootfs', async (driver, effects, storage) => {
        const made = await driver.importRootfs?.(effects, { ...options, ...(stream && { stream }), storage });
        return made && [made];
      });
      return image as ImageInfo;
    },
    async tag(ref, name) {
      await core.request('image tag', { image: ref, name });
      const { image, source } = await findImage(core, ref);
      if (!source.driver.tag) throw fail('ERR_NOT_SUPPORTED', `image ${ref} cannot be tagged: it comes from source ${source.driver.name}`, { path: ref });
      await source.driver.tag(image, name);
      core.emit('image', 'tag', image.id, { name });
    },
    async remove(ref, { force }) {
      await core.request('image remove', { image: ref, force });
      const { image, source } = await findImage(core, ref);
      if (!source.driver.remove || source.driver.features.has('builtin')) throw fail('ERR_NOT_SUPPORTED', `image ${ref} is built in and cannot be removed`, { path: ref });
      await awaitGoing(core, usersOf(image.id));
      return core.locked([imageLock(image.id), storeLock], async () => {
        const usedBy = usersOf(image.id);
        if (usedBy.length > 0 && !force && image.names.length <= 1) {
          throw fail('ERR_IN_USE', `unable to remove image ${ref}: container ${usedBy.map(shortId).join(', ')} is using it`, { path: ref });
        }
        const storages = (await loadedStorages(core)).map(({ driver }) => driver);
        const lines = await core.transact(`remove image ${ref}`, async (transaction) => {
          const done = (await source.driver.remove?.(transaction.effects(source.choice.plugin), ref, { force, usedBy, storages })) ?? [];
          await transaction.commit((rows) => rows.countRemoval());
          return done;
        });
        for (const line of lines) core.emit('image', line.startsWith('Untagged') ? 'untag' : 'delete', image.id, { name: ref });
        return lines;
      });
    },
    async history(ref) {
      await core.request('image history', { image: ref });
      const { image, source } = await findImage(core, ref);
      return (await source.driver.history?.(image)) ?? [];
    },
    async inspect(ref) {
      await core.request('image inspect', { image: ref });
      return inspectImage(core, (await findImage(core, ref)).image);
    },
  };
}

/** Every storage driver that works here: an image's layers may lie in several. */
export async function loadedStorages(core: Core): Promise<ResolvedDriver<StorageDriver>[]> {
  const found: ResolvedDriver<StorageDriver>[] = [];
  for (const entry of core.registry.entries) {
    for (const { contract, driver } of entry.manifest.provides ?? []) {
      if (contract !== 'storage') continue;
      try {
        const storage = await core.registry.resolveDriver('storage', driver);
        if ((await storage.driver.probe(core.parts.machine)).available) found.push(storage);
      } catch (error) {
        if (!isEngineError(error)) throw error;
        core.parts.log.warn({ plugin: entry.manifest.name, err: error }, 'storage plugin left out');
      }
    }
  }
  return found;
}
