/** Names: containers find each other, and the world, by them. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet } from '../helpers/net.ts';
import { address6Of, addressOf, endpointOf, inNetworkOf, inspect, serve } from '../helpers/networks.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';
import { makeWorld, type Host, type World } from '../helpers/world.ts';

const records = {
  'one.example': { A: ['192.0.2.100'], AAAA: ['2001:db8::100'], TXT: ['text'] },
  'long.example': { TXT: Array.from({ length: 12 }, (_, i) => `${i}`.repeat(200)) },
  'search.example.test': { A: ['192.0.2.101'] },
  // what the world says about a name that is ours is not asked for
  server: { A: ['192.0.2.66'] },
} as const;

let world: World;
let engine: TestEngine;
let peer: Host;
let second: Host;
beforeAll(async () => {
  world = await makeWorld({ hosts: ['peer', 'second'], resolvers: ['192.0.2.2', '192.0.2.18'], resolvConf: 'search example.test\noptions ndots:1\n' });
  engine = world.engine();
  [peer, second] = [world.host('peer'), world.host('second')];
  await importNet(engine);
  await engine.ok('network', 'create', '--ipv6', 'front');
  await engine.ok('network', 'create', 'back');
  await engine.ok('run', '-d', '--name', 'asks', '--network', 'front', 'net');
});
afterEach(async () => {
  await peer.stop();
  await second.stop();
  const ids = (await engine.ok('ps', '-a', '--format', '{{.Names}}')).split('\n').filter((name) => name && name !== 'asks');
  if (ids.length) await engine.ok('rm', '-f', ...ids);
});
afterAll(async () => expect(await world.close()).toEqual([]));

/** dig in a container's network; `+short` unless told otherwise. Lines, sorted. */
async function dig(container: string, ...question: string[]): Promise<string[]> {
  const server = /^nameserver (\S+)/m.exec(await engine.ok('exec', container, 'cat', '/etc/resolv.conf'))?.[1] ?? '';
  return (await inNetworkOf(engine, container, 'dig', `@${server}`, '+short', '+tries=1', '+time=4', ...question)).split('\n').filter((line) => line !== '' && !line.startsWith(';; communications error')).sort();
}
const status = async (container: string, ...question: string[]): Promise<string> => /status: (\w+)/.exec((await dig(container, '+noshort', '+comments', ...question)).join('\n'))?.[1] ?? '';
const missing = missingPeers('dig');
const asks = it.skipIf(missing.length > 0);

describe('names on a network', () => {
  asks('are the container\'s, its short id and its aliases; addresses of both families; PTR', async () => {
    await serve(engine, 'server', ['--network', 'front', '--network-alias', 'db', '--network-alias', 'Cache', '-h', 'box'], 'tcp/80');
    const [v4, v6] = [await addressOf(engine, 'server', 'front'), await address6Of(engine, 'server', 'front')];
    const { Id } = await inspect(engine, 'server');
    for (const name of ['server', 'SERVER', 'db', 'cache', Id.slice(0, 12), 'server.']) {
      expect(await dig('asks', name, 'A'), name).toEqual([v4]);
      expect(await dig('asks', name, 'AAAA'), name).toEqual([v6]);
    }
    expect((await dig('asks', '-x', v4))[0]).toMatch(/^server\./);
    expect((await dig('asks', '-x', v6))[0]).toMatch(/^server\./);
    expect(await dig('asks', '+tcp', 'server', 'A')).toEqual([v4]);
    expect(await dig('asks', '+bufsize=4096', '+dnssec', 'server', 'A')).toEqual([v4]);
    expect(await dig('asks', '+noedns', 'server', 'A')).toEqual([v4]);
    // a name that is there has no error, whatever type is asked for
    expect([await status('asks', 'server', 'MX'), await dig('asks', 'server', 'MX')]).toEqual(['NOERROR', []]);
    // and programs find it
    expect(await engine.ok('exec', 'asks', 'ping', '-c', '1', '-W', '2', 'db')).toMatch(/1 packets received/);
    expect(await engine.ok('exec', 'asks', 'sh', '-c', 'echo x | nc -w 2 server 80')).toMatch(/ server\n/);
  });
  asks('of several containers with one alias are all of them, and go with them', async () => {
    for (const name of ['r1', 'r2', 'r3']) await engine.ok('run', '-d', '--name', name, '--network', 'front', '--network-alias', 'replica', 'net');
    const all = (await Promise.all(['r1', 'r2', 'r3'].map((name) => addressOf(engine, name, 'front')))).sort();
    expect(await dig('asks', 'replica', 'A')).toEqual(all);
    await engine.ok('stop', '-t', '0', 'r2');
    expect((await dig('asks', 'replica', 'A')).length).toBe(2);
    await engine.ok('rm', '-f', 'r1', 'r3');
    await until('the name to be gone', async () => (await dig('asks', 'replica', 'A')).length === 0);
    await engine.ok('start', 'r2');
    expect(await dig('asks', 'replica', 'A')).toEqual([await addressOf(engine, 'r2', 'front')]);
  });
  asks('are known only on the networks that they are on', async () => {
    await engine.ok('run', '-d', '--name', 'hidden', '--network', 'back', 'net');
    await engine.ok('run', '-d', '--name', 'both', '--network', 'front', '--network', 'back', 'net');
    expect(await dig('asks', 'hidden', 'A')).toEqual([]);
    expect(await dig('asks', 'both', 'A')).toEqual([await addressOf(engine, 'both', 'front')]);
    expect(await dig('both', 'hidden', 'A')).toEqual([await addressOf(engine, 'hidden', 'back')]);
    // asked of the other network's gateway: not a word
    const { Gateway } = await endpointOf(engine, 'hidden', 'back');
    expect(await inNetworkOf(engine, 'asks', 'dig', `@${Gateway}`, '+short', '+tries=1', '+time=1', 'hidden', 'A').catch(() => '')).not.toMatch(/^10\./m);
  });
  asks('follow connect and disconnect of what runs', async () => {
    await engine.ok('run', '-d', '--name', 'moves', '--network', 'back', 'net');
    await engine.ok('network', 'connect', '--alias', 'guest', 'front', 'moves');
    const address = await addressOf(engine, 'moves', 'front');
    expect([await dig('asks', 'moves', 'A'), await dig('asks', 'guest', 'A')]).toEqual([[address], [address]]);
    await engine.ok('network', 'disconnect', 'front', 'moves');
    expect([await dig('asks', 'moves', 'A'), await dig('asks', 'guest', 'A')]).toEqual([[], []]);
  });
  asks('of the predefined network there are none, as with Docker', async () => {
    await engine.ok('run', '-d', '--name', 'plain', 'net');
    await engine.ok('run', '-d', '--name', 'plain2', 'net');
    expect(await engine.ok('exec', 'plain', 'cat', '/etc/resolv.conf')).toContain('nameserver 192.0.2.2\n');
    expect((await engine.run(['exec', 'plain', 'ping', '-c', '1', '-W', '1', 'plain2'])).code).not.toBe(0);
  });
});

describe('other names', () => {
  asks('are asked of the host\'s resolvers, with every type, and only those that are not ours', async () => {
    const asked = await peer.serveNames({ address: peer.address, records });
    await engine.ok('run', '-d', '--name', 'server', '--network', 'front', 'net');
    expect(await dig('asks', 'one.example', 'A')).toEqual(['192.0.2.100']);
    expect(await dig('asks', 'one.example', 'AAAA')).toEqual(['2001:db8::100']);
    expect(await dig('asks', 'one.example', 'TXT')).toEqual(['"text"']);
    expect(await status('asks', 'nobody.example', 'A')).toBe('NXDOMAIN');
    expect(await dig('asks', 'server', 'A')).toEqual([await addressOf(engine, 'server', 'front')]);
    expect(asked.stdout).not.toMatch(/^\w+ server /m);
    // too long for a datagram: by TCP, to the end
    expect((await dig('asks', 'long.example', 'TXT')).length).toBe(12);
    expect((await dig('asks', '+tcp', 'long.example', 'TXT')).length).toBe(12);
    // search domains of the host
    expect(await engine.ok('exec', 'asks', 'cat', '/etc/resolv.conf')).toMatch(/^search example\.test$/m);
    expect(await engine.ok('exec', 'asks', 'nslookup', 'search')).toContain('192.0.2.101');
  });
  asks.each(['silent', 'refuse', 'servfail', 'lie', 'absent'] as const)('are asked of the second resolver when the first one is %s', async (mode) => {
    if (mode !== 'absent') await peer.serveNames({ address: peer.address, records, mode });
    await second.serveNames({ address: second.address, records });
    expect(await dig('asks', '+time=8', 'one.example', 'A')).toEqual(['192.0.2.100']);
  });
  asks('that come truncated are asked for by TCP', async () => {
    const asked = await peer.serveNames({ address: peer.address, records, mode: 'truncate' });
    expect(await dig('asks', 'one.example', 'A')).toEqual(['192.0.2.100']);
    expect(asked.stdout).toContain('A one.example tcp');
  });
  asks('with no resolver at all end in an error, soon', async () => {
    expect(await status('asks', '+time=15', 'one.example', 'A')).toBe('SERVFAIL');
  });
  asks('--dns, --dns-search and --dns-option are the container\'s own', async () => {
    await second.serveNames({ address: second.address, records: { 'mine.example': { A: ['192.0.2.77'] } } });
    await peer.serveNames({ address: peer.address, records });
    await engine.ok('run', '-d', '--name', 'own', '--network', 'front', '--dns', second.address, '--dns-search', 'mine', '--dns-option', 'ndots:3', 'net');
    expect(await dig('own', 'mine.example', 'A')).toEqual(['192.0.2.77']);
    expect(await status('own', 'one.example', 'A')).toBe('NXDOMAIN');
    expect(await engine.ok('exec', 'own', 'cat', '/etc/resolv.conf')).toMatch(/search mine[^]*ndots:3|ndots:3[^]*search mine/);
    expect(await dig('asks', 'mine.example', 'A')).toEqual([]);
  });
  asks('do not go round: a host whose resolver is the gateway itself is no loop', async () => {
    const { Gateway } = await endpointOf(engine, 'asks', 'front');
    await engine.ok('run', '-d', '--name', 'loops', '--network', 'front', '--dns', Gateway, 'net');
    expect(await status('loops', '+time=15', 'nobody.example', 'A')).toMatch(/SERVFAIL|REFUSED|NXDOMAIN/);
    expect(await dig('loops', 'asks', 'A')).toEqual([await addressOf(engine, 'asks', 'front')]);
  });
  asks('are not answered to other hosts', async () => {
    const { Gateway } = await endpointOf(engine, 'asks', 'front');
    for (const to of [Gateway, peer.machine]) expect((await peer.exec(['dig', `@${to}`, '+short', '+tries=1', '+time=1', 'asks', 'A'])).code).not.toBe(0);
  });
});

describe('whoever answers', () => {
  asks('survives the end of engined; killed itself it is back within one retry', { timeout: 240_000 }, async () => {
    await engine.ok('run', '-d', '--name', 'server', '--network', 'front', 'net');
    const address = await addressOf(engine, 'server', 'front');
    const once = (): Promise<string[]> => dig('asks', '+tries=2', '+time=5', 'server', 'A');
    await engine.stopEngined('SIGKILL');
    expect(await once()).toEqual([address]);
    await engine.startEngined();
    const [engined] = [engine.engined];
    for (let round = 0; round < 3; round++) {
      const keeper = await until('the keeper', () => engine.keeper);
      process.kill(keeper, 'SIGKILL');
      expect(await once(), `round ${round}`).toEqual([address]);
      expect(await until('the next keeper', () => (engine.keeper === keeper ? undefined : engine.keeper))).not.toBe(keeper);
    }
    expect(engine.engined).toBe(engined);
  });
  asks('answers many at once, and what is no question does not harm it', { timeout: 240_000 }, async () => {
    await engine.ok('run', '-d', '--name', 'server', '--network', 'front', 'net');
    const address = await addressOf(engine, 'server', 'front');
    const keeper = engine.keeper;
    const server = (await endpointOf(engine, 'asks', 'front')).Gateway;
    await inNetworkOf(engine, 'asks', 'sh', '-c', `for i in $(seq 200); do head -c $((i * 7 % 600 + 1)) /dev/urandom | timeout 1 socat -u - UDP4:${server}:53 || true; done`);
    await inNetworkOf(engine, 'asks', 'sh', '-c', `for i in 1 2 3 4 5 6 7 8; do head -c 5000 /dev/urandom | timeout 1 socat -u - TCP4:${server}:53 2>/dev/null || true; done`);
    const answers = await Promise.all(Array.from({ length: 30 }, () => dig('asks', 'server', 'A')));
    expect(new Set(answers.flat())).toEqual(new Set([address]));
    expect(engine.keeper).toBe(keeper);
  });
});
