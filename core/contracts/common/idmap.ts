import { type Machine } from './index.ts';
import { mountOf } from './mounts.ts';

/**
 * Since which Linux a filesystem's mounts can be idmapped (FS_ALLOW_IDMAP). Not here: `overlay`, whose layers can be instead (see
 * {@link OVERLAY_LAYERS}), 9p, nfs, cifs. fuse and virtiofs only where their server asks for it, zfs by the version
 * of its module and not by the kernel's (OpenZFS 2.2): for these say {@link IdmapChoice} `always`.
 */
const SINCE: Readonly<Record<string, readonly [number, number]>> = {
  ext4: [5, 12], xfs: [5, 12], vfat: [5, 12], btrfs: [5, 15], ntfs3: [5, 15], f2fs: [5, 18], erofs: [5, 19], squashfs: [6, 2], tmpfs: [6, 3], ceph: [6, 7], hugetlbfs: [6, 9],
};
/** Overlay takes idmapped mounts as layers. */
const OVERLAY_LAYERS = [5, 19] as const;

const older = ([major, minor]: readonly [number, number], [a, b]: readonly [number, number]): boolean => major < a || (major === a && minor < b);

/**
 * Why files below `path` cannot be shown with other owners (idmapMount), in words; undefined: they can. `as` `layer`: below an overlay. By a
 * table and not by trying: a plan is made without changing anything.
 */
export function idmapObstacle(machine: Pick<Machine, 'kernel' | 'release' | 'mounts'>, path: string, as: 'mount' | 'layer' = 'mount'): string | undefined {
  const type = mountOf(machine, path)?.type ?? 'an unknown filesystem';
  const since = SINCE[type];
  if (!since) return `${type} cannot show files with other owners`;
  if (older(machine.kernel, since)) return `${type} can show files with other owners since Linux ${since.join('.')}, this is ${machine.release}`;
  if (as === 'layer' && older(machine.kernel, OVERLAY_LAYERS)) return `overlay takes layers with other owners since Linux ${OVERLAY_LAYERS.join('.')}, this is ${machine.release}`;
  return undefined;
}

/** Option `idmap` of storage drivers: `auto` by filesystem and kernel; `always` where both can do more than is known here; `never`: snapshots are given other owners on disk. */
export type IdmapChoice = 'auto' | 'always' | 'never';
export function obstacleBy(choice: IdmapChoice | undefined, machine: Pick<Machine, 'kernel' | 'release' | 'mounts'>, paths: readonly string[], as: 'mount' | 'layer' = 'mount'): string | undefined {
  if (choice === 'always') return undefined;
  if (choice === 'never') return 'the option idmap of the storage driver is never';
  return paths.map((path) => idmapObstacle(machine, path, as)).find((obstacle) => obstacle !== undefined);
}

/** The same for `engine doctor`. */
export function idmapWords(obstacle: string | undefined): string {
  return obstacle === undefined ? 'user namespaces share what lies on disk (idmapped mounts)' : `user namespaces get copies with their own owners: ${obstacle}`;
}
