import { addressBytes, addressNumber, numberAddress } from '@engine/native/addresses';

/** An address as a number. */
export interface Address { readonly family: 4 | 6; readonly value: bigint }
/** A subnet: `first` is its network address, `last` the highest one in it. */
export interface Cidr { readonly family: 4 | 6; readonly prefix: number; readonly first: bigint; readonly last: bigint }

export const bitsOf = (family: 4 | 6): number => (family === 4 ? 32 : 128);
/** `::ffff:0:0/96`, which has no text that {@link parseCidr} takes. */
export const MAPPED: Cidr = { family: 6, prefix: 96, first: 0xffff_0000_0000n, last: 0xffff_ffff_ffffn };

/**
 * An address from its text; undefined when it is none. Strict: no leading zeros (octal to some), no zone (`%eth0`), and no IPv4 address in
 * IPv6's clothes (`::ffff:10.0.0.1`), which would be a second name for the same thing.
 */
export function parseAddress(text: string): Address | undefined {
  // nothing that is an address is longer
  if (text.length > 45) return undefined;
  try {
    const bytes = addressBytes(text);
    const value = addressNumber(bytes);
    return bytes.length === 4 ? { family: 4, value } : value >= MAPPED.first && value <= MAPPED.last ? undefined : { family: 6, value };
  } catch {
    return undefined;
  }
}

/** `10.0.0.0/8` with no bit set behind the prefix; undefined otherwise. */
export function parseCidr(text: string): Cidr | undefined {
  const found = parseLoose(text);
  return found && found.address.value === found.cidr.first ? found.cidr : undefined;
}
/** The subnet in which `10.1.2.3/8` lies. */
export function parseLoose(text: string): { readonly address: Address; readonly cidr: Cidr } | undefined {
  const slash = text.indexOf('/');
  const address = parseAddress(text.slice(0, slash));
  const length = text.slice(slash + 1);
  if (slash < 0 || !address || !/^(0|[1-9]\d{0,2})$/.test(length) || Number(length) > bitsOf(address.family)) return undefined;
  return { address, cidr: cidrOf(address, Number(length)) };
}
/** The subnet of this length in which an address lies. */
export function cidrOf({ family, value }: Address, prefix: number): Cidr {
  const size = 1n << BigInt(bitsOf(family) - prefix);
  const first = value - (value % size);
  return { family, prefix, first, last: first + size - 1n };
}

export const formatAddress = ({ family, value }: Address): string => numberAddress(family, value);
export const formatCidr = ({ family, first, prefix }: Cidr): string => `${formatAddress({ family, value: first })}/${prefix}`;

/** Two subnets overlap only when one lies in the other. */
export const overlaps = (a: Cidr, b: Cidr): boolean => a.family === b.family && a.first <= b.last && b.first <= a.last;
export const contains = (outer: Cidr, inner: Cidr): boolean => outer.family === inner.family && outer.first <= inner.first && inner.last <= outer.last;
export const holds = (cidr: Cidr, address: Address): boolean => cidr.family === address.family && cidr.first <= address.value && address.value <= cidr.last;

/**
 * The first subnet of this length in `base`, from `from` on and then round from the beginning, that overlaps with none of `blocked`. Goes from
 * one obstacle to the next, never from subnet to subnet: a /48 has 65,536 of them.
 */
export function firstFree(base: Cidr, prefix: number, blocked: readonly Cidr[], from: bigint = base.first): Cidr | undefined {
  const obstacles = blocked.filter((one) => overlaps(one, base)).sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  const search = (start: bigint, end: bigint): Cidr | undefined => {
    let candidate = cidrOf({ family: base.family, value: start }, prefix);
    for (const { first, last } of obstacles) {
      if (last < candidate.first) continue;
      if (first > candidate.last) break;
      const next = cidrOf({ family: base.family, value: last }, prefix);
      candidate = { ...candidate, first: next.last + 1n, last: next.last + (next.last - next.first) + 1n };
    }
    return candidate.last <= end ? candidate : undefined;
  };
  return search(from, base.last) ?? (from > base.first ? search(base.first, base.last) : undefined);
}
