import { execFileSync, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Engine } from '@engine/core/api';
import { openEngine } from '../../config/open.ts';
import { entries, holderOf } from '../helpers/engine.ts';
import { cgroups, mounts } from '../helpers/leaks.ts';
import { until } from '../helpers/wait.ts';
import { watched, type Cut, type Order } from './halting.ts';
import { networkLeftOver, networkScenarios } from './network.ts';
import { scenarios as others, type Files, type Scenario } from './scenario.ts';

const scenarios: Readonly<Record<string, Scenario>> = { ...others, ...networkScenarios };

/** Who is killed at a point. */
export type Who = 'engine' | 'shim' | 'both';
export interface Case {
  readonly who: Who;
  readonly cut: Cut;
  readonly name: string;
}

const node = process.execPath;
// a guest's was built outside, in a folder of its own, since tests outside build theirs meanwhile
const bundle = join(import.meta.dirname, '../../dist', process.env['ENGINE_NO_BUILD'] ? 'test-guest' : 'test', 'victim.js');

/** One file, so that a victim starts fast. */
export function buildVictim(): void {
  if (process.env['ENGINE_NO_BUILD']) return;
  execFileSync(node, [join(import.meta.dirname, 'build.ts')], { stdio: 'inherit' });
}

/** Victims that have started and wait for an order. */
class Pool {
  readonly #waiting: Promise<ChildProcessWithoutNullStreams>[] = [];
  #make(): Promise<ChildProcessWithoutNullStreams> {
    const child = spawn(node, [bundle], { stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdin.on('error', () => {});
    return new Promise((resolve, reject) => {
      child.stdout.once('data', () => resolve(child));
      child.once('exit', (code) => reject(new Error(`a victim ended with ${code ?? 'a signal'}`)));
    });
  }
  take(): Promise<ChildProcessWithoutNullStreams> {
    while (this.#waiting.length < 3) this.#waiting.push(this.#make());
    return this.#waiting.shift() ?? this.#make();
  }
  async close(): Promise<void> {
    for (const waiting of this.#waiting) (await waiting).kill('SIGKILL');
  }
}

/** Processes of the shims (and what they cloned and did not exec yet) of one case, shims first. */
function shimProcesses(folder: string): { pid: number; parent: number }[] {
  const found: { pid: number; parent: number }[] = [];
  for (const name of entries('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (!readFileSync(`/proc/${name}/environ`, 'latin1').includes(`ENGINE_HALT_FILE=${folder}/halt`)) continue;
      found.push({ pid: Number(name), parent: Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'latin1'))?.[1]) });
    } catch {
      // gone in the meantime
    }
  }
  const pids = new Set(found.map(({ pid }) => pid));
  return found.filter(({ parent }) => !pids.has(parent));
}

export class Matrix {
  readonly #pool = new Pool();
  readonly #root: string;
  readonly #runRoot: string;
  readonly #folder: string;
  readonly #files: Files;
  /** In the name of everything that this engine makes on the host: others may run beside it. */
  readonly #instance: string;

  constructor(folder: string, files: Files) {
    this.#root = join(folder, 'root');
    this.#runRoot = join(folder, 'run');
    this.#folder = join(folder, 'halt');
    this.#files = files;
    mkdirSync(this.#folder, { recursive: true });
    mkdirSync(this.#root, { mode: 0o700 });
    this.#instance = `engine-${createHash('sha256').update(realpathSync(this.#root)).digest('hex').slice(0, 8)}`;
  }
  async close(): Promise<void> {
    await this.#pool.close();
    const keeper = holderOf(join(this.#runRoot, 'keeper.lock'));
    if (keeper === undefined) return;
    process.kill(keeper, 'SIGTERM');
    await until('the end of the keeper', () => !isAlive(keeper));
  }
  open(cut?: Cut, onPoint?: (name: string, nth: number) => void): Promise<Engine> {
    return openEngine(watched(this.#root, this.#runRoot, { folder: this.#folder, ...(cut ? { cut } : {}), ...(onPoint ? { onPoint } : {}) })).then(({ engine }) => engine);
  }
  async using<T>(use: (engine: Engine) => Promise<T>): Promise<T> {
    const engine = await this.open();
    try {
      return await use(engine);
    } finally {
      await engine.close();
    }
  }

  /** Run the verb once, unharmed; every operation and every record point of it, before and after, times who is killed. */
  async enumerate(scenario: string): Promise<Case[]> {
    const { before, verb, check } = scenarios[scenario] ?? {};
    if (!before || !verb || !check) throw new Error(`no scenario ${scenario}`);
    await this.using((engine) => before(engine, this.#files));
    this.#clean();
    const points: { point: string; nth: number }[] = [];
    const engine = await this.open(undefined, (point, nth) => void points.push({ point, nth }));
    await verb(engine, this.#files);
    await engine.close();
    const cases: Case[] = points.map((cut) => ({ who: 'engine', cut, name: `engine at ${cut.point} #${cut.nth}` }));
    for (const trace of entries(this.#folder).filter((name) => name.startsWith('trace-'))) {
      const shim = Number(trace.slice(6));
      for (const line of new Set(readFileSync(join(this.#folder, trace), 'utf8').split('\n').filter(Boolean))) {
        const [part = '', index = '', operation = ''] = line.split(' ');
        for (const when of operation === 'exec' ? ['before'] : ['before', 'after']) {
          for (const who of ['engine', 'shim', 'both'] as const) cases.push({ who, cut: { shim, halt: `${part}:${index}:${when}` }, name: `${who} ${when} ${part} ${index} ${operation} of shim ${shim}` });
        }
      }
    }
    this.#clean();
    await this.using((again) => check(again, this.#files));
    return cases;
  }
  #clean(): void {
    for (const name of entries(this.#folder)) rmSync(join(this.#folder, name));
  }

  /** One cut, then the next start. Returns what is wrong, one line each. */
  async run(scenario: string, { who, cut, name }: Case): Promise<string[]> {
    const { before, check } = scenarios[scenario] ?? {};
    const wrong: string[] = [];
    try {
      await this.using(async (engine) => before?.(engine, this.#files));
      this.#clean();
      if (who === 'shim') await this.#killShim(scenario, cut);
      else await this.#killEngine(scenario, cut, who);
      wrong.push(...(await this.using(async (engine) => {
        const left = await this.#leftOver(engine);
        await check?.(engine, this.#files);
        return [...left, ...(await this.#leftOver(engine))];
      })));
    } catch (error) {
      wrong.push(error instanceof Error ? `${error.message}${error.cause instanceof Error ? `: ${error.cause.message}` : ''}` : String(error));
    }
    return wrong.map((line) => `${scenario}: ${name}: ${line}`);
  }

  /** Remove what the last case left for the next one. */
  async finish(scenario: string): Promise<string[]> {
    const wrong = await this.using(async (engine) => {
      for (const { record } of await engine.containers.list({ all: true })) await engine.containers.remove(record.id, { force: true, volumes: true });
      await engine.networks.prune({});
      return this.#leftOver(engine);
    });
    return wrong.map((line) => `${scenario}: in the end: ${line}`);
  }

  async #killEngine(scenario: string, cut: Cut, who: Who): Promise<void> {
    const victim = await this.#pool.take();
    const errors: Buffer[] = [];
    victim.stderr.on('data', (data: Buffer) => errors.push(data));
    const ended = new Promise<void>((resolve) => victim.once('exit', () => resolve()));
    let done = false;
    victim.stdout.on('data', () => (done = true));
    const order: Order = { root: this.#root, runRoot: this.#runRoot, folder: this.#folder, scenario, files: this.#files, cut };
    victim.stdin.write(`${JSON.stringify(order)}\n`);
    const halt = join(this.#folder, 'halt');
    await until(`${JSON.stringify(cut)} to be reached: ${Buffer.concat(errors).toString()}`, () => existsSync(halt) || victim.exitCode !== null || victim.signalCode !== null || done);
    const shims = shimProcesses(this.#folder);
    victim.kill('SIGKILL');
    await ended;
    if (who === 'both') for (const { pid } of shims) kill(pid);
    rmSync(halt, { force: true });
    if (who === 'both') await this.#shimsGone(shims);
  }

  async #killShim(scenario: string, cut: Cut): Promise<void> {
    const engine = await this.open(cut);
    const halt = join(this.#folder, 'halt');
    try {
      let over = false;
      // it may fail: its shim is killed; that it says so is checked by what it leaves
      const verb = scenarios[scenario]?.verb(engine, this.#files).then(() => (over = true), () => (over = true));
      await until(`${JSON.stringify(cut)} to be reached`, () => existsSync(halt) || over);
      const shims = shimProcesses(this.#folder);
      for (const { pid } of shims) kill(pid);
      rmSync(halt, { force: true });
      await verb;
      await this.#shimsGone(shims);
    } finally {
      await engine.close();
    }
  }
  #shimsGone(shims: readonly { pid: number }[]): Promise<unknown> {
    return until('killed shims to be gone', () => shims.every(({ pid }) => !isAlive(pid)));
  }

  /** What no owner accounts for. */
  async #leftOver(engine: Engine): Promise<string[]> {
    const views = await engine.containers.list({ all: true });
    const running = views.filter(({ run }) => run).length;
    const problems: string[] = [];
    const { orphans } = await engine.system.doctor({ fix: false });
    problems.push(...orphans.map(({ kind, path }) => `orphan ${kind} ${path}`));
    for (const folder of ['inflight', 'trash']) problems.push(...entries(join(this.#root, folder)).map((entry) => `${folder}/${entry}`));
    const ids = new Set(views.map(({ record }) => record.id));
    for (const folder of ['containers', 'storage-overlay/snapshots']) problems.push(...entries(join(this.#root, folder)).filter((id) => !ids.has(id)).map((entry) => `${folder}/${entry}`));
    problems.push(...entries(join(this.#root, 'storage-overlay/layers')).filter((entry) => entry.startsWith('tmp')).map((entry) => `layer ${entry}`), ...entries(join(this.#root, 'storage-overlay/trash')).map((entry) => `storage trash ${entry}`));
    problems.push(...entries(join(this.#runRoot, 'runs')).filter((id) => !ids.has(id)).map((entry) => `run ${entry}`));
    const volumes = new Set((await engine.volumes.list()).map((volume) => volume.name));
    problems.push(...entries(join(this.#root, 'volume-local')).filter((entry) => !volumes.has(entry) && entry !== 'trash').map((entry) => `volume ${entry}`));
    problems.push(...(await networkLeftOver(engine, { runRoot: this.#runRoot, instance: this.#instance, quiet: running === 0 })));
    if (running === 0) {
      // a killed shim's container needs a moment to die
      const settled = await until('processes to end', () => shimProcesses(this.#folder).length === 0, 3000).catch(() => false);
      if (!settled) problems.push(...shimProcesses(this.#folder).map(({ pid }) => `process ${pid}`));
      problems.push(...cgroups().filter((path) => path.includes(this.#instance)).map((path) => `cgroup ${path}`));
      problems.push(...mounts().filter((path) => path.startsWith(this.#root) || path.startsWith(this.#runRoot)).map((path) => `mount ${path}`));
    }
    return problems;
  }
}

/** All cases of a scenario, each in the next lane that is free; what was wrong afterwards. */
export async function cutAll(lanes: readonly Matrix[], scenario: string, cases: readonly Case[]): Promise<string[]> {
  const left = [...cases];
  const wrong: string[] = [];
  await Promise.all(lanes.map(async (lane) => {
    for (let one = left.shift(); one; one = left.shift()) wrong.push(...(await lane.run(scenario, one)));
    wrong.push(...(await lane.finish(scenario)));
  }));
  return wrong;
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return false;
  }
}
function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it has ended by itself
  }
}
