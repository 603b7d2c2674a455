import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { type ErrorCode } from '../../errors/index.ts';
import { failsWith, listTree } from '../common/checks.ts';
import { type DriverDeps } from '../common/index.ts';
import { type Bench, type BenchEffects, type Suite, type SuiteContext } from '../common/suite.ts';
import { type StorageDriver } from '../storage/index.ts';
import { type ImageInfo, type ImageSource, type ImportRequest, type LoadRequest } from './index.ts';
import { archiveCases } from './suite-archives.ts';
import { folderStorage } from './suite-storage.ts';
import { objectCases } from './suite-objects.ts';

export * from './archives.ts';
export { decodeEntries, type PackedEntry } from '../storage/stream.ts';

/** What the suite needs to be told: where to run, and how the source is made. */
export interface ImageFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps, pipe: Bench['pipe']): ImageSource;
}

export class ImageContext implements SuiteContext {
  readonly bench: Bench;
  readonly source: ImageSource;
  /** Layers stand alone; a second storage whose layers begin as their parent's. */
  readonly storage: ReturnType<typeof folderStorage>;
  readonly dependent: ReturnType<typeof folderStorage>;
  #files = 0;

  constructor(bench: Bench, source: ImageSource) {
    this.bench = bench;
    this.source = source;
    this.storage = folderStorage(join(bench.folder, 'layers'), true);
    this.dependent = folderStorage(join(bench.folder, 'trees'), false);
  }
  has(need: string): boolean {
    return this.bench.abilities.has(need) || this.source.features.has(need);
  }
  close(): Promise<void> {
    return this.bench.close();
  }
  /** A file with this content. */
  file(content: Uint8Array, name = `archive-${this.#files++}.tar`): string {
    const path = join(this.bench.folder, name);
    writeFileSync(path, content);
    return path;
  }
  folder(files: ReadonlyMap<string, Buffer>, name = `folder-${this.#files++}`): string {
    for (const [file, content] of files) {
      mkdirSync(dirname(join(this.bench.folder, name, file)), { recursive: true });
      writeFileSync(join(this.bench.folder, name, file), content);
    }
    return join(this.bench.folder, name);
  }
  stream(content: Uint8Array, step = 10_000): Readable {
    const pieces = Array.from({ length: Math.ceil(content.length / step) }, (_, i) => Buffer.from(content.subarray(i * step, (i + 1) * step)));
    return Readable.from(pieces, { objectMode: false });
  }
  /** Run as the core does: commit, or roll back and throw. */
  async transact<T>(verb: (effects: BenchEffects) => Promise<T>, effects = this.bench.effects()): Promise<T> {
    let result: T;
    try {
      result = await verb(effects);
    } catch (error) {
      await effects.rollback();
      throw error;
    }
    await effects.commit();
    return result;
  }
  async load(request: Omit<LoadRequest, 'storage'> & { storage?: StorageDriver }): Promise<readonly ImageInfo[]> {
    assert.ok(this.source.load);
    return this.transact(async (effects) => this.source.load?.(effects, { storage: this.storage, ...request }) ?? []);
  }
  async loadBytes(content: Uint8Array, storage?: StorageDriver): Promise<readonly ImageInfo[]> {
    return this.load({ path: this.file(content), ...(storage ? { storage } : {}) });
  }
  async import(request: Omit<ImportRequest, 'storage' | 'changes'> & { storage?: StorageDriver; changes?: readonly string[] }): Promise<ImageInfo> {
    const image = await this.transact(async (effects) => this.source.importRootfs?.(effects, { storage: this.storage, changes: [], ...request }));
    assert.ok(image);
    return image;
  }
  async remove(reference: string, options: { force?: boolean; usedBy?: readonly string[]; storages?: readonly StorageDriver[] } = {}): Promise<readonly string[]> {
    return this.transact(async (effects) => this.source.remove?.(effects, reference, { force: false, usedBy: [], storages: [this.storage, this.dependent], ...options }) ?? []);
  }
  async image(reference: string): Promise<ImageInfo> {
    const found = await this.source.resolve(reference);
    assert.ok(found, `no image ${reference}`);
    return found;
  }
  /** Text of a file in a layer. */
  read(image: ImageInfo, layer: number, path: string, storage = this.storage): string {
    assert.equal(image.rootfs.kind, 'layers');
    const chainID = image.rootfs.layers.at(layer)?.chainID ?? '';
    return readFileSync(join(storage.layer(chainID), path), 'utf8');
  }
  /** Files that the source and the storages keep; layers that were committed before a failure are valid by themselves and are not counted. */
  kept(): { blobs: string[]; other: string[]; state: string[] } {
    const files = existsSync(this.bench.deps.folder) ? listTree(this.bench.deps.folder) : [];
    const isFile = (path: string): boolean => /[0-9a-f]{64}$/.test(path);
    const other = files.filter((path) => !isFile(path) && !['blobs', 'blobs/sha256', 'staging'].includes(path));
    const half = [this.storage, this.dependent].flatMap((storage) => (existsSync(storage.layer('')) ? listTree(storage.layer('')).filter((path) => path.startsWith('.new-')) : []));
    return { blobs: files.filter(isFile), other: [...other, ...half], state: this.bench.deps.state.list().map(({ key }) => key).sort() };
  }
  /** Loading this is refused, and nothing of it stays. */
  async refuses(content: Uint8Array | { readonly path: string }, code: ErrorCode, pattern?: RegExp): Promise<void> {
    for (const storage of [this.storage, this.dependent]) {
      const attempt = (): Promise<unknown> => (content instanceof Uint8Array ? this.loadBytes(content, storage) : this.load({ ...content, storage }));
      await failsWith(code, attempt);
      if (pattern) await assert.rejects(attempt, pattern);
    }
    assert.deepEqual(this.kept(), { blobs: [], other: [], state: [] });
    assert.deepEqual(await this.source.list(), []);
  }
}

/** Conformance of an image source. Level 1 runs on a fake machine; owners and special files are for the storage suite and e2e. */
export const imageSuite: Suite<ImageFactory, ImageContext> = {
  contract: 'image',
  cases: [
    {
      name: 'what is not there is undefined, not an error',
      needs: [],
      async run({ source }) {
        for (const name of ['no-such-image', 'no/such:tag', `sha256:${'0'.repeat(64)}`, 'not a name at all', '']) assert.equal(await source.resolve(name), undefined);
      },
    },
    {
      name: 'a built-in image is listed, found by its name, and cannot be removed',
      needs: ['builtin'],
      async run({ source }) {
        const images = await source.list();
        assert.ok(images.length > 0);
        for (const image of images) {
          assert.match(image.id, /^builtin:/);
          assert.equal(image.source, source.name);
          for (const name of image.names) assert.deepEqual(await source.resolve(name), image);
        }
        assert.equal(source.remove, undefined);
      },
    },
    {
      name: 'a root that is the host\'s begins with / and hides the engine',
      needs: ['host-root'],
      async run({ source, bench }) {
        const [image] = await source.list();
        assert.equal(image?.rootfs.kind, 'host');
        assert.equal(image.rootfs.filesystems[0]?.target, '/');
        for (const folder of [bench.deps.machine.root, bench.deps.machine.runRoot]) assert.ok(image.rootfs.hide.includes(folder));
      },
    },
    ...archiveCases,
    ...objectCases,
  ],
  async open(factory) {
    const bench = await factory.bench();
    return new ImageContext(bench, factory.create(bench.deps, () => bench.pipe()));
  },
};
