import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { addressBytes } from './addresses.ts';
import { type Syscalls } from './syscalls.ts';

export type PortProtocol = 'tcp' | 'udp' | 'sctp';
const NUMBERS: Record<PortProtocol, number> = { tcp: 6, udp: 17, sctp: 132 };
/** Shims, and their processes that pass on what reaches a port. */
const SHIM = 'engine-shim';
const RELAY = 'engine-relay';

/** `tcp 0.0.0.0:80`, `udp [::]:53` */
export const portText = (protocol: PortProtocol, address: string, port: number): string => `${protocol} ${address.includes(':') ? `[${address}]` : address}:${port}`;

/**
 * Would a shim get this port now? By a real bind, so that every conflict counts that the kernel knows (wildcards, connections that use the port), and none that it
 * does not (connections that have ended). Errors: ERR_NATIVE when it cannot be bound for another reason (EADDRNOTAVAIL: not an address of this host, EACCES).
 */
export function isPortFree(syscalls: Pick<Syscalls, 'tryBind'>, protocol: PortProtocol, address: string, port: number): boolean {
  try {
    return syscalls.tryBind(NUMBERS[protocol], addressBytes(address), port);
  } catch (error) {
    const { errno = '' } = error as { errno?: string };
    throw fail('ERR_NATIVE', `cannot bind ${portText(protocol, address, port)}`, { operation: 'bind', ...(errno && { errno }), cause: error });
  }
}

interface Holder { readonly address: Buffer; readonly port: number; readonly listening: boolean; readonly inode: string }

/** An address as /proc/net has it: words of four bytes, each in the byte order of the machine. */
function procAddress(hex: string): Buffer {
  const bytes = Buffer.from(hex, 'hex');
  return bytes.length % 4 === 0 ? bytes.swap32() : bytes;
}

/** The lines of /proc/net/tcp and its like. */
function holders(path: string, protocol: PortProtocol): Holder[] {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch {
    return [];
  }
  const found: Holder[] = [];
  for (const line of text.split('\n').slice(1)) {
    const fields = line.trim().split(/\s+/);
    const [address, port] = (fields[1] ?? '').split(':');
    const [state, inode] = [fields[3] ?? '', fields[9] ?? '0'];
    // nobody has the socket of a connection in TIME_WAIT any more
    if (address && port && inode !== '0') found.push({ address: procAddress(address), port: Number.parseInt(port, 16), listening: protocol === 'udp' || state === '0A', inode });
  }
  return found;
}

/** ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS…; addresses as text. */
function sctpHolders(path: string): Holder[] {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch {
    return [];
  }
  return text.split('\n').slice(1).flatMap((line) => {
    const fields = line.trim().split(/\s+/);
    return fields.slice(8).map((address): Holder => ({ address: addressBytes(address), port: Number(fields[5]), listening: true, inode: fields[7] ?? '0' }));
  });
}

const isWildcard = (address: Buffer): boolean => address.every((byte) => byte === 0);
const MAPPED = Buffer.from('00000000000000000000ffff', 'hex');

/** Can these two not be bound at once? Who asks for IPv6 wants nothing but that; others may serve IPv4 by a socket of IPv6. */
function clashes(wanted: Buffer, other: Buffer): boolean {
  if (wanted.length === other.length) return isWildcard(wanted) || isWildcard(other) || wanted.equals(other);
  if (wanted.length === 16) return false;
  if (isWildcard(other)) return true;
  if (!other.subarray(0, 12).equals(MAPPED)) return false;
  return clashes(wanted, other.subarray(12));
}

function processWith(inode: string, proc: string): string | undefined {
  const wanted = `socket:[${inode}]`;
  for (const pid of readdirSync(proc).filter((name) => /^\d+$/.test(name))) {
    let fds: string[];
    try {
      fds = readdirSync(`${proc}/${pid}/fd`);
    } catch {
      continue; // it has ended, or belongs to somebody else
    }
    for (const fd of fds) {
      try {
        if (readlinkSync(`${proc}/${pid}/fd/${fd}`) !== wanted) continue;
        const name = readFileSync(`${proc}/${pid}/comm`, 'utf8').trim();
        return name === SHIM || name === RELAY ? SHIM : `${name} (pid ${pid})`;
      } catch {
        continue;
      }
    }
  }
  return undefined;
}

/**
 * Who has a port of this network namespace, or one that cannot be bound beside it: `nginx (pid 12)`; `engine-shim` for a container's. Who listens comes before who
 * uses the port for a connection. Undefined: nobody, the kernel itself, or a process that we may not look at.
 */
export function portHolder(protocol: PortProtocol, address: string, port: number, proc = '/proc'): string | undefined {
  const wanted = addressBytes(address);
  const all = protocol === 'sctp' ? sctpHolders(`${proc}/net/sctp/eps`) : [...holders(`${proc}/net/${protocol}`, protocol), ...holders(`${proc}/net/${protocol}6`, protocol)];
  const clashing = all.filter((holder) => holder.port === port && clashes(wanted, holder.address));
  for (const listening of [true, false]) {
    for (const { inode } of clashing.filter((holder) => holder.listening === listening)) {
      const found = processWith(inode, proc);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}
