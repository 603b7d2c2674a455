import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { effect, op, step, type Effect } from '@engine/core/plan';
import {
  ensureFolder, goesWithStaging, idmapWords, makeByRename, mountOf, MOUNT_ATTR, MS_PRIVATE, removeByRename, RENAME_NOREPLACE,
  obstacleBy, type DriverDeps, type IdmapChoice, type Machine, type Probe,
} from '@engine/core/contracts/common';
import { attributesOf, missingLayer, readChanges, readLayers, snapshotOptions, storageFolders, treeUsage, type StorageDriver } from '@engine/core/contracts/storage';

export interface VfsOptions {
  /** Write a layer to disk before it becomes visible. Default true. */
  readonly sync?: boolean;
  /** Show files with other owners in user namespaces: see IdmapChoice. */
  readonly idmap?: IdmapChoice;
}

const PLUGIN = 'storage-vfs';
/** Filesystems whose files can share blocks (FICLONE); on the others a copy is a copy. */
const REFLINKS = new Set(['btrfs', 'xfs', 'bcachefs', 'ocfs2']);

export function probeVfs(machine: Machine, idmap: IdmapChoice = 'auto'): Probe {
  if (machine.uid !== 0 && !machine.capabilities.includes('CAP_SYS_ADMIN')) return { available: false, score: 0, reasons: ['needs root (CAP_SYS_ADMIN) to mount and to keep owners'] };
  const type = mountOf(machine, machine.root)?.type ?? 'an unknown filesystem';
  return { available: true, score: 10, reasons: [REFLINKS.has(type) ? `copies each layer whole, sharing blocks where ${type} can` : `copies each layer whole: slow and large on ${type}, but works anywhere`, idmapWords(obstacleBy(idmap, machine, [machine.root]))] };
}

/** Storage by plain copies: every layer and every snapshot is a whole tree. */
export function createVfsStorage(deps: DriverDeps, options: VfsOptions = {}): StorageDriver {
  const folders = storageFolders(deps.folder);
  const treeOf = (chainID: string): string => join(folders.layer(chainID), 'tree');
  const features: ReadonlySet<string> = new Set(REFLINKS.has(mountOf(deps.machine, deps.machine.root)?.type ?? '') ? ['reflink'] : []);
  const ensure = (...paths: readonly string[]): Effect[] => paths.filter((path) => !existsSync(path)).map((path) => ensureFolder(path));

  /** Effects that make `to` a copy of layer `from`, or an empty root. */
  function copyOf(from: string | undefined, to: string): Effect[] {
    const source = from === undefined ? undefined : treeOf(from);
    const made = effect(op.mkdir({ path: to, ...attributesOf(source) }), goesWithStaging);
    return source === undefined ? [made] : [made, effect(op.copyTree({ from: source, to }), goesWithStaging)];
  }
  function demand(chainID: string | undefined): void {
    if (chainID !== undefined && !existsSync(treeOf(chainID))) throw missingLayer(chainID, PLUGIN);
  }

  const driver: StorageDriver = {
    name: 'vfs',
    features,
    probe: (on) => probeVfs(on, options.idmap),

    hasLayer: (chainID) => existsSync(folders.layer(chainID)),
    listLayers: () => readLayers(folders.layers),

    async prepareLayer(effects, { token, parent }) {
      demand(parent);
      const at = folders.staging(token);
      await effects.run([
        ...ensure(folders.layers),
        effect(op.removeTree({ path: at }), { none: 'what an interrupted unpack of the same token left' }),
        effect(op.mkdir({ path: at, mode: 0o700 }), op.removeTree({ path: at })),
        ...copyOf(parent, join(at, 'tree')),
      ]);
      return { path: join(at, 'tree'), whiteouts: 'apply' };
    },

    async commitLayer(effects, { token, chainID, parent }) {
      demand(parent);
      const at = folders.staging(token);
      await effects.run([
        ...(options.sync === false ? [] : [effect(op.syncFs({ path: at }))]),
        effect(op.rename({ from: at, to: folders.layer(chainID), flags: RENAME_NOREPLACE }, { okExists: true }), { none: 'a complete layer is valid by itself' }),
        effect(op.removeTree({ path: at }), { none: 'there only when somebody else was faster' }),
      ]);
    },

    removeLayer: (chainID) => removeByRename(folders.layer(chainID), folders.trash),

    createSnapshot(request) {
      snapshotOptions(driver, request);
      demand(request.lower.chainID);
      return [...ensure(folders.snapshots), ...makeByRename(folders.snapshot(request.key), folders.trash, (staging) => copyOf(request.lower.chainID, join(staging, 'tree')))];
    },
    removeSnapshot: (key) => removeByRename(folders.snapshot(key), folders.trash),

    planRootfs({ key, out, readonly }) {
      return [
        step('init.rootfs', op.openTree({ source: join(folders.snapshot(key), 'tree'), out })),
        // The host may have mounted this filesystem with nodev or nosuid: a container's root has neither.
        step('init.rootfs', op.setMountAttributes({ mount: out, set: readonly ? MOUNT_ATTR.rdonly : 0, clear: MOUNT_ATTR.nosuid | MOUNT_ATTR.nodev | MOUNT_ATTR.noexec, propagation: MS_PRIVATE })),
      ];
    },

    idmapObstacle: () => obstacleBy(options.idmap, deps.machine, [deps.folder]),
    shiftSnapshot: ({ key, shift }) => [effect(op.shiftTree({ path: join(folders.snapshot(key), 'tree'), ...shift }), { none: 'goes with the snapshot' })],

    changes({ key, lower, shift }) {
      const tree = join(folders.snapshot(key), 'tree');
      return { kind: 'trees', tree, ...(lower.chainID === undefined ? {} : { lower: treeOf(lower.chainID) }), ...(shift && { shift }) };
    },
    diff: (request) => readChanges(driver.changes(request)),
    usage: (key) => treeUsage(join(folders.snapshot(key), 'tree')),
  };
  return driver;
}
