import { spawn } from 'node:child_process';
import { type Readable } from 'node:stream';
import { fail } from '@engine/core/errors';

/** Longest time until the successor answers, ms. */
const DEADLINE = 20_000;

/** Fd on which a successor says that it listens. */
export const READY_FD = 5;

export interface HandoverOptions {
  /** The listening socket and the lock: the successor has them under the same numbers as the launcher gives them. */
  readonly listen: number;
  readonly lock: number;
  readonly script: string;
  /** Give up: this process is to end itself. */
  readonly signal: AbortSignal;
}

/**
 * Start a fresh process of the same program with the socket and the lock. Resolves to its pid as soon as it accepts: until then this one does.
 * Errors: ERR_INTERNAL when it doesn't come up; nothing has changed then.
 */
export async function startSuccessor({ listen, lock, script, signal }: HandoverOptions): Promise<number> {
  const words = [...process.execArgv.filter((word) => word !== '--'), '--', script, 'engined', '--inherited'];
  const child = spawn(process.execPath, words, { detached: true, stdio: ['ignore', 'ignore', 'inherit', listen, lock, 'pipe'], cwd: '/', env: { ...process.env, LISTEN_FDS: '1' } });
  const ready = Promise.withResolvers<void>();
  const failed = (what: string, cause?: unknown): void => ready.reject(fail('ERR_INTERNAL', `the new engined ${what}`, { operation: 'hand over', ...(cause === undefined ? {} : { cause }) }));
  child.once('error', (error) => failed('cannot be started', error));
  child.once('exit', (code, killed) => failed(`ended with ${code ?? killed ?? ''}`));
  const answer = (child.stdio as readonly unknown[])[READY_FD] as Readable;
  answer.once('data', () => ready.resolve());
  signal.addEventListener('abort', () => failed('is not needed any more'));
  const timer = setTimeout(() => failed('does not answer'), DEADLINE);
  try {
    await ready.promise;
    child.unref();
    return child.pid ?? 0;
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    clearTimeout(timer);
    answer.destroy();
  }
}
