import { createHash } from 'node:crypto';
import { fail } from '@engine/core/errors';
import { type IpamDriver, type PoolsRequest, type WishedPool } from '@engine/core/contracts/ipam';
import { type AddressPool } from '@engine/core/contracts/network';
import { type DriverDeps } from '@engine/core/contracts/common';
import { type Rtnetlink } from '@engine/native/rtnetlink';
import { MAPPED, bitsOf, firstFree, formatAddress, formatCidr, holds, overlaps, parseAddress, parseCidr, parseLoose, type Address, type Cidr } from './cidr.ts';
import { obstaclesOf, type Obstacle } from './obstacles.ts';

const PLUGIN = 'ipam-local';

export interface IpamOptions {
  /** Where subnets are cut from, in order. */
  readonly pools?: readonly { readonly base: string; readonly size: number }[];
}
/** The second and third are for hosts whose routes take the whole of 10.0.0.0/8 (VPNs). */
const DEFAULT_POOLS: NonNullable<IpamOptions['pools']> = [{ base: '10.208.0.0/12', size: 20 }, { base: '172.28.0.0/14', size: 20 }, { base: '192.168.192.0/18', size: 24 }];

/** Ranges that no network can have. */
const RESERVED: readonly (readonly [string, string])[] = [
  ['0.0.0.0/8', '"this" network'], ['127.0.0.0/8', 'loopback'], ['224.0.0.0/4', 'multicast'], ['255.255.255.255/32', 'broadcast'],
  ['::/96', 'loopback and IPv4-compatible addresses'], ['fe80::/10', 'link-local addresses'], ['ff00::/8', 'multicast'],
];
const reserved: readonly (readonly [Cidr, string])[] = [...RESERVED.map(([text, what]) => [parseCidr(text) as Cidr, what] as const), [MAPPED, 'IPv4 addresses in IPv6\'s form']];

const invalid = (text: string, path: string, hint?: string): Error => fail('ERR_INVALID_VALUE', text, { path, plugin: PLUGIN, ...(hint === undefined ? {} : { hint }) });
const quoted = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text);

function addressOf(text: string, what: string): Address {
  const address = parseAddress(text);
  if (!address) throw invalid(`${what}: ${quoted(text)} is no address`, text, 'write it as 10.0.0.2 or fd00::2');
  return address;
}
function cidrOf(text: string, what: string): Cidr {
  const found = parseLoose(text);
  if (!found) throw invalid(`${what}: ${quoted(text)} is no subnet`, text, 'write it as 10.10.0.0/24 or fd00:10::/64');
  if (found.address.value !== found.cidr.first) throw invalid(`${what}: ${text} has bits set behind its prefix`, text, `write ${formatCidr(found.cidr)}`);
  return found.cidr;
}
const subnetOf = (pool: AddressPool): Cidr => cidrOf(pool.subnet, 'subnet');

/**
 * Why an address of a subnet is nobody's. A /31 and a /127 have two addresses and both can be used (RFC 3021, RFC 6164); else the first is the
 * network's (IPv6: every router's, RFC 4291 2.6.1) and, with IPv4, the last the broadcast.
 */
function special({ family, prefix, first, last }: Cidr, value: bigint): string | undefined {
  if (bitsOf(family) - prefix < 2) return undefined;
  if (value === first) return family === 4 ? 'the address of the network itself' : 'the address of all routers';
  return family === 4 && value === last ? 'the broadcast address' : undefined;
}
/** Of a subnet that is there or was asked for: it may lie inside of what a router elsewhere is responsible for, the longer prefix wins. */
const isInTheWay = (subnet: Cidr, { cidr, kind }: Obstacle): boolean => overlaps(cidr, subnet) && !(kind === 'gateway' && cidr.prefix < subnet.prefix);
const firstHost = (subnet: Cidr): bigint => (special(subnet, subnet.first) === undefined ? subnet.first : subnet.first + 1n);

/** Addresses for networks on this host: subnets that are nobody else's, and out of each the next address in turn. */
export function createLocalIpam(deps: Pick<DriverDeps, 'machine'> & { readonly rtnetlink: Pick<Rtnetlink, 'links' | 'addresses' | 'routes'> }, options: IpamOptions = {}): IpamDriver {
  const { machine, rtnetlink } = deps;
  const bases = (options.pools ?? DEFAULT_POOLS).map(({ base: text, size }) => {
    const base = cidrOf(text, 'options.ipam-local.pools');
    const room = bitsOf(base.family) - size;
    if (size < base.prefix || room < 1) throw fail('ERR_CONFIG_INVALID', `options.ipam-local.pools: ${text} cannot be cut into /${size}`, { path: text, plugin: PLUGIN, hint: `a size from ${base.prefix} to ${bitsOf(base.family) - 1}` });
    return { base, size };
  });
  /** How often subnets of ours were taken by another engine just then: each time the search begins elsewhere, else both would choose the same again. */
  let contested = 0;

  const digest = (...parts: readonly (string | number)[]): Buffer => createHash('sha256').update(parts.join('\0')).digest();
  /** fdXX:XXXX:XXXX::/48 of this engine: 40 bits, as RFC 4193 wants. */
  function siteOf(instance: string): Cidr {
    const bytes = digest('ipam-local', instance);
    return { family: 6, prefix: 48, first: BigInt(`0xfd${bytes.toString('hex', 0, 5)}`) << 80n, last: (BigInt(`0xfd${bytes.toString('hex', 0, 5)}`) << 80n) | ((1n << 80n) - 1n) };
  }
  function basesFor(family: 4 | 6, request: PoolsRequest): readonly { readonly base: Cidr; readonly size: number; readonly from?: bigint }[] {
    const configured = bases.filter(({ base }) => base.family === family);
    if (family === 6 && configured.length === 0) {
      const base = siteOf(request.instance);
      return [{ base, size: 64, from: base.first + (BigInt(digest('ipam-local', request.network, contested).readUInt16BE()) << 64n) }];
    }
    if (contested === 0) return configured;
    return configured.map(({ base, size }) => {
      const count = 1n << BigInt(size - base.prefix);
      return { base, size, from: base.first + (BigInt(`0x${digest('ipam-local', request.instance, contested).toString('hex', 0, 6)}`) % count) * (1n << BigInt(bitsOf(family) - size)) };
    });
  }
  function choose(family: 4 | 6, request: PoolsRequest, obstacles: readonly Obstacle[]): Cidr {
    const blocked = [...obstacles.map(({ cidr }) => cidr), ...reserved.map(([cidr]) => cidr)];
    const places = basesFor(family, request);
    for (const { base, size, from } of places) {
      const subnet = firstFree(base, size, blocked, from);
      if (subnet) return subnet;
    }
    throw fail('ERR_NO_ADDRESS', `every subnet of ${places.map(({ base, size }) => `${formatCidr(base)} (in /${size})`).join(', ') || `the pools for IPv${family}`} is taken`, {
      plugin: PLUGIN, hint: 'remove networks (engine network prune), name a --subnet, or add to options.ipam-local.pools',
    });
  }

  /** Everything of a wish, checked and completed; `subnet` is the one asked for or the one chosen. */
  function complete(wish: WishedPool, subnet: Cidr): AddressPool {
    const { family } = subnet;
    const text = formatCidr(subnet);
    const inside = (value: string, what: string): Address => {
      const address = addressOf(value, what);
      if (!holds(subnet, address)) throw invalid(`${what}: ${value} does not lie in ${text}`, value);
      const why = special(subnet, address.value);
      if (why !== undefined) throw invalid(`${what}: ${value} is ${why}`, value);
      return address;
    };
    const range = wish.range === undefined ? undefined : cidrOf(wish.range, 'ip-range');
    if (range && (range.family !== family || range.prefix < subnet.prefix || !overlaps(range, subnet))) throw invalid(`ip-range: ${wish.range} does not lie in ${text}`, String(wish.range));
    const auxiliary = Object.entries(wish.auxiliary ?? {}).map(([name, value]) => [name, formatAddress(inside(value, `aux-address ${name}`))] as const);
    const others = new Set(auxiliary.map(([, address]) => address));
    let value = firstHost(subnet);
    while (others.has(formatAddress({ family, value }))) value++;
    const gateway = wish.gateway === undefined ? inside(formatAddress({ family, value }), 'gateway') : inside(wish.gateway, 'gateway');
    if (others.has(formatAddress(gateway))) throw invalid(`gateway: ${formatAddress(gateway)} is an auxiliary address too`, formatAddress(gateway));
    const pool: AddressPool = {
      family, subnet: text, gateway: formatAddress(gateway),
      ...(range ? { range: formatCidr(range) } : {}), ...(auxiliary.length > 0 ? { auxiliary: Object.fromEntries(auxiliary) } : {}),
    };
    for (const _ of addresses(pool)) return pool;
    throw invalid(`subnet: ${range ? `${wish.range} of ` : ''}${text} has no address for a container`, text, family === 4 ? 'a /30 has one, a /24 253' : 'choose a /64');
  }

  function refuseTaken(subnet: Cidr, obstacles: readonly Obstacle[]): void {
    const text = formatCidr(subnet);
    const forbidden = reserved.find(([cidr]) => overlaps(cidr, subnet));
    if (forbidden) throw invalid(`subnet: ${text} overlaps with ${formatCidr(forbidden[0])}, which is for ${forbidden[1]}`, text);
    const hit = obstacles.find((one) => isInTheWay(subnet, one));
    if (hit) throw fail('ERR_SUBNET_TAKEN', `subnet ${text} overlaps with ${hit.words}`, { path: text, plugin: PLUGIN });
  }

  function* addresses(pool: AddressPool, last?: string): Generator<string> {
    const subnet = subnetOf(pool);
    const { family } = subnet;
    const within = pool.range === undefined ? subnet : cidrOf(pool.range, 'ip-range');
    const not = new Set([pool.gateway, ...Object.values(pool.auxiliary ?? {})].map((text) => addressOf(text, 'address').value));
    const before = last === undefined ? undefined : parseAddress(last);
    const start = before && holds(within, before) && before.value < within.last ? before.value + 1n : within.first;
    for (let value = start, round = 0; round < 2; value = within.first, round++) {
      const end = round === 0 ? within.last : start - 1n;
      for (; value <= end; value++) if (!not.has(value) && special(subnet, value) === undefined) yield formatAddress({ family, value });
    }
  }

  return {
    name: 'local',
    features: new Set(),
    probe: () => ({ available: true, score: 50, reasons: [`subnets of ${bases.map(({ base, size }) => `${formatCidr(base)} (/${size})`).join(', ')}, held against the routes of this host`] }),

    choosePools(request) {
      const obstacles = obstaclesOf(rtnetlink, machine, request.taken);
      const wished = new Map<4 | 6, { readonly wish: WishedPool; readonly subnet: Cidr }>();
      let anonymous: WishedPool | undefined;
      for (const wish of request.pools) {
        if (wish.subnet === undefined) {
          const part = (['gateway', 'range', 'auxiliary'] as const).find((key) => wish[key] !== undefined);
          if (part) throw invalid(`${{ gateway: '--gateway', range: '--ip-range', auxiliary: '--aux-address' }[part]} is of no subnet`, part, 'name its --subnet too');
          anonymous = wish;
          continue;
        }
        const subnet = cidrOf(wish.subnet, 'subnet');
        if (wished.has(subnet.family)) throw invalid(`subnet: ${wish.subnet} is the second one of IPv${subnet.family}`, wish.subnet, 'a network has one subnet of each family');
        if (subnet.family === 6 && !request.ipv6) throw invalid(`subnet: ${wish.subnet} is IPv6, which the network does not have`, wish.subnet, 'add --ipv6');
        if (bitsOf(subnet.family) === subnet.prefix) throw invalid(`subnet: ${wish.subnet} has no room for a gateway and a container`, wish.subnet);
        refuseTaken(subnet, obstacles);
        wished.set(subnet.family, { wish, subnet });
      }
      const families: readonly (4 | 6)[] = request.ipv6 ? [4, 6] : [4];
      return families.map((family) => {
        const asked = wished.get(family);
        return asked ? complete(asked.wish, asked.subnet) : complete(anonymous ?? {}, choose(family, request, obstacles));
      });
    },

    conflict(pools, link) {
      const obstacles = obstaclesOf(rtnetlink, machine, [], link).filter(({ kind }) => kind !== 'resolver');
      for (const pool of pools) {
        const subnet = subnetOf(pool);
        const hit = obstacles.find((one) => isInTheWay(subnet, one));
        if (!hit) continue;
        contested++;
        return `${formatCidr(subnet)} overlaps with ${hit.words}`;
      }
      return undefined;
    },

    candidates: addresses,

    check(pool, text) {
      const subnet = subnetOf(pool);
      const address = addressOf(text, 'address');
      const canonical = formatAddress(address);
      if (!holds(subnet, address)) throw invalid(`address ${canonical} does not lie in ${pool.subnet}`, text);
      const why = special(subnet, address.value)
        ?? (addressOf(pool.gateway, 'gateway').value === address.value ? 'the gateway' : undefined)
        ?? Object.entries(pool.auxiliary ?? {}).find(([, other]) => addressOf(other, 'aux-address').value === address.value)?.[0];
      if (why !== undefined) throw invalid(`address ${canonical} of ${pool.subnet} is ${why}`, text);
      return canonical;
    },
  };
}
