/** Published ports: every form of -p, who reaches them, and what the server sees. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet } from '../helpers/net.ts';
import { addressOf, call, endpointOf, inspect, portOf, serve } from '../helpers/networks.ts';
import { until } from '../helpers/wait.ts';
import { client, makeWorld, type Host, type World } from '../helpers/world.ts';

let world: World;
let engine: TestEngine;
let peer: Host;
beforeAll(async () => {
  world = await makeWorld({ hosts: ['peer', 'far'] });
  engine = world.engine();
  peer = world.host('peer');
  await importNet(engine);
  await engine.ok('network', 'create', '--ipv6', 'dual');
  await engine.ok('run', '--rm', 'net', 'true');
  await engine.ok('run', '--rm', '--network', 'dual', 'net', 'true');
});
afterEach(async () => {
  await engine.removeContainers();
});
afterAll(async () => {
  expect(await world.close()).toEqual([]);
});
const gateway = async (name: string, network?: string): Promise<string> => (await endpointOf(engine, name, network)).Gateway;
const free = (port: number): Promise<boolean> => world.machine.exec(['sh', '-c', `! ss -Hlntu "sport = :${port}" | grep -q .`]).then(({ code }) => code === 0);

describe('-p', () => {
  it.each([
    ['80', /^0\.0\.0\.0:(\d+)\n\[::\]:\1$/, 'tcp'],
    ['8080:80', /^0\.0\.0\.0:8080\n\[::\]:8080$/, 'tcp'],
    ['8080:80/tcp', /^0\.0\.0\.0:8080\n\[::\]:8080$/, 'tcp'],
    ['8080:80/udp', /^0\.0\.0\.0:8080\n\[::\]:8080$/, 'udp'],
    ['127.0.0.1:8080:80', /^127\.0\.0\.1:8080$/, 'tcp'],
    ['127.0.0.1::80', /^127\.0\.0\.1:\d+$/, 'tcp'],
    ['192.0.2.1:8080:80', /^192\.0\.2\.1:8080$/, 'tcp'],
    ['[::1]:8080:80', /^\[::1\]:8080$/, 'tcp'],
    ['[2001:db8:1::1]:8080:80/udp', /^\[2001:db8:1::1\]:8080$/, 'udp'],
    ['0.0.0.0:8080:80', /^0\.0\.0\.0:8080$/, 'tcp'],
  ] as const)('%s', async (flag, shown, protocol) => {
    await serve(engine, 'server', ['--network', 'dual', '-p', flag], 'tcp/80', 'udp/80');
    const bindings = await engine.ok('port', 'server', `80/${protocol}`);
    expect(bindings).toMatch(shown);
    for (const binding of bindings.split('\n')) {
      const [, address = '', port = ''] = /^\[?(.*?)\]?:(\d+)$/.exec(binding) ?? [];
      const to = address === '0.0.0.0' ? peer.machine : address === '::' ? peer.machine6 : address;
      const from = /^(127|::1)/.test(address) ? world.machine : peer;
      expect(await from.call(protocol, to, Number(port), { text: 'x' }), binding).toMatch(/ server/);
    }
  });
  it('ranges, several, random ones out of a range', async () => {
    await serve(engine, 'server', ['-p', '8000-8002:80-82', '-p', '9000:80', '-p', '9100-9110:81', '-p', '8000:80/udp'], 'tcp/80', 'tcp/81', 'tcp/82', 'udp/80');
    for (const [port, inside] of [[8000, 80], [8001, 81], [8002, 82], [9000, 80]] as const) expect(await peer.call('tcp', peer.machine, port)).toMatch(new RegExp(` ${inside} server$`));
    expect(await peer.call('udp', peer.machine, 8000, { text: 'x' })).toMatch(/ 80 server/);
    const chosen = (await engine.ok('port', 'server', '81')).split('\n').map((line) => Number(line.split(':').at(-1))).filter((port) => port >= 9100 && port <= 9110);
    expect(chosen.length).toBeGreaterThan(0);
    expect(await peer.call('tcp', peer.machine, chosen[0] ?? 0)).toMatch(/ 81 server$/);
    // the next one that wants any of the range gets another
    await serve(engine, 'second', ['-p', '9100-9110:80'], 'tcp/80');
    expect(await portOf(engine, 'second', '80')).not.toBe(chosen[0]);
    const { NetworkSettings: { Ports } } = await inspect(engine, 'server');
    expect(Object.keys(Ports).sort()).toEqual(['80/tcp', '80/udp', '81/tcp', '82/tcp']);
  });
  it('-P publishes what the image and --expose name', async () => {
    await importNet(engine, 'exposing', ['EXPOSE 80 81/udp']);
    await engine.ok('run', '-d', '--name', 'server', '-P', '--expose', '82-83', 'exposing', 'net', 'serve', 'tcp/80', 'udp/81', 'tcp/82', 'tcp/83');
    for (const [port, protocol] of [['80', 'tcp'], ['81', 'udp'], ['82', 'tcp'], ['83', 'tcp']] as const) {
      const outside = await portOf(engine, 'server', `${port}/${protocol}`);
      await until(`port ${port}`, async () => (await peer.call(protocol, peer.machine, outside, { text: 'x' })).includes(` ${port} `));
    }
    await engine.ok('run', '-d', '--name', 'without', 'exposing');
    expect(await engine.ok('port', 'without')).toBe('');
  });
  it('a wrong one is refused before anything is made', async () => {
    for (const flag of ['0', '65536', '80:', '80/http', 'x:80', '1.2.3:80:80', '8000-8002:80-81', '8002-8000:80-82', '127.0.0.1:80:80:80', '203.0.113.9:8080:80'])
      expect((await engine.run(['run', '--rm', '-p', flag, 'net', 'true'])).code, flag).not.toBe(0);
    expect(await engine.ok('ps', '-aq')).toBe('');
  });
  it('with --network none has no effect', async () => {
    expect((await engine.run(['run', '--rm', '--network', 'none', '-p', '8080:80', 'net', 'true'])).code).toBe(0);
    expect(await free(8080)).toBe(true);
  });
});

describe('who reaches what is published, and as whom', () => {
  it('everybody, by every address; the server sees the client wherever that is possible', async () => {
    await serve(engine, 'server', ['--network', 'dual', '-p', '8080:80', '-p', '8080:80/udp'], 'tcp/80', 'udp/80');
    await serve(engine, 'same', ['--network', 'dual'], 'tcp/80');
    await serve(engine, 'other', [], 'tcp/80');
    const { Gateway, IPv6Gateway } = await endpointOf(engine, 'server', 'dual');
    for (const protocol of ['tcp', 'udp'] as const) {
      const seen = async (line: Promise<string>): Promise<string> => client(await line);
      const text = 'x';
      // from outside: its own
      expect(await seen(peer.call(protocol, peer.machine, 8080, { text }))).toBe(peer.address);
      expect(await seen(peer.call(protocol, peer.machine6, 8080, { text }))).toBe(peer.address6);
      expect(await seen(world.host('far').call(protocol, peer.machine, 8080, { text }))).toBe(world.host('far').address);
      // from the host: by its own addresses they, by 127.0.0.1 and ::1 the gateway
      expect(await seen(world.machine.call(protocol, peer.machine, 8080, { text }))).toBe(peer.machine);
      expect(await seen(world.machine.call(protocol, peer.machine6, 8080, { text }))).toBe(peer.machine6);
      expect(await seen(world.machine.call(protocol, '127.0.0.1', 8080, { text }))).toBe(Gateway);
      expect(await seen(world.machine.call(protocol, '::1', 8080, { text }))).toBe(IPv6Gateway);
      // from the same network through the host (hairpin) the gateway, itself too; from another network its own
      expect(await seen(call(engine, 'same', protocol, peer.machine, 8080, text))).toBe(Gateway);
      expect(await seen(call(engine, 'server', protocol, peer.machine, 8080, text))).toBe(Gateway);
      expect(await seen(call(engine, 'other', protocol, peer.machine, 8080, text))).toBe(await addressOf(engine, 'other'));
      expect(await seen(call(engine, 'other', protocol, await gateway('other'), 8080, text))).toBe(await addressOf(engine, 'other'));
    }
  });
  it('IPv6 clients of a container with IPv4 alone', async () => {
    await serve(engine, 'server', ['-p', '8080:80', '-p', '8080:80/udp'], 'tcp/80', 'udp/80');
    for (const protocol of ['tcp', 'udp'] as const) {
      expect(await peer.call(protocol, peer.machine6, 8080, { text: 'x' })).toMatch(/ server/);
      expect(await world.machine.call(protocol, '::1', 8080, { text: 'x' })).toMatch(/ server/);
    }
  });
  it('what is published on 127.0.0.1 or ::1 is for this host alone, also by a crafted route', async () => {
    await serve(engine, 'server', ['--network', 'dual', '-p', '127.0.0.1:8080:80', '-p', '[::1]:8081:80', '-p', '127.0.0.1:8080:80/udp'], 'tcp/80', 'udp/80');
    expect(await world.machine.call('tcp', '127.0.0.1', 8080)).toMatch(/ server$/);
    expect(await world.machine.call('tcp', '::1', 8081)).toMatch(/ server$/);
    for (const [address, port] of [[peer.machine, 8080], [peer.machine6, 8081], [peer.machine, 8081], [peer.machine6, 8080]] as const)
      expect(await peer.call('tcp', address, port, { timeout: 700 }), `${address} ${port}`).toMatch(/^connect: (ECONNREFUSED|ETIMEDOUT)$/);
    // packets for 127.0.0.1 that a neighbour puts on the wire
    await peer.sh(`sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1
      ip route del local 127.0.0.0/8 dev lo table local; ip route del local 127.0.0.1 dev lo table local; ip route add 127.0.0.1/32 via ${peer.machine} dev eth0 src ${peer.address}`);
    try {
      expect(await peer.call('tcp', '127.0.0.1', 8080, { timeout: 700 })).toBe('connect: ETIMEDOUT');
      expect(await peer.call('udp', '127.0.0.1', 8080, { text: 'x', timeout: 700 })).toBe('recv: ETIMEDOUT');
    } finally {
      await peer.sh('ip route del 127.0.0.1/32; ip route add local 127.0.0.0/8 dev lo table local; ip route add local 127.0.0.1 dev lo table local');
    }
    // and other containers: not by their own loopback, nor by the gateway
    await serve(engine, 'other', ['--network', 'dual'], 'tcp/81');
    expect(await call(engine, 'other', 'tcp', '127.0.0.1', 8080)).toBe('connect: ECONNREFUSED');
    expect(await call(engine, 'other', 'tcp', await gateway('other', 'dual'), 8080)).toMatch(/^connect: (ECONNREFUSED|ETIMEDOUT)$/);
  });
  it('what is published on one address of the host is reached by that one alone', async () => {
    await serve(engine, 'server', ['-p', `${world.host('far').machine}:8080:80`], 'tcp/80');
    expect(client(await world.host('far').call('tcp', world.host('far').machine, 8080))).toBe(world.host('far').address);
    expect(await world.machine.call('tcp', world.host('far').machine, 8080)).toMatch(/ server$/);
    expect(await world.machine.call('tcp', '127.0.0.1', 8080)).toBe('connect: ECONNREFUSED');
    expect(await peer.call('tcp', peer.machine, 8080, { timeout: 700 })).toMatch(/^connect: (ECONNREFUSED|ETIMEDOUT)$/);
  });
  it('two containers have the same port on two addresses', async () => {
    await serve(engine, 'one', ['-p', `${peer.machine}:8080:80`], 'tcp/80');
    await serve(engine, 'two', ['-p', `${world.host('far').machine}:8080:80`], 'tcp/80');
    expect(await peer.call('tcp', peer.machine, 8080)).toMatch(/ one$/);
    expect(await world.host('far').call('tcp', world.host('far').machine, 8080)).toMatch(/ two$/);
  });
  it('nobody, once it has ended: also those that were connected by UDP', async () => {
    await serve(engine, 'server', ['-p', '8080:80/udp'], 'udp/80');
    expect(await peer.call('udp', peer.machine, 8080, { text: 'x', source: `${peer.address},5555` })).toMatch(/ server/);
    await engine.ok('rm', '-f', 'server');
    expect(await peer.call('udp', peer.machine, 8080, { text: 'x', source: `${peer.address},5555`, timeout: 700 })).toMatch(/^recv: (ECONNREFUSED|ETIMEDOUT)$/);
    // the next container with that port gets what the same client sends: no old connection is in the way
    await serve(engine, 'next', ['-p', '8080:80/udp'], 'udp/80');
    expect(await peer.call('udp', peer.machine, 8080, { text: 'x', source: `${peer.address},5555` })).toMatch(/ next/);
  });
});

describe('network why', () => {
  it('says who can reach a port, and by which rule', async () => {
    await serve(engine, 'server', ['-p', '8080:80', '-p', '127.0.0.1:8081:80'], 'tcp/80');
    const why = await engine.ok('network', 'why', '8080');
    expect(why).toContain('server');
    expect(why).toContain(`${await addressOf(engine, 'server')}`);
    expect(why.split('\n').length).toBeGreaterThan(1);
    expect(await engine.ok('network', 'why', '8081')).toMatch(/127\.0\.0\.1/);
    const nobody = await engine.run(['network', 'why', '9999']);
    expect([nobody.code === 0, nobody.stderr]).toEqual([false, expect.stringMatching(/9999/)]);
    const holder = await world.machine.serve('tcp/9998');
    expect((await engine.run(['network', 'why', '9998'])).stderr).toMatch(new RegExp(`pid ${holder.child.pid ?? ''}|engine-test-net`));
  });
});
