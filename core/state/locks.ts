import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fail } from '../errors/index.ts';
import { type Lock, type Native } from '../native/index.ts';
import { clock, once, sleep } from './files.ts';
import { type Points } from './points.ts';
import { type LockOptions } from './types.ts';

export interface Locks {
  lock(kind: string, id: string, options?: LockOptions): Promise<Lock>;
  /** Give back what is only kept for the next. */
  close(): void;
}

/** Ten seconds: longer than any verb holds a lock while it isn't waiting for the user's program. */
const TIMEOUT = 10_000;

/** How long a shared lock is kept for the next sharer, ms. */
const LINGER = 500;

/**
 * A byte of one file for every object there may be, by a hash of its name: nothing is made or removed for a lock (on ext4, whoever makes a file looks past
 * all that were removed in the last seconds), and a dead holder leaves nothing.
 */
export function createLocks(native: Native, folder: string, points: Points): Locks {
  const path = join(folder, 'verbs');
  const attempt = (byte: number, shared = false): Lock | undefined => points.around('lock.take', () => {
    const lock = native.tryLock(path, { byte, shared });
    return lock && once({ fd: lock.fd, path, release: () => points.around('lock.release', () => lock.release()) });
  });

  /** Locks that were shared a moment ago, kept: the next sharer comes soon, and who wants one alone waits longer than that. */
  const kept = new Map<number, { readonly lock: Lock; users: number; timer?: NodeJS.Timeout }>();
  const letGo = (byte: number): void => {
    const entry = kept.get(byte);
    if (!entry || entry.users > 0) return;
    clearTimeout(entry.timer);
    kept.delete(byte);
    entry.lock.release();
  };
  const share = (byte: number): Lock | undefined => {
    let entry = kept.get(byte);
    if (!entry) {
      const lock = attempt(byte, true);
      if (!lock) return undefined;
      kept.set(byte, (entry = { lock, users: 0 }));
    }
    const { lock } = entry;
    clearTimeout(entry.timer);
    entry.users++;
    return once({
      fd: lock.fd,
      path,
      release() {
        if (--entry.users > 0) return;
        entry.timer = setTimeout(letGo, LINGER, byte);
        entry.timer.unref();
      },
    });
  };
  /** 47 bits: offsets are signed, and exact as a number. */
  const byteOf = (kind: string, id: string): number => Math.floor(createHash('sha256').update(`${kind} ${id}`).digest().readUIntBE(0, 6) / 2);

  return {
    async lock(kind, id, { timeout = TIMEOUT, shared = false } = {}) {
      const byte = byteOf(kind, id);
      const end = clock() + timeout;
      for (let wait = 0; ; wait = Math.min(25, wait * 2 + 1)) {
        if (!shared) letGo(byte);
        const lock = shared ? share(byte) : attempt(byte);
        if (lock) return lock;
        if (clock() >= end) throw fail('ERR_BUSY', `another operation on ${kind} ${id} takes longer than ${timeout} ms`, { operation: 'lock', path: id });
        await sleep(wait * (0.5 + Math.random()));
      }
    },
    close() {
      for (const byte of kept.keys()) letGo(byte);
    },
  };
}
