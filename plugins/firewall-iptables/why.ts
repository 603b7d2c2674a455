import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { type BoundPort, type Endpoint } from '@engine/core/contracts/network';
import { type Foreign } from './foreign.ts';
import { type Variant } from './programs.ts';
import { type Family, type Rules } from './reader.ts';
import { bindingRule, familyOf, networkChains, sharedChains, targetOf, type Names } from './rules.ts';

/** What an explanation is made of: all of it as the kernel has it now. */
export interface Facts {
  readonly binding: BoundPort;
  readonly endpoint: Endpoint;
  readonly network: FirewallNetwork;
  readonly names: Names;
  readonly reader: Rules;
  readonly variant: Variant;
  readonly foreign: Foreign;
  /** Addresses of the host. */
  readonly addresses: readonly { readonly address: string }[];
  /** Files of /proc/sys. */
  read(path: string): string | undefined;
}

const host = (address: string, port: number): string => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);
const isLoopback = (address: string): boolean => address === '::1' || address.startsWith('127.');
const isAny = (address: string): boolean => address === '0.0.0.0' || address === '::';
const commandOf = (family: Family, variant: Variant): string => `${family === 4 ? 'iptables' : 'ip6tables'}-${variant}`;

/** Who can reach a binding, and by which rules; a line each. */
export function explain(facts: Facts): string[] {
  const { binding, endpoint, network } = facts;
  const { protocol, hostAddress, hostPort, containerPort } = binding;
  const family = familyOf(hostAddress);
  const target = targetOf(binding, endpoint) ?? endpoint.addresses[0]?.address ?? '?';
  return [
    `${host(hostAddress, hostPort)}/${protocol} leads to ${host(target, containerPort)} of container ${endpoint.container.slice(0, 12)} on network ${network.name}`,
    who(facts, family),
    ...way(facts, family),
    ...(targetOf(binding, endpoint) === undefined ? [] : forwarding(facts, family)),
  ];
}

function who({ binding: { hostAddress }, addresses }: Facts, family: Family): string {
  const own = addresses.map(({ address }) => address).filter((address) => familyOf(address) === family && !isLoopback(address) && !address.startsWith('fe80:'));
  if (isLoopback(hostAddress)) return 'reachable from this host only';
  if (isAny(hostAddress)) return `reachable by everyone who can reach this host over IPv${family}: ${own.length ? own.join(', ') : 'it has no address but loopback now'}`;
  return own.includes(hostAddress) ? `reachable by everyone who can reach ${hostAddress} of this host` : `reachable by nobody: no interface of this host has ${hostAddress} now`;
}

function way(facts: Facts, family: Family): string[] {
  const { binding, endpoint, network, names, reader, variant } = facts;
  const { hostAddress } = binding;
  const gateway = network.gateways.find((address) => familyOf(address) === family) ?? network.gateways[0] ?? 'of the network';
  const relay = `the socket that holds the port relays: the container sees the gateway ${gateway} as client`;
  const target = targetOf(binding, endpoint);
  if (target === undefined) return [hostAddress === '::1' ? `::1 cannot be routed to a bridge: ${relay}` : `the container has no IPv${family} address: ${relay}`];
  const command = commandOf(family, variant);
  const chain = names.endpoint(endpoint);
  const rule = bindingRule(chain, binding, target);
  const wanted = endpoint.ports.filter((port) => familyOf(port.hostAddress) === family && targetOf(port, endpoint) !== undefined).length;
  const lacking = [
    ...sharedChains(family, names).filter(({ chain: shared }) => shared === names.ports).flatMap(({ hooks }) => hooks).filter(({ table, from, mentions }) => !reader.rules(family, table, from).some((one) => one.mentions(mentions))).map(({ from, spec }) => `-A ${from} ${spec}`),
    ...(reader.rules(family, 'nat', names.ports).some((one) => one.mentions(chain)) ? [] : [`-A ${names.ports} -j ${chain}`]),
    ...(reader.rules(family, 'nat', chain).length === wanted ? [] : [rule]),
  ];
  if (lacking.length > 0) return [...lacking.map((line) => `${command} -t nat has no ${line} now`), relay];
  const lines = [`by ${command} -t nat ${rule}: the container sees the client's own address`];
  if (family === 4 && (isAny(hostAddress) || isLoopback(hostAddress))) {
    const path = `/proc/sys/net/ipv4/conf/${network.link}/route_localnet`;
    lines.push(facts.read(path)?.trim() === '0' ? `127.0.0.1 of this host: not, because ${path} is 0` : `127.0.0.1 of this host: by the same rule; the container sees the gateway ${gateway}`);
  }
  if (isLoopback(hostAddress)) lines.push(`kept from others by ${command} -t mangle chain ${names.loopback}${reader.rules(family, 'mangle', 'PREROUTING').some((one) => one.mentions(names.loopback)) ? '' : ', which is not there now'}`);
  if (hostAddress === '::') lines.push(`::1 of this host: ${relay}`);
  if (isAny(hostAddress)) lines.push(`containers of network ${network.name}, through an address of this host: they appear as the gateway; those of other networks keep their address`);
  return lines;
}

function forwarding({ network, names, reader, variant, foreign, read }: Facts, family: Family): string[] {
  const command = commandOf(family, variant);
  const path = family === 4 ? '/proc/sys/net/ipv4/ip_forward' : '/proc/sys/net/ipv6/conf/all/forwarding';
  const own = networkChains(family, network, names).filter(({ table, chain, rules }) => reader.rules(family, table, chain).length !== rules.length);
  const at = reader.rules(family, 'filter', 'FORWARD').findIndex((one) => one.mentions(names.forward));
  return [
    ...(read(path)?.trim() === '0' ? [`from other hosts: not, because ${path} is 0`] : []),
    ...own.map(({ table, chain }) => `${command} -t ${table} chain ${chain} is not as it should be: the next start on network ${network.name} puts it back`),
    at < 0 ? `${command} -t filter FORWARD has no jump to ${names.forward} now` : `forwarded by ${command} -t filter chain ${names.network('F', network)}, in FORWARD ${at === 0 ? 'before all others' : `after ${at} rule${at === 1 ? '' : 's'} of others`}`,
    ...(network.internal ? [`from other hosts and networks: not, because network ${network.name} is internal (${command} -t mangle chain ${names.network('G', network)})`] : []),
    ...foreign.why(network, family),
  ];
}
