import { addressText, macText, type Family } from './addresses.ts';
import { attribute, decodeAttributes, encodeMessage, NETLINK_ROUTE, numberOf, textOf, withNumber } from './netlink-codec.ts';
import { AF, IFA, IFA_F, IFF, IFLA, IFLA_INFO, ifinfomsg, RTA, RTM, RTN, type RouteType } from './netlink-route.ts';
import { openNetlink } from './netlink-socket.ts';
import { ERRNO } from './netlink-wire.ts';

/** A network interface. */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** `bridge`, `veth`, …; none for hardware and lo. */
  readonly kind?: string;
  readonly alias?: string;
  readonly up: boolean;
  readonly mtu: number;
  /** Index of the bridge that it is on. */
  readonly master?: number;
  /** Index of the other end, in its own net namespace. */
  readonly peer?: number;
  /** MAC as text. */
  readonly address?: string;
  /** Id that this net namespace has for the one where the other end is; only when it is elsewhere. */
  readonly netnsPeer?: number;
}
export interface InterfaceAddress {
  /** Of the link. */
  readonly index: number;
  readonly family: Family;
  readonly address: string;
  readonly prefix: number;
  /** RT_SCOPE_*; 0: it means the same everywhere. */
  readonly scope?: number;
  /** Does it have no end of life (IFA_F_PERMANENT)? */
  readonly permanent?: boolean;
  readonly broadcast?: string;
}
export interface Route {
  readonly family: Family;
  /** CIDR; `0.0.0.0/0` and `::/0` for a default route. */
  readonly destination: string;
  readonly gateway?: string;
  /** Of the link that it goes through; of several, the first. */
  readonly index?: number;
  /** 254 main, 255 local (the host's own and broadcast addresses). */
  readonly table: number;
  readonly type: RouteType | `${number}`;
  /** Who made it: `kernel`, `static`, …, or a number as text. */
  readonly protocol: string;
  readonly source?: string;
  readonly metric?: number;
}
/** Links, addresses and routes of the net namespace, as the kernel has them now. Reads only; synchronous, some microseconds each. Errors: ERR_NATIVE. */
export interface Rtnetlink {
  /** Undefined: there is none. */
  link(ref: { readonly name: string } | { readonly index: number }): Link | undefined;
  links(): Link[];
  /** `index`: of this link only. */
  addresses(index?: number): InterfaceAddress[];
  /** All tables, both families. */
  routes(): Route[];
}

const types = new Map<number, RouteType>(Object.entries(RTN).map(([name, number]) => [number, name as RouteType]));
const protocols: Readonly<Record<number, string>> = { 0: 'unspec', 1: 'redirect', 2: 'kernel', 3: 'boot', 4: 'static', 9: 'ra', 16: 'dhcp' };
const familyOf = (number: number | undefined): Family | undefined => (number === AF.INET ? 4 : number === AF.INET6 ? 6 : undefined);
const given = <K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } => (value === undefined ? {} : { [key]: value } as { [P in K]: V });
/** Of a damaged message, or one of another family, nothing. */
const text = (family: Family, value: Buffer | undefined): string | undefined => (value?.length === (family === 4 ? 4 : 16) ? addressText(value) : undefined);

const ofLink: ReadonlySet<number> = new Set([IFLA.IFNAME, IFLA.MTU, IFLA.LINKINFO, IFLA.IFALIAS, IFLA.MASTER, IFLA.LINK, IFLA.ADDRESS, IFLA.LINK_NETNSID]);
const kind: ReadonlySet<number> = new Set([IFLA_INFO.KIND]);
/** Body of an RTM_NEWLINK message; undefined for a damaged one. */
export function decodeLink(body: Buffer): Link | undefined {
  if (body.length < 16) return undefined;
  const found = decodeAttributes(body, 16, ofLink);
  const name = textOf(found.get(IFLA.IFNAME));
  if (name === undefined) return undefined;
  const info = found.get(IFLA.LINKINFO);
  const address = found.get(IFLA.ADDRESS);
  return {
    index: body.readInt32LE(4), name, up: (body.readUInt32LE(8) & IFF.UP) !== 0, mtu: numberOf(found.get(IFLA.MTU)) ?? 0,
    ...given('kind', info && textOf(decodeAttributes(info, 0, kind).get(IFLA_INFO.KIND))),
    ...given('alias', textOf(found.get(IFLA.IFALIAS))),
    ...given('master', numberOf(found.get(IFLA.MASTER))),
    ...given('peer', numberOf(found.get(IFLA.LINK))),
    ...given('address', address?.length === 6 ? macText(address) : undefined),
    ...given('netnsPeer', numberOf(found.get(IFLA.LINK_NETNSID))),
  };
}
/** Body of an RTM_NEWADDR message; undefined for a damaged one, and for other families. */
export function decodeInterfaceAddress(body: Buffer): InterfaceAddress | undefined {
  const family = familyOf(body[0]);
  if (body.length < 8 || family === undefined) return undefined;
  const found = decodeAttributes(body, 8);
  // of a point-to-point link ADDRESS is the other end's
  const address = text(family, found.get(IFA.LOCAL) ?? found.get(IFA.ADDRESS));
  if (address === undefined) return undefined;
  const permanent = ((numberOf(found.get(IFA.FLAGS)) ?? body.readUInt8(2)) & IFA_F.PERMANENT) !== 0;
  return { index: body.readUInt32LE(4), family, address, prefix: body.readUInt8(1), scope: body.readUInt8(3), permanent, ...given('broadcast', text(family, found.get(IFA.BROADCAST))) };
}
/** Body of an RTM_NEWROUTE message; undefined for a damaged one, and for other families. */
export function decodeRoute(body: Buffer): Route | undefined {
  const family = familyOf(body[0]);
  if (body.length < 12 || family === undefined) return undefined;
  const found = decodeAttributes(body, 12);
  const destination = found.has(RTA.DST) ? text(family, found.get(RTA.DST)) : family === 4 ? '0.0.0.0' : '::';
  const prefix = body.readUInt8(1);
  if (destination === undefined || prefix > (family === 4 ? 32 : 128)) return undefined;
  const type = body.readUInt8(7);
  const hop = found.get(RTA.MULTIPATH);
  const inner = hop && hop.length >= 8 ? decodeAttributes(hop.subarray(8, Math.max(8, hop.readUInt16LE(0)))) : undefined;
  const via = found.get(RTA.VIA) ?? inner?.get(RTA.VIA);
  return {
    family, destination: `${destination}/${prefix}`, table: numberOf(found.get(RTA.TABLE)) ?? body.readUInt8(4), type: types.get(type) ?? `${type}`,
    protocol: protocols[body.readUInt8(5)] ?? String(body.readUInt8(5)),
    ...given('gateway', text(family, found.get(RTA.GATEWAY) ?? inner?.get(RTA.GATEWAY)) ?? (via && via.length > 2 ? text(via.length === 6 ? 4 : 6, via.subarray(2)) : undefined)),
    ...given('index', numberOf(found.get(RTA.OIF)) ?? (inner ? hop?.readInt32LE(4) : undefined)),
    ...given('source', text(family, found.get(RTA.PREFSRC))),
    ...given('metric', numberOf(found.get(RTA.PRIORITY))),
  };
}

const IFNAMSIZ = 16;
const RTEXT_FILTER_SKIP_STATS = 8;
const withoutStatistics = attribute(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS);
const present = <T>(value: T | undefined): value is T => value !== undefined;

/** The real one; the socket is opened by the first read, in the net namespace of the calling thread. */
export function createRtnetlink(): Rtnetlink & { close(): void } {
  const socket = openNetlink(NETLINK_ROUTE);
  const dump = <T>(request: Uint8Array, reply: number, decode: (body: Buffer) => T | undefined): T[] =>
    socket.dump(request).filter(({ type }) => type === reply).map(({ body }) => decode(body)).filter(present);
  return {
    link(ref) {
      // no link has such a name, and the kernel would call it an error
      if ('name' in ref && (ref.name === '' || Buffer.byteLength(ref.name) >= IFNAMSIZ)) return undefined;
      if ('index' in ref && !(ref.index > 0)) return undefined;
      const request = 'name' in ref ? encodeMessage(RTM.GETLINK, 0, ifinfomsg(), [attribute(IFLA.IFNAME, ref.name), withoutStatistics]) : encodeMessage(RTM.GETLINK, 0, ifinfomsg({ index: ref.index }), [withoutStatistics]);
      const answer = socket.ask(request, [ERRNO.ENODEV]);
      return answer && decodeLink(answer.body);
    },
    links: () => dump(encodeMessage(RTM.GETLINK, 0, ifinfomsg(), [withoutStatistics]), RTM.NEWLINK, decodeLink),
    // a kernel that checks requests strictly (4.20) looks at this link alone
    addresses: (index = 0) => dump(encodeMessage(RTM.GETADDR, 0, withNumber(Buffer.alloc(8), 4, index)), RTM.NEWADDR, decodeInterfaceAddress).filter((one) => index === 0 || one.index === index),
    routes: () => dump(encodeMessage(RTM.GETROUTE, 0, Buffer.alloc(12)), RTM.NEWROUTE, decodeRoute),
    close: () => socket.close(),
  };
}

/** For tests: what it is given, which may change meanwhile. */
export function createFakeRtnetlink(world: { readonly links?: readonly Link[]; readonly routes?: readonly Route[]; readonly addresses?: readonly InterfaceAddress[] } = {}): Rtnetlink {
  return {
    link: (ref) => world.links?.find((link) => ('name' in ref ? link.name === ref.name : link.index === ref.index)),
    links: () => [...(world.links ?? [])],
    addresses: (index) => (world.addresses ?? []).filter((one) => index === undefined || one.index === index),
    routes: () => [...(world.routes ?? [])],
  };
}
