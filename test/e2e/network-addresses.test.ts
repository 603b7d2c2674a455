/** Addresses: never twice, given back, and never in the way of others. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet } from '../helpers/net.ts';
import { addressOf, contains, endpointOf, inspectNetwork, serve } from '../helpers/networks.ts';
import { until } from '../helpers/wait.ts';
import { isRunning, makeWorld, type World } from '../helpers/world.ts';

let world: World;
beforeAll(async () => {
  world = await makeWorld({ hosts: ['peer'] });
});
afterAll(async () => expect(await world.close()).toEqual([]));

async function open(resident: 'auto' | 'off' = 'auto'): Promise<TestEngine> {
  const engine = world.engine({ resident });
  await importNet(engine);
  return engine;
}
const clear = async (engine: TestEngine): Promise<void> => {
  await engine.removeContainers();
  await engine.ok('network', 'prune', '-f');
};
const subnets = async (engine: TestEngine, network: string): Promise<string[]> => (await inspectNetwork(engine, network)).IPAM.Config.map(({ Subnet }) => Subnet);
/** First and last address as numbers. */
function range(cidr: string): [number, number] {
  const [base = '', bits = '32'] = cidr.split('/');
  const first = base.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
  return [first, first + 2 ** (32 - Number(bits)) - 1];
}
const overlap = (a: string, b: string): boolean => range(a)[0] <= range(b)[1] && range(b)[0] <= range(a)[1];

describe.each(['auto', 'off'] as const)('eight starts at once, resident: %s', (resident) => {
  it('never get the same address, MAC or link', { timeout: 240_000 }, async () => {
    const engine = await open(resident);
    await engine.ok('network', 'create', '--ipv6', 'shared');
    for (let round = 0; round < 3; round++) {
      const names = Array.from({ length: 8 }, (_, i) => `c${round}-${i}`);
      // the predefined network is made by the first of them as well
      await Promise.all(names.map((name, i) => engine.ok('run', '-d', '--name', name, '--network', i % 2 ? 'shared' : 'bridge', 'net')));
    }
    const seen = new Map<string, string>();
    for (const id of await engine.containers()) {
      const { NetworkSettings } = (JSON.parse(await engine.ok('inspect', id)) as { NetworkSettings: { Networks: Record<string, { IPAddress: string; GlobalIPv6Address: string; MacAddress: string }> } }[])[0] ?? { NetworkSettings: { Networks: {} } };
      for (const [network, { IPAddress, GlobalIPv6Address, MacAddress }] of Object.entries(NetworkSettings.Networks)) {
        for (const value of [IPAddress, GlobalIPv6Address, MacAddress].filter(Boolean)) {
          expect(seen.get(`${network} ${value}`), `${value} of ${id}`).toBeUndefined();
          seen.set(`${network} ${value}`, id);
        }
      }
    }
    expect(seen.size).toBe(12 * 2 + 12 * 3);
    await clear(engine);
    await until('the links to go', async () => !/ v\d+-/.test(await world.machine.sh('ip -o link')));
  });
});

describe('a small network', () => {
  it('says when it is full, leaves nothing of what did not fit, and gives out again what is free', { timeout: 240_000 }, async () => {
    const engine = await open();
    await engine.ok('network', 'create', '--subnet', '10.99.0.0/29', 'small');
    for (let i = 0; i < 5; i++) await engine.ok('run', '-d', '--name', `c${i}`, '--network', 'small', 'net');
    const taken = await Promise.all(Array.from({ length: 5 }, (_, i) => addressOf(engine, `c${i}`, 'small')));
    expect(taken.toSorted()).toEqual(['10.99.0.2', '10.99.0.3', '10.99.0.4', '10.99.0.5', '10.99.0.6']);
    const before = await world.state();
    const { code, stderr } = await engine.run(['run', '-d', '--name', 'sixth', '--network', 'small', 'net']);
    expect([code, stderr.split('\n')[0]]).toEqual([125, expect.stringMatching(/small/)]);
    expect(stderr).toMatch(/no address|10\.99\.0\.0\/29/);
    await engine.run(['rm', 'sixth']);
    expect((await world.state()).filter((line) => !before.includes(line) && !isRunning(line))).toEqual([]);
    // what has ended is free, and also what was killed in any way
    await engine.ok('rm', '-f', 'c3');
    await engine.ok('run', '-d', '--name', 'sixth', '--network', 'small', 'net');
    expect(await addressOf(engine, 'sixth', 'small')).toBe(taken[3]);
    await engine.ok('kill', 'c0');
    await engine.ok('run', '-d', '--name', 'seventh', '--network', 'small', 'net');
    expect(await addressOf(engine, 'seventh', 'small')).toBe(taken[0]);
    // thirty runs of short ones, each with the last free address
    await engine.ok('rm', '-f', 'seventh');
    for (let i = 0; i < 30; i++) await engine.ok('run', '--rm', '--network', 'small', 'net', 'true');
    await clear(engine);
  });
  it('takes the next address, not the one that was just given back', async () => {
    const engine = await open();
    await engine.ok('network', 'create', '--subnet', '10.98.0.0/24', 'next');
    const seen: string[] = [];
    for (let i = 0; i < 5; i++) seen.push((await engine.ok('run', '--rm', '--network', 'next', 'net', 'sh', '-c', 'ip -4 -o address show eth0')).replace(/^.*inet (\S+)\/.*$/s, '$1'));
    expect(new Set(seen).size).toBe(5);
    await clear(engine);
  });
});

describe('subnets', () => {
  it('keep away from the host\'s routes, addresses and other networks', { timeout: 240_000 }, async () => {
    const engine = await open();
    await engine.ok('run', '--rm', 'net', 'true'); // makes the default one
    await engine.ok('network', 'create', 'first');
    const [chosen = ''] = await subnets(engine, 'first');
    const [start, end] = range(chosen);
    const size = end - start + 1;
    const text = (n: number): string => [24, 16, 8, 0].map((shift) => Math.floor(n / 2 ** shift) % 256).join('.');
    // a route to where the next one would be, as a VPN makes it, and an address in the one after
    await world.machine.sh(`ip route add ${text(start + size)}/24 via ${world.host('peer').address}; ip address add ${text(start + 2 * size + 5)}/32 dev lo`);
    for (const name of ['second', 'third', 'fourth']) await engine.ok('network', 'create', name);
    const all = [await subnets(engine, 'bridge'), chosen, await subnets(engine, 'second'), await subnets(engine, 'third'), await subnets(engine, 'fourth')].flat().filter((subnet) => !subnet.includes(':'));
    const others = [`${text(start + size)}/24`, `${text(start + 2 * size + 5)}/32`, '192.0.2.0/28'];
    for (const [i, one] of all.entries()) for (const other of [...all.slice(i + 1), ...others]) expect(overlap(one, other), `${one} and ${other}`).toBe(false);
    for (const [subnet, owner] of [[others[0] ?? '', /route|to-peer/], [chosen, /first/], ['192.0.2.0/24', /192\.0\.2\.|to-peer/]] as const) {
      const { code, stderr } = await engine.run(['network', 'create', '--subnet', subnet, 'clash']);
      expect([code, stderr]).toEqual([1, expect.stringMatching(owner)]);
    }
    await world.machine.sh(`ip route del ${text(start + size)}/24; ip address del ${text(start + 2 * size + 5)}/32 dev lo`);
    await clear(engine);
  });
  it('of two engines with roots of their own are different, also when they choose at the same time', { timeout: 240_000 }, async () => {
    const engines = await Promise.all([open(), open(), open('off')]);
    await Promise.all(engines.map((engine) => Promise.all(['n1', 'n2', 'n3'].map((name) => engine.ok('network', 'create', name)))));
    await Promise.all(engines.map((engine) => engine.ok('run', '-d', '--name', 'on', '--network', 'n1', 'net')));
    await Promise.all(engines.map((engine) => engine.ok('run', '-d', '--name', 'default', 'net')));
    const all = (await Promise.all(engines.flatMap((engine) => ['n1', 'n2', 'n3', 'bridge'].map((name) => subnets(engine, name))))).flat().filter((subnet) => !subnet.includes(':'));
    expect(all.length).toBe(12);
    for (const [i, one] of all.entries()) for (const other of all.slice(i + 1)) expect(overlap(one, other), `${one} and ${other}`).toBe(false);
    for (const engine of engines) await clear(engine);
  });
  it('of one engine\'s networks do not reach those of another engine', { timeout: 240_000 }, async () => {
    const [left, right] = [await open(), await open()];
    for (const engine of [left, right]) await serve(engine, 'server', [], 'tcp/80');
    expect(await addressOf(left, 'server')).not.toBe(await addressOf(right, 'server'));
    expect(contains((await inspectNetwork(left, 'bridge')).IPAM.Config[0]?.Subnet ?? '', await addressOf(right, 'server'))).toBe(false);
    const { stderr } = await left.run(['exec', 'server', 'net', 'call', 'tcp', await addressOf(right, 'server'), '80']);
    expect(stderr.trim()).toBe('connect: ETIMEDOUT');
    // one that ends takes away nothing of the other
    await clear(left);
    expect(await right.ok('exec', 'server', 'ping', '-c', '1', '-W', '2', (await endpointOf(right, 'server')).Gateway)).toContain('1 packets received');
    await clear(right);
  });
});
