/** Docker, podman and the engine on one machine at the same time: whoever comes first, and whatever happens to the rules. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet, netTar } from '../helpers/net.ts';
import { addressOf, inspectNetwork, serve } from '../helpers/networks.ts';
import { endDaemon, missingPeers, Podman, untilUp } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';
import { client, makeWorld, type Host, type World } from '../helpers/world.ts';

const missing = missingPeers('docker', 'dockerd', 'containerd', 'podman', 'runc', 'iptables');
if (!['/usr/lib/cni/bridge', '/opt/cni/bin/bridge'].some((path) => existsSync(path))) missing.push('CNI plugins');
if (missing.length > 0) console.error(`not tried beside others, missing: ${missing.join(', ')}`);
const run = promisify(execFile);

/** One who runs containers on the machine, each with servers on tcp/80 (published) and tcp/90 (not). */
interface Peer {
  readonly name: string;
  /** On which its container's port 80 is published. */
  readonly port: number;
  address(): Promise<string>;
  /** Run `net` in its container. */
  call(address: string, port: number): Promise<string>;
}
const words = async (call: Promise<{ stdout: string; stderr: string }>): Promise<string> => {
  const { stdout, stderr } = await call.catch((error: { stdout?: string; stderr?: string }) => ({ stdout: error.stdout ?? '', stderr: error.stderr ?? '' }));
  return (stdout + stderr).trim();
};

/** A dockerd of our own with its rules and its bridge, on the machine of a world. */
class Docker implements Peer {
  readonly name = 'docker';
  readonly port = 8081;
  readonly folder = mkdtempSync('/var/tmp/engine-dockerd-');
  readonly #world: World;
  #daemon: ChildProcess | undefined;
  constructor(world: World) {
    this.#world = world;
    writeFileSync(join(this.folder, 'daemon.json'), '{}');
  }
  get #env(): Record<string, string> {
    return { PATH: process.env['PATH'] ?? '', HOME: this.folder, DOCKER_HOST: `unix://${join(this.folder, 'docker.sock')}` };
  }
  docker(...args: string[]): Promise<{ stdout: string; stderr: string }> {
    return run('docker', args, { encoding: 'utf8', env: this.#env });
  }
  async start(): Promise<void> {
    const log = openSync(join(this.folder, 'log'), 'a');
    const [program = '', ...enter] = this.#world.machine.enter;
    this.#daemon = spawn(program, [...enter, 'dockerd', '--data-root', join(this.folder, 'data'), '--exec-root', join(this.folder, 'exec'), '--pidfile', join(this.folder, 'pid'),
      '-H', `unix://${join(this.folder, 'docker.sock')}`, '--storage-driver=overlay2', '--config-file', join(this.folder, 'daemon.json')], { stdio: ['ignore', log, log], env: { ...process.env, DOCKER_RAMDISK: '1' }, detached: true });
    closeSync(log);
    await untilUp('dockerd', this.#daemon, join(this.folder, 'log'), () => this.docker('version'));
  }
  async serve(): Promise<void> {
    await this.docker('import', '-c', 'ENV PATH=/bin', netTar(), 'net');
    await this.docker('run', '-d', '--name', 'theirs', '-p', `${this.port}:80`, 'net', 'net', 'serve', 'tcp/80', 'tcp/90');
    await this.ready();
  }
  ready(): Promise<unknown> {
    return until('docker\'s servers', async () => (await this.docker('logs', 'theirs')).stdout.includes('ready'));
  }
  async address(): Promise<string> {
    return (await this.docker('inspect', '-f', '{{.NetworkSettings.IPAddress}}', 'theirs')).stdout.trim();
  }
  call(address: string, port: number): Promise<string> {
    return words(this.docker('exec', 'theirs', 'net', 'call', '-t', '700', 'tcp', address, String(port)));
  }
  async stop(): Promise<void> {
    await endDaemon(this.#daemon);
  }
  async close(): Promise<void> {
    await this.docker('rm', '-f', 'theirs').catch(() => {});
    await this.stop();
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').map((line) => line.split(' ')[4] ?? '').filter((path) => path.startsWith(`${this.folder}/`));
    for (const mount of mounts.reverse()) await run('umount', [mount]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

class PodmanPeer implements Peer {
  readonly name = 'podman';
  readonly port = 8082;
  readonly #world: World;
  readonly #podman = new Podman({ bridge: true });
  constructor(world: World) {
    this.#world = world;
  }
  podman(...args: string[]): Promise<{ stdout: string; stderr: string }> {
    const [program = '', ...enter] = this.#world.machine.enter;
    // crun refuses a hybrid cgroup tree
    return run(program, [...enter, 'podman', ...this.#podman.args, '--runtime', 'runc', ...args], { encoding: 'utf8', env: this.#podman.env });
  }
  async serve(): Promise<void> {
    await this.podman('import', netTar(), 'net');
    await this.podman('run', '-d', '--name', 'theirs', '-p', `${this.port}:80`, 'net', '/bin/net', 'serve', 'tcp/80', 'tcp/90');
    await until('podman\'s servers', async () => (await this.podman('logs', 'theirs')).stdout.includes('ready'));
  }
  async address(): Promise<string> {
    return (await this.podman('inspect', '-f', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', 'theirs')).stdout.trim();
  }
  call(address: string, port: number): Promise<string> {
    return words(this.podman('exec', 'theirs', '/bin/net', 'call', '-t', '700', 'tcp', address, String(port)));
  }
  async close(): Promise<void> {
    await this.podman('rm', '-f', '-t', '0', 'theirs').catch(() => {});
    this.#podman.close();
    // kept by the CNI library itself, whatever roots podman is given
    for (const folder of ['/var/lib/cni/results', '/var/lib/cni']) {
      try {
        rmdirSync(folder);
      } catch {
        // others use it, or it was never made
      }
    }
  }
}

class EnginePeer implements Peer {
  readonly name = 'engine';
  readonly port = 8080;
  readonly engine: TestEngine;
  constructor(engine: TestEngine) {
    this.engine = engine;
  }
  async serve(): Promise<void> {
    await importNet(this.engine);
    await this.engine.ok('network', 'create', 'front');
    await serve(this.engine, 'ours', ['--network', 'front', '-p', `${this.port}:80`], 'tcp/80', 'tcp/90');
  }
  address(): Promise<string> {
    return addressOf(this.engine, 'ours', 'front');
  }
  async call(address: string, port: number): Promise<string> {
    const { stdout, stderr } = await this.engine.run(['exec', 'ours', 'net', 'call', '-t', '700', 'tcp', address, String(port)]);
    return (stdout + stderr).trim();
  }
}

/** All three keep working: ports from outside and from the host, the way out, and nobody of the others reaches ours, nor ours what Docker keeps to itself. */
async function check(world: World, outside: Host, peers: readonly Peer[], when: string): Promise<void> {
  for (const peer of peers) {
    const who = `${peer.name} ${when}`;
    expect(await outside.call('tcp', outside.machine, peer.port), `${who}: from outside`).toMatch(/^192\.0\.2\.\d+ \d+ \S+ 80 /);
    expect(await world.machine.call('tcp', '127.0.0.1', peer.port), `${who}: from the host`).toMatch(/^\d\S+ \d+ \S+ 80 /);
    expect(client(await peer.call(outside.address, 80)), `${who}: the way out`).toBe(outside.machine);
    for (const other of peers) {
      if (other === peer) continue;
      expect(await peer.call(outside.machine, other.port), `${who}: to the published port of ${other.name}`).toMatch(/^\d\S+ \d+ \S+ 80 /);
    }
  }
}
/** Nobody gets around publishing. Podman itself lets everybody in who gets as far as its bridge. */
async function checkApart(peers: readonly Peer[], when: string, pairs: readonly (readonly [string, string])[]): Promise<void> {
  for (const [from, to] of pairs) {
    const [one, two] = [from, to].map((name) => peers.find((peer) => peer.name === name)) as [Peer | undefined, Peer | undefined];
    if (one && two) expect(await one.call(await two.address(), 90), `${from} to ${to} ${when}`).toMatch(/ETIMEDOUT|ECONNREFUSED|EHOSTUNREACH/);
  }
}

describe.skipIf(missing.length > 0)('docker, podman and the engine on one machine', () => {
  let world: World | undefined;
  const closing: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
    await world?.close();
    world = undefined;
  });

  for (const firewall of ['nftables', 'iptables'] as const) {
    for (const first of ['docker', 'engine'] as const) {
      it(`firewall ${firewall}, ${first} first`, async () => {
        const made = (world = await makeWorld({ hosts: ['outside'] }));
        const outside = made.host('outside');
        await outside.serve('tcp/80');
        // docker sets the policy of FORWARD to DROP when it is the one that switches forwarding on
        await made.machine.sh('echo 0 >/proc/sys/net/ipv4/ip_forward');
        const engine = new EnginePeer(made.engine({ env: { ENGINE_DRIVERS_FIREWALL: firewall } }));
        const docker = new Docker(made);
        const podman = new PodmanPeer(made);
        closing.push(() => docker.close(), () => podman.close());
        const starts = { docker: async () => docker.start().then(() => docker.serve()), engine: () => engine.serve() };
        await starts[first]();
        await starts[first === 'docker' ? 'engine' : 'docker']();
        await podman.serve();
        const peers = [engine, docker, podman];
        // podman's own rules let everybody in: only a table of our own keeps ours out
        const pairs: [string, string][] = [['docker', 'engine'], ['podman', 'engine'], ['engine', 'docker'], ...(firewall === 'nftables' ? [['engine', 'podman'] as [string, string]] : [])];
        // beside Docker's policy podman's ports are reached from outside only when somebody says so, in the chain that Docker leaves for that
        const admit = (): Promise<string> => made.machine.sh('iptables -I DOCKER-USER -o cni-podman0 -j ACCEPT; iptables -P FORWARD DROP');
        if (first === 'docker') expect(await made.machine.sh('iptables -S FORWARD')).toContain('-P FORWARD DROP');
        await admit();
        await check(made, outside, peers, 'at first');
        // whoever comes later is told of the others with the next start
        await engine.engine.ok('run', '--rm', '--network', 'front', 'net', 'true');
        await check(made, outside, peers, 'after another start');
        await checkApart(peers, 'after another start', pairs);

        // all rules of everybody are gone: ours serve on, the others' come back when they are restarted
        await made.machine.sh('nft flush ruleset');
        expect(await outside.call('tcp', outside.machine, engine.port), 'after a flush').toMatch(/ ours$/);
        await docker.stop();
        await docker.start();
        await docker.docker('start', 'theirs');
        await docker.ready();
        await podman.podman('network', 'reload', '--all');
        await admit();
        await engine.engine.ok('run', '--rm', '--network', 'front', 'net', 'true');
        await check(made, outside, peers, 'after a flush and restarts');
        await checkApart(peers, 'after a flush and restarts', pairs);

        // nothing of ours is left, and the others don't notice
        const { Id } = await inspectNetwork(engine.engine, 'front');
        await engine.engine.ok('rm', '-f', 'ours');
        await engine.engine.ok('network', 'rm', 'front');
        // ends by itself some time after the last container
        await engine.engine.stopKeeper();
        const rules = await made.machine.sh('nft list ruleset; iptables-save; ip6tables-save; ip -o link');
        expect(rules.split('\n').filter((line) => line.includes(Id.slice(0, 12)) || line.includes(engine.engine.instance) || line.includes(engine.engine.instance.slice(-8)))).toEqual([]);
        await check(made, outside, [docker, podman], 'alone');
      });
    }
  }
});
