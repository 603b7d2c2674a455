import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { cutEverywhere, failsWith } from '../common/checks.ts';
import { type SuiteCase } from '../common/suite.ts';
import { dockerArchive, imageConfig, sha256, tar, type TestImage } from './archives.ts';
import { type ImageContext } from './suite.ts';

const base = tar([{ path: 'base', content: 'base' }]);
const one: TestImage = { layers: [{ tar: base }, { tar: tar([{ path: 'one', content: 'one' }]) }], names: ['one'] };
const two: TestImage = { layers: [{ tar: base }, { tar: tar([{ path: 'two', content: 'two' }]) }], names: ['two'] };
const idOf = (image: TestImage): string => sha256(imageConfig(image));
const chainOf = (image: TestImage): string => sha256(Buffer.from(image.layers.map((layer) => sha256(layer.tar)).join(' ')));

/** Names, removal, import, and what holds whatever breaks. */
export const objectCases: readonly SuiteCase<ImageContext>[] = [
  {
    name: 'finds an image by name, id, beginning of an id, and digest',
    needs: ['load'],
    async run(context) {
      await context.loadBytes(dockerArchive([one]));
      const image = await context.image('one');
      for (const reference of ['one:latest', 'docker.io/library/one', image.id, image.id.slice(7), image.id.slice(7, 13), image.id.slice(7, 8), `one@${image.digest}`]) {
        assert.deepEqual(await context.source.resolve(reference), image, reference);
      }
      assert.equal(await context.source.resolve('one:other'), undefined);
      assert.equal(await context.source.resolve(`other@${image.digest}`), undefined);
    },
  },
  {
    name: 'says so when the beginning of an id fits several images',
    needs: ['load'],
    async run(context) {
      const images = Array.from({ length: 17 }, (_, i): TestImage => ({ layers: [{ tar: base }], config: { Labels: { n: String(i) } } }));
      await context.loadBytes(dockerArchive(images));
      const first = images.map((image) => idOf(image)[7] ?? '');
      const twice = first.find((digit, i) => first.indexOf(digit) !== i) ?? '';
      await failsWith('ERR_AMBIGUOUS', () => context.source.resolve(twice));
    },
  },
  {
    name: 'gives and moves names',
    needs: ['load'],
    async run(context) {
      await context.loadBytes(dockerArchive([one, two]));
      assert.ok(context.source.tag);
      await context.source.tag(await context.image('one'), 'localhost:5000/x/y:z');
      assert.equal((await context.image('localhost:5000/x/y:z')).id, idOf(one));
      await context.source.tag(await context.image('two'), 'one');
      assert.equal((await context.image('one')).id, idOf(two));
      assert.deepEqual((await context.image('two')).names, ['one:latest', 'two:latest']);
      await failsWith('ERR_INVALID_VALUE', async () => context.source.tag?.(await context.image('two'), 'Not A Name'));
    },
  },
  {
    name: 'an image that is loaded again keeps its content and gets the names of both',
    needs: ['load'],
    async run(context) {
      await context.loadBytes(dockerArchive([one]));
      const before = context.kept().blobs;
      await context.loadBytes(dockerArchive([{ ...one, names: ['again'] }]));
      assert.deepEqual(context.kept().blobs, before);
      assert.deepEqual((await context.image('one')).names, ['again:latest', 'one:latest']);
      assert.equal(context.storage.prepared.length, 2);
    },
  },
  {
    name: 'unpacks into another storage, and again what a storage has lost',
    needs: ['load'],
    async run(context) {
      await context.loadBytes(dockerArchive([one]));
      const image = await context.image('one');
      assert.ok(context.source.unpack);
      await context.transact(async (effects) => context.source.unpack?.(effects, image, context.dependent, {}));
      assert.equal(context.read(image, 1, 'base', context.dependent), 'base');
      await context.transact(async (effects) => effects.onCommit(context.storage.removeLayer(chainOf(one))));
      await context.transact(async (effects) => context.source.unpack?.(effects, image, context.storage, {}));
      assert.equal(context.read(image, 1, 'one'), 'one');
      assert.equal(context.storage.prepared.length, 3);
    },
  },
  {
    name: 'removes a name, then the image, and leaves what others share',
    needs: ['load'],
    async run(context) {
      await context.loadBytes(dockerArchive([one, two]));
      await context.source.tag?.(await context.image('one'), 'alias');
      assert.deepEqual(await context.remove('alias'), ['Untagged: alias:latest']);
      assert.deepEqual(await context.remove('one'), ['Untagged: one:latest', `Deleted: ${idOf(one)}`, `Deleted: ${chainOf(one)}`]);
      assert.equal(await context.source.resolve('one'), undefined);
      assert.equal(existsSync(context.storage.layer(chainOf(one))), false);
      const image = await context.image('two');
      assert.equal(context.read(image, 0, 'base'), 'base');
      await context.transact(async (effects) => context.source.unpack?.(effects, image, context.dependent, {}));
      assert.deepEqual(await context.remove(image.id.slice(7, 20)), ['Untagged: two:latest', `Deleted: ${idOf(two)}`, `Deleted: ${chainOf(two)}`, `Deleted: ${sha256(base)}`]);
      assert.deepEqual(context.kept(), { blobs: [], other: [], state: [] });
      assert.deepEqual([...(await context.storage.listLayers()), ...(await context.dependent.listLayers())], []);
      await failsWith('ERR_NO_SUCH_IMAGE', () => context.remove('two'));
    },
  },
  {
    name: 'does not remove what is in use, or by id what has several names, unless forced',
    needs: ['load'],
    async run(context) {
      await context.loadBytes(dockerArchive([{ ...one, names: ['one', 'uno'] }]));
      await failsWith('ERR_IN_USE', () => context.remove(idOf(one)));
      assert.deepEqual(await context.remove('uno', { usedBy: ['c1'] }), ['Untagged: uno:latest']);
      await failsWith('ERR_IN_USE', () => context.remove('one', { usedBy: ['c1'] }));
      assert.deepEqual(await context.remove('one', { usedBy: ['c1'], force: true }), ['Untagged: one:latest']);
      assert.equal(context.read(await context.image(idOf(one)), 1, 'one'), 'one');
      assert.deepEqual(await context.remove(idOf(one)), [`Deleted: ${idOf(one)}`, `Deleted: ${chainOf(one)}`, `Deleted: ${sha256(base)}`]);
    },
  },
  {
    name: 'tells the history, newest first',
    needs: ['load', 'history'],
    async run(context) {
      await context.loadBytes(dockerArchive([{ ...one, history: [{ created: '2024-01-01T00:00:00Z', created_by: 'ADD base' }, { created_by: 'ENV x', empty_layer: true, comment: 'c' }, { created_by: 'RUN one' }] }]));
      const history = await context.source.history?.(await context.image('one'));
      assert.deepEqual(history?.map(({ createdBy, size, comment }) => [createdBy, size, comment]), [['RUN one', 3, ''], ['ENV x', 0, 'c'], ['ADD base', 4, '']]);
      assert.equal(history?.[0]?.id, (await context.image('one')).id);
    },
  },
  {
    name: 'imports a root filesystem from a file and from a stream',
    needs: ['import'],
    async run(context) {
      const changes = ['CMD ["sh", "-l"]', 'entrypoint /run it', 'ENV A=1 B="b c"', 'ENV C d e', 'EXPOSE 80 53/udp', 'LABEL x=y', 'USER app:extra', 'VOLUME /data', 'WORKDIR /srv', 'WORKDIR www', 'STOPSIGNAL SIGINT'];
      const image = await context.import({ path: context.file(gzipSync(base)), reference: 'mine:1', changes, message: 'by hand' });
      assert.deepEqual(image.config, {
        Cmd: ['sh', '-l'], Entrypoint: ['/bin/sh', '-c', '/run it'], Env: ['A=1', 'B=b c', 'C=d e'], ExposedPorts: { '80/tcp': {}, '53/udp': {} }, Labels: { x: 'y' },
        User: 'app:extra', Volumes: { '/data': {} }, WorkingDir: '/srv/www', StopSignal: 'SIGINT',
      });
      assert.deepEqual(image.names, ['mine:1']);
      assert.equal(image.rootfs.kind, 'layers');
      assert.equal(image.rootfs.layers[0]?.diffID, sha256(base));
      assert.equal(context.read(image, 0, 'base'), 'base');
      assert.equal((await context.source.history?.(image))?.[0]?.comment, 'by hand');
      const large = tar([{ path: 'large', content: Buffer.alloc(5 << 20, 'x') }]);
      const streamed = await context.import({ stream: context.stream(large, 60_000), storage: context.dependent });
      assert.equal(context.read(streamed, 0, 'large', context.dependent).length, 5 << 20);
      assert.deepEqual(streamed.names, []);
      assert.deepEqual(context.kept().other, []);
    },
  },
  {
    name: 'refuses an import that is wrong, and nothing of it stays',
    needs: ['import'],
    async run(context) {
      const path = context.file(base);
      for (const change of ['CMD', 'RUN x', 'ENV A', 'EXPOSE http', 'LABEL engine.x=y', 'STOPSIGNAL !', 'ENV "A=b', 'CMD []']) await failsWith('ERR_INVALID_VALUE', () => context.import({ path, changes: [change] }));
      await failsWith('ERR_INVALID_VALUE', () => context.import({ path, reference: 'Not A Name' }));
      await failsWith('ERR_INVALID_VALUE', () => context.import({ path: `${path}-not-there` }));
      await failsWith('ERR_TAR_ENTRY', () => context.import({ path: context.file(tar([{ path: '../x' }])) }));
      await failsWith('ERR_IMAGE_INVALID', () => context.import({ stream: context.stream(base.subarray(0, 514)) }));
      await failsWith('ERR_IMAGE_INVALID', () => context.import({ stream: context.stream(Buffer.alloc(0)) }));
      await failsWith('ERR_IMAGE_INVALID', () => context.import({ path: context.file(Buffer.alloc(0)) }));
      await failsWith('ERR_IMAGE_INVALID', () => context.import({ stream: context.stream(gzipSync(Buffer.alloc(0))) }));
      await failsWith('ERR_IMAGE_INVALID', () => context.import({ path: context.file(gzipSync(Buffer.alloc(0))) }));
      assert.deepEqual(context.kept(), { blobs: [], other: [], state: [] });
    },
  },
  ...(['fail', 'die'] as const).map((kind): SuiteCase<ImageContext> => ({
    name: kind === 'fail' ? 'an operation of load that fails leaves nothing' : 'an engine that dies during load leaves everything or nothing',
    needs: ['load', 'faults'],
    async run(context) {
      const { bench, source, storage } = context;
      const path = context.file(dockerArchive([one]));
      await cutEverywhere(bench, kind, {
        verb: async (effects) => {
          // one after another, so that the operations are the same each time
          await source.load?.(effects, { path, storage: context.dependent });
          await effects.commit();
        },
        check: async (at) => {
          const { blobs, other, state } = context.kept();
          assert.deepEqual(other, [], `before operation ${at}`);
          if (state.length > 0) {
            assert.equal(blobs.length, 4, `before operation ${at}`);
            await context.remove('one');
          } else assert.deepEqual(blobs, [], `before operation ${at}`);
          await context.transact(async (effects) => effects.onCommit((await storage.listLayers()).flatMap((chainID) => storage.removeLayer(chainID))));
        },
      });
      assert.equal(context.read(await context.image('one'), 1, 'one', context.dependent), 'one');
    },
  })),
  {
    name: 'an engine that dies during remove leaves everything or nothing',
    needs: ['load', 'faults'],
    async run(context) {
      const { bench, source, storage } = context;
      await cutEverywhere(bench, 'die', {
        prepare: async () => void (await context.loadBytes(dockerArchive([one]))),
        verb: async (effects) => {
          await source.remove?.(effects, 'one', { force: false, usedBy: [], storages: [storage] });
          await effects.commit();
        },
        check: () => assert.deepEqual(context.kept(), { blobs: [], other: [], state: [] }),
      });
    },
  },
];
