import { existsSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { BITS, effect, op, step, type Effect } from '@engine/core/plan';
import {
  ensureFolder, goesWithStaging, idmapWords, makeByRename, mountOf, MOUNT_ATTR, MS_PRIVATE, removeByRename, RENAME_NOREPLACE,
  obstacleBy, type DriverDeps, type IdmapChoice, type Machine, type Probe,
} from '@engine/core/contracts/common';
import { missingLayer, parseSize, readChanges, readLayers, readText, snapshotOptions, storageFolders, treeUsage, type StorageDriver } from '@engine/core/contracts/storage';
import { createSubvolume, enableQuota, limitSubvolume, sealSubvolume, snapshotSubvolume } from './ioctls.ts';

export interface BtrfsOptions {
  /** Most bytes a container may write, e.g. `10G`, where it has no `size` of its own. */
  readonly quota?: string;
  /** Write a layer to disk before it becomes visible. Default true. */
  readonly sync?: boolean;
  /** Show files with other owners in user namespaces: see IdmapChoice. */
  readonly idmap?: IdmapChoice;
}

const PLUGIN = 'storage-btrfs';

export function probeBtrfs(machine: Machine, idmap: IdmapChoice = 'auto'): Probe {
  const no = (reason: string): Probe => ({ available: false, score: 0, reasons: [reason] });
  if (machine.uid !== 0 && !machine.capabilities.includes('CAP_SYS_ADMIN')) return no('needs root (CAP_SYS_ADMIN) to mount and to delete subvolumes');
  const mount = mountOf(machine, machine.root);
  if (mount?.type !== 'btrfs') return no(`${machine.root} lies on ${mount?.type ?? 'an unknown filesystem'}, not on btrfs`);
  // Below overlay: a page cache per container and no sharing of it costs more memory than overlay does.
  return { available: true, score: 60, reasons: [`subvolumes and snapshots on ${mount.source} (mounted at ${mount.target})`, idmapWords(obstacleBy(idmap, machine, [machine.root]))] };
}

/** Storage on btrfs: a layer is a read-only subvolume, a container's root a snapshot of one. */
export function createBtrfsStorage(deps: DriverDeps, options: BtrfsOptions = {}): StorageDriver {
  const folders = storageFolders(deps.folder);
  const quota = options.quota === undefined ? undefined : parseSize(`options.${PLUGIN}.quota`, options.quota);
  const treeOf = (chainID: string): string => join(folders.layer(chainID), 'tree');
  const ensure = (...paths: readonly string[]): Effect[] => paths.filter((path) => !existsSync(path)).map((path) => ensureFolder(path));
  const derive = (from: string | undefined, to: string): Effect[] => (from === undefined ? createSubvolume(to) : snapshotSubvolume(treeOf(from), to));
  function demand(chainID: string | undefined): void {
    if (chainID !== undefined && !existsSync(treeOf(chainID))) throw missingLayer(chainID, PLUGIN);
  }

  const driver: StorageDriver = {
    name: 'btrfs',
    features: new Set(['quota', 'reflink']),
    probe: (on) => probeBtrfs(on, options.idmap),

    hasLayer: (chainID) => existsSync(folders.layer(chainID)),
    listLayers: () => readLayers(folders.layers),

    async prepareLayer(effects, { token, parent }) {
      demand(parent);
      const at = folders.staging(token);
      await effects.run([
        ...ensure(folders.layers),
        effect(op.removeTree({ path: at }), { none: 'what an interrupted unpack of the same token left' }),
        effect(op.mkdir({ path: at, mode: 0o700 }), op.removeTree({ path: at })),
        ...derive(parent, join(at, 'tree')),
      ]);
      return { path: join(at, 'tree'), whiteouts: 'apply' };
    },

    async commitLayer(effects, { token, chainID, parent }) {
      demand(parent);
      const at = folders.staging(token);
      await effects.run([
        ...(options.sync === false ? [] : [effect(op.syncFs({ path: at }))]),
        ...sealSubvolume(join(at, 'tree')),
        effect(op.rename({ from: at, to: folders.layer(chainID), flags: RENAME_NOREPLACE }, { okExists: true }), { none: 'a complete layer is valid by itself' }),
        effect(op.removeTree({ path: at }), { none: 'there only when somebody else was faster' }),
      ]);
    },

    // removeTree deletes a subvolume (nested and read-only ones too) as a whole, in the background.
    removeLayer: (chainID) => removeByRename(folders.layer(chainID), folders.trash),

    createSnapshot(request) {
      const size = snapshotOptions(driver, request).size ?? quota;
      const { chainID } = request.lower;
      demand(chainID);
      return [
        ...ensure(folders.snapshots),
        // Before the subvolume is made: only then does the kernel count it from its first byte.
        ...(size === undefined ? [] : enableQuota(deps.folder)),
        ...makeByRename(folders.snapshot(request.key), folders.trash, (staging) => [
          effect(op.writeFile({ path: join(staging, 'lower'), data: Buffer.from(chainID ?? ''), mode: 0o600, how: BITS.WRITE.create }), goesWithStaging),
          ...derive(chainID, join(staging, 'tree')),
          ...(size === undefined ? [] : limitSubvolume(join(staging, 'tree'), size)),
        ]),
      ];
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

    /** Files that are not the layer's own any more: in a snapshot an untouched file keeps inode number and ctime. */
    async usage(key) {
      const snapshot = folders.snapshot(key);
      const chainID = readText(join(snapshot, 'lower'));
      const tree = join(snapshot, 'tree');
      if (!chainID) return treeUsage(tree);
      const below = treeOf(chainID);
      return treeUsage(tree, async (path) => {
        const [own, old] = await Promise.all([tree, below].map((root) => lstat(join(root, path), { bigint: true }).catch(() => undefined)));
        return own === undefined || old === undefined || own.ino !== old.ino || own.ctimeNs !== old.ctimeNs;
      });
    },
  };
  return driver;
}
