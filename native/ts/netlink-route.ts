import { addressBytes, macBytes } from './addresses.ts';
import { attribute, encodeBatch, encodeMessage, NLA_F_NESTED, NLM_F, optional, u16, u8, withNumber, type Attribute, type Encoded, type Slot } from './netlink-codec.ts';

/** rtnetlink messages that change links, addresses and routes. See rtnetlink(7). */

export const RTM = {
  NEWLINK: 16, DELLINK: 17, GETLINK: 18, SETLINK: 19, NEWADDR: 20, DELADDR: 21, GETADDR: 22, NEWROUTE: 24, DELROUTE: 25, GETROUTE: 26, NEWNEIGH: 28, DELNEIGH: 29, GETNEIGH: 30,
} as const;
export const IFF = { UP: 1, BROADCAST: 2, LOOPBACK: 8, RUNNING: 0x40 } as const;
export const IFLA = {
  ADDRESS: 1, BROADCAST: 2, IFNAME: 3, MTU: 4, LINK: 5, MASTER: 10, LINKINFO: 18, NET_NS_PID: 19, IFALIAS: 20, AF_SPEC: 26, NET_NS_FD: 28, EXT_MASK: 29, NUM_TX_QUEUES: 31,
  NUM_RX_QUEUES: 32, LINK_NETNSID: 37, ALT_IFNAME: 53,
} as const;
export const IFLA_INFO = { KIND: 1, DATA: 2, SLAVE_KIND: 4, SLAVE_DATA: 5 } as const;
export const IFLA_BR = { FORWARD_DELAY: 1, HELLO_TIME: 2, MAX_AGE: 3, AGEING_TIME: 4, STP_STATE: 5, PRIORITY: 6, VLAN_FILTERING: 7, GROUP_FWD_MASK: 9, MCAST_ROUTER: 22, MCAST_SNOOPING: 23, NF_CALL_IPTABLES: 36, NF_CALL_IP6TABLES: 37, NF_CALL_ARPTABLES: 38 } as const;
export const IFLA_BRPORT = { STATE: 1, PRIORITY: 2, COST: 3, MODE: 4, GUARD: 5, PROTECT: 6, FAST_LEAVE: 7, LEARNING: 8, UNICAST_FLOOD: 9, MCAST_FLOOD: 27, BCAST_FLOOD: 30, NEIGH_SUPPRESS: 32, ISOLATED: 33 } as const;
export const IFLA_INET6_ADDR_GEN_MODE = 8;
export const VETH_INFO_PEER = 1;
export const IFA = { ADDRESS: 1, LOCAL: 2, LABEL: 3, BROADCAST: 4, FLAGS: 8 } as const;
export const IFA_F = { NODAD: 2, PERMANENT: 0x80, NOPREFIXROUTE: 0x200 } as const;
export const RTA = { DST: 1, SRC: 2, IIF: 3, OIF: 4, GATEWAY: 5, PRIORITY: 6, PREFSRC: 7, MULTIPATH: 9, TABLE: 15, VIA: 18 } as const;
export const AF = { UNSPEC: 0, INET: 2, BRIDGE: 7, INET6: 10 } as const;
export const RT = { TABLE_MAIN: 254, TABLE_LOCAL: 255, PROT_STATIC: 4, SCOPE_UNIVERSE: 0, SCOPE_LINK: 253 } as const;
export const RTN = { unicast: 1, local: 2, broadcast: 3, anycast: 4, multicast: 5, blackhole: 6, unreachable: 7, prohibit: 8, throw: 9, nat: 10 } as const;
export type RouteType = keyof typeof RTN;
const RTNH_F_ONLINK = 4;

const familyOf = (bytes: Uint8Array): number => (bytes.length === 4 ? AF.INET : AF.INET6);
const mac = (address: Uint8Array | string | undefined): Uint8Array | undefined => (typeof address === 'string' ? macBytes(address) : address);

/** struct ifinfomsg. `index` may be a slot. */
export function ifinfomsg(options: { readonly index?: number | Slot; readonly flags?: number; readonly change?: number; readonly family?: number; readonly type?: number } = {}): Encoded {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt8(options.family ?? AF.UNSPEC, 0);
  bytes.writeUInt16LE(options.type ?? 0, 2);
  bytes.writeUInt32LE(options.flags ?? 0, 8);
  bytes.writeUInt32LE(options.change ?? 0, 12);
  return withNumber(bytes, 4, options.index ?? 0);
}

/** How a link is named in a request: by its index, else by its name. */
export type LinkRef = { readonly index: number | Slot } | { readonly name: string };
const nameOf = (link: LinkRef): Attribute[] => ('name' in link ? [attribute(IFLA.IFNAME, link.name)] : []);
const indexOf = (link: LinkRef): number | Slot => ('index' in link ? link.index : 0);
const upFlags = (up: boolean | undefined): { flags?: number; change?: number } => (up === undefined ? {} : { flags: up ? IFF.UP : 0, change: IFF.UP });

/** Whose net namespace a link goes to (or is born in): that of process `netnsPid`, or the one that `netnsFd` is open on, in the sender's table of fds. */
export interface Whereabouts { readonly netnsPid?: number | Slot; readonly netnsFd?: number | Slot }
const whereabouts = (to: Whereabouts): Attribute[] => [...optional(IFLA.NET_NS_PID, to.netnsPid), ...optional(IFLA.NET_NS_FD, to.netnsFd)];

/** What of a link can be said when it is made and later. */
export interface LinkSettings {
  readonly up?: boolean;
  readonly mtu?: number;
  /** Bridge; 0: none. */
  readonly master?: number | Slot;
  /** MAC: 6 bytes or text. */
  readonly address?: Uint8Array | string;
}
const settings = (link: LinkSettings): Attribute[] => [
  ...optional(IFLA.MTU, link.mtu),
  ...optional(IFLA.ADDRESS, mac(link.address)),
  ...optional(IFLA.MASTER, link.master),
];

/** Settings of a bridge's port. */
export interface BridgePort {
  /** Frames may go out where they came in. */
  readonly hairpin?: boolean;
  /** No frames to other isolated ports. */
  readonly isolated?: boolean;
  readonly learning?: boolean;
  readonly flood?: boolean;
  readonly guard?: boolean;
  readonly neighSuppress?: boolean;
}
const bridgePort = (port: BridgePort): Attribute[] => ([
  [IFLA_BRPORT.MODE, port.hairpin], [IFLA_BRPORT.ISOLATED, port.isolated], [IFLA_BRPORT.LEARNING, port.learning], [IFLA_BRPORT.UNICAST_FLOOD, port.flood], [IFLA_BRPORT.GUARD, port.guard],
  [IFLA_BRPORT.NEIGH_SUPPRESS, port.neighSuppress],
] as const).flatMap(([type, value]) => optional(type, value === undefined ? undefined : u8(value)));

export interface LinkChange extends LinkSettings, Whereabouts {
  readonly rename?: string;
  /** At most 255 bytes. The kernel ignores it in the message that makes a link. */
  readonly alias?: string;
  /** How IPv6 makes link-local addresses: none at all, or from the MAC. In a message before the one that brings the link up: `up` comes into force first. */
  readonly addressGeneration?: 'none' | 'eui64';
  /** As a port of the bridge that it is on already: not together with `master`, which comes into force after it. */
  readonly port?: BridgePort;
}
/** Bring a link up or down, and change what is given. */
export function setLink(link: LinkRef, change: LinkChange): Encoded {
  return encodeMessage(RTM.NEWLINK, 0, ifinfomsg({ index: indexOf(link), ...upFlags(change.up) }), [
    ...(change.rename === undefined ? nameOf(link) : [attribute(IFLA.IFNAME, change.rename)]),
    ...settings(change),
    ...optional(IFLA.IFALIAS, change.alias === undefined ? undefined : Buffer.from(change.alias)),
    ...whereabouts(change),
    ...(change.addressGeneration === undefined ? [] : [attribute(IFLA.AF_SPEC, [attribute(AF.INET6, [attribute(IFLA_INET6_ADDR_GEN_MODE, u8(change.addressGeneration === 'none'))])])]),
    ...(change.port ? [attribute(IFLA.LINKINFO, [attribute(IFLA_INFO.SLAVE_KIND, 'bridge'), attribute(IFLA_INFO.SLAVE_DATA, bridgePort(change.port))])] : []),
  ]);
}

/** The loopback device up; 127.0.0.1 and ::1 come with it. In a new network namespace its index is 1. */
export function loopbackUp(): Uint8Array {
  return encodeBatch([setLink({ index: 1 }, { up: true })]);
}

export interface NewLink extends LinkSettings, Whereabouts {
  readonly index?: number;
  /** Of each direction; 1 spares the queues that veth makes for every processor. */
  readonly queues?: number;
}
/** Make a link of `kind` (bridge, dummy, …); EEXIST when the name is taken. `data`: attributes of IFLA_INFO_DATA. */
export function newLink(name: string, kind: string, options: NewLink & { readonly data?: readonly Attribute[] } = {}): Encoded {
  return encodeMessage(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, ifinfomsg({ index: options.index ?? 0, ...(options.up ? upFlags(true) : {}) }), [
    attribute(IFLA.IFNAME, name),
    ...settings(options),
    ...optional(IFLA.NUM_TX_QUEUES, options.queues), ...optional(IFLA.NUM_RX_QUEUES, options.queues),
    ...whereabouts(options),
    attribute(IFLA.LINKINFO, [attribute(IFLA_INFO.KIND, kind), ...(options.data ? [attribute(IFLA_INFO.DATA, options.data)] : [])]),
  ]);
}

export interface BridgeOptions {
  readonly stp?: boolean;
  /** Seconds; without STP 0 is possible: a port forwards at once. */
  readonly forwardDelay?: number;
  /** Seconds. */
  readonly ageing?: number;
  readonly multicastSnooping?: boolean;
  readonly vlanFiltering?: boolean;
  /** Bits of 01:80:c2:00:00:0X that are forwarded. */
  readonly groupForward?: number;
  /** Bridged frames go through iptables, whatever net.bridge.bridge-nf-call-iptables says. */
  readonly callIptables?: boolean;
}
/** IFLA_INFO_DATA of a bridge; times are in hundredths of a second there. */
export const bridgeData = (bridge: BridgeOptions): Attribute[] => [
  ...optional(IFLA_BR.STP_STATE, bridge.stp === undefined ? undefined : Number(bridge.stp)),
  ...optional(IFLA_BR.FORWARD_DELAY, bridge.forwardDelay === undefined ? undefined : Math.round(bridge.forwardDelay * 100)),
  ...optional(IFLA_BR.AGEING_TIME, bridge.ageing === undefined ? undefined : Math.round(bridge.ageing * 100)),
  ...optional(IFLA_BR.MCAST_SNOOPING, bridge.multicastSnooping === undefined ? undefined : u8(bridge.multicastSnooping)),
  ...optional(IFLA_BR.VLAN_FILTERING, bridge.vlanFiltering === undefined ? undefined : u8(bridge.vlanFiltering)),
  ...optional(IFLA_BR.GROUP_FWD_MASK, bridge.groupForward === undefined ? undefined : u16(bridge.groupForward)),
  ...[IFLA_BR.NF_CALL_IPTABLES, IFLA_BR.NF_CALL_IP6TABLES].flatMap((type) => optional(type, bridge.callIptables === undefined ? undefined : u8(bridge.callIptables))),
];
export function newBridge(name: string, options: NewLink & BridgeOptions = {}): Encoded {
  return newLink(name, 'bridge', { ...options, data: bridgeData(options) });
}

/** The other end of a veth pair: `pid` is `netnsPid` by its older name. */
export interface VethPeer extends Whereabouts { readonly name: string; readonly index?: number; readonly pid?: number; readonly mtu?: number; readonly address?: Uint8Array | string; readonly queues?: number }
/**
 * A veth pair. The peer is born inside the given net namespace. The kernel ignores the peer's index unless the
 * host end has one too, and a peer cannot be created up.
 */
export function newVeth(host: NewLink & { readonly name: string }, peer: VethPeer): Encoded {
  const inner = encodeMessage(0, 0, ifinfomsg({ index: peer.index ?? 0 }), [
    attribute(IFLA.IFNAME, peer.name),
    ...optional(IFLA.MTU, peer.mtu),
    ...optional(IFLA.ADDRESS, mac(peer.address)),
    ...optional(IFLA.NUM_TX_QUEUES, peer.queues), ...optional(IFLA.NUM_RX_QUEUES, peer.queues),
    ...whereabouts({ ...peer, ...(peer.pid === undefined ? {} : { netnsPid: peer.pid }) }),
  ]);
  // a message without its header: struct ifinfomsg and attributes
  const body: Encoded = Object.assign(inner.subarray(16), inner.slots ? { slots: inner.slots.map(({ name, at }) => ({ name, at: at - 16 })) } : {});
  return newLink(host.name, 'veth', { ...host, data: [attribute(VETH_INFO_PEER | NLA_F_NESTED, body)] });
}

export const deleteLink = (link: LinkRef): Encoded => encodeMessage(RTM.DELLINK, 0, ifinfomsg({ index: indexOf(link) }), nameOf(link));

function ifaddrmsg(index: number | Slot, bytes: Uint8Array, prefix: number, flags: number): Encoded {
  const body = Buffer.alloc(8);
  body.writeUInt8(familyOf(bytes), 0);
  body.writeUInt8(prefix, 1);
  body.writeUInt8(flags & 255, 2);
  return withNumber(body, 4, index);
}
export interface AddressOptions {
  readonly broadcast?: string;
  /** The kernel makes no route for the subnet. */
  readonly noPrefixRoute?: boolean;
}
/** Add an address with its prefix length to link `index`. EEXIST when the link has it. */
export function newAddress(index: number | Slot, address: string, prefix: number, options: AddressOptions = {}): Encoded {
  const bytes = addressBytes(address);
  // no duplicate address detection: the address is usable at once
  const flags = (bytes.length === 16 ? IFA_F.NODAD : 0) | (options.noPrefixRoute ? IFA_F.NOPREFIXROUTE : 0);
  return encodeMessage(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, ifaddrmsg(index, bytes, prefix, flags), [
    attribute(IFA.LOCAL, bytes), attribute(IFA.ADDRESS, bytes),
    ...optional(IFA.BROADCAST, options.broadcast === undefined ? undefined : addressBytes(options.broadcast)),
    ...(flags ? [attribute(IFA.FLAGS, flags)] : []),
  ]);
}
/** EADDRNOTAVAIL when it isn't there. */
export function deleteAddress(index: number | Slot, address: string, prefix: number): Encoded {
  const bytes = addressBytes(address);
  return encodeMessage(RTM.DELADDR, 0, ifaddrmsg(index, bytes, prefix, 0), [attribute(IFA.LOCAL, bytes), attribute(IFA.ADDRESS, bytes)]);
}

export interface RouteRequest {
  /** Without it: the default route. */
  readonly destination?: string;
  /** Default: of one address. */
  readonly prefix?: number;
  readonly gateway?: string;
  readonly index?: number | Slot;
  /** Preferred source address. */
  readonly source?: string;
  readonly metric?: number;
  /** AF_INET or AF_INET6, where no address says it. */
  readonly family?: number;
  readonly table?: number;
  readonly type?: RouteType;
  /** The gateway is on the link, though no route says so. */
  readonly onlink?: boolean;
}
function route(type: number, flags: number, wanted: RouteRequest): Encoded {
  const text = [wanted.destination, wanted.gateway, wanted.source].find((address) => address !== undefined);
  const table = wanted.table ?? RT.TABLE_MAIN;
  const body = Buffer.alloc(12);
  body.writeUInt8(text === undefined ? (wanted.family ?? AF.INET) : familyOf(addressBytes(text)), 0);
  body.writeUInt8(wanted.destination === undefined ? 0 : (wanted.prefix ?? addressBytes(wanted.destination).length * 8), 1);
  body.writeUInt8(table > 255 ? 0 : table, 4);
  // a route is deleted whoever made it, and whatever its scope
  body.writeUInt8(type === RTM.DELROUTE ? 0 : RT.PROT_STATIC, 5);
  body.writeUInt8(type === RTM.DELROUTE ? 255 : wanted.gateway !== undefined || wanted.index === undefined ? RT.SCOPE_UNIVERSE : RT.SCOPE_LINK, 6);
  body.writeUInt8(type === RTM.DELROUTE && wanted.type === undefined ? 0 : RTN[wanted.type ?? 'unicast'], 7);
  body.writeUInt32LE(wanted.onlink ? RTNH_F_ONLINK : 0, 8);
  const address = (value: string | undefined): Uint8Array | undefined => (value === undefined ? undefined : addressBytes(value));
  return encodeMessage(type, flags, body, [
    ...optional(RTA.DST, address(wanted.destination)),
    ...optional(RTA.GATEWAY, address(wanted.gateway)),
    ...optional(RTA.OIF, wanted.index),
    ...optional(RTA.PREFSRC, address(wanted.source)),
    ...optional(RTA.PRIORITY, wanted.metric),
    ...(table > 255 ? [attribute(RTA.TABLE, table)] : []),
  ]);
}
/** Add a route; EEXIST when there is one like it. */
export const newRoute = (wanted: RouteRequest): Encoded => route(RTM.NEWROUTE, NLM_F.CREATE | NLM_F.EXCL, wanted);
/** The route that is as `wanted` says; ESRCH when there is none. */
export const deleteRoute = (wanted: RouteRequest): Encoded => route(RTM.DELROUTE, 0, wanted);
