import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { busyboxRootfs } from '../helpers/busybox.ts';
import { Dockerd, Podman, which } from '../helpers/peers.ts';
import { parentOf, processesOf, pss, rss } from './machine.ts';
import { type Command } from './measure.ts';

export type Network = 'none' | 'host' | 'bridge';

/** One who takes part: how it starts `true` in busybox, and how one sees from outside that nothing of it is left. */
export interface Contestant {
  readonly name: string;
  readonly own: boolean;
  readonly env: Readonly<Record<string, string>>;
  /** What must be gone after a run, as arguments of the driver. */
  readonly gone: readonly string[];
  /** `run --rm`; undefined when it has no such network. The program's path is absolute; `%w` where parallel ones need names of their own. */
  run(network: Network): string[] | undefined;
  /** A container that goes on; undefined when it takes part in no such scenario. */
  detached?(): string[];
  removeAll?(): Promise<void>;
  /** Load an image, and throw it away again. */
  load?(archive: string): { command: Command; reset: () => void };
  /** Memory that it takes while one container runs: what, and how many KB. */
  memory?(): readonly (readonly [string, number])[];
  /** What was left behind. */
  close(): Promise<string[]>;
}

const path = (program: string): string => which(program) ?? program;
/** One hierarchy is enough for them. */
const cgroups = '/sys/fs/cgroup/pids';
const version = (program: string, ...args: string[]): string => /\d+\.\d+(\.\d+)?/.exec(execFileSync(program, args.length ? args : ['--version'], { encoding: 'utf8' }))?.[0] ?? '?';

export class DockerContestant implements Contestant {
  readonly name = 'docker';
  readonly own = false;
  readonly dockerd = new Dockerd();
  readonly #bridge: boolean;
  constructor(bridge: boolean) {
    this.#bridge = bridge;
  }
  async start(rootfs: string): Promise<this> {
    // the last of two flags counts: a bridge of its own only in a network namespace of ours
    await this.dockerd.start(...(this.#bridge ? ['--bridge=', '--iptables=true'] : []));
    this.dockerd.docker('import', rootfs, 'busybox');
    return this;
  }
  get env(): Record<string, string> {
    return this.dockerd.env;
  }
  get gone(): string[] {
    const { folder } = this.dockerd;
    return ['-f', join(folder, 'data/containers'), '-f', join(folder, 'exec/containerd/daemon/io.containerd.runtime.v2.task/moby'), '-f', `${cgroups}/docker`, '-c', `containerd-shim:${folder}`];
  }
  run(network: Network): string[] | undefined {
    return network === 'bridge' && !this.#bridge ? undefined : [path('docker'), 'run', '--rm', '--network', network, 'busybox', 'true'];
  }
  load(archive: string): { command: Command; reset: () => void } {
    return { command: { argv: [path('docker'), 'load', '-q', '-i', archive], env: this.env }, reset: () => void this.dockerd.docker('rmi', '-f', 'bench:latest') };
  }
  memory(): readonly (readonly [string, number])[] {
    const id = this.dockerd.docker('run', '-d', '--network', 'none', 'busybox', 'sleep', '100000').trim();
    const shim = pss(parentOf(Number(this.dockerd.docker('inspect', '-f', '{{.State.Pid}}', id))));
    this.dockerd.docker('rm', '-f', id);
    const daemons = processesOf(this.dockerd.folder).filter(([name]) => name === 'dockerd' || name === 'containerd');
    return [['docker: containerd-shim (PSS)', shim], ['docker: dockerd and containerd (RSS)', daemons.reduce((sum, [, pid]) => sum + rss(pid), 0)]];
  }
  version(): string {
    return `docker ${version('dockerd')}`;
  }
  async close(): Promise<string[]> {
    await this.dockerd.stop();
    return [];
  }
}

export class PodmanContestant implements Contestant {
  readonly name = 'podman';
  readonly own = false;
  readonly #podman: Podman;
  readonly #bridge: boolean;
  constructor(bridge: boolean) {
    this.#bridge = bridge;
    this.#podman = new Podman({ bridge });
  }
  start(rootfs: string): this {
    this.#podman.podman('import', rootfs, 'busybox');
    return this;
  }
  get env(): Record<string, string> {
    return this.#podman.env;
  }
  get gone(): string[] {
    return ['-f', join(this.#podman.folder, 'run/overlay-containers'), '-f', `${cgroups}/libpod_parent:libpod-`, '-c', `conmon:${this.#podman.folder}`];
  }
  run(network: Network): string[] | undefined {
    return network === 'bridge' && !this.#bridge ? undefined : [path('podman'), ...this.#podman.args, 'run', '--rm', '--network', network, 'busybox', 'true'];
  }
  load(archive: string): { command: Command; reset: () => void } {
    return { command: { argv: [path('podman'), ...this.#podman.args, 'load', '-q', '-i', archive], env: this.env }, reset: () => void this.#podman.podman('rmi', '-f', 'bench:latest') };
  }
  memory(): readonly (readonly [string, number])[] {
    const id = this.#podman.podman('run', '-d', '--network', 'none', 'busybox', 'sleep', '100000').trim();
    const conmon = pss(parentOf(Number(this.#podman.podman('inspect', '-f', '{{.State.Pid}}', id))));
    this.#podman.podman('rm', '-f', '-t', '0', id);
    return [['podman: conmon (PSS)', conmon]];
  }
  version(): string {
    return `podman ${version('podman')} with crun`;
  }
  close(): Promise<string[]> {
    this.#podman.close();
    return Promise.resolve([]);
  }
}

/** runc or crun with a bundle that is ready: no image, no storage, no state but their own. */
export class RuntimeContestant implements Contestant {
  readonly name: string;
  readonly own = false;
  readonly env = { PATH: process.env['PATH'] ?? '' };
  readonly #runtime: string;
  readonly #folder: string;
  constructor(runtime: string, folder: string) {
    this.name = runtime;
    this.#runtime = runtime;
    this.#folder = join(folder, runtime);
    for (const network of ['none', 'host'] as const) makeBundle(this.#bundle(network), runtime, network, ['true']);
    makeBundle(join(this.#folder, 'sleep'), runtime, 'none', ['sleep', '100000']);
  }
  #bundle(network: string): string {
    return join(this.#folder, network);
  }
  get #state(): string {
    return join(this.#folder, 'state');
  }
  get gone(): string[] {
    return ['-f', this.#state, '-f', `${cgroups}:engine-bench-${this.#runtime}`];
  }
  run(network: Network): string[] | undefined {
    return network === 'bridge' ? undefined : [path(this.#runtime), '--root', this.#state, 'run', '--bundle', this.#bundle(network), `engine-bench-${this.#runtime}-%w`];
  }
  detached(): string[] {
    return [path(this.#runtime), '--root', this.#state, 'run', '--detach', '--bundle', join(this.#folder, 'sleep'), `engine-bench-${this.#runtime}-%i`];
  }
  removeAll(): Promise<void> {
    const list = JSON.parse(execFileSync(this.#runtime, ['--root', this.#state, 'list', '-f', 'json'], { encoding: 'utf8' })) as { id: string }[] | null;
    for (const { id } of list ?? []) execFileSync(this.#runtime, ['--root', this.#state, 'delete', '--force', id]);
    return Promise.resolve();
  }
  version(): string {
    return `${this.#runtime} ${version(this.#runtime)}`;
  }
  async close(): Promise<string[]> {
    mkdirSync(this.#state, { recursive: true });
    await this.removeAll();
    return [];
  }
}

/** busybox with a config.json as `runtime` writes it. */
export function makeBundle(bundle: string, runtime: string, network: 'none' | 'host', args: readonly string[]): void {
  mkdirSync(join(bundle, 'rootfs'), { recursive: true });
  busyboxRootfs(join(bundle, 'rootfs'));
  execFileSync(runtime, ['spec'], { cwd: bundle });
  const file = join(bundle, 'config.json');
  const spec = JSON.parse(readFileSync(file, 'utf8')) as { process: { args: readonly string[]; terminal: boolean; rlimits?: unknown }; linux: { namespaces: { type: string }[] } };
  spec.process.args = args;
  spec.process.terminal = false;
  delete spec.process.rlimits;
  if (network === 'host') spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'network');
  writeFileSync(file, JSON.stringify(spec));
}
