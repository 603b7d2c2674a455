/** IP addresses and subnets as text, bytes and numbers. Pure functions. Errors: RangeError for text that is none. */

import { addressBytes } from '@engine/core/contracts/common';

export { addressBytes };
export type Family = 4 | 6;

/** The one text of an address: RFC 5952 for IPv6 (addresses that hold an IPv4 one with it: `::ffff:10.0.0.1`). `bytes`: 4 or 16 of them. */
export function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.length !== 16) throw new RangeError(`an address has 4 or 16 bytes, not ${bytes.length}`);
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] as number) << 8) | (bytes[2 * i + 1] as number));
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) return `::ffff:${bytes.subarray(12).join('.')}`;
  // the longest run of zeros, the first of several, none of one group
  let from = -1;
  let length = 1;
  for (let at = 0; at < 8;) {
    let end = at;
    while (end < 8 && groups[end] === 0) end++;
    if (end - at > length) [from, length] = [at, end - at];
    at = Math.max(end, at + 1);
  }
  const text = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  return from < 0 ? text(groups) : `${text(groups.slice(0, from))}::${text(groups.slice(from + length))}`;
}

/** The same address in its one text. */
export const canonicalAddress = (address: string): string => addressText(addressBytes(address));
/** 4 or 6; undefined for what is no address. */
export function addressFamily(address: string): Family | undefined {
  try {
    return addressBytes(address).length === 4 ? 4 : 6;
  } catch {
    return undefined;
  }
}
export const isAddress = (text: string): boolean => addressFamily(text) !== undefined;

/** An address as a number, to count with. */
export function addressNumber(address: string | Uint8Array): bigint {
  const bytes = typeof address === 'string' ? addressBytes(address) : address;
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
}
/** The reverse. Errors: RangeError outside of the family. */
export function numberAddress(family: Family, number: bigint): string {
  const size = family === 4 ? 4 : 16;
  if (number < 0n || number >> BigInt(size * 8)) throw new RangeError(`no IPv${family} address has the number ${number}`);
  return addressText(Buffer.from(number.toString(16).padStart(size * 2, '0'), 'hex'));
}

/** A subnet: `10.1.2.0/24`. */
export interface Cidr {
  readonly family: Family;
  /** The address as it was written (canonical text); its host part may be set. */
  readonly address: string;
  readonly prefix: number;
  /** The first address, canonical text. */
  readonly network: string;
  /** First and last address as numbers. */
  readonly first: bigint;
  readonly last: bigint;
}

/** Errors: RangeError for what is no CIDR. An address without a prefix is refused, unless `single` (then it is a subnet of one). */
export function parseCidr(text: string, options: { readonly single?: boolean } = {}): Cidr {
  const [, address = '', length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const family = addressFamily(address);
  const bits = family === 4 ? 32 : 128;
  const prefix = length === undefined ? bits : Number(length);
  if (family === undefined || prefix > bits || (length === undefined && !options.single) || (length !== undefined && String(prefix) !== length)) throw new RangeError(`not a subnet: ${text}`);
  const number = addressNumber(address);
  const size = 1n << BigInt(bits - prefix);
  const first = number - (number % size);
  return { family, address: canonicalAddress(address), prefix, network: numberAddress(family, first), first, last: first + size - 1n };
}
const asCidr = (subnet: string | Cidr): Cidr => (typeof subnet === 'string' ? parseCidr(subnet, { single: true }) : subnet);

/** `network/prefix`, with the host part cleared. */
export const cidrText = (subnet: string | Cidr): string => {
  const { network, prefix } = asCidr(subnet);
  return `${network}/${prefix}`;
};
/** Does `subnet` hold all of `inner` (an address or a subnet)? */
export function contains(subnet: string | Cidr, inner: string | Cidr): boolean {
  const [a, b] = [asCidr(subnet), asCidr(inner)];
  return a.family === b.family && a.first <= b.first && b.last <= a.last;
}
/** Have they an address in common? */
export function overlaps(one: string | Cidr, other: string | Cidr): boolean {
  const [a, b] = [asCidr(one), asCidr(other)];
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
}
/** The last address of an IPv4 subnet; undefined where there is no broadcast (IPv6, /31, /32). */
export function broadcastOf(subnet: string | Cidr): string | undefined {
  const { family, prefix, last } = asCidr(subnet);
  return family === 4 && prefix < 31 ? numberAddress(4, last) : undefined;
}

/** A MAC address: `02:42:ac:11:00:02` ↔ 6 bytes. Errors: RangeError. */
export function macBytes(mac: string): Buffer {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(mac)) throw new RangeError(`not a MAC address: ${mac}`);
  return Buffer.from(mac.replaceAll(/[:-]/g, ''), 'hex');
}
export const macText = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
