import { neededAccepts } from '@engine/native/foreign-accepts';
import { describeChain, type Ruleset, type RulesetRule } from '@engine/native/foreign-chains';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { type BoundPort, type Endpoint } from '@engine/core/contracts/network';
import { bindingsOf } from './bindings.ts';
import { CHAINS, DNAT, FROM_LOOPBACK, INTO_INTERNAL, TO_PUBLISHED } from './ruleset.ts';

/** What an explanation is made of: all of it as the kernel has it now. */
export interface Facts {
  readonly binding: BoundPort;
  readonly endpoint: Endpoint;
  readonly network: FirewallNetwork;
  readonly table: string;
  readonly ruleset: Ruleset;
  /** Addresses of the host. */
  readonly addresses: readonly { readonly address: string }[];
  hasElement(table: string, set: string, key: Uint8Array): boolean;
  /** Files of /proc/sys. */
  read(path: string): string | undefined;
}

const host = (address: string, port: number): string => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);
const isLoopback = (address: string): boolean => address === '::1' || address.startsWith('127.');
const isAny = (address: string): boolean => address === '0.0.0.0' || address === '::';

/** Who can reach a binding, and by which rule; a line each. */
export function explain(facts: Facts): readonly string[] {
  const { binding, endpoint, network } = facts;
  const family = binding.hostAddress.includes(':') ? 6 : 4;
  const target = endpoint.addresses.find((candidate) => candidate.family === family) ?? endpoint.addresses[0];
  return [
    `${host(binding.hostAddress, binding.hostPort)}/${binding.protocol} leads to ${host(target?.address ?? '?', binding.containerPort)} of container ${endpoint.container.slice(0, 12)} on network ${network.name}`,
    ...who(facts, family),
    ...way(facts, family),
    // what the host itself sends is not forwarded
    ...(isLoopback(binding.hostAddress) ? [] : forwarding(facts, family)),
  ];
}

function who({ binding: { hostAddress }, addresses }: Facts, family: 4 | 6): string[] {
  const own = addresses.map(({ address }) => address).filter((address) => address.includes(':') === (family === 6) && !isLoopback(address) && !address.startsWith('fe80:'));
  if (isLoopback(hostAddress)) return ['reachable from this host only'];
  if (isAny(hostAddress)) return [`reachable by everyone who can reach this host over IPv${family}: ${own.length ? own.join(', ') : 'it has no address but loopback now'}`];
  return [own.includes(hostAddress) ? `reachable by everyone who can reach ${hostAddress} of this host` : `reachable by nobody: no interface of this host has ${hostAddress} now`];
}

const gatewayOf = ({ network }: Facts, family: 4 | 6): string => network.gateways.find((gateway) => gateway.includes(':') === (family === 6)) ?? network.gateways[0] ?? 'of the network';
/** The live rule that was made of this text of ruleset.ts; rules of a chain keep their order. Undefined: the chain isn't as it was made. */
function liveRule(facts: Facts, chain: string, text: string): RulesetRule | undefined {
  const made = CHAINS.find(({ name }) => name === chain)?.rules ?? [];
  const rules = facts.ruleset.chains.find(({ family, table, name }) => family === 'inet' && table === facts.table && name === chain)?.rules ?? [];
  return rules.length === made.length ? rules[made.indexOf(text)] : undefined;
}

function way(facts: Facts, family: 4 | 6): string[] {
  const { binding, endpoint, table } = facts;
  const relay = `the socket that holds the port relays: the container sees the gateway ${gatewayOf(facts, endpoint.addresses.some((address) => address.family === family) ? family : 4)} as client`;
  const [element] = bindingsOf({ addresses: endpoint.addresses, ports: [binding] });
  if (!element) return [binding.hostAddress === '::1' ? `::1 cannot be routed to a bridge: ${relay}` : `the container has no IPv${family} address: ${relay}`];
  const rule = liveRule(facts, 'published', DNAT[element.set]);
  if (!rule) return [`table inet ${table} has no rule for map ${element.set} now: ${relay}`];
  if (!facts.hasElement(table, element.set, element.key)) return [`map ${element.set} of table inet ${table} has no element for it now: ${relay}`];
  const { hostAddress } = binding;
  const by = `by element ${element.text.split(' : ')[0] ?? ''} of map ${element.set}, rule with handle ${rule.handle} in chain published of table inet ${table}`;
  const lines = [isLoopback(hostAddress) ? by : `${by}: the container sees the client's own address`];
  if (family === 4 && (isAny(hostAddress) || isLoopback(hostAddress))) {
    const path = `/proc/sys/net/ipv4/conf/${facts.network.link}/route_localnet`;
    const masqueraded = liveRule(facts, 'postrouting', FROM_LOOPBACK);
    lines.push(facts.read(path)?.trim() === '1'
      ? `127.0.0.1 of this host: by the same rule; the container sees the gateway ${gatewayOf(facts, 4)}${masqueraded ? ` (rule with handle ${masqueraded.handle} in chain postrouting)` : ''}`
      : `127.0.0.1 of this host: not, because ${path} is not 1`);
  }
  if (hostAddress === '::') lines.push(`::1 of this host: ${relay}`);
  if (isAny(hostAddress)) lines.push(`containers of network ${facts.network.name}, through an address of this host: they appear as the gateway; those of other networks keep their address`);
  return lines;
}

function forwarding(facts: Facts, family: 4 | 6): string[] {
  const { network, table } = facts;
  if (!facts.endpoint.addresses.some((address) => address.family === family)) return [];
  const lines: string[] = [];
  const path = family === 4 ? '/proc/sys/net/ipv4/ip_forward' : '/proc/sys/net/ipv6/conf/all/forwarding';
  if (facts.read(path)?.trim() === '0') lines.push(`from other hosts: not, because ${path} is 0`);
  if (network.internal) {
    const drop = liveRule(facts, 'forward', INTO_INTERNAL);
    lines.push(`from other hosts and networks: not, because network ${network.name} is internal${drop ? ` (rule with handle ${drop.handle} in chain forward of table inet ${table})` : ''}`);
  } else {
    const accept = liveRule(facts, 'forward', TO_PUBLISHED);
    lines.push(accept ? `forwarded by rule with handle ${accept.handle} in chain forward of table inet ${table}` : `chain forward of table inet ${table} has no rule for it now`);
  }
  const kinds = [family === 4 ? 'ip' : 'ip6', 'inet'];
  for (const { chain, match, there } of neededAccepts(facts.ruleset, network)) {
    if (chain.hook !== 'forward' || !kinds.includes(chain.family)) continue;
    const direction = match.iifname === undefined ? 'to' : 'from';
    lines.push(there ? `${describeChain(chain)} lets pass what goes ${direction} ${network.link}, by a rule of its own` : `${describeChain(chain)} drops what goes ${direction} ${network.link}: nothing accepts it there`);
  }
  return lines;
}
