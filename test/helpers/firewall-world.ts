import { closeSync, openSync } from 'node:fs';
import { defineLibrary } from '@engine/native';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { type PacketHost, type PacketWorld } from '@engine/core/contracts/firewall/suite';
import { makeWorld, Namespace, type Host } from './world.ts';

const CLONE_NEWNET = 0x40000000;
const libc = defineLibrary(['libc.so.6', 'libc.musl-x86_64.so.1', 'libc.musl-aarch64.so.1'], { setns: { args: ['int', 'int'], result: 'int' } });

/** This thread, and all that it starts, into another net namespace. `back` returns. */
export function enterNetns(path: string): { back(): void } {
  const own = openSync('/proc/self/ns/net', 'r');
  const enter = (fd: number): void => {
    const { value, errno } = libc.setns(fd, CLONE_NEWNET);
    if (value !== 0) throw new Error(`setns: errno ${errno}`);
  };
  const target = openSync(path, 'r');
  try {
    enter(target);
  } finally {
    closeSync(target);
  }
  return {
    back() {
      enter(own);
      closeSync(own);
    },
  };
}

/** As the kernel writes it. */
const short = (address: string): string => address.replace(':0::', '::');

/** Duplicate address detection makes links of IPv6 wait for a second. */
const NO_DAD = 'for at in all default; do echo 0 >/proc/sys/net/ipv6/conf/$at/accept_dad; done';

class Box extends Namespace {
  static async make(name: string): Promise<Box> {
    return new Box(name, await Namespace.hold(false, NO_DAD), false);
  }
}
function packetHost(namespace: Namespace, addresses: readonly string[]): PacketHost {
  return {
    addresses,
    sh: (script) => namespace.sh(script),
    serve: async (...specs) => void (await namespace.serve(...specs)),
    async ask(protocol, address, port, options = {}) {
      const line = await namespace.call(protocol, address, port, { timeout: 700, ...options });
      const [client = '', , , , name = ''] = line.split('\n')[0]?.split(' ') ?? [];
      return /^[0-9a-f.:]+$/.test(client) && !client.endsWith(':') ? { client, server: name } : undefined;
    },
    async hold(address, port) {
      const connection = await namespace.hold(address, port);
      return { echo: (text) => connection.echo(text), close: () => connection.close() };
    },
  };
}

/**
 * A machine with a host beside it, for suites: this process is on that machine until `close`. Networks are made as a network driver makes them, containers are namespaces with
 * an interface on its bridge.
 */
export async function packetWorld(): Promise<PacketWorld> {
  const world = await makeWorld({ hosts: ['peer', 'other'] });
  const boxes: Box[] = [];
  const { machine } = world;
  const entered = enterNetns(`/proc/${machine.pid}/ns/net`);
  await machine.sh(`echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; ${NO_DAD}`);
  const beside = (host: Host): PacketHost => packetHost(host, [host.address, short(host.address6)]);
  const peer = world.host('peer');
  return {
    machine: packetHost(machine, [peer.machine, short(peer.machine6)]),
    peer: beside(peer),
    async addNetwork({ link, gateways, subnets }: FirewallNetwork) {
      await machine.sh(`ip link add ${link} type bridge; echo 1 >/proc/sys/net/ipv4/conf/${link}/route_localnet
        ${gateways.map((gateway, i) => `ip address add ${gateway}/${subnets[i]?.split('/')[1] ?? ''} dev ${link} ${gateway.includes(':') ? 'nodad' : ''}`).join('\n')}
        ip link set ${link} up`);
    },
    async addContainer({ link, gateways, subnets }, name, addresses) {
      const box = await Box.make(name);
      boxes.push(box);
      const host = `v${boxes.length}-${box.pid}`;
      await machine.sh(`ip link add ${host} type veth peer name eth0 netns ${box.pid}; ip link set ${host} master ${link} up; bridge link set dev ${host} hairpin on`);
      await box.sh(['ip link set eth0 up', ...addresses.map((address) => {
        const i = gateways.findIndex((gateway) => gateway.includes(':') === address.includes(':'));
        return `ip address add ${address}/${subnets[i]?.split('/')[1] ?? ''} dev eth0 ${address.includes(':') ? 'nodad' : ''}; ip route add default via ${gateways[i] ?? ''}`;
      })].join('\n'));
      return packetHost(box, addresses);
    },
    async close() {
      entered.back();
      for (const box of boxes) await box.end();
      // all of it goes with its namespaces, and what a suite leaves behind it looks at itself
      await world.mark();
      await world.close();
    },
  };
}
