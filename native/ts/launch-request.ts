import { fail } from '@engine/core/errors';
import { FRONTEND } from './launch.ts';

/** What the launcher hands over. Lists of strings in the payload: u32 count, then u32 length + bytes each (no NUL, no padding). */
export interface LaunchRequest {
  readonly argv: readonly string[];
  readonly cwd: string;
  /** For an OCI runtime all of it (a hook may inherit it); else only what can matter: ENGINE_*, HOME, XDG_*, PATH, TERM, NO_COLOR, TMPDIR, and variables whose name the command line mentions. */
  readonly env: Readonly<Record<string, string>>;
  /** Bits of TERMINALS. */
  readonly terminals: number;
  readonly rows: number;
  readonly cols: number;
  /** Inodes of /proc/self/ns/{mnt,net,user,pid,cgroup}, then device and inode of `/`, as decimal text joined by spaces: the caller's world. */
  readonly world: string;
  readonly umask: number;
  /** Folder of the launcher's own installation (that of `bin/`): another one than engined's may be another version. Empty when it is not told. */
  readonly home: string;
  /** A value of FRONTEND. */
  readonly frontend: number;
}

/** Payload: u32 terminals, u16 rows, u16 cols, u32 umask, str world, str cwd, strs argv, strs env, str home, u32 frontend. Errors: ERR_SHIM_PROTOCOL. */
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
  // who walks up from a relative one never comes to the root
  if (!cwd.startsWith('/')) throw fail('ERR_SHIM_PROTOCOL', 'a request is malformed');
  const argv = texts();
  const env: Record<string, string> = {};
  for (const entry of texts()) {
    const equals = entry.indexOf('=');
    if (equals > 0) env[entry.slice(0, equals)] = entry.slice(equals + 1);
  }
  const home = at < payload.length ? text() : '';
  const frontend = at < payload.length ? number(4) : FRONTEND.cli;
  return { argv, cwd, env, terminals, rows, cols, world, umask, home, frontend };
}

/** The payload of a request, for clients in TypeScript. */
export function encodeRequest(request: Omit<LaunchRequest, 'frontend'> & { readonly frontend?: number }): Buffer {
  const u32 = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value >>> 0);
    return bytes;
  };
  const text = (value: string): Buffer => Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)]);
  const texts = (values: readonly string[]): Buffer => Buffer.concat([u32(values.length), ...values.map(text)]);
  const size = Buffer.alloc(4);
  size.writeUInt16LE(request.rows, 0);
  size.writeUInt16LE(request.cols, 2);
  const env = Object.entries(request.env).map(([name, value]) => `${name}=${value}`);
  return Buffer.concat([u32(request.terminals), size, u32(request.umask), text(request.world), text(request.cwd), texts(request.argv), texts(env), text(request.home), u32(request.frontend ?? FRONTEND.cli)]);
}
