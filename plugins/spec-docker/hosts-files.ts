import { isIP } from 'node:net';
import { fail } from '@engine/core/errors';
import { type ContainerRequest } from '@engine/core/api';
import { type Endpoint } from '@engine/core/contracts/network';
import { type HostView } from './host-view.ts';

/** What Docker falls back to when no usable nameserver is left. */
const FALLBACK_NAMESERVERS = ['8.8.8.8', '8.8.4.4'];

const isLoopback = (address: string): boolean => address.startsWith('127.') || address === '::1';

interface Resolver { nameservers: string[]; search: string[]; options: string[] }

function parseResolvConf(text: string): Resolver {
  const result: Resolver = { nameservers: [], search: [], options: [] };
  for (const line of text.split('\n')) {
    const [key, ...values] = line.replace(/[#;].*$/, '').trim().split(/\s+/);
    if (key === 'nameserver' && values[0]) result.nameservers.push(values[0]);
    if (key === 'search' || key === 'domain') result.search = values;
    if (key === 'options') result.options.push(...values);
  }
  return result;
}

/**
 * `/etc/resolv.conf` of a container. With a network namespace of its own the host's loopback resolvers can't be reached: systemd's stub
 * is replaced by what it forwards to, others are dropped.
 */
export function resolvConf(request: Pick<ContainerRequest, 'dns' | 'dnsSearch' | 'dnsOptions'>, sharesHost: boolean, host: HostView): string {
  const overridden = Boolean(request.dns?.length || request.dnsSearch?.length || request.dnsOptions?.length);
  const text = host.read('/etc/resolv.conf') ?? '';
  if (sharesHost && !overridden) return text;
  let found = parseResolvConf(text);
  if (!sharesHost && found.nameservers.length > 0 && found.nameservers.every((n) => n === '127.0.0.53')) {
    const behind = host.read('/run/systemd/resolve/resolv.conf');
    if (behind !== undefined) found = parseResolvConf(behind);
  }
  let { nameservers } = found;
  if (!sharesHost) {
    nameservers = nameservers.filter((n) => !isLoopback(n));
    if (nameservers.length === 0) nameservers = FALLBACK_NAMESERVERS;
  }
  if (request.dns?.length) {
    for (const address of request.dns) if (!isIP(address)) throw fail('ERR_INVALID_VALUE', `${address} is not an ip address`, { operation: 'dns' });
    nameservers = request.dns;
  }
  const search = (request.dnsSearch?.length ? request.dnsSearch : found.search).filter((s) => s !== '.' && s !== '');
  const options = request.dnsOptions?.length ? request.dnsOptions : found.options;
  for (const word of [...(request.dnsSearch ?? []), ...(request.dnsOptions ?? [])]) {
    if (/\s/.test(word)) throw fail('ERR_INVALID_VALUE', `${JSON.stringify(word)} is not valid in resolv.conf`, { operation: 'dns' });
  }
  return [...nameservers.map((n) => `nameserver ${n}`), ...(search.length ? [`search ${search.join(' ')}`] : []), ...(options.length ? [`options ${options.join(' ')}`] : []), ''].join('\n');
}

/** `host:address` or `host=address`, the address IPv6 too, or `host-gateway` for that of the host as the container sees it. Errors: ERR_INVALID_VALUE. */
export function parseAddHost(text: string): { readonly host: string; readonly address: string } {
  const match = /^([A-Za-z0-9_.-]+)[:=](.+)$/.exec(text);
  const address = match?.[2]?.replace(/^\[(.*)\]$/, '$1') ?? '';
  if (!match || (!isIP(address) && address !== HOST_GATEWAY)) throw fail('ERR_INVALID_VALUE', `bad format for add-host: "${text}"`, { operation: 'add-host' });
  return { host: match[1] as string, address };
}
const HOST_GATEWAY = 'host-gateway';
const asksForGateway = (request: Pick<ContainerRequest, 'addHosts'>): boolean => request.addHosts.some((text) => parseAddHost(text).address === HOST_GATEWAY);

/** Addresses that the container itself has, so that a line that names one of them by chance is not taken for its own: see {@link networkHosts}. */
function addedHosts(request: Pick<ContainerRequest, 'addHosts'>, gateway: string | undefined, own: ReadonlySet<string> = new Set()): string {
  return request.addHosts.map(parseAddHost).map(({ host, address: asked }) => {
    const address = asked === HOST_GATEWAY ? gateway : asked;
    return address === undefined ? '' : `${address}${own.has(address) ? ' ' : '\t'}${host}\n`;
  }).join('');
}

const LOCALHOST = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n';

/** `/etc/hosts` of a container, as it is made. `sharesHost`: its network is that of the host. On a network it is written anew with each run. */
export function hostsFile(request: Pick<ContainerRequest, 'addHosts' | 'network'>, sharesHost: boolean, host: HostView): string {
  if (request.network === 'none' && asksForGateway(request)) throw noGateway('network none has none');
  const base = sharesHost ? host.read('/etc/hosts') : undefined;
  const extra = addedHosts(request, sharesHost ? '127.0.0.1' : undefined);
  return base === undefined ? LOCALHOST + extra : base + (base === '' || base.endsWith('\n') ? '' : '\n') + extra;
}

const noGateway = (why: string): Error => fail('ERR_INVALID_VALUE', `--add-host: host-gateway needs a network with a gateway: ${why}`, { operation: 'add-host' });

/** The name that a container has for itself, in all forms: `web.example.org web`. */
function ownNames(hostname: string, domainname: string | undefined): string {
  const full = domainname ? `${hostname}.${domainname}` : hostname;
  const [short = full] = full.split('.');
  return short === full ? full : `${full} ${short}`;
}

/**
 * `/etc/hosts` of a container with endpoints: its own addresses stand at the beginning of a line and before a tab, and no other text does so. That is what
 * a remembered plan is changed by for another container. Errors: ERR_INVALID_VALUE.
 */
export function networkHosts(request: Pick<ContainerRequest, 'addHosts' | 'domainname'>, endpoints: readonly Endpoint[], hostname: string): string {
  const own = endpoints.flatMap(({ addresses }) => addresses.map(({ address }) => address));
  const gateways = (endpoints.find(({ isDefault }) => isDefault)?.addresses ?? []).filter((a) => a.gateway !== undefined).sort((a, b) => a.family - b.family);
  if (gateways.length === 0 && asksForGateway(request)) throw noGateway('these are internal');
  const names = ownNames(hostname, request.domainname);
  return LOCALHOST + addedHosts(request, gateways[0]?.gateway, new Set(own)) + own.map((address) => `${address}\t${names}\n`).join('');
}

/** `text` without the lines of endpoints that have gone, and with those of endpoints that have come; the rest of it as it is. */
export function changedHosts(text: string, request: Pick<ContainerRequest, 'domainname'>, before: readonly Endpoint[], after: readonly Endpoint[], hostname: string): string {
  const names = ownNames(hostname, request.domainname);
  const lines = (endpoints: readonly Endpoint[]): string[] => endpoints.flatMap(({ addresses }) => addresses.map(({ address }) => `${address}\t${names}`));
  const [old, now] = [new Set(lines(before)), lines(after)];
  const kept = text.split('\n').filter((line) => !old.has(line) || now.includes(line));
  const come = now.filter((line) => !kept.includes(line));
  return `${kept.join('\n').replace(/([^\n])$/, '$1\n')}${come.map((line) => `${line}\n`).join('')}`;
}

/** The most that a C library asks. */
const MAX_NAMESERVERS = 3;

/**
 * `/etc/resolv.conf` of a container on networks with names: their resolvers are asked; `--dns` names whom these ask. A name without a dot is looked up as it
 * stands first (`ndots:0`), as that is what containers are called.
 */
export function networkResolvConf(request: Pick<ContainerRequest, 'dns' | 'dnsSearch' | 'dnsOptions'>, resolvers: readonly string[], host: HostView): string {
  const lines = resolvConf(request, false, host).split('\n');
  const options = lines.find((line) => line.startsWith('options '))?.slice('options '.length).split(' ') ?? [];
  const search = lines.filter((line) => line.startsWith('search '));
  const all = options.some((option) => option.startsWith('ndots:')) && request.dnsOptions?.length ? options : [...options.filter((option) => !option.startsWith('ndots:')), 'ndots:0'];
  return [...resolvers.slice(0, MAX_NAMESERVERS).map((address) => `nameserver ${address}`), ...search, `options ${all.join(' ')}`, ''].join('\n');
}
