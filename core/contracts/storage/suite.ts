import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { op } from '../../plan/build.ts';
import { type Effect, type Operation } from '../../plan/types.ts';
import { cutEverywhere, failsWith, listTree } from '../common/checks.ts';
import { idmapObstacle, type DriverDeps, type Effects } from '../common/index.ts';
import { apply, applyOnCommit, type Bench, type Suite, type SuiteCase, type SuiteContext } from '../common/suite.ts';
import { type IdShift, type SnapshotRequest, type StorageDriver } from './index.ts';
import { decodeEntries, encodeEntries, type Entry, type PackedEntry } from './stream.ts';
import { contentCases } from './suite-content.ts';
import { idmapCases } from './suite-idmap.ts';

export { decodeEntries, encodeEntries, type Entry, type PackedEntry } from './stream.ts';

/** What the suite needs to be told: where to run, and how the driver is made. */
export interface StorageFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps): StorageDriver;
}

export class StorageContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: StorageDriver;
  #files = 0;

  constructor(bench: Bench, driver: StorageDriver) {
    this.bench = bench;
    this.driver = driver;
  }
  has(need: string): boolean {
    const { driver, bench: { deps } } = this;
    if (need === 'idmappable') return (driver.idmapObstacle ? driver.idmapObstacle({ key: 'k', lower: {} }) : idmapObstacle(deps.machine, deps.folder)) === undefined;
    if (need === 'shifts') return driver.shiftSnapshot !== undefined;
    return this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  close(): Promise<void> {
    return this.bench.close();
  }
  /** A chainID for tests: the same text, the same layer. */
  chainID(text: string): string {
    return `sha256:${createHash('sha256').update(text).digest('hex')}`;
  }
  /** Run `use` with an open file as stream `fd0`. */
  async #withFile(flags: string, content: Uint8Array | undefined, use: (fd: number) => Promise<void>): Promise<Buffer> {
    const path = join(this.bench.folder, `stream-${this.#files++}`);
    if (content) fs.writeFileSync(path, content);
    const fd = fs.openSync(path, flags);
    try {
      await use(fd);
      return fs.readFileSync(path);
    } finally {
      fs.closeSync(fd);
      fs.rmSync(path);
    }
  }
  /** Unpack `entries` into a prepared layer, as an image source does. */
  async unpack(effects: Effects, target: { readonly path: string; readonly whiteouts: 'overlay' | 'apply' }, entries: readonly Entry[]): Promise<void> {
    await this.#withFile('r', encodeEntries(entries), (fd) =>
      effects.run([{ operation: op.unpack({ path: target.path, stream: 'fd0', whiteouts: target.whiteouts === 'overlay' ? 1 : 0 }), undo: [], noUndo: 'goes with the layer' }], { streams: [fd] }));
  }
  /** Make a layer from start to end. */
  async layer(name: string, entries: readonly Entry[], parent?: string): Promise<string> {
    const effects = this.bench.effects();
    const below = parent === undefined ? {} : { parent };
    const target = await this.driver.prepareLayer(effects, { token: `t-${name}`, ...below });
    await this.unpack(effects, target, entries);
    await this.driver.commitLayer(effects, { token: `t-${name}`, chainID: this.chainID(name), ...below });
    await effects.commit();
    return this.chainID(name);
  }
  async snapshot(request: SnapshotRequest): Promise<SnapshotRequest> {
    await apply(this.bench, await this.driver.createSnapshot(request));
    return request;
  }
  /** What makes a snapshot whose files have other owners on disk. */
  async shiftedEffects(request: SnapshotRequest, shift: IdShift): Promise<readonly Effect[]> {
    return [...(await this.driver.createSnapshot(request)), ...((await this.driver.shiftSnapshot?.({ ...request, shift }, this.bench.run)) ?? [])];
  }
  async shifted(request: SnapshotRequest, shift: IdShift): Promise<SnapshotRequest> {
    const transaction = this.bench.effects();
    await transaction.run(await this.shiftedEffects(request, shift));
    await transaction.commit();
    return { ...request, shift };
  }
  /** The operations that leave the root filesystem in register `mount` and its folder in `root`; with `idmap`, as that user namespace sees it. */
  async mounted(request: SnapshotRequest, readonly: boolean, idmap?: IdShift): Promise<Operation[]> {
    const steps = await this.driver.planRootfs({ ...request, out: 'mount', readonly, ...(idmap && { idmap: 'userns' }) }, this.bench.run);
    const order = (slot: string): number => (slot.startsWith('shim.') ? 0 : 1);
    return [
      ...(idmap ? [op.makeUserNamespace({ ...idmap, out: 'userns' })] : []),
      ...steps.toSorted((a, b) => order(a.slot) - order(b.slot)).map((step) => step.operation),
      ...(idmap && !this.driver.features.has('idmap') ? [op.idmapMount({ mount: 'mount', userns: 'userns' })] : []),
      op.reopenRoot({ mount: 'mount', at: join(this.bench.run.runFolder, 'rootfs'), out: 'root' }),
    ];
  }
  /** Run operations inside the root filesystem (register `root`); with `idmap` as the owner of `/`. */
  async inside(request: SnapshotRequest, operations: readonly Operation[], readonly = false, idmap?: IdShift): Promise<void> {
    await this.bench.operations([...(await this.mounted(request, readonly, idmap)), ...(idmap ? [op.fileIds({ like: 'root' })] : []), ...operations]);
  }
  /** The whole root filesystem, as `pack` sees it. */
  async read(request: SnapshotRequest, readonly = false, idmap?: IdShift): Promise<ReadonlyMap<string, PackedEntry>> {
    const before = await this.mounted(request, readonly, idmap);
    return decodeEntries(await this.#withFile('w', undefined, (fd) => this.bench.operations([...before, op.pack({ path: join(this.bench.run.runFolder, 'rootfs'), stream: 'fd0' })], [fd])));
  }
  /** What is in the driver's folder, without what it keeps for ever. */
  tree(): string[] {
    return listTree(this.bench.deps.folder);
  }
}

type Case = SuiteCase<StorageContext>;
const file = (path: string, text = path): Entry => ({ kind: 'file', path, content: [text] });

const layerCases: readonly Case[] = [
  {
    name: 'probe answers in words and never throws',
    needs: [],
    async run({ driver, bench }) {
      const nothing = { ...bench.deps.machine, uid: 1000, capabilities: [], filesystems: [], mounts: [], kernel: [5, 14] as const };
      for (const machine of [bench.deps.machine, nothing]) {
        const probe = await driver.probe(machine);
        assert.ok(probe.reasons.length > 0 && probe.reasons.every((reason) => reason.length > 0));
        if (!probe.available) assert.equal(probe.score, 0);
      }
    },
  },
  {
    name: 'a layer is not there until it is committed',
    needs: [],
    async run(c) {
      const chainID = c.chainID('a');
      assert.deepEqual(await c.driver.listLayers(), []);
      assert.equal(await c.driver.hasLayer(chainID), false);
      const effects = c.bench.effects();
      const target = await c.driver.prepareLayer(effects, { token: 't' });
      await c.unpack(effects, target, [file('hello')]);
      assert.equal(fs.readFileSync(join(target.path, 'hello'), 'utf8'), 'hello');
      assert.deepEqual(await c.driver.listLayers(), []);
      await c.driver.commitLayer(effects, { token: 't', chainID });
      await effects.commit();
      assert.equal(await c.driver.hasLayer(chainID), true);
      assert.deepEqual(await c.driver.listLayers(), [chainID]);
      assert.equal(fs.existsSync(target.path), false);
    },
  },
  {
    name: 'what an interrupted prepareLayer left is replaced',
    needs: [],
    async run(c) {
      const effects = c.bench.effects();
      const first = await c.driver.prepareLayer(effects, { token: 't' });
      await c.unpack(effects, first, [file('old'), { kind: 'folder', path: 'deep' }, file('deep/er')]);
      const second = await c.driver.prepareLayer(effects, { token: 't' });
      assert.deepEqual(fs.readdirSync(second.path), []);
    },
  },
  {
    name: 'a prepareLayer that is rolled back leaves nothing',
    needs: [],
    async run(c) {
      await c.layer('a', [file('a')]);
      const before = c.tree();
      const effects = c.bench.effects();
      const target = await c.driver.prepareLayer(effects, { token: 't', parent: c.chainID('a') });
      await c.unpack(effects, target, [file('b')]);
      await effects.rollback();
      assert.deepEqual(c.tree(), before);
    },
  },
  {
    name: 'of two who unpack the same layer both succeed',
    needs: [],
    async run(c) {
      const [one, two] = [c.bench.effects(), c.bench.effects()];
      const first = await c.driver.prepareLayer(one, { token: 't1' });
      const second = await c.driver.prepareLayer(two, { token: 't2' });
      assert.notEqual(first.path, second.path);
      await c.unpack(one, first, [file('same')]);
      await c.unpack(two, second, [file('same')]);
      await c.driver.commitLayer(one, { token: 't1', chainID: c.chainID('x') });
      await c.driver.commitLayer(two, { token: 't2', chainID: c.chainID('x') });
      await two.rollback();
      await one.commit();
      assert.deepEqual(await c.driver.listLayers(), [c.chainID('x')]);
      assert.ok(!c.tree().some((path) => path.includes('t1') || path.includes('t2')), 'the slower one cleans up after itself');
    },
  },
  {
    name: 'a layer on a missing parent is refused',
    needs: ['!independent-layers'],
    run: (c) => failsWith('ERR_STATE', () => c.driver.prepareLayer(c.bench.effects(), { token: 't', parent: c.chainID('nobody') })),
  },
  {
    name: 'a layer cannot be committed onto a missing parent',
    needs: ['independent-layers'],
    async run(c) {
      const effects = c.bench.effects();
      await c.driver.prepareLayer(effects, { token: 't', parent: c.chainID('nobody') });
      await failsWith('ERR_STATE', () => c.driver.commitLayer(effects, { token: 't', chainID: c.chainID('x'), parent: c.chainID('nobody') }));
      await effects.rollback();
      assert.deepEqual(await c.driver.listLayers(), []);
    },
  },
  {
    name: 'names that would lead elsewhere are refused',
    needs: [],
    async run({ driver, bench, chainID }) {
      for (const bad of ['../x', '', 'a/b', '.', '..', 'sha256:../../x']) {
        await failsWith('ERR_INVALID_VALUE', () => driver.prepareLayer(bench.effects(), { token: bad }));
        await failsWith('ERR_INVALID_VALUE', () => driver.createSnapshot({ key: bad, lower: {} }));
        await failsWith('ERR_INVALID_VALUE', () => driver.removeSnapshot(bad));
        await failsWith('ERR_INVALID_VALUE', () => driver.removeLayer(bad));
      }
      await failsWith('ERR_STATE', () => driver.createSnapshot({ key: 'k', lower: { chainID: chainID('nobody') } }));
    },
  },
  {
    name: 'a layer is removed, twice too, and can be made again',
    needs: [],
    async run(c) {
      await c.layer('keep', [file('keep')]);
      const before = c.tree();
      for (let i = 0; i < 2; i++) {
        const chainID = await c.layer('a', [file('a')]);
        await applyOnCommit(c.bench, c.driver.removeLayer(chainID));
        await applyOnCommit(c.bench, c.driver.removeLayer(chainID));
        assert.equal(await c.driver.hasLayer(chainID), false);
        assert.deepEqual(c.tree().filter((path) => path !== 'trash'), before.filter((path) => path !== 'trash'));
      }
    },
  },
  {
    name: 'cut anywhere, a layer is there whole or not at all',
    needs: ['faults'],
    async run(c) {
      const parent = await c.layer('parent', [file('parent')]);
      await applyOnCommit(c.bench, c.driver.removeLayer(await c.layer('warm', [file('x')], parent)));
      const before = c.tree();
      for (const kind of ['fail', 'die'] as const) {
        await cutEverywhere(c.bench, kind, {
          async verb(effects) {
            const target = await c.driver.prepareLayer(effects, { token: 't', parent });
            await c.unpack(effects, target, [file('x')]);
            await c.driver.commitLayer(effects, { token: 't', chainID: c.chainID('x'), parent });
            await effects.commit();
          },
          async check(at) {
            if (await c.driver.hasLayer(c.chainID('x'))) {
              const snapshot = await c.driver.createSnapshot({ key: 'probe', lower: { chainID: c.chainID('x') } });
              assert.ok(snapshot.length > 0);
              await applyOnCommit(c.bench, c.driver.removeLayer(c.chainID('x')));
            }
            assert.deepEqual(c.tree(), before, `${kind} at ${at}`);
          },
        });
        await applyOnCommit(c.bench, c.driver.removeLayer(c.chainID('x')));
      }
    },
  },
  {
    name: 'a removal of a layer that is cut anywhere is finished by the next engine',
    needs: ['faults'],
    async run(c) {
      await applyOnCommit(c.bench, c.driver.removeLayer(await c.layer('x', [file('x')])));
      const before = c.tree();
      await cutEverywhere(c.bench, 'die', {
        prepare: async () => void (await c.layer('x', [file('x')])),
        async verb(effects) {
          effects.onCommit(c.driver.removeLayer(c.chainID('x')));
          await effects.commit();
        },
        check: (at) => assert.deepEqual(c.tree(), before, `die at ${at}`),
      });
    },
  },
];

const snapshotCases: readonly Case[] = [
  {
    name: 'effects and steps are plain data',
    needs: [],
    async run(c) {
      const chainID = await c.layer('a', [file('a')]);
      const request = { key: 'k', lower: { chainID } };
      const effects = await c.driver.createSnapshot(request);
      structuredClone(effects);
      for (const one of [...effects, ...c.driver.removeSnapshot('k'), ...c.driver.removeLayer(chainID)]) assert.ok(one.undo.length > 0 || one.noUndo !== undefined || !CHANGING.has(one.operation.name), `${one.operation.name} has no undo`);
      const steps = await c.driver.planRootfs({ ...request, out: 'o', readonly: false }, c.bench.run);
      structuredClone(steps);
      assert.ok(steps.every((step) => step.slot === 'init.rootfs' || step.slot === 'shim.rootfs'));
      assert.ok(steps.some((step) => step.operation.args['out'] === 'o'), 'the register is written');
    },
  },
  {
    name: 'a key that is taken is refused, and what is there stays',
    needs: [],
    async run(c) {
      const chainID = await c.layer('a', [file('a')]);
      await c.snapshot({ key: 'k', lower: { chainID } });
      const before = c.tree();
      await failsWith('ERR_OPERATION_FAILED', () => c.snapshot({ key: 'k', lower: { chainID } }), 'EEXIST');
      assert.deepEqual(c.tree(), before);
    },
  },
  {
    name: 'the death of an engine that wanted a taken key leaves what is there',
    needs: ['faults'],
    async run(c) {
      await c.snapshot({ key: 'k', lower: {} });
      const before = c.tree();
      await assert.rejects(() => cutEverywhere(c.bench, 'die', {
        verb: async (effects) => effects.run(await c.driver.createSnapshot({ key: 'k', lower: {} })),
        check: (at) => assert.deepEqual(c.tree(), before, `die at ${at}`),
      }), (error) => (error as { errno?: string }).errno === 'EEXIST');
    },
  },
  {
    name: 'a snapshot is removed, twice too',
    needs: [],
    async run(c) {
      await c.snapshot({ key: 'other', lower: {} });
      await c.snapshot({ key: 'k', lower: {} });
      await applyOnCommit(c.bench, c.driver.removeSnapshot('k'));
      const before = c.tree();
      await applyOnCommit(c.bench, c.driver.removeSnapshot('k'));
      await applyOnCommit(c.bench, c.driver.removeSnapshot('never-there'));
      assert.deepEqual(c.tree(), before);
      await c.snapshot({ key: 'k', lower: {} });
      await applyOnCommit(c.bench, c.driver.removeSnapshot('k'));
      assert.deepEqual(c.tree(), before);
    },
  },
  {
    name: 'cut anywhere, a snapshot is there whole or not at all',
    needs: ['faults'],
    async run(c) {
      const chainID = await c.layer('a', [file('a'), { kind: 'folder', path: 'b' }, file('b/c')]);
      await c.snapshot({ key: 'k', lower: { chainID } });
      await applyOnCommit(c.bench, c.driver.removeSnapshot('k'));
      const before = c.tree();
      for (const kind of ['fail', 'die'] as const) {
        await cutEverywhere(c.bench, kind, {
          verb: async (effects) => effects.run(await c.driver.createSnapshot({ key: 'k', lower: { chainID } })),
          check: (at) => assert.deepEqual(c.tree(), before, `${kind} at ${at}`),
        });
        await applyOnCommit(c.bench, c.driver.removeSnapshot('k'));
      }
    },
  },
  {
    name: 'a removal that is cut anywhere is finished by the next engine',
    needs: ['faults'],
    async run(c) {
      const chainID = await c.layer('a', [file('a')]);
      await c.snapshot({ key: 'k', lower: { chainID } });
      await applyOnCommit(c.bench, c.driver.removeSnapshot('k'));
      const before = c.tree();
      await cutEverywhere(c.bench, 'die', {
        prepare: async () => void (await c.snapshot({ key: 'k', lower: { chainID } })),
        async verb(effects) {
          effects.onCommit(c.driver.removeSnapshot('k'));
          await effects.commit();
        },
        check: (at) => assert.deepEqual(c.tree(), before, `die at ${at}`),
      });
    },
  },
  {
    name: 'an unknown option is refused by name',
    needs: [],
    run: (c) => failsWith('ERR_INVALID_VALUE', () => c.driver.createSnapshot({ key: 'k', lower: {}, options: { colour: 'red' } })),
  },
  {
    name: 'a size is refused without the feature quota',
    needs: ['!quota'],
    run: (c) => failsWith('ERR_FEATURE_MISSING', () => c.driver.createSnapshot({ key: 'k', lower: {}, options: { size: '1m' } })),
  },
  {
    name: 'a host folder is refused without the feature host-folder',
    needs: ['!host-folder'],
    run: (c) => failsWith('ERR_FEATURE_MISSING', () => c.driver.createSnapshot({ key: 'k', lower: { folder: '/' } })),
  },
];
const CHANGING = new Set(['mkdir', 'rename', 'removeTree', 'copyTree', 'ioctl', 'unlink', 'symlink', 'writeFile', 'setAttributes']);

/** The conformance suite of contract `storage`. Exceptions are declared features, never a driver's name. */
export const storageSuite: Suite<StorageFactory, StorageContext> = {
  contract: 'storage',
  cases: [...layerCases, ...snapshotCases, ...contentCases, ...idmapCases],
  async open(factory) {
    const bench = await factory.bench();
    return new StorageContext(bench, factory.create(bench.deps));
  },
};
