import { fail } from '@engine/core/errors';
import { op, step, type Effect, type Step } from '@engine/core/plan';

/** `MNT_DETACH`. */
const DETACH = 2;

export interface IdmappedMount {
  /** Folder that holds layers, upper and work. */
  readonly folder: string;
  /** A lower folder elsewhere. */
  readonly host?: string;
  /** An empty folder to show it at. */
  readonly scratch: string;
  /** Register with the user namespace. */
  readonly userns: string;
  /** Registers of its own begin with this. */
  readonly register: string;
}

/**
 * Steps that mount an overlay, on layers that show their files with the owners that the user namespace makes of theirs. Overlay itself
 * cannot (no FS_ALLOW_IDMAP), its layers can since Linux 5.19. Detached mounts are taken as layers since 6.15 only: so the driver's folder
 * is covered, in this mount namespace alone, by a clone of itself, and all paths stay what they are. The overlay keeps private clones of
 * its layers: what covered them can go at once.
 *
 * `fileIds`: what overlay does in its own name (work folder, whiteouts, copies) it does as whoever mounted it. The host's root has no id in
 * those maps: the overlay would be read-only, or every write EOVERFLOW. As the namespace's root, files on disk get plain ids.
 */
export function onIdmapped({ folder, host, scratch, userns, register }: IdmappedMount, mount: readonly Step[]): Step[] {
  const cover = (source: string, at: string, out: string): Step[] => [
    step('init.rootfs', op.openTree({ source, out })),
    step('init.rootfs', op.idmapMount({ mount: out, userns })),
    step('init.rootfs', op.moveMount({ mount: out, target: at })),
  ];
  const uncover = (at: string, out: string): Step[] => [step('init.rootfs', op.unmount({ path: at, flags: DETACH })), step('init.rootfs', op.close({ fd: out }))];
  const layers = `${register}.layers`;
  const below = `${register}.below`;
  return [
    ...cover(folder, folder, layers),
    ...(host === undefined ? [] : cover(host, scratch, below)),
    step('init.rootfs', op.fileIds({ like: layers })),
    ...mount,
    step('init.rootfs', op.fileIds({})),
    ...(host === undefined ? [] : uncover(scratch, below)),
    ...uncover(folder, layers),
  ];
}

/**
 * The mount `steps` and what is done with it, as effects of one helper, for shiftSnapshot: chown copies each file up. Without `metacopy`: it
 * needs `redirect_dir=on`, and an upper with redirects could not be read without a mount. Where files can share blocks (xfs, btrfs) the
 * data are not copied.
 */
export function shiftEffects(steps: readonly Step[], out: string, shift: { readonly uidMap: string; readonly gidMap: string }, index: string): Effect[] {
  const goes = 'goes with the snapshot';
  const mount = [...steps.filter(({ slot }) => slot === 'shim.rootfs'), ...steps.filter(({ slot }) => slot !== 'shim.rootfs')];
  return [
    ...mount.map(({ operation }): Effect => ({ operation, undo: [], noUndo: 'goes with the helper, or is kept' })),
    { operation: op.shiftTree({ root: out, path: '.', ...shift }), undo: [], noUndo: goes },
    { operation: op.close({ fd: out }), undo: [] },
    { operation: op.removeTree({ path: index }), undo: [], noUndo: goes },
  ];
}

export function refuseHostShift(folder: string, plugin: string, obstacle: string | undefined): never {
  throw fail('ERR_NOT_SUPPORTED', `the files of ${folder} cannot be shown with the owners of a user namespace: ${obstacle ?? 'unknown'}`, { path: folder, plugin, hint: 'run it with --userns=host' });
}
