import { type Machine } from '@engine/core/contracts/common';
import { type Rtnetlink } from '@engine/native/rtnetlink';
import { bitsOf, cidrOf, formatCidr, parseAddress, parseCidr, type Cidr } from './cidr.ts';

/** A range of addresses that is somebody's. `gateway`: of a router elsewhere; everything else is right here. */
export interface Obstacle {
  readonly cidr: Cidr;
  readonly kind: 'network' | 'address' | 'route' | 'gateway' | 'resolver';
  /** For people. */
  readonly words: string;
}

/**
 * A route as wide as this means the world and nobody's network: besides the default route those halves and eighths of it by which VPNs get
 * round it (`0.0.0.0/1`, `128.0.0.0/1`, `2000::/3`).
 */
const WORLD = 8;
/** systemd-resolved's own list: /etc/resolv.conf names only its stub then. */
const RESOLVERS = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf'];

/**
 * Everything a subnet could clash with, as the kernel has it now: subnets of other networks, addresses of every link (also of those that are
 * down, whose routes are not there), routes of every table, name servers. `own`: a link that does not count.
 */
export function obstaclesOf(
  rtnetlink: Pick<Rtnetlink, 'links' | 'addresses' | 'routes'>, machine: Pick<Machine, 'read'>,
  taken: readonly { readonly subnet: string; readonly network: string }[], own?: string,
): readonly Obstacle[] {
  const links = new Map(rtnetlink.links().map((link) => [link.index, link]));
  const nameOf = (index: number | undefined): string => {
    const link = index === undefined ? undefined : links.get(index);
    const engine = /^(engine-[0-9a-f]{8})\b/.exec(link?.alias ?? '')?.[1];
    return link ? `${link.name}${engine === undefined ? '' : ` (${engine})`}` : 'nowhere';
  };
  const isOwn = (index: number | undefined): boolean => own !== undefined && index !== undefined && links.get(index)?.name === own;
  const found: Obstacle[] = [];
  for (const { subnet, network } of taken) {
    const cidr = parseCidr(subnet);
    if (cidr) found.push({ cidr, kind: 'network', words: `${subnet} of network ${network}` });
  }
  for (const { index, address, prefix } of rtnetlink.addresses()) {
    const parsed = parseAddress(address);
    if (!parsed || isOwn(index)) continue;
    // a wide prefix on a link is a mistake or a trick, the address is in use all the same
    const cidr = cidrOf(parsed, prefix < WORLD ? bitsOf(parsed.family) : prefix);
    found.push({ cidr, kind: 'address', words: `${formatCidr(cidr)}, address ${address} of ${nameOf(index)}` });
  }
  for (const { destination, gateway, index } of rtnetlink.routes()) {
    const cidr = parseCidr(destination);
    if (!cidr || cidr.prefix < WORLD || isOwn(index)) continue;
    found.push({ cidr, kind: gateway === undefined ? 'route' : 'gateway', words: `the route ${destination} ${gateway === undefined ? `to ${nameOf(index)}` : `by ${gateway}, ${nameOf(index)}`}` });
  }
  for (const path of RESOLVERS) {
    for (const [, text = ''] of (machine.read(path) ?? '').matchAll(/^[ \t]*nameserver[ \t]+([0-9a-fA-F.:]+)/gm)) {
      const parsed = parseAddress(text);
      if (parsed) found.push({ cidr: cidrOf(parsed, bitsOf(parsed.family)), kind: 'resolver', words: `the name server ${text}` });
    }
  }
  return found;
}
