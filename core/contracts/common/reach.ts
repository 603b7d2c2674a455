import { fail } from '../../errors/index.ts';

/** Longest wait for an answer about a path that a user named, ms. A dead network mount, or a FUSE daemon that hangs, never gives one. */
export const REACH_PATIENCE = 10_000;

/** So many threads of libuv's pool may hang on such paths at once; the others serve everybody else. Known at the first use: a host may set it when it starts. */
const mayHang = (): number => Math.max(1, Math.floor((Number(process.env['UV_THREADPOOL_SIZE']) || 4) / 2));
let busy = 0;
const waiting: (() => void)[] = [];
const asked = new Map<string, Promise<unknown>>();

async function ask<T>(read: () => Promise<T>): Promise<T> {
  while (busy >= mayHang()) await new Promise<void>((resolve) => void waiting.push(resolve));
  busy++;
  try {
    return await read();
  } finally {
    busy--;
    waiting.shift()?.();
  }
}

/**
 * What `read` says about `path`, a path that a user named. It must not be synchronous: who asks the same of the same path meanwhile waits with the
 * first. Errors: its own; ERR_TIMEOUT, naming the path, after {@link REACH_PATIENCE}.
 */
export async function reach<T>(operation: string, path: string, read: () => Promise<T>): Promise<T> {
  const key = `${operation} ${path}`;
  let answer = asked.get(key) as Promise<T> | undefined;
  if (!answer) asked.set(key, (answer = ask(read).finally(() => asked.delete(key))));
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(fail('ERR_TIMEOUT', `${operation} ${path}: no answer for ${REACH_PATIENCE / 1000} s`, {
      operation, path, hint: 'is what is mounted there alive? A dead network mount can be taken away with: umount -l',
    })), REACH_PATIENCE);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
