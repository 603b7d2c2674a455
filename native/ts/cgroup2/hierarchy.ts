import { posix } from 'node:path';
import { type Machine } from '@engine/core/contracts/common';
import { childrenOf } from '../cgroups.ts';
import { type UnifiedAbilities } from './limits.ts';

/** The unified hierarchy as this process sees it. */
export interface Unified {
  /** Where it is mounted. */
  readonly target: string;
  readonly writable: boolean;
  /** The root group of the kernel, which may have processes and children with controllers; else a group that was given to us (a container, a cgroup namespace). */
  readonly isRoot: boolean;
  /** Controllers that there are for children of `target`. */
  readonly controllers: readonly string[];
  /** The group of this process below `target`, '' for that one itself; undefined: it is not below it. */
  readonly own?: string | undefined;
}

/** Stands in where there is none: a driver that is not available is made all the same, to say so. */
export const NO_HIERARCHY: Unified = { target: '/sys/fs/cgroup', writable: false, isRoot: true, controllers: [], own: undefined };

const words = (text: string | undefined): string[] => (text ?? '').split(/\s+/).filter(Boolean);

/** Controllers that are there for the children of `folder`; [] when it is not there. */
export const controllersAt = (machine: Machine, folder: string): readonly string[] => words(machine.read(posix.join(folder, 'cgroup.controllers')));
/** Controllers that the children of `folder` have already. */
export const enabledAt = (machine: Machine, folder: string): readonly string[] => words(machine.read(posix.join(folder, 'cgroup.subtree_control')));

/** The mounted unified hierarchy, the one at /sys/fs/cgroup before others; undefined: none. */
export function findUnified(machine: Machine): Unified | undefined {
  const mounts = machine.mounts.filter(({ type }) => type === 'cgroup2');
  // of several at one place the last one is what is seen
  const mount = mounts.findLast(({ target }) => target === '/sys/fs/cgroup') ?? mounts.find(({ root }) => root === '/') ?? mounts[0];
  if (!mount) return undefined;
  const { target } = mount;
  return {
    target,
    writable: mount.options.includes('rw') && mount.superOptions.includes('rw'),
    // the root of a cgroup namespace looks like `/` too, but it has the files of an ordinary group
    isRoot: machine.read(posix.join(target, 'cgroup.events')) === undefined,
    controllers: controllersAt(machine, target),
    own: ownGroup(machine, mount.root),
  };
}

/** As /proc/self/cgroup has it, seen from the root of the mount. */
function ownGroup(machine: Machine, root: string): string | undefined {
  const path = /^0::(.*)$/m.exec(machine.read('/proc/self/cgroup') ?? '')?.[1];
  if (path === undefined) return undefined;
  const below = root === '/' ? path : path === root || path.startsWith(`${root}/`) ? path.slice(root.length) : undefined;
  return below === undefined || below.startsWith('/..') ? undefined : below.replace(/^\//, '');
}

/** Why no groups with limits can be made in it, in words; undefined: they can. `elsewhere`: controllers that may not be on a v1 hierarchy. */
export function hierarchyObstacle({ mounts }: Pick<Machine, 'mounts'>, { target, writable, controllers }: Unified, elsewhere: readonly string[]): string | undefined {
  if (mounts.some(({ type, superOptions }) => type === 'cgroup' && superOptions.some((option) => elsewhere.includes(option)))) {
    return `hybrid: the controllers are on v1 hierarchies, the unified one has ${controllers.join(' ') || 'none'}`;
  }
  if (!writable) return `${target} is read-only`;
  const missing = ['cpu', 'memory', 'pids'].filter((controller) => !controllers.includes(controller));
  return missing.length > 0 ? `the controllers ${missing.join(', ')} are not there in ${target}` : undefined;
}

/** How many groups are looked at to learn which files there are. */
const LOOKS = 32;
/** How long what is not there is not looked for again: each creation asks for all of it. ms */
const MISSING_HOLD = 1000;

/**
 * Which files a group of this hierarchy has. A process that stays sees controllers and files come (a module that brings io.bfq.weight, a controller that is
 * enabled for our part later): what was there is remembered, what was not is looked for again after a second. The root group lacks most of them, so that groups below it are looked at; where there is none
 * yet, what the kernel's version and its other files say.
 */
export function abilitiesOf(machine: Machine, { target, isRoot, controllers: first }: Unified, now = Date.now): UnifiedAbilities {
  const known = new Set<string>();
  /** When it is looked for again. */
  const missing = new Map<string, number>();
  const isHeld = (name: string): boolean => (missing.get(name) ?? 0) > now();
  const controllers = new Set(first);
  /** Is it there by now? */
  const there = (controller: string): boolean => {
    if (controllers.has(controller)) return true;
    if (isHeld(controller)) return false;
    for (const name of controllersAt(machine, target)) controllers.add(name);
    if (!controllers.has(controller)) missing.set(controller, now() + MISSING_HOLD);
    return controllers.has(controller);
  };
  const look = (file: string): boolean => {
    const controller = file.slice(0, file.indexOf('.'));
    if (!there(controller)) return false;
    const inside = (folder: string): boolean | undefined => (controllersAt(machine, folder).includes(controller) ? machine.read(posix.join(folder, file)) !== undefined : undefined);
    const groups = isRoot ? childrenOf(target).slice(0, LOOKS) : [target];
    for (const folder of groups) {
      const found = inside(folder);
      if (found !== undefined) return found;
    }
    const [major, minor] = machine.kernel;
    switch (file) {
      case 'io.weight': return machine.read(posix.join(target, 'io.cost.qos')) !== undefined; // CONFIG_BLK_CGROUP_IOCOST
      case 'io.bfq.weight': return machine.read('/sys/module/bfq/parameters') !== undefined || machine.read('/sys/module/bfq/refcnt') !== undefined;
      case 'memory.swap.max': return machine.read('/proc/swaps') !== undefined && !/\bswapaccount=0\b/.test(machine.read('/proc/cmdline') ?? '');
      case 'cpu.idle': return major > 5 || (major === 5 && minor >= 15);
      default: return true;
    }
  };
  return {
    controllers: { has: there, [Symbol.iterator]: () => controllers.values() },
    has(file) {
      if (known.has(file)) return true;
      if (isHeld(file)) return false;
      const found = look(file);
      if (found) known.add(file);
      else missing.set(file, now() + MISSING_HOLD);
      return found;
    },
  };
}
