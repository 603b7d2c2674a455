import { type ChildProcess } from 'node:child_process';
import { busyboxTar } from './busybox.ts';
import { CallerMachine, example, makeFolder, type MachineOptions } from './callers.ts';
import { type Result, type Running, type RunOptions } from './engine.ts';

interface DockerOptions {
  /** Further keys of daemon.json. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly flags?: readonly string[];
}

/** A dockerd with its own containerd, roots, sockets and bridge, whose runtime is the one of `docs/callers/examples/docker-daemon.json`, or with `flags` the one that these name. */
export class DockerCaller {
  readonly machine: CallerMachine;
  #daemon: ChildProcess | undefined;
  readonly #config: Readonly<Record<string, unknown>>;
  readonly #flags: readonly string[];
  private constructor(machine: CallerMachine, { config, flags = [] }: DockerOptions) {
    this.machine = machine;
    this.#config = { ...(flags.length === 0 && (JSON.parse(example('docker-daemon.json')) as object)), ...config };
    this.#flags = flags;
  }
  static async start({ resident, ...options }: DockerOptions & MachineOptions = {}): Promise<DockerCaller> {
    const caller = new DockerCaller(await CallerMachine.make(resident === undefined ? {} : { resident }), options);
    await caller.#startContainerd();
    await caller.startDaemon();
    await caller.ok('import', '-c', 'CMD ["sh"]', busyboxTar(), 'busybox');
    return caller;
  }
  get #address(): string {
    return this.machine.path('containerd.sock');
  }
  async #startContainerd(): Promise<void> {
    const { machine } = this;
    const config = machine.write('containerd.toml', `version = 2\nroot = "${machine.path('containerd')}"\nstate = "${machine.path('exec', 'containerd', 'daemon')}"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "${this.#address}"\n[ttrpc]\n  address = "${this.#address}.ttrpc"\n`);
    await machine.daemon('containerd', ['containerd', '--config', config], () => machine.ok(['ctr', '--address', this.#address, 'version']));
  }
  async startDaemon(): Promise<void> {
    const { machine } = this;
    const config = machine.write('daemon.json', JSON.stringify(this.#config));
    this.#daemon = await machine.daemon('dockerd', [
      'dockerd', '--config-file', config, '--data-root', machine.path('data'), '--exec-root', machine.path('exec'), '--pidfile', machine.path('pid'), '-H', `unix://${machine.path('docker.sock')}`,
      '--containerd', this.#address, '--storage-driver=overlay2', '--cgroup-parent', `/${machine.cgroup}`, ...this.#flags,
    ], () => this.ok('version'));
  }
  /** End dockerd alone, in a way: containers of a live-restore go on. */
  async endDaemon(signal: NodeJS.Signals): Promise<void> {
    const daemon = this.#daemon;
    if (!daemon) return;
    const ended = new Promise((resolve) => daemon.once('exit', resolve));
    daemon.kill(signal);
    await ended;
  }
  get env(): Record<string, string> {
    return { HOME: makeFolder(this.machine.path('home')), DOCKER_HOST: `unix://${this.machine.path('docker.sock')}` };
  }
  start(args: readonly string[], options: RunOptions = {}): Running {
    return this.machine.start(['docker', ...args], { ...options, env: { ...this.env, ...options.env } });
  }
  terminal(args: readonly string[]): Running {
    return this.machine.terminal(['docker', ...args], { env: this.env });
  }
  run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return this.machine.run(['docker', ...args], { ...options, env: { ...this.env, ...options.env } });
  }
  ok(...args: string[]): Promise<string> {
    return this.machine.ok(['docker', ...args], { env: this.env });
  }
  inspect(name: string, format: string): Promise<string> {
    return this.ok('inspect', '-f', format, name);
  }
  /** Start in the background; its id. */
  async detached(...args: string[]): Promise<string> {
    const id = await this.ok('run', '-d', ...args);
    this.machine.watch(id);
    return id;
  }
  async close(): Promise<string[]> {
    const ids = (await this.ok('ps', '-aq', '--no-trunc')).split('\n').filter(Boolean);
    this.machine.watch(...ids);
    if (ids.length > 0) await this.ok('rm', '-fv', ...ids);
    return this.machine.close();
  }
}
