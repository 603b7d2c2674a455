import { dirname, join } from 'node:path';
import { effect, op } from '../../plan/build.ts';
import { type Effect, type Operation } from '../../plan/types.ts';
import { ensureFolder, uniqueName } from './trees.ts';

/** `RENAME_NOREPLACE` of renameat2. */
export const RENAME_NOREPLACE = 1;

/** Undo of something that lies in a staging folder, whose own undo removes it. */
export const goesWithStaging = { none: 'removed with the folder it lies in' } as const;

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
