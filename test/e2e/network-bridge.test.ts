import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, it } from 'vitest';
import { apply, applyOnCommit, type Bench } from '@engine/core/contracts/common/suite';
import { type Endpoint, type ManagedNetworks, type NetworkDesign, type NetworkRecord } from '@engine/core/contracts/network';
import { type Step } from '@engine/core/plan';
import { createNative } from '@engine/native';
import { createContainerRunner, unable as noShim } from '@engine/native/container-runner';
import { addressBytes } from '@engine/native/addresses';
import { deleteAddress, deleteLink, encodeBatch, NETLINK_ROUTE, newAddress, newBridge, newVeth, setLink } from '@engine/native/netlink';
import { openNetlink } from '@engine/native/netlink-socket';
import { createRtnetlink } from '@engine/native/rtnetlink';
import { createLocalIpam } from '../../plugins/ipam-local/driver.ts';
import { createNetworkBridge } from '../../plugins/network-bridge/driver.ts';
import { inNetworkOf, leaveTheNetwork, networkCalls } from '../helpers/own-network.ts';
import { realBench, unable } from './conformance/bench.ts';

const CLONE_NEWNET = 0x40000000;
const wait = 'while :; do sleep 1; done';
const kernel = createRtnetlink();
const links = (): string[] => kernel.links().map(({ name }) => name).sort();
const tell = (...messages: Uint8Array[]): void => {
  const socket = openNetlink(NETLINK_ROUTE);
  try {
    socket.request(encodeBatch(messages));
  } finally {
    socket.close();
  }
};
const sysctl = (name: string): string => readFileSync(`/proc/sys/net/${name}`, 'utf8').trim();

interface Scene {
  readonly bench: Bench;
  readonly managed: ManagedNetworks;
  record(more?: Partial<NetworkDesign> & { readonly subnet?: string }): NetworkRecord;
  make(network: NetworkRecord): Promise<void>;
  endpoint(network: NetworkRecord, host: number, more?: Partial<Endpoint>): Endpoint;
  steps(endpoint: Endpoint, network: NetworkRecord): Promise<readonly Step[]>;
}
const choice = { driver: 'x', plugin: 'x', version: '0', options: '' };
let count = 0;

/** A bench with a bridge driver; whatever it made must be gone at the end. */
async function scene(work: (s: Scene) => Promise<void>): Promise<void> {
  const before = links();
  const bench = await realBench();
  const { machine, instance } = bench.deps;
  const driver = createNetworkBridge({ machine, instance, rtnetlink: kernel });
  const { managed } = driver;
  assert.ok(managed);
  const made: NetworkRecord[] = [];
  try {
    await work({
      bench, managed,
      record({ subnet = '10.9.0.0/24', ...more } = {}) {
        const request: NetworkDesign = { id: (++count).toString(16).padStart(12, 'a').padEnd(64, '0'), name: `net${count}`, predefined: false, internal: false, ipv6: false, options: {}, ...more };
        const { id, name, internal, ipv6, predefined, options } = request;
        return {
          id, name, internal, ipv6, predefined, options: { ...options }, created: '', labels: {}, settings: managed.design(request), drivers: { network: choice, ipam: choice, firewall: choice },
          pools: [{ family: 4, subnet, gateway: subnet.replace(/0\/24$/, '1') }, ...(ipv6 ? [{ family: 6 as const, subnet: 'fd00:9::/64', gateway: 'fd00:9::1' }] : [])],
        };
      },
      async make(network) {
        made.push(network);
        await apply(bench, await managed.ensure(network));
        assert.deepEqual(await managed.ensure(network), []);
      },
      endpoint: (network, host, more = {}) => ({
        container: 'c', run: (++count).toString(16).padStart(12, 'f').padEnd(16, '0'), network: network.id, interface: 'eth0', link: `v0-${count.toString(16).padStart(12, 'f')}`, mac: `02:42:0a:09:00:0${host}`,
        addresses: network.pools.map(({ family, gateway, subnet }) => ({ family, address: gateway.replace(/1$/, String(host)), prefix: Number(subnet.split('/')[1]), gateway })),
        isDefault: true, aliases: [], ports: [], options: {}, ...more,
      }),
      steps: async (endpoint, network) => [...await driver.planEndpoint({ mode: network.name, hostname: '', ports: [], options: {} }, bench.run), ...managed.planAttach(endpoint, network, bench.run)],
    });
  } finally {
    for (const network of made) await applyOnCommit(bench, await managed.remove(network));
    await bench.close();
  }
  for (let left = 300; links().join() !== before.join() && left > 0; left--) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(links(), before);
}
const until = async (what: string, condition: () => boolean | Promise<boolean>): Promise<void> => {
  for (let left = 800; !(await condition()); left--) {
    assert.ok(left > 0, what);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};

/** A router advertisement from the net namespace of a process: default route for 1800 s, and a prefix to make addresses of. */
function announceRouter(pid: number, name: string): void {
  inNetworkOf(pid, () => {
    const calls = networkCalls();
    const there = createRtnetlink();
    const { index = 0 } = there.link({ name }) ?? {};
    there.close();
    const fd = calls.socket(10, 3 | 0o2000000, 58).value;
    const [ipv6, multicastHops] = [41, 18];
    calls.setsockopt(fd, ipv6, multicastHops, Int32Array.of(255), 4);
    const prefix = Buffer.concat([Buffer.from([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]), addressBytes('2001:db8:bad::')]);
    const packet = Buffer.concat([Buffer.from([134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]), prefix]);
    const to = Buffer.alloc(28);
    to.writeUInt16LE(10);
    addressBytes('ff02::1').copy(to, 8);
    to.writeUInt32LE(index, 24);
    calls.sendto(fd, packet, packet.length, 0, to, to.length);
    closeSync(fd);
  });
}
const announced = (): boolean => kernel.routes().some(({ protocol, destination }) => protocol === 'ra' && destination === '::/0');

describe.skipIf(unable ?? noShim)('network bridge', () => {
  if ((unable ?? noShim) === undefined) leaveTheNetwork();
  const runner = createContainerRunner(createNative());

  it('a bridge with a name of the user\'s has ours too, and goes by it', () => scene(async ({ record, make, managed, bench }) => {
    const network = record({ options: { 'com.docker.network.bridge.name': 'mine.br-0_' } });
    await make(network);
    const link = kernel.link({ name: 'mine.br-0_' });
    assert.equal(link?.name, 'mine.br-0_');
    assert.equal(kernel.link({ name: `br-${network.id.slice(0, 12)}` })?.index, link?.index);
    assert.equal(link?.alias, `${bench.deps.instance} ${network.id}`);
    assert.equal(sysctl('ipv4/conf/mine.br-0_/route_localnet'), '1');
    assert.equal(managed.firewalled(network).link, 'mine.br-0_');
  }));

  it('a foreign link that takes the name in the last moment stays as it is', () => scene(async ({ record, managed, bench }) => {
    const before = links();
    const network = record({ options: { bridge: 'mine' } });
    const effects = await managed.ensure(network);
    tell(newBridge('mine'));
    try {
      const foreign = kernel.link({ name: 'mine' });
      await assert.rejects(apply(bench, effects), { code: 'ERR_OPERATION_FAILED', errno: 'EEXIST' });
      assert.deepEqual(kernel.link({ name: 'mine' }), foreign);
      assert.deepEqual(links(), [...before, 'mine'].sort());
      await assert.rejects(async () => managed.ensure(network), { code: 'ERR_IN_USE' });
      await applyOnCommit(bench, await managed.remove(network));
      assert.deepEqual(kernel.link({ name: 'mine' }), foreign);
    } finally {
      tell(deleteLink({ name: 'mine' }));
    }
  }));

  it('what somebody takes away is noticed at the next start and put back: address, state, setting, the bridge itself under a running container', () => scene(async ({ record, make, managed, endpoint, steps, bench }) => {
    const network = record({ ipv6: true });
    await make(network);
    const name = managed.firewalled(network).link;
    const container = await runner.start(await steps(endpoint(network, 2), network), wait, { namespaces: CLONE_NEWNET });
    const reaches = async (): Promise<boolean> => (await container.exec([], 'ping -c 1 -W 5 10.9.0.1 && ping -c 1 -W 5 fd00:9::1')).code === 0;
    try {
      assert.ok(await reaches());
      const repair = async (): Promise<void> => {
        const effects = await managed.ensure(network);
        assert.ok(effects.length > 0);
        await apply(bench, effects);
        assert.deepEqual(await managed.ensure(network), []);
        assert.ok(await reaches());
      };
      const { index } = kernel.link({ name }) ?? { index: 0 };
      tell(deleteAddress(index, '10.9.0.1', 24));
      await repair();
      // takes the IPv6 addresses with it
      tell(setLink({ index }, { up: false }));
      await repair();
      // settings are believed for a second
      writeFileSync(`/proc/sys/net/ipv4/conf/${name}/route_localnet`, '0');
      writeFileSync('/proc/sys/net/ipv4/ip_forward', '0');
      await until('the settings are looked at again', async () => (await managed.ensure(network)).length === 2);
      await repair();
      assert.equal(sysctl('ipv4/ip_forward'), '1');
      tell(deleteLink({ name }));
      assert.ok(!(await container.exec([], 'ping -c 1 -W 1 10.9.0.1')).output.includes('1 packets received'));
      await repair();
    } finally {
      await container.stop();
    }
  }));

  it('a repair that fails is undone, and the bridge stays', () => scene(async ({ record, make, managed, bench }) => {
    const network = record();
    await make(network);
    const { index = 0, name } = kernel.link({ name: managed.firewalled(network).link }) ?? { name: '' };
    tell(deleteAddress(index, '10.9.0.1', 24));
    const transaction = bench.effects();
    await transaction.run(await managed.ensure(network));
    assert.equal(kernel.addresses(index).filter(({ family }) => family === 4).length, 1);
    await transaction.rollback();
    assert.equal(kernel.addresses(index).filter(({ family }) => family === 4).length, 0);
    assert.ok(kernel.link({ name }));
  }));

  it('icc=false keeps containers apart on the bridge itself; the gateway answers', () => scene(async ({ record, make, endpoint, steps }) => {
    const network = record({ ipv6: true, options: { icc: 'false' } });
    await make(network);
    const other = await runner.start(await steps(endpoint(network, 3), network), wait, { namespaces: CLONE_NEWNET });
    try {
      const { output } = await runner.run(await steps(endpoint(network, 2), network), 'for a in 10.9.0.1 fd00:9::1 10.9.0.3 fd00:9::3; do ping -c 1 -W 1 $a; done', { namespaces: CLONE_NEWNET });
      assert.deepEqual([...output.matchAll(/(\d) packets received/g)].map(([, n]) => n), ['1', '1', '0', '0'], output);
    } finally {
      await other.stop();
    }
  }));

  it('the MTU is everywhere; ports are in hairpin mode when something is published; no link-local addresses where there is no IPv6', () => scene(async ({ record, make, managed, endpoint, steps }) => {
    const network = record({ options: { mtu: '1300' } });
    await make(network);
    const name = managed.firewalled(network).link;
    const one = endpoint(network, 2, { ports: [{ protocol: 'tcp', hostAddress: '0.0.0.0', hostPort: 80, containerPort: 80 }] });
    const container = await runner.start(await steps(one, network), wait, { namespaces: CLONE_NEWNET });
    try {
      await until('the link is up', () => kernel.link({ name: one.link })?.up === true);
      assert.deepEqual([kernel.link({ name })?.mtu, kernel.link({ name: one.link })?.mtu], [1300, 1300]);
      const inside = (await container.exec([], 'ip -o addr; ip link show eth0')).output;
      assert.match(inside, /mtu 1300/);
      assert.doesNotMatch(inside, /inet6 (?!::1)/);
      assert.deepEqual(kernel.addresses().filter(({ family, index }) => family === 6 && index !== 1), []);
      const hairpin = execFileSync('ip', ['-d', 'link', 'show', one.link], { encoding: 'utf8' });
      assert.match(hairpin, /hairpin on/);
    } finally {
      await container.stop();
    }
  }));

  it('an MTU too short for IPv6 is one, without IPv6', () => scene(async ({ record, make, endpoint, steps }) => {
    const network = record({ options: { mtu: '600' } });
    await make(network);
    const { output, failure, code } = await runner.run(await steps(endpoint(network, 2), network), 'ping -c 1 -W 5 10.9.0.1 && ip link show eth0', { namespaces: CLONE_NEWNET });
    assert.deepEqual([failure, code], [undefined, 0], output);
    assert.match(output, /mtu 600/);
  }));

  it('CVE-2020-13401: a container that announces itself as a router gets no traffic of the host or of its neighbours', () => scene(async ({ record, make, managed, endpoint, steps }) => {
    const network = record({ ipv6: true });
    await make(network);
    const name = managed.firewalled(network).link;
    const victim = await runner.start(await steps(endpoint(network, 2), network), wait, { namespaces: CLONE_NEWNET });
    const attacker = await runner.start(await steps(endpoint(network, 3), network), wait, { namespaces: CLONE_NEWNET });
    const announce = (): void => announceRouter(attacker.pid, 'eth0');
    const fooled = async (): Promise<boolean> => (await victim.exec([], 'ip -6 route; ip -6 addr')).output.includes('bad');
    try {
      for (let i = 0; i < 15; i++) {
        announce();
        await new Promise((resolve) => setTimeout(resolve, 100));
        assert.ok(!announced());
        assert.ok(!await fooled());
      }
      // the attack is a real one: whoever listens falls for it
      writeFileSync(`/proc/sys/net/ipv6/conf/${name}/accept_ra`, '2');
      await until('the host listens', () => {
        announce();
        return announced();
      });
      assert.ok(!await fooled());
    } finally {
      await attacker.stop();
      await victim.stop();
    }
  }));

  it('a host that has its IPv6 default route from a router keeps it when forwarding is switched on', () => scene(async ({ record, make }) => {
    writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '0');
    const router = await runner.start([], wait, { namespaces: CLONE_NEWNET });
    try {
      tell(newVeth({ name: 'up0', up: true }, { name: 'eth9', netnsPid: router.pid }));
      assert.equal(sysctl('ipv6/conf/up0/accept_ra'), '1');
      inNetworkOf(router.pid, () => tell(setLink({ name: 'eth9' }, { up: true })));
      await until('the host has a default route', () => {
        announceRouter(router.pid, 'eth9');
        return announced();
      });
      await make(record({ ipv6: true }));
      assert.equal(sysctl('ipv6/conf/all/forwarding'), '1');
      assert.equal(sysctl('ipv6/conf/up0/accept_ra'), '2');
      assert.ok(announced(), 'the default route is gone');
    } finally {
      await router.stop();
    }
  }));

  it('two networks whose names begin alike do not touch each other', () => scene(async ({ record, make, managed, bench }) => {
    const [one, two] = [record({ options: { bridge: 'app' } }), record({ options: { bridge: 'app1' }, subnet: '10.9.1.0/24' })];
    await make(one);
    await make(two);
    await applyOnCommit(bench, await managed.remove(one));
    assert.equal(kernel.link({ name: 'app' }), undefined);
    assert.equal(kernel.link({ name: 'app1' })?.up, true);
    assert.deepEqual(await managed.ensure(two), []);
  }));

  it('subnets are held against the kernel: addresses of links that are down, routes, and another engine\'s bridge', () => scene(async ({ record, make, managed, bench }) => {
    const ipam = (): ReturnType<typeof createLocalIpam> => createLocalIpam({ machine: bench.deps.machine, rtnetlink: kernel });
    const request = { pools: [], ipv6: true, taken: [], instance: bench.deps.instance, network: 'x' };
    const [mine, theirs] = [ipam(), ipam()];
    const [pool] = mine.choosePools(request);
    assert.deepEqual(theirs.choosePools(request)[0], pool);
    assert.ok(pool);
    const network = { ...record(), pools: [pool] };
    await make(network);
    assert.equal(mine.conflict([pool], managed.firewalled(network).link), undefined);
    assert.match(theirs.conflict([pool], 'br-elsewhere') ?? '', new RegExp(bench.deps.instance));
    assert.throws(() => theirs.choosePools({ ...request, pools: [{ subnet: pool.subnet }] }), { code: 'ERR_SUBNET_TAKEN' });
    const [next] = theirs.choosePools(request);
    assert.notEqual(next?.subnet, pool.subnet);
    // a link that is down has no routes, its addresses count all the same
    tell(newBridge('down0'));
    try {
      const index = kernel.link({ name: 'down0' })?.index ?? 0;
      tell(newAddress(index, next?.gateway ?? '', 20));
      assert.notEqual(theirs.choosePools(request)[0]?.subnet, next?.subnet);
      assert.throws(() => theirs.choosePools({ ...request, pools: [{ subnet: next?.subnet ?? '' }] }), { code: 'ERR_SUBNET_TAKEN', message: /down0/ });
    } finally {
      tell(deleteLink({ name: 'down0' }));
    }
  }));
});
