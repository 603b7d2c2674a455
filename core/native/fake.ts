import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { fail } from '../errors/index.ts';
import { decodePlan, type DecodedStep } from '../plan/decode.ts';
import { type OperationName, type Origin } from '../plan/types.ts';
import { type Part } from '../plan/slots.ts';
import { RUN_FILES } from '../plan/protocol.ts';
import { fakeConnection, type FakePeer } from './fake-connection.ts';
import { errno } from './fake-entries.ts';
import { FakePorts, type PortProtocol } from './fake-ports.ts';
import { FakeFiles, type FakeIoctl } from './fake-operations.ts';
import { closeFifos, fakeInit, FakeProcesses, makeFifos, type FakeProcess } from './fake-handover.ts';
import { fakeExec, fakeHelper } from './fake-helper.ts';
import { defaultProgram, FakeShim, type RunProgram } from './fake-shim.ts';
import { type Lock, type Native, type ProgramConnection, type ShimConnection, type StartProgram } from './index.ts';

export { type FakeEnd, type FakeProcess } from './fake-handover.ts';
export { defaultProgram, type FakeProgram, type RunProgram } from './fake-shim.ts';

/** An operation that was come to, in order, whatever then happened to it. */
export interface RecordedOperation {
  readonly part: Part;
  readonly name: OperationName;
  readonly args: Readonly<Record<string, unknown>>;
  readonly origin: Origin;
}
/** Who is gone at a crash: the shim (or helper) alone, the engine alone, or both. */
export type Victim = 'shim' | 'engine' | 'both';

/**
 * A machine without root, for level 1 suites and tests of plugins: file operations happen for real below `prefix`, everything else is
 * recorded. Operations are counted from 0 over all shims, so that a test can make the k-th fail or crash, for every k.
 *
 *     const native = createFakeNative({ prefix: folder });
 *     native.crashAt(3, { victim: 'engine' });
 *     await Promise.race([verb(), native.crashed]);
 *     const next = native.restart();      // the next engine on the same machine
 */
export interface FakeNative extends Native {
  readonly operations: readonly RecordedOperation[];
  /** Operation `k` (from the next one on, which is 0) fails. */
  failAt(k: number, error?: { errno?: string; detail?: string }): void;
  /** Somebody is killed before or after operation `k`. */
  crashAt(k: number, options?: { victim?: Victim; when?: 'before' | 'after' }): void;
  /** Shims of runs so far. */
  readonly spawned: number;
  /** Operations come to since the last failAt, crashAt or reset. */
  readonly count: number;
  /** Forget what was recorded and every fault. */
  reset(): void;
  /** The engine is killed now: its locks are free, it can do nothing more. */
  die(): void;
  /** Resolves when the engine has been killed and what it had started has ended or been killed. */
  readonly crashed: Promise<void>;
  /** Another engine on the same machine; running shims go on. `reboot`: they don't, and the boot id is another. */
  restart(options?: { reboot?: boolean }): FakeNative;
  /** SIGKILL for the shim of a run's folder. */
  killShim(runFolder: string): void;
  /**
   * Somebody else has this port of the host, at `address` or at every one: it is not free, and `holdPort` fails with EADDRINUSE. Those of shims are held and freed by
   * themselves. `holder`: in words, as portHolder says it. The returned function gives the port back. Errors: EADDRINUSE.
   */
  takePort(protocol: PortProtocol, port: number, holder?: string, address?: string): () => void;
  /** What whoever holds this end of a `socketPair` sees when the other end was given to a shim. */
  endOf(fd: number): ShimConnection;
  /** A process that was handed over, living or not: init of a container, or a session of mode `exec`. */
  processOf(pid: number): FakeProcess | undefined;
  /** What a program says that is started with `startProgram`; without it none can be. */
  speaker: ((request: StartProgram) => ProgramConnection | Promise<ProgramConnection>) | undefined;
  /** What all processes have mounted; of a new one with streams /dev/null, a pipe and /out, in groups /g. */
  mountinfo: string;
  /** The pid of another process. */
  newPid(): number;
}
export interface FakeNativeOptions {
  readonly prefix: string;
  /** What runs inside of containers. */
  readonly program?: RunProgram;
  /** What an ioctl does here; without it an ioctl is only recorded. */
  readonly ioctl?: FakeIoctl;
}

/** An open file description with a lock: freed when nobody has it open. */
interface Description { readonly key: string; readonly shared: boolean; readonly fd: number; references: number }
interface World {
  readonly locks: Map<string, Set<Description>>;
  readonly shims: Map<string, FakeShim>;
  readonly operations: RecordedOperation[];
  readonly ports: FakePorts;
  readonly processes: FakeProcesses;
  boot: number;
  nextPid: number;
}
/** Locks are the machine's: fakes with different worlds on one folder see each other's, as processes would. */
const locks: World['locks'] = new Map();

export function createFakeNative({ prefix, program = defaultProgram, ioctl }: FakeNativeOptions): FakeNative {
  return engineOn({ locks, shims: new Map(), ports: new FakePorts(), processes: new FakeProcesses(), operations: [], boot: 1, nextPid: 4_000_000 }, fs.realpathSync(prefix), program, ioctl);
}

function engineOn(world: World, prefix: string, program: RunProgram, ioctl?: FakeIoctl): FakeNative {
  const mine = new Map<Description, number>();
  let spawned = 0;
  let count = 0;
  let fault: { k: number; errno: string; detail: string } | undefined;
  let crash: { k: number; victim: Victim; when: 'before' | 'after' } | undefined;
  let dead = false;
  let busy = 0;
  let resolveCrashed: () => void = () => {};
  const crashed = new Promise<void>((resolve) => (resolveCrashed = resolve));

  const pairs = new Map<number, ReturnType<typeof fakeConnection>>();
  const take = (fd: number): FakePeer | undefined => {
    const pair = pairs.get(fd);
    pairs.delete(fd);
    fs.closeSync(fd);
    return pair?.shim;
  };
  const drop = (description: Description): void => {
    if (--description.references > 0) return;
    // not before: another file could have its inode number
    fs.closeSync(description.fd);
    const set = world.locks.get(description.key);
    set?.delete(description);
    if (set?.size === 0) world.locks.delete(description.key);
  };
  const die = (): void => {
    if (dead) return;
    dead = true;
    for (const shim of world.shims.values()) shim.abandon(native);
    for (const description of mine.keys()) drop(description);
    mine.clear();
    if (busy === 0) resolveCrashed();
  };
  const alive = (): void => {
    if (dead) throw fail('ERR_INTERNAL', 'this engine is dead');
  };

  /** Count, record, fail or crash; then do. */
  const performer = (files: FakeFiles, self: object) => async (step: DecodedStep, part: Part): Promise<'done' | null> => {
    await new Promise((resolve) => setImmediate(resolve));
    const k = count++;
    const { operation, origin } = step;
    const hit = (when: 'before' | 'after'): boolean => {
      if (crash?.k !== k || crash.when !== when) return false;
      if (crash.victim !== 'shim') die();
      return crash.victim !== 'engine';
    };
    if (hit('before')) return null;
    world.operations.push({ part, name: operation.name, args: operation.args, origin });
    try {
      if (fault?.k === k) throw errno(fault.errno, fault.detail);
      if (operation.name === 'holdPort') world.ports.hold(operation.args, self);
      else await files.run(step);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const tolerated = (code === 'ENOENT' && operation.flags?.okMissing) || (code === 'EEXIST' && operation.flags?.okExists);
      if (!tolerated) throw error;
    }
    return hit('after') ? null : 'done';
  };

  const native: FakeNative = {
    operations: world.operations,
    get count() { return count; },
    get spawned() { return spawned; },
    failAt(k, { errno: code = 'EIO', detail = '' } = {}) {
      count = 0;
      fault = { k, errno: code, detail };
    },
    crashAt(k, { victim = 'both', when = 'before' } = {}) {
      count = 0;
      crash = { k, victim, when };
    },
    reset() {
      count = 0;
      fault = crash = undefined;
      world.operations.length = 0;
    },
    die,
    crashed,
    restart({ reboot = false } = {}) {
      die();
      if (reboot) {
        for (const shim of world.shims.values()) shim.kill();
        world.shims.clear();
        world.processes.killAll();
        world.boot++;
      }
      return engineOn(world, prefix, program, ioctl);
    },
    killShim(runFolder) {
      const socket = join(runFolder, RUN_FILES.socket);
      world.shims.get(socket)?.kill();
      world.shims.delete(socket);
    },

    takePort(protocol, port, holder, address) {
      const owner = {};
      for (const one of address === undefined ? ['0.0.0.0', '::'] : [address]) world.ports.take(protocol, one, port, owner, holder);
      return () => world.ports.free(owner);
    },
    isPortFree(protocol, address, port) {
      alive();
      return world.ports.find(protocol, address, port) === undefined;
    },
    portHolder: (protocol, address, port) => world.ports.find(protocol, address, port)?.holder,

    tryLock(path, { create = true, shared = false, byte } = {}) {
      alive();
      if (!create && !fs.existsSync(path)) return undefined;
      const fd = fs.openSync(path, create ? fs.constants.O_RDWR | fs.constants.O_CREAT : fs.constants.O_RDWR, 0o600);
      const { dev, ino } = fs.fstatSync(fd);
      const key = `${dev}:${ino}:${byte ?? ''}`;
      const holders = world.locks.get(key) ?? new Set();
      if (holders.size > 0 && !(shared && [...holders].every((holder) => holder.shared))) {
        fs.closeSync(fd);
        return undefined;
      }
      const description: Description = { key, shared, fd, references: 1 };
      world.locks.set(key, holders.add(description));
      mine.set(description, fd);
      const lock: Lock = {
        fd, path,
        release() {
          if (mine.delete(description)) drop(description);
        },
      };
      return lock;
    },

    endOf(fd) {
      const pair = pairs.get(fd);
      if (!pair) throw fail('ERR_INTERNAL', 'no end of a pair');
      return pair.engine;
    },

    spawnShim({ mode, plan: planPath, runFolder, lock, streams = [], client: clientFd, pool, trace = false, by, handOver }) {
      const client = clientFd === undefined ? undefined : take(clientFd);
      alive();
      const plan = fs.readFileSync(planPath);
      const writes = new Set(decodePlan(plan).steps.filter((step) => step.operation.name === 'pack').map((step) => step.operation.args['stream']));
      const { O_RDONLY, O_WRONLY, O_NONBLOCK } = fs.constants;
      // reopened, because the engine may close its own right away
      const own = streams.map((fd, i) => fs.openSync(`/proc/self/fd/${fd}`, writes.has(`fd${i}`) ? O_WRONLY : O_RDONLY | O_NONBLOCK));
      const description = lock && [...mine.keys()].find((candidate) => mine.get(candidate) === lock.fd);
      if (description) description.references++;
      let shared = description;
      const release = (): void => {
        if (shared) drop(shared);
        shared = undefined;
      };
      const { engine, shim: peer } = fakeConnection(() => dead, take);
      const self = {};
      const perform = performer(new FakeFiles(prefix, own, ioctl), self);
      const freePorts = (): void => world.ports.free(self);
      busy++;
      const end = (): void => {
        for (const fd of own) fs.closeSync(fd);
        release();
        if (--busy === 0 && dead) resolveCrashed();
      };
      let failure: Error | undefined;
      /** As soon as it runs, which is somebody else's to say where it is somebody else's child. */
      const begin = (work: () => void, never: () => void): void => {
        if (!by) return void setImmediate(work);
        const callerFds = handOver ?? { preserve: 0 };
        void by.spawn({ program: -1, argv: ['engine-shim', mode], env: [], fds: [], callerFds }).then(work, (error: Error) => {
          failure = error;
          never();
          peer.close();
        });
      };
      if (mode === 'run') {
        spawned++;
        if (runFolder === undefined) throw fail('ERR_INTERNAL', 'a run needs its folder');
        const socket = join(runFolder, RUN_FILES.socket);
        busy--;
        const pid = world.nextPid++;
        const fifos = handOver && makeFifos(runFolder);
        let handed = false;
        const passOn = fifos && ((finished: Uint8Array): void => {
          handed = true;
          void fakeInit(world.processes.make(pid), finished, fifos, perform, program);
        });
        const released = (): void => {
          release();
          world.shims.delete(socket);
          if (fifos && !handed) closeFifos(fifos);
          handed = true;
        };
        const shim = new FakeShim({ folder: runFolder, plan, pid, perform, program, pool, trace, owner: native, freePorts, release: released, handOver: passOn });
        world.shims.set(socket, shim);
        shim.connect(peer, clientFd === undefined ? undefined : { client });
        begin(() => void shim.run(), released);
      } else if (mode === 'exec') {
        const make = (): FakeProcess => world.processes.make(world.nextPid++);
        const init = runFolder === undefined ? undefined : world.processes.init(runFolder);
        begin(() => void fakeExec(plan, peer, perform, program, init, make).finally(end), end);
      } else {
        const work = async (): Promise<void> => {
          const init = mode === 'undo' && runFolder !== undefined ? world.processes.init(runFolder) : undefined;
          init?.signal(9);
          await fakeHelper(mode === 'undo' ? 'undo' : 'helper', plan, peer, perform, runFolder);
        };
        begin(() => void work().finally(() => (freePorts(), end())), end);
      }
      return Object.defineProperty(engine, 'failure', { get: () => failure });
    },
    async connectShim(path) {
      alive();
      const shim = world.shims.get(path);
      if (!shim) throw fail('ERR_SHIM_GONE', 'nobody listens on the shim\'s socket', { path });
      const { engine, shim: peer } = fakeConnection(() => dead, take);
      shim.connect(peer);
      return engine;
    },
    processStartTime(pid) {
      if (pid === process.pid) return dead ? undefined : 1n;
      return pid >= 4_000_000 && pid < world.nextPid && world.processes.find(pid)?.isAlive !== false ? 1n : undefined;
    },
    signalProcess(pid, startTime, signal) {
      alive();
      const found = world.processes.find(pid);
      if (startTime !== 1n || !found?.isAlive) return false;
      found.signal(signal);
      return true;
    },
    removeGroup: () => false,
    watchEnd(pid, startTime, onEnd) {
      alive();
      let open = true;
      const found = startTime === 1n ? world.processes.find(pid) : undefined;
      void Promise.resolve(found?.ended).then(() => open && !dead && onEnd());
      return { close: () => void (open = false) };
    },
    mountinfo: '',
    processFolder(pid) {
      const folder = join(prefix, 'proc', String(pid));
      if (fs.existsSync(folder)) return folder;
      fs.mkdirSync(join(folder, 'fd'), { recursive: true });
      for (const [fd, target] of ['/dev/null', `pipe:[${pid}]`, '/out'].entries()) fs.symlinkSync(target, join(folder, 'fd', String(fd)));
      fs.writeFileSync(join(folder, 'mountinfo'), native.mountinfo);
      fs.writeFileSync(join(folder, 'cgroup'), `2:cpu,cpuacct:/g/${pid}\n0::/g\n`);
      return folder;
    },
    processOf: (pid) => world.processes.find(pid),
    speaker: undefined,
    newPid: () => world.processes.make(world.nextPid++).pid,
    async startProgram(request) {
      alive();
      if (!native.speaker) throw fail('ERR_NATIVE', `cannot start ${request.path}: ENOENT`, { operation: 'start', path: request.path, errno: 'ENOENT' });
      return native.speaker(request);
    },
    bootId: () => `fake-boot-${world.boot}`,
    socketPair() {
      alive();
      // real fds, so that whoever owns one may close it
      const ends = [fs.openSync('/dev/null', 'r'), fs.openSync('/dev/null', 'r')] as const;
      const pair = fakeConnection(() => false);
      for (const fd of ends) pairs.set(fd, pair);
      return ends;
    },
    close(fd) {
      pairs.delete(fd);
      fs.closeSync(fd);
    },
    pipe() {
      alive();
      const path = join(prefix, `.fake-pipe-${process.pid}-${world.nextPid++}`);
      execFileSync('mkfifo', ['-m', '600', path]);
      const both = fs.openSync(path, 'r+');
      const pipe = { read: fs.openSync(path, 'r'), write: fs.openSync(path, 'w') };
      fs.closeSync(both);
      fs.unlinkSync(path);
      return pipe;
    },
  };
  return native;
}
