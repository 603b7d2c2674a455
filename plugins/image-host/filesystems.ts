import { type MachineMount } from '@engine/core/contracts/common';

/**
 * Filesystems that hold files of this machine and can lie below an overlay. Not vfat, exfat and ntfs: overlay refuses names whose case does not
 * count. Not overlay itself: away from the root those are other engines' containers.
 */
const REAL = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'f2fs', 'bcachefs', 'zfs', 'jfs', 'reiserfs', 'nilfs2', 'erofs', 'squashfs', 'nfs', 'nfs4', '9p', 'virtiofs', 'ceph', 'ubifs']);
const AS_ROOT = new Set([...REAL, 'overlay', 'tmpfs', 'ramfs', 'rootfs']);
/** Fresh in every container, whatever the machine has there. */
const FRESH = ['/dev', '/proc', '/run', '/sys', '/tmp'];
/** Where container engines mount: one entry for each of their containers and volumes. */
const ENGINES = ['/var/lib/docker', '/var/lib/containers', '/var/lib/containerd', '/var/lib/kubelet'];

function isBelow(path: string, folder: string): boolean {
  return folder === '/' || path === folder || path.startsWith(`${folder}/`);
}

/**
 * The real filesystems of a machine at their mount points, sorted, so `/` comes first and parents before what lies in them. Left out: kernel
 * filesystems, what lies below /dev /proc /run /sys /tmp or below a folder of `hide`, mounts that are covered by others, and mounts of
 * single files (`isFolder` says no).
 */
export function realFilesystems(mounts: readonly MachineMount[], hide: readonly string[], isFolder: (path: string) => boolean): { target: string; type: string }[] {
  const lookup = pathLookup(mounts);
  const hidden = [...FRESH, ...ENGINES, ...hide];
  const found = mounts.filter((mount) => {
    if (lookup(mount.target) !== mount) return false;
    if (mount.target === '/') return AS_ROOT.has(mount.type);
    return REAL.has(mount.type) && !hidden.some((folder) => isBelow(mount.target, folder)) && isFolder(mount.target);
  });
  return found.map(({ target, type }) => ({ target, type })).toSorted((a, b) => (a.target < b.target ? -1 : 1));
}

/** Which mount a path leads to, as the kernel walks it: at every step into whatever is mounted there, and into what is mounted upon that. */
function pathLookup(mounts: readonly MachineMount[]): (path: string) => MachineMount | undefined {
  const children = new Map<string, MachineMount>();
  for (const mount of mounts) children.set(`${mount.parent} ${mount.target}`, mount);
  const ids = new Set(mounts.map(({ id }) => id));
  const root = mounts.find(({ target, parent }) => target === '/' && !ids.has(parent)) ?? mounts.find(({ target }) => target === '/');
  const enter = (from: MachineMount | undefined, path: string): MachineMount | undefined => {
    let at = from;
    for (let hops = 0; at && hops < 1000; hops++) {
      const next = children.get(`${at.id} ${path}`);
      if (!next || next === at) break;
      at = next;
    }
    return at;
  };
  return (path) => {
    let at = enter(root, '/');
    let prefix = '';
    for (const part of path.split('/').filter(Boolean)) {
      prefix += `/${part}`;
      at = enter(at, prefix);
    }
    return at;
  };
}
