import { posix } from 'node:path';
import { type Machine } from '@engine/core/contracts/common';

/** One mounted hierarchy. */
export interface Hierarchy {
  /** Where it is mounted. */
  readonly target: string;
  /** Controllers bound to it; for a named one `['name=systemd']`. */
  readonly controllers: readonly string[];
  readonly version: 1 | 2;
  /** Last part of the mount point (`cpu,cpuacct`): where the container finds it below /sys/fs/cgroup. */
  readonly folder: string;
  readonly writable: boolean;
}

/** Options of a cgroup superblock that name no controller. */
const notControllers = new Set(['rw', 'ro', 'noprefix', 'clone_children', 'cpuset_v2_mode', 'xattr', 'nsdelegate', 'favordynmods', 'memory_localevents', 'memory_recursiveprot', 'memory_hugetlb_accounting', 'pids_localevents']);
const isController = (option: string): boolean => !notControllers.has(option) && !option.startsWith('release_agent=');

/** Every hierarchy that is mounted, each once, wherever it is; v1 in the order of mounting, then the unified one. */
export function findHierarchies(machine: Machine): readonly Hierarchy[] {
  const found = new Map<string, Hierarchy & { readonly whole: boolean }>();
  for (const mount of machine.mounts) {
    if (mount.type !== 'cgroup' && mount.type !== 'cgroup2') continue;
    const whole = mount.root === '/';
    const known = found.get(mount.device);
    // of several mounts of one hierarchy, one that shows all of it
    if (known && (known.whole || !whole)) continue;
    const version = mount.type === 'cgroup' ? 1 : 2;
    const controllers = version === 1 ? mount.superOptions.filter(isController) : (machine.read(posix.join(mount.target, 'cgroup.controllers')) ?? '').split(/\s+/).filter(Boolean);
    found.set(mount.device, { target: mount.target, controllers, version, folder: posix.basename(mount.target), writable: mount.options.includes('rw') && mount.superOptions.includes('rw'), whole });
  }
  return [...found.values()].sort((a, b) => a.version - b.version);
}

/** The hierarchy that has `controller`, v1 before the unified one. */
export function hierarchyOf(hierarchies: readonly Hierarchy[], controller: string): Hierarchy | undefined {
  return hierarchies.find((hierarchy) => hierarchy.controllers.includes(controller));
}
