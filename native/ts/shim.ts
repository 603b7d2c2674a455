import { closeSync, constants, openSync } from 'node:fs';
import { connect, Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { FRAME } from '@engine/core/plan';
import { fail } from '@engine/core/errors';
import { type Frame, type ShimConnection, type SpawnShim } from '@engine/core/native';
import { encodeFrame, FrameReader } from './frames.ts';
import { type Syscalls } from './syscalls.ts';

/** What of Syscalls a connection needs. */
export type SendFd = Pick<Syscalls, 'sendWithFd' | 'close'>;

/** A connection over a connected stream socket. `calls` are asked for at the first `adopt`. */
export function createConnection(socket: Socket, calls: () => SendFd): ShimConnection {
  const reader = new FrameReader();
  const early: Frame[] = [];
  let listener: ((frame: Frame) => void) | undefined;
  let paused = false;
  let broken: Error | undefined;
  const passing = passFds(socket, calls);
  outliveWrites(socket, (error) => (broken = error));
  // undelivered frames hold the socket back too
  const deliver = (): void => {
    while (listener && !paused && early.length) listener(early.shift() as Frame);
    if (!paused && listener) socket.resume();
  };
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => resolve());
  });
  socket.on('error', () => {}); // ECONNRESET, EPIPE: 'close' follows
  socket.on('data', (chunk: Buffer) => {
    let frames: Frame[];
    try {
      frames = reader.push(chunk);
    } catch {
      socket.destroy();
      return;
    }
    for (const frame of frames) {
      if (listener && !paused && !early.length) listener(frame);
      else early.push(frame);
    }
    if (early.length > 1024) socket.pause();
  });
  return {
    send(type, frame) {
      return new Promise((resolve, reject) => {
        const gone = (cause?: Error): void => reject(fail('ERR_SHIM_GONE', 'the shim has closed its connection', cause ? { cause } : {}));
        if (socket.destroyed || !socket.writable || broken) {
          gone(broken);
          return;
        }
        socket.write(encodeFrame(type, frame), (error) => {
          const failed = error ?? broken;
          if (failed) gone(failed);
          else resolve();
        });
      });
    },
    adopt(fd) {
      if (socket.destroyed || !socket.writable || broken) {
        calls().close(fd);
        return;
      }
      const head = Buffer.from(encodeFrame(FRAME.adopt));
      passing.set(head, fd);
      // a write in the queue keeps its place among the others; the callback also comes when the socket was destroyed meanwhile
      socket.write(head, () => passing.drop(head));
    },
    onFrame(next) {
      listener = next;
      deliver();
    },
    pause() {
      paused = true;
      socket.pause();
    },
    resume() {
      paused = false;
      deliver();
    },
    closed,
    close() {
      socket.destroy();
    },
  };
}

/**
 * Let single writes carry an fd. Node can't send one over a plain socket: such a write is a sendmsg of our own, at its place in the queue (when its turn comes,
 * all before it is with the kernel). Writes are therefore not put together into one.
 */
function passFds(socket: Socket, calls: () => SendFd): { set(bytes: Uint8Array, fd: number): void; drop(bytes: Uint8Array): void } {
  const fds = new Map<unknown, number>();
  const drop = (bytes: unknown): void => {
    const fd = fds.get(bytes);
    if (fd === undefined) return;
    fds.delete(bytes);
    calls().close(fd);
  };
  const write = socket._write;
  const send = (bytes: Uint8Array, done: (error?: Error | null) => void): void => {
    const { fd: own } = (socket as Socket & { _handle?: { fd?: number } | null })._handle ?? {};
    const fd = fds.get(bytes);
    if (own === undefined || own < 0 || fd === undefined || socket.destroyed) {
      drop(bytes);
      done(new Error('the connection is closed'));
      return;
    }
    try {
      calls().sendWithFd(own, bytes, fd);
    } catch (error) {
      if ((error as { errno?: string }).errno === 'EAGAIN') {
        setTimeout(send, 1, bytes, done);
        return;
      }
      drop(bytes);
      done(error as Error);
      return;
    }
    drop(bytes);
    done();
  };
  socket._write = (chunk, encoding, done) => (fds.has(chunk) ? send(chunk as Uint8Array, done) : write.call(socket, chunk, encoding, done));
  return {
    set(bytes, fd) {
      // the first one: from now on one by one, whoever put several together would overtake it
      if (fds.size === 0) Object.defineProperty(socket, '_writev', { value: null, configurable: true, writable: true });
      fds.set(bytes, fd);
    },
    drop,
  };
}

/**
 * A write to a shim that has just ended fails (EPIPE). Node would then throw away what the shim had said before, its exit frame too:
 * instead the failure is told, and reading goes on to the end.
 */
function outliveWrites(socket: Socket, onFailure: (error: Error) => void): void {
  type Done = (error?: Error | null) => void;
  const told = (done: Done): Done => (error) => {
    if (error) onFailure(error);
    done();
  };
  const { _write: write, _writev: writeAll } = socket;
  socket._write = (chunk, encoding, done) => write.call(socket, chunk, encoding, told(done));
  if (writeAll) socket._writev = (chunks, done) => writeAll.call(socket, chunks, told(done));
}

/** Connect to `shim.sock`. Errors: ERR_SHIM_GONE. */
export function connectShim(path: string, calls: () => SendFd): Promise<ShimConnection> {
  // sun_path holds 107 bytes: a longer path goes through an fd of its folder
  let folder: number | undefined;
  let address = path;
  if (Buffer.byteLength(path) > 107) {
    try {
      folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
    } catch (cause) {
      return Promise.reject(fail('ERR_SHIM_GONE', 'the run has no folder any more', { path, cause }));
    }
    address = `/proc/self/fd/${folder}/${path.slice(dirname(path).length + 1)}`;
  }
  return new Promise<ShimConnection>((resolve, reject) => {
    const socket = connect(address);
    const refused = (cause: NodeJS.ErrnoException): void => reject(fail('ERR_SHIM_GONE', 'nobody listens on the shim\'s socket', { path, cause, ...(cause.code === undefined ? {} : { errno: cause.code }) }));
    socket.once('error', refused);
    socket.once('connect', () => {
      socket.off('error', refused);
      resolve(createConnection(socket, calls));
    });
  }).finally(() => {
    if (folder !== undefined) closeSync(folder);
  });
}

/**
 * Start the shim. It inherits nothing but what is named here: the fds of SHIM_FD, client and streams, and `env`. `client` is closed in any case.
 * `later`: on another thread; with `by` it is somebody else's child; a failure is told by the connection then. The lock must then stay open until its `closed` or first frame: see `holdWhile`.
 * Errors: ERR_NATIVE; ERR_STATE-free: the plan must exist.
 */
export function spawnShim(syscalls: Syscalls, program: number, request: SpawnShim, later = false): ShimConnection {
  const opened: number[] = [];
  const open = (path: string, flags: number): number => {
    try {
      const fd = openSync(path, flags);
      opened.push(fd);
      return fd;
    } catch (cause) {
      throw fail('ERR_NATIVE', `cannot open ${path} for the shim`, { operation: 'spawn shim', path, cause, ...((cause as NodeJS.ErrnoException).code ? { errno: (cause as NodeJS.ErrnoException).code as string } : {}) });
    }
  };
  let ours: number | undefined;
  const close = (): void => {
    if (request.client !== undefined) syscalls.close(request.client);
    for (const fd of opened) closeSync(fd);
    if (ours !== undefined) closeSync(ours);
  };
  let pending: Promise<unknown> | undefined;
  const { handOver } = request;
  try {
    const plan = open(request.plan, constants.O_RDONLY);
    const folder = request.runFolder === undefined ? -1 : open(request.runFolder, constants.O_RDONLY | constants.O_DIRECTORY);
    const [mine, theirs] = syscalls.socketPair();
    ours = mine;
    opened.push(theirs);
    // in the order of core/plan/protocol.ts: `wake` takes all that follows
    const options = [
      ...(handOver ? ['hand-over'] : []),
      ...(handOver?.console === undefined ? [] : ['console']),
      ...(handOver && handOver.preserve > 0 ? [`preserve=${handOver.preserve}`] : []),
      ...(request.ignorePaused ? ['ignore-paused'] : []),
      ...(request.client === undefined ? [] : ['client']),
      ...(request.pool === undefined ? [] : [`pool=${request.pool}`]),
      ...(request.trace ? ['trace'] : []),
      ...(request.wake?.length ? [request.wakeAlways ? 'wake-always' : 'wake', ...request.wake] : []),
    ];
    const extra = [...(request.client === undefined ? [] : [request.client]), ...(request.streams ?? [])];
    const env = Object.entries(request.env ?? {}).map(([key, value]) => `${key}=${value}`);
    const argv = ['engine-shim', request.mode, ...options];
    const fds = [theirs, request.lock?.fd ?? -1, folder, plan, ...extra];
    if (request.by) pending = request.by.spawn({ program, argv, env, fds, callerFds: handOver ?? { preserve: 0 } });
    else if (later) pending = syscalls.spawnLater(program, argv, env, fds);
    else syscalls.spawn(program, argv, env, fds);
    const socket = new Socket({ fd: mine, readable: true, writable: true });
    ours = undefined;
    socket.resume();
    const connection = createConnection(socket, () => syscalls);
    if (!pending) return connection;
    let failure: Error | undefined;
    const spawned = pending.catch((error: Error) => {
      failure = error;
      connection.close();
    });
    void spawned.finally(close);
    return Object.defineProperties(connection as ShimConnection & { spawned: Promise<unknown> }, { failure: { get: () => failure }, spawned: { value: spawned } });
  } finally {
    if (!pending) close();
  }
}

/** Path of a run's socket. */
export const socketPath = (runFolder: string): string => join(runFolder, 'shim.sock');
