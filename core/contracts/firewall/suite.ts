import assert from 'node:assert/strict';
import { listTree } from '../common/checks.ts';
import { type DriverDeps } from '../common/index.ts';
import { apply, applyOnCommit, type Bench, type Suite, type SuiteContext } from '../common/suite.ts';
import { type Step } from '../../plan/types.ts';
import { type BoundPort, type Endpoint } from '../network/records.ts';
import { type FirewallDriver, type FirewallNetwork } from './index.ts';
import { planCases } from './suite-plan.ts';
import { packetCases } from './suite-packets.ts';

export interface FirewallFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps): FirewallDriver;
  /** Gives ability `packets`: from then on, until its `close`, this process is on a machine with other hosts around it. Called before `bench`. */
  packets?(): Promise<PacketWorld>;
  /** With feature `restore`: the driver's service. */
  service?(deps: DriverDeps): Promise<{ stop(): Promise<void> }>;
}

/** Real hosts and packets, whatever makes them. */
export interface PacketWorld {
  readonly machine: PacketHost;
  /** Beside the machine, which is its default gateway. */
  readonly peer: PacketHost;
  /** What a network driver makes: the link, up, with the gateways' addresses, and route_localnet. */
  addNetwork(network: FirewallNetwork): Promise<void>;
  addContainer(network: FirewallNetwork, name: string, addresses: readonly string[]): Promise<PacketHost>;
  close(): Promise<void>;
}
export interface PacketHost {
  /** IPv4 first; of the machine: those that the peer knows it by. */
  readonly addresses: readonly string[];
  sh(script: string): Promise<string>;
  /** Servers that say who asks them: `tcp/80`, `udp/53@127.0.0.1`. */
  serve(...specs: string[]): Promise<void>;
  /** The client's address, as the server has it, and the server's name; undefined: nobody answers. */
  ask(protocol: 'tcp' | 'udp', address: string, port: number, options?: { readonly source?: string }): Promise<{ readonly client: string; readonly server: string } | undefined>;
  /** A TCP connection that stays; `echo` rejects when it has ended. */
  hold(address: string, port: number): Promise<{ echo(text: string): Promise<void>; close(): Promise<void> }>;
}

export class FirewallContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: FirewallDriver;
  readonly #factory: FirewallFactory;
  readonly #world: PacketWorld | undefined;
  #runs = 0;

  constructor(bench: Bench, factory: FirewallFactory, world: PacketWorld | undefined) {
    this.bench = bench;
    this.driver = factory.create(bench.deps);
    this.#factory = factory;
    this.#world = world;
  }
  has(need: string): boolean {
    if (need === 'packets') return this.#world !== undefined;
    if (need === 'service') return this.#factory.service !== undefined;
    return this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  get world(): PacketWorld {
    assert.ok(this.#world);
    return this.#world;
  }
  service(): Promise<{ stop(): Promise<void> }> {
    assert.ok(this.#factory.service);
    return this.#factory.service(this.bench.deps);
  }
  /** The nth network, with IPv4 10.77.n.0/24 and IPv6 fd77:n::/64. */
  network(n: number, more: Partial<FirewallNetwork> = {}): FirewallNetwork {
    return {
      id: String(n).repeat(64), name: `net${n}`, link: `en-suite${n}`, subnets: [`10.77.${n}.0/24`, `fd77:${n}::/64`], gateways: [`10.77.${n}.1`, `fd77:${n}::1`],
      internal: false, icc: true, isolated: true, masquerade: true, dns: true, ...more,
    };
  }
  async ensure(network: FirewallNetwork): Promise<void> {
    await apply(this.bench, await this.driver.ensure(network));
  }
  async remove(network: FirewallNetwork): Promise<void> {
    await applyOnCommit(this.bench, await this.driver.remove(network));
  }
  /** Link, rules and a container (`.2`) with servers on tcp/80 and udp/53. */
  async setUp(network: FirewallNetwork, name = network.name): Promise<PacketHost> {
    await this.world.addNetwork(network);
    await this.ensure(network);
    const container = await this.world.addContainer(network, name, network.gateways.map((gateway) => gateway.replace(/1$/, '2')));
    await container.serve('tcp/80', 'udp/53');
    return container;
  }
  endpoint(network: FirewallNetwork, ports: readonly BoundPort[], addresses = network.gateways.map((gateway) => gateway.replace(/1$/, '2'))): Endpoint {
    const run = String(++this.#runs).padStart(16, '0');
    return {
      container: 'c0ffee'.padEnd(64, '0'), run, network: network.id, interface: 'eth0', link: `v0-${run.slice(0, 12)}`, mac: '02:42:0a:4d:00:02', isDefault: true, aliases: [], options: {}, ports,
      addresses: addresses.map((address) => ({ family: address.includes(':') ? 6 : 4, address, prefix: address.includes(':') ? 64 : 24 })),
    };
  }
  plan(endpoint: Endpoint, network: FirewallNetwork): readonly Step[] {
    return this.driver.planPorts(endpoint, network, { ...this.bench.run, container: endpoint.container, run: endpoint.run });
  }
  /** What the shim does with these steps; `undo` as often as wanted. */
  async publish(network: FirewallNetwork, ports: readonly BoundPort[], addresses?: readonly string[]): Promise<{ readonly endpoint: Endpoint; undo(): Promise<void> }> {
    const endpoint = this.endpoint(network, ports, addresses && [...addresses]);
    const steps = this.plan(endpoint, network);
    await this.bench.operations(steps.map(({ operation }) => operation));
    return { endpoint, undo: () => this.bench.operations(steps.toReversed().flatMap(({ undo }) => undo)) };
  }
  files(): string[] {
    try {
      return listTree(this.bench.deps.serviceFolder);
    } catch {
      return [];
    }
  }
  async close(): Promise<void> {
    try {
      await this.bench.close();
    } finally {
      await this.#world?.close();
    }
  }
}


/** The conformance suite of contract `firewall`. */
export const firewallSuite: Suite<FirewallFactory, FirewallContext> = {
  contract: 'firewall',
  cases: [...planCases, ...packetCases],
  async open(factory) {
    const world = await factory.packets?.();
    try {
      return new FirewallContext(await factory.bench(), factory, world);
    } catch (error) {
      await world?.close();
      throw error;
    }
  },
};
