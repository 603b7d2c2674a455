import { effect, op, step, type Effect, type Operation, type Step } from '@engine/core/plan';
import { REGISTER } from '@engine/core/contracts/common';
import { type Endpoint, type NetworkRecord, type NetworkTarget } from '@engine/core/contracts/network';
import { broadcastOf, macBytes } from '@engine/native/addresses';
import { addressBytes, attribute, deleteLink, encodeAttributes, encodeBatch, encodePatched, IFA, IFLA, NETLINK_ROUTE, newAddress, newRoute, newVeth, setLink, slot, type Encoded } from '@engine/native/netlink';
import { SHORTEST_MTU_IPV6, type BridgeSettings } from './options.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const NETNS = 'network-bridge.netns';
const INDEX = 'network-bridge.index';
/** What the messages are told only when they are sent. */
const WHERE = 'netns';
const LINK = 'link';

/** Of the host's end: whose it is. */
export const aliasOf = (instance: string, run: string, network: string): string => `${instance} ${run} ${network.slice(0, 12)}`;
/** Is this the alias of an endpoint on that network? */
export const isPort = (alias: string | undefined, instance: string, network: string): boolean => alias !== undefined && alias.startsWith(`${instance} `) && /^\S+ [0-9a-f]+ [0-9a-f]{12}$/.test(alias) && alias.endsWith(` ${network.slice(0, 12)}`);

/** Settings of the network, and whether the kernel has IPv6 at all. */
export type Attached = BridgeSettings & { readonly kernelIpv6: boolean };
/** Is there any IPv6 on these links that could be told something? Below its shortest MTU the kernel has none on a link, and refuses to be asked (EAFNOSUPPORT). */
const speaksIpv6 = ({ kernelIpv6, mtu }: Attached): boolean => kernelIpv6 && mtu >= SHORTEST_MTU_IPV6;

/** A veth pair: the host's end on the bridge, the other born in the container's netns under its last name. Byte for byte the same for the same endpoint. */
function pair(endpoint: Endpoint, settings: Attached, bridge: number, instance: string, peer: 'pid' | 'fd'): ReturnType<typeof encodePatched> {
  const { mtu } = settings;
  const port = { ...(endpoint.ports.length > 0 ? { hairpin: true } : {}), ...(settings.icc ? {} : { isolated: true }) };
  return encodePatched([
    newVeth(
      { name: endpoint.link, master: bridge, mtu, queues: 1 },
      { name: endpoint.interface, address: endpoint.mac, mtu, queues: 1, ...(peer === 'pid' ? { netnsPid: slot(WHERE) } : { netnsFd: slot(WHERE) }) },
    ),
    // a port needs no addresses of its own, and without one the kernel announces none
    setLink({ name: endpoint.link }, { alias: aliasOf(instance, endpoint.run, endpoint.network), ...(speaksIpv6(settings) ? { addressGeneration: 'none' } : {}), up: true, ...(Object.keys(port).length > 0 ? { port } : {}) }),
  ]);
}

/** What the container's end needs inside, in this order: routes need the link up. */
function inside(endpoint: Endpoint, network: NetworkRecord, settings: Attached): ReturnType<typeof encodePatched> {
  const index = slot(LINK);
  const families = new Set(endpoint.addresses.map(({ family }) => family));
  const messages: Encoded[] = [
    ...(families.has(6) || !speaksIpv6(settings) ? [] : [setLink({ index }, { addressGeneration: 'none' })]),
    setLink({ index }, { up: true }),
    ...endpoint.addresses.map(({ address, prefix }) => {
      const broadcast = broadcastOf(`${address}/${prefix}`);
      return newAddress(index, address, prefix, broadcast === undefined ? {} : { broadcast });
    }),
  ];
  if (endpoint.isDefault && !network.internal) messages.push(...defaultRoutes(endpoint, index));
  return encodePatched(messages);
}
const defaultRoutes = ({ addresses }: Endpoint, index: ReturnType<typeof slot>): Encoded[] =>
  addresses.flatMap(({ family, gateway }) => (gateway === undefined ? [] : [newRoute({ gateway, index, family: family === 4 ? AF_INET : AF_INET6 })]));

/** The default routes of a container that runs, which has none now. */
export function promoteEffects(endpoint: Endpoint, target: NetworkTarget): Effect[] {
  const routes = defaultRoutes(endpoint, slot(LINK));
  if (routes.length === 0) return [];
  const { bytes, at } = encodePatched(routes);
  return [
    effect(op.openNamespace({ pid: target.pid, startTime: target.startTime, type: 'net', out: NETNS })),
    effect(op.linkIndex({ name: endpoint.interface, namespace: NETNS, out: INDEX })),
    effect(op.netlinkWith({ protocol: NETLINK_ROUTE, messages: bytes, namespace: NETNS, patch: INDEX, patchAt: at[LINK] as Uint8Array }, { okExists: true }), { none: 'a route more does no harm to one that loses its network' }),
  ];
}

/**
 * Routers that announce themselves on the network are containers: none of them may become this container's way out (CVE-2020-13401). Through the host's
 * /proc, which shows the reader's own net namespace; where init may not write there, the kernel's default stays.
 */
const acceptNoRouter = (endpoint: Endpoint): Operation<'writeFile'>[] =>
  endpoint.addresses.some(({ family }) => family === 6) ? [op.writeFile({ path: `/proc/sys/net/ipv6/conf/${endpoint.interface}/accept_ra`, data: Buffer.from('0') }, { okMissing: true, optional: true })] : [];

export function attachSteps(endpoint: Endpoint, network: NetworkRecord, settings: Attached, bridge: number, instance: string): Step[] {
  const outer = pair(endpoint, settings, bridge, instance, 'pid');
  const inner = inside(endpoint, network, settings);
  const index = `${INDEX}.${endpoint.interface}`;
  return [
    step('shim.attach', op.netlinkWith({ protocol: NETLINK_ROUTE, messages: outer.bytes, patch: REGISTER.init, patchAt: outer.at[WHERE] as Uint8Array }), { none: 'the pair ends with the container\'s net namespace' }),
    step('init.netns', op.linkIndex({ name: endpoint.interface, out: index })),
    ...acceptNoRouter(endpoint).map((write) => step('init.netns', write)),
    step('init.netns', op.netlinkWith({ protocol: NETLINK_ROUTE, messages: inner.bytes, patch: index, patchAt: inner.at[LINK] as Uint8Array })),
  ];
}

/** The name carries the run's id: it is nobody else's. */
const unlink = (endpoint: Endpoint): Operation<'netlink'> => op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([deleteLink({ name: endpoint.link })]) }, { okMissing: true });

export function connectEffects(endpoint: Endpoint, network: NetworkRecord, settings: Attached, bridge: number, instance: string, target: NetworkTarget): Effect[] {
  const outer = pair(endpoint, settings, bridge, instance, 'fd');
  const inner = inside(endpoint, network, settings);
  const goes = { none: 'the link goes with the other end' };
  return [
    effect(op.openNamespace({ pid: target.pid, startTime: target.startTime, type: 'net', out: NETNS })),
    effect(op.netlinkWith({ protocol: NETLINK_ROUTE, messages: outer.bytes, patch: NETNS, patchAt: outer.at[WHERE] as Uint8Array }), unlink(endpoint)),
    effect(op.linkIndex({ name: endpoint.interface, namespace: NETNS, out: INDEX })),
    effect(op.netlinkWith({ protocol: NETLINK_ROUTE, messages: inner.bytes, namespace: NETNS, patch: INDEX, patchAt: inner.at[LINK] as Uint8Array }), goes),
  ];
}
export const disconnectEffects = (endpoint: Endpoint): Effect[] => [effect(unlink(endpoint), { none: 'it is a removal' })];

/** In which bytes the messages of two endpoints of one network differ; each with its attribute's header, so that it occurs nowhere by chance. */
export function tokensOf(endpoint: Endpoint): Uint8Array[] {
  const one = (type: number, bytes: Uint8Array): Uint8Array => encodeAttributes([attribute(type, bytes)]).subarray(0, 4 + bytes.length);
  return [
    Buffer.from(endpoint.link),
    one(IFLA.ADDRESS, macBytes(endpoint.mac)),
    ...endpoint.addresses.flatMap(({ family, address }) => {
      const bytes = addressBytes(address);
      return family === 4 ? [one(IFA.LOCAL, bytes), one(IFA.ADDRESS, bytes)] : [bytes];
    }),
  ];
}
