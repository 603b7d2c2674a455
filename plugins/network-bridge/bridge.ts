import { fail } from '@engine/core/errors';
import { effect, op, type Effect } from '@engine/core/plan';
import { type DriverDeps } from '@engine/core/contracts/common';
import { type NetworkRecord } from '@engine/core/contracts/network';
import { broadcastOf, parseCidr } from '@engine/native/addresses';
import { attribute, deleteAddress, deleteLink, encodeBatch, encodeMessage, encodePatched, ifinfomsg, IFLA, NETLINK_ROUTE, newAddress, newBridge, setLink, slot, type Encoded } from '@engine/native/netlink';
import { type Link, type Rtnetlink } from '@engine/native/rtnetlink';
import { isPort } from './attach.ts';
import { PLUGIN, type BridgeSettings } from './options.ts';

const RTM_NEWLINKPROP = 108;
const IFLA_PROP_LIST = 52;
const INDEX = 'network-bridge.index';
const LINK = 'link';

/** Name of every bridge of ours, its only one or an alternative one: it carries the network's id, so that whatever has it may be deleted. */
export const ownName = (network: string): string => `br-${network.slice(0, 12)}`;
/** While it is being made, before it gets the name that a user wants, which may be somebody else's. */
const temporaryName = (network: string): string => `bt-${network.slice(0, 12)}`;
const aliasOf = (instance: string, network: string): string => `${instance} ${network}`;
/** Its own, and never that of a port, which would change with the ports. Locally administered; containers' begin with 02:42. */
const macOf = (network: string): string => `02:62:${(network.slice(0, 8).match(/../g) ?? []).join(':')}`;

interface Sysctl { readonly path: string; readonly value: string; readonly why: string }
const ipv4 = (name: string): string => `/proc/sys/net/ipv4/${name}`;
const ipv6 = (name: string): string => `/proc/sys/net/ipv6/${name}`;

/** What the bridge itself must have. */
function bridgeSysctls(network: NetworkRecord, bridge: string): Sysctl[] {
  return [
    // routers that announce themselves on it are containers: the host must not listen to them (CVE-2020-13401)
    { path: ipv6(`conf/${bridge}/accept_ra`), value: '0', why: 'no router advertisements from containers' },
    // without IPv6 a link-local address would reach what the host serves on [::]
    { path: ipv6(`conf/${bridge}/disable_ipv6`), value: network.ipv6 ? '0' : '1', why: network.ipv6 ? 'the network has IPv6' : 'the network has no IPv6' },
    // detection of a twin of its link-local address begins with the first port; for two seconds nobody on the bridge would be found by IPv6 (Linux 6.18)
    ...(network.ipv6 ? [{ path: ipv6(`conf/${bridge}/accept_dad`), value: '0', why: 'IPv6 from the first moment' }] : []),
    ...(network.internal ? [] : [{ path: ipv4(`conf/${bridge}/route_localnet`), value: '1', why: 'ports published on 127.0.0.1' }]),
  ];
}
/** What the host must have for the network to have a way out. Others rely on these by now: they stay. */
function hostSysctls(network: NetworkRecord): Sysctl[] {
  if (network.internal) return [];
  return [
    { path: ipv4('ip_forward'), value: '1', why: 'containers reach the world through this host' },
    ...(network.ipv6 ? [{ path: ipv6('conf/all/forwarding'), value: '1', why: 'containers reach the world through this host' }] : []),
  ];
}

/** For so long settings of /proc/sys are believed, ms: five files cost more than all else that is looked at. */
const TRUST = 1000;

export interface Bridges {
  /** The bridge of a network as it is now, by one question to the kernel. */
  find(network: NetworkRecord): Link | undefined;
  ensure(network: NetworkRecord): readonly Effect[];
  remove(network: NetworkRecord): readonly Effect[];
}

export function createBridges({ machine, instance, rtnetlink }: Pick<DriverDeps, 'machine' | 'instance'> & { readonly rtnetlink: Rtnetlink }): Bridges {
  const settingsOf = (network: NetworkRecord): BridgeSettings => network.settings as unknown as BridgeSettings;
  const isOurs = (link: Link, network: NetworkRecord): boolean => link.kind === 'bridge' && link.alias === aliasOf(instance, network.id);
  /** The engine's own bridge of a state that was thrown away: its name is for the next one. */
  const isLeft = (link: Link, network: NetworkRecord): boolean => network.predefined && link.kind === 'bridge' && link.alias?.startsWith(`${instance} `) === true && rtnetlink.links().every(({ master }) => master !== link.index);
  const taken = (link: Link, network: NetworkRecord): Error => fail('ERR_IN_USE', `the interface ${link.name}${link.kind === undefined ? '' : ` (${link.kind})`} is not the bridge of network ${network.name}`, {
    path: link.name, plugin: PLUGIN, hint: link.alias ? `it belongs to ${link.alias}` : 'remove it, or choose another name with --opt bridge=NAME',
  });
  /** `undefined`: this kernel has no such setting (no IPv6). */
  const read = ({ path }: Sysctl): string | undefined => machine.read(path)?.trim();
  const isWrong = (one: Sysctl): boolean => {
    const value = read(one);
    return value !== undefined && value !== one.value;
  };
  // missing: a link whose MTU is too short for IPv6 has no such settings
  const write = ({ path, value, why }: Sysctl, undone: string): Effect => effect(op.writeFile({ path, data: Buffer.from(value) }, { okMissing: true }), { none: `${why}; ${undone}` });

  /** Forwarding makes the kernel forget default routes that routers announced to it, unless told to listen as a router too. */
  function keepAnnounced(): Effect[] {
    const links = new Set(rtnetlink.routes().filter(({ protocol, destination }) => protocol === 'ra' && destination === '::/0').map(({ index }) => index));
    return [...links].flatMap((index) => {
      const name = index === undefined ? undefined : rtnetlink.link({ index })?.name;
      const sysctl = { path: ipv6(`conf/${name}/accept_ra`), value: '2', why: `${name} has its default route from a router's announcements` };
      return name !== undefined && read(sysctl) === '1' ? [write(sysctl, 'forwarding stays')] : [];
    });
  }
  function hostEffects(network: NetworkRecord): Effect[] {
    return hostSysctls(network).filter(isWrong).flatMap((one) => [...(one.path.endsWith('all/forwarding') ? keepAnnounced() : []), write(one, 'others may rely on it by now')]);
  }
  /** IPv6 without duplicate address detection: nobody else is there. */
  function addressMessages(pools: NetworkRecord['pools']): { readonly add: Encoded[]; readonly remove: Encoded[] } {
    const index = slot(LINK);
    const each = pools.map(({ gateway, subnet }) => ({ gateway, prefix: parseCidr(subnet).prefix, broadcast: broadcastOf(subnet) }));
    return {
      add: each.map(({ gateway, prefix, broadcast }) => newAddress(index, gateway, prefix, broadcast === undefined ? {} : { broadcast })),
      remove: each.map(({ gateway, prefix }) => deleteAddress(index, gateway, prefix)),
    };
  }

  /** A new bridge, up, with its addresses. Undone as a whole by its name. */
  function create(network: NetworkRecord): Effect[] {
    const { bridge, mtu } = settingsOf(network);
    const own = ownName(network.id);
    if (network.ipv6 && machine.read(ipv6('conf/all/forwarding')) === undefined) throw fail('ERR_NOT_SUPPORTED', `network ${network.name}: this kernel has no IPv6`, { plugin: PLUGIN, hint: 'make it without --ipv6' });
    const first = bridge === own ? own : temporaryName(network.id);
    // no snooping: nobody asks for groups on it, and a port costs 0.1 ms less without
    const made = (name: string): Effect => effect(
      op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([newBridge(name, { mtu, address: macOf(network.id), forwardDelay: 0, multicastSnooping: false }), setLink({ name }, { alias: aliasOf(instance, network.id) })]) }),
      op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([deleteLink({ name })]) }, { okMissing: true }),
    );
    const goes = { none: 'it goes with the bridge' };
    const { add } = addressMessages(network.pools);
    // of containers that run: somebody deleted the bridge under them
    const ports = rtnetlink.links().filter(({ alias, master }) => master === undefined && isPort(alias, instance, network.id));
    const { bytes, at } = encodePatched([
      setLink({ index: slot(LINK) }, { up: true }), ...add,
      ...ports.map(({ name }) => setLink({ name }, { master: slot(LINK) })),
    ]);
    return [
      made(first),
      ...(first === own ? [] : [
        // a name that a user wants may have been taken just now: only what has our own name as well is ever deleted
        effect(op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([alternativeName(first, own)]) }), op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([deleteLink({ name: own })]) }, { okMissing: true })),
        effect(op.linkIndex({ name: own, out: `${INDEX}.new` })),
        ...renamed(bridge, `${INDEX}.new`),
      ]),
      ...bridgeSysctls(network, bridge).map((one) => write(one, 'it goes with the bridge')),
      effect(op.linkIndex({ name: own, out: INDEX })),
      effect(op.netlinkWith({ protocol: NETLINK_ROUTE, messages: bytes, patch: INDEX, patchAt: at[LINK] as Uint8Array }, { okMissing: true }), goes),
    ];
  }
  function renamed(name: string, register: string): Effect[] {
    const { bytes, at } = encodePatched([setLink({ index: slot(LINK) }, { rename: name })]);
    return [effect(op.netlinkWith({ protocol: NETLINK_ROUTE, messages: bytes, patch: register, patchAt: at[LINK] as Uint8Array }), { none: 'the bridge goes by its other name' })];
  }

  /** What of a bridge that is there has been taken away. */
  function repair(network: NetworkRecord, link: Link): Effect[] {
    const there = new Set(rtnetlink.addresses(link.index).filter(({ index }) => index === link.index).map(({ address, prefix }) => `${address}/${prefix}`));
    const lacking = network.pools.filter(({ gateway, subnet }) => !there.has(`${gateway}/${subnet.slice(subnet.indexOf('/') + 1)}`));
    if (link.up && lacking.length === 0) return [];
    const { add, remove } = addressMessages(lacking);
    const forward = encodePatched([...(link.up ? [] : [setLink({ index: slot(LINK) }, { up: true })]), ...add]);
    const back = encodePatched(remove);
    return [
      effect(op.linkIndex({ name: ownName(network.id), out: INDEX })),
      effect(
        op.netlinkWith({ protocol: NETLINK_ROUTE, messages: forward.bytes, patch: INDEX, patchAt: forward.at[LINK] as Uint8Array }),
        remove.length === 0 ? { none: 'the bridge was meant to be up' } : [
          op.linkIndex({ name: ownName(network.id), out: INDEX }, { okMissing: true }),
          op.netlinkWith({ protocol: NETLINK_ROUTE, messages: back.bytes, patch: INDEX, patchAt: back.at[LINK] as Uint8Array }, { okMissing: true }),
        ],
      ),
    ];
  }

  /** When the settings of a network were last seen to be right: until it has another bridge, or for a moment. */
  const seen = new Map<string, { readonly index: number; readonly at: number }>();
  function checkSettings(network: NetworkRecord, link: Link): Effect[] {
    const last = seen.get(network.id);
    const now = performance.now();
    if (last?.index === link.index && now - last.at < TRUST) return [];
    const effects = [...bridgeSysctls(network, link.name).filter(isWrong).map((one) => write(one, 'as the network was made')), ...hostEffects(network)];
    if (effects.length === 0) seen.set(network.id, { index: link.index, at: now });
    else seen.delete(network.id);
    return effects;
  }

  const find = (network: NetworkRecord): Link | undefined => {
    const link = rtnetlink.link({ name: ownName(network.id) });
    if (link && !isOurs(link, network)) throw taken(link, network);
    return link;
  };
  return {
    find,
    ensure(network) {
      const link = find(network);
      // settings first: an IPv6 address is refused while disable_ipv6 is set
      if (link) return [...checkSettings(network, link), ...repair(network, link)];
      const { bridge } = settingsOf(network);
      const foreign = rtnetlink.link({ name: bridge });
      if (foreign && !isLeft(foreign, network)) throw taken(foreign, network);
      const gone = foreign ? [effect(op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([deleteLink({ index: foreign.index })]) }, { okMissing: true }), { none: 'nobody knows of it any more' })] : [];
      return [...gone, ...create(network), ...hostEffects(network)];
    },
    remove(network) {
      seen.delete(network.id);
      return [effect(op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([deleteLink({ name: ownName(network.id) })]) }, { okMissing: true }), { none: 'it is a removal' })];
    },
  };
}

const alternativeName = (name: string, other: string): Encoded =>
  encodeMessage(RTM_NEWLINKPROP, 0x400 | 0x200 | 0x800, ifinfomsg(), [attribute(IFLA.IFNAME, name), attribute(IFLA_PROP_LIST, [attribute(IFLA.ALT_IFNAME, other)])]);
