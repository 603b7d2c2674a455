/** Ports that are taken, rules that vanish, many of both. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet, netProgram } from '../helpers/net.ts';
import { addressOf, call, serve } from '../helpers/networks.ts';
import { until } from '../helpers/wait.ts';
import { client, isRunning, makeWorld, type Host, type World } from '../helpers/world.ts';

let world: World;
let engine: TestEngine;
let peer: Host;
beforeAll(async () => {
  world = await makeWorld({ hosts: ['peer'] });
  engine = world.engine();
  peer = world.host('peer');
  await importNet(engine);
  await engine.ok('run', '--rm', 'net', 'true');
  await world.mark();
});
afterEach(async () => {
  await engine.removeContainers();
});
afterAll(async () => expect(await world.close()).toEqual([]));

describe('a port that is taken', () => {
  const refused = async (holder: RegExp, ...flags: string[]): Promise<void> => {
    const before = (await world.state()).filter((line) => !isRunning(line));
    const { code, stderr } = await engine.run(['run', '-d', '--name', 'late', ...flags, 'net']);
    expect([code, stderr.split('\n')[0]]).toEqual([125, expect.stringMatching(holder)]);
    // nothing was made: no container either
    expect(await engine.ok('ps', '-aq', '-f', 'name=late')).toBe('');
    expect((await world.state()).filter((line) => !isRunning(line))).toEqual(before);
  };
  it('by a process of the host: it is named', async () => {
    const held = await world.machine.serve('tcp/8080@0.0.0.0', 'udp/8081@0.0.0.0', 'tcp/8082@127.0.0.1', 'tcp/8083@::1');
    const holder = new RegExp(`808[0-3].*engine-test-net.*pid ${held.child.pid ?? ''}`);
    await refused(holder, '-p', '8080:80');
    await refused(holder, '-p', '9000:80', '-p', '8081:81/udp');
    await refused(holder, '-p', '8082:80');
    await refused(holder, '-p', '[::1]:8083:80');
    // another protocol, another address: free
    await engine.ok('run', '--rm', '-p', '8080:80/udp', '-p', '8082:80/udp', '-p', `${peer.machine}:8082:80`, 'net', 'true');
    held.child.kill('SIGKILL');
    await held.result;
    await engine.ok('run', '--rm', '-p', '8080:80', '-p', '8081:81/udp', 'net', 'true');
  });
  it('by another container: it is named, also before it was started', async () => {
    await serve(engine, 'owner', ['-p', '8080:80'], 'tcp/80');
    await refused(/8080.*owner/, '-p', '8080:80');
    await refused(/8080.*owner/, '-p', '127.0.0.1:8080:80');
    await engine.ok('create', '--name', 'waits', '-p', '8080:80', 'net');
    const start = await engine.run(['start', 'waits']);
    expect([start.code === 0, start.stderr]).toEqual([false, expect.stringMatching(/8080.*owner/)]);
    await engine.ok('stop', '-t', '0', 'owner');
    await engine.ok('start', 'waits');
    await engine.ok('rm', '-f', 'waits');
    expect((await engine.run(['start', 'owner'])).code).toBe(0);
  });
  it('by another engine on this machine', async () => {
    const second = world.engine();
    await importNet(second);
    await second.ok('run', '-d', '--name', 'theirs', '-p', '8080:80', 'net');
    try {
      await refused(/8080.*engine-shim/, '-p', '8080:80');
    } finally {
      await second.ok('rm', '-f', 'theirs');
      await world.mark(); // its default network's bridge stays as well
    }
  });
  it('by one of two that ask at the same time', async () => {
    for (let round = 0; round < 5; round++) {
      const results = await Promise.all(['xx', 'yy', 'zz'].map((name) => engine.run(['run', '-d', '--name', name, '-p', '8080:80', 'net'])));
      expect(results.map(({ code }) => code).sort()).toEqual([0, 125, 125]);
      await engine.removeContainers();
    }
  });
});

describe('sctp', () => {
  it('reaches the container through the map, and comes back', async () => {
    await engine.ok('run', '-d', '--name', 'server', '-p', '9999:99/sctp', 'net', 'net', 'sctp-serve', '99');
    await until('the server', async () => (await engine.ok('logs', 'server')).includes('ready'));
    expect(await peer.ok(netProgram(), 'sctp', peer.machine, '9999')).toBe(`${peer.machine} 9999 chunk 2`);
    // it answers before it writes, and what it writes is on its way to the log for a moment
    await until('its log', async () => (await engine.ok('logs', 'server')).includes(`INIT from ${peer.address} `));
    expect(await engine.ok('port', 'server')).toContain('99/sctp -> 0.0.0.0:9999');
  });
});

describe('rules that somebody takes away', () => {
  it('are back, at once and whole; established connections live', { timeout: 240_000 }, async () => {
    await engine.ok('network', 'create', '--ipv6', 'dual');
    await engine.ok('network', 'create', '--internal', 'inner');
    await serve(engine, 'server', ['--network', 'dual', '-p', '8080:80', '-p', '127.0.0.1:8081:80'], 'tcp/80');
    await serve(engine, 'kept', ['--network', 'inner'], 'tcp/80');
    const held = [await peer.hold(peer.machine, 8080), await peer.hold(peer.machine6, 8080), await world.machine.hold('127.0.0.1', 8081)];
    await peer.serve('tcp/81');
    const rules = async (): Promise<string> => (await world.machine.ok('nft', '-s', 'list', 'ruleset')).split('\n').map((line) => line.trim()).sort().join('\n');
    const before = await rules();
    for (let round = 0; round < 5; round++) {
      await world.machine.ok('nft', 'flush', 'ruleset');
      for (const connection of held) await connection.echo(`round ${round}`);
      await until('the rules', async () => (await rules()) === before);
      for (const connection of held) await connection.echo(`after ${round}`);
      expect(client(await peer.call('tcp', peer.machine, 8080))).toBe(peer.address);
      expect(await call(engine, 'server', 'tcp', peer.address, 81)).toMatch(new RegExp(`^${peer.machine} `));
      expect(await peer.call('tcp', await addressOf(engine, 'kept', 'inner'), 80, { timeout: 500 })).toBe('connect: ETIMEDOUT');
    }
    // as firewalld does it: all in one transaction, with rules of its own
    await world.machine.sh('printf "flush ruleset\\ntable inet theirs {\\n chain c {\\n type filter hook input priority 0; policy accept;\\n }\\n}\\n" | nft -f -');
    await until('the rules', async () => (await rules()).includes(before.split('\n')[0] ?? '') && (await rules()).split('\n').length > before.split('\n').length);
    for (const connection of held) {
      await connection.echo('last');
      await connection.close();
    }
    await world.machine.ok('nft', 'delete', 'table', 'inet', 'theirs');
    // what ended in the meantime is not put back
    await engine.ok('rm', '-f', 'server');
    await world.machine.ok('nft', 'flush', 'ruleset');
    await engine.ok('run', '--rm', 'net', 'true');
    expect(await rules()).not.toContain('8080');
    await engine.ok('rm', '-f', 'kept');
    await engine.ok('network', 'rm', 'dual', 'inner');
  });
  it('are put back by the next start when nobody watched', async () => {
    await serve(engine, 'server', ['-p', '8080:80'], 'tcp/80');
    await engine.stopKeeper('SIGKILL');
    await world.machine.ok('nft', 'flush', 'ruleset');
    await engine.ok('run', '--rm', 'net', 'true');
    expect(client(await until('the port', async () => { const line = await peer.call('tcp', peer.machine, 8080); return line.includes(' server') ? line : undefined; }))).toBe(peer.address);
  });
  it('one element of them too', async () => {
    await serve(engine, 'server', ['-p', '8080:80'], 'tcp/80');
    const table = `inet ${engine.instance}`;
    const maps = (await world.machine.sh(`nft -j list table ${table} 2>/dev/null`).then((text) => (JSON.parse(text) as { nftables: { map?: { name: string; elem?: unknown[] } }[] }).nftables)).flatMap(({ map }) => (map?.elem?.length ? [map.name] : []));
    expect(maps.length).toBeGreaterThan(0);
    for (const map of maps) await world.machine.ok('nft', 'flush', 'map', ...table.split(' '), map);
    await until('the element', async () => client(await peer.call('tcp', peer.machine, 8080, { timeout: 700 })) === peer.address);
  });
});

describe('many', () => {
  it('five hundred published ports: rules stay as they are, each port is reached, and all are gone at the end', { timeout: 300_000 }, async () => {
    const before = await world.machine.ok('nft', '-s', 'list', 'ruleset');
    const chains = async (): Promise<number> => (await world.machine.ok('nft', '-s', 'list', 'chains')).split('\n').length;
    const rules = await chains();
    const flags = [...Array.from({ length: 400 }, (_, i) => `${10_000 + i}:80`), ...Array.from({ length: 100 }, (_, i) => `127.0.0.1:${20_000 + i}:80`)].flatMap((binding) => ['-p', binding]);
    await serve(engine, 'many', flags, 'tcp/80');
    for (const port of [10_000, 10_200, 10_399]) expect(client(await peer.call('tcp', peer.machine, port))).toBe(peer.address);
    expect(await world.machine.call('tcp', '127.0.0.1', 20_099)).toMatch(/ many$/);
    expect((await engine.ok('port', 'many')).split('\n').length).toBe(400 * 2 + 100);
    expect(await chains()).toBe(rules); // one look into a map, however many there are
    await engine.ok('rm', '-f', 'many');
    expect(await world.machine.ok('nft', '-s', 'list', 'ruleset')).toBe(before);
  });
});
