import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  type DriverDeps, type Machine, type Probe,
  ensureFolder, goesWithStaging, makeByRename, MOUNT_ATTR, MS_PRIVATE, removeByRename, RENAME_NOREPLACE,
} from '@engine/core/contracts/common';
import { attributesOf, missingLayer, readLayers, snapshotOptions, storageFolders, treeUsage, type StorageDriver } from '@engine/core/contracts/storage';
import { effect, op, step, type Effect } from '@engine/core/plan';

export interface SampleOptions {
  readonly sync?: boolean;
}

/** Can it work here, and how well? Shown by `engine doctor`; `auto` takes the highest score, never 0. */
export function probe(machine: Machine): Probe {
  if (machine.uid !== 0) return { available: false, score: 0, reasons: ['needs root to keep owners'] };
  return { available: true, score: 0, reasons: ['copies every layer whole: taken only when it is asked for'] };
}

/**
 * A storage driver in its simplest form. It never acts by itself: methods answer with effects (run now, each with its undo) or
 * with steps of a container's plan. Reading files is fine.
 */
export function createSampleStorage(deps: DriverDeps, { sync = true }: SampleOptions = {}): StorageDriver {
  const folders = storageFolders(deps.folder);
  const tree = (folder: string): string => join(folder, 'tree');
  const ensure = (path: string): Effect[] => (existsSync(path) ? [] : [ensureFolder(path)]);
  const demand = (chainID: string | undefined): void => {
    if (chainID !== undefined && !existsSync(folders.layer(chainID))) throw missingLayer(chainID, 'sample');
  };
  /** Make `to` a copy of a layer, or an empty folder; it lies in a staging folder whose undo removes both. */
  const copyOf = (chainID: string | undefined, to: string): Effect[] => {
    const from = chainID === undefined ? undefined : tree(folders.layer(chainID));
    const made = effect(op.mkdir({ path: to, ...attributesOf(from) }), goesWithStaging);
    return from === undefined ? [made] : [made, effect(op.copyTree({ from, to }), goesWithStaging)];
  };

  const driver: StorageDriver = {
    name: 'sample',
    features: new Set(),
    probe,

    // Layers: a tree to unpack into, then one rename that makes it visible.
    hasLayer: (chainID) => existsSync(folders.layer(chainID)),
    listLayers: () => readLayers(folders.layers),
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
        effect(op.rename({ from: staging, to: folders.layer(chainID), flags: RENAME_NOREPLACE }, { okExists: true }), { none: 'a complete layer is valid by itself' }),
        effect(op.removeTree({ path: staging }), { none: 'there only when somebody else was faster' }),
      ]);
    },
    removeLayer: (chainID) => removeByRename(folders.layer(chainID), folders.trash),

    // Snapshots: the writable tree of one container.
    createSnapshot(request) {
      snapshotOptions(driver, request);
      demand(request.lower.chainID);
      return [...ensure(folders.snapshots), ...makeByRename(folders.snapshot(request.key), folders.trash, (staging) => copyOf(request.lower.chainID, tree(staging)))];
    },
    removeSnapshot: (key) => removeByRename(folders.snapshot(key), folders.trash),
    planRootfs: ({ key, out, readonly }) => [
      step('init.rootfs', op.openTree({ source: tree(folders.snapshot(key)), out })),
      step('init.rootfs', op.setMountAttributes({ mount: out, set: readonly ? MOUNT_ATTR.rdonly : 0, clear: MOUNT_ATTR.nosuid | MOUNT_ATTR.nodev | MOUNT_ATTR.noexec, propagation: MS_PRIVATE })),
    ],
    changes({ key, lower }) {
      const own = { kind: 'trees', tree: tree(folders.snapshot(key)) } as const;
      return lower.chainID === undefined ? own : { ...own, lower: tree(folders.layer(lower.chainID)) };
    },
    usage: (key) => treeUsage(tree(folders.snapshot(key))),
  };
  return driver;
}
