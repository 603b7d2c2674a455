/**
 * Netlink messages as bytes, for the `netlink` operation, and their answers read back: rtnetlink links, addresses, routes.
 * Everything is in the byte order of the machine, which is little-endian on all that the engine runs on.
 */

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

export const NLM_F = { REQUEST: 1, MULTI: 2, ACK: 4, ECHO: 8, ROOT: 0x100, MATCH: 0x200, DUMP: 0x300, REPLACE: 0x100, EXCL: 0x200, CREATE: 0x400, APPEND: 0x800 } as const;
export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3 } as const;
export const RTM = {
  NEWLINK: 16, DELLINK: 17, GETLINK: 18, SETLINK: 19, NEWADDR: 20, DELADDR: 21, GETADDR: 22, NEWROUTE: 24, DELROUTE: 25, GETROUTE: 26, NEWNEIGH: 28, DELNEIGH: 29, GETNEIGH: 30,
} as const;
export const IFF = { UP: 1, BROADCAST: 2, LOOPBACK: 8, RUNNING: 0x40 } as const;
export const IFLA = {
  ADDRESS: 1, BROADCAST: 2, IFNAME: 3, MTU: 4, LINK: 5, MASTER: 10, LINKINFO: 18, NET_NS_PID: 19, IFALIAS: 20, NET_NS_FD: 28, ALT_IFNAME: 53,
} as const;
export const IFLA_INFO = { KIND: 1, DATA: 2 } as const;
export const VETH_INFO_PEER = 1;
export const IFA = { ADDRESS: 1, LOCAL: 2, LABEL: 3, BROADCAST: 4, FLAGS: 8 } as const;
export const RTA = { DST: 1, SRC: 2, IIF: 3, OIF: 4, GATEWAY: 5, PRIORITY: 6, PREFSRC: 7, TABLE: 15 } as const;
export const AF = { UNSPEC: 0, INET: 2, BRIDGE: 7, INET6: 10 } as const;
const RT = { TABLE_MAIN: 254, PROT_STATIC: 4, SCOPE_UNIVERSE: 0, SCOPE_LINK: 253, TYPE_UNICAST: 1 } as const;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

const align = (n: number): number => (n + 3) & ~3;

/** One attribute: its value is bytes, a u32, text (a NUL is added), or more attributes (nested). */
export interface Attribute { readonly type: number; readonly value: Uint8Array | number | string | readonly Attribute[] }
export const attribute = (type: number, value: Attribute['value']): Attribute => ({ type, value });

export function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  return Buffer.concat(attributes.map(({ type, value }) => {
    let body: Uint8Array;
    let nested = 0;
    if (typeof value === 'number') {
      const number = Buffer.alloc(4);
      number.writeUInt32LE(value >>> 0);
      body = number;
    } else if (typeof value === 'string') {
      body = Buffer.from(`${value}\0`);
    } else if (value instanceof Uint8Array) {
      body = value;
    } else {
      body = encodeAttributes(value);
      nested = NLA_F_NESTED;
    }
    const bytes = Buffer.alloc(align(4 + body.length));
    bytes.writeUInt16LE(4 + body.length, 0);
    bytes.writeUInt16LE(type | nested, 2);
    bytes.set(body, 4);
    return bytes;
  }));
}

/** Type → value of the attributes in `bytes`; the last one of a type wins. Damaged ones end the list. */
export function decodeAttributes(bytes: Uint8Array): Map<number, Buffer> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = new Map<number, Buffer>();
  for (let at = 0; at + 4 <= buffer.length;) {
    const length = buffer.readUInt16LE(at);
    if (length < 4 || at + length > buffer.length) break;
    found.set(buffer.readUInt16LE(at + 2) & NLA_TYPE_MASK, buffer.subarray(at + 4, at + length));
    at += align(length);
  }
  return found;
}

/** A whole message. `flags` besides REQUEST and ACK; the sender of the batch fills in port and sequence number where it needs them. */
export function encodeMessage(type: number, flags: number, body: Uint8Array, attributes: readonly Attribute[] = [], sequence = 0): Buffer {
  const rest = encodeAttributes(attributes);
  const length = 16 + align(body.length) + rest.length;
  const bytes = Buffer.alloc(align(length));
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags | NLM_F.REQUEST | NLM_F.ACK, 6);
  bytes.writeUInt32LE(sequence, 8);
  bytes.set(body, 16);
  bytes.set(rest, 16 + align(body.length));
  return bytes;
}

/** Several messages as one batch, numbered from 1. */
export function encodeBatch(messages: readonly Uint8Array[]): Uint8Array {
  const batch = Buffer.concat(messages);
  for (let at = 0, n = 1; at + 16 <= batch.length; n++) {
    batch.writeUInt32LE(n, at + 8);
    at += align(batch.readUInt32LE(at));
  }
  return batch;
}

/** struct ifinfomsg */
export function ifinfomsg(options: { readonly index?: number; readonly flags?: number; readonly change?: number; readonly family?: number; readonly type?: number } = {}): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt8(options.family ?? AF.UNSPEC, 0);
  bytes.writeUInt16LE(options.type ?? 0, 2);
  bytes.writeInt32LE(options.index ?? 0, 4);
  bytes.writeUInt32LE(options.flags ?? 0, 8);
  bytes.writeUInt32LE(options.change ?? 0, 12);
  return bytes;
}

/** An address of 4 or 16 bytes from its text. Errors: RangeError. */
export function addressBytes(address: string): Buffer {
  if (/^\d+\.\d+\.\d+\.\d+$/.test(address)) {
    const parts = address.split('.').map(Number);
    if (parts.some((part) => part > 255)) throw new RangeError(`not an address: ${address}`);
    return Buffer.from(parts);
  }
  const halves = address.split('::');
  const v4 = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address);
  if (v4) {
    const tail = addressBytes(v4[2] as string);
    return addressBytes(`${v4[1]}${tail.readUInt16BE(0).toString(16)}:${tail.readUInt16BE(2).toString(16)}`);
  }
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')));
  const missing = 8 - groups.reduce((sum, half) => sum + half.length, 0);
  const all = halves.length === 2 ? [...(groups[0] as string[]), ...Array<string>(Math.max(0, missing)).fill('0'), ...(groups[1] as string[])] : (groups[0] as string[]);
  if (halves.length > 2 || (halves.length === 2 && missing < 1) || all.length !== 8 || all.some((group) => !/^[0-9a-f]{1,4}$/i.test(group))) throw new RangeError(`not an address: ${address}`);
  const bytes = Buffer.alloc(16);
  all.forEach((group, i) => bytes.writeUInt16BE(Number.parseInt(group, 16), i * 2));
  return bytes;
}
const familyOf = (bytes: Buffer): number => (bytes.length === 4 ? AF.INET : AF.INET6);

/** How a link is named in a request: by its index, else by its name. */
export type LinkRef = { readonly index: number } | { readonly name: string };
const nameOf = (link: LinkRef): Attribute[] => ('name' in link ? [attribute(IFLA.IFNAME, link.name)] : []);
const indexOf = (link: LinkRef): number => ('index' in link ? link.index : 0);

/** Bring a link up or down, and change what is given. */
export function setLink(link: LinkRef, change: { readonly up?: boolean; readonly mtu?: number; readonly rename?: string; readonly master?: number; readonly address?: Uint8Array; readonly netnsPid?: number }): Buffer {
  return encodeMessage(RTM.NEWLINK, 0, ifinfomsg({ index: indexOf(link), ...(change.up === undefined ? {} : { flags: change.up ? IFF.UP : 0, change: IFF.UP }) }), [
    ...(change.rename === undefined ? nameOf(link) : [attribute(IFLA.IFNAME, change.rename)]),
    ...(change.mtu === undefined ? [] : [attribute(IFLA.MTU, change.mtu)]),
    ...(change.master === undefined ? [] : [attribute(IFLA.MASTER, change.master)]),
    ...(change.address === undefined ? [] : [attribute(IFLA.ADDRESS, change.address)]),
    ...(change.netnsPid === undefined ? [] : [attribute(IFLA.NET_NS_PID, change.netnsPid)]),
  ]);
}

/** The loopback device up; 127.0.0.1 and ::1 come with it. In a new network namespace its index is 1. */
export function loopbackUp(): Uint8Array {
  return encodeBatch([setLink({ index: 1 }, { up: true })]);
}

/** Make a link of `kind` (bridge, dummy, …); EEXIST when the name is taken. `data`: attributes of IFLA_INFO_DATA. */
export function newLink(name: string, kind: string, options: { readonly data?: readonly Attribute[]; readonly up?: boolean; readonly mtu?: number; readonly address?: Uint8Array; readonly alias?: string; readonly index?: number; readonly master?: number } = {}): Buffer {
  return encodeMessage(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, ifinfomsg({ index: options.index ?? 0, ...(options.up ? { flags: IFF.UP, change: IFF.UP } : {}) }), [
    attribute(IFLA.IFNAME, name),
    ...(options.mtu === undefined ? [] : [attribute(IFLA.MTU, options.mtu)]),
    ...(options.address === undefined ? [] : [attribute(IFLA.ADDRESS, options.address)]),
    ...(options.alias === undefined ? [] : [attribute(IFLA.IFALIAS, Buffer.from(options.alias))]),
    ...(options.master === undefined ? [] : [attribute(IFLA.MASTER, options.master)]),
    attribute(IFLA.LINKINFO, [attribute(IFLA_INFO.KIND, kind), ...(options.data ? [attribute(IFLA_INFO.DATA, options.data)] : [])]),
  ]);
}

/**
 * A veth pair. The peer is born inside the net namespace of process `peerPid`, where given. The kernel ignores the peer's index unless the
 * host end has one too, and a peer cannot be created up.
 */
export function newVeth(host: { readonly name: string; readonly index?: number; readonly master?: number; readonly up?: boolean; readonly mtu?: number; readonly alias?: string }, peer: { readonly name: string; readonly index?: number; readonly pid?: number; readonly mtu?: number; readonly address?: Uint8Array }): Buffer {
  const inner = Buffer.concat([ifinfomsg({ index: peer.index ?? 0 }), encodeAttributes([
    attribute(IFLA.IFNAME, peer.name),
    ...(peer.mtu === undefined ? [] : [attribute(IFLA.MTU, peer.mtu)]),
    ...(peer.address === undefined ? [] : [attribute(IFLA.ADDRESS, peer.address)]),
    ...(peer.pid === undefined ? [] : [attribute(IFLA.NET_NS_PID, peer.pid)]),
  ])]);
  return newLink(host.name, 'veth', { ...host, data: [attribute(VETH_INFO_PEER | NLA_F_NESTED, inner)] });
}

export const deleteLink = (link: LinkRef): Buffer => encodeMessage(RTM.DELLINK, 0, ifinfomsg({ index: indexOf(link) }), nameOf(link));

/** Add an address with its prefix length to link `index`. */
export function newAddress(index: number, address: string, prefix: number, options: { readonly broadcast?: string } = {}): Buffer {
  const bytes = addressBytes(address);
  const body = Buffer.alloc(8);
  body.writeUInt8(familyOf(bytes), 0);
  body.writeUInt8(prefix, 1);
  // no duplicate address detection: the address is usable at once (IFA_F_NODAD)
  body.writeUInt8(bytes.length === 16 ? 0x02 : 0, 2);
  body.writeUInt32LE(index, 4);
  return encodeMessage(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, body, [
    attribute(IFA.LOCAL, bytes), attribute(IFA.ADDRESS, bytes),
    ...(options.broadcast === undefined ? [] : [attribute(IFA.BROADCAST, addressBytes(options.broadcast))]),
  ]);
}

/** Add a route; without `destination` the default route. */
export function newRoute(route: { readonly destination?: string; readonly prefix?: number; readonly gateway?: string; readonly index?: number; readonly source?: string; readonly metric?: number; readonly family?: number }): Buffer {
  const bytes = [route.destination, route.gateway, route.source].find((address) => address !== undefined);
  const body = Buffer.alloc(12);
  body.writeUInt8(bytes === undefined ? (route.family ?? AF.INET) : familyOf(addressBytes(bytes)), 0);
  body.writeUInt8(route.destination === undefined ? 0 : (route.prefix ?? addressBytes(route.destination).length * 8), 1);
  body.writeUInt8(RT.TABLE_MAIN, 4);
  body.writeUInt8(RT.PROT_STATIC, 5);
  body.writeUInt8(route.gateway === undefined ? RT.SCOPE_LINK : RT.SCOPE_UNIVERSE, 6);
  body.writeUInt8(RT.TYPE_UNICAST, 7);
  return encodeMessage(RTM.NEWROUTE, NLM_F.CREATE | NLM_F.EXCL, body, [
    ...(route.destination === undefined ? [] : [attribute(RTA.DST, addressBytes(route.destination))]),
    ...(route.gateway === undefined ? [] : [attribute(RTA.GATEWAY, addressBytes(route.gateway))]),
    ...(route.index === undefined ? [] : [attribute(RTA.OIF, route.index)]),
    ...(route.source === undefined ? [] : [attribute(RTA.PREFSRC, addressBytes(route.source))]),
    ...(route.metric === undefined ? [] : [attribute(RTA.PRIORITY, route.metric)]),
  ]);
}

export interface Message { readonly type: number; readonly flags: number; readonly sequence: number; readonly body: Buffer }
/** Cut what a netlink socket gave into messages. A damaged one ends the list. */
export function decodeMessages(bytes: Uint8Array): Message[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const messages: Message[] = [];
  for (let at = 0; at + 16 <= buffer.length;) {
    const length = buffer.readUInt32LE(at);
    if (length < 16 || at + length > buffer.length) break;
    messages.push({ type: buffer.readUInt16LE(at + 4), flags: buffer.readUInt16LE(at + 6), sequence: buffer.readUInt32LE(at + 8), body: buffer.subarray(at + 16, at + length) });
    at += align(length);
  }
  return messages;
}

const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
/** An NLMSG_ERROR message: errno (positive, 0 = acknowledged) and the kernel's own words, where it has some. */
export function decodeError(message: Message): { readonly errno: number; readonly text: string } {
  const errno = -message.body.readInt32LE(0);
  let text = '';
  if (message.flags & NLM_F_ACK_TLVS) {
    const inner = message.flags & NLM_F_CAPPED ? 16 : align(message.body.readUInt32LE(4));
    text = decodeAttributes(message.body.subarray(4 + inner)).get(1)?.toString('utf8').replace(/\0.*$/s, '') ?? '';
  }
  return { errno: errno === 0 ? 0 : errno, text };
}
