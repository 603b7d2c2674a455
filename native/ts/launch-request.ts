import { fail } from '@engine/core/errors';

/** What the launcher hands over. Lists of strings in the payload: u32 count, then u32 length + bytes each (no NUL, no padding). */
export interface LaunchRequest {
  readonly argv: readonly string[];
  readonly cwd: string;
  /** Only what can matter: ENGINE_*, HOME, XDG_*, PATH, TERM, NO_COLOR, TMPDIR, and variables whose name the command line mentions. */
  readonly env: Readonly<Record<string, string>>;
  /** Bits of TERMINALS. */
  readonly terminals: number;
  readonly rows: number;
  readonly cols: number;
  /** Inodes of /proc/self/ns/{mnt,net,user,pid,cgroup}, then device and inode of `/`, as decimal text joined by spaces: the caller's world. */
  readonly world: string;
  readonly umask: number;
}

/** Payload: u32 terminals, u16 rows, u16 cols, u32 umask, str world, str cwd, strs argv, strs env. Errors: ERR_SHIM_PROTOCOL. */
export function decodeRequest(payload: Buffer): LaunchRequest {
  let at = 0;
  const number = (bytes: 2 | 4): number => {
    if (at + bytes > payload.length) throw fail('ERR_SHIM_PROTOCOL', 'a request is cut short');
    at += bytes;
    return payload.readUIntLE(at - bytes, bytes);
  };
  const text = (): string => {
    const length = number(4);
    if (at + length > payload.length) throw fail('ERR_SHIM_PROTOCOL', 'a request is cut short');
    at += length;
    return payload.toString('utf8', at - length, at);
  };
  const texts = (): string[] => {
    const count = number(4);
    if (count > payload.length / 4) throw fail('ERR_SHIM_PROTOCOL', 'a request is malformed');
    return Array.from({ length: count }, text);
  };
  const terminals = number(4);
  const rows = number(2);
  const cols = number(2);
  const umask = number(4);
  const world = text();
  const cwd = text();
  const argv = texts();
  const env: Record<string, string> = {};
  for (const entry of texts()) {
    const equals = entry.indexOf('=');
    if (equals > 0) env[entry.slice(0, equals)] = entry.slice(equals + 1);
  }
  return { argv, cwd, env, terminals, rows, cols, world, umask };
}
