import { spawn } from 'node:child_process';
import { mkdirSync, renameSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger } from 'pino';
import { KEEPER_FILES as FILES } from '@engine/native/launch';
import { createSyscalls, type Syscalls } from '@engine/native';
import { launcherPath } from '../launch.ts';
import { type KnownPlugin } from '../loader.ts';
import { type Config } from '../schema.ts';
import { builtAt, hasRuns, keeperInfo, keeperOf, readWork, type Service, type Work } from './place.ts';

/** Seconds without a run after which a keeper ends. */
const IDLE = 60;
const PATIENCE = 3000;
const POLL = 3;

export interface KeepOptions {
  readonly log?: Pick<Logger, 'warn'>;
  readonly calls?: Pick<Syscalls, 'lock' | 'close'>;
  readonly idle?: number;
  /** Longest time that a first start on a network waits for its keeper, ms. */
  readonly patience?: number;
  /** Starts a process that takes the lock, or, with `replace`, comes after who holds it; for tests. */
  readonly start?: (runRoot: string, replace: boolean) => void;
  /** When this program was built. */
  readonly built?: number;
}

/**
 * What has the services of these plugins run, for EngineParts.keep. Each call looks whether they do: two system calls and a lock that is refused. Undefined then; otherwise a
 * promise that resolves when they do, or after `patience` at most; it never rejects. Who doesn't wait for it starts a container whose first names may be refused.
 */
export function createKeep(
  config: Pick<Config, 'logLevel'>, { runRoot, instance }: { readonly runRoot: string; readonly instance: string }, plugins: readonly Pick<KnownPlugin, 'manifest' | 'builtin' | 'source' | 'options'>[], options: KeepOptions = {},
): () => void | Promise<void> {
  const wanted = plugins.flatMap(({ manifest, builtin, source, options: own }): Service[] =>
    manifest.service === undefined ? [] : [{ plugin: manifest.name, version: manifest.version, ...(builtin ? {} : { module: join(source, manifest.service) }), options: own }]);
  if (wanted.length === 0) return () => {};
  const { log, idle = IDLE, patience = PATIENCE, start = launch } = options;
  const lockFile = join(runRoot, FILES.lock);
  const workFile = join(runRoot, FILES.work);
  const level = ['silent', 'error', 'warn', 'info'].includes(config.logLevel) ? 'info' : config.logLevel;
  let calls = options.calls;
  let built = options.built;
  let workSeen: number | undefined;
  let verified: string | undefined;
  let underWay: Promise<void> | undefined;

  /** See to it that our services are among what is to be run. `first`: with our options. Returns whether anything was written. */
  const merge = (first: boolean): boolean => {
    const there = readWork(runRoot);
    const kept = there?.services.filter(({ plugin }) => !wanted.some((service) => service.plugin === plugin)) ?? [];
    const ours = wanted.map((service) => (first ? service : (there?.services.find(({ plugin }) => plugin === service.plugin) ?? service)));
    const work: Work = { instance, level, idle, services: [...kept, ...ours] };
    const same = there && JSON.stringify([...there.services].sort(byName)) === JSON.stringify([...work.services].sort(byName));
    if (!same) {
      mkdirSync(runRoot, { recursive: true, mode: 0o700 });
      const beside = `${workFile}.${process.pid}`;
      writeFileSync(beside, JSON.stringify(work), { mode: 0o600 });
      renameSync(beside, workFile);
    }
    workSeen = statSync(workFile).ino;
    return !same;
  };
  /** Until it is ready; `first`, what makes it so. */
  const wait = (first: () => void): Promise<void> => {
    underWay ??= (async () => {
      first();
      for (const end = Date.now() + patience; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, POLL))) {
        const info = keeperInfo(runRoot);
        if (info?.ready && !info.ending && info.built >= (built ?? 0)) return;
      }
      log?.warn({ path: join(runRoot, FILES.log) }, 'the keeper of names and rules does not start: names may not resolve until it does');
    })()
      .catch((err: unknown) => log?.warn({ err }, 'the keeper of names and rules cannot be started'))
      .finally(() => (underWay = undefined));
    return underWay;
  };
  const begin = (replace: boolean): Promise<void> => wait(() => start(runRoot, replace));

  return () => {
    try {
      calls ??= createSyscalls();
      built ??= builtAt(join(launcherPath() ?? import.meta.dirname, '../dist/x'));
      let ino: number | undefined;
      try {
        ino = statSync(workFile).ino;
        const now = Date.now() / 1000;
        utimesSync(workFile, now, now);
      } catch {
        ino = undefined; // none, or the keeper has just taken it away to end
      }
      const changed = (ino === undefined || ino !== workSeen) && merge(workSeen === undefined);
      const fd = calls.lock(lockFile, { create: true, shared: true });
      if (fd !== undefined) {
        calls.close(fd);
        return begin(false);
      }
      if (ino === undefined) return begin(true);
      const mark = markOf(lockFile);
      if (mark !== verified) {
        const info = keeperInfo(runRoot);
        if (info && (info.ending || info.built < built)) return begin(true);
        if (!info?.ready) return wait(() => {}); // it is just beginning
        verified = mark;
      }
      if (changed) {
        const pid = keeperOf(runRoot);
        if (pid !== undefined) process.kill(pid, 'SIGHUP');
      }
      return underWay;
    } catch (err) {
      log?.warn({ err }, 'the keeper of names and rules cannot be started');
      return undefined;
    }
  };
}
const byName = (a: Service, b: Service): number => (a.plugin < b.plugin ? -1 : 1);

function markOf(path: string): string {
  const { ino, mtimeMs } = statSync(path);
  return `${ino}:${mtimeMs}`;
}

/**
 * Start the keeper of a runRoot again where one is missing: containers run there, and it did not end by itself (`keeper.json` is there). For a resident engine that has nothing
 * else to do. Returns whether one was started.
 */
export function reviveKeeper(runRoot: string, calls: Pick<Syscalls, 'lock' | 'close'> = createSyscalls(), start = launch): boolean {
  if (readWork(runRoot) === undefined || !hasRuns(runRoot)) return false;
  const fd = calls.lock(join(runRoot, FILES.lock), { create: true, shared: true });
  if (fd === undefined) return false;
  calls.close(fd);
  start(runRoot, false);
  return true;
}

/** The launcher sees to it that it starts clean, and that there is one. */
function launch(runRoot: string, replace: boolean): void {
  const launcher = launcherPath();
  if (launcher === undefined) throw new Error('the launcher is not there');
  const names = ['PATH', 'HOME', 'ENGINE_NO_BUILD'];
  const child = spawn(launcher, ['engined', '--keeper', runRoot, ...(replace ? ['--replace'] : [])], {
    cwd: '/',
    detached: true,
    stdio: 'ignore',
    env: Object.fromEntries(names.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]]))),
  });
  child.on('error', () => {});
  child.unref();
}
