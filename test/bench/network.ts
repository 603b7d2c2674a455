import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { busyboxRootfs } from '../helpers/busybox.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';
import { type Arena } from './arena.ts';
import { type EngineContestant } from './engines.ts';
import { median } from './measure.ts';
import { type Outcome, type Row } from './outcome.ts';

/** What is measured of networks, in a network namespace of ours. */
export interface NetworkScenario {
  readonly name: string;
  readonly title: string;
  run(arena: Arena): Promise<Outcome | undefined>;
}

/** A network namespace beside this one, as another host; it ends with the bench. */
class Side {
  readonly #holder: ChildProcess;
  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }
  static async make(): Promise<Side> {
    const holder = spawn('unshare', ['-n', 'sh', '-ec', 'ip link set lo up; echo ready; exec cat >/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
    await new Promise((resolve, reject) => {
      holder.stdout.once('data', resolve);
      holder.once('exit', () => reject(new Error('no network namespace')));
    });
    return new Side(holder);
  }
  get pid(): number {
    return this.#holder.pid ?? 0;
  }
  enter(...argv: string[]): string[] {
    return ['nsenter', `--net=/proc/${this.pid}/ns/net`, '--', ...argv];
  }
  sh(script: string): void {
    run(this.enter('sh', '-ec', script));
  }
  end(): void {
    this.#holder.kill('SIGKILL');
  }
}
const run = ([program = '', ...args]: readonly string[]): string => execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();

/** busybox with iperf3 of this machine and its libraries. */
function iperfTar(folder: string): string {
  const tar = join(folder, 'iperf.tar');
  if (existsSync(tar)) return tar;
  const rootfs = join(folder, 'iperf');
  mkdirSync(rootfs);
  busyboxRootfs(rootfs);
  const program = '/usr/bin/iperf3';
  for (const path of [program, ...(run(['ldd', program]).match(/\/\S+/g) ?? [])]) {
    mkdirSync(dirname(join(rootfs, path)), { recursive: true });
    copyFileSync(path, join(rootfs, path));
  }
  run(['tar', '-C', rootfs, '-cf', tar, '.']);
  rmSync(rootfs, { recursive: true });
  return tar;
}

const SECONDS = 2;
const BARE = 'a bare veth pair';
const ROUTED = 'two bare pairs, routed by this host';
/** Gbit/s of one TCP stream. */
async function iperf(argv: readonly string[], address: string, port = 5201): Promise<number> {
  const [program, ...args] = [...argv, 'iperf3', '-c', address, '-p', String(port), '-t', String(SECONDS), '-J'];
  const { stdout } = await promisify(execFile)(program, args, { maxBuffer: 1 << 24, timeout: 60_000 });
  const bits = (JSON.parse(stdout) as { end: { sum_received?: { bits_per_second: number } } }).end.sum_received?.bits_per_second;
  if (bits === undefined) throw new Error(`iperf3 to ${address} ${port}: ${stdout.slice(0, 300)}`);
  return bits / 1e9;
}
const listens = async (argv: readonly string[], address: string, port: number): Promise<unknown> =>
  until(`iperf3 at ${address} ${port}`, async () => promisify(execFile)(argv[0] ?? 'sh', [...argv.slice(1), ...(argv.length > 0 ? ['sh'] : []), '-c', `busybox nc -w 1 ${address} ${port} </dev/null`]).then(() => true, () => false));

/** By turns: a bare veth pair, then what is compared with it. */
const throughput: NetworkScenario = {
  name: 'throughput',
  title: 'throughput of one TCP stream',
  async run(arena) {
    const missing = missingPeers('iperf3');
    const contestant = arena.engines.find(({ kind }) => kind === 'unpooled');
    if (missing.length > 0 || !contestant) {
      arena.absent.push('throughput: iperf3 not installed');
      return undefined;
    }
    const { engine } = contestant;
    const tar = iperfTar(arena.folder);
    const [client, server, routed] = [await Side.make(), await Side.make(), await Side.make()];
    const docker = arena.docker;
    const servers = [server, routed].map((side) => spawn('nsenter', [`--net=/proc/${side.pid}/ns/net`, '--', 'iperf3', '-s'], { stdio: 'ignore' }));
    try {
      // the pair that is bare, and the cable to this machine
      run(['ip', 'link', 'add', 'bare0', 'netns', String(client.pid), 'type', 'veth', 'peer', 'name', 'bare1', 'netns', String(server.pid)]);
      client.sh('ip address add 198.51.100.1/24 dev bare0; ip link set bare0 up');
      server.sh('ip address add 198.51.100.2/24 dev bare1; ip link set bare1 up');
      run(['ip', 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(client.pid)]);
      run(['sh', '-ec', 'ip address add 203.0.113.1/24 dev cable; ip link set cable up']);
      client.sh('ip address add 203.0.113.2/24 dev eth0; ip link set eth0 up; ip route add default via 203.0.113.1');
      // the same way as through a published port, and nothing of ours on it
      run(['ip', 'link', 'add', 'routed', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(routed.pid)]);
      run(['sh', '-ec', 'ip address add 192.0.2.1/24 dev routed; ip link set routed up']);
      routed.sh('ip address add 192.0.2.2/24 dev eth0; ip link set eth0 up; ip route add default via 192.0.2.1');

      await engine.ok('import', '-c', 'ENV PATH=/bin:/usr/bin', tar, 'iperf');
      await engine.ok('run', '-d', '--name', 'iperf-server', '--network', 'bridge', '-p', '5201:5201', 'iperf', 'iperf3', '-s');
      await engine.ok('run', '-d', '--name', 'iperf-client', '--network', 'bridge', 'iperf', 'sleep', '100000');
      const seen = JSON.parse(await engine.ok('inspect', 'iperf-server', 'iperf-client')) as { State: { Pid: number }; NetworkSettings: { Networks: { bridge: { IPAddress: string } } } }[];
      const inside = ['nsenter', `--net=/proc/${seen[1]?.State.Pid ?? 0}/ns/net`, '--'];
      const address = seen[0]?.NetworkSettings.Networks.bridge.IPAddress ?? '';
      if (docker) {
        docker.docker('import', '-c', 'ENV PATH=/bin:/usr/bin', tar, 'iperf');
        docker.docker('run', '-d', '--name', 'iperf-server', '-p', '5202:5201', 'iperf', 'iperf3', '-s');
      }
      const ways: readonly { readonly name: string; readonly own: boolean; readonly from: readonly string[]; readonly address: string; readonly port?: number }[] = [
        { name: BARE, own: false, from: client.enter(), address: '198.51.100.2' },
        { name: 'published port, from this host', own: true, from: [], address: '203.0.113.1' },
        { name: 'container to container', own: true, from: inside, address },
        { name: ROUTED, own: false, from: client.enter(), address: '192.0.2.2' },
        { name: 'published port, from another host', own: true, from: client.enter(), address: '203.0.113.1' },
        ...(docker ? [{ name: 'docker: published port, from another host', own: false, from: client.enter(), address: '203.0.113.1', port: 5202 }] : []),
      ];
      for (const way of ways) await listens(way.from, way.address, way.port ?? 5201);
      const found = new Map<string, number[]>(ways.map(({ name }) => [name, []]));
      for (let round = 0; round < Math.max(3, arena.settings.rounds); round++) for (const way of ways) found.get(way.name)?.push(await iperf(way.from[0] === undefined ? ['env'] : way.from, way.address, way.port));
      const part = (measured: readonly number[], of: string): number => median(measured.map((value, i) => value / (found.get(of)?.[i] ?? NaN)));
      const rows = ways.map(({ name, own }): Row => {
        const measured = found.get(name) ?? [];
        return { name, own, runs: measured.length, gigabits: median(measured), ...(name === BARE ? {} : { share: part(measured, BARE), shareRouted: part(measured, ROUTED) }) };
      });
      return { scenario: 'throughput', kind: 'throughput', title: 'throughput of one TCP stream, iperf3', note: `${SECONDS} s each, by turns; the median of what part of the bare pair's it is in the same round, and of what goes through this host without anything of ours: from another host there is one more pair on the way`, rows };
    } finally {
      for (const one of servers) one.kill('SIGKILL');
      for (const name of ['iperf-server', 'iperf-client']) await engine.run(['rm', '-f', name]);
      if (docker) run(['sh', '-c', `DOCKER_HOST=${docker.env['DOCKER_HOST'] ?? ''} docker rm -f iperf-server || true`]);
      client.end();
      server.end();
      routed.end();
    }
  },
};

async function publish(contestant: EngineContestant, from: number, count: number): Promise<void> {
  const flags = Array.from({ length: count }, (_, i) => ['-p', `${from + i}:80`]).flat();
  await contestant.engine.ok('run', '-d', '--network', 'bridge', ...flags, 'busybox', 'sleep', '100000');
}

/** The start of a container with a port, while others have published many. */
const ports: NetworkScenario = {
  name: 'ports',
  title: 'starts beside published ports',
  async run(arena) {
    const rows: Row[] = [];
    const { pause } = arena.settings;
    for (const contestant of arena.engines.filter(({ kind }) => kind !== 'cold')) {
      const [program = '', ...rest] = contestant.run('bridge') ?? [];
      if (program === '') continue;
      const argv = [program, ...rest.flatMap((word) => (word === 'busybox' ? ['-p', '9000:80', word] : [word]))];
      const by: [number, number][] = [];
      try {
        for (const [total, add] of [[1, 1], [100, 99], [500, 400]] as const) {
          for (let left = add; left > 0; left -= 50) await publish(contestant, 10_000 + total - left, Math.min(50, left));
          await arena.driver.run({ argv, env: contestant.env }, { runs: 5, pause });
          const { answered } = await arena.driver.run({ argv, env: contestant.env }, { runs: Math.max(20, 10 * arena.settings.rounds), pause });
          by.push([total, median(answered)]);
        }
        rows.push({ name: contestant.name, own: true, by });
      } finally {
        await contestant.removeAll();
      }
    }
    return { scenario: 'ports', kind: 'by', title: '`run --rm -p 9000:80` of `true`, by the number of ports that are published already', note: `${pause} ms of pause before each start; answered, median in ms`, rows };
  },
};

/** Rules of many containers, taken away by somebody else. */
const restore: NetworkScenario = {
  name: 'restore',
  title: 'rules that vanish',
  async run(arena) {
    const contestant = arena.engines.find(({ kind }) => kind === 'unpooled');
    if (!contestant || missingPeers('nft').length > 0) return undefined;
    const count = arena.settings.rounds < 3 ? 40 : 400;
    const table = (): number => run(['sh', '-c', `nft -s list table inet ${contestant.engine.instance} 2>/dev/null || true`]).length;
    try {
      for (let i = 0; i < count; i++) await publish(contestant, 10_000 + i, 1);
      const before = table();
      const times: number[] = [];
      for (let round = 0; round < 3; round++) {
        run(['nft', 'flush', 'ruleset']);
        const from = performance.now();
        await until('the rules to be back', () => table() === before, 60_000);
        times.push(performance.now() - from);
      }
      return { scenario: 'restore', kind: 'took', title: '`nft flush ruleset`: until all rules are back', note: 'the slowest of three, with what looking costs', rows: [{ name: `engine, ${count} containers with a published port`, own: true, runs: count, took: Math.max(...times) }] };
    } finally {
      await contestant.removeAll();
    }
  },
};

export const networkScenarios: readonly NetworkScenario[] = [throughput, ports, restore];
