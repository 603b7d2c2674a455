import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { effect, op } from '../../plan/build.ts';
import { type Effect, type Operation } from '../../plan/types.ts';

/** `RENAME_NOREPLACE` of renameat2. */
export const RENAME_NOREPLACE = 1;

/** Undo of something that lies in a staging folder, whose own undo removes it. */
export const goesWithStaging = { none: 'removed with the folder it lies in' } as const;

const listening = new Set<string[]>();
/** A name that no other call gets. */
export function uniqueName(): string {
  const name = randomBytes(8).toString('hex');
  for (const names of listening) names.push(name);
  return name;
}
/** The names that were drawn while `work` ran (perhaps by others too). */
export async function namesDrawn<T>(work: () => Promise<T>): Promise<{ readonly value: T; readonly names: readonly string[] }> {
  const names: string[] = [];
  listening.add(names);
  try {
    return { value: await work(), names };
  } finally {
    listening.delete(names);
  }
}

/** Make a folder that a driver keeps for ever (0700 unless told otherwise); there already is success. */
export function ensureFolder(path: string, mode = 0o700): Effect {
  return effect(op.mkdir({ path, mode, parents: 1 }), { none: 'a folder of the driver itself, kept' });
}

/**
 * Move `path` into the folder `trash`, then delete it: nobody ever sees half of it. Missing is success, and so is a repeated run.
 * `before`: operations on the tree in the trash that must come before the deletion (`at` is where it lies then).
 */
export function removeByRename(path: string, trash: string, before: (at: string) => readonly Effect[] = () => []): readonly Effect[] {
  const at = join(trash, uniqueName());
  const none = { none: 'a removal is repeated until it is done' };
  return [
    ensureFolder(trash),
    effect(op.rename({ from: path, to: at }, { okMissing: true }), none),
    ...before(at),
    effect(op.removeTree({ path: at }), none),
  ];
}

/**
 * Make folder `path` (its parent exists) so that it is there complete or not at all, and fail with EEXIST when somebody else's is there.
 *
 * It is filled by `fill(staging)` under a hidden name beside it, then renamed. The undo removes only what this very call made: it
 * renames `path/.by-X/../../name`, a path that exists in no folder but ours. `before` as in {@link removeByRename}.
 */
export function makeByRename(
  path: string,
  trash: string,
  fill: (staging: string) => readonly Effect[],
  before: (at: string) => readonly Operation[] = () => [],
): readonly Effect[] {
  const unique = uniqueName();
  const parent = dirname(path);
  const staging = join(parent, `.new-${unique}`);
  const at = join(trash, unique);
  const mark = `.by-${unique}`;
  const name = path.slice(parent.length + 1);
  return [
    ensureFolder(trash),
    effect(op.mkdir({ path: staging, mode: 0o700 }), [...before(staging), op.removeTree({ path: staging })]),
    effect(op.mkdir({ path: `${staging}/${mark}`, mode: 0o700 }), goesWithStaging),
    ...fill(staging),
    effect(op.rename({ from: staging, to: path, flags: RENAME_NOREPLACE }), [
      op.rename({ from: `${path}/${mark}/../../${name}`, to: at }, { okMissing: true }),
      ...before(at),
      op.removeTree({ path: at }),
    ]),
  ];
}
