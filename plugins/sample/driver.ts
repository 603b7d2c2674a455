import { existsSync } from 'node:fs';
import { join } from 'node:path';
import * as common from '@engine/core/contracts/common';
import * as storage from '@engine/core/contracts/storage';
import { effect, op, step, type Effect } from '@engine/core/plan';

export interface SampleOptions {
  readonly sync?: boolean;
}

/** Can it work here, and how well? Shown by `engine doctor`; `auto` takes the highest score, never 0. */
export function probe(machine: common.Machine): common.Probe {
  if (machine.uid !== 0) return { available: false, score: 0, reasons: ['needs root to keep owners'] };
  return { available: true, score: 0, reasons: ['copies every layer whole: taken only when it is asked for'] };
}

/**
 * A storage driver in its simplest form. It never acts by itself: methods answer with effects (run now, each with its undo) or
 * with steps of a container's plan. Reading files is fine.
 */
export function createSampleStorage(deps: common.DriverDeps, { sync = true }: SampleOptions = {}): storage.StorageDriver {
  const folders = storage.storageFolders(deps.folder);
  const tree = (folder: string): string => join(folder, 'tree');
  const ensure = (path: string): Effect[] => (existsSync(path) ? [] : [common.ensureFolder(path)]);
  const demand = (chainID: string | undefined): void => {
    if (chainID !== undefined && !existsSync(folders.layer(chainID))) throw storage.missingLayer(chainID, 'sample');
  };
  /** Make `to` a copy of a layer, or an empty folder; it lies in a staging folder whose undo removes both. */
  const copyOf = (chainID: string | undefined, to: string): Effect[] => {
    const from = chainID === undefined ? undefined : tree(folders.layer(chainID));
    const made = effect(op.mkdir({ path: to, ...storage.attributesOf(from) }), common.goesWithStaging);
    return from === undefined ? [made] : [made, effect(op.copyTree({ from, to }), common.goesWithStaging)];
  };

  const driver: storage.StorageDriver = {
    name: 'sample',
    features: new Set(),
    probe,

    // Layers: a tree to unpack into, then one rename that makes it visible.
    hasLayer: (chainID) => existsSync(folders.layer(chainID)),
    listLayers: () => storage.readLayers(folders.layers),
    async prepareLayer(effects, { token, parent }) {
      demand(parent);
      const staging = folders.staging(token);
      await effects.run([
        ...ensure(folders.layers),
        effect(op.removeTree({ path: staging }), { none: 'the left-over of an earlier attempt' }),
        effect(op.mkdir({ path: staging, mode: 0o700 }), op.removeTree({ path: staging })),
        ...copyOf(parent, tree(staging)),
      ]);
      return { path: tree(staging), whiteouts: 'apply' };
    },
    async commitLayer(effects, { token, chainID, parent }) {
      demand(parent);
      const staging = folders.staging(token);
      await effects.run([
        ...(sync ? [effect(op.syncFs({ path: staging }))] : []),
        effect(op.rename({ from: staging, to: folders.layer(chainID), flags: common.RENAME_NOREPLACE }, { okExists: true }), {
          none: 'a complete layer is valid by itself',
        }),
        effect(op.removeTree({ path: staging }), { none: 'there only when somebody else was faster' }),
      ]);
    },
    removeLayer: (chainID) => common.removeByRename(folders.layer(chainID), folders.trash),

    // Snapshots: the writable tree of one container.
    createSnapshot(request) {
      storage.snapshotOptions(driver, request);
      demand(request.lower.chainID);
      return [
        ...ensure(folders.snapshots),
        ...common.makeByRename(folders.snapshot(request.key), folders.trash, (staging) => copyOf(request.lower.chainID, tree(staging))),
      ];
    },
    removeSnapshot: (key) => common.removeByRename(folders.snapshot(key), folders.trash),
    planRootfs: ({ key, out, readonly }) => [
      step('init.rootfs', op.openTree({ source: tree(folders.snapshot(key)), out })),
      step(
        'init.rootfs',
        op.setMountAttributes({
          mount: out,
          set: readonly ? common.MOUNT_ATTR.rdonly : 0,
          clear: common.MOUNT_ATTR.nosuid | common.MOUNT_ATTR.nodev | common.MOUNT_ATTR.noexec,
          propagation: common.MS_PRIVATE,
        }),
      ),
    ],
    changes({ key, lower }) {
      const own = { kind: 'trees', tree: tree(folders.snapshot(key)) } as const;
      return lower.chainID === undefined ? own : { ...own, lower: tree(folders.layer(lower.chainID)) };
    },
    diff: (request) => storage.readChanges(driver.changes(request)),
    usage: (key) => storage.treeUsage(tree(folders.snapshot(key))),
  };
  return driver;
}
