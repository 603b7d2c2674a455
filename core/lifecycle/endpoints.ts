import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { fail, isEngineError } from '../errors/index.ts';
import { type ContainerRecord, type EndpointWish } from '../api/index.ts';
import { type Effect } from '../plan/index.ts';
import { type Attachment } from '../hooks/index.ts';
import { type ContainerNames, type DnsDriver } from '../contracts/dns/index.ts';
import { type FirewallNetwork } from '../contracts/firewall/index.ts';
import { type BoundPort, type Endpoint, type EndpointAddress, type ManagedNetworks, type NetworkRecord } from '../contracts/network/index.ts';
import { type Contracts } from '../plugin/index.ts';
import { type Core } from './core.ts';
import { isGoing } from './finish.ts';
import { type ResolvedDriver } from './parts.ts';
import { choosePorts, wantedPorts, collides } from './ports.ts';

/** A network with the drivers that made it. */
export interface OpenNetwork {
  readonly record: NetworkRecord;
  readonly managed: ManagedNetworks;
  readonly network: ResolvedDriver<Contracts['network']>;
  readonly ipam: ResolvedDriver<Contracts['ipam']>;
  readonly firewall: ResolvedDriver<Contracts['firewall']>;
  readonly dns?: ResolvedDriver<Contracts['dns']>;
  /** As the firewall sees it. */
  readonly wall: FirewallNetwork;
}

/** Errors: ERR_PLUGIN_MISSING names what made it. */
export async function openNetwork({ registry }: Pick<Core, 'registry'>, record: NetworkRecord): Promise<OpenNetwork> {
  const { network: n, ipam: i, firewall: f, dns: d } = record.drivers;
  const [network, ipam, firewall, dns] = await Promise.all([
    registry.resolveDriver('network', n.driver, n), registry.resolveDriver('ipam', i.driver, i), registry.resolveDriver('firewall', f.driver, f), d && registry.resolveDriver('dns', d.driver, d),
  ]);
  const { managed } = network.driver;
  if (!managed) throw fail('ERR_FEATURE_MISSING', `network driver ${n.driver} cannot make networks`, { plugin: n.plugin });
  return { record, managed, network, ipam, firewall, ...(dns && { dns }), wall: managed.firewalled(record) };
}

/** A network of a record: kept, or (in `explain`) only designed. Errors: ERR_NO_SUCH_NETWORK. */
function recordOf(core: Core, id: string): NetworkRecord {
  const record = core.parts.state.networks.get(id) ?? core.designed.get(id);
  if (!record) throw fail('ERR_NO_SUCH_NETWORK', `network ${id.slice(0, 12)} not found`, { path: id, hint: 'it has just been removed' });
  return record;
}
export const networksOf = (core: Core, wishes: readonly Pick<EndpointWish, 'network'>[]): Promise<OpenNetwork[]> => Promise.all(wishes.map(({ network }) => openNetwork(core, recordOf(core, network))));

type Groups = { readonly plugin: string; readonly effects: readonly Effect[] }[];
/** What is missing of a network on this machine. */
export async function missingOf({ managed, record, network, firewall, dns, wall }: OpenNetwork): Promise<Groups> {
  const groups = [
    { plugin: network.choice.plugin, effects: await managed.ensure(record) },
    { plugin: firewall.choice.plugin, effects: await firewall.driver.ensure(wall) },
    ...(dns ? [{ plugin: dns.choice.plugin, effects: dns.driver.ensure(record) }] : []),
  ];
  return groups.filter(({ effects }) => effects.length > 0);
}
/** After a reboot, or when somebody took something away. */
export async function ensureNetworks(core: Core, networks: readonly OpenNetwork[]): Promise<void> {
  for (const network of networks) {
    const { id, name } = network.record;
    if ((await missingOf(network)).length === 0) continue;
    await core.locked([['network', id]], async () => {
      recordOf(core, id); // not for one that is removed by now
      const groups = await missingOf(network);
      if (groups.length > 0) await core.transact(`bring up network ${name}`, async (transaction) => {
        await transaction.runAll(groups);
        await transaction.commit(() => {});
        core.shapes.forget();
      });
    });
  }
  const kept = networks.length > 0 ? core.parts.keep?.() : undefined;
  // rules can be watched later, names are asked for at once
  if (networks.some(({ dns }) => dns)) await kept;
}

/** Are these links, and all that their networks need, still there? */
export async function isConnected(core: Core, endpoints: readonly Endpoint[]): Promise<boolean> {
  const networks = await networksOf(core, endpoints);
  const missing = await Promise.all(networks.map(missingOf));
  return missing.every((groups) => groups.length === 0) && endpoints.every((endpoint, i) => !networks[i]?.managed.isGone(endpoint));
}

/** What of a container decides where it is connected; before it has a row. */
export type Connected = Pick<ContainerRecord, 'id' | 'name' | 'request' | 'imageConfig' | 'networks'>;

/** So many that have ended are looked at in one claim: where more are going away at once, the next ones come later. */
const MANY = 20;
/** How long an address is waited for whose last container has just ended, ms. */
const PATIENCE = 3_000;
const nameOf = (core: Core, id: string): string => core.parts.state.containers.get(id)?.name ?? id.slice(0, 12);

/** An address out of one pool, free at this moment. Undefined: none is, as yet. */
function freeAddress(core: Core, { record, ipam }: OpenNetwork, at: number, wish: EndpointWish, isGone: (endpoint: Endpoint) => boolean): string | undefined {
  const { endpoints } = core.parts.state;
  const pool = record.pools[at] as NetworkRecord['pools'][number];
  const wished = pool.family === 4 ? wish.ip : wish.ip6;
  const isFree = (address: string, holder = endpoints.holder(record.id, address)): boolean => !holder || (holder.ended && isGone(holder.endpoint));
  if (wished !== undefined) {
    const address = ipam.driver.check(pool, wished);
    if (isFree(address)) return address;
    const holder = endpoints.holder(record.id, address);
    if (holder?.ended === false) throw fail('ERR_ADDRESS_TAKEN', `address ${address} is in use by container ${nameOf(core, holder.endpoint.container)}`, { operation: 'ipam', path: address });
    return undefined;
  }
  for (const address of ipam.driver.candidates(pool, endpoints.last(record.id, pool.family))) if (isFree(address)) return address;
  return undefined;
}

/** `02:42` and the IPv4 address, as Docker has it. */
function macOf(addresses: readonly EndpointAddress[]): string {
  const v4 = addresses.find(({ family }) => family === 4)?.address.split('.').map(Number);
  return ['02', '42', ...(v4 ?? [...randomBytes(4)]).map((byte) => byte.toString(16).padStart(2, '0'))].join(':');
}

/** A network's place for `wish`; undefined when no address is free. */
function placeOn(core: Core, network: OpenNetwork, wish: EndpointWish, own: Pick<Endpoint, 'container' | 'run' | 'interface' | 'link' | 'isDefault' | 'ports'>, isGone: (endpoint: Endpoint) => boolean): Endpoint | undefined {
  const addresses: EndpointAddress[] = [];
  for (const [at, { family, subnet, gateway }] of network.record.pools.entries()) {
    const address = freeAddress(core, network, at, wish, isGone);
    if (address === undefined) return undefined;
    addresses.push({ family, address, prefix: Number(subnet.split('/')[1]), ...(network.record.internal ? {} : { gateway }) });
  }
  return { ...own, network: network.record.id, mac: wish.mac ?? macOf(addresses), addresses, aliases: wish.aliases, options: wish.options ?? {} };
}

/** Tries `make` until its endpoints could be written down. Errors: ERR_NO_ADDRESS. */
async function claim(core: Core, networks: readonly OpenNetwork[], make: (isGone: (endpoint: Endpoint) => boolean) => readonly Endpoint[] | undefined): Promise<readonly Endpoint[]> {
  const { endpoints } = core.parts.state;
  const isOver = (endpoint: Endpoint): boolean => networks.find(({ record }) => record.id === endpoint.network)?.managed.isGone(endpoint) ?? false;
  for (let caughtUp = false, pause = 10, end = performance.now() + PATIENCE; ; ) {
    const gone = endpoints.ended(networks.map(({ record }) => record.id), MANY).filter(isOver);
    const isGone = (endpoint: Endpoint): boolean => gone.some((g) => g.run === endpoint.run && g.network === endpoint.network) || (isOver(endpoint) && gone.push(endpoint) > 0);
    let made;
    try {
      made = make(isGone);
    } catch (error) {
      if (caughtUp || !isEngineError(error, 'ERR_ADDRESS_TAKEN')) throw error;
    }
    if (made && (await endpoints.claim(made, gone))) return made;
    // who has it may be an engine that was killed before it had made anything
    if (!made && !caughtUp) {
      await catchUpEndpoints(core);
      caughtUp = true;
      continue;
    }
    if (performance.now() > end) throw fail('ERR_NO_ADDRESS', `no address is free on network ${networks.map(({ record: { name, pools } }) => `${name} (${pools.map((p) => p.range ?? p.subnet).join(', ')})`).join(', ')}`, { operation: 'ipam' });
    // less and less often: to look through a large network takes a while
    if (!made) await sleep((pause = Math.min(pause * 2, 400)));
  }
}

/**
 * Where a container is in its run `run`: addresses leased, ports chosen. Its lock is held until the run's folder is there, so that nobody takes it for abandoned. With `explain`
 * nothing is written down, and nothing made. Errors: ERR_NO_ADDRESS, ERR_ADDRESS_TAKEN, ERR_PORT_TAKEN (who has it), ERR_INVALID_VALUE.
 */
export async function claimEndpoints(core: Core, container: Connected, run: string, { explain = false } = {}): Promise<readonly Endpoint[]> {
  const { id, networks: wishes } = container;
  if (wishes.length === 0) return [];
  const networks = await networksOf(core, wishes);
  if (!explain) await ensureNetworks(core, networks);
  const way = networks.findIndex(({ record }) => !record.internal);
  const ports = way < 0 ? [] : await choosePorts(core, container, { explain });
  if (way < 0 && wantedPorts(container).length > 0) core.parts.log.warn(`container ${container.name} is on internal networks only: its ports are not published`);
  const make = (isGone: (endpoint: Endpoint) => boolean): Endpoint[] | undefined => {
    const made = networks.map((network, i) => placeOn(core, network, wishes[i] as EndpointWish, {
      container: id, run, interface: interfaceName(network, i), link: linkName(i, run), isDefault: i === way, ports: i === way ? ports : [],
    }, isGone));
    return made.every((endpoint) => endpoint !== undefined) ? made : undefined;
  };
  if (explain) return make(() => false) ?? [];
  core.phase?.('addresses');
  return claim(core, networks, make);
}
const interfaceName = ({ managed, record }: OpenNetwork, at: number): string => `${managed.interfacePrefix?.(record) ?? 'eth'}${at}`;
/** At most 15 characters; of the run, so that nobody else has it. */
const linkName = (at: number, run: string): string => `v${at}-${run.slice(0, 15 - 2 - String(at).length)}`;

/** One more, for a container that runs. */
export async function claimEndpoint(core: Core, container: Pick<ContainerRecord, 'id'>, run: string, network: OpenNetwork, wish: EndpointWish): Promise<Endpoint> {
  const there = core.parts.state.endpoints.of(container.id);
  let at = 0;
  while (there.some((endpoint) => endpoint.link === linkName(at, run) || endpoint.interface === interfaceName(network, at))) at++;
  const own = { container: container.id, run, interface: interfaceName(network, at), link: linkName(at, run), isDefault: !network.record.internal && !there.some((e) => e.isDefault), ports: [] as BoundPort[] };
  const [made] = await claim(core, [network], (isGone) => {
    const endpoint = placeOn(core, network, wish, own, isGone);
    return endpoint && [endpoint];
  });
  return made as Endpoint;
}

/** The run is over, or did not come about: what it had is free as soon as its links are gone. */
export async function endEndpoints(core: Core, container: string, which: (endpoint: Endpoint) => boolean = () => true): Promise<void> {
  const { state } = core.parts;
  const over = state.endpoints.of(container).filter(which);
  if (over.length === 0) return;
  const managed = new Map<string, ManagedNetworks>();
  for (const { network } of over) {
    const record = state.networks.get(network);
    // a plugin that is missing can't be asked: by then the kernel has had its time
    if (record) await openNetwork(core, record).then((open) => managed.set(network, open.managed), () => {});
  }
  await state.endpoints.end(over, (endpoint) => managed.get(endpoint.network)?.isGone(endpoint) ?? true);
}

/** Endpoints of runs that are not there: their engine was killed, or the machine. Returns what was done, in words. */
export async function catchUpEndpoints(core: Core): Promise<readonly string[]> {
  const { state } = core.parts;
  const stale = (endpoint: Endpoint): boolean => state.runs.current(endpoint.container)?.run !== endpoint.run
    || state.containers.get(endpoint.container)?.networks.every(({ network }) => network !== endpoint.network) === true;
  const done: string[] = [];
  for (const container of new Set(state.endpoints.list().filter(stale).map((endpoint) => endpoint.container))) {
    let lock;
    try {
      lock = await state.lock('container', container, { timeout: 0 });
    } catch {
      continue; // it is just being started, or collected
    }
    try {
      await endEndpoints(core, container, stale);
      done.push(`gave back the addresses of container ${nameOf(core, container)}`);
    } finally {
      lock.release();
    }
  }
  return done;
}

/** Who has published a port, by what is written down: for errors and `network why`. One that is just going away is waited for. */
export async function publisher(core: Core, wanted: Pick<BoundPort, 'protocol' | 'hostPort'> & Partial<BoundPort>): Promise<{ readonly endpoint: Endpoint; readonly port: BoundPort; readonly name: string } | undefined> {
  for (const endpoint of core.parts.state.endpoints.list()) {
    const port = endpoint.ports.find((p) => collides(p, { hostAddress: p.hostAddress, ...wanted }));
    if (!port) continue;
    const record = core.parts.state.containers.get(endpoint.container);
    if (record && (await isGoing(core, record))) continue;
    return { endpoint, port, name: record?.name ?? endpoint.container.slice(0, 12) };
  }
  return undefined;
}

/** Where a run is connected, as hooks see it. */
export async function attachmentOf(core: Core, container: string, endpoints: readonly Endpoint[]): Promise<Attachment> {
  const networks = endpoints.map(({ network }) => recordOf(core, network));
  const open = await Promise.all(networks.map((record) => openNetwork(core, record)));
  return { endpoints, networks, resolvers: open.flatMap(({ record, dns }) => dns?.driver.resolvers(record) ?? []), folder: core.folderOf(container) };
}

interface ToldNames { readonly dns: ResolvedDriver<Contracts['dns']>; readonly names: ContainerNames }
/** What is told of a container's names, by the driver that answers for them; only networks with names. */
export function namesOf({ id, name, request }: Pick<Connected, 'id' | 'name' | 'request'>, endpoints: readonly Endpoint[], networks: readonly OpenNetwork[]): readonly ToldNames[] {
  const told = new Map<DnsDriver, ToldNames>();
  for (const endpoint of endpoints) {
    const { dns, record } = networks.find((n) => n.record.id === endpoint.network) as OpenNetwork;
    if (!dns) continue;
    const before = told.get(dns.driver)?.names ?? { container: id, servers: request.dns ?? [], endpoints: [] };
    const place = { network: record.id, name, names: [...new Set([name, id.slice(0, 12), ...endpoint.aliases])], addresses: endpoint.addresses.map(({ address }) => address) };
    told.set(dns.driver, { dns, names: { ...before, endpoints: [...before.endpoints, place] } });
  }
  return [...told.values()];
}
