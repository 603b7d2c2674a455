import { type Machine, type MachineMount } from './index.ts';

/** The mount that `path` (absolute, no links) lies on: the one with the longest target that contains it; of equal ones, the last. */
export function mountOf(machine: Pick<Machine, 'mounts'>, path: string): MachineMount | undefined {
  let best: MachineMount | undefined;
  for (const mount of machine.mounts) {
    const prefix = mount.target === '/' ? '/' : `${mount.target}/`;
    if (!`${path}/`.startsWith(prefix)) continue;
    if (!best || mount.target.length >= best.target.length) best = mount;
  }
  return best;
}

/** MOUNT_ATTR_* of mount_setattr(2) and fsmount(2). */
export const MOUNT_ATTR = { rdonly: 1, nosuid: 2, nodev: 4, noexec: 8, noatime: 0x10 } as const;
/** `MS_PRIVATE`, the propagation of mounts made for one container. */
export const MS_PRIVATE = 1 << 18;
