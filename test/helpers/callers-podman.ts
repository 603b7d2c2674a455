import { mkdirSync, writeFileSync } from 'node:fs';
import { busyboxTar } from './busybox.ts';
import { CallerMachine, example, ours, removeCgroups, runtime, type MachineOptions } from './callers.ts';
import { type Result, type Running, type RunOptions } from './engine.ts';

/** podman with its own roots, network and configuration, whose runtime is the one of `docs/callers/examples/podman-containers.conf`. */
export class PodmanCaller {
  readonly machine: CallerMachine;
  readonly #pods = new Set<string>();
  private constructor(machine: CallerMachine) {
    this.machine = machine;
  }
  static async start(options: MachineOptions = {}): Promise<PodmanCaller> {
    const machine = await CallerMachine.make(options);
    const caller = new PodmanCaller(machine);
    for (const name of ['home', 'networks']) mkdirSync(machine.path(name));
    writeFileSync(machine.path('networks', '87-podman.conflist'), JSON.stringify({
      cniVersion: '0.4.0', name: 'podman',
      plugins: [
        { type: 'bridge', bridge: 'cni-podman0', isGateway: true, ipMasq: true, hairpinMode: true, ipam: { type: 'host-local', dataDir: machine.path('leases'), routes: [{ dst: '0.0.0.0/0' }], ranges: [[{ subnet: '10.88.0.0/16', gateway: '10.88.0.1' }]] } },
        { type: 'portmap', capabilities: { portMappings: true } }, { type: 'firewall' }, { type: 'tuning' },
      ],
    }));
    // podman starts its runtime with variables of its own, so that the engine's roots come from a script
    const wrapped = ours ? machine.wrapped() : runtime;
    // its default ulimits need a capability that not every root has; a machine without systemd has neither its cgroups nor its journal
    const own = 'cgroup_manager = "cgroupfs"\nlock_type = "file"\nevents_logger = "none"\ninfra_image = "localhost/pause:latest"\n';
    const conf = example('podman-containers.conf').replaceAll(`"${runtime}"`, `"${wrapped}"`).replace('[engine]\n', `[containers]\ndefault_ulimits = []\n[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]\nnetwork_config_dir = "${machine.path('networks')}"\n[engine]\n${own}`);
    machine.write('containers.conf', conf);
    await caller.ok('import', '-c', 'CMD ["sh"]', '-c', 'ENV PATH=/bin', busyboxTar(), 'busybox');
    await caller.ok('import', '-c', 'ENTRYPOINT ["/bin/sh","-c","trap \\"exit 0\\" TERM; while :; do sleep 0.1; done"]', busyboxTar(), 'pause');
    return caller;
  }
  get env(): Record<string, string> {
    return { HOME: this.machine.path('home'), CONTAINERS_CONF: this.machine.path('containers.conf'), XDG_RUNTIME_DIR: this.machine.path('tmp') };
  }
  #words(args: readonly string[]): string[] {
    return ['podman', '--root', this.machine.path('root'), '--runroot', this.machine.path('runroot'), '--tmpdir', this.machine.path('tmp'), '--storage-driver', 'overlay', ...args];
  }
  start(args: readonly string[], options: RunOptions = {}): Running {
    return this.machine.start(this.#words(args), { ...options, env: { ...this.env, ...options.env } });
  }
  terminal(args: readonly string[]): Running {
    return this.machine.terminal(this.#words(args), { env: this.env });
  }
  run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return this.machine.run(this.#words(args), { ...options, env: { ...this.env, ...options.env } });
  }
  ok(...args: string[]): Promise<string> {
    return this.machine.ok(this.#words(args), { env: this.env });
  }
  inspect(name: string, format: string): Promise<string> {
    return this.ok('inspect', '-f', format, name);
  }
  async detached(...args: string[]): Promise<string> {
    const id = await this.ok('run', '-d', '--cgroup-parent', `/${this.machine.cgroup}`, ...args);
    this.machine.watch(id);
    return id;
  }
  /** From now on all that it has is looked for when it is gone. */
  async watchAll(): Promise<void> {
    this.machine.watch(...(await this.ok('ps', '-aq', '--no-trunc')).split('\n'));
    for (const pod of (await this.ok('pod', 'ps', '-q', '--no-trunc')).split('\n').filter(Boolean)) this.#pods.add(pod);
  }
  async removeAll(): Promise<void> {
    await this.watchAll();
    await this.ok('pod', 'rm', '-fa', '-t', '0');
    await this.ok('rm', '-fa', '-t', '0');
  }
  async close(): Promise<string[]> {
    await this.removeAll();
    const left = await this.machine.close();
    // in hierarchies that it doesn't know of, podman leaves the groups of its pods
    for (const pod of this.#pods) removeCgroups(pod);
    return left;
  }
}
