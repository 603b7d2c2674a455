import { isIP } from 'node:net';
import { fail } from '@engine/core/errors';
import { type ContainerRequest } from '@engine/core/api';
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

/** `host:address` or `host=address`, the address IPv6 too. Errors: ERR_INVALID_VALUE. */
export function parseAddHost(text: string): { readonly host: string; readonly address: string } {
  const match = /^([A-Za-z0-9_.-]+)[:=](.+)$/.exec(text);
  const address = match?.[2]?.replace(/^\[(.*)\]$/, '$1') ?? '';
  if (address === 'host-gateway') throw fail('ERR_NOT_SUPPORTED', `--add-host ${text}: host-gateway needs a network with a gateway`, { operation: 'add-host' });
  if (!match || !isIP(address)) throw fail('ERR_INVALID_VALUE', `bad format for add-host: "${text}"`, { operation: 'add-host' });
  return { host: match[1] as string, address };
}

/** `/etc/hosts` of a container. */
export function hostsFile(request: Pick<ContainerRequest, 'addHosts'>, sharesHost: boolean, host: HostView): string {
  const extra = request.addHosts.map(parseAddHost).map(({ host: name, address }) => `${address}\t${name}\n`).join('');
  const base = sharesHost ? host.read('/etc/hosts') : undefined;
  if (base !== undefined) return base + (base === '' || base.endsWith('\n') ? '' : '\n') + extra;
  return `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n${extra}`;
}
