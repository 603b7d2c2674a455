import assert from 'node:assert/strict';
import { cutEverywhere } from '../common/checks.ts';
import { apply, type SuiteCase } from '../common/suite.ts';
import { type FirewallContext, type PacketHost } from './suite.ts';
import { type BoundPort } from '../network/records.ts';

const port = (hostPort: number, more: Partial<BoundPort> = {}): BoundPort => ({ protocol: 'tcp', hostAddress: '0.0.0.0', hostPort, containerPort: 80, ...more });
const needs = ['packets', 'ports'];
/** IPv4 and IPv6 of a host. */
const both = ({ addresses }: PacketHost): [string, string] => [addresses[0] ?? '', addresses[1] ?? ''];
/** The whole ruleset, so that what is left over is seen. Counters and handles aside. */
const rules = async (host: PacketHost): Promise<string> => {
  const text = await host.sh('nft -s list ruleset; iptables-legacy-save 2>/dev/null | grep "^-A" || true');
  // the guard is there while a service runs; elements come in any order
  return text.replace(/^table inet \S+-guard \{[^]*?^\}\n?/gm, '').replace(/elements = \{([^}]*)\}/g, (_, list: string) => list.split(',').map((element) => element.trim()).sort().join('\n')).trim();
};

/** What packets meet. */
export const packetCases: readonly SuiteCase<FirewallContext>[] = [
  {
    name: 'what is there is not made again, and removal is complete, twice too',
    needs,
    async run(c) {
      const before = await rules(c.world.machine);
      const files = c.files().filter((path) => path.includes('/'));
      const [one, two] = [c.network(1), c.network(2)];
      for (const network of [one, two]) {
        assert.notDeepEqual(await c.driver.ensure(network), []);
        await c.ensure(network);
        assert.deepEqual(await c.driver.ensure(network), []);
      }
      assert.deepEqual(await c.driver.ensure(one), []);
      for (const network of [one, two, two]) await c.remove(network);
      assert.equal(await rules(c.world.machine), before);
      assert.deepEqual(c.files().filter((path) => path.includes('/')), files);
    },
  },
  {
    name: 'of two networks that come up at the same time both are there',
    needs,
    async run(c) {
      const [one, two] = [c.network(1), c.network(2)];
      const plans = [await c.driver.ensure(one), await c.driver.ensure(two)];
      for (const plan of plans) await apply(c.bench, plan);
      for (const network of [one, two]) assert.deepEqual(await c.driver.ensure(network), []);
    },
  },
  {
    name: 'cut anywhere, the rules of a network are there whole or not at all, and others\' stay',
    needs: [...needs, 'faults'],
    async run(c) {
      const [one, two] = [c.network(1), c.network(2)];
      for (const prepared of [false, true]) {
        if (prepared) await c.ensure(one);
        const before = await rules(c.world.machine);
        for (const kind of ['fail', 'die'] as const) {
          await cutEverywhere(c.bench, kind, {
            async verb(effects) {
              await effects.run(await c.driver.ensure(two));
              await effects.commit();
            },
            async check(at) {
              assert.equal(await rules(c.world.machine), before, `${kind} at ${at}`);
            },
          });
          await c.remove(two);
          assert.equal(await rules(c.world.machine), before);
        }
      }
      assert.deepEqual(await c.driver.ensure(one), []);
    },
  },
  {
    name: 'containers reach the world, which sees the machine; and nobody from there reaches them',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1);
      const container = await c.setUp(network);
      await peer.serve('tcp/80', 'udp/53');
      await machine.serve('tcp/81');
      for (const [i, address] of both(peer).entries()) {
        assert.equal((await container.ask('tcp', address, 80))?.client, machine.addresses[i]);
        assert.equal((await container.ask('udp', address, 53))?.client, machine.addresses[i]);
        // a neighbour that routes the subnet through this host
        assert.equal(await peer.ask('tcp', both(container)[i] ?? '', 80), undefined);
        assert.equal(await peer.ask('udp', both(container)[i] ?? '', 53), undefined);
        // the host itself may, and so may the container
        assert.equal((await machine.ask('tcp', both(container)[i] ?? '', 80))?.client, network.gateways[i]);
        assert.equal((await container.ask('tcp', network.gateways[i] ?? '', 81))?.client, both(container)[i]);
      }
    },
  },
  {
    name: 'without masquerade the world sees the container',
    needs,
    async run(c) {
      const container = await c.setUp(c.network(1, { masquerade: false }));
      await c.world.peer.serve('tcp/80');
      assert.equal((await container.ask('tcp', both(c.world.peer)[0], 80))?.client, both(container)[0]);
    },
  },
  {
    name: 'networks are kept apart, but for those that are both not isolated',
    needs,
    async run(c) {
      const networks = [c.network(1), c.network(2), c.network(3, { isolated: false }), c.network(4, { isolated: false })];
      const containers: PacketHost[] = [];
      for (const network of networks) containers.push(await c.setUp(network));
      const [one, two, three, four] = containers as [PacketHost, PacketHost, PacketHost, PacketHost];
      for (const i of [0, 1] as const) {
        for (const [from, to] of [[one, two], [two, one], [one, three], [three, one]] as const) assert.equal(await from.ask('tcp', both(to)[i], 80), undefined);
        assert.equal((await three.ask('tcp', both(four)[i], 80))?.client, both(three)[i]);
        assert.equal((await four.ask('udp', both(three)[i], 53))?.client, both(four)[i]);
      }
      // within a network they talk
      const neighbour = await c.world.addContainer(networks[0] as never, 'neighbour', ['10.77.1.3', 'fd77:1::3']);
      assert.equal((await neighbour.ask('tcp', both(one)[0], 80))?.client, '10.77.1.3');
    },
  },
  {
    name: 'an internal network has no way out and none in, and works inside',
    needs,
    async run(c) {
      const network = c.network(1, { internal: true });
      const inside = await c.setUp(network);
      const other = await c.setUp(c.network(2, { isolated: false }));
      const neighbour = await c.world.addContainer(network, 'neighbour', ['10.77.1.3', 'fd77:1::3']);
      await c.world.peer.serve('tcp/80');
      for (const i of [0, 1] as const) {
        assert.equal(await inside.ask('tcp', both(c.world.peer)[i], 80), undefined);
        assert.equal(await c.world.peer.ask('tcp', both(inside)[i], 80), undefined);
        assert.equal(await inside.ask('tcp', both(other)[i], 80), undefined);
        assert.equal(await other.ask('tcp', both(inside)[i], 80), undefined);
        assert.equal((await neighbour.ask('tcp', both(inside)[i], 80))?.server, 'net1');
      }
    },
  },
  {
    name: 'a published port is reached by everyone, and the container sees who asks',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1);
      const container = await c.setUp(network);
      const other = await c.setUp(c.network(2));
      const neighbour = await c.world.addContainer(network, 'neighbour', ['10.77.1.3', 'fd77:1::3']);
      const published = await c.publish(network, ['0.0.0.0', '::'].flatMap((hostAddress) => [port(8080, { hostAddress }), port(5353, { hostAddress, protocol: 'udp', containerPort: 53 })]));
      for (const i of [0, 1] as const) {
        const address = both(machine)[i];
        for (const [protocol, number] of [['tcp', 8080], ['udp', 5353]] as const) {
          const ask = async (from: PacketHost, to = address): Promise<string | undefined> => (await from.ask(protocol, to, number))?.client;
          assert.equal(await ask(peer), both(peer)[i], `${protocol} from another host`);
          assert.equal(await ask(machine), address, `${protocol} from the host's own address`);
          assert.equal(await ask(other), both(other)[i], `${protocol} from another network`);
          assert.equal(await ask(neighbour), network.gateways[i], `${protocol} from the same network`);
          assert.equal(await ask(container), network.gateways[i], `${protocol} from itself`);
          assert.equal(await ask(other, network.gateways[i]), both(other)[i], `${protocol} through a gateway's address`);
        }
        // by its own address it is still not reached
        assert.equal(await peer.ask('tcp', both(container)[i], 80), undefined);
      }
      assert.equal((await machine.ask('tcp', '127.0.0.1', 8080))?.client, network.gateways[0]);
      assert.equal((await machine.ask('udp', '127.0.0.1', 5353))?.client, network.gateways[0]);
      await published.undo();
      await published.undo();
      for (const i of [0, 1] as const) assert.equal(await peer.ask('tcp', both(machine)[i], 8080), undefined);
    },
  },
  {
    name: 'on one address of the host it is published there alone',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1);
      await c.setUp(network);
      await machine.sh('ip address add 192.0.2.200/32 dev lo');
      await c.publish(network, [port(8080, { hostAddress: '192.0.2.200' }), port(8081, { hostAddress: both(machine)[1] })]);
      assert.equal((await peer.ask('tcp', '192.0.2.200', 8080))?.client, both(peer)[0]);
      assert.equal(await peer.ask('tcp', both(machine)[0], 8080), undefined);
      assert.equal((await peer.ask('tcp', both(machine)[1], 8081))?.client, both(peer)[1]);
      assert.equal(await peer.ask('tcp', both(machine)[0], 8081), undefined);
    },
  },
  {
    name: 'on 127.0.0.1 it is reached from the host alone, whatever a neighbour sends (CVE-2020-8558)',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1);
      const container = await c.setUp(network);
      const other = await c.setUp(c.network(2));
      await machine.serve('tcp/7000@127.0.0.1');
      await c.publish(network, [port(8080, { hostAddress: '127.0.0.1' })]);
      assert.equal((await machine.ask('tcp', '127.0.0.1', 8080))?.client, network.gateways[0]);
      assert.equal(await peer.ask('tcp', both(machine)[0], 8080), undefined);
      // the kernel takes 127/8 from a wire with route_localnet, which other software switches on
      await machine.sh('echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet');
      for (const [host, gateway] of [[peer, both(machine)[0]], [container, network.gateways[0] ?? ''], [other, '10.77.2.1']] as const) {
        await host.sh(`echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip route del table local 127.0.0.0/8 dev lo || true; ip address del 127.0.0.1/8 dev lo || true; ip route add 127.0.0.0/8 via ${gateway}`);
        assert.equal(await host.ask('tcp', '127.0.0.1', 8080), undefined);
        assert.equal(await host.ask('tcp', '127.0.0.1', 7000), undefined);
      }
    },
  },
  {
    name: 'what a container sends with a foreign address gets nowhere',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1);
      const server = await c.setUp(network);
      const attacker = await c.setUp(c.network(2));
      await c.publish(network, ['0.0.0.0', '::'].map((hostAddress) => port(5353, { hostAddress, protocol: 'udp', containerPort: 53 })));
      const received = async (): Promise<string[]> => [...(await server.sh('cat /proc/net/snmp /proc/net/snmp6')).matchAll(/^(?:Udp: \d+|Udp6InDatagrams.*)/gm)].map(([line]) => line);
      for (const i of [0, 1] as const) {
        const to = both(machine)[i];
        assert.equal((await attacker.ask('udp', to, 5353))?.server, 'net1');
        const before = await received();
        for (const source of [both(peer)[i], i ? '2001:db8:ffff::1' : '198.51.100.1', c.network(1).gateways[i] ?? '', both(server)[i]]) {
          await attacker.sh(`ip address add ${source}/${i ? '128 dev eth0 nodad' : '32 dev eth0'}`);
          assert.equal(await attacker.ask('udp', to, 5353, { source }), undefined);
          await attacker.sh(`ip address del ${source}/${i ? 128 : 32} dev eth0`);
        }
        assert.deepEqual(await received(), before);
      }
    },
  },
  {
    name: 'an internal network does not reach a port that the held socket relays, whichever of the two comes first',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1, { subnets: ['10.77.1.0/24'], gateways: ['10.77.1.1'] });
      await c.setUp(network);
      // in the place of the relay
      await machine.serve('tcp/8080', 'tcp/8081', 'udp/8081', 'tcp/8082');
      const whole = await rules(machine);
      const first = await c.publish(network, [port(8080, { hostAddress: '::' })]);
      const inner = c.network(2, { internal: true });
      const inside = await c.setUp(inner);
      const second = await c.publish(network, [port(8081, { hostAddress: '::' }), port(8081, { hostAddress: '::', protocol: 'udp' }), port(8082, { hostAddress: both(machine)[1] })]);
      const gateway = inner.gateways[1] ?? '';
      const ask = async (protocol: 'tcp' | 'udp', number: number, to = gateway): Promise<string | undefined> => (await inside.ask(protocol, to, number))?.server;
      assert.equal(await ask('tcp', 8082), 'machine', 'published on another address');
      assert.equal(await ask('tcp', 8080), undefined);
      assert.equal(await ask('tcp', 8081), undefined);
      assert.equal(await ask('udp', 8081), undefined);
      for (const number of [8080, 8081, 8082]) {
        assert.equal(await ask('tcp', number, both(machine)[1]), undefined);
        assert.equal((await peer.ask('tcp', both(machine)[1], number))?.server, 'machine');
      }
      assert.deepEqual(await c.driver.ensure(inner), []);
      await first.undo();
      assert.equal(await ask('tcp', 8080), 'machine');
      assert.equal(await ask('tcp', 8081), undefined);
      await c.remove(inner);
      await second.undo();
      await second.undo();
      assert.equal(await rules(machine), whole);
    },
  },
  {
    name: 'a client that sent datagrams before is served by the container from then on, and by nobody afterwards',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1);
      await c.setUp(network);
      await machine.serve('udp/5353');
      await c.publish(network, [port(1, { protocol: 'udp' })]);
      const ask = async (): Promise<string | undefined> => (await peer.ask('udp', both(machine)[0], 5353, { source: both(peer)[0] }))?.server;
      assert.equal(await ask(), 'machine');
      const published = await c.publish(network, [port(5353, { protocol: 'udp', containerPort: 53 })]);
      assert.equal(await ask(), 'net1');
      await published.undo();
      assert.equal(await ask(), 'machine');
    },
  },
  {
    name: 'a port that a dead run left behind is given to the next',
    needs: [...needs, 'restore'],
    async run(c) {
      const network = c.network(1);
      await c.setUp(network);
      const next = await c.world.addContainer(network, 'next', ['10.77.1.9']);
      await next.serve('tcp/80');
      await c.publish(network, [port(8080)]);
      await c.publish(network, [port(8080)], ['10.77.1.9']);
      assert.equal((await c.world.peer.ask('tcp', both(c.world.machine)[0], 8080))?.server, 'next');
    },
  },
  {
    name: 'another firewall that drops what is forwarded lets our networks pass, and has nothing of ours afterwards',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      await machine.sh(`iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
        nft 'table inet other { chain forward { type filter hook forward priority 10; ct state established accept; iifname "nothing" accept; reject; }; chain input { type filter hook input priority 0; policy drop; ct state established,related accept; icmpv6 type != 1 accept; iifname "lo" accept; }; }'`);
      const before = await rules(machine);
      const network = c.network(1);
      const container = await c.setUp(network);
      await machine.serve('udp/53', 'tcp/53', 'tcp/82');
      await peer.serve('tcp/80');
      const published = await c.publish(network, [port(8080), port(8080, { hostAddress: '::' })]);
      for (const i of [0, 1] as const) {
        assert.equal((await peer.ask('tcp', both(machine)[i], 8080))?.client, both(peer)[i]);
        assert.equal((await container.ask('tcp', both(peer)[i], 80))?.client, both(machine)[i]);
        assert.equal((await container.ask('udp', network.gateways[i] ?? '', 53))?.server, 'machine');
        assert.equal((await container.ask('tcp', network.gateways[i] ?? '', 53))?.server, 'machine');
        assert.equal(await container.ask('tcp', network.gateways[i] ?? '', 82), undefined);
        assert.equal(await peer.ask('tcp', both(container)[i], 80), undefined);
      }
      assert.deepEqual(await c.driver.ensure(network), []);
      await published.undo();
      await c.remove(network);
      assert.equal(await rules(machine), before);
    },
  },
  {
    name: 'another firewall that comes later is told at the next start',
    needs,
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1);
      await c.setUp(network);
      await c.publish(network, [port(8080)]);
      await machine.sh('iptables -P FORWARD DROP');
      assert.equal(await peer.ask('tcp', both(machine)[0], 8080), undefined);
      await c.ensure(network);
      assert.equal((await peer.ask('tcp', both(machine)[0], 8080))?.client, both(peer)[0]);
      assert.deepEqual(await c.driver.ensure(network), []);
    },
  },
  {
    name: 'a flushed ruleset is put back, and what is connected stays connected',
    needs: [...needs, 'restore', 'service'],
    async run(c) {
      const { machine, peer } = c.world;
      const network = c.network(1);
      const container = await c.setUp(network);
      await c.setUp(c.network(2));
      await peer.serve('tcp/80');
      await c.publish(network, [port(8080), port(8080, { hostAddress: '::' }), ...both(machine).map((hostAddress) => port(8081, { hostAddress, protocol: 'udp' })), port(8082, { protocol: 'sctp' })]);
      const whole = await rules(machine);
      const service = await c.service();
      try {
        const held = await Promise.all([...both(machine).map((address) => peer.hold(address, 8080)), machine.hold('127.0.0.1', 8080), ...both(peer).map((address) => container.hold(address, 80))]);
        const changes = [
          'nft flush ruleset', `nft delete table inet ${c.bench.deps.instance}`, `nft flush table inet ${c.bench.deps.instance}`, 'nft flush ruleset; nft flush ruleset; nft flush ruleset', 'iptables -F; iptables -P FORWARD ACCEPT; nft flush ruleset',
        ];
        for (const [n, change] of changes.entries()) {
          await machine.sh(change);
          for (const connection of held) await connection.echo(`line ${n}`);
          for (let tries = 0; (await rules(machine)).replace(/^table ip6? filter \{[^]*?^\}\n?/gm, '').trim() !== whole; tries++) {
            assert.ok(tries < 100, `after ${change}:\n${await rules(machine)}`);
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
          for (const address of both(machine)) assert.ok(await peer.ask('tcp', address, 8080), change);
        }
        // a firewall that is started, or loads its rules again
        await machine.sh('iptables -P FORWARD DROP');
        for (let tries = 0; !(await peer.ask('tcp', both(machine)[0], 8080)); tries++) assert.ok(tries < 10);
        for (const connection of held) await connection.echo('last');
        for (const connection of held) await connection.close();
      } finally {
        await service.stop();
      }
      assert.deepEqual((await machine.sh('nft list tables')).split('\n').filter((line) => line.includes('guard')), []);
    },
  },
  {
    name: 'why says who reaches a port, by which rule, and what is in the way',
    needs,
    async run(c) {
      const { machine } = c.world;
      const network = c.network(1);
      await c.setUp(network);
      const ports = [port(8080), port(8081, { hostAddress: '127.0.0.1' }), port(8082, { hostAddress: '203.0.113.9' }), port(8083, { hostAddress: '::' })];
      const { endpoint, undo } = await c.publish(network, ports);
      const lines = await Promise.all(ports.map(async (binding) => (await c.driver.why(binding, endpoint, network)).join('\n')));
      assert.match(lines[0] ?? '', new RegExp(`everyone[^]*${both(machine)[0].replaceAll('.', '\\.')}`));
      assert.match(lines[1] ?? '', /this host only/);
      assert.match(lines[2] ?? '', /nobody[^]*203\.0\.113\.9/);
      assert.match(lines[3] ?? '', /::1 of this host/);
      await undo();
      assert.notEqual((await c.driver.why(ports[0] as BoundPort, endpoint, network)).join('\n'), lines[0]);
      await machine.sh('echo 0 >/proc/sys/net/ipv4/ip_forward; iptables -P FORWARD DROP');
      assert.match((await c.driver.why(ports[0] as BoundPort, endpoint, network)).join('\n'), /ip_forward[^]*FORWARD/);
    },
  },
];
