import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { fail } from '../../errors/index.ts';
import { type Native } from '../../native/index.ts';
import { decodePlan } from '../../plan/decode.ts';
import { encodePlan } from '../../plan/encode.ts';
import { FRAME } from '../../plan/protocol.ts';
import { type Effect, type Operation, type PlannedStep } from '../../plan/types.ts';
import { type EffectsOptions, type Machine, type PluginState } from './index.ts';
import { Died, type Bench, type BenchEffects, type Fault } from './suite.ts';

export interface BenchOptions {
  /** A fake one makes a bench of level 1, the real one (root) of level 2. */
  readonly native: Native;
  readonly level: 1 | 2;
  /** Where the bench makes its folder; it must exist. Default: the system's folder for temporary files. */
  readonly parent?: string;
  /** What a driver is told of the machine; `root` and `runRoot` are filled in. */
  readonly machine: (folders: { readonly root: string; readonly runRoot: string }) => Machine;
  /** Level 2 with a shim that can be halted (ENGINE_HALT): a death is a real SIGKILL. */
  readonly killable?: boolean;
  /** More than the level gives. */
  readonly abilities?: readonly string[];
}

const errnoName = (number: number): string => Object.entries(constants.errno).find(([, value]) => value === number)?.[0] ?? String(number);
const origin = { plugin: 'suite', hook: 'effects' } as const;
const stepsOf = (slot: 'helper.main' | 'after.undo', operations: readonly Operation[]): PlannedStep[] => operations.map((operation) => ({ slot, operation, undo: [], origin }));
const forgiving = (operation: Operation): Operation => ({ ...operation, flags: { ...operation.flags, okMissing: true } });

/** A state of a plugin in memory. */
export function memoryState(): PluginState {
  const values = new Map<string, string>();
  return {
    get: (key) => (values.has(key) ? (JSON.parse(values.get(key) ?? '') as unknown) : undefined),
    set: (key, value) => void values.set(key, JSON.stringify(value)),
    delete: (key) => void values.delete(key),
    list: (prefix = '') => [...values].filter(([key]) => key.startsWith(prefix)).map(([key, value]) => ({ key, value: JSON.parse(value) as unknown })),
  };
}

/** A bench over a shim, real or fake: the journal of the core in its plainest form. */
export async function createBench(options: BenchOptions): Promise<Bench> {
  const { native, level } = options;
  const folder = fs.realpathSync(fs.mkdtempSync(join(options.parent ?? process.env['TMPDIR'] ?? '/tmp', 'engine-suite-')));
  const root = join(folder, 'root');
  const runFolder = join(folder, 'run');
  const plugin = join(root, 'plugin');
  for (const path of [root, plugin, runFolder, join(runFolder, 'rootfs'), join(folder, 'plans')]) fs.mkdirSync(path, { mode: 0o700 });
  const mountsBefore = readMounts();
  let plans = 0;

  interface Outcome { readonly failures: readonly { readonly index: number; readonly errno: number; readonly detail: string }[]; readonly ok: boolean }
  /** Run one plan file in a shim; with `killAt`, kill it before that operation. */
  async function runPlan(mode: 'helper' | 'undo', operations: readonly Operation[], streams?: readonly number[], killAt?: number): Promise<Outcome> {
    const plan = join(folder, 'plans', `plan-${plans++}`);
    const encoded = encodePlan({ steps: stepsOf(mode === 'helper' ? 'helper.main' : 'after.undo', operations) });
    decodePlan(encoded);
    fs.writeFileSync(plan, encoded, { mode: 0o600 });
    const halt = `${plan}.halt`;
    const env = killAt === undefined ? undefined : { ENGINE_HALT: `helper:${killAt}:before`, ENGINE_HALT_FILE: halt };
    const lock = native.tryLock(`${plan}.lock`, { create: true });
    if (!lock) throw fail('ERR_INTERNAL', `the lock of ${plan} is taken`);
    const failures: { index: number; errno: number; detail: string }[] = [];
    let ok = false;
    try {
      const connection = native.spawnShim({ mode, plan, lock, ...(streams && { streams }), ...(env && { env }) });
      connection.onFrame(({ type, payload }) => {
        if (type === FRAME.failed || (type === FRAME.warning && mode === 'undo')) {
          failures.push({ index: payload.readUInt32LE(4), errno: Math.abs(payload.readInt32LE(8)), detail: payload.toString('utf8', 16, 16 + payload.readUInt32LE(12)) });
        } else if (type === FRAME.ok) ok = true;
      });
      if (killAt !== undefined && !(await killHalted(halt, connection.closed))) throw fail('ERR_INTERNAL', `the shim did not halt at operation ${killAt}`);
      await connection.closed;
      connection.close();
    } finally {
      lock.release();
      for (const path of [plan, `${plan}.lock`, halt]) fs.rmSync(path, { force: true });
    }
    return { failures, ok };
  }
  async function operations(list: readonly Operation[], streams?: readonly number[]): Promise<void> {
    const { failures: [failure], ok } = await runPlan('helper', list, streams);
    if (failure) {
      const failed = list[failure.index];
      const errno = errnoName(failure.errno);
      throw fail('ERR_OPERATION_FAILED', `${failed?.name ?? 'operation'} failed: ${errno} ${failure.detail}`, { operation: failed?.name ?? '', errno, path: String(failed?.args['path'] ?? failed?.args['to'] ?? '') });
    }
    if (!ok) throw fail('ERR_SHIM_GONE', 'the helper ended without an answer');
  }
  async function undo(list: readonly Operation[]): Promise<void> {
    if (list.length === 0) return;
    const { failures, ok } = await runPlan('undo', list.map(forgiving));
    if (failures.length || !ok) {
      throw fail('ERR_UNDO_FAILED', `undo: ${failures.map((f) => `${list[f.index]?.name} ${JSON.stringify(list[f.index]?.args)}: ${errnoName(f.errno)} ${f.detail}`).join('; ') || 'the helper ended without an answer'}`);
    }
  }

  function effects(fault?: Fault): BenchEffects {
    const journal: (readonly Effect[])[] = [];
    const deferred: Effect[] = [];
    const state: [string, unknown][] = [];
    let begun = 0;
    let committed = false;
    const undoAll = async (): Promise<void> => {
      for (let list = journal.pop(); list; list = journal.pop()) await undo(list.toReversed().flatMap((effect) => effect.undo));
    };
    const cut = (length: number): number | undefined => (fault && fault.at >= begun && fault.at < begun + length ? fault.at - begun : undefined);

    return {
      get begun() {
        return begun;
      },
      async run(list: readonly Effect[], { streams }: EffectsOptions = {}) {
        const at = cut(list.length);
        journal.push(list);
        const all = list.map((effect) => effect.operation);
        begun += at ?? list.length;
        if (at !== undefined && fault?.kind === 'die') {
          if (options.killable) await runPlan('helper', all, streams, at);
          else if (at > 0) await operations(all.slice(0, at), streams);
          throw new Died(`died before operation ${fault.at}`);
        }
        const broken: Operation = { name: 'rmdir', args: { path: join(folder, 'no such folder') } };
        try {
          await operations(at === undefined ? all : [...all.slice(0, at), broken], streams);
        } catch (error) {
          journal.pop();
          await undo(list.toReversed().flatMap((effect) => effect.undo));
          throw error;
        }
      },
      onCommit: (list) => void deferred.push(...list),
      setState: (key, value) => void state.push([key, value]),
      async commit() {
        const at = cut(deferred.length);
        committed = true;
        for (const [key, value] of state) {
          if (value === undefined) deps.state.delete(key);
          else deps.state.set(key, value);
        }
        const all = deferred.map((effect) => effect.operation);
        begun += at ?? all.length;
        if (at !== undefined && fault?.kind === 'die') {
          await undo(all.slice(0, at));
          throw new Died(`died before operation ${fault.at}`);
        }
        await undo(all);
      },
      rollback: undoAll,
      async recover() {
        if (committed) await undo(deferred.map((effect) => effect.operation));
        else await undoAll();
      },
    };
  }

  const deps = {
    machine: options.machine({ root, runRoot: join(folder, 'run') }),
    log: pino({ level: 'silent' }),
    state: memoryState(),
    folder: plugin,
    serviceFolder: join(folder, 'service'),
    instance: `engine-${randomBytes(4).toString('hex')}`,
  };
  const real = level === 2;
  const leaks = (): string[] => readMounts().filter((line) => line.includes(folder) && !mountsBefore.includes(line));
  return {
    level,
    abilities: new Set([`level-${level}`, 'faults', ...(real ? ['owners', 'mounts'] : []), ...(options.killable ? ['kill'] : []), ...(options.abilities ?? [])]),
    deps,
    pipe: () => native.pipe(),
    folder,
    run: { container: 'c0ffee', run: 'run1', instance: deps.instance, runFolder, explain: false },
    effects,
    operations,
    leaks,
    async close() {
      const left = leaks();
      // Through the shim: what a driver made may be nothing that node:fs can remove (subvolumes).
      await undo([{ name: 'removeTree', args: { path: root } }]).catch(() => {});
      fs.rmSync(folder, { recursive: true, force: true });
      if (left.length) throw fail('ERR_STATE', `mounts are left: ${left.join('; ')}`);
    },
  };
}

function readMounts(): string[] {
  try {
    return fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  } catch {
    return [];
  }
}

/** Wait until the shim has halted, then SIGKILL the process that did. False: it ended without. */
async function killHalted(file: string, closed: Promise<void>): Promise<boolean> {
  const ended = closed.then(() => true);
  for (;;) {
    const pid = Number((fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '').trim().split(' ').at(-1));
    if (pid > 0) {
      process.kill(pid, 'SIGKILL');
      return true;
    }
    if (await Promise.race([ended, new Promise<false>((resolve) => setTimeout(resolve, 2, false))])) return false;
  }
}

/** A machine for tests: Linux 6.12, root, one ext4. */
export function fakeMachine(folders: { readonly root: string; readonly runRoot: string }, changes: Partial<Machine> = {}): Machine {
  const root = { id: 1, parent: 0, device: '8:1', root: '/', target: '/', options: ['rw'], propagation: [], type: 'ext4', source: '/dev/sda1', superOptions: ['rw'] };
  return {
    kernel: [6, 12], release: '6.12.0', architecture: 'x86_64', hostname: 'test', uid: 0, capabilities: ['CAP_SYS_ADMIN'], filesystems: ['ext4', 'overlay', 'btrfs', 'proc', 'tmpfs'],
    mounts: [root], namespaces: ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'], idMaps: [], read: () => undefined, ...folders, ...changes,
  };
}
