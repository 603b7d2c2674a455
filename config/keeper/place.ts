import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Files of the keeper in runRoot. The launcher has the first and the last of them as KEEPER_FILES. */
export const FILES = { lock: 'keeper.lock', work: 'keeper.json', log: 'keeper.log' } as const;

/** What the lock file holds: the pid on a line of its own, as in engined.lock, then this as JSON; written by who holds the lock. */
export interface KeeperInfo {
  readonly pid: number;
  readonly version: string;
  /** When its program was built, ms since the epoch: a later one replaces it. */
  readonly built: number;
  /** Each of its services was started once, or has failed to. */
  readonly ready: boolean;
  /** It is about to end: whoever needs one starts another, which waits for the lock. */
  readonly ending: boolean;
}

/** One service, as the engine that needs it knows it: manifest and options are checked. */
export interface Service {
  readonly plugin: string;
  readonly version: string;
  /** Absolute path of its module; none for a plugin that comes with the engine. */
  readonly module?: string;
  readonly options: Readonly<Record<string, unknown>>;
}
/** What `keeper.json` holds: what is to be run for this runRoot. Its time says when it was last asked for. */
export interface Work {
  readonly instance: string;
  readonly level: string;
  /** Seconds without a run after which the keeper ends. */
  readonly idle: number;
  readonly services: readonly Service[];
}

/** What stands in the lock file, whoever wrote it. Undefined: there is none, or it is just being written. */
export function readInfo(runRoot: string): KeeperInfo | undefined {
  return readJson(join(runRoot, FILES.lock), 1) as KeeperInfo | undefined;
}
export function readWork(runRoot: string): Work | undefined {
  const work = readJson(join(runRoot, FILES.work)) as Work | undefined;
  return work && Array.isArray(work.services) ? work : undefined;
}
function readJson(path: string, line = 0): unknown {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8').split('\n')[line] ?? '');
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** When the program was built that `script` belongs to; 0: it is no bundle. */
export function builtAt(script: string): number {
  for (let folder = dirname(script); ; folder = dirname(folder)) {
    for (const stamp of [join(folder, '.stamp'), join(folder, 'dist/.stamp')]) if (existsSync(stamp)) return statSync(stamp).mtimeMs;
    if (folder === dirname(folder)) return 0;
  }
}

/** What the keeper that holds the lock of this runRoot says of itself; a number in a file alone is no proof: it may be what a killed one has left. */
export function keeperInfo(runRoot: string): KeeperInfo | undefined {
  const info = readInfo(runRoot);
  return info?.pid !== undefined && holds(info.pid, join(runRoot, FILES.lock)) ? info : undefined;
}
/** Pid of the keeper that holds the lock of this runRoot. */
export function keeperOf(runRoot: string): number | undefined {
  return keeperInfo(runRoot)?.pid;
}
function holds(pid: number, lock: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => linkOf(`/proc/${pid}/fd/${fd}`) === lock);
  } catch {
    return false;
  }
}
function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** Does a container run in this runRoot? */
export function hasRuns(runRoot: string): boolean {
  try {
    return readdirSync(join(runRoot, 'runs')).some((name) => !name.startsWith('.'));
  } catch {
    return false;
  }
}

/** End the keeper of this runRoot, if there is one, and wait until it has. Resolves to whether there was one. Errors: it doesn't end within `patience` ms. */
export async function endKeeper(runRoot: string, patience = 10_000): Promise<boolean> {
  let found = false;
  const until = Date.now() + patience;
  // another one may just be taking over
  for (let pid = keeperOf(runRoot); pid !== undefined; pid = keeperOf(runRoot)) {
    found = true;
    if (Date.now() > until) throw new Error(`the keeper of ${runRoot} (pid ${pid}) does not end`);
    try {
      process.kill(pid, 'SIGTERM');
    } catch {
      // it has just ended
    }
    for (const next = Date.now() + 1000; keeperOf(runRoot) === pid && Date.now() < next; ) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return found;
}
