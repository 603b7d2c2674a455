import { endProcess } from '@engine/native/end';
import { chmodSync, closeSync, mkdirSync, renameSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { createServer as listen, type Server as Listener } from 'node:net';
import { join } from 'node:path';
import { describeError, fail } from '@engine/core/errors';
import { createSyscalls } from '@engine/native';
import { loadFrontend } from '../frontend.ts';
import { createLog } from '../log.ts';
import { reviveKeeper } from '../keeper/ensure.ts';
import { version } from '../version.ts';
import { catchFaults } from './faults.ts';
import { createFreshness, programFiles } from './freshness.ts';
import { READY_FD, startSuccessor } from './handover.ts';
import { createInstances, type Instances } from './instances.ts';
import { giveBackCode } from './memory.ts';
import { isLastChild } from './parent.ts';
import { signLock, takeListenFd, takeLock } from './place.ts';
import { socketPlace } from './socket-place.ts';
import { rebuild, sourceFolders } from './rebuild.ts';
import { createRoots } from './roots.ts';
import { createServer } from './server.ts';
import { startWatchdog } from './watchdog.ts';

/** Longest time that requests are waited for which end by themselves, ms. */
const PATIENCE = 5000;
/** So long after the last command it gives back what only commands need, ms. */
const SETTLED = 2000;
/** One that never is without a command does so this often, ms: what its start has touched is most of it. */
const BUSY = 30_000;
/** Least time between two attempts to hand over, ms. */
const RETRY = 5000;
/** Without a command for so long, an engined that is its parent's last child leaves, ms. A containerd shim, which is not kept by it, has ended by then. */
const PARTING = 2000;
/** Between two looks whether the keeper of what runs is there, ms. */
const KEEPER = 5000;

/**
 * `engine engined`: serve until there is nothing to do, a signal comes, or the program is another one. Resolves to the exit code.
 *
 * `--inherited`: the successor of one that hands over to us; `--wake ROOT RUNROOT`: see wake.ts.
 */
export async function engined(argv: readonly string[]): Promise<number> {
  if (argv[0] === '--wake') return (await import('./wake.ts')).wake(argv[1] ?? '', argv[2] ?? '', argv[3]);
  // before the first use of the thread pool: a read from a dead mount holds a thread for good
  process.env.UV_THREADPOOL_SIZE ??= '16';
  process.umask(0o022);
  const place = socketPlace(process.env);
  if (!place) throw fail('ERR_USAGE', 'there is no place for the socket', { hint: 'set ENGINE_SOCKET or XDG_RUNTIME_DIR' });
  const { folder, socket } = place;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const inherited = argv[0] === '--inherited';
  if (inherited) process.env.LISTEN_PID = String(process.pid);
  const listenFd = takeListenFd(process.env);
  const calls = createSyscalls();
  const taken = takeLock(folder, calls);
  if (taken === undefined) throw fail('ERR_BUSY', `a resident engine runs already: ${join(folder, 'engined.lock')} is held`, { operation: 'engined' });
  const lock = taken.fd;
  if (!inherited) signLock(lock);
  // a service manager gives a socket without a lock: it is its own, and stays
  const socketIsOurs = listenFd === undefined || taken.inherited;

  const log = createLog({ level: 'info', format: 'json', write: (line) => void writeSync(2, line) });
  const stopped = Promise.withResolvers<string>();
  const watchdog = startWatchdog({ folder });
  catchFaults(folder, log, () => stopped.resolve('a fault'));

  const roots = createRoots(folder, (): Instances => instances, log);
  const instances = createInstances({ host: { ...watchdog.host, spawnLater: true }, onOpened: ({ resolved }, engine) => roots.opened(resolved, engine) });

  const ending = new AbortController();
  let handingOver: Promise<void> | undefined;
  let wanted: string | undefined;
  let lastAttempt = 0;
  let idle = 300_000;
  const frontends = { cli: loadFrontend('cli'), oci: loadFrontend('oci') };
  for (const loading of Object.values(frontends)) loading.catch(() => {});
  const server = createServer({
    instances,
    calls,
    frontend: (driver) => frontends[driver],
    log,
    wake: (root, runRoot) => roots.wake(root, runRoot),
    onConfig(config) {
      idle = config.idle * 1000;
      watchdog.limit(config.watchdog * 1000);
    },
    busyWith() {
      freshness.glance();
      const changed = freshness.changedPlugin();
      if (changed !== undefined) void handOver(`${changed} has changed`);
      return changed === undefined ? undefined : `code of a plugin has changed: ${changed}`;
    },
  });

  const listener = listen({ pauseOnConnect: false, allowHalfOpen: true }, (connection) => void server.accept(connection));
  await startListening(listener, listenFd, socket);
  if (inherited) {
    signLock(lock);
    tellReady();
  }
  const ours = inode(socket);

  const script = process.argv[1] ?? '';
  const sources = sourceFolders(script);
  const freshness = createFreshness({
    program: programFiles(script),
    sources,
    onChange: (path) => void handOver(`${path} has changed`),
    onStale: () => void rebuild(script, log),
  });

  /** The socket and the lock go to a fresh process; what is under way here is finished here. */
  async function handOver(why: string): Promise<void> {
    if (handingOver || ending.signal.aborted) return handingOver;
    wanted = why;
    if (Date.now() - lastAttempt < RETRY) return; // tick() comes back to it
    wanted = undefined;
    lastAttempt = Date.now();
    handingOver = handOverNow(why).finally(() => (handingOver = undefined));
    return handingOver;
  }
  async function handOverNow(why: string): Promise<void> {
    // who comes meanwhile waits in the service manager's socket, and it starts us again for him
    if (!socketIsOurs) return stopped.resolve(`to be started anew: ${why}`);
    try {
      const fd = (listener as unknown as { readonly _handle?: { readonly fd: number } })._handle?.fd;
      if (fd === undefined) return;
      const pid = await startSuccessor({ listen: fd, lock, script, signal: ending.signal });
      log.info({ pid }, `handed over: ${why}`);
      stopped.resolve('handed over');
    } catch (err) {
      log.error({ err }, `could not hand over (${why})`);
      signLock(lock); // it may have come as far as that
    }
  }

  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stopped.resolve(signal));
  process.on('SIGHUP', () => void handOver('SIGHUP'));
  process.on('SIGPIPE', () => {});
  // without a listener it would open Node's inspector to every local user
  process.on('SIGUSR1', () => {});

  log.info({ version, socket, pid: process.pid }, 'engined serves');
  void roots.reopen();
  const timer = setInterval(() => void tick(), 1000);
  let trimmed = -1;
  let gaveBack = Date.now() - BUSY + SETTLED;
  let quietly = false;
  let looked = 0;
  async function tick(): Promise<void> {
    if (wanted !== undefined) void handOver(wanted);
    if (Date.now() - looked > KEEPER) {
      looked = Date.now();
      lookAfterKeepers();
    }
    // its folder was removed, or another one's socket lies there: nobody can find us any more
    if (ours === undefined || inode(socket) !== ours) return stopped.resolve('its socket is gone');
    if (!handingOver && server.lastRequest > gaveBack && Date.now() - gaveBack > BUSY) {
      gaveBack = Date.now();
      await giveBackCode();
    }
    if (handingOver || server.active > 0) return;
    const quiet = Date.now() - server.lastRequest;
    if (quiet > SETTLED && trimmed !== server.lastRequest) {
      trimmed = server.lastRequest;
      gaveBack = Date.now();
      await giveBackCode();
    }
    if (quiet > 60_000) await instances.sweep().catch((err: unknown) => log.warn({ err }, 'an engine could not be closed'));
    if (server.active > 0) return;
    const parted = taken?.inherited && quiet > PARTING && isLastChild();
    if (!parted && (quiet < idle || idle === 0)) return;
    if (instances.open().some(({ engine }) => engine.system.needed().length > 0)) return;
    quietly = true;
    stopped.resolve(parted ? 'its parent may be waiting for its last child' : 'idle');
  }

  /** Names and rules of what runs must be there, whoever killed their process. */
  function lookAfterKeepers(): void {
    for (const runRoot of new Set(instances.open().map(({ instance }) => instance.resolved.config.value.runRoot))) {
      try {
        if (reviveKeeper(runRoot, calls)) log.warn({ runRoot }, 'its keeper was gone, and is started again');
      } catch (err) {
        log.warn({ err, runRoot }, 'its keeper cannot be started');
      }
    }
  }

  const why = await stopped.promise;
  clearInterval(timer);
  freshness.close();
  ending.abort();
  await handingOver;
  log.info(`engined ends: ${why}`);
  const successor = why === 'handed over';
  // whoever comes now finds no socket and starts another; those who are already in the queue are served
  if (!successor && socketIsOurs && inode(socket) === ours) unlinkOwn(socket, listener);
  if (quietly) await new Promise((resolve) => setTimeout(resolve, 50));
  listener.close();
  // another one may begin while we finish
  closeSync(lock);
  const waiting = async (): Promise<void> => {
    while (server.active > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  if (successor) await waiting();
  else if (why !== 'a fault') await Promise.race([waiting(), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
  await server.cancel(why === 'a fault' ? 'the resident engine met an internal error and ends; containers go on' : 'the resident engine was stopped; containers go on');
  await Promise.race([instances.close(), new Promise((resolve) => setTimeout(resolve, PATIENCE))]).catch((error: unknown) => log.error(describeError(error)));
  await watchdog.stop();
  endProcess(why === 'a fault' ? 1 : 0);
}

async function startListening(listener: Listener, fd: number | undefined, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.once('listening', () => {
      listener.off('error', reject);
      resolve();
    });
    if (fd !== undefined) {
      listener.listen({ fd });
      return;
    }
    // the lock is ours: what lies there belongs to nobody
    try {
      unlinkSync(path);
    } catch {
      // nothing there
    }
    // under another name first: it has the right mode before anybody can find it, and Node removes that name, not ours, when it closes
    listener.listen({ path: `${path}.new`, backlog: 1024 });
  });
  if (fd !== undefined) return;
  chmodSync(`${path}.new`, 0o600);
  renameSync(`${path}.new`, path);
}

/** With the lock still held: nobody else can have made it. */
function unlinkOwn(path: string, listener: Listener): void {
  if (!listener.listening) return;
  try {
    if (statSync(path).isSocket()) unlinkSync(path);
  } catch {
    // somebody removed it
  }
}

const inode = (path: string): number | undefined => statSync(path, { throwIfNoEntry: false })?.ino;

function tellReady(): void {
  try {
    writeSync(READY_FD, 'r');
    closeSync(READY_FD);
  } catch {
    // the one before us has gone meanwhile
  }
}
