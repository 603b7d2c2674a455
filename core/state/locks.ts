import * as fs from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fail } from '../errors/index.ts';
import { type Lock, type Native } from '../native/index.ts';
import { clock, ifPresent, isCurrent, names, sleep } from './files.ts';
import { type Points } from './points.ts';
import { type LockOptions } from './types.ts';

export interface Locks {
  lock(kind: string, id: string, options?: LockOptions): Promise<Lock>;
  /** Remove lock files of dead holders. */
  sweep(): void;
  /** Lock files that nobody holds. */
  idle(): string[];
}

/** Ten seconds: longer than any verb holds a lock while it isn't waiting for the user's program. */
const TIMEOUT = 10_000;

/**
 * One flock'ed file per object in `folder`. A holder unlinks the file before it lets go, so the folder stays small; whoever then gets
 * the lock of the unlinked file sees that it is no longer the one at its path, and tries again.
 */
export function createLocks(native: Native, folder: string, points: Points): Locks {
  const held = (path: string, inner: Lock, shared: boolean): Lock => {
    let released = false;
    return {
      fd: inner.fd,
      path,
      release() {
        if (released) return;
        released = true;
        points.around('lock.release', () => {
          if (!shared) ifPresent(() => fs.unlinkSync(path));
          inner.release();
          // the last of those who share it takes it for itself, and the file away
          if (shared) attempt(path, false)?.release();
        });
      },
    };
  };
  const attempt = (path: string, create: boolean, shared = false): Lock | undefined => {
    const inner = native.tryLock(path, { create, shared });
    if (!inner) return undefined;
    if (isCurrent(inner, path)) return held(path, inner, shared);
    inner.release();
    return undefined;
  };
  const pathOf = (kind: string, id: string): string => join(folder, `${kind}-${createHash('sha256').update(id).digest('hex').slice(0, 16)}`);

  return {
    async lock(kind, id, { timeout = TIMEOUT, shared = false } = {}) {
      const path = pathOf(kind, id);
      const end = clock() + timeout;
      for (let wait = 0; ; wait = Math.min(25, wait * 2 + 1)) {
        const lock = points.around('lock.take', () => attempt(path, true, shared));
        if (lock) return lock;
        if (clock() >= end) throw fail('ERR_BUSY', `another operation on ${kind} ${id} takes longer than ${timeout} ms`, { operation: 'lock', path: id });
        await sleep(wait * (0.5 + Math.random()));
      }
    },
    sweep() {
      for (const name of names(folder)) attempt(join(folder, name), false)?.release();
    },
    idle() {
      return names(folder).map((name) => join(folder, name)).filter((path) => {
        const lock = native.tryLock(path, { create: false, shared: true });
        lock?.release();
        return lock !== undefined;
      });
    },
  };
}
