import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { busyboxRootfs } from '../helpers/busybox.ts';
import { type Dockerd, missingPeers } from '../helpers/peers.ts';
import { EngineContestant } from './engines.ts';
import { Driver } from './measure.ts';
import { type Contestant, DockerContestant, PodmanContestant, RuntimeContestant } from './peers.ts';

export interface Settings {
  readonly rounds: number;
  /** ms between starts that are idle. */
  readonly pause: number;
  /** Names of peers; all that are installed when empty. */
  readonly peers: readonly string[];
  /** Networks may be made: a network namespace of ours. */
  readonly bridge: boolean;
}

/** All who take part, each with roots of its own in `folder`. */
export class Arena {
  readonly driver: Driver;
  readonly folder: string;
  readonly settings: Settings;
  readonly contestants: Contestant[] = [];
  /** Who is missing and why. */
  readonly absent: string[] = [];
  readonly versions: string[] = [];

  constructor(folder: string, settings: Settings) {
    this.folder = folder;
    this.settings = settings;
    this.driver = new Driver(folder);
  }

  get engines(): EngineContestant[] {
    return this.contestants.filter((one) => one instanceof EngineContestant);
  }

  /** The dockerd that takes part. */
  get docker(): Dockerd | undefined {
    return this.contestants.find((one) => one instanceof DockerContestant)?.dockerd;
  }

  async open(say: (line: string) => void): Promise<void> {
    for (const kind of ['pooled', 'unpooled', 'cold'] as const) {
      say(`starting engine, ${kind}`);
      const engine = new EngineContestant(kind, this.folder, this.settings.bridge);
      this.contestants.push(engine); // first: what has begun is to be closed
      await engine.start();
    }
    const rootfs = join(this.folder, 'rootfs.tar');
    mkdirSync(join(this.folder, 'rootfs'));
    busyboxRootfs(join(this.folder, 'rootfs'));
    execFileSync('tar', ['-C', join(this.folder, 'rootfs'), '-cf', rootfs, '.']);
    if (this.#wants('docker', 'docker', 'dockerd')) {
      say('starting dockerd');
      const docker = new DockerContestant(this.settings.bridge);
      this.contestants.push(docker);
      await docker.start(rootfs);
      this.versions.push(docker.version());
    }
    if (this.#wants('podman', 'podman', 'crun')) {
      const podman = new PodmanContestant(this.settings.bridge);
      this.contestants.push(podman);
      podman.start(rootfs);
      this.versions.push(podman.version());
    }
    for (const runtime of ['runc', 'crun']) {
      if (!this.#wants(runtime, runtime)) continue;
      const bare = new RuntimeContestant(runtime, this.folder);
      this.contestants.push(bare);
      this.versions.push(bare.version());
    }
  }

  #wants(name: string, ...programs: string[]): boolean {
    if (this.settings.peers.length > 0 && !this.settings.peers.includes(name)) return false;
    const missing = missingPeers(...programs);
    if (missing.length > 0) this.absent.push(`${name}: ${missing.join(' and ')} not installed`);
    return missing.length === 0;
  }

  /** What was left behind. */
  async close(): Promise<string[]> {
    const left: string[] = [];
    for (const contestant of this.contestants.splice(0).reverse()) {
      left.push(...(await contestant.close().catch((error: unknown) => [`${contestant.name}: ${(error as Error).message}`])));
    }
    return left;
  }
}
