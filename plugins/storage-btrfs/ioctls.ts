import { dirname, basename } from 'node:path';
import { fail } from '@engine/core/errors';
import { BITS, effect, op, type Effect } from '@engine/core/plan';

/** Request numbers of <linux/btrfs.h>; the same on every architecture with 4096-byte arguments. */
export const IOCTL = {
  snapCreateV2: 0x50009417,
  subvolCreateV2: 0x50009418,
  subvolSetFlags: 0x4008941a,
  quotaCtl: 0xc0109428,
  qgroupLimit: 0x8030942b,
} as const;
export const BTRFS_SUPER_MAGIC = 0x9123683e;
const O_DIRECTORY = 0o200000;
const O_CLOEXEC = 0o2000000;
const SUBVOL_RDONLY = 2n;
const QUOTA_CTL_ENABLE = 1n;
const QGROUP_LIMIT_MAX_EXCL = 2n;
/** BTRFS_SUBVOL_NAME_MAX */
const MAX_NAME = 4039;

/** `struct btrfs_ioctl_vol_args_v2`: s64 fd, u64 transid, u64 flags, 32 bytes, char name[4040]. */
export function volumeArguments(name: string): Uint8Array {
  const bytes = Buffer.from(name);
  if (bytes.length > MAX_NAME) throw fail('ERR_INVALID_VALUE', `the name of a subvolume is too long: ${name.slice(0, 80)}…`);
  const arg = Buffer.alloc(4096);
  bytes.copy(arg, 56);
  return arg;
}
function numbers(...values: readonly bigint[]): Uint8Array {
  const arg = Buffer.alloc(values.length * 8);
  values.forEach((value, i) => arg.writeBigUInt64LE(value, i * 8));
  return arg;
}

const PARENT = 'storage-btrfs.parent';
const SOURCE = 'storage-btrfs.source';
const openFolder = (path: string, out: string): Effect => effect(op.open({ path, flags: O_DIRECTORY | O_CLOEXEC, magic: BTRFS_SUPER_MAGIC, out }));
const close = (fd: string): Effect => effect(op.close({ fd }));
const goesWithParent = { none: 'removed with the folder it lies in' } as const;

/** An empty subvolume at `path` (its parent exists), mode 0755 and root. */
export function createSubvolume(path: string): Effect[] {
  return [
    openFolder(dirname(path), PARENT),
    effect(op.ioctl({ fd: PARENT, request: IOCTL.subvolCreateV2, arg: volumeArguments(basename(path)) }), goesWithParent),
    close(PARENT),
    effect(op.setAttributes({ path, what: BITS.ATTR.mode, mode: 0o755 }), goesWithParent),
  ];
}

/** A writable snapshot of subvolume `source` at `path`. */
export function snapshotSubvolume(source: string, path: string): Effect[] {
  return [
    openFolder(dirname(path), PARENT),
    openFolder(source, SOURCE),
    effect(op.ioctl({ fd: PARENT, request: IOCTL.snapCreateV2, arg: volumeArguments(basename(path)), patch: SOURCE, patchAt: 0 }), goesWithParent),
    close(SOURCE),
    close(PARENT),
  ];
}

/** Make the subvolume read-only. */
export function sealSubvolume(path: string): Effect[] {
  return [openFolder(path, SOURCE), effect(op.ioctl({ fd: SOURCE, request: IOCTL.subvolSetFlags, arg: numbers(SUBVOL_RDONLY) }), goesWithParent), close(SOURCE)];
}

/** Switch quotas on for the filesystem of folder `path`; on already is success. */
export function enableQuota(path: string): Effect[] {
  return [
    openFolder(path, PARENT),
    effect(op.ioctl({ fd: PARENT, request: IOCTL.quotaCtl, arg: numbers(QUOTA_CTL_ENABLE, 0n) }), { none: 'a setting of the whole filesystem' }),
    close(PARENT),
  ];
}

/** At most `bytes` that are the subvolume's own (not shared with the layer below). `struct btrfs_ioctl_qgroup_limit_args`, qgroup 0 = its own. */
export function limitSubvolume(path: string, bytes: bigint): Effect[] {
  return [
    openFolder(path, SOURCE),
    effect(op.ioctl({ fd: SOURCE, request: IOCTL.qgroupLimit, arg: numbers(0n, QGROUP_LIMIT_MAX_EXCL, 0n, bytes, 0n, 0n) }), goesWithParent),
    close(SOURCE),
  ];
}
