/** What drivers of either version of cgroups share: where groups lie, how they are found, frozen and removed. */
import { readdirSync } from 'node:fs';
import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { type GroupRef } from '@engine/core/contracts/cgroup';
import { effect, op, step, type Effect, type Operation, type Step } from '@engine/core/plan';

const CLONE_NEWCGROUP = 0x2000000n;
/** How long the undo waits for processes to die, and for a group to become removable, ms. */
export const KILL_DEADLINE = 10_000;
export const REMOVE_DEADLINE = 5_000;
/** How long a pause waits for all to stand still, ms. */
const FREEZE_DEADLINE = 10_000;
/** How deep groups are looked for below parents that users named. */
export const LIST_DEPTH = 4;

/** The folder that holds groups, below a hierarchy: '' is its top. Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED. */
export function parentOf(path: string | undefined): string {
  if (!path) return '';
  if (path.includes(':')) throw fail('ERR_NOT_SUPPORTED', `cgroup parent ${path}: systemd slices need the systemd cgroup driver`, { path });
  const parts = path.split('/').filter(Boolean);
  if (path.includes('\0') || parts.some((part) => part === '.' || part === '..')) throw fail('ERR_INVALID_VALUE', `cgroup parent ${path}: not a clean path`, { path });
  return parts.join('/');
}

/** Where a group lies below a hierarchy: the folder above it ('' is the top) and its own name. */
export interface GroupPlace { readonly parent: string; readonly name: string }
/** `name`: of a group that is not `exact`. Errors: those of parentOf; ERR_INVALID_VALUE for a whole hierarchy as a group. */
export function placeOf({ path, exact }: Pick<GroupRef, 'path' | 'exact'>, name: string): GroupPlace {
  if (!exact || !path) return { parent: parentOf(path), name };
  const whole = parentOf(path);
  if (whole === '') throw fail('ERR_INVALID_VALUE', `cgroupsPath ${path}: the root of the hierarchy cannot be a container's group`, { path });
  const at = whole.lastIndexOf('/');
  return { parent: whole.slice(0, Math.max(at, 0)), name: whole.slice(at + 1) };
}

/** Is anybody in `folder`, or in a group below it? */
function isPeopled(read: (path: string) => string | undefined, folder: string): boolean {
  const procs = read(posix.join(folder, 'cgroup.procs'));
  if (procs === undefined) return false;
  return procs.trim() !== '' || childrenOf(folder).some((child) => isPeopled(read, child));
}
/**
 * A group that a bundle names and that is there already: its undo kills whoever is in it, who must then be the container's own. Errors: ERR_IN_USE.
 */
export function refusePeopled(read: (path: string) => string | undefined, folder: string): void {
  if (!isPeopled(read, folder)) return;
  throw fail('ERR_IN_USE', `container's cgroup is not empty: there are processes in ${folder}`, { path: folder, hint: 'linux.cgroupsPath must name a group of the container\'s own' });
}

/** Folders below one; none when it is gone meanwhile. */
export function childrenOf(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => posix.join(folder, name));
  } catch {
    return [];
  }
}

export interface GroupSearch {
  readonly prefix: string;
  readonly depth: number;
  /** Are groups to be found in this folder? Default: in each. */
  holds?(folder: string): boolean;
  /** Is this child of a folder looked into? Default: each. */
  enters?(folder: string, name: string): boolean;
}
/** Groups `<prefix><run>` below `top`, by run: in folders that `holds`, at most `depth` below, on the way through those that `enters`. */
export function findGroups(top: string, { prefix, depth, holds = () => true, enters = () => true }: GroupSearch): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const walk = (folder: string, level: number): void => {
    for (const path of childrenOf(folder)) {
      const name = posix.basename(path);
      if (holds(folder) && name.startsWith(prefix)) found.set(name.slice(prefix.length), path);
      else if (level < depth && enters(folder, name)) walk(path, level + 1);
    }
  };
  walk(top, 0);
  return found;
}

/** After init has joined its group. */
export const ownNamespaceSteps = (own: boolean): Step[] => (own ? [step('init.namespaces', op.unshare({ flags: CLONE_NEWCGROUP }))] : []);

/** Stop all in `folder` and below, or let go. The undo of stopping lets go. */
export function freezeEffects(folder: string, frozen: boolean): readonly Effect[] {
  const set = (value: 0 | 1): Operation<'cgroupFreeze'> => op.cgroupFreeze({ path: folder, frozen: value, deadline: FREEZE_DEADLINE });
  return [frozen ? effect(set(1), set(0)) : effect(set(0), { none: 'who runs may be stopped again' })];
}

/** Kill what is in the folders of a group, one per hierarchy, and remove them. */
export const removeEffects = (folders: readonly string[]): readonly Effect[] => [
  ...folders.map((path) => effect(op.cgroupKill({ path, deadline: KILL_DEADLINE }))),
  ...folders.map((path) => effect(op.cgroupRemove({ path, deadline: REMOVE_DEADLINE }), { none: 'a removal' })),
];
