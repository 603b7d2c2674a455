import { lstatSync, readdirSync, type BigIntStats } from 'node:fs';
import { join } from 'node:path';
import { type Change, type IdShift, type SnapshotChanges } from './index.ts';

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

/** What `relative` is in the lower layers (topmost first). Walked part by part, so that no link leads out of a layer. */
function inLowers(lowers: readonly string[], relative: string): BigIntStats | undefined {
  const parts = relative.split('/').filter(Boolean);
  for (const lower of lowers) {
    let at = lower;
    let found: BigIntStats | undefined;
    for (const [i, part] of parts.entries()) {
      at = join(at, part);
      found = stat(at);
      if (!found) break;
      // whatever it hides further down is not there, and neither is what lies below a file
      if (isWhiteout(found) || (i < parts.length - 1 && !found.isDirectory())) return undefined;
    }
    if (found) return found;
  }
  return undefined;
}

type Owners = (s: BigIntStats) => readonly [uid: bigint, gid: bigint];
/** What a shifted snapshot makes of an owner below; an id that the maps do not have stays. */
function ownersBy(shift: IdShift | undefined): Owners {
  if (!shift) return ({ uid, gid }) => [uid, gid];
  const [uids, gids] = [shift.uidMap, shift.gidMap].map((text) => text.split('\n').filter(Boolean).map((line) => line.trim().split(/ +/).map(BigInt)));
  const map = (lines: readonly (readonly bigint[])[] = [], id: bigint): bigint => {
    for (const [inside = 0n, outside = 0n, count = 0n] of lines) if (id >= inside && id < inside + count) return id - inside + outside;
    return id;
  };
  return ({ uid, gid }) => [map(uids, uid), map(gids, gid)];
}
function differs(before: BigIntStats, now: BigIntStats, owners: Owners): boolean {
  const [uid, gid] = owners(before);
  if (before.mode !== now.mode || uid !== now.uid || gid !== now.gid || before.rdev !== now.rdev) return true;
  return !before.isDirectory() && (before.size !== now.size || before.mtimeNs !== now.mtimeNs);
}

/** An overlay's upper folder holds exactly what changed; after a shift, everything: then attributes tell. */
function upperChanges({ upper, lowers, opaque, shift }: SnapshotChanges & { kind: 'upper' }): Change[] {
  const changes: Change[] = [];
  const owners = ownersBy(shift);
  const walk = (relative: string): void => {
    for (const name of list(join(upper, relative))) {
      const at = `${relative}/${name}`;
      const found = stat(join(upper, at));
      if (!found) continue;
      if (isWhiteout(found)) {
        changes.push({ kind: 'D', path: at });
        continue;
      }
      const below = inLowers(lowers, at);
      const place = changes.length;
      if (found.isDirectory()) walk(at);
      if (found.isDirectory() && opaque.includes(at)) {
        const hidden = new Set(lowers.flatMap((lower) => list(join(lower, at))).map((lost) => `${at}/${lost}`));
        for (const lost of hidden) if (!stat(join(upper, lost)) && inLowers(lowers, lost)) changes.push({ kind: 'D', path: lost });
      }
      if (shift && below && changes.length === place && !differs(below, found, owners)) continue;
      changes.splice(place, 0, { kind: below ? 'C' : 'A', path: at });
    }
  };
  walk('');
  return changes;
}

/** Two full trees, by their attributes. A folder counts as changed when something in it did. */
function treeChanges({ lower, tree, shift }: SnapshotChanges & { kind: 'trees' }): Change[] {
  const changes: Change[] = [];
  const owners = ownersBy(shift);
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
        if (!inside && !differs(before, now, owners)) continue;
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
  return changes.kind === 'upper' ? upperChanges(changes) : treeChanges(changes);
}
