import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';
import { type Contestant, type Network } from './peers.ts';
import { cgroupFolders } from './machine.ts';

export const engineBin = join(import.meta.dirname, '..', '..', 'bin', 'engine');

/** Pid of the resident engine of a run root: who holds its lock's file open. Undefined: there is none. */
export function residentOf(runRoot: string): number | undefined {
  const lock = join(runRoot, 'engined.lock');
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (/\0engined\0/.test(`${readFileSync(`/proc/${pid}/cmdline`, 'utf8')}\0`) && readdirSync(`/proc/${pid}/fd`).some((fd) => readlink(`/proc/${pid}/fd/${fd}`) === lock)) return Number(pid);
    } catch {
      // it has ended in the meantime
    }
  }
  return undefined;
}
function readlink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

/** Can this build stay resident at all? */
export const canStay = (): boolean => spawnSync(engineBin, ['--no-daemon', 'version'], { stdio: 'ignore' }).status === 0;

export type Kind = 'pooled' | 'unpooled' | 'cold';

/** The engine as a user has it, with roots of its own: resident with and without pools, and in the command's own process. */
export class EngineContestant implements Contestant {
  readonly name: string;
  readonly own = true;
  readonly engine: TestEngine;
  readonly kind: Kind;

  constructor(kind: Kind, folder: string) {
    this.kind = kind;
    this.name = { pooled: 'engine, pooled', unpooled: 'engine', cold: 'engine, cold' }[kind];
    const parent = join(folder, kind);
    mkdirSync(parent, { recursive: true });
    this.engine = new TestEngine({ folder: parent, ...(canStay() && { config: `resident: ${kind === 'cold' ? 'off' : 'auto'}\npool: ${kind === 'pooled' ? 'auto' : 'off'}\n` }) });
  }

  /** With busybox, and resident unless it is the cold one. */
  async start(): Promise<this> {
    await importBusybox(this.engine);
    if (this.kind !== 'cold') {
      await until('the resident engine', async () => (await this.engine.run(['run', '--rm', '--network', 'none', 'busybox', 'true'])).code === 0 && this.pid !== undefined, 30_000);
      await this.engine.ok('run', '--rm', '--network', 'none', 'busybox', 'true');
    }
    return this;
  }
  get pid(): number | undefined {
    return residentOf(this.engine.runRoot);
  }
  get env(): Record<string, string> {
    return this.engine.env;
  }
  get #flags(): string[] {
    return this.kind === 'cold' && canStay() ? ['--no-daemon'] : [];
  }
  run(network: Network): string[] {
    return [engineBin, ...this.#flags, 'run', '--rm', '--network', network, 'busybox', 'true'];
  }
  detached(): string[] {
    return [engineBin, ...this.#flags, 'run', '-d', '--network', 'none', 'busybox', 'sleep', '100000'];
  }
  get gone(): string[] {
    const { root, runRoot, instance, folder } = this.engine;
    const watched = [join(runRoot, 'runs'), join(root, 'containers'), ...cgroupFolders().map((path) => `${path}:${instance}`)].flatMap((path) => ['-f', path]);
    return [...watched, '-c', `engine-shim:${folder}`, ...(this.kind === 'pooled' ? ['-u'] : [])];
  }
  async removeAll(): Promise<void> {
    const ids = (await this.engine.ok('ps', '-aq', '--no-trunc')).split('\n').filter(Boolean);
    for (let at = 0; at < ids.length; at += 50) await this.engine.ok('rm', '-f', ...ids.slice(at, at + 50));
  }
  /** Containers that are still in the database: none, when everything is gone. */
  async rows(): Promise<number> {
    return (await this.engine.ok('ps', '-aq')).split('\n').filter(Boolean).length;
  }
  async close(): Promise<string[]> {
    return this.engine.close();
  }
}
