import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { effect, op, step } from '../../plan/build.ts';
import { type Effect } from '../../plan/types.ts';
import { fakeBench } from '../common/fake-bench.ts';
import { ensureFolder, goesWithStaging, makeByRename, removeByRename, RENAME_NOREPLACE, type DriverDeps } from '../common/index.ts';
import { runCase } from '../common/suite.ts';
import { missingLayer, readChanges, readLayers, snapshotOptions, storageFolders, treeUsage, type StorageDriver } from './index.ts';
import { storageSuite } from './suite.ts';

/** A storage driver as a third party would write it: plain copies, nothing clever. */
function createPlainStorage({ folder }: DriverDeps): StorageDriver {
  const folders = storageFolders(folder);
  const treeOf = (chainID: string): string => join(folders.layer(chainID), 'tree');
  const demand = (chainID: string | undefined): void => {
    if (chainID !== undefined && !existsSync(treeOf(chainID))) throw missingLayer(chainID, 'plain');
  };
  const copyOf = (chainID: string | undefined, to: string): Effect[] => [
    effect(op.mkdir({ path: to, mode: 0o755 }), goesWithStaging),
    ...(chainID === undefined ? [] : [effect(op.copyTree({ from: treeOf(chainID), to }), goesWithStaging)]),
  ];
  const driver: StorageDriver = {
    name: 'plain',
    features: new Set(),
    probe: () => ({ available: true, score: 1, reasons: ['copies'] }),
    hasLayer: (chainID) => existsSync(folders.layer(chainID)),
    listLayers: () => readLayers(folders.layers),
    async prepareLayer(effects, { token, parent }) {
      demand(parent);
      const at = folders.staging(token);
      await effects.run([
        ensureFolder(folders.layers),
        effect(op.removeTree({ path: at }), { none: 'left-over' }),
        effect(op.mkdir({ path: at, mode: 0o700 }), op.removeTree({ path: at })),
        ...copyOf(parent, join(at, 'tree')),
      ]);
      return { path: join(at, 'tree'), whiteouts: 'apply' };
    },
    async commitLayer(effects, { token, chainID, parent }) {
      demand(parent);
      const at = folders.staging(token);
      await effects.run([
        effect(op.syncFs({ path: at })),
        effect(op.rename({ from: at, to: folders.layer(chainID), flags: RENAME_NOREPLACE }, { okExists: true }), { none: 'valid by itself' }),
        effect(op.removeTree({ path: at }), { none: 'somebody else was faster' }),
      ]);
    },
    removeLayer: (chainID) => removeByRename(folders.layer(chainID), folders.trash),
    createSnapshot(request) {
      snapshotOptions(driver, request);
      demand(request.lower.chainID);
      return [ensureFolder(folders.snapshots), ...makeByRename(folders.snapshot(request.key), folders.trash, (at) => copyOf(request.lower.chainID, join(at, 'tree')))];
    },
    removeSnapshot: (key) => removeByRename(folders.snapshot(key), folders.trash),
    planRootfs: ({ key, out }) => [step('init.rootfs', op.openTree({ source: join(folders.snapshot(key), 'tree'), out }))],
    changes: ({ key }) => ({ kind: 'trees', tree: join(folders.snapshot(key), 'tree') }),
    diff: (request) => readChanges(driver.changes(request)),
    usage: (key) => treeUsage(join(folders.snapshot(key), 'tree')),
  };
  return driver;
}

/** Names of the cases that a driver fails. */
async function failures(create: (deps: DriverDeps) => StorageDriver, only?: string): Promise<string[]> {
  const failed: string[] = [];
  for (const one of storageSuite.cases.filter(({ name }) => only === undefined || name === only)) {
    try {
      await runCase(storageSuite, one, { bench: () => fakeBench(), create }, () => {});
    } catch (error) {
      assert.ok(error instanceof Error);
      failed.push(one.name);
    }
  }
  return failed;
}
const change = (changes: (good: StorageDriver, deps: DriverDeps) => Partial<StorageDriver>) => (deps: DriverDeps): StorageDriver => {
  const good = createPlainStorage(deps);
  return { ...good, ...changes(good, deps) };
};

describe('the storage suite', () => {
  it('is passed by a plain driver', async () => {
    expect(await failures(createPlainStorage)).toEqual([]);
  });

  it.for<[string, string, (deps: DriverDeps) => StorageDriver]>([
    ['commits a layer by unpacking into place', 'a layer is not there until it is committed', change(({ prepareLayer }, { folder }) => ({
      async prepareLayer(effects, request) {
        const target = await prepareLayer(effects, request);
        await effects.run([ensureFolder(join(folder, 'layers', 'a'.repeat(64)))]);
        return target;
      },
    }))],
    ['keeps what an interrupted unpack left', 'what an interrupted prepareLayer left is replaced', change((_, { folder }) => ({
      async prepareLayer(effects, { token }) {
        const path = join(storageFolders(folder).staging(token), 'tree');
        await effects.run([ensureFolder(path)]);
        return { path, whiteouts: 'apply' };
      },
    }))],
    ['takes a taken key', 'a key that is taken is refused, and what is there stays', change((_, { folder }) => ({ createSnapshot: ({ key }) => [ensureFolder(storageFolders(folder).snapshot(key))] }))],
    ['undoes by name what somebody else made', 'the death of an engine that wanted a taken key leaves what is there', change((_, { folder }) => ({
      createSnapshot({ key }) {
        const path = storageFolders(folder).snapshot(key);
        return [ensureFolder(join(folder, 'snapshots')), effect(op.mkdir({ path, mode: 0o700 }), op.removeTree({ path }))];
      },
    }))],
    ['forgets the undo', 'cut anywhere, a snapshot is there whole or not at all', change(({ createSnapshot }) => ({ createSnapshot: async (request) => (await createSnapshot(request)).map((one) => ({ ...one, undo: [] })) }))],
    ['keeps what was removed', 'a snapshot is removed, twice too', change((_, { folder }) => ({ removeSnapshot: (key) => [effect(op.rename({ from: storageFolders(folder).snapshot(key), to: join(folder, 'gone') }), { none: 'x' })] }))],
    ['swallows options', 'an unknown option is refused by name', change((_, { folder }) => ({ createSnapshot: ({ key }) => makeByRename(storageFolders(folder).snapshot(key), folder, () => []) }))],
    ['trusts names', 'names that would lead elsewhere are refused', change((_, { folder }) => ({ removeSnapshot: (key) => removeByRename(join(folder, key), folder) }))],
    ['writes another register', 'effects and steps are plain data', change(() => ({ planRootfs: () => [step('init.rootfs', op.openTree({ source: '/', out: 'mine' }))] }))],
  ])('catches a driver that %s', async ([, name, create]) => {
    expect(await failures(create, name)).toEqual([name]);
  });
});
