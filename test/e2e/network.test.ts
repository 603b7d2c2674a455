/** Networks: what a container sees of them, who reaches whom, and that they last. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet } from '../helpers/net.ts';
import { address6Of, addressOf, call, contains, endpointOf, inNetworkOf, inspect, inspectNetwork, serve } from '../helpers/networks.ts';
import { until } from '../helpers/wait.ts';
import { client, makeWorld, type Host, type World } from '../helpers/world.ts';

let world: World;
let engine: TestEngine;
let peer: Host;
beforeAll(async () => {
  world = await makeWorld({ hosts: ['peer'] });
  engine = world.engine();
  peer = world.host('peer');
  await peer.serve('tcp/80', 'udp/80');
  await importNet(engine);
  await engine.ok('run', '--rm', 'net', 'true');
  await world.mark(); // the default network's bridge stays
});
afterEach(async () => {
  await engine.removeContainers();
  await engine.ok('network', 'prune', '-f');
  expect(await world.leaks({ engines: true })).toEqual([]);
  expect(await engine.orphans()).toEqual([]);
});
afterAll(async () => expect(await world.close()).toEqual([]));

const run = (name: string, ...flags: string[]): Promise<string> => engine.ok('run', '-d', '--name', name, ...flags, 'net');
const fails = async (text: RegExp, ...args: string[]): Promise<void> => {
  const { code, stderr } = await engine.run(args);
  expect([code === 0, stderr.trimEnd().split('\n')[0]], args.join(' ')).toEqual([false, expect.stringMatching(text)]);
};

describe('the default network', () => {
  it('gives an address, a gateway, a route, an MTU and a MAC, as inspect says', async () => {
    await run('aa');
    const { IPAddress, IPPrefixLen, Gateway, MacAddress, NetworkID } = await endpointOf(engine, 'aa');
    const { Id, IPAM: { Config: [pool] }, Containers } = await inspectNetwork(engine, 'bridge');
    expect(NetworkID).toBe(Id);
    expect(Containers[(await inspect(engine, 'aa')).Id]).toMatchObject({ Name: 'aa', IPv4Address: `${IPAddress}/${IPPrefixLen}`, MacAddress });
    expect([pool?.Gateway, contains(pool?.Subnet ?? '', IPAddress)]).toEqual([Gateway, true]);
    expect(await inNetworkOf(engine, 'aa', 'ip', '-o', '-4', 'address', 'show', 'eth0')).toMatch(` inet ${IPAddress}/${IPPrefixLen} `);
    expect(await engine.ok('exec', 'aa', 'ip', 'route')).toMatch(new RegExp(`^default via ${Gateway} dev eth0`));
    expect(await engine.ok('exec', 'aa', 'cat', '/sys/class/net/eth0/mtu', '/sys/class/net/eth0/address')).toBe(`1500\n${MacAddress}`);
    expect(await engine.ok('exec', 'aa', 'cat', '/sys/class/net/lo/flags')).toBe('0x9');
    expect(await engine.ok('exec', 'aa', 'ping', '-c', '1', '-W', '2', Gateway)).toContain('1 packets received');
  });
  it('hosts has the name and the address; resolv.conf is the host\'s; no names are served', async () => {
    await run('named', '-h', 'box');
    expect(await engine.ok('exec', 'named', 'cat', '/etc/hosts')).toMatch(new RegExp(`^${await addressOf(engine, 'named')}\\s+box`, 'm'));
    expect((await engine.ok('exec', 'named', 'cat', '/etc/resolv.conf')).match(/^nameserver .*$/gm)).toEqual(readFileSync('/etc/resolv.conf', 'utf8').match(/^nameserver .*$/gm));
  });
  it('reaches other containers, the host, and other hosts with the machine\'s address', async () => {
    await serve(engine, 'bb', [], 'tcp/80', 'udp/80');
    await run('aa');
    const [a, b] = [await addressOf(engine, 'aa'), await addressOf(engine, 'bb')];
    for (const protocol of ['tcp', 'udp'] as const) {
      expect(client(await call(engine, 'aa', protocol, b, 80, 'x'))).toBe(a);
      expect(client(await call(engine, 'aa', protocol, peer.address, 80, 'x'))).toBe(peer.machine);
      expect(client(await world.machine.call(protocol, b, 80, { text: 'x' }))).toBe((await endpointOf(engine, 'bb')).Gateway);
    }
    await world.machine.serve('tcp/81');
    expect(client(await call(engine, 'aa', 'tcp', peer.machine, 81))).toBe(a);
  });
  it('cannot be reached from other hosts, although they have a route', async () => {
    await serve(engine, 'bb', ['-p', '8080:81'], 'tcp/80', 'udp/80');
    const address = await addressOf(engine, 'bb');
    expect(await peer.call('tcp', address, 80, { timeout: 700 })).toBe('connect: ETIMEDOUT');
    expect(await peer.call('udp', address, 80, { timeout: 700 })).toBe('recv: ETIMEDOUT');
    // nor a published port by the address behind it
    expect(await peer.call('tcp', address, 81, { timeout: 700 })).toBe('connect: ETIMEDOUT');
  });
});

describe('a network', () => {
  it('is as it was asked for', async () => {
    await engine.ok('network', 'create', '--subnet', '10.77.0.0/16', '--gateway', '10.77.9.9', '--ip-range', '10.77.5.0/24', '--opt', 'mtu=1400', '--label', 'a=b', 'mine');
    expect(await inspectNetwork(engine, 'mine')).toMatchObject({ Name: 'mine', Internal: false, Labels: { a: 'b' }, IPAM: { Config: [{ Subnet: '10.77.0.0/16', Gateway: '10.77.9.9', IPRange: '10.77.5.0/24' }] } });
    await run('aa', '--network', 'mine');
    expect(await addressOf(engine, 'aa', 'mine')).toMatch(/^10\.77\.5\./);
    expect(await engine.ok('exec', 'aa', 'ip', 'route')).toMatch(/^default via 10\.77\.9\.9 /);
    expect(await engine.ok('exec', 'aa', 'cat', '/sys/class/net/eth0/mtu')).toBe('1400');
    expect((await engine.ok('network', 'ls', '--format', '{{.Name}} {{.Driver}}')).split('\n').sort()).toEqual(expect.arrayContaining(['bridge bridge', 'mine bridge']));
    await fails(/mine/, 'network', 'create', 'mine');
    await fails(/aa/, 'network', 'rm', 'mine');
    await fails(/bridge/, 'network', 'rm', 'bridge');
    await fails(/no such network: nobody/, 'run', '--rm', '--network', 'nobody', 'net', 'true');
    for (const wrong of [['--subnet', '10.0.0.0/33'], ['--subnet', 'x'], ['--subnet', '10.78.0.0/24', '--gateway', '10.79.0.1'], ['--opt', 'no.such=option'], ['--opt', 'mtu=big'], ['--subnet', '10.78.0.1/24', '--ip-range', '10.1.0.0/24']])
      await fails(/./, 'network', 'create', ...wrong, 'wrong');
    expect(await engine.ok('network', 'ls', '-q', '-f', 'name=wrong')).toBe('');
  });
  it('has the bridge that was named, and takes it away', async () => {
    await engine.ok('network', 'create', '--opt', 'com.docker.network.bridge.name=mybridge0', 'named');
    await run('aa', '--network', 'named');
    expect(await world.machine.ok('ip', '-o', 'link', 'show', 'mybridge0')).toContain('mybridge0');
    await engine.ok('rm', '-f', 'aa');
    await engine.ok('network', 'rm', 'named');
    expect((await world.machine.exec(['ip', 'link', 'show', 'mybridge0'])).code).toBe(1);
  });
  it('does not take a bridge that somebody else made', async () => {
    await world.machine.sh('ip link add name theirs type bridge');
    try {
      await fails(/theirs/, 'network', 'create', '--opt', 'com.docker.network.bridge.name=theirs', 'grabs');
      expect(await engine.ok('network', 'ls', '-q', '-f', 'name=grabs')).toBe('');
      expect(await world.machine.sh('ip -o link show theirs')).toContain('theirs');
    } finally {
      await world.machine.sh('ip link delete theirs');
    }
  });
  it('gives the addresses that are asked for, and no address twice', async () => {
    await engine.ok('network', 'create', '--ipv6', '--subnet', '10.77.0.0/24', '--subnet', 'fd77::/64', 'mine');
    await run('aa', '--network', 'mine', '--ip', '10.77.0.50', '--ip6', 'fd77::50', '--mac-address', '02:00:00:00:00:50');
    expect(await endpointOf(engine, 'aa', 'mine')).toMatchObject({ IPAddress: '10.77.0.50', GlobalIPv6Address: 'fd77::50', MacAddress: '02:00:00:00:00:50' });
    expect(await engine.ok('exec', 'aa', 'cat', '/sys/class/net/eth0/address')).toBe('02:00:00:00:00:50');
    await fails(/10\.77\.0\.50.*aa|aa.*10\.77\.0\.50/, 'run', '--rm', '--network', 'mine', '--ip', '10.77.0.50', 'net', 'true');
    for (const ip of ['10.77.0.1', '10.77.0.0', '10.77.0.255', '10.88.0.5', '10.77.0', 'x', 'fd77::5']) await fails(/./, 'run', '--rm', '--network', 'mine', '--ip', ip, 'net', 'true');
    for (const mac of ['x', '01:00:00:00:00:01', '02:00:00:00:00']) await fails(/./, 'run', '--rm', '--network', 'mine', '--mac-address', mac, 'net', 'true');
    expect((await engine.ok('ps', '-a', '--format', '{{.Names}}')).split('\n').filter(Boolean)).toEqual(['aa']);
    // the same again once it is gone
    await engine.ok('rm', '-f', 'aa');
    expect(await until('the address', async () => (await engine.run(['run', '--rm', '--network', 'mine', '--ip', '10.77.0.50', 'net', 'ip', '-4', 'address', 'show', 'eth0'])).stdout || undefined)).toContain('10.77.0.50/24');
  });
  it('and another, at once and later, running and stopped', async () => {
    for (const name of ['one', 'two', 'three']) await engine.ok('network', 'create', name);
    for (const name of ['one', 'two', 'three']) await serve(engine, `on-${name}`, ['--network', name], 'tcp/80');
    await run('aa', '--network', 'one', '--network', 'two');
    const links = (): Promise<string> => engine.ok('exec', 'aa', 'ls', '/sys/class/net');
    const reaches = async (name: string): Promise<boolean> => / on-/.test(await call(engine, 'aa', 'tcp', await addressOf(engine, `on-${name}`, name), 80));
    expect(await links()).toBe('eth0\neth1\nlo');
    expect([await reaches('one'), await reaches('two'), await reaches('three')]).toEqual([true, true, false]);
    await engine.ok('network', 'connect', '--alias', 'also', 'three', 'aa');
    expect(await links()).toBe('eth0\neth1\neth2\nlo');
    expect(await reaches('three')).toBe(true);
    await fails(/aa.*three|three.*aa/, 'network', 'connect', 'three', 'aa');
    await engine.ok('network', 'disconnect', 'two', 'aa');
    expect(await links()).toBe('eth0\neth2\nlo');
    expect([await reaches('one'), await reaches('two'), await reaches('three')]).toEqual([true, false, true]);
    await engine.ok('restart', '-t', '0', 'aa');
    expect([await reaches('one'), await reaches('two'), await reaches('three')]).toEqual([true, false, true]);
    await engine.ok('stop', '-t', '0', 'aa');
    await engine.ok('network', 'disconnect', 'one', 'aa');
    await engine.ok('network', 'connect', 'two', 'aa');
    await engine.ok('start', 'aa');
    expect([await reaches('one'), await reaches('two'), await reaches('three')]).toEqual([false, true, true]);
    // without the one that had the default route there is another
    expect(await engine.ok('exec', 'aa', 'ip', 'route')).toMatch(/^default via /);
    // and back to the world when none is left
    await engine.ok('network', 'disconnect', 'two', 'aa');
    await engine.ok('network', 'disconnect', '-f', 'three', 'aa');
    expect(await links()).toBe('lo');
  });
  it('--internal has no way out and none in', async () => {
    await engine.ok('network', 'create', '--internal', 'inner');
    await serve(engine, 'bb', ['--network', 'inner'], 'tcp/80');
    await run('aa', '--network', 'inner');
    expect(await call(engine, 'aa', 'tcp', await addressOf(engine, 'bb', 'inner'), 80)).toMatch(/ bb$/);
    expect(await engine.ok('exec', 'aa', 'ip', 'route')).not.toContain('default');
    expect(await call(engine, 'aa', 'tcp', peer.address, 80)).toMatch(/ENETUNREACH|ETIMEDOUT|EHOSTUNREACH/);
    // also with a route of its own making
    const gateway = (await inspectNetwork(engine, 'inner')).IPAM.Config[0]?.Gateway ?? '';
    await inNetworkOf(engine, 'aa', 'ip', 'route', 'add', 'default', 'via', gateway).catch(() => {});
    expect(await call(engine, 'aa', 'tcp', peer.address, 80)).toMatch(/ENETUNREACH|ETIMEDOUT|EHOSTUNREACH/);
    expect(await peer.call('tcp', await addressOf(engine, 'bb', 'inner'), 80, { timeout: 700 })).toBe('connect: ETIMEDOUT');
  });
  it('with icc=false keeps its containers apart, not from the world', async () => {
    await engine.ok('network', 'create', '--ipv6', '--opt', 'icc=false', 'apart');
    await serve(engine, 'bb', ['--network', 'apart', '-p', '8080:80'], 'tcp/80');
    await run('aa', '--network', 'apart');
    expect(await call(engine, 'aa', 'tcp', await addressOf(engine, 'bb', 'apart'), 80)).toMatch(/ETIMEDOUT|EHOSTUNREACH/);
    expect(await call(engine, 'aa', 'tcp', await address6Of(engine, 'bb', 'apart'), 80)).toMatch(/ETIMEDOUT|EHOSTUNREACH/);
    expect(client(await call(engine, 'aa', 'tcp', peer.address, 80))).toBe(peer.machine);
    expect(await peer.call('tcp', peer.machine, 8080)).toMatch(/ bb$/);
  });
  it('is kept apart from the others, in both families, unless both are told not to be', async () => {
    for (const name of ['left', 'right']) await engine.ok('network', 'create', '--ipv6', name);
    for (const name of ['open1', 'open2']) await engine.ok('network', 'create', '--ipv6', '--opt', 'isolated=false', name);
    for (const name of ['right', 'open1', 'open2']) await serve(engine, `on-${name}`, ['--network', name], 'tcp/80');
    await run('aa', '--network', 'left');
    await run('oo', '--network', 'open1');
    for (const to of ['right', 'open1']) {
      expect(await call(engine, 'aa', 'tcp', await addressOf(engine, `on-${to}`, to), 80), to).toBe('connect: ETIMEDOUT');
      expect(await call(engine, 'aa', 'tcp', await address6Of(engine, `on-${to}`, to), 80), to).toBe('connect: ETIMEDOUT');
    }
    expect(await call(engine, 'oo', 'tcp', await addressOf(engine, 'on-right', 'right'), 80)).toBe('connect: ETIMEDOUT');
    expect(client(await call(engine, 'oo', 'tcp', await addressOf(engine, 'on-open2', 'open2'), 80))).toBe(await addressOf(engine, 'oo', 'open1'));
  });
  it('with IPv6 has both families, out by the machine\'s address and not in', async () => {
    await engine.ok('network', 'create', '--ipv6', 'dual');
    const pools = (await inspectNetwork(engine, 'dual')).IPAM.Config;
    expect(pools.map(({ Subnet }) => Subnet.includes(':')).sort()).toEqual([false, true]);
    expect(pools.find(({ Subnet }) => Subnet.includes(':'))?.Subnet).toMatch(/^fd[0-9a-f]{2}:.*\/64$/);
    await serve(engine, 'bb', ['--network', 'dual'], 'tcp/80', 'udp/80');
    await run('aa', '--network', 'dual');
    const [a, b] = [await address6Of(engine, 'aa', 'dual'), await address6Of(engine, 'bb', 'dual')];
    for (const protocol of ['tcp', 'udp'] as const) {
      expect(client(await call(engine, 'aa', protocol, b, 80, 'x'))).toBe(a);
      expect(client(await call(engine, 'aa', protocol, peer.address6, 80, 'x'))).toBe(peer.machine6);
    }
    expect(await peer.call('tcp', b, 80, { timeout: 700 })).toBe('connect: ETIMEDOUT');
    // the address is usable the moment the program starts: nobody waits for duplicate address detection
    expect(client(await engine.ok('run', '--rm', '--network', 'dual', 'net', 'net', 'call', 'tcp', b, '80'))).toMatch(/^fd/);
  });
});

describe('what shares and what lasts', () => {
  it('container: shares addresses and ports, host has the machine\'s', async () => {
    await serve(engine, 'target', [], 'tcp/80');
    expect(await engine.ok('run', '--rm', '--network', 'container:target', 'net', 'net', 'call', 'tcp', '127.0.0.1', '80')).toMatch(/ target$/);
    expect(await engine.ok('run', '--rm', '--network', 'host', 'net', 'ip', '-4', 'address', 'show', peer.link)).toContain(peer.machine);
    expect(await engine.ok('run', '--rm', '--network', 'none', 'net', 'ls', '/sys/class/net')).toBe('lo');
  });
  it('a container that ends leaves no link, and a restart has all again', async () => {
    await engine.ok('network', 'create', '--ipv6', 'lasting');
    await serve(engine, 'bb', ['--network', 'lasting', '-p', '8080:80'], 'tcp/80');
    for (let round = 0; round < 3; round++) {
      await engine.ok('restart', '-t', '0', 'bb');
      expect(await until('the server', async () => / bb$/.exec(await peer.call('tcp', peer.machine, 8080))?.[0])).toBe(' bb');
      expect(await until('the server, by IPv6', async () => / bb$/.exec(await peer.call('tcp', peer.machine6, 8080))?.[0])).toBe(' bb');
    }
    await engine.ok('kill', 'bb');
    await until('its link to be gone', async () => !/ v\d+-/.test(await world.machine.sh('ip -o link')));
    expect(await peer.call('tcp', peer.machine, 8080)).toBe('connect: ECONNREFUSED');
  });
  it('a container goes on while engined is killed and comes back', async () => {
    await serve(engine, 'bb', ['-p', '8080:80'], 'tcp/80');
    const held = await peer.hold(peer.machine, 8080);
    await engine.stopEngined('SIGKILL');
    await held.echo('without');
    expect(await peer.call('tcp', peer.machine, 8080)).toMatch(/ bb$/);
    expect(await engine.ok('port', 'bb')).toContain('80/tcp -> 0.0.0.0:8080');
    await held.echo('with');
    await held.close();
  });
  it('after a reboot networks are made again when they are needed, and leases of before are void', async () => {
    await engine.ok('network', 'create', '--subnet', '10.77.0.0/29', 'again');
    await serve(engine, 'bb', ['--network', 'again', '-p', '8080:80'], 'tcp/80');
    await run('passing', '--rm', '--network', 'again');
    const pids = new Map<string, number>();
    for (const name of ['bb', 'passing']) {
      const { Id, State } = await inspect(engine, name);
      pids.set(Id, Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${State.Pid}/status`, 'utf8'))?.[1]));
    }
    await engine.stopEngined('SIGKILL');
    await engine.stopKeeper('SIGKILL');
    for (const [id, shim] of pids) {
      process.kill(shim, 'SIGKILL');
      await until('its end', () => !existsSync(`/proc/${shim}/exe`));
      const record = join(engine.runRoot, 'runs', id, 'record.json');
      writeFileSync(record, JSON.stringify({ ...(JSON.parse(readFileSync(record, 'utf8')) as object), boot: '00000000-0000-0000-0000-000000000000' }));
    }
    await world.machine.sh('nft flush ruleset; for link in $(ip -o link show type bridge | awk -F": " \'{ print $2 }\'); do ip link delete "$link"; done; sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0');
    expect(await engine.ok('ps', '-a', '--format', '{{.Names}} {{.State}}')).toBe('bb exited');
    await engine.ok('start', 'bb');
    expect(await until('the server', async () => / bb$/.exec(await peer.call('tcp', peer.machine, 8080))?.[0])).toBe(' bb');
    expect(client(await call(engine, 'bb', 'tcp', peer.address, 80))).toBe(peer.machine);
    // five addresses besides the gateway: all are free but one
    for (const name of ['c1', 'c2', 'c3', 'c4']) await run(name, '--network', 'again');
    await engine.ok('run', '--rm', 'net', 'true'); // the default network is back as well
  });
});
