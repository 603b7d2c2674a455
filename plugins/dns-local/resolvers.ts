import { readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';

export interface Upstream {
  readonly address: string;
  readonly port: number;
}

/** `ADDRESS` or `ADDRESS#PORT`; undefined: neither. */
export function parseUpstream(text: string): Upstream | undefined {
  const [address = '', port, more] = text.split('#');
  const number = port === undefined ? 53 : Number(port);
  if (more !== undefined || isIP(address.replace(/%.+$/, '')) === 0 || !Number.isInteger(number) || number < 1 || number > 65_535) return undefined;
  return { address, port: number };
}
const isUpstream = (value: Upstream | undefined): value is Upstream => value !== undefined;
export const parseUpstreams = (list: readonly string[]): Upstream[] => list.map(parseUpstream).filter(isUpstream);

/** `nameserver` lines of resolv.conf(5), the first three as libc takes them; without any, this machine is asked. */
export function parseResolvConf(text: string): Upstream[] {
  const found = [...text.matchAll(/^[ \t]*nameserver[ \t]+(\S+)/gm)].map(([, address = '']) => (address.includes('#') ? undefined : parseUpstream(address))).filter(isUpstream);
  return found.length > 0 ? found.slice(0, 3) : [{ address: '127.0.0.1', port: 53 }];
}

/** The host's name servers, read again when the file is another one. */
export function createHostResolvers(path = '/etc/resolv.conf'): () => readonly Upstream[] {
  let mark: string | undefined;
  let servers: readonly Upstream[] = parseResolvConf('');
  return () => {
    try {
      const { ino, mtimeMs, size } = statSync(path);
      const now = `${ino}:${mtimeMs}:${size}`;
      if (now !== mark) {
        servers = parseResolvConf(readFileSync(path, 'utf8'));
        mark = now;
      }
    } catch {
      // just being replaced: those of before
    }
    return servers;
  };
}
