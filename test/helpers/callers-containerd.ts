import { type ChildProcess } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { CallerMachine, example, makeFolder, runtime, type MachineOptions } from './callers.ts';
import { busyboxTar } from './busybox.ts';
import { busyboxImage } from './images.ts';
import { dockerArchive } from './tar.ts';
import { type Result, type Running, type RunOptions } from './engine.ts';

/** Name under which containerd knows the image of the tests. */
export const image = 'docker.io/library/busybox:latest';
/** What holds a pod's namespaces: the same with another command. */
const pause = 'docker.io/library/pause:latest';

/** A containerd of its own, with `docs/callers/examples/containerd-config.toml` and its CRI plugin, whose pods get addresses of a bridge. */
export class ContainerdCaller {
  readonly machine: CallerMachine;
  #daemon: ChildProcess | undefined;
  private constructor(machine: CallerMachine) {
    this.machine = machine;
  }
  static async start(options: MachineOptions = {}): Promise<ContainerdCaller> {
    const caller = new ContainerdCaller(await CallerMachine.make(options));
    await caller.startDaemon();
    const layers = [{ tar: readFileSync(busyboxTar()) }];
    const archive = caller.machine.path('images.tar');
    writeFileSync(archive, dockerArchive([{ ...busyboxImage, layers }, { layers, names: ['pause:latest'], config: { Entrypoint: ['sleep', '1000000'], Env: ['PATH=/bin'] } }]));
    for (const namespace of ['default', 'k8s.io']) await caller.ok('-n', namespace, 'images', 'import', archive);
    return caller;
  }
  get socket(): string {
    return this.machine.path('containerd.sock');
  }
  get logs(): string {
    return makeFolder(this.machine.path('pods'));
  }
  async startDaemon(): Promise<void> {
    const { machine } = this;
    const networks = makeFolder(machine.path('cni'));
    writeFileSync(`${networks}/10-pods.conflist`, JSON.stringify({
      cniVersion: '0.4.0', name: 'pods',
      plugins: [{ type: 'bridge', bridge: 'cni0', isGateway: true, ipMasq: false, ipam: { type: 'host-local', dataDir: machine.path('leases'), ranges: [[{ subnet: '10.244.0.0/24' }]], routes: [{ dst: '0.0.0.0/0' }] } }],
    }));
    // the example, and below it what makes this containerd one of its own
    const own = `
root = "${machine.path('lib')}"
state = "${machine.path('state')}"
[grpc]
  address = "${this.socket}"
[ttrpc]
  address = "${this.socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${pause}"
  disable_tcp_service = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "${networks}"
[plugins."io.containerd.internal.v1.opt"]
  path = "${machine.path('opt')}"
`;
    const [head = '', ...rest] = example('containerd-config.toml').split('\n\n');
    const config = machine.write('containerd.toml', `${head}\n${own}\n${rest.join('\n\n')}`);
    this.#daemon = await machine.daemon('containerd', ['containerd', '--config', config], () => this.ok('version'));
  }
  async endDaemon(): Promise<void> {
    await this.machine.end(this.#daemon);
  }
  start(args: readonly string[], options: RunOptions = {}): Running {
    return this.machine.start(['ctr', '--address', this.socket, ...args], options);
  }
  run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return this.machine.run(['ctr', '--address', this.socket, ...args], options);
  }
  ok(...args: string[]): Promise<string> {
    return this.machine.ok(['ctr', '--address', this.socket, ...args]);
  }
  /** What `ctr run` needs to know of our runtime. */
  get flags(): string[] {
    return ['--runtime', 'io.containerd.runc.v2', '--runc-binary', runtime, '--runc-root', this.machine.path('state', 'oci')];
  }
  terminal(args: readonly string[]): Running {
    return this.machine.terminal(['ctr', '--address', this.socket, ...args]);
  }
  close(): Promise<string[]> {
    return this.machine.close();
  }
}
