import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { effect, op } from '../../plan/build.ts';
import { type Effect } from '../../plan/types.ts';

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
