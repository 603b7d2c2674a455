import { isIP } from 'node:net';
import { type PortMapping } from '@engine/core/contracts/network';
import { fail } from '@engine/core/errors';
import { splitOnce } from './units.ts';

type Protocol = PortMapping['protocol'];
interface Range { readonly from: number; readonly to: number }

const invalid = (flag: string, message: string, hint?: string): Error => fail('ERR_INVALID_VALUE', message, { operation: flag, ...(hint === undefined ? {} : { hint }) });

/** `80`, `80-90`; undefined when it is none. 0 is a host port that somebody else chooses. */
function portRange(text: string, least: number): Range | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (!match) return undefined;
  const [from, to] = [Number(match[1]), Number(match[2] ?? match[1])];
  return from >= least && to <= 65535 && from <= to ? { from, to } : undefined;
}

/** `80/udp` → `80` and `udp`; tcp without a protocol. */
function splitProtocol(flag: string, text: string): { readonly port: string; readonly protocol: Protocol } {
  const [port, named] = splitOnce(text, '/');
  const protocol = (named || 'tcp').toLowerCase();
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') throw invalid(flag, `invalid proto: ${named ?? ''}`, 'tcp, udp and sctp are known');
  return { port, protocol };
}

/** An address of the host, without the brackets of IPv6. `*` is not known. Errors: ERR_INVALID_VALUE. */
function hostAddress(text: string): string | undefined {
  if (text === '') return undefined;
  const bare = /^\[(.*)\]$/.exec(text)?.[1] ?? text;
  if (isIP(bare) === 0 || bare.includes('%')) throw invalid('-p', `invalid IP address: ${text}`, 'IP:HOST-PORT:CONTAINER-PORT takes an address of this machine, IPv6 in [ ]');
  return bare;
}

/** `published=8080,target=80,protocol=tcp`, as people know it from services. */
function longForm(text: string): string {
  const given = new Map([['protocol', 'tcp']]);
  for (const part of text.split(',')) {
    const [name, value] = splitOnce(part, '=');
    if (name === '' || value === undefined) throw invalid('-p', `invalid publish opts format (should be name=value but got '${part}')`);
    if (!['published', 'target', 'protocol', 'mode'].includes(name)) throw invalid('-p', `invalid publish opts format: unknown name '${name}'`, 'published, target and protocol are known');
    given.set(name, value);
  }
  return `${given.get('published') ?? ''}:${given.get('target') ?? ''}/${given.get('protocol') ?? ''}`;
}

/**
 * `-p [[ADDRESS:]HOST-PORT:]PORT[/PROTOCOL]`, ranges on one side or both; one mapping per container port. A range of the host for one port of the
 * container: the first that is free. Errors: ERR_INVALID_VALUE, in Docker's words.
 */
export function parsePublish(given: string): PortMapping[] {
  const text = given.includes('=') ? longForm(given) : given;
  const parts = text.split(':');
  const inside = parts.pop() ?? '';
  const hostPort = parts.pop() ?? '';
  const address = hostAddress(parts.join(':'));
  const { port, protocol } = splitProtocol('-p', inside);
  if (port === '') throw invalid('-p', `no port specified: ${given}<empty>`);
  const target = portRange(port, 1);
  if (!target) throw invalid('-p', `invalid containerPort: ${port}`);
  const source = hostPort === '' ? undefined : portRange(hostPort, 0);
  if (hostPort !== '' && !source) throw invalid('-p', `invalid hostPort: ${hostPort}`, isIP(hostPort) ? `for any port of that address write ${hostPort}::${inside}` : undefined);
  const count = target.to - target.from + 1;
  const common = { protocol, ...(address === undefined ? {} : { hostAddress: address }) };
  if (!source || source.to === 0) return Array.from({ length: count }, (_, i) => ({ ...common, containerPort: target.from + i }));
  if (source.from === 0) throw invalid('-p', `invalid hostPort: ${hostPort}`);
  if (count === 1) return [{ ...common, hostPort: source.from, ...(source.to > source.from ? { hostPortEnd: source.to } : {}), containerPort: target.from }];
  if (source.to - source.from + 1 !== count) throw invalid('-p', `invalid ranges specified for container and host Ports: ${port} and ${hostPort}`, 'both must have as many ports');
  return Array.from({ length: count }, (_, i) => ({ ...common, hostPort: source.from + i, containerPort: target.from + i }));
}

/** `--expose 80`, `8000-8010/udp` → `80/tcp` …; one entry per port. Errors: ERR_INVALID_VALUE, in Docker's words. */
export function parseExpose(text: string): string[] {
  if (text.includes(':')) throw invalid('--expose', `invalid port format for --expose: ${text}`, 'publish a port with -p');
  const { port, protocol } = splitProtocol('--expose', text);
  const range = portRange(port, 1);
  if (!range) throw invalid('--expose', `invalid range format for --expose: ${text}`, 'a port such as 80, or a range such as 8000-8010/udp');
  return Array.from({ length: range.to - range.from + 1 }, (_, i) => `${range.from + i}/${protocol}`);
}

/** A port as `engine port` and filters name it: `80`, `80/udp`. Errors: ERR_INVALID_VALUE. */
export function parsePort(flag: string, text: string): { readonly port: number; readonly protocol: Protocol } {
  const { port, protocol } = splitProtocol(flag, text);
  const range = portRange(port, 1);
  if (!range || range.from !== range.to) throw invalid(flag, `invalid port (${text})`, 'a number from 1 to 65535, with /udp or /sctp where it is not tcp');
  return { port: range.from, protocol };
}

/** The same, or a range of them. Errors: ERR_INVALID_VALUE. */
export function parsePortRange(flag: string, text: string): Range & { readonly protocol: Protocol } {
  const { port, protocol } = splitProtocol(flag, text);
  const range = portRange(port, 1);
  if (!range) throw invalid(flag, `invalid port range (${text})`, '80, 8000-8010 or 53/udp');
  return { ...range, protocol };
}

/** `0.0.0.0:80`, `[::]:80`. */
export const hostPortText = (address: string, port: number | string): string => `${address.includes(':') ? `[${address}]` : address}:${port}`;

export interface ShownPort { readonly containerPort: number; readonly protocol: string; readonly hostAddress?: string; readonly hostPort?: number }
const compare = (a: string | number, b: string | number): number => (a < b ? -1 : a > b ? 1 : 0);

/** The column PORTS of `ps`, with ranges collapsed; in Docker's order (exposed ones and equal numbers first, by their address and protocol). */
export function displayPorts(ports: readonly ShownPort[]): string {
  const sorted = [...ports].sort((a, b) => compare(a.containerPort, b.containerPort) || compare(a.hostAddress ?? '', b.hostAddress ?? '') || compare(a.hostPort ?? 0, b.hostPort ?? 0) || compare(a.protocol, b.protocol));
  const groups = new Map<string, Range & { readonly show: (range: string) => string }>();
  const result: string[] = [];
  const mapped: string[] = [];
  const shown = ({ from, to, show }: Range & { readonly show: (range: string) => string }): string => show(from === to ? String(from) : `${from}-${to}`);
  for (const { containerPort: port, protocol, hostAddress: address, hostPort } of sorted) {
    if (address !== undefined && hostPort !== port) {
      mapped.push(`${hostPortText(address, hostPort ?? 0)}->${port}/${protocol}`);
      continue;
    }
    const key = `${address ?? ''}/${protocol}`;
    const group = groups.get(key);
    const show = (range: string): string => `${address === undefined ? '' : `${hostPortText(address, range)}->`}${range}/${protocol}`;
    if (group && port === group.to) continue;
    if (group && port === group.to + 1) groups.set(key, { ...group, to: port });
    else {
      if (group) result.push(shown(group));
      groups.set(key, { from: port, to: port, show });
    }
  }
  return [...result, ...[...groups.values()].map(shown), ...mapped].join(', ');
}
