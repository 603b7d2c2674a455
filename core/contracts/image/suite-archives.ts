import assert from 'node:assert/strict';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type SuiteCase } from '../common/suite.ts';
import { dockerArchive, imageConfig, ociArchive, ociFiles, ociLayout, sha256, tar, type TarFile, type TestImage } from './archives.ts';
import { type ImageContext } from './suite.ts';

const base = tar([{ path: 'etc/', type: '5' }, { path: 'etc/os', content: 'base' }, { path: 'old', content: 'old' }, { path: 'bin/big', content: Buffer.alloc(3 << 20, 'big') }]);
const top = tar([{ path: 'etc/os', content: 'top' }, { path: '.wh.old' }, { path: 'new', content: 'new' }]);
const plain: TestImage = { layers: [{ tar: base }, { tar: top }], names: ['example/app:1'], config: { Cmd: ['sh'], Env: ['A=1'], Labels: { mine: 'yes' } } };
const gzip = (data: Buffer): TestImage['layers'][number] => ({ tar: data, blob: gzipSync(data, { level: 1 }), mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip' });
const zstd = (data: Buffer): TestImage['layers'][number] => ({ tar: data, blob: zstdCompressSync(data), mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd' });

async function isLoaded(context: ImageContext, name = 'example/app:1'): Promise<void> {
  const image = await context.image(name);
  assert.equal(image.rootfs.kind, 'layers');
  assert.equal(image.id, sha256(imageConfig(plain)));
  assert.deepEqual(image.config, { Cmd: ['sh'], Env: ['A=1'], Labels: { mine: 'yes' } });
  assert.deepEqual(image.rootfs.layers.map(({ diffID }) => diffID), [sha256(base), sha256(top)]);
  assert.equal(image.rootfs.layers[0]?.chainID, sha256(base));
  assert.equal(image.rootfs.layers[1]?.chainID, sha256(Buffer.from(`${sha256(base)} ${sha256(top)}`)));
  assert.equal(image.size, 'base'.length + 'old'.length + (3 << 20) + 'topnew'.length);
  assert.equal(context.read(image, 0, 'etc/os'), 'base');
  assert.equal(context.read(image, 1, 'etc/os'), 'top');
  assert.equal(context.read(image, 0, 'bin/big').length, 3 << 20);
  assert.deepEqual(context.kept().other, []);
}
const loadCase = (name: string, request: (context: ImageContext) => { path?: string; stream?: NodeJS.ReadableStream }, reference?: string): SuiteCase<ImageContext> => ({
  name: `loads ${name}`,
  needs: ['load'],
  async run(context) {
    const loaded = await context.load(request(context));
    assert.deepEqual(loaded.map(({ names }) => names), [[reference ?? 'example/app:1']]);
    await isLoaded(context, reference);
  },
});
const oci = ociArchive(ociLayout([plain]));
const refuseCase = (name: string, content: () => Buffer, code: Parameters<ImageContext['refuses']>[1], pattern?: RegExp): SuiteCase<ImageContext> => ({
  name: `refuses ${name}, and nothing of it stays`,
  needs: ['load'],
  run: (context) => context.refuses(content(), code, pattern),
});
/** One good layer, and this one. */
const withLayer = (files: readonly TarFile[]): Buffer => dockerArchive([{ layers: [{ tar: base }, { tar: tar(files) }], names: ['evil'] }]);
function ociWith(image: TestImage, change: (layout: ReturnType<typeof ociLayout>) => void): Buffer {
  const layout = ociLayout([image]);
  change(layout);
  return ociArchive(layout);
}
const blobPath = (data: Buffer): string => `blobs/sha256/${sha256(data).slice(7)}`;

/** What is read, and what is refused. */
export const archiveCases: readonly SuiteCase<ImageContext>[] = [
  loadCase('a docker-archive', (context) => ({ path: context.file(dockerArchive([plain])) })),
  loadCase('a docker-archive from a stream', (context) => ({ stream: context.stream(dockerArchive([plain])) })),
  loadCase('a docker-archive from a stream in tiny pieces', (context) => ({ stream: context.stream(dockerArchive([{ ...plain }]), 777) })),
  loadCase('a gzipped docker-archive', (context) => ({ path: context.file(gzipSync(dockerArchive([plain]))) })),
  loadCase('a zstd docker-archive from a stream', (context) => ({ stream: context.stream(zstdCompressSync(dockerArchive([plain]))) })),
  loadCase('an oci-archive', (context) => ({ path: context.file(oci) })),
  loadCase('an oci-archive from a stream', (context) => ({ stream: context.stream(oci) })),
  loadCase('an OCI folder', (context) => ({ path: context.folder(ociFiles(ociLayout([plain]))) })),
  loadCase('an OCI folder with a tag only, under the folder\'s name', (context) => ({ path: context.folder(ociFiles(ociLayout([{ ...plain, names: ['v2'] }])), 'box') }), 'box:v2'),
  loadCase('layers in gzip and zstd', (context) => ({ path: context.file(ociArchive(ociLayout([{ ...plain, layers: [gzip(base), zstd(top)] }]))) })),
  loadCase('compressed layers in a docker-archive', (context) => ({ path: context.file(dockerArchive([{ ...plain, layers: [zstd(base), gzip(top)] }])) })),
  {
    name: 'loads what is docker-archive and OCI layout at once, under the names of both (docker save since 25)',
    needs: ['load'],
    async run(context) {
      const layout = ociLayout([{ ...plain, names: ['1'] }]);
      const index = layout.manifests.map((item) => ({ ...item, annotations: { ...item.annotations, 'io.containerd.image.name': 'docker.io/example/app:1' } }));
      const manifest = [{ Config: blobPath(imageConfig(plain)), RepoTags: ['example/app:1', 'localhost:5000/both:2'], Layers: [blobPath(base), blobPath(top)] }];
      const files = new Map([...ociFiles({ files: layout.files, manifests: index }), ['manifest.json', Buffer.from(JSON.stringify(manifest))]]);
      const loaded = await context.loadBytes(tar([...files].map(([path, content]) => ({ path, content }))));
      assert.deepEqual(loaded.map(({ names }) => names), [['example/app:1', 'localhost:5000/both:2']]);
      await isLoaded(context);
      assert.equal((await context.image('example/app:1')).digest, layout.manifests[0]?.digest);
    },
  },
  {
    name: 'loads into a storage whose layers begin as their parent\'s, whiteouts applied',
    needs: ['load'],
    async run(context) {
      await context.loadBytes(oci, context.dependent);
      const image = await context.image('example/app:1');
      assert.equal(context.read(image, 1, 'etc/os', context.dependent), 'top');
      assert.equal(context.read(image, 1, 'bin/big', context.dependent).length, 3 << 20);
      assert.throws(() => context.read(image, 1, 'old', context.dependent));
      assert.equal(context.read(image, 0, 'old', context.dependent), 'old');
    },
  },
  {
    name: 'chooses the image for this machine in nested indexes, and leaves attestations aside',
    needs: ['load'],
    async run(context) {
      const other = ociLayout([{ ...plain, architecture: 'mips' }]);
      const right = ociLayout([plain]);
      const platform = (architecture: string): Record<string, string> => ({ os: architecture === 'unknown' ? 'unknown' : 'linux', architecture });
      const inner = Buffer.from(JSON.stringify({
        schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json',
        manifests: [{ ...other.manifests[0], platform: platform('mips') }, { ...right.manifests[0], platform: platform(process.arch === 'arm64' ? 'arm64' : 'amd64') }, { ...other.manifests[0], platform: platform('unknown') }],
      }));
      const files = new Map([...other.files, ...right.files, [blobPath(inner), inner]]);
      const manifests = [{ mediaType: 'application/vnd.oci.image.index.v1+json', digest: sha256(inner), size: inner.length, annotations: { 'io.containerd.image.name': 'docker.io/example/app:1' } }];
      await context.loadBytes(ociArchive({ files, manifests }));
      await isLoaded(context);
    },
  },
  refuseCase('an index without an image for this machine', () => {
    const layout = ociLayout([{ ...plain, architecture: 'mips' }]);
    const inner = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: layout.manifests.map((item) => ({ ...item, platform: { os: 'linux', architecture: 'mips' } })) }));
    return ociArchive({ files: new Map([...layout.files, [blobPath(inner), inner]]), manifests: [{ mediaType: 'application/vnd.oci.image.index.v1+json', digest: sha256(inner), size: inner.length }] });
  }, 'ERR_IMAGE_INVALID', /only for linux\/mips/),
  {
    name: 'loads several images of one archive, shared layers once',
    needs: ['load'],
    async run(context) {
      const second: TestImage = { ...plain, names: ['example/app:2', 'other'], config: { Cmd: ['other'] } };
      const loaded = await context.loadBytes(dockerArchive([plain, second]));
      assert.deepEqual(loaded.map(({ names }) => names), [['example/app:1'], ['example/app:2', 'other:latest']]);
      assert.equal(context.storage.prepared.length, 2);
      await isLoaded(context);
      assert.equal((await context.source.list()).length, 2);
    },
  },
  {
    name: 'loads one file twice at the same time',
    needs: ['load'],
    async run(context) {
      const path = context.file(oci);
      await Promise.all([context.load({ path }), context.load({ path })]);
      await isLoaded(context);
      assert.equal((await context.source.list()).length, 1);
    },
  },
  {
    name: 'says how far it is',
    needs: ['load'],
    async run(context) {
      const seen = new Map<string, { done: number; total?: number; finished?: boolean }>();
      await context.load({ path: context.file(oci), progress: (event) => void seen.set(event.what, event) });
      assert.deepEqual(seen.get(sha256(base).slice(7, 19)), { what: sha256(base).slice(7, 19), done: base.length, total: base.length, finished: true });
    },
  },
  {
    name: 'stops when told to',
    needs: ['load'],
    async run(context) {
      await assert.rejects(context.load({ path: context.file(oci), signal: AbortSignal.abort(new Error('enough')) }), /enough/);
      assert.deepEqual(context.kept(), { blobs: [], other: [], state: [] });
    },
  },
  {
    name: 'drops labels that would steer the engine (CVE-2026-53488)',
    needs: ['load'],
    async run(context) {
      await context.loadBytes(dockerArchive([{ ...plain, config: { Labels: { 'engine.log.uri': 'binary:///bin/sh', 'io.engine.x': '1', 'Engine.y': '2', engineer: 'me', 'com.engine.x': 'z' } } }]));
      assert.deepEqual((await context.image('example/app:1')).config.Labels, { engineer: 'me', 'com.engine.x': 'z' });
    },
  },
  refuseCase('a layer that was changed', () => ociWith({ ...plain, layers: [{ tar: base }, gzip(top)] }, ({ files }) => {
    const data = Buffer.from(files.get(blobPath(base)) ?? '');
    data[1026] = (data[1026] ?? 0) ^ 1;
    files.set(blobPath(base), data);
  }), 'ERR_DIGEST_MISMATCH'),
  refuseCase('a layer that is not the one the config names', () => dockerArchive([{ ...plain, diffIDs: [sha256(base), sha256(base)] }]), 'ERR_DIGEST_MISMATCH', /diffID/),
  refuseCase('a config that was changed', () => ociWith(plain, ({ files }) => void files.set(blobPath(imageConfig(plain)), Buffer.from(imageConfig(plain).toString().replace('"sh"', '"ss"')))), 'ERR_DIGEST_MISMATCH'),
  refuseCase('fewer layers than the config names', () => dockerArchive([{ ...plain, diffIDs: [sha256(base)] }]), 'ERR_IMAGE_INVALID'),
  refuseCase('a layer whose media type lies (CVE-2021-41190)', () => ociArchive(ociLayout([{ ...plain, layers: [{ tar: base, mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip' }] }])), 'ERR_IMAGE_INVALID', /media type/),
  refuseCase('a manifest that is an index too (CVE-2021-41190)', () => ociWith(plain, (layout) => {
    const [manifest] = layout.manifests;
    const document = JSON.parse(layout.files.get(`blobs/sha256/${manifest?.digest.slice(7)}`)?.toString() ?? '') as object;
    const both = Buffer.from(JSON.stringify({ ...document, manifests: [] }));
    layout.files.set(blobPath(both), both);
    layout.manifests = [{ mediaType: manifest?.mediaType ?? '', digest: sha256(both), size: both.length }];
  }), 'ERR_IMAGE_INVALID'),
  refuseCase('an artifact that is no image', () => ociWith({ ...plain, layers: [{ tar: base, mediaType: 'text/plain' }] }, () => {}), 'ERR_IMAGE_INVALID'),
  refuseCase('an archive without a blob it names', () => ociWith(plain, ({ files }) => void files.delete(blobPath(top))), 'ERR_IMAGE_INVALID', /lacks/),
  refuseCase('an archive that is cut off', () => dockerArchive([plain]).subarray(0, 2 << 20), 'ERR_IMAGE_INVALID'),
  refuseCase('damaged compression', () => {
    const data = gzip(base);
    const cut = data.blob?.subarray(0, data.blob.length - 20) ?? Buffer.alloc(0);
    return ociArchive(ociLayout([{ ...plain, layers: [{ ...data, blob: cut }], diffIDs: [sha256(base)] }]));
  }, 'ERR_IMAGE_INVALID'),
  refuseCase('an archive that is no image', () => tar([{ path: 'etc/passwd', content: 'x' }]), 'ERR_IMAGE_INVALID', /neither index.json nor manifest.json/),
  refuseCase('what is no archive', () => Buffer.alloc(5000, 'text'), 'ERR_IMAGE_INVALID'),
  refuseCase('an empty file', () => Buffer.alloc(0), 'ERR_IMAGE_INVALID'),
  refuseCase('xz', () => Buffer.concat([Buffer.from('fd377a585a0000', 'hex'), Buffer.alloc(2000)]), 'ERR_IMAGE_INVALID', /xz/),
  refuseCase('a layer that unpacks to far more than it is (CVE-2017-14992)', () => {
    const bomb = tar([{ path: 'zeros', content: Buffer.alloc(70 << 20) }]);
    return ociArchive(ociLayout([{ ...plain, layers: [{ ...gzip(base), tar: bomb, blob: gzipSync(bomb, { level: 9 }) }] }]));
  }, 'ERR_IMAGE_LIMIT'),
  refuseCase('an entry with ..', () => withLayer([{ path: 'fine', content: 'x' }, { path: '../../evil', content: 'x' }]), 'ERR_TAR_ENTRY', /\.\.\/\.\.\/evil/),
  refuseCase('a hard link out of the layer', () => withLayer([{ path: 'x', type: '1', link: '../../../etc/shadow' }]), 'ERR_TAR_ENTRY'),
  refuseCase('a whiteout outside of its folder', () => withLayer([{ path: 'a/.wh...' }]), 'ERR_TAR_ENTRY'),
  refuseCase('a name with NUL', () => withLayer([{ path: 'x', pax: [['path', 'a\0b']] }]), 'ERR_TAR_ENTRY'),
  refuseCase('a PAX header without end', () => withLayer([{ path: 'x', type: 'x', size: 2 ** 33 }]), 'ERR_IMAGE_LIMIT'),
];
