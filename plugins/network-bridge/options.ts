import { fail } from '@engine/core/errors';
import { type NetworkDesign } from '@engine/core/contracts/network';
import { type Rtnetlink } from '@engine/native/rtnetlink';

export const PLUGIN = 'network-bridge';

/** What a network of this driver is, kept as `NetworkRecord.settings`. */
export interface BridgeSettings {
  /** Name of the host's link. */
  readonly bridge: string;
  readonly mtu: number;
  readonly icc: boolean;
  readonly isolated: boolean;
  readonly masquerade: boolean;
  /** Of interfaces inside, instead of `eth`. */
  readonly interfacePrefix?: string;
}

/** Which setting an option of `--opt` is: our names, Docker's, podman's. */
const NAMES: Readonly<Record<string, keyof BridgeSettings>> = {
  bridge: 'bridge', name: 'bridge', 'com.docker.network.bridge.name': 'bridge',
  mtu: 'mtu', 'com.docker.network.driver.mtu': 'mtu', 'com.docker.network.mtu': 'mtu',
  icc: 'icc', 'com.docker.network.bridge.enable_icc': 'icc',
  isolated: 'isolated', isolate: 'isolated',
  masquerade: 'masquerade', 'com.docker.network.bridge.enable_ip_masquerade': 'masquerade',
  'interface-prefix': 'interfacePrefix', 'com.docker.network.container_iface_prefix': 'interfacePrefix',
};
/** Docker's and podman's that mean something this driver does not do: said so, not taken for a mistake in writing. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'com.docker.network.bridge.host_binding_ipv4': 'name the address with each port: -p ADDRESS:PORT:PORT',
  'com.docker.network.bridge.default_bridge': 'the default network is there by itself',
  'com.docker.network.bridge.inhibit_ipv4': 'use --internal for a network that the host does not route',
  'com.docker.network.bridge.gateway_mode_ipv4': 'masquerade=false routes without NAT',
  'com.docker.network.bridge.gateway_mode_ipv6': 'masquerade=false routes without NAT',
  'com.docker.network.bridge.trusted_host_interfaces': 'nothing outside reaches a container but by its published ports',
  vlan: '', metric: '', no_default_route: 'use --internal', mode: '',
};

const SHORTEST_MTU = 68;
export const SHORTEST_MTU_IPV6 = 1280;
const LONGEST_MTU = 65_535;
const DEFAULT_MTU = 1500;
const MAX_NAME = 15;
/** Suffix of the interface inside: its number. */
const MAX_PREFIX = MAX_NAME - 3;
/** What /proc/sys/net and the kernel mean by these is no link of ours. */
const RESERVED_NAMES = ['all', 'default', 'lo'];
/** Names that the engine gives out itself: bridges, bridges in the making, veths. */
const OWN_NAMES = /^((br|bt)-[0-9a-f]{12}|br-engine|v\d+-.*)$/;

const invalid = (text: string, path: string, hint?: string): Error => fail('ERR_INVALID_VALUE', text, { path, plugin: PLUGIN, ...(hint === undefined ? {} : { hint }) });
const shown = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text);

/** No character that means something to the kernel (`%d`, `:`), to a path or to a firewall's patterns (`+`, `*`); not the look of a flag. */
function linkName(text: string, option: string, longest: number): string {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(text) || Buffer.byteLength(text) > longest) throw invalid(`option ${option}: ${shown(text)} is no name for an interface`, option, `at most ${longest} letters, digits, "_", "." and "-", the first no "." or "-"`);
  if (RESERVED_NAMES.includes(text)) throw invalid(`option ${option}: the name ${text} is reserved`, option);
  return text;
}
function flag(text: string, option: string): boolean {
  // Go's strconv.ParseBool, as Docker reads them; podman's isolate knows "strict", which is what isolated means here
  if (/^(1|t|true|yes|on)$/i.test(text)) return true;
  if (/^(0|f|false|no|off)$/i.test(text)) return false;
  if (option === 'isolate' && text === 'strict') return true;
  throw invalid(`option ${option}: ${shown(text)} is neither true nor false`, option);
}
export function checkMtu(text: string, option: string, ipv6: boolean): number {
  const mtu = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN;
  const least = ipv6 ? SHORTEST_MTU_IPV6 : SHORTEST_MTU;
  if (!(mtu >= least && mtu <= LONGEST_MTU)) throw invalid(`option ${option}: ${shown(text)} is no MTU${ipv6 ? ' for IPv6' : ''}`, option, `a number from ${least} to ${LONGEST_MTU}`);
  return mtu;
}

/** The MTU of the way out: a container's packets then need not be cut. */
function outsideMtu(rtnetlink: Pick<Rtnetlink, 'routes' | 'link'>, ipv6: boolean): number {
  const routes = rtnetlink.routes().filter(({ destination, type, index }) => (destination === '0.0.0.0/0' || destination === '::/0') && type === 'unicast' && index !== undefined);
  const best = routes.sort((a, b) => a.family - b.family || (a.metric ?? 0) - (b.metric ?? 0))[0];
  const mtu = best?.index === undefined ? undefined : rtnetlink.link({ index: best.index })?.mtu;
  return mtu !== undefined && mtu >= (ipv6 ? SHORTEST_MTU_IPV6 : SHORTEST_MTU) && mtu <= LONGEST_MTU ? mtu : DEFAULT_MTU;
}

function unknown(name: string): Error {
  const elsewhere = Object.hasOwn(ELSEWHERE, name) ? ELSEWHERE[name] : undefined;
  if (elsewhere !== undefined) return fail('ERR_NOT_SUPPORTED', `the network driver bridge has no option ${name}`, { path: name, plugin: PLUGIN, ...(elsewhere ? { hint: elsewhere } : {}) });
  const names = Object.keys(NAMES);
  const near = names.map((known) => [distance(name.slice(0, 80).toLowerCase(), known), known] as const).sort(([a], [b]) => a - b)[0];
  const meant = near && near[0] <= Math.max(1, Math.floor(near[1].length / 3)) ? `, did you mean ${near[1]}?` : '';
  return invalid(`the network driver bridge has no option ${shown(name)}${meant}`, name.slice(0, 80), `it has ${names.filter((known) => !known.includes('.docker.')).join(', ')}, and Docker's names of these`);
}
/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + Number(a[i - 1] !== b[j - 1])));
    row = next;
  }
  return row[b.length] ?? 0;
}

/** Settings of a new network. Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED. */
export function readDesign(design: NetworkDesign, own: { readonly bridge: string; readonly mtu?: number | undefined; readonly rtnetlink: Pick<Rtnetlink, 'routes' | 'link'> }): BridgeSettings {
  const given = new Map<keyof BridgeSettings, readonly [option: string, text: string]>();
  for (const [option, text] of Object.entries(design.options)) {
    const setting = Object.hasOwn(NAMES, option) ? NAMES[option] : undefined;
    if (setting === undefined) throw unknown(option);
    const before = given.get(setting);
    if (before && before[1] !== text) throw invalid(`options ${before[0]} and ${option} mean the same and differ`, option);
    given.set(setting, [option, text]);
  }
  const value = <T>(setting: keyof BridgeSettings, read: (text: string, option: string) => T, otherwise: () => T): T => {
    const found = given.get(setting);
    return found ? read(found[1], found[0]) : otherwise();
  };
  const bridge = value('bridge', (text, option) => {
    if (OWN_NAMES.test(text) && text !== own.bridge) throw invalid(`option ${option}: names such as ${text} are given out by the engine`, option);
    return linkName(text, option, MAX_NAME);
  }, () => own.bridge);
  return {
    bridge,
    mtu: value('mtu', (text, option) => checkMtu(text, option, design.ipv6), () => (own.mtu === undefined ? outsideMtu(own.rtnetlink, design.ipv6) : checkMtu(String(own.mtu), 'options.network-bridge.mtu', design.ipv6))),
    icc: value('icc', flag, () => true),
    isolated: value('isolated', flag, () => true),
    masquerade: value('masquerade', flag, () => !design.internal),
    ...value('interfacePrefix', (text, option) => ({ interfacePrefix: linkName(text, option, MAX_PREFIX) }), () => ({})),
  };
}
