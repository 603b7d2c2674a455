import { createHash } from 'node:crypto';
import { type ContainerRecord } from '@engine/core/api';
import { type Endpoint, type EndpointWish, type NetworkRecord } from '@engine/core/contracts/network';
import { type InspectFacts } from '@engine/core/hooks';

type Json = Record<string, unknown>;
type Facts<K extends InspectFacts['kind']> = Extract<InspectFacts, { readonly kind: K }>;

/** An id where Docker has one and we need none: the same for the same thing. */
const derivedId = (...of: readonly string[]): string => createHash('sha256').update(of.join(' ')).digest('hex');
const endpointId = ({ run, network }: Endpoint): string => derivedId('endpoint', run, network);
const addressOf = (endpoint: Endpoint | undefined, family: 4 | 6) => endpoint?.addresses.find((a) => a.family === family);
const sorted = <T>(entries: readonly (readonly [string, T])[]): Record<string, T> => Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));

/** Ports as `80/tcp`: what the image, `--expose` and `-p` name. */
export function exposedPorts({ request, imageConfig }: ContainerRecord): readonly string[] {
  const ranges = [...Object.keys(imageConfig.ExposedPorts ?? {}), ...(request.expose ?? [])].flatMap((text) => {
    // an image may say anything
    const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(text);
    if (!match) return [];
    const [from, to, protocol] = [Number(match[1]), Number(match[2] ?? match[1]), (match[3] ?? 'tcp').toLowerCase()];
    return Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => `${from + i}/${protocol}`);
  });
  return [...new Set([...ranges, ...request.ports.map((p) => `${p.containerPort}/${p.protocol}`)])].sort();
}

/** HostConfig.PortBindings: what was asked for. */
export function portBindings({ ports }: ContainerRecord['request']): Record<string, Json[]> {
  const bindings = new Map<string, Json[]>();
  for (const { containerPort, protocol, hostAddress, hostPort, hostPortEnd } of ports) {
    const key = `${containerPort}/${protocol}`;
    bindings.set(key, [...(bindings.get(key) ?? []), { HostIp: hostAddress ?? '', HostPort: hostPort === undefined ? '' : hostPortEnd === undefined ? String(hostPort) : `${hostPort}-${hostPortEnd}` }]);
  }
  return sorted([...bindings]);
}

/** NetworkSettings.Ports: what is published now; null where a port is only exposed. */
function publishedPorts(record: ContainerRecord, endpoints: readonly Endpoint[]): Json {
  if (endpoints.length === 0) return {};
  const published = new Map<string, Json[] | null>(exposedPorts(record).map((port) => [port, null]));
  for (const { containerPort, protocol, hostAddress, hostPort } of endpoints.flatMap(({ ports }) => ports)) {
    const key = `${containerPort}/${protocol}`;
    published.set(key, [...(published.get(key) ?? []), { HostIp: hostAddress, HostPort: String(hostPort) }]);
  }
  return sorted([...published]);
}

function addresses(endpoint: Endpoint | undefined): { readonly v4: Json; readonly v6: Json } {
  const [four, six] = [addressOf(endpoint, 4), addressOf(endpoint, 6)];
  return {
    v4: { Gateway: four?.gateway ?? '', IPAddress: four?.address ?? '', IPPrefixLen: four?.prefix ?? 0 },
    v6: { IPv6Gateway: six?.gateway ?? '', GlobalIPv6Address: six?.address ?? '', GlobalIPv6PrefixLen: six?.prefix ?? 0 },
  };
}

function endpointJson({ id, name }: ContainerRecord, wish: EndpointWish | undefined, network: NetworkRecord | undefined, endpoint: Endpoint | undefined): Json {
  const { v4, v6 } = addresses(endpoint);
  const named = wish !== undefined && network?.predefined === false;
  const aliases = wish?.aliases ?? [];
  const asked = { ...(wish?.ip === undefined ? {} : { IPv4Address: wish.ip }), ...(wish?.ip6 === undefined ? {} : { IPv6Address: wish.ip6 }) };
  return {
    IPAMConfig: Object.keys(asked).length > 0 ? asked : null, Links: null, Aliases: named ? [...new Set([...aliases, id.slice(0, 12)])] : null, MacAddress: endpoint?.mac ?? '', DriverOpts: wish?.options ?? null, GwPriority: 0,
    NetworkID: network?.id ?? wish?.network ?? '', EndpointID: endpoint ? endpointId(endpoint) : '', ...v4, ...v6, DNSNames: named ? [...new Set([name, ...aliases, id.slice(0, 12)])] : null,
  };
}

/** NetworkSettings of a container. */
export function networkSettings({ view, networks }: Pick<Facts<'container'>, 'view' | 'networks'>): Json {
  const { record, run, endpoints = [] } = view;
  const known = (id: string): NetworkRecord | undefined => networks.find((network) => network.id === id);
  const at = (id: string): Endpoint | undefined => endpoints.find((endpoint) => endpoint.network === id);
  const mode = record.request.network;
  const each = record.networks.map((wish) => [known(wish.network)?.name ?? wish.network, endpointJson(record, wish, known(wish.network), at(wish.network))] as const);
  // a container that shares the network of another has none of its own to show, as Docker has it
  const all = each.length > 0 || mode.startsWith('container:') ? each : [[mode, endpointJson(record, undefined, undefined, undefined)] as const];
  const legacy = endpoints.find(({ network }) => known(network)?.predefined);
  const { v4, v6 } = addresses(legacy);
  return {
    Bridge: '', SandboxID: run ? derivedId('sandbox', run.id) : '', SandboxKey: run ? `/proc/${run.pid}/ns/net` : '', Ports: publishedPorts(record, endpoints), HairpinMode: false,
    LinkLocalIPv6Address: '', LinkLocalIPv6PrefixLen: 0, SecondaryIPAddresses: null, SecondaryIPv6Addresses: null, EndpointID: legacy ? endpointId(legacy) : '', ...v4, ...v6, MacAddress: legacy?.mac ?? '',
    Networks: sorted(all),
  };
}

/** What Docker calls the address driver that it has by itself. */
const ipamName = (driver: string): string => (driver === 'local' ? 'default' : driver);

export function networkJson({ info: { record, containers } }: Pick<Facts<'network'>, 'info'>): Json {
  const config = record.pools.map(({ subnet, range, gateway, auxiliary }) => ({ Subnet: subnet, ...(range === undefined ? {} : { IPRange: range }), Gateway: gateway, ...(auxiliary ? { AuxiliaryAddresses: auxiliary } : {}) }));
  const cidr = (endpoint: Endpoint, family: 4 | 6): string => {
    const found = addressOf(endpoint, family);
    return found ? `${found.address}/${found.prefix}` : '';
  };
  const there = containers.flatMap(({ id, name, endpoint }) => (endpoint ? [[id, { Name: name, EndpointID: endpointId(endpoint), MacAddress: endpoint.mac, IPv4Address: cidr(endpoint, 4), IPv6Address: cidr(endpoint, 6) }] as const] : []));
  return {
    Name: record.name, Id: record.id, Created: record.created, Scope: 'local', Driver: record.drivers.network.driver, EnableIPv4: record.pools.some(({ family }) => family === 4), EnableIPv6: record.ipv6,
    IPAM: { Driver: ipamName(record.drivers.ipam.driver), Options: {}, Config: config }, Internal: record.internal, Attachable: false, Ingress: false, ConfigFrom: { Network: '' }, ConfigOnly: false,
    Containers: sorted(there), Options: record.options, Labels: record.labels,
  };
}
