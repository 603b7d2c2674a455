import { fail } from '../../errors/index.ts';
import { within } from './within.ts';

/** Longest wait for an answer about a path that a user named, ms. A dead network mount, or a FUSE daemon that hangs, never gives one. */
export const REACH_PATIENCE = 10_000;

/** So many threads of libuv's pool may hang on such paths at once; the others serve everybody else. Known at the first use: a host may set it when it starts. */
const threads = (): number => Number(process.env['UV_THREADPOOL_SIZE']) || 4;
interface Lane { readonly share: number; busy: number; readonly waiting: (() => void)[] }
/** What every command asks has a lane of its own: it must get through when all those for sources hang. */
const lanes = { source: { share: 1 / 2, busy: 0, waiting: [] }, caller: { share: 1 / 4, busy: 0, waiting: [] } } satisfies Record<string, Lane>;
const asked = new Map<string, Promise<unknown>>();

async function ask<T>(lane: Lane, read: () => Promise<T>): Promise<T> {
  while (lane.busy >= Math.max(1, Math.floor(threads() * lane.share))) await new Promise<void>((resolve) => void lane.waiting.push(resolve));
  lane.busy++;
  try {
    return await read();
  } finally {
    lane.busy--;
    lane.waiting.shift()?.();
  }
}

/**
 * What `read` says about `path`, a path that a user named. It must not be synchronous: who asks the same of the same path meanwhile waits with the
 * first. Errors: its own; ERR_TIMEOUT, naming the path, after {@link REACH_PATIENCE}.
 */
export async function reach<T>(operation: string, path: string, read: () => Promise<T>, lane: keyof typeof lanes = 'source'): Promise<T> {
  const key = `${lane} ${operation} ${path}`;
  let answer = asked.get(key) as Promise<T> | undefined;
  if (!answer) asked.set(key, (answer = ask<T>(lanes[lane], read).finally(() => asked.delete(key))));
  return within(answer, REACH_PATIENCE, () => { throw unreachable(operation, path); });
}
const unreachable = (operation: string, path: string): Error =>
  fail('ERR_TIMEOUT', `${operation} ${path}: no answer for ${REACH_PATIENCE / 1000} s`, { operation, path, hint: 'is what is mounted there alive? A dead network mount can be taken away with: umount -l' });

/** The same for what belongs to one asker, an open file: each gets one of its own, and one that comes too late goes to `giveBack`. */
export async function reachOwn<T>(operation: string, path: string, read: () => Promise<T>, giveBack: (late: T) => unknown): Promise<T> {
  const answer = ask(lanes.source, read);
  return within(answer, REACH_PATIENCE, () => {
    void answer.then(giveBack, () => {});
    throw unreachable(operation, path);
  });
}
