import { addressBytes, addressText } from './addresses.ts';
import { attribute, be16, be32, be32Of, decodeAttributes, encodeBatch, encodeMessage, listAttributes, NETLINK_NETFILTER, NLM_F, optional, textOf, type Attribute } from './netlink-codec.ts';
import { openNetlink } from './netlink-socket.ts';
import { ERRNO, netlinkError } from './netlink-wire.ts';

export { watchNftables, type NftablesEvent } from './nftables-events.ts';

/**
 * nftables by its own messages: elements of sets and maps as one batch (a transaction: all or nothing), and reads that take microseconds. Whole rulesets: see
 * libnftables.ts. All of family inet, where nothing else is said.
 */

const SUBSYSTEM = 10 << 8;
export const NFT_MSG = {
  NEWTABLE: SUBSYSTEM | 0, GETTABLE: SUBSYSTEM | 1, DELTABLE: SUBSYSTEM | 2, NEWCHAIN: SUBSYSTEM | 3, GETCHAIN: SUBSYSTEM | 4, DELCHAIN: SUBSYSTEM | 5, 
  NEWSETELEM: SUBSYSTEM | 12, GETSETELEM: SUBSYSTEM | 13, DELSETELEM: SUBSYSTEM | 14, NEWGEN: SUBSYSTEM | 15, GETGEN: SUBSYSTEM | 16,
} as const;
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
/** nfnetlink families; they are not all address families. */
export const NFPROTO = { unspec: 0, inet: 1, ip: 2, arp: 3, netdev: 5, bridge: 7, ip6: 10 } as const;
export type NftFamily = keyof typeof NFPROTO;
const families = new Map<number, NftFamily>(Object.entries(NFPROTO).map(([name, number]) => [number, name as NftFamily]));

const NFTA_TABLE = { NAME: 1 } as const;
const NFTA_CHAIN = { TABLE: 1, NAME: 3, HOOK: 4, POLICY: 5, TYPE: 7 } as const;
const NFTA_HOOK = { HOOKNUM: 1, PRIORITY: 2 } as const;
const NFTA_LIST_ELEM = 1;
const NFTA_SET_ELEM_LIST = { TABLE: 1, SET: 2, ELEMENTS: 3 } as const;
const NFTA_SET_ELEM = { KEY: 1, DATA: 2, FLAGS: 3, USERDATA: 6, KEY_END: 10 } as const;
const NFTA_DATA = { VALUE: 1, VERDICT: 2 } as const;
const NFTA_VERDICT = { CODE: 1, CHAIN: 2 } as const;
const NFTA_GEN_ID = 1;
const UDATA_COMMENT = 0;
const ATTEMPTS = 10;
/** Below what an attribute can hold (65,531 bytes), with room for its frame. */
const MOST_OF_A_LIST = 60_000;

/** struct nfgenmsg */
export function nfgenmsg(family: number, resource = 0): Uint8Array {
  return Uint8Array.of(family, 0, resource >>> 8, resource & 255);
}
/** Messages as one transaction, begin and end around them. */
export function nftBatch(messages: readonly Uint8Array[]): Uint8Array {
  const border = (type: number): Uint8Array => {
    const message = encodeMessage(type, 0, nfgenmsg(NFPROTO.unspec, SUBSYSTEM >> 8));
    // not to be acknowledged: older kernels do not, and who counts answers must know how many there are
    message.writeUInt16LE(NLM_F.REQUEST, 6);
    return message;
  };
  return encodeBatch([border(BATCH_BEGIN), ...messages, border(BATCH_END)]);
}

/** An element. `key` and `data`: fields one after another, each padded to 4 bytes. */
export interface Element {
  readonly key: Uint8Array;
  /** Of an interval in a concatenation: its other end, inclusive. */
  readonly keyEnd?: Uint8Array;
  /** What a map gives. */
  readonly data?: Uint8Array;
  /** What a verdict map gives. */
  readonly verdict?: Verdict;
  /** At most 128 bytes; `nft list` shows it. */
  readonly comment?: string;
}
export interface Verdict { readonly kind: 'accept' | 'drop' | 'continue' | 'return' | 'jump' | 'goto'; readonly chain?: string }
const verdicts = { drop: 0, accept: 1, continue: -1, jump: -3, goto: -4, return: -5 } as const;

const dataOf = (value: Uint8Array): Attribute[] => [attribute(NFTA_DATA.VALUE, value)];
function encodeElement(element: Element): Attribute {
  const { key, keyEnd, data, verdict, comment } = element;
  const note = comment === undefined ? undefined : Buffer.from(`${comment}\0`);
  if (note && note.length > 128) throw new RangeError('the comment of an element is longer than 127 bytes');
  return attribute(NFTA_LIST_ELEM, [
    attribute(NFTA_SET_ELEM.KEY, dataOf(key)),
    ...optional(NFTA_SET_ELEM.KEY_END, keyEnd && dataOf(keyEnd)),
    ...optional(NFTA_SET_ELEM.DATA, data && dataOf(data)),
    ...optional(NFTA_SET_ELEM.DATA, verdict && [attribute(NFTA_DATA.VERDICT, [attribute(NFTA_VERDICT.CODE, be32(verdicts[verdict.kind])), ...optional(NFTA_VERDICT.CHAIN, verdict.chain)])]),
    ...optional(NFTA_SET_ELEM.USERDATA, note && Buffer.concat([Uint8Array.of(UDATA_COMMENT, note.length), note])),
  ]);
}

export interface ElementsChange {
  readonly table: string;
  readonly set: string;
  readonly add: boolean;
  readonly elements: readonly Element[];
  /** EEXIST when there is one with the same key; otherwise only when it has other data. */
  readonly exclusive?: boolean;
}
/** The messages of {@link elements}, for a batch of several changes ({@link nftBatch}). */
export function elementMessages(change: ElementsChange): Uint8Array[] {
  const messages: Uint8Array[] = [];
  let list: Attribute[] = [];
  let size = 0;
  const flush = (): void => {
    if (list.length === 0) return;
    messages.push(encodeMessage(change.add ? NFT_MSG.NEWSETELEM : NFT_MSG.DELSETELEM, change.add ? NLM_F.CREATE | (change.exclusive ? NLM_F.EXCL : 0) : 0, nfgenmsg(NFPROTO.inet), [
      attribute(NFTA_SET_ELEM_LIST.TABLE, change.table), attribute(NFTA_SET_ELEM_LIST.SET, change.set), attribute(NFTA_SET_ELEM_LIST.ELEMENTS, list),
    ]));
    list = [];
    size = 0;
  };
  for (const element of change.elements) {
    const room = 64 + element.key.length + (element.keyEnd?.length ?? 0) + (element.data?.length ?? 0) + 2 * (element.comment?.length ?? 0) + (element.verdict?.chain?.length ?? 0);
    if (size + room > MOST_OF_A_LIST) flush();
    list.push(encodeElement(change.add ? element : { key: element.key, ...(element.keyEnd ? { keyEnd: element.keyEnd } : {}) }));
    size += room;
  }
  flush();
  return messages;
}
/**
 * Elements added to a set or map, or deleted, as a whole batch: for the operation `netlink` with protocol NETLINK_NETFILTER. All or nothing: one missing element
 * (ENOENT) keeps all of them from being deleted.
 */
export const elements = (change: ElementsChange): Uint8Array => nftBatch(elementMessages(change));

const protocolNumbers = { tcp: 6, udp: 17, sctp: 132 } as const;
const padded = (bytes: Uint8Array): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
/** A key `inet_proto . ipv4_addr . inet_service` (or ipv6_addr, as the address is). */
export const portKey = (protocol: keyof typeof protocolNumbers, address: string, port: number): Uint8Array => Buffer.concat([padded(Uint8Array.of(protocolNumbers[protocol])), addressBytes(address), padded(be16(port))]);
/** Data `ipv4_addr . inet_service` (or ipv6_addr). */
export const portTarget = (address: string, port: number): Uint8Array => Buffer.concat([addressBytes(address), padded(be16(port))]);
/** What a key or data of these is about; undefined when it has another layout. */
export function readPortKey(key: Uint8Array): { readonly protocol: keyof typeof protocolNumbers; readonly address: string; readonly port: number } | undefined {
  const protocol = (Object.keys(protocolNumbers) as (keyof typeof protocolNumbers)[]).find((name) => protocolNumbers[name] === key[0]);
  const target = readPortTarget(key.subarray(4));
  return protocol && target && { protocol, ...target };
}
export function readPortTarget(data: Uint8Array): { readonly address: string; readonly port: number } | undefined {
  if (data.length !== 8 && data.length !== 20) return undefined;
  const at = data.length - 4;
  return { address: addressText(data.subarray(0, at)), port: ((data[at] as number) << 8) | (data[at + 1] as number) };
}
/** A key of type ifname: 16 bytes. Errors: RangeError for a name of more than 15. */
export function interfaceKey(name: string): Uint8Array {
  const bytes = Buffer.alloc(16);
  if (Buffer.byteLength(name) > 15) throw new RangeError(`not the name of a network interface: ${name}`);
  bytes.write(name);
  return bytes;
}

/** An element as the kernel has it. */
export interface ListedElement { readonly key: Buffer; readonly keyEnd?: Buffer; readonly data?: Buffer; readonly comment?: string; readonly flags: number }
/** Elements out of the body of an NFT_MSG_NEWSETELEM message; damaged ones are left out. */
export function decodeElements(body: Buffer): ListedElement[] {
  const list = decodeAttributes(body, 4).get(NFTA_SET_ELEM_LIST.ELEMENTS);
  const value = (bytes: Buffer | undefined): Buffer | undefined => bytes && decodeAttributes(bytes).get(NFTA_DATA.VALUE);
  return (list ? listAttributes(list) : []).flatMap(({ value: element }) => {
    const found = decodeAttributes(element);
    const key = value(found.get(NFTA_SET_ELEM.KEY));
    if (!key) return [];
    const keyEnd = value(found.get(NFTA_SET_ELEM.KEY_END));
    const data = value(found.get(NFTA_SET_ELEM.DATA));
    const userdata = found.get(NFTA_SET_ELEM.USERDATA);
    const comment = userdata && userdata[0] === UDATA_COMMENT ? textOf(userdata.subarray(2, 2 + (userdata[1] ?? 0))) : undefined;
    return [{ key, flags: be32Of(found.get(NFTA_SET_ELEM.FLAGS)) ?? 0, ...(keyEnd ? { keyEnd } : {}), ...(data ? { data } : {}), ...(comment === undefined ? {} : { comment }) }];
  });
}

/** A chain; `hook` and what follows only of base chains. */
export interface ListedChain {
  readonly family: NftFamily;
  readonly table: string;
  readonly name: string;
  readonly type?: string;
  /** Number of the netfilter hook: of inet, ip and ip6 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting. */
  readonly hook?: number;
  readonly priority?: number;
  readonly policy?: 'accept' | 'drop';
}
export function decodeChain(body: Buffer): ListedChain | undefined {
  const found = decodeAttributes(body, 4);
  const [table, name] = [textOf(found.get(NFTA_CHAIN.TABLE)), textOf(found.get(NFTA_CHAIN.NAME))];
  const family = families.get(body[0] ?? -1);
  if (table === undefined || name === undefined || family === undefined) return undefined;
  const hook = found.get(NFTA_CHAIN.HOOK);
  const inner = hook && decodeAttributes(hook);
  const number = be32Of(inner?.get(NFTA_HOOK.HOOKNUM));
  const priority = be32Of(inner?.get(NFTA_HOOK.PRIORITY));
  const type = textOf(found.get(NFTA_CHAIN.TYPE));
  const policy = be32Of(found.get(NFTA_CHAIN.POLICY));
  return {
    family, table, name, ...(type === undefined ? {} : { type }), ...(number === undefined ? {} : { hook: number }), ...(priority === undefined ? {} : { priority: priority | 0 }),
    ...(policy === undefined ? {} : { policy: policy === 0 ? 'drop' as const : 'accept' as const }),
  };
}

/** nftables of the net namespace, as the kernel has it now. Reads only; synchronous. Errors: ERR_NATIVE (EPERM without CAP_NET_ADMIN). */
export interface Nftables {
  hasTable(name: string, family?: NftFamily): boolean;
  /** False also when there is no such table or set. */
  hasElement(table: string, set: string, key: Uint8Array): boolean;
  /** All of them. Errors: ENOENT when there is no such table or set; EINTR when it never held still. */
  listElements(table: string, set: string): ListedElement[];
  /** All chains of all families. */
  chains(): ListedChain[];
  /** A number that is another one after every change by anybody. */
  generation(): number;
}

/** The real one; the socket is opened by the first read, in the net namespace of the calling thread. */
export function createNftables(): Nftables & { close(): void } {
  const socket = openNetlink(NETLINK_NETFILTER);
  const gone = [ERRNO.ENOENT];
  const request = (type: number, attributes: readonly Attribute[] = [], family: number = NFPROTO.inet): Uint8Array => encodeMessage(type, 0, nfgenmsg(family), attributes);
  const setAttributes = (table: string, set: string): Attribute[] => [attribute(NFTA_SET_ELEM_LIST.TABLE, table), attribute(NFTA_SET_ELEM_LIST.SET, set)];
  return {
    hasTable: (name, family = 'inet') => socket.ask(request(NFT_MSG.GETTABLE, [attribute(NFTA_TABLE.NAME, name)], NFPROTO[family]), gone) !== undefined,
    hasElement: (table, set, key) => socket.ask(request(NFT_MSG.GETSETELEM, [...setAttributes(table, set), attribute(NFTA_SET_ELEM_LIST.ELEMENTS, [attribute(NFTA_LIST_ELEM, [attribute(NFTA_SET_ELEM.KEY, dataOf(key))])])]), gone) !== undefined,
    listElements(table, set) {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const found = socket.dump(request(NFT_MSG.GETSETELEM, setAttributes(table, set))).filter(({ type }) => type === NFT_MSG.NEWSETELEM).flatMap(({ body }) => decodeElements(body));
        // while the kernel makes a hash table larger, it tells some elements twice and others not at all, and doesn't say so (seen with Linux 6.18)
        if (new Set(found.map(({ key, flags }) => `${flags} ${key.toString('latin1')}`)).size === found.length) return found;
      }
      throw netlinkError('read elements', ERRNO.EINTR, `set ${set} changed ${ATTEMPTS} times while it was read`);
    },
    chains: () => socket.dump(request(NFT_MSG.GETCHAIN, [], NFPROTO.unspec)).flatMap(({ type, body }) => {
      const chain = type === NFT_MSG.NEWCHAIN ? decodeChain(body) : undefined;
      return chain ? [chain] : [];
    }),
    generation: () => {
      const answer = socket.ask(request(NFT_MSG.GETGEN, [], NFPROTO.unspec));
      return be32Of(answer && decodeAttributes(answer.body, 4).get(NFTA_GEN_ID)) ?? 0;
    },
    close: () => socket.close(),
  };
}
