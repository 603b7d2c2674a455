import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { type BoundPort, type Endpoint } from '@engine/core/contracts/network';
import { type Family, type TableName } from './reader.ts';

/** Text for iptables-restore --noflush; each block is one atomic change of one table. */
export interface Block { readonly table: TableName; readonly lines: readonly string[] }
export const restoreText = (blocks: readonly Block[]): string => blocks.map(({ table, lines }) => `*${table}\n${lines.join('\n')}\nCOMMIT\n`).join('');

/** Chains of an engine, at most 28 characters each. */
export function chainNames(instance: string): ReturnType<typeof names> {
  return names(instance.slice(-8));
}
const names = (instance: string, prefix = `ENG-${instance}`) => ({
  /** What is let through; of filter. */
  forward: `${prefix}-FORWARD`,
  input: `${prefix}-INPUT`,
  /** What is published: a jump per endpoint; of nat. */
  ports: `${prefix}-PORTS`,
  source: `${prefix}-SOURCE`,
  /** What may not be, whatever any filter lets through; of mangle, which comes before it. */
  guard: `${prefix}-GUARD`,
  /** Networks that are not isolated from each other. */
  open: `${prefix}-OPEN`,
  loopback: `${prefix}-LOOPBACK`,
  /** What may not come in, before conntrack has seen it; of raw. */
  ingress: `${prefix}-INGRESS`,
  /** Ports that the held socket passes on, closed to internal networks: a jump per endpoint; of raw. */
  relayed: `${prefix}-RELAYED`,
  network: (kind: 'F' | 'I' | 'S' | 'G' | 'R', network: Pick<FirewallNetwork, 'id'>) => `${prefix}-${kind}${network.id.slice(0, 12)}`,
  /** With the whole id of its run, for which the others' prefix leaves no room. */
  endpoint: ({ run, interface: name }: Pick<Endpoint, 'run' | 'interface'>) => `E${instance}-${run}${/\d{0,2}$/.exec(name)?.[0] ?? ''}`,
});
export type Names = ReturnType<typeof names>;

/** A rule in a chain that is not one network's alone. `spec` follows -A or -D; `mentions`: a chain or interface that tells it from others; `first`: before all that is there. */
export interface Dispatch { readonly table: TableName; readonly from: string; readonly spec: string; readonly mentions: string; readonly first: boolean }
export const addDispatch = ({ from, spec, first }: Dispatch): string => (first ? `-I ${from} 1 ${spec}` : `-A ${from} ${spec}`);
export const dropDispatch = ({ from, spec }: Dispatch): string => `-D ${from} ${spec}`;

/** A chain that all networks share, with what is always in it, and from where it is reached. */
export interface SharedChain {
  readonly table: TableName;
  readonly chain: string;
  readonly rules: readonly string[];
  readonly hooks: readonly Dispatch[];
  /** Not there before such a network is; default: any. */
  isFor?(network: Pick<FirewallNetwork, 'internal' | 'isolated'>): boolean;
}

export function sharedChains(family: Family, { forward, input, ports, source, guard, open, loopback, ingress, relayed }: Names): readonly SharedChain[] {
  const hook = (table: TableName, from: string, to: string, match = '', first = true): Dispatch => ({ table, from, spec: `${match}-j ${to}`, mentions: to, first });
  // 127.0.0.1 of a packet that did not come from here is not for us to translate (CVE-2020-8558); ::1 can't be translated at all
  const notLoopback = family === 4 ? '! -d 127.0.0.0/8 ' : '! -d ::1/128 ';
  const local = '-m addrtype --dst-type LOCAL ';
  return [
    { table: 'raw', chain: ingress, rules: [], hooks: [hook('raw', 'PREROUTING', ingress)] },
    { table: 'raw', chain: relayed, rules: [], hooks: [], isFor: ({ internal }) => internal },
    { table: 'mangle', chain: guard, rules: [], hooks: [hook('mangle', 'FORWARD', guard)] },
    { table: 'mangle', chain: open, rules: [], hooks: [], isFor: ({ internal, isolated }) => !isolated && !internal },
    // route_localnet makes the kernel take such packets: it dropped them before (CVE-2020-8558)
    ...(family === 4 ? [{ table: 'mangle' as const, chain: loopback, rules: ['-d', '-s'].map((side) => `-A ${loopback} ${side} 127.0.0.0/8 ! -i lo -j DROP`), hooks: [hook('mangle', 'PREROUTING', loopback)] }] : []),
    { table: 'filter', chain: forward, rules: [], hooks: [hook('filter', 'FORWARD', forward)] },
    { table: 'filter', chain: input, rules: [], hooks: [hook('filter', 'INPUT', input)] },
    { table: 'nat', chain: ports, rules: [], hooks: [hook('nat', 'PREROUTING', ports, notLoopback + local, false), hook('nat', 'OUTPUT', ports, (family === 4 ? '' : notLoopback) + local, false)] },
    { table: 'nat', chain: source, rules: [], hooks: [hook('nat', 'POSTROUTING', source, '', false)] },
  ];
}

/** A chain of one network, and the rules of shared chains that lead to it (or speak of it). */
export interface NetworkChain { readonly table: TableName; readonly chain: string; readonly rules: readonly string[]; readonly dispatch: readonly Dispatch[] }
/** Bridges of other software: what it lets in there is its own business. A + stands for any rest. */
const FOREIGN = ['docker0', 'br-+', 'docker_gwbridge', 'podman+', 'cni-podman+', 'virbr+', 'lxcbr+', 'lxdbr+', 'incusbr+'];

export const familyOf = (address: string): Family => (address.includes(':') ? 6 : 4);

/** Empty for a family in which the network has no subnet. */
export function networkChains(family: Family, network: FirewallNetwork, names: Names): readonly NetworkChain[] {
  const { link, internal, icc, isolated, masquerade, dns } = network;
  const subnets = network.subnets.filter((subnet) => familyOf(subnet) === family);
  if (subnets.length === 0) return [];
  const gateways = network.gateways.filter((gateway) => familyOf(gateway) === family);
  const [F, I, S, G, R] = (['F', 'I', 'S', 'G', 'R'] as const).map((kind) => names.network(kind, network)) as [string, string, string, string, string];
  const to = (table: TableName, from: string, match: string, target: string, how = '-j', first = false): Dispatch => ({ table, from, spec: `${match} ${how} ${target}`, mentions: target, first });

  const ingress: NetworkChain = {
    table: 'raw', chain: R,
    rules: [
      // with a foreign address a container could be any client of a published port, and speak in the connections of other networks (raw: a reset would count with conntrack); NET_RAW, which containers have by default, is enough for it
      `-A ${R} -m rpfilter --invert -j DROP`,
      // the relay asks as the host, which no rule of FORWARD sees
      ...(internal ? [`-A ${R} -m addrtype --dst-type LOCAL -j ${names.relayed}`] : []),
    ],
    dispatch: [to('raw', names.ingress, `-i ${link}`, R)],
  };
  const guard: NetworkChain = {
    table: 'mangle', chain: G,
    rules: [
      `-A ${G} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN`,
      // bridged packets come here where br_netfilter is on
      `-A ${G} -i ${link} -o ${link} ${icc ? '-j RETURN' : '-m conntrack ! --ctstate DNAT -j DROP'}`,
      ...(internal ? [`-A ${G} -j DROP`] : [
        `-A ${G} -o ${link} -m conntrack --ctstate DNAT -j RETURN`,
        ...(isolated ? [] : [`-A ${G} -o ${link} -j ${names.open}`]),
        `-A ${G} -o ${link} -j DROP`,
      ]),
    ],
    dispatch: [
      to('mangle', names.guard, `-i ${link}`, G),
      to('mangle', names.guard, `-o ${link}`, G),
      ...(isolated || internal ? [] : [{ table: 'mangle' as const, from: names.open, spec: `-i ${link} -j ACCEPT`, mentions: link, first: false }]),
    ],
  };
  const forward: NetworkChain = {
    table: 'filter', chain: F,
    rules: [
      `-A ${F} -o ${link} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
      // a rule of its own: \`nft list ruleset\` shows nothing else of a list that has DNAT in it, and somebody may load what it shows
      ...(internal ? [] : [`-A ${F} -o ${link} -m conntrack --ctstate DNAT -j ACCEPT`]),
      `-A ${F} -i ${link} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
      ...(icc ? [`-A ${F} -i ${link} -o ${link} -j ACCEPT`] : []),
      ...(internal ? [] : [...FOREIGN.map((name) => `-A ${F} -i ${link} -o ${name} -j RETURN`), `-A ${F} -i ${link} -j ACCEPT`]),
    ],
    dispatch: ['-i', '-o'].map((side) => to('filter', names.forward, `${side} ${link}`, F)),
  };
  const input: NetworkChain = {
    table: 'filter', chain: I,
    rules: gateways.flatMap((gateway) => ['udp', 'tcp'].map((protocol) => `-A ${I} -d ${gateway} -p ${protocol} -m ${protocol} --dport 53 -j ACCEPT`)),
    dispatch: [to('filter', names.input, `-i ${link}`, I)],
  };
  const source: NetworkChain = {
    table: 'nat', chain: S,
    rules: [
      // published on 127.0.0.1: the container could not answer there
      ...(family === 4 ? [`-A ${S} -o ${link} -s 127.0.0.0/8 -j MASQUERADE`] : []),
      // by an address of the host to a neighbour: its answer has to come back this way
      ...subnets.map((subnet) => `-A ${S} -s ${subnet} -o ${link} -m conntrack --ctstate DNAT -j MASQUERADE`),
      ...(masquerade && !internal ? subnets.map((subnet) => `-A ${S} -s ${subnet} ! -o ${link} -j MASQUERADE`) : []),
    ],
    dispatch: [
      // first, and without a way back: from another network of ours the address is kept
      to('nat', names.source, `-o ${link}`, S, '-g', true),
      ...subnets.map((subnet) => to('nat', names.source, `-s ${subnet}`, S)),
    ],
  };
  return [ingress, guard, forward, ...(dns && gateways.length > 0 ? [input] : []), source];
}

/** What the held socket of an endpoint passes on to an address of the other family; but for loopback, where nobody but the host itself asks. */
export const relayedOf = (endpoint: Pick<Endpoint, 'addresses' | 'ports'>, family: Family): readonly BoundPort[] =>
  endpoint.ports.filter((port) => familyOf(port.hostAddress) === family && targetOf(port, endpoint) === undefined && port.hostAddress !== '::1' && !port.hostAddress.startsWith('127.'));

/** The address of a container that a binding leads to; undefined: it has none of that family, and the relay serves it. */
export const targetOf = ({ hostAddress }: BoundPort, { addresses }: Pick<Endpoint, 'addresses'>): string | undefined =>
  hostAddress === '::1' ? undefined : addresses.find(({ family }) => family === familyOf(hostAddress))?.address;

const matchOf = ({ protocol, hostAddress, hostPort }: BoundPort): string =>
  `${hostAddress === '0.0.0.0' || hostAddress === '::' ? '' : `-d ${hostAddress} `}-p ${protocol} -m ${protocol} --dport ${hostPort}`;

export function bindingRule(chain: string, port: BoundPort, target: string): string {
  const to = target.includes(':') ? `[${target}]:${port.containerPort}` : `${target}:${port.containerPort}`;
  return `-A ${chain} ${matchOf(port)} -j DNAT --to-destination ${to}`;
}
export const relayedRule = (chain: string, port: BoundPort): string => `-A ${chain} ${matchOf(port)} -j DROP`;
