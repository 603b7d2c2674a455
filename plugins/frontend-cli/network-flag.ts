import { isIP } from 'node:net';
import { type ContainerRequest } from '@engine/core/api';
import { type EndpointWish } from '@engine/core/contracts/network';
import { fail } from '@engine/core/errors';
import { csvFields, invalid, splitOnce } from './units.ts';

/** What the flags besides `--network` say of the first network. */
export interface EndpointFlags {
  readonly network?: readonly string[];
  readonly ip?: string | undefined;
  readonly ip6?: string | undefined;
  readonly 'mac-address'?: string | undefined;
  readonly 'network-alias'?: readonly string[];
}

const bad = (flag: string, message: string, hint?: string): Error => fail('ERR_INVALID_VALUE', message, { operation: flag, ...(hint === undefined ? {} : { hint }) });

export function parseIp(flag: string, family: 4 | 6, text: string): string {
  if (isIP(text) !== family || text.includes('%')) throw bad(flag, `invalid IPv${family} address: ${text}`);
  return text;
}
/** Six bytes, with `:`, `-` or Cisco's dots between them. */
export function parseMac(flag: string, text: string): string {
  const digits = /^([0-9a-f]{2}([:-])[0-9a-f]{2}(?:\2[0-9a-f]{2}){4}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4})$/i.test(text) ? text.toLowerCase().replaceAll(/[:.-]/g, '') : undefined;
  if (digits === undefined) throw bad(flag, `${text} is not a valid mac address`);
  if (Number.parseInt(digits.slice(0, 2), 16) & 1) throw bad(flag, `${text} is a multicast address`, 'the first byte must be even');
  return (digits.match(/../g) ?? []).join(':');
}
/** `NAME=VALUE`. */
export function parseDriverOption(flag: string, text: string): [string, string] {
  const [name, value] = splitOnce(text, '=');
  if (name === '' || value === undefined) throw bad(flag, `invalid key value pair format in driver options: ${text}`);
  return [name, value];
}
export function parseAlias(flag: string, text: string): string {
  if (!/^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?$/.test(text)) throw bad(flag, `invalid alias: ${JSON.stringify(text)}`, 'letters, digits, dots, - and _');
  return text;
}

const setters: Readonly<Record<string, (wish: EndpointWish, value: string) => void>> = {
  name: (wish, value) => void (wish.network = value),
  alias: (wish, value) => void wish.aliases.push(parseAlias('--network', value)),
  ip: (wish, value) => void (wish.ip = parseIp('--network', 4, value)),
  ip6: (wish, value) => void (wish.ip6 = parseIp('--network', 6, value)),
  'mac-address': (wish, value) => void (wish.mac = parseMac('--network', value)),
  mac: (wish, value) => void (wish.mac = parseMac('--network', value)),
  'driver-opt': (wish, value) => {
    const [name, text] = parseDriverOption('--network', value);
    wish.options = { ...wish.options, [name]: text };
  },
};

/** `NETWORK`, `name=NETWORK,alias=a,ip=…` as Docker has it, or `NETWORK:alias=a,ip=…` as podman has it. Errors: ERR_INVALID_VALUE. */
export function parseNetwork(text: string): EndpointWish {
  const podman = /^([\w.-]+):((?:alias|ip|ip6|mac)=.*)$/.exec(text);
  if (!podman && !text.includes('=')) {
    if (text === '') throw bad('--network', 'no name set for network');
    return { network: text, aliases: [] };
  }
  const wish: EndpointWish = { network: podman?.[1] ?? '', aliases: [] };
  for (const field of csvFields('--network', podman?.[2] ?? text)) {
    const [key, value] = splitOnce(field, '=');
    const set = setters[key.trim().toLowerCase()];
    if (value === undefined || key === '') throw invalid('--network', text, `invalid field ${field}`);
    if (!set) throw invalid('--network', text, `invalid field key ${key}; ${Object.keys(setters).join(', ')} are known`);
    set(wish, value.trim());
  }
  if (wish.network === '') throw invalid('--network', text, 'network name/id is not specified');
  return wish;
}

/** What is no network that a user has made. */
const isMode = (network: string): boolean => ['default', 'bridge', 'host', 'none'].includes(network) || network.startsWith('container:');
const isSaid = ({ aliases, ip, ip6, mac, options }: EndpointWish): boolean => aliases.length > 0 || [ip, ip6, mac, options].some((value) => value !== undefined);

/** `--ip`, `--ip6`, `--mac-address` and `--network-alias` belong to the first network. */
function withFlags(wish: EndpointWish, flags: EndpointFlags): EndpointWish {
  const conflict = (flag: string, what: string): Error => fail('ERR_USAGE', `conflicting options: cannot specify both ${flag} and per-network ${what}`, { hint: 'say it in one place' });
  const names = (flags['network-alias'] ?? []).map((text) => parseAlias('--network-alias', text));
  if (names.length > 0 && wish.aliases.length > 0) throw conflict('--network-alias', 'alias');
  if (flags.ip !== undefined && wish.ip !== undefined) throw conflict('--ip', 'IPv4 address');
  if (flags.ip6 !== undefined && wish.ip6 !== undefined) throw conflict('--ip6', 'IPv6 address');
  if (flags['mac-address'] !== undefined && wish.mac !== undefined) throw conflict('--mac-address', 'MAC address');
  return {
    ...wish, aliases: [...wish.aliases, ...names],
    ...(flags.ip === undefined ? {} : { ip: parseIp('--ip', 4, flags.ip) }), ...(flags.ip6 === undefined ? {} : { ip6: parseIp('--ip6', 6, flags.ip6) }),
    ...(flags['mac-address'] === undefined ? {} : { mac: parseMac('--mac-address', flags['mac-address']) }),
  };
}

/**
 * The networks of a container to be made. Nothing but a name leaves `endpoints` out. What only the networks' records can tell is for the engine to refuse.
 * Errors: ERR_USAGE, ERR_INVALID_VALUE, in Docker's words.
 */
export function networkRequest(flags: EndpointFlags): Pick<ContainerRequest, 'network' | 'endpoints'> {
  const [first = { network: 'default', aliases: [] }, ...more] = (flags.network ?? []).map(parseNetwork);
  const wishes = [withFlags(first, flags), ...more];
  const seen = new Set<string>();
  for (const { network } of wishes) {
    if (seen.has(network)) throw fail('ERR_USAGE', `network "${network}" is specified multiple times`, { operation: '--network' });
    seen.add(network);
  }
  if (wishes.length > 1 && wishes.some(({ network }) => isMode(network))) {
    throw fail('ERR_USAGE', 'conflicting options: cannot attach both user-defined and non-user-defined network-modes', { operation: '--network', hint: 'bridge, none, host and container: stand alone; others can be added with: engine network connect' });
  }
  for (const { network, aliases } of wishes) {
    if (aliases.length > 0 && isMode(network) && network !== 'default') throw fail('ERR_USAGE', 'network-scoped aliases are only supported for user-defined networks', { operation: '--network-alias', hint: 'make one with: engine network create NAME' });
  }
  return { network: first.network, ...(wishes.length > 1 || wishes.some(isSaid) ? { endpoints: wishes } : {}) };
}
