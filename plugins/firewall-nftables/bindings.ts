import { type BoundPort, type Endpoint } from '@engine/core/contracts/network';
import { addressBytes } from '@engine/native/netlink';
import { interfaceKey } from '@engine/native/nfnetlink';
import { type Element } from './messages.ts';
import { type MAPS, type Member, type RELAYED, type SetName } from './ruleset.ts';

/** A binding as an element of a map, in both its forms: bytes for the kernel, text for nft. */
export interface Binding extends Element, Member { readonly set: keyof typeof MAPS; readonly port: BoundPort }

const ANY = new Set(['0.0.0.0', '::']);
/** Numbers of inet_proto. */
export const PROTOCOLS = { tcp: 6, udp: 17, sctp: 132 } as const;
const NFTA_DATA_VALUE = 1;
const NOTHING = new Uint8Array(0);
/** Fields of a key (protocol, address, port) or of data (address, port), each padded to 4 bytes; ports are big-endian. */
function fields(protocol: number | undefined, address: Uint8Array, port: number): Uint8Array {
  const at = protocol === undefined ? 0 : 4;
  const bytes = new Uint8Array(at + address.length + 4);
  if (protocol !== undefined) bytes[0] = protocol;
  bytes.set(address, at);
  bytes[at + address.length] = port >> 8;
  bytes[at + address.length + 1] = port & 0xff;
  return bytes;
}

/**
 * Elements for what an endpoint publishes: per family, and only where the endpoint has an address of that family. What is left out is served by the socket that holds the
 * port: `::` and the like of a container without IPv6, and `::1`, from where nothing can be routed to a bridge.
 */
export function bindingsOf({ addresses, ports }: Pick<Endpoint, 'addresses' | 'ports'>): readonly Binding[] {
  // of hundreds of ports most share an address
  const bytes = new Map<string, Uint8Array>();
  const bytesOf = (address: string): Uint8Array => bytes.get(address) ?? bytes.set(address, addressBytes(address)).get(address) as Uint8Array;
  const targets = { 4: addresses.find(({ family }) => family === 4)?.address, 6: addresses.find(({ family }) => family === 6)?.address };
  return ports.flatMap((port): Binding[] => {
    const { protocol, hostAddress, hostPort, containerPort } = port;
    const family = hostAddress.includes(':') ? 6 : 4;
    const target = targets[family];
    if (target === undefined || hostAddress === '::1') return [];
    const any = ANY.has(hostAddress);
    return [{
      set: `${any ? 'any' : 'ports'}${family}`,
      port,
      text: `${protocol} . ${any ? '' : `${hostAddress} . `}${hostPort} : ${target} . ${containerPort}`,
      key: fields(PROTOCOLS[protocol], any ? NOTHING : bytesOf(hostAddress), hostPort),
      data: fields(undefined, bytesOf(target), containerPort),
    }];
  });
}

/** A port that the socket passes on, as an element of a set. */
export interface Relayed extends Element, Member { readonly set: keyof typeof RELAYED }
/** Elements for what an endpoint without IPv6 publishes by IPv6; not for ::1, where nobody but the host itself asks. */
export function relayedOf({ addresses, ports }: Pick<Endpoint, 'addresses' | 'ports'>): readonly Relayed[] {
  if (addresses.some(({ family }) => family === 6)) return [];
  return ports.filter(({ hostAddress }) => hostAddress.includes(':') && hostAddress !== '::1').map(({ protocol, hostAddress, hostPort }) => {
    const any = ANY.has(hostAddress);
    return { set: any ? 'relayed' : 'relayed6', text: `${protocol} . ${any ? '' : `${hostAddress} . `}${hostPort}`, key: fields(PROTOCOLS[protocol], any ? NOTHING : addressBytes(hostAddress), hostPort) };
  });
}

/** Where planPorts has the endpoint's addresses: in the data of elements, with the attribute's header before them, and in the lines of the file. */
export const tokensOf = ({ addresses }: Pick<Endpoint, 'addresses'>): readonly Uint8Array[] => addresses.flatMap(({ address }) => {
  const bytes = addressBytes(address);
  return [Buffer.concat([Uint8Array.of(4 + bytes.length + 4, 0, NFTA_DATA_VALUE, 0), bytes]), Buffer.from(` : ${address} . `)];
});

/** The key of a link's name in a set of type `ifname`; `twice` in one of pairs. */
export function linkKey(link: string, twice = false): Uint8Array {
  const one = interfaceKey(link);
  return twice ? Buffer.concat([one, one]) : one;
}

/** What is kept of a run's bindings, so that they can be put back: a line per element, `any4 tcp . 8080 : 10.208.0.2 . 80`. */
export const bindingLines = (bindings: readonly Member[]): string => bindings.map(({ set, text }) => `${set} ${text}\n`).join('');

const LINE = /^((?:ports|any)[46](?=.* : )|relayed6?(?!.* : )) ((?:tcp|udp|sctp)(?: \. [0-9a-f.:]+)? \. \d{1,5}(?: : [0-9a-f.:]+ \. \d{1,5})?)$/;
/** The reverse. Lines that are none (a file cut short) are left out. */
export function readBindingLines(text: string): readonly Member[] {
  return text.split('\n').flatMap((line) => {
    const [, set, element] = LINE.exec(line) ?? [];
    return set && element ? [{ set: set as SetName, text: element }] : [];
  });
}

/** Key and data of such a line as the kernel has them, in hex: what an element that is there is compared with. */
export function readKey({ set, text }: Member): string {
  const [key = '', data = ''] = text.split(' : ');
  const fields = key.split(' . ');
  const [address = '', port = ''] = data.split(' . ');
  if (data === '') return Buffer.from(relayedOf({ addresses: [], ports: [{ protocol: fields[0] as BoundPort['protocol'], hostAddress: fields.length === 3 ? fields[1] ?? '' : '::', hostPort: Number(fields.at(-1)), containerPort: 0 }] })[0]?.key ?? NOTHING).toString('hex');
  const [element] = bindingsOf({
    addresses: [{ family: address.includes(':') ? 6 : 4, address, prefix: 0 }],
    ports: [{ protocol: fields[0] as BoundPort['protocol'], hostAddress: set.startsWith('any') ? (set === 'any4' ? '0.0.0.0' : '::') : fields[1] ?? '', hostPort: Number(fields.at(-1)), containerPort: Number(port) }],
  });
  return element?.data ? Buffer.concat([element.key, element.data]).toString('hex') : '';
}
