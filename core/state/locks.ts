import * as fs from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fail } from '../errors/index.ts';
import { type Lock, type Native } from '../native/index.ts';
import { clock, ifPresent, names, once, sleep } from './files.ts';
import { type Points } from './points.ts';
import { type LockOptions } from './types.ts';

export interface Locks {
  lock(kind: string, id: string, options?: LockOptions): Promise<Lock>;
  /** Give back what is only kept for the next. */
  close(): void;
  /** Remove lock files of dead holders. */
  sweep(): void;
  /** Lock files that nobody holds. */
  idle(): string[];
}

/** Ten seconds: longer than any verb holds a lock while it isn't waiting for the user's program. */
const TIMEOUT = 10_000;

/** How long a shared lock is kept for the next sharer, ms. */
const LINGER = 500;

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
    return inner && held(path, inner, shared);
  };

  /** Locks that were shared a moment ago, kept: the next sharer comes soon, and who wants one alone waits longer than that. */
  const kept = new Map<string, { readonly lock: Lock; users: number; timer?: NodeJS.Timeout }>();
  const letGo = (path: string): void => {
    const entry = kept.get(path);
    if (!entry || entry.users > 0) return;
    clearTimeout(entry.timer);
    kept.delete(path);
    entry.lock.release();
  };
  const share = (path: string): Lock | undefined => {
    let entry = kept.get(path);
    if (!entry) {
      const lock = points.around('lock.take', () => attempt(path, true, true));
      if (!lock) return undefined;
      kept.set(path, (entry = { lock, users: 0 }));
    }
    const { lock } = entry;
    clearTimeout(entry.timer);
    entry.users++;
    return once({
      fd: lock.fd,
      path,
      release() {
        if (--entry.users > 0) return;
        entry.timer = setTimeout(letGo, LINGER, path);
        entry.timer.unref();
      },
    });
  };
  const pathOf = (kind: string, id: string): string => join(folder, `${kind}-${createHash('sha256').update(id).digest('hex').slice(0, 16)}`);

  return {
    async lock(kind, id, { timeout = TIMEOUT, shared = false } = {}) {
      const path = pathOf(kind, id);
      const end = clock() + timeout;
      for (let wait = 0; ; wait = Math.min(25, wait * 2 + 1)) {
        if (!shared) letGo(path);
        const lock = shared ? share(path) : points.around('lock.take', () => attempt(path, true));
        if (lock) return lock;
        if (clock() >= end) throw fail('ERR_BUSY', `another operation on ${kind} ${id} takes longer than ${timeout} ms`, { operation: 'lock', path: id });
        await sleep(wait * (0.5 + Math.random()));
      }
    },
    close() {
      for (const path of kept.keys()) letGo(path);
    },
    sweep() {
      for (const name of names(folder)) attempt(join(folder, name), false)?.release();
    },
    idle() {
      return names(folder).map((name) => join(folder, name)).filter((path) => {
        // alone: with sharers it would not find those who share it
        const lock = native.tryLock(path, { create: false });
        lock?.release();
        return lock !== undefined;
      });
    },
  };
}
