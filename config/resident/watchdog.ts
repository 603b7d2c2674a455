import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { fail } from '@engine/core/errors';
import { type Mark } from '../guard.ts';
import { type OpenOptions } from '../open.ts';
import { watch, type Verdict } from './watchdog-worker.ts';

export interface WatchdogOptions {
  /** Where engined's socket is: what it says of its end is written there. */
  readonly folder: string;
  /** Longest time that the main thread may be blocked, ms. */
  readonly limit?: number;
}
export interface Watchdog {
  /** Notes whose code runs; see config/guard.ts. */
  readonly mark: Mark;
  /** Checkpoints a database in the watchdog's thread. */
  readonly compact: (path: string) => Promise<void>;
  /** From now on, ms. */
  limit(ms: number): void;
  /** For openEngine. */
  readonly host: NonNullable<OpenOptions['host']>;
  stop(): Promise<void>;
}

const LIMIT = 10_000;
/** So long what is to be discarded is collected, ms. */
const DISCARD = 20;
/** Layout of the shared memory, in numbers of 32 bits: heart beats, who runs now, who has begun and not ended. */
export const CELL = { beat: 0, now: 1, open: 2, count: 66 } as const;

/**
 * A thread that the main thread has to show itself to. When it has not for `limit`, the thread writes down whose fault that is (`engined.died`) and
 * kills the process: systemd or the next command starts a new one, containers go on. A plugin that only does not answer needs no watchdog: its
 * calls have deadlines.
 */
export function startWatchdog({ folder, limit = LIMIT }: WatchdogOptions): Watchdog {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const cells = new Int32Array(new SharedArrayBuffer(CELL.count * 4));
  const tickOf = (ms: number): number => Math.max(20, Math.min(1000, Math.floor(ms / 5)));
  let current = limit;
  const worker = new Worker(`(${watch.toString()})()`, {
    eval: true, name: 'watchdog', env: process.env, execArgv: [], resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
    workerData: { cells, cell: CELL, tick: tickOf(limit), limit, folder },
  });
  worker.unref();
  const post = worker.postMessage.bind(worker);
  const beating = (): NodeJS.Timeout => setInterval(() => Atomics.add(cells, CELL.beat, 1), tickOf(current)).unref();
  let beat = beating();

  const known = new Map<string, number>();
  const numberOf = (plugin: string, what: string): number => {
    const key = `${plugin}\0${what}`;
    let number = known.get(key);
    if (number === undefined) {
      known.set(key, (number = known.size + 1));
      post({ call: { number, plugin, what } });
    }
    return number;
  };
  /** Of a promise that has not settled: who goes on at some later time. */
  const open = (number: number, result: PromiseLike<unknown>): void => {
    for (let at = CELL.open; at < CELL.count; at++) {
      if (cells[at] !== 0) continue;
      cells[at] = number;
      const close = (): void => void (cells[at] = 0);
      result.then(close, close);
      return;
    }
  };
  const waiting = new Map<number, (error?: Error) => void>();
  let requests = 0;
  worker.on('message', ({ done, error }: { done: number; error?: string }) => {
    waiting.get(done)?.(error === undefined ? undefined : new Error(error));
    waiting.delete(done);
  });
  worker.on('error', () => {});
  worker.on('exit', () => {
    for (const settle of waiting.values()) settle(new Error('the watchdog has ended'));
    waiting.clear();
  });

  const mark: Mark = (plugin, what, call) => {
    const number = numberOf(plugin, what);
    const before = cells[CELL.now] ?? 0;
    cells[CELL.now] = number;
    try {
      const result = call();
      if (typeof (result as { then?: unknown } | undefined)?.then === 'function') open(number, result as PromiseLike<unknown>);
      return result;
    } finally {
      cells[CELL.now] = before;
    }
  };
  const compact: Watchdog['compact'] = (path) => new Promise((resolve, reject) => {
    const request = ++requests;
    waiting.set(request, (error) => (error ? reject(error) : resolve()));
    post({ compact: path, request });
  });
  // a message wakes the other thread: one for many
  const discarded: string[] = [];
  const discard = (path: string): void => {
    if (discarded.push(path) === 1) setTimeout(() => post({ discard: discarded.splice(0) }), DISCARD).unref();
  };
  return {
    mark, compact,
    limit(ms) {
      if (ms === current) return;
      current = ms;
      clearInterval(beat);
      beat = beating();
      post({ limit: ms, tick: tickOf(ms) });
    },
    host: {
      mark, compact,
      discard,
      admit({ manifest: { name }, source }) {
        // so that a call stack tells whose it is
        post({ plugin: name, folder: source });
        if (!isBlocking(folder, name, lastChange(source))) return;
        throw fail('ERR_PLUGIN_FAILED', `plugin ${name} is not loaded: it has blocked the engine ${TOO_OFTEN} times in a row`, {
          operation: 'load plugin', plugin: name, path: source, hint: 'mend it, or take it out of the configuration; it is tried again once its files have changed, or after an hour',
        });
      },
    },
    async stop() {
      clearInterval(beat);
      await worker.terminate();
    },
  };
}

/** When the files of a plugin were changed last, ms; those in its folder itself. */
function lastChange(folder: string): number {
  return Math.max(0, ...readdirSync(folder).map((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0));
}

/** Kills by the watchdog that count against a plugin: those of the last hour. */
const FORGIVEN_AFTER = 3_600_000;
/** So many, and it isn't loaded any more. */
const TOO_OFTEN = 3;
export const BLOCKED_FILE = 'engined.blocked';

/** Has this plugin been the cause of the watchdog's last kills, with its code as it is now (`changed`: when it was, ms)? */
export function isBlocking(folder: string, plugin: string, changed: number, now = Date.now()): boolean {
  let verdicts: Verdict[];
  try {
    verdicts = JSON.parse(readFileSync(join(folder, BLOCKED_FILE), 'utf8')) as Verdict[];
  } catch {
    return false;
  }
  const last = verdicts.slice(-TOO_OFTEN);
  return last.length === TOO_OFTEN && last.every((v) => v.plugin === plugin && Date.parse(v.time) > Math.max(changed, now - FORGIVEN_AFTER));
}
