/** What native's own tests share: a tiny root with busybox, plans for it, and a connection that remembers its frames. */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Frame, type Lock, type Native, type ShimConnection, type SpawnShim } from '@engine/core/native';
import { BITS, encodePlan, FRAME, op, orderSteps, step, undoSteps, type PlannedStep, type Step } from '@engine/core/plan';
import { CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, MS } from './constants.ts';
import { decodeFailure } from './frames.ts';

export const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path));
/** Why the tests with a real shim cannot run here; undefined when they can. */
export const unable = process.getuid?.() === 0 ? (busybox ? undefined : 'no static busybox') : 'not root';

export function bytesOf(steps: readonly Step[]): Uint8Array {
  const planned = orderSteps(steps.map((one): PlannedStep => ({ ...one, origin: { plugin: 'test', hook: 'test' } })));
  return encodePlan({ steps: [...planned.filter((s) => !s.slot.startsWith('after.')), ...undoSteps(planned), ...planned.filter((s) => s.slot.startsWith('after.'))] });
}

export const namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
const environment = ['PATH=/bin', 'TERM=xterm'];

export interface Container {
  readonly argv: readonly string[];
  readonly stdio?: number;
  readonly ring?: number;
  readonly maxSize?: bigint;
  readonly maxFiles?: number;
  readonly log?: boolean;
  readonly reaper?: boolean;
  readonly flags?: number;
  readonly extra?: readonly Step[];
}

/** A run's folder, a root, a log folder and a plan, all in a temporary folder. */
export class Bench {
  readonly folder = mkdtempSync(join(tmpdir(), 'engine-native-'));
  readonly run = join(this.folder, 'run');
  readonly root = join(this.folder, 'root');
  readonly log = join(this.folder, 'log');
  readonly marker = join(this.folder, 'marker');
  readonly connections: Talk[] = [];
  #lock: Lock | undefined;
  readonly native: Native;

  constructor(native: Native) {
    this.native = native;
    for (const folder of [join(this.run, 'rootfs'), this.log]) mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const folder of ['bin', 'proc', 'dev/pts', 'tmp']) mkdirSync(join(this.root, folder), { recursive: true });
    writeFileSync(join(this.root, 'dev/null'), ''); // the shell's stdin of background jobs
    copyFileSync(busybox as string, join(this.root, 'bin/busybox'));
    for (const applet of ['sh', 'cat', 'echo', 'sleep', 'true', 'stty', 'tty', 'seq', 'head', 'dd', 'kill', 'ps', 'id', 'yes']) symlinkSync('busybox', join(this.root, 'bin', applet));
  }

  steps(container: Container): Step[] {
    const terminal = ((container.stdio ?? 0) & BITS.STDIO.terminal) !== 0;
    return [
      step('shim.stdio', op.stdio({ flags: container.stdio ?? 0, ...(container.log === false ? {} : { logDir: this.log }), maxSize: container.maxSize ?? 0n, maxFiles: container.maxFiles ?? 1, ring: container.ring ?? 0, rows: 24, cols: 80 })),
      step('shim.cgroup', op.mkdir({ path: this.marker, mode: 0o700 }), op.rmdir({ path: this.marker }, { okMissing: true })),
      step('shim.rootfs', op.openTree({ source: this.root, out: 'tree' })),
      step('shim.spawn', op.spawn({ flags: BigInt(container.flags ?? namespaces), pid: 'pid', pidfd: 'pidfd' })),
      step('shim.attach', op.keepNamespaces({ pid: 'pid' })),
      step('init.rootfs', op.setPropagation({ path: '/', flags: MS.REC | MS.PRIVATE })),
      step('init.rootfs', op.reopenRoot({ mount: 'tree', at: join(this.run, 'rootfs'), out: 'root' })),
      // the clone of a shared mount is shared: under systemd all that is mounted below would come to be on the host too
      step('init.rootfs', op.setMountAttributes({ mount: 'tree', propagation: MS.PRIVATE, recursive: 1 })),
      step('init.mounts', op.mountFs({ type: 'proc', out: 'proc' })),
      step('init.mounts', op.moveMount({ mount: 'proc', root: 'root', target: '/proc' })),
      step('init.mounts', op.mountFs({ type: 'devpts', options: ['newinstance', 'ptmxmode=0666', 'mode=620'], out: 'devpts' })),
      step('init.mounts', op.moveMount({ mount: 'devpts', root: 'root', target: '/dev/pts' })),
      ...(terminal ? [step('init.terminal', op.open({ root: 'root', path: '/dev/pts', flags: 0o200000, out: 'pts' })), step('init.terminal', op.terminal({ devpts: 'pts' }))] : [step('init.terminal', op.pipes({}))]),
      step('init.pivot', op.pivotRoot({ root: 'root' })),
      ...(container.reaper ? [step('init.reaper', op.reaper({}))] : []),
      step('init.exec', op.closeFds({ from: 3 })),
      step('init.exec', op.resolveExec({ name: container.argv[0] ?? '', env: environment, out: 'program' })),
      step('init.exec', op.exec({ program: 'program', argv: container.argv, env: environment })),
      ...(container.extra ?? []),
    ];
  }

  /** An exec plan. */
  session(argv: readonly string[], stdio = 0): Uint8Array {
    return bytesOf([
      step('exec.join', op.joinContainer({})),
      ...(stdio & BITS.STDIO.terminal ? [step('exec.terminal', op.open({ path: '/dev/pts', flags: 0o200000, out: 'pts' })), step('exec.terminal', op.terminal({ devpts: 'pts' }))] : [step('exec.terminal', op.pipes({}))]),
      step('exec.exec', op.closeFds({ from: 3 })),
      step('exec.exec', op.resolveExec({ name: argv[0] ?? '', env: environment, out: 'program' })),
      step('exec.exec', op.exec({ program: 'program', argv, env: environment })),
    ]);
  }

  /** Write the plan, take the lock, start the shim. The lock is the shim's alone afterwards. */
  start(container: Container, env?: Record<string, string>, options?: Partial<SpawnShim>): Talk {
    return this.startPlan(bytesOf(this.steps(container)), env, options);
  }

  startPlan(plan: Uint8Array, env?: Record<string, string>, options?: Partial<SpawnShim>): Talk {
    writeFileSync(join(this.run, 'plan'), plan);
    this.#lock = this.native.tryLock(join(this.run, 'lock'), { create: true });
    if (!this.#lock) throw new Error('the lock is taken');
    const connection = this.native.spawnShim({ mode: 'run', plan: join(this.run, 'plan'), runFolder: this.run, lock: this.#lock, ...(env ? { env } : {}), ...options });
    this.#lock.release();
    return this.#talk(connection);
  }

  async connect(): Promise<Talk> {
    return this.#talk(await this.native.connectShim(join(this.run, 'shim.sock')));
  }

  /** Mode `undo` or `helper` with a plan of its own. */
  other(mode: 'undo' | 'helper', plan: Uint8Array, streams: readonly number[] = []): Talk {
    const path = mode === 'undo' ? join(this.run, 'plan') : join(this.folder, 'helper-plan');
    writeFileSync(path, plan);
    const lock = mode === 'undo' ? this.native.tryLock(join(this.run, 'lock'), { create: true }) : undefined;
    const connection = this.native.spawnShim({ mode, plan: path, streams, ...(mode === 'undo' ? { runFolder: this.run } : {}), ...(lock ? { lock } : {}) });
    lock?.release();
    return this.#talk(connection);
  }

  #talk(connection: ShimConnection): Talk {
    const talk = new Talk(connection);
    this.connections.push(talk);
    return talk;
  }

  file(name: string): string {
    return readFileSync(join(this.run, name), 'utf8');
  }
  logText(name = 'container.log'): string {
    return existsSync(join(this.log, name)) ? readFileSync(join(this.log, name), 'utf8') : '';
  }
  /** Processes whose fd 5 is this run's folder: the shim, and a child of it that has not let go of it yet. The shim is the first. */
  shims(): number[] {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/5`) === this.run;
      } catch {
        return false;
      }
    }).sort((a, b) => a - b);
  }
  shimPid(): number {
    return this.shims()[0] ?? 0;
  }
  /** Every process that has the root of this bench, or its run folder, in use: nothing of it may outlive an undo. */
  processes(): number[] {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/mountinfo`, 'utf8').includes(`${this.root.slice(4)} /`) || readlinkSync(`/proc/${pid}/fd/5`) === this.run;
      } catch {
        return false;
      }
    });
  }

  async close(): Promise<void> {
    for (const talk of this.connections) talk.connection.send(FRAME.signal, { argument: 9 }).catch(() => {});
    await Promise.race([Promise.all(this.connections.map((talk) => talk.connection.closed)), sleep(3000, undefined, { ref: false })]);
    for (const talk of this.connections) talk.connection.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A connection and what came over it. */
export class Talk {
  readonly frames: Frame[] = [];
  readonly connection: ShimConnection;
  #wake: (() => void)[] = [];
  ended = false;

  constructor(connection: ShimConnection) {
    this.connection = connection;
    connection.onFrame((frame) => {
      this.frames.push(frame);
      this.#ring();
    });
    void connection.closed.then(() => {
      this.ended = true;
      this.#ring();
    });
  }

  #ring(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  send(type: keyof typeof FRAME, frame: { session?: number; argument?: number; payload?: Uint8Array | string } = {}): Promise<void> {
    const { payload, ...rest } = frame;
    return this.connection.send(FRAME[type], { ...rest, ...(payload === undefined ? {} : { payload: typeof payload === 'string' ? Buffer.from(payload) : payload }) });
  }

  /** The first frame that fits, now or later. */
  async until(accept: (frame: Frame) => boolean, what: string, timeout = 10_000): Promise<Frame> {
    // in a guest of the stock-kernel tier all is slower
    const deadline = Date.now() + timeout * (process.env['VM'] ? 10 : 1);
    for (;;) {
      const found = this.frames.find(accept);
      if (found) return found;
      const left = deadline - Date.now();
      if (this.ended || left <= 0) throw new Error(`${what}: ${this.ended ? 'the connection ended' : 'timeout'}; got ${this.describe()}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  frame(type: keyof typeof FRAME, session = 0, timeout?: number): Promise<Frame> {
    return this.until((frame) => frame.type === FRAME[type] && frame.session === session, `frame ${type}`, timeout);
  }

  output(stream = 1, session = 0): string {
    return Buffer.concat(this.frames.filter((f) => f.type === FRAME.output && f.argument === stream && f.session === session).map((f) => f.payload)).toString();
  }

  async untilOutput(text: string, session = 0, stream = 1): Promise<void> {
    await this.until(() => this.output(stream, session).includes(text), `output "${text}"`);
  }

  describe(): string {
    const names = new Map<number, string>(Object.entries(FRAME).map(([name, value]) => [value, name]));
    return this.frames.map((f) => `${names.get(f.type) ?? f.type}/${f.session}(${f.argument}${f.type === FRAME.failed || f.type === FRAME.warning ? ` ${JSON.stringify(decodeFailure(f.payload))}` : ` ${f.payload.toString().slice(0, 80)}`})`).join(', ');
  }
}
