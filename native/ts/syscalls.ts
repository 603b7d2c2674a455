import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '@engine/core/errors';
import { binaryFolder } from './binaries.ts';
import { defineLibrary, errnoName } from './library.ts';

/** What the engine itself asks of the kernel beyond node:fs. Results are plain numbers; every failure is ERR_NATIVE with `errno`. */
export interface Syscalls {
  /** open + flock without waiting. Undefined: held by somebody else, or gone. Closed by `close`. */
  lock(path: string, options: { readonly create: boolean; readonly shared: boolean; readonly byte?: number }): number | undefined;
  close(fd: number): void;
  pipe(): { readonly read: number; readonly write: number };
  /** Two ends of a stream socket. */
  socketPair(): readonly [number, number];
  /** Two ends of a socket whose messages keep their borders (SOCK_SEQPACKET). */
  packetPair(): readonly [number, number];
  /** The next message, into `buffer`, with the fd that came along. Size 0: the other end is closed; undefined: there is none yet. Errors: EMSGSIZE for one that is longer. */
  receive(socket: number, buffer: Uint8Array): { readonly size: number; readonly fd?: number } | undefined;
  /** A copy of file `fd` of another process. */
  takeFd(pid: number, fd: number): number;
  /** sendmsg of `bytes` on `socket` with `fd` by SCM_RIGHTS; how many bytes went. Never waits: ERR_NATIVE with EAGAIN when the socket is full and nothing has gone. */
  sendWithFd(socket: number, bytes: Uint8Array, fd: number): number;
  /** The same with several fds (at most 32), which all come along with the first byte. Less than all bytes may go. */
  sendWithFds(socket: number, bytes: Uint8Array, fds: readonly number[]): number;
  /** An fd that can be executed but not written to by anyone: a sealed memfd, or a detached read-only mount of the file. */
  executable(path: string): number;
  /** Start `program` with `fds[i]` as fd 3+i (-1: none). It is nobody's child. Returns its pid. */
  spawn(program: number, argv: readonly string[], env: readonly string[], fds: readonly number[]): number;
  /** The same on another thread: whoever serves others too doesn't wait for the new process to get its turn. The fds stay open until it resolves. */
  spawnLater(program: number, argv: readonly string[], env: readonly string[], fds: readonly number[]): Promise<number>;
  /** Who is at the other end of a unix socket, as it was when it connected (or listened). */
  peer(socket: number): Peer;
  /** A pidfd; undefined: there is no such process. Closed by `close`. */
  pidfd(pid: number): number | undefined;
  /** False: it has ended. */
  signalPidfd(fd: number, signal: number): boolean;
  /** Bind `port` of an address of 4 or 16 bytes (`protocol` 6, 17 or 132) as a shim does, and let it go again. False: EADDRINUSE. */
  tryBind(protocol: number, address: Uint8Array, port: number): boolean;
}
export interface Peer { readonly pid: number; readonly uid: number; readonly gid: number }

const ABI = 8;
const EAGAIN = 11;
const ENOENT = 2;
const ESRCH = 3;
const EADDRINUSE = 98;
const ESTALE = 116;

function checked(what: string, result: number, path?: string): number {
  if (result >= 0) return result;
  const errno = errnoName(-result);
  throw fail('ERR_NATIVE', `${what}${path === undefined ? '' : ` ${path}`} failed`, { operation: what, errno, ...(path === undefined ? {} : { path }) });
}

/** The real ones, by libengine.so. */
export function createSyscalls(libraryPath = join(binaryFolder(), 'libengine.so')): Syscalls {
  const library = defineLibrary(libraryPath, {
    engine_abi: { args: [], result: 'int' },
    engine_lock: { args: ['str', 'int', 'int', 'i64'], result: 'int' },
    engine_pipe: { args: ['bytes'], result: 'int' },
    engine_socketpair: { args: ['bytes'], result: 'int' },
    engine_packetpair: { args: ['bytes'], result: 'int' },
    engine_receive: { args: ['int', 'bytes', 'int', 'bytes'], result: 'int' },
    engine_take_fd: { args: ['int', 'int'], result: 'int' },
    engine_send_fds: { args: ['int', 'bytes', 'int', 'bytes', 'int'], result: 'int' },
    engine_executable: { args: ['str'], result: 'int' },
    engine_spawn: { args: ['int', 'strs', 'strs', 'bytes', 'int'], result: 'int', later: true },
    engine_peer: { args: ['int', 'bytes'], result: 'int' },
    engine_pidfd: { args: ['int'], result: 'int' },
    engine_pidfd_signal: { args: ['int', 'int'], result: 'int' },
    engine_try_bind: { args: ['int', 'bytes', 'int', 'int'], result: 'int' },
  }, {
    check: (bound) => {
      const { value } = bound.engine_abi();
      return value === ABI ? undefined : `its ABI is ${value}, ${ABI} is needed`;
    },
  });
  const pair = (call: (fds: Int32Array) => { value: number }, what: string): [number, number] => {
    const fds = new Int32Array(2);
    checked(what, call(fds).value);
    return [fds[0] as number, fds[1] as number];
  };
  return {
    lock(path, { create, shared, byte = -1 }) {
      for (;;) {
        const { value } = library.engine_lock(path, create ? 1 : 0, shared ? 1 : 0, byte);
        if (value === -EAGAIN || (value === -ENOENT && !create)) return undefined;
        if (value === -ESTALE) {
          // the file was removed between open and flock: where it may be created, a new one is ours to make
          if (create) continue;
          return undefined;
        }
        return checked('lock', value, path);
      }
    },
    close: (fd) => closeSync(fd),
    pipe() {
      const [read, write] = pair(library.engine_pipe, 'pipe');
      return { read, write };
    },
    socketPair: () => pair(library.engine_socketpair, 'socketpair'),
    packetPair: () => pair(library.engine_packetpair, 'socketpair'),
    receive(socket, buffer) {
      const fds = new Int32Array(1);
      const { value } = library.engine_receive(socket, buffer, buffer.byteLength, fds);
      const [fd = -1] = fds;
      return value === -EAGAIN ? undefined : { size: checked('receive', value), ...(fd >= 0 && { fd }) };
    },
    takeFd: (pid, fd) => checked('take a file descriptor', library.engine_take_fd(pid, fd).value),
    sendWithFd: (socket, bytes, fd) => checked('send a file descriptor', library.engine_send_fds(socket, bytes, bytes.byteLength, Int32Array.of(fd), 1).value),
    sendWithFds: (socket, bytes, fds) => checked('send file descriptors', library.engine_send_fds(socket, bytes, bytes.byteLength, Int32Array.from(fds), fds.length).value),
    executable: (path) => checked('open for execution', library.engine_executable(path).value, path),
    spawn: (program, argv, env, fds) => checked('spawn', library.engine_spawn(program, argv, env, Int32Array.from(fds), fds.length).value),
    spawnLater: async (program, argv, env, fds) => checked('spawn', await library.engine_spawn.later(program, argv, env, Int32Array.from(fds), fds.length)),
    peer(socket) {
      const ids = new Int32Array(3);
      checked('ask for the peer', library.engine_peer(socket, ids).value);
      const [pid = 0, uid = 0, gid = 0] = ids;
      return { pid, uid: uid >>> 0, gid: gid >>> 0 };
    },
    pidfd(pid) {
      const { value } = library.engine_pidfd(pid);
      return value === -ESRCH ? undefined : checked('open a pidfd', value);
    },
    signalPidfd(fd, signal) {
      const { value } = library.engine_pidfd_signal(fd, signal);
      return value !== -ESRCH && checked('send a signal', value) === 0;
    },
    tryBind(protocol, address, port) {
      const { value } = library.engine_try_bind(protocol, address, address.byteLength, port);
      return value !== -EADDRINUSE && checked('bind', value) === 0;
    },
  };
}

/** One call as the fake has seen it. */
export interface RecordedCall { readonly name: keyof Syscalls; readonly args: readonly unknown[] }

/**
 * A fake that does nothing and remembers everything; fds are made-up numbers from 1000. `answers` replaces single calls. Locks exclude each
 * other as the real ones do.
 */
export function createRecordingSyscalls(answers: Partial<Syscalls> = {}): Syscalls & { readonly calls: readonly RecordedCall[]; readonly open: ReadonlySet<number> } {
  const calls: RecordedCall[] = [];
  const open = new Set<number>();
  const locks = new Map<number, { path: string; shared: boolean; byte: number }>();
  let next = 1000;
  const fd = (): number => {
    open.add(next);
    return next++;
  };
  const fakes: Syscalls = {
    lock(path, { shared, byte = -1 }) {
      for (const held of locks.values()) if (held.path === path && held.byte === byte && !(held.shared && shared)) return undefined;
      const mine = fd();
      locks.set(mine, { path, shared, byte });
      return mine;
    },
    close(closed) {
      if (!open.delete(closed)) throw fail('ERR_NATIVE', 'close failed', { operation: 'close', errno: 'EBADF' });
      locks.delete(closed);
    },
    pipe: () => ({ read: fd(), write: fd() }),
    socketPair: () => [fd(), fd()],
    packetPair: () => [fd(), fd()],
    receive: () => ({ size: 0 }),
    takeFd: () => fd(),
    sendWithFd: (_socket, bytes) => bytes.byteLength,
    sendWithFds: (_socket, bytes) => bytes.byteLength,
    executable: () => fd(),
    spawn: () => 4242,
    spawnLater: () => Promise.resolve(4242),
    peer: () => ({ pid: 4242, uid: 0, gid: 0 }),
    pidfd: () => fd(),
    signalPidfd: () => true,
    tryBind: () => true,
  };
  const recorded = Object.fromEntries((Object.keys(fakes) as (keyof Syscalls)[]).map((name) => [name, (...args: unknown[]) => {
    calls.push({ name, args });
    const call = (answers[name] ?? fakes[name]) as (...all: unknown[]) => unknown;
    return call(...args);
  }])) as unknown as Syscalls;
  return Object.assign(recorded, { calls, open });
}
