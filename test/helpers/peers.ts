import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync, openSync, closeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { removeParent } from './cgroup.ts';
import { until } from './wait.ts';

/** Where a program is, undefined when this machine doesn't have it. */
export function which(program: string): string | undefined {
  return ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'].map((folder) => join(folder, program)).find((path) => existsSync(path));
}

/** Names of those that are missing; a test that compares with them skips and says so. */
export const missingPeers = (...programs: string[]): string[] => programs.filter((program) => which(program) === undefined);

/** Wait until a daemon that writes to `log` answers; one that ends says why. */
export async function untilUp(what: string, daemon: ChildProcess, log: string, probe: () => unknown): Promise<void> {
  await until(`${what} to answer`, async () => {
    if (daemon.exitCode !== null || daemon.signalCode !== null) throw new Error(`${what} ended: ${readFileSync(log, 'utf8').slice(-2000)}`);
    try {
      await probe();
      return true;
    } catch {
      return false;
    }
  }, 60_000);
}
/** Success when it has ended already. */
export async function endDaemon(daemon: ChildProcess | undefined): Promise<void> {
  if (daemon?.exitCode !== null || daemon.signalCode !== null) return;
  const ended = new Promise((resolve) => daemon.once('exit', resolve));
  daemon.kill('SIGTERM');
  await ended;
}

/** A dockerd with roots, sockets and a containerd of its own, without networks. */
export class Dockerd {
  readonly folder = mkdtempSync('/var/tmp/engine-dockerd-');
  readonly socket = join(this.folder, 'docker.sock');
  #containerd: ChildProcess | undefined;
  #daemon: ChildProcess | undefined;
  readonly #variables: Readonly<Record<string, string>>;

  /** `variables`: of the daemons, and so of the runtimes that they start. */
  constructor(variables: Readonly<Record<string, string>> = {}) {
    this.#variables = variables;
  }
  async start(...flags: string[]): Promise<this> {
    // one that dockerd starts itself it waits for fifteen seconds only; its state lies where that one's would
    const address = join(this.folder, 'containerd.sock');
    const config = join(this.folder, 'containerd.toml');
    writeFileSync(config, `version = 2\nroot = "${join(this.folder, 'containerd')}"\nstate = "${join(this.folder, 'exec', 'containerd', 'daemon')}"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "${address}"\n[ttrpc]\n  address = "${address}.ttrpc"\n`);
    this.#containerd = this.#spawn('containerd', ['--config', config]);
    await untilUp('containerd', this.#containerd, join(this.folder, 'containerd.log'), () => execFileSync('ctr', ['--address', address, 'version'], { stdio: 'ignore' }));
    this.#daemon = this.#spawn('dockerd', [
      '--data-root', join(this.folder, 'data'), '--exec-root', join(this.folder, 'exec'), '--pidfile', join(this.folder, 'pid'), '-H', `unix://${this.socket}`, '--containerd', address,
      '--bridge=none', '--iptables=false', '--ip6tables=false', '--storage-driver=overlay2', '--cgroup-parent', `/${basename(this.folder)}`, '--config-file', this.#emptyConfig(), ...flags,
    ]);
    await untilUp('dockerd', this.#daemon, join(this.folder, 'dockerd.log'), () => this.docker('version'));
    return this;
  }
  #spawn(program: string, args: readonly string[]): ChildProcess {
    const log = openSync(join(this.folder, `${program}.log`), 'a');
    const daemon = spawn(program, args, { stdio: ['ignore', log, log], env: { ...process.env, ...this.#variables, DOCKER_RAMDISK: '1' }, detached: true }); // Ctrl-C is for us: we end it
    closeSync(log);
    return daemon;
  }
  #emptyConfig(): string {
    const path = join(this.folder, 'daemon.json');
    writeFileSync(path, '{}');
    return path;
  }
  get env(): Record<string, string> {
    return { PATH: process.env['PATH'] ?? '', HOME: this.folder, DOCKER_HOST: `unix://${this.socket}` };
  }
  docker(...args: string[]): string {
    return execFileSync('docker', args, { encoding: 'utf8', env: this.env, stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 28 });
  }
  async stop(): Promise<void> {
    if (this.#daemon?.exitCode === null && this.#daemon.signalCode === null) {
      const left = this.docker('ps', '-aq').split('\n').filter(Boolean);
      if (left.length > 0) this.docker('rm', '-fv', ...left);
    }
    await endDaemon(this.#daemon);
    await endDaemon(this.#containerd);
    // it leaves the host's network namespace mounted after --network host
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').map((line) => line.split(' ')[4] ?? '').filter((path) => path.startsWith(`${this.folder}/`));
    for (const mount of mounts.reverse()) execFileSync('umount', [mount]);
    await removeParent(basename(this.folder));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** podman with roots of its own; its default ulimits are emptied, as they need a capability that not every root has. */
export class Podman {
  readonly folder = mkdtempSync('/var/tmp/engine-podman-');
  /** `bridge`: with a network of its own, 10.88.0.0/16; only in a network namespace of ours. */
  constructor(options: { readonly bridge?: boolean } = {}) {
    for (const name of ['home', 'networks']) mkdirSync(join(this.folder, name));
    const network = options.bridge ? `[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]\nnetwork_config_dir = "${join(this.folder, 'networks')}"\n` : '';
    if (options.bridge) writeFileSync(join(this.folder, 'networks', '87-podman.conflist'), JSON.stringify(podmanNetwork(join(this.folder, 'leases'))));
    writeFileSync(join(this.folder, 'containers.conf'), network + '[containers]\ndefault_ulimits = []\n[engine]\ncgroup_manager = "cgroupfs"\nlock_type = "file"\nevents_logger = "none"\n');
    writeFileSync(join(this.folder, 'policy.json'), '{"default":[{"type":"insecureAcceptAnything"}]}');
  }
  get args(): string[] {
    return ['--root', join(this.folder, 'root'), '--runroot', join(this.folder, 'run'), '--tmpdir', join(this.folder, 'tmp'), '--storage-driver', 'overlay'];
  }
  get env(): Record<string, string> {
    return { PATH: process.env['PATH'] ?? '', HOME: join(this.folder, 'home'), CONTAINERS_CONF: join(this.folder, 'containers.conf'), XDG_RUNTIME_DIR: join(this.folder, 'tmp') };
  }
  podman(...args: string[]): string {
    return execFileSync('podman', [...this.args, ...args], { encoding: 'utf8', env: this.env, stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 28 });
  }
  close(): void {
    try {
      execFileSync('umount', [join(this.folder, 'root', 'overlay')], { stdio: 'ignore' });
    } catch {
      // not mounted
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Podman's own default network, with its leases in a folder of ours. */
const podmanNetwork = (dataDir: string): object => ({
  cniVersion: '0.4.0', name: 'podman',
  plugins: [
    { type: 'bridge', bridge: 'cni-podman0', isGateway: true, ipMasq: true, hairpinMode: true, ipam: { type: 'host-local', dataDir, routes: [{ dst: '0.0.0.0/0' }], ranges: [[{ subnet: '10.88.0.0/16', gateway: '10.88.0.1' }]] } },
    { type: 'portmap', capabilities: { portMappings: true } }, { type: 'firewall' }, { type: 'tuning' },
  ],
});
