import { fstatSync, ftruncateSync, mkdirSync, renameSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Logger } from 'pino';
import { type ServiceDefinition } from '@engine/core/plugin';
import { builtAt, FILES, hasRuns, keeperOf, readInfo, readWork, type KeeperInfo, type Service } from './place.ts';
import { services as builtins } from './services.ts';
import { createSupervisor, type Supervisor } from './supervisor.ts';

/** Fd that the launcher gives with the lock held; the same as ENGINED_FD.lock. */
const LOCK_FD = 4;
/** Longest time that whoever was asked to end may take for it, ms. */
const PATIENCE = 15_000;
const POLL = 2;
/** Of the text in the lock file, so that a shorter one covers a longer one. */
const SIZE = 256;

export interface KeeperOptions {
  readonly runRoot: string;
  readonly script: string;
  readonly version: string;
  readonly log: Logger;
  /** Ends it. */
  readonly signal: AbortSignal;
  /** Told how to hand in an error that nobody caught, and how to have `keeper.json` read again. */
  readonly onRunning?: (running: { readonly fault: (error: unknown) => void; readonly reload: () => void }) => void;
  /** It is ready, and will have nothing to do for a while. */
  readonly settled?: () => void;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Be the keeper of a runRoot until nothing runs there any more, the signal, or another one takes over. Resolves to why it ended. */
export async function keep(options: KeeperOptions): Promise<string> {
  const { runRoot, log, signal, version, script } = options;
  const built = builtAt(script);
  const work = readWork(runRoot);
  if (!work) return 'there is nothing to run';
  const supervisor = createSupervisor({
    log,
    load,
    context: (service, ownLog) => {
      const serviceFolder = join(runRoot, service.plugin);
      mkdirSync(serviceFolder, { recursive: true, mode: 0o700 });
      return { log: ownLog, instance: work.instance, serviceFolder, options: service.options, runRoot, socketsChanged: tellGuardian };
    },
  });
  const reload = (): void => void supervisor.run(readWork(runRoot)?.services ?? []).catch((err: unknown) => log.error({ err }, 'cannot read its work again'));
  options.onRunning?.({ fault: (error) => supervisor.fault(error), reload });
  let lock = inherited(join(runRoot, FILES.lock));
  const started = lock === undefined ? takeOver(options, built, supervisor) : undefined;
  lock ??= await started;
  if (lock === undefined) {
    await supervisor.stop();
    return 'another one is there';
  }
  const info: KeeperInfo = { pid: process.pid, version, built, ready: false, ending: false };
  sign(lock, info);
  await supervisor.run(readWork(runRoot)?.services ?? work.services);
  sign(lock, { ...info, ready: true });
  tellGuardian();
  log.info({ pid: process.pid, version }, 'the keeper is ready');
  options.settled?.();
  const why = await untilEnd(runRoot, work.idle * 1000, supervisor, signal, lock, info);
  // what comes from here on is for the next one, which may be at work already
  await supervisor.stop();
  return why;
}

/** Our parent, where the launcher has started us: holds what we listen on, and starts us again (native/src/launcher/guardian.c). */
const guardian = Number(process.env.KEEPER_GUARDIAN);
let telling: NodeJS.Immediate | undefined;
function tellGuardian(): void {
  telling ??= setImmediate(() => {
    telling = undefined;
    if (process.ppid !== guardian) return;
    try {
      process.kill(guardian, 'SIGUSR2');
    } catch {
      // it has ended
    }
  });
}

async function load(service: Service): Promise<ServiceDefinition> {
  let module: { readonly default?: unknown };
  if (service.module === undefined) {
    const builtin = builtins[service.plugin];
    if (!builtin) throw new Error(`this program has no service ${service.plugin}`);
    module = await builtin();
  } else {
    const { checkOwnership } = await import('../ownership.ts');
    checkOwnership(service.module, 'plugin');
    const { mapRunningCore } = await import('../running-core.ts');
    mapRunningCore();
    module = (await import(/* @vite-ignore */ pathToFileURL(service.module).href)) as typeof module;
  }
  const definition = module.default as ServiceDefinition | undefined;
  if (typeof definition?.start !== 'function') throw new TypeError(`${service.module ?? service.plugin} does not export default defineService({start})`);
  return definition;
}

function inherited(path: string): number | undefined {
  try {
    const [there, ours] = [statSync(path), fstatSync(LOCK_FD)];
    return there.ino === ours.ino && there.dev === ours.dev ? LOCK_FD : undefined;
  } catch {
    return undefined;
  }
}
function sign(lock: number, info: KeeperInfo): void {
  const text = `${info.pid}\n${JSON.stringify(info)}`.padEnd(SIZE);
  // in one write over the old text, so that a reader finds the one or the other
  writeSync(lock, text, 0);
  ftruncateSync(lock, text.length);
}

/**
 * Somebody holds the lock, and we are to come after him. One whose program is older is sent home once our services run beside his: no query finds a closed port.
 * Undefined: he is as good as we are.
 */
async function takeOver({ runRoot, log, signal }: KeeperOptions, built: number, supervisor: Supervisor): Promise<number | undefined> {
  // its native part costs memory: only who comes without a lock needs it
  const { createSyscalls } = await import('@engine/native/syscalls');
  const calls = createSyscalls();
  const path = join(runRoot, FILES.lock);
  const next = calls.lock(`${path}.next`, { create: true, shared: false });
  if (next === undefined) return undefined; // somebody else does this just now
  try {
    let told = 0;
    for (const end = Date.now() + PATIENCE; Date.now() < end && !signal.aborted; await sleep(POLL)) {
      const lock = calls.lock(path, { create: true, shared: false });
      if (lock !== undefined) return lock;
      const info = readInfo(runRoot);
      const pid = keeperOf(runRoot);
      if (!info || pid === undefined || info.pid !== pid || info.ending || told === pid) continue;
      if (info.built >= built) {
        process.kill(pid, 'SIGHUP');
        return undefined;
      }
      await supervisor.run(readWork(runRoot)?.services ?? []);
      log.info({ pid }, 'takes over from an older one');
      told = pid;
      process.kill(pid, 'SIGTERM');
    }
    return undefined;
  } finally {
    calls.close(next);
  }
}

/** Resolves when it is time to go, with the lock file saying so. */
async function untilEnd(runRoot: string, idle: number, supervisor: Supervisor, signal: AbortSignal, lock: number, info: KeeperInfo): Promise<string> {
  const path = join(runRoot, FILES.work);
  const end = (why: string): string => {
    sign(lock, { ...info, ready: true, ending: true });
    return why;
  };
  const wakeUp = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => wakeUp.resolve());
  const busy = (since: number): boolean => hasRuns(runRoot) || Date.now() - since < idle || supervisor.needed().length > 0;
  let last = Date.now();
  for (;;) {
    if (signal.aborted) return end('it was told to');
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([wakeUp.promise, new Promise<void>((resolve) => (timer = setTimeout(resolve, Math.min(2000, idle / 4))))]);
    clearTimeout(timer);
    if (signal.aborted) continue;
    if (!isThere(lock, join(runRoot, FILES.lock))) return 'its folder is gone';
    last = Math.max(last, timeOf(path));
    if (hasRuns(runRoot)) last = Date.now();
    if (busy(last)) continue;
    // who asks from here on finds no work, and has another one started: unless he asked just before
    sign(lock, { ...info, ready: true, ending: true });
    const aside = `${path}.ended`;
    rename(path, aside);
    if (busy(Math.max(last, timeOf(aside)))) {
      rename(aside, path);
      sign(lock, { ...info, ready: true });
      last = Date.now();
      continue;
    }
    remove(aside);
    return 'nothing runs any more';
  }
}

function isThere(fd: number, path: string): boolean {
  try {
    const [there, ours] = [statSync(path), fstatSync(fd)];
    return there.ino === ours.ino && there.dev === ours.dev;
  } catch {
    return false;
  }
}
function timeOf(path: string): number {
  try {
    return statSync(path).mtimeMs;
  } catch {
    return 0;
  }
}
function rename(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch {
    // gone, with all the rest
  }
}
function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // gone
  }
}
