import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { type Contestant, type Network } from './peers.ts';
import { cgroupFolders } from './machine.ts';

export const engineBin = join(import.meta.dirname, '..', '..', 'bin', 'engine');

export type Kind = 'pooled' | 'unpooled' | 'cold';

/** The engine as a user has it, with roots of its own: resident with and without pools, and in the command's own process. */
export class EngineContestant implements Contestant {
  readonly name: string;
  readonly own = true;
  readonly engine: TestEngine;
  readonly kind: Kind;
  readonly #bridge: boolean;

  constructor(kind: Kind, folder: string, bridge = false) {
    this.kind = kind;
    this.#bridge = bridge;
    this.name = { pooled: 'engine, pooled', unpooled: 'engine', cold: 'engine, cold' }[kind];
    const parent = join(folder, kind);
    mkdirSync(parent, { recursive: true });
    // it must not leave while the others are measured
    const config = `pool: ${kind === 'pooled' ? 'auto' : 'off'}\nidle: 7200\n`;
    execFileSync(engineBin, ['--no-daemon', 'version']); // builds what is stale
    // as it is installed: nobody looks whether a source is newer
    this.engine = new TestEngine({ folder: parent, resident: kind === 'cold' ? 'off' : 'auto', config, env: { ENGINE_NO_BUILD: '1' } });
  }

  /** With busybox, and resident unless it is the cold one. */
  async start(): Promise<void> {
    await importBusybox(this.engine);
    if (this.kind !== 'cold') await this.engine.startEngined();
    await this.engine.ok('run', '--rm', '--network', 'none', 'busybox', 'true');
  }
  get pid(): number | undefined {
    return this.engine.engined;
  }
  get env(): Record<string, string> {
    return this.engine.env;
  }
  get #flags(): string[] {
    return this.kind === 'cold' ? ['--no-daemon'] : [];
  }
  run(network: Network): string[] | undefined {
    // networks are made in a network namespace of ours alone
    return network === 'bridge' && !this.#bridge ? undefined : this.plain(network);
  }
  plain(network: Network = 'none'): string[] {
    return [engineBin, ...this.#flags, 'run', '--rm', '--network', network, 'busybox', 'true'];
  }
  detached(): string[] {
    return [engineBin, ...this.#flags, 'run', '-d', '--network', 'none', 'busybox', 'sleep', '100000'];
  }
  get gone(): string[] {
    const { root, runRoot, instance, folder } = this.engine;
    const watched = [join(runRoot, 'runs'), join(root, 'containers'), ...cgroupFolders().map((path) => `${path}:${instance}`)].flatMap((path) => ['-f', path]);
    // four: what `pool: auto` holds
    return [...watched, '-c', `engine-shim:${folder}`, ...(this.kind === 'pooled' ? ['-u', '4'] : [])];
  }
  async removeAll(): Promise<void> {
    const ids = await this.engine.containers();
    for (let at = 0; at < ids.length; at += 50) await this.engine.ok('rm', '-f', ...ids.slice(at, at + 50));
  }
  /** Containers that are still in the database: none, when everything is gone. */
  async rows(): Promise<number> {
    return (await this.engine.containers()).length;
  }
  async close(): Promise<string[]> {
    const log = existsSync(join(this.engine.runRoot, 'engined.log')) ? readFileSync(join(this.engine.runRoot, 'engined.log'), 'utf8').trim() : '';
    try {
      // the default network's table is gone with the network namespace
      return (await this.engine.close()).filter((line) => !this.#bridge || !line.startsWith('tables: '));
    } catch (error) {
      // the folder goes in any case: nobody is to serve it any more
      await this.engine.stopEngined('SIGKILL');
      return [(error as Error).message, log];
    }
  }
}
