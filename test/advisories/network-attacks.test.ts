/** What a container tries that may change its own network, or sends what it likes (NET_RAW is a default capability): other networks and the host's relays stay out of its reach. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type TestEngine } from '../helpers/engine.ts';
import { importNet, netProgram } from '../helpers/net.ts';
import { addressOf, address6Of, endpointOf, inNetworkOf, inspectNetwork, serve } from '../helpers/networks.ts';
import { missingPeers } from '../helpers/peers.ts';
import { makeWorld, type Host, type World } from '../helpers/world.ts';

const DRIVERS = [
  { name: 'nftables', config: 'drivers: { firewall: nftables }\n', programs: ['nft'] },
  ...['nft', 'legacy'].map((variant) => ({
    name: `iptables (${variant})`, config: `drivers: { firewall: iptables }\noptions: { firewall-iptables: { variant: ${variant} } }\n`, programs: [`iptables-${variant}-restore`, `ip6tables-${variant}-restore`],
  })),
];

describe.each(DRIVERS.map((driver) => ({ ...driver, missing: missingPeers(...driver.programs) })))('$name', ({ name, config, missing }) => {
  describe.skipIf(missing.length > 0)(missing.length ? `missing: ${missing.join(', ')}` : 'keeps apart', () => {
    let world: World;
    let engine: TestEngine;
    let peer: Host;
    beforeAll(async () => {
      world = await makeWorld({ hosts: ['peer'] });
      engine = world.engine({ config });
      peer = world.host('peer');
      await importNet(engine);
    });
    afterEach(async () => {
      await engine.removeContainers();
      await engine.ok('network', 'prune', '-f');
    });
    afterAll(async () => {
      // iptables: the base chains and the default network stay; a published port does not
      expect((await world.close()).filter((line) => !name.startsWith('iptables') || !/^(?:nft ip6? (?:raw|mangle|filter|nat)|ip6?tables-legacy-save) /.test(line) || /\bE[0-9a-f]{8}-/.test(line))).toEqual([]);
    });
    /** What becomes of a call from a container, also where it fails. */
    const ask = (container: string, protocol: 'tcp' | 'udp', address: string, port: number, ...flags: string[]): Promise<string> =>
      inNetworkOf(engine, container, 'sh', '-c', `${netProgram()} call -t 700 ${flags.join(' ')} ${protocol} ${address} ${port} ${protocol === 'udp' ? 'x' : ''} 2>&1 || true`);
    const received = async (container: string): Promise<number> => Number(/^Udp: (\d+)/m.exec(await inNetworkOf(engine, container, 'cat', '/proc/net/snmp'))?.[1]);

    describe('an internal network', () => {
      it('has no way to the published ports of others through the socket that relays IPv6', async () => {
        await engine.ok('network', 'create', 'plain');
        await engine.ok('network', 'create', '--internal', '--ipv6', 'inner');
        await serve(engine, 'server', ['--network', 'plain', '-p', '8080:80', '-p', '8080:80/udp', '-p', `[${peer.machine6}]:8081:80`], 'tcp/80', 'udp/80');
        await engine.ok('run', '-d', '--name', 'inside', '--network', 'inner', '--cap-add', 'NET_ADMIN', 'net');
        const gateway = (await inspectNetwork(engine, 'inner')).IPAM.Config.map(({ Gateway = '' }) => Gateway).find((address) => address.includes(':')) ?? '';
        await inNetworkOf(engine, 'inside', 'ip', '-6', 'route', 'add', 'default', 'via', gateway);
        for (const [protocol, to, port] of [['tcp', gateway, 8080], ['tcp', peer.machine6, 8080], ['tcp', peer.machine6, 8081], ['udp', gateway, 8080]] as const) expect(await ask('inside', protocol, to, port), `${protocol} ${to} ${port}`).toMatch(/ETIMEDOUT$/);
        // others are served as before
        expect(await peer.call('tcp', peer.machine6, 8080)).toMatch(/ server$/);
        expect(await peer.call('tcp', peer.machine6, 8081)).toMatch(/ server$/);
      });
    });

    describe('icc=false', () => {
      it.each(['true', 'false'])('is not got around by way of the gateway, not even by two who want to; isolated=%s', async (isolated) => {
        await engine.ok('network', 'create', '--ipv6', '-o', 'icc=false', '-o', `isolated=${isolated}`, 'apart');
        for (const name of ['one', 'two']) await serve(engine, name, ['--network', 'apart', '--cap-add', 'NET_ADMIN'], 'tcp/80', 'udp/80');
        for (const [from, to] of [['one', 'two'], ['two', 'one']] as const) {
          const { Gateway, IPv6Gateway } = await endpointOf(engine, from, 'apart');
          await inNetworkOf(engine, from, 'ip', 'route', 'add', `${await addressOf(engine, to, 'apart')}/32`, 'via', Gateway);
          await inNetworkOf(engine, from, 'ip', '-6', 'route', 'add', `${await address6Of(engine, to, 'apart')}/128`, 'via', IPv6Gateway);
        }
        for (const address of [await addressOf(engine, 'two', 'apart'), await address6Of(engine, 'two', 'apart')]) for (const protocol of ['tcp', 'udp'] as const) expect(await ask('one', protocol, address, 80), `${protocol} ${address}`).not.toMatch(/ two/);
        expect(await received('two')).toBe(0);
      });
    });

    describe('a foreign address', () => {
      it('is nobody\'s to send from: no published port hears of a client that is not there', async () => {
        for (const name of ['front', 'back']) await engine.ok('network', 'create', '--ipv6', name);
        await serve(engine, 'server', ['--network', 'back', '-p', '8080:80/udp'], 'udp/80');
        await engine.ok('run', '-d', '--name', 'attacker', '--network', 'front', '--cap-add', 'NET_ADMIN', 'net');
        expect(await ask('attacker', 'udp', peer.machine, 8080)).toMatch(/ server/);
        const before = await received('server');
        for (const source of [peer.address, '198.51.100.1', '127.0.0.2', peer.machine, await addressOf(engine, 'server', 'back'), (await endpointOf(engine, 'server', 'back')).Gateway]) {
          await inNetworkOf(engine, 'attacker', 'sh', '-c', `ip address add ${source}/32 dev eth0 2>/dev/null || true`);
          if (source !== peer.machine) await ask('attacker', 'udp', peer.machine, 8080, '-s', source);
          await inNetworkOf(engine, 'attacker', 'sh', '-c', `ip address del ${source}/32 dev eth0 2>/dev/null || true`);
        }
        expect(await received('server')).toBe(before);
      });
    });

    describe('a user of the machine', () => {
      it('can neither read nor change what the services work from', async () => {
        await serve(engine, 'server', ['-p', '8080:80'], 'tcp/80');
        const paths = readdirSync(engine.runRoot, { recursive: true, encoding: 'utf8' }).filter((path) => /^(dns-local|firewall-|keeper)/.test(path));
        expect(paths.length).toBeGreaterThan(4);
        for (const path of ['.', ...paths]) {
          const stat = statSync(join(engine.runRoot, path), { throwIfNoEntry: false });
          if (stat) expect([path, stat.mode & 0o077, stat.uid]).toEqual([path, 0, process.getuid?.()]);
        }
      });
    });
  });
});
