import { createHash } from 'node:crypto';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';

/** Of the ruleset below; with every change of it the table of an older program is replaced at the next start. */
export const RULESET_VERSION = 2;

interface StaticChain { readonly name: string; readonly base?: string; readonly rules: readonly string[] }

/** Sets and maps, with their types. Everything that varies lies in these. */
export const SETS = {
  /** Digests of networks whose elements are all there: what `ensure` asks for, in one read. */
  known: 'type ifname',
  /** Links of all networks. */
  links: 'type ifname',
  /** Each link with itself: the way from a container to another one of its network that is routed. */
  pairs: 'type ifname . ifname',
  /** The same, of networks whose containers may talk with each other. */
  within: 'type ifname . ifname',
  internal: 'type ifname',
  /** Not isolated: they may exchange traffic with each other. */
  open: 'type ifname',
  masqueraded: 'type ifname',
} as const;
/** Published by IPv6, of containers without: the socket that holds the port passes them on, as if the host itself asked. On all addresses, and on one. */
export const RELAYED = {
  relayed: 'type inet_proto . inet_service',
  relayed6: 'type inet_proto . ipv6_addr . inet_service',
} as const;
export const MAPS = {
  /** Published on one address of the host. */
  ports4: 'type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service',
  ports6: 'type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service',
  /** Published on all. A key with address 0 in the maps above would need a masked lookup, which `nft list ruleset` prints in a form that nft cannot read again (1.0.6). */
  any4: 'type inet_proto . inet_service : ipv4_addr . inet_service',
  any6: 'type inet_proto . inet_service : ipv6_addr . inet_service',
} as const;
export type SetName = keyof typeof SETS | keyof typeof RELAYED | keyof typeof MAPS;

/** Rules that explanations name. */
export const DNAT: Readonly<Record<keyof typeof MAPS, string>> = {
  ports4: 'dnat ip to meta l4proto . ip daddr . th dport map @ports4',
  ports6: 'dnat ip6 to meta l4proto . ip6 daddr . th dport map @ports6',
  any4: 'dnat ip to meta l4proto . th dport map @any4',
  any6: 'dnat ip6 to meta l4proto . th dport map @any6',
};
export const FROM_LOOPBACK = 'oifname @links ip saddr 127.0.0.0/8 masquerade';
export const INTO_INTERNAL = 'oifname @internal drop';
export const TO_PUBLISHED = 'ct status dnat accept';

/** Bridges of other software; ours are no matter here any more. */
const FOREIGN = ['docker0', 'br-*', 'docker_gwbridge', 'podman*', 'cni-podman*', 'virbr*', 'lxcbr*', 'lxdbr*', 'incusbr*'];

export const CHAINS: readonly StaticChain[] = [
  {
    // CVE-2020-8558: with route_localnet (which 127.0.0.1 needs for DNAT to a bridge) the kernel would take 127/8 from the wire
    name: 'martians', base: 'type filter hook prerouting priority raw; policy accept;',
    rules: [
      'iifname != "lo" ip daddr 127.0.0.0/8 drop', 'iifname != "lo" ip saddr 127.0.0.0/8 drop',
      // with a foreign address a container could be any client of a published port, and speak in the connections of other networks; NET_RAW, which containers have by default, is enough for it
      'iifname @links ip6 saddr != :: fib saddr . iif oif missing drop', 'iifname @links meta nfproto ipv4 fib saddr . iif oif missing drop',
    ],
  },
  {
    name: 'published',
    rules: Object.values(DNAT),
  },
  { name: 'prerouting', base: 'type nat hook prerouting priority dstnat; policy accept;', rules: ['fib daddr type local jump published'] },
  {
    // ::1 cannot leave lo (there is no route_localnet for IPv6): the socket that holds the port serves it
    name: 'output', base: 'type nat hook output priority -100; policy accept;', rules: ['ip6 daddr ::1 return', 'fib daddr type local jump published'],
  },
  {
    name: 'postrouting', base: 'type nat hook postrouting priority srcnat; policy accept;',
    rules: [
      // the answer must come back this way: from a container to one of its own network, and from 127.0.0.1
      'ct status dnat iifname . oifname @pairs masquerade',
      // the same where br_netfilter hands over what stays on one bridge, and tells of no incoming interface
      'ct status dnat iif 0 oifname @links fib saddr type != local masquerade',
      FROM_LOOPBACK,
      'iifname @masqueraded oifname != @links masquerade',
    ],
  },
  {
    // nothing goes from an internal network to another one's ports, nor by way of the host's own sockets
    name: 'input', base: 'type filter hook input priority filter; policy accept;',
    rules: ['iifname @internal meta nfproto ipv6 meta l4proto . th dport @relayed drop', 'iifname @internal meta l4proto . ip6 daddr . th dport @relayed6 drop'],
  },
  {
    name: 'forward', base: 'type filter hook forward priority filter; policy accept;',
    rules: [
      'iifname . oifname @within accept',
      'iifname @internal drop',
      INTO_INTERNAL,
      'ct state established,related accept',
      TO_PUBLISHED,
      // icc=false, by way of the gateway
      'iifname . oifname @pairs drop',
      'iifname @open oifname @open accept',
      'oifname @links drop',
      'iifname @links jump foreign',
    ],
  },
  // what they publish is for everybody, what they don't is behind their own isolation, which our accept in their chains would open
  { name: 'foreign', rules: FOREIGN.map((name) => `oifname "${name}" drop`) },
];

/** A member of a set, as nft writes it: `"en-1"`, `"en-1" . "en-1"`, `tcp . 0.0.0.0 . 80 : 10.0.0.2 . 80`. */
export interface Member { readonly set: SetName; readonly text: string }

/** In the set `known` of a table that this version of the program has made. */
export const versionMember: Member = { set: 'known', text: `"ruleset-${RULESET_VERSION}"` };

const LINK = /^[A-Za-z0-9_.:-]{1,15}$/;
/** A link's name goes into text that nft parses. The kernel's limit is 15 bytes. */
export const isLinkName = (link: string): boolean => LINK.test(link);

/** What stands for a network with all its settings under this version of the ruleset: 14 hex digits. */
export function digestOf(network: FirewallNetwork): string {
  const { id, link, subnets, gateways, internal, icc, isolated, masquerade, dns } = network;
  return createHash('sha256').update(JSON.stringify([RULESET_VERSION, id, link, subnets, gateways, internal, icc, isolated, masquerade, dns])).digest('hex').slice(0, 14);
}

/** All members of a network, but for its bindings. Errors: RangeError for a link whose name is none. */
export function membersOf(network: FirewallNetwork): readonly Member[] {
  if (!isLinkName(network.link)) throw new RangeError(`not a link name: ${JSON.stringify(network.link)}`);
  const link = `"${network.link}"`;
  const names: [SetName, boolean, string][] = [
    ['links', true, link],
    ['pairs', true, `${link} . ${link}`],
    ['within', network.icc, `${link} . ${link}`],
    ['internal', network.internal, link],
    ['open', !network.isolated && !network.internal, link],
    ['masqueraded', network.masquerade && !network.internal, link],
    ['known', true, `"${digestOf(network)}"`],
  ];
  return names.filter(([, wanted]) => wanted).map(([set, , text]) => ({ set, text }));
}

function grouped(members: Iterable<Member>): Map<SetName, string[]> {
  const sets = new Map<SetName, string[]>();
  for (const { set, text } of members) {
    const list = sets.get(set);
    if (list) list.push(text);
    else sets.set(set, [text]);
  }
  return sets;
}

/**
 * The table, in full, as one transaction. It goes into what is there: rules are written again, members of others (networks that come up at the same time) stay.
 * `anew`: it takes the place of whatever there is.
 */
export function tableText(table: string, members: Iterable<Member>, { anew = false } = {}): string {
  const elements = grouped(members);
  const body: string[] = [];
  for (const [kind, entries] of [['set', SETS], ['set', RELAYED], ['map', MAPS]] as const) {
    for (const [name, type] of Object.entries(entries)) {
      const list = elements.get(name as SetName);
      body.push(`\t${kind} ${name} {\n\t\t${type}\n${list ? `\t\telements = { ${[...new Set(list)].join(', ')} }\n` : ''}\t}`);
    }
  }
  for (const { name, base, rules } of CHAINS) body.push(`\tchain ${name} {\n${[...(base ? [base] : []), ...rules].map((line) => `\t\t${line}\n`).join('')}\t}`);
  // added first, so that what follows succeeds whether it was there or not
  return `add table inet ${table}\n${anew ? 'delete' : 'flush'} table inet ${table}\ntable inet ${table} {\n${body.join('\n')}\n}\n`;
}

/** Members into a table that is there; those that are there already are no error. */
export function addText(table: string, members: Iterable<Member>): string {
  return [...grouped(members)].map(([set, list]) => `add element inet ${table} ${set} { ${list.join(', ')} }\n`).join('');
}

/** The table away, there or not. */
export const deleteText = (table: string): string => `add table inet ${table}\ndelete table inet ${table}\n`;
