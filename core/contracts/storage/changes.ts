import { lstatSync, readdirSync, type BigIntStats } from 'node:fs';
import { join } from 'node:path';
import { type Change, type SnapshotChanges } from './index.ts';

function stat(file: string): BigIntStats | undefined {
  try {
    return lstatSync(file, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
const list = (folder: string): string[] => {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
};
/** Overlay's mark of a removed entry: a character device 0:0. */
const isWhiteout = (s: BigIntStats): boolean => s.isCharacterDevice() && s.rdev === 0n;

/** Is `relative` there in the lower layers (topmost first)? Walked part by part, so that no link leads out of a layer. */
function inLowers(lowers: readonly string[], relative: string): boolean {
  const parts = relative.split('/').filter(Boolean);
  for (const lower of lowers) {
    let at = lower;
    let found: BigIntStats | undefined;
    for (const [i, part] of parts.entries()) {
      at = join(at, part);
      found = stat(at);
      if (!found) break;
      // whatever it hides further down is not there, and neither is what lies below a file
      if (isWhiteout(found) || (i < parts.length - 1 && !found.isDirectory())) return false;
    }
    if (found) return true;
  }
  return false;
}

/** An overlay's upper folder holds exactly what changed. */
function upperChanges({ upper, lowers, opaque }: SnapshotChanges & { kind: 'upper' }): Change[] {
  const changes: Change[] = [];
  const walk = (relative: string): void => {
    for (const name of list(join(upper, relative))) {
      const at = `${relative}/${name}`;
      const found = stat(join(upper, at));
      if (!found) continue;
      if (isWhiteout(found)) changes.push({ kind: 'D', path: at });
      else {
        changes.push({ kind: inLowers(lowers, at) ? 'C' : 'A', path: at });
        if (!found.isDirectory()) continue;
        walk(at);
        if (!opaque.includes(at)) continue;
        const hidden = new Set(lowers.flatMap((lower) => list(join(lower, at))).map((lost) => `${at}/${lost}`));
        for (const lost of hidden) if (!stat(join(upper, lost)) && inLowers(lowers, lost)) changes.push({ kind: 'D', path: lost });
      }
    }
  };
  walk('');
  return changes;
}

function differs(a: BigIntStats, b: BigIntStats): boolean {
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.rdev !== b.rdev) return true;
  return !a.isDirectory() && (a.size !== b.size || a.mtimeNs !== b.mtimeNs);
}

/** Two full trees, by their attributes. A folder counts as changed when something in it did. */
function treeChanges(lower: string | undefined, tree: string): Change[] {
  const changes: Change[] = [];
  const walk = (relative: string): boolean => {
    const below = lower === undefined ? [] : list(join(lower, relative));
    let changed = false;
    for (const name of [...new Set([...below, ...list(join(tree, relative))])].sort()) {
      const at = `${relative}/${name}`;
      const now = stat(join(tree, at));
      const before = lower === undefined ? undefined : stat(join(lower, at));
      if (!now) changes.push({ kind: 'D', path: at });
      else if (!before || before.isDirectory() !== now.isDirectory()) {
        changes.push({ kind: before ? 'C' : 'A', path: at });
        if (now.isDirectory()) walk(at);
      } else {
        const place = changes.length;
        const inside = now.isDirectory() && walk(at);
        if (!inside && !differs(before, now)) continue;
        changes.splice(place, 0, { kind: 'C', path: at });
      }
      changed = true;
    }
    return changed;
  };
  walk('');
  return changes;
}

/** What `changes` of a driver come to: its `diff`, read from outside. */
export function readChanges(changes: SnapshotChanges): Change[] {
  return changes.kind === 'upper' ? upperChanges(changes) : treeChanges(changes.lower, changes.tree);
}
