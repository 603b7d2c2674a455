import { BlockList, isIP } from 'node:net';
import { type WishedPool } from '@engine/core/contracts/ipam';
import { fail } from '@engine/core/errors';
import { splitOnce } from './units.ts';

const bad = (flag: string, message: string, hint?: string): Error => fail('ERR_INVALID_VALUE', message, { operation: flag, ...(hint === undefined ? {} : { hint }) });

const kind = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 6 ? 'ipv6' : 'ipv4');
interface Subnet { readonly text: string; readonly address: string; readonly prefix: number; contains(address: string): boolean }

function parseCidr(what: string, text: string): Subnet {
  const [address, bits] = splitOnce(text, '/');
  const prefix = Number(bits);
  if (isIP(address) === 0 || !/^\d{1,3}$/.test(bits ?? '') || prefix > (isIP(address) === 6 ? 128 : 32)) throw bad(`--${what}`, `invalid ${what} ${text}: invalid CIDR address: ${text}`);
  const block = new BlockList();
  block.addSubnet(address, prefix, kind(address));
  return { text, address, prefix, contains: (other) => isIP(other) === isIP(address) && block.check(other, kind(other)) };
}

/**
 * `--subnet`, `--gateway`, `--ip-range` and `--aux-address NAME=ADDRESS`, each repeatable and with commas, put together by subnet. Errors:
 * ERR_INVALID_VALUE, in Docker's words; what else can be wrong with them is for the driver to say.
 */
export function parsePools(flags: { readonly subnet: readonly string[]; readonly gateway: readonly string[]; readonly 'ip-range': readonly string[]; readonly 'aux-address': readonly string[] }): WishedPool[] {
  const words = (items: readonly string[]): string[] => items.flatMap((item) => item.split(',')).filter(Boolean);
  const subnets = words(flags.subnet).map((text) => parseCidr('subnet', text));
  const [gateways, ranges, auxiliary] = [words(flags.gateway), words(flags['ip-range']), words(flags['aux-address'])];
  if (subnets.length === 0 && gateways.length + ranges.length > 0) throw bad('--subnet', 'every ip-range or gateway must have a corresponding subnet', 'say the --subnet too');
  for (const [i, a] of subnets.entries()) {
    for (const b of subnets.slice(i + 1)) if (a.contains(b.address) || b.contains(a.address)) throw bad('--subnet', 'multiple overlapping subnet configuration is not supported');
  }
  const pools = new Map(subnets.map((subnet) => [subnet, { subnet: subnet.text } as { subnet: string; gateway?: string; range?: string; auxiliary?: Record<string, string> }]));
  const poolOf = (what: string, text: string, address: string) => {
    const pool = pools.get(subnets.find((subnet) => subnet.contains(address)) as Subnet);
    if (!pool) throw bad(`--${what}`, `no matching subnet for ${what === 'ip-range' ? 'range' : what} ${text}`);
    return pool;
  };
  for (const text of ranges) {
    const pool = poolOf('ip-range', text, parseCidr('ip-range', text).address);
    if (pool.range !== undefined) throw bad('--ip-range', `cannot configure multiple ranges (${text}, ${pool.range}) on the same subnet (${pool.subnet})`);
    pool.range = text;
  }
  for (const text of gateways) {
    if (isIP(text) === 0) throw bad('--gateway', `invalid gateway address: ${text}`);
    const pool = poolOf('gateway', text, text);
    if (pool.gateway !== undefined) throw bad('--gateway', `cannot configure multiple gateways (${text}, ${pool.gateway}) for the same subnet (${pool.subnet})`);
    pool.gateway = text;
  }
  for (const text of auxiliary) {
    const [name, address = ''] = splitOnce(text, '=');
    if (name === '' || isIP(address) === 0) throw bad('--aux-address', `invalid aux-address: ${text}`, 'NAME=ADDRESS is expected');
    const pool = poolOf('aux-address', address, address);
    pool.auxiliary = { ...pool.auxiliary, [name]: address };
  }
  const families = subnets.map(({ address }) => isIP(address));
  if (new Set(families).size < families.length) throw bad('--subnet', "bridge driver doesn't support multiple subnets", 'one of IPv4 and one of IPv6');
  return [...pools.values()];
}
