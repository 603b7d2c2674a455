import { readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Lock, type Native } from '@engine/core/native';
import { isPortFree, portHolder } from './ports.ts';
import { startProgram } from './programs.ts';
import { watchReadable } from './library.ts';
import { connectShim, spawnShim } from './shim.ts';
import { binaryFolder } from './binaries.ts';
import { createSyscalls, type Syscalls } from './syscalls.ts';

export { defineLibrary, errnoName, type CallResult, type CType, type FunctionType, type Library } from './library.ts';
export { createRecordingSyscalls, createSyscalls, type Syscalls } from './syscalls.ts';
export { decodeBarrier, decodeFailure, encodeFrame, FrameReader } from './frames.ts';

export interface NativeOptions {
  /** Default: `engine-shim` of the build. Tests hand in the build with halt points. */
  readonly shimPath?: string;
  /** Default: `libengine.so` of the build. */
  readonly libraryPath?: string;
  /** Instead of the library. */
  readonly syscalls?: Syscalls;
  /** Start shims on another thread: for a process that serves others meanwhile. */
  readonly spawnLater?: boolean;
}

function startTimeOf(pid: number, living = false): bigint | undefined {
  let line: string;
  try {
    // the name in it may be in any encoding; what follows is digits
    line = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
  const field = living && (fields[0] === 'Z' || fields[0] === 'X') ? undefined : fields[19];
  return field === undefined ? undefined : BigInt(field);
}

/** The native part, as core wants it. Nothing is loaded before it is needed, so that commands that need none of it start at once. */
export function createNative(options: NativeOptions = {}): Native {
  let syscalls = options.syscalls;
  let program: number | undefined;
  /** Locks that a shim is to inherit that is just being started; released meanwhile: true. */
  const inherited = new Map<number, boolean>();
  let boot: string | undefined;
  const calls = (): Syscalls => (syscalls ??= createSyscalls(options.libraryPath));
  return {
    tryLock(path, { create = true, shared = false, byte } = {}) {
      const fd = calls().lock(path, { create, shared, ...(byte === undefined ? {} : { byte }) });
      if (fd === undefined) return undefined;
      let held = true;
      const lock: Lock = {
        fd,
        path,
        release() {
          if (held && inherited.has(fd)) inherited.set(fd, true);
          else if (held) calls().close(fd);
          held = false;
        },
      };
      return lock;
    },
    spawnShim(request) {
      // one sealed copy per engine serves all its shims
      program ??= calls().executable(options.shimPath ?? join(binaryFolder(), 'engine-shim'));
      const connection = spawnShim(calls(), program, request, options.spawnLater);
      const { lock } = request;
      if ('spawned' in connection && lock) {
        inherited.set(lock.fd, false);
        void (connection.spawned as Promise<unknown>).finally(() => {
          const released = inherited.get(lock.fd);
          inherited.delete(lock.fd);
          if (released) calls().close(lock.fd);
        });
      }
      return connection;
    },
    startProgram: (request) => startProgram(calls(), request),
    connectShim: (path) => connectShim(path, calls),
    processStartTime: startTimeOf,
    processFolder: (pid) => `/proc/${pid}`,
    signalProcess(pid, startTime, signal) {
      const fd = calls().pidfd(pid);
      if (fd === undefined) return false;
      try {
        // asked when it can be nobody else any more
        return startTimeOf(pid) === startTime && calls().signalPidfd(fd, signal);
      } finally {
        calls().close(fd);
      }
    },
    removeGroup(path) {
      try {
        rmdirSync(path);
        return true;
      } catch (error) {
        return (error as NodeJS.ErrnoException).code === 'ENOENT';
      }
    },
    watchEnd(pid, startTime, onEnd) {
      const fd = calls().pidfd(pid);
      let watch: { close(): void } | undefined;
      let open = true;
      const close = (): void => {
        if (!open) return;
        open = false;
        watch?.close();
        if (fd !== undefined) calls().close(fd);
      };
      const ended = (): void => {
        if (!open) return;
        close();
        onEnd();
      };
      // a zombie's pidfd is readable at once
      if (fd !== undefined && startTimeOf(pid) === startTime) watch = watchReadable(fd, ended);
      else setImmediate(ended);
      return { close };
    },
    bootId: () => (boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()),
    socketPair: () => calls().socketPair(),
    close: (fd) => calls().close(fd),
    isPortFree: (protocol, address, port) => isPortFree(calls(), protocol, address, port),
    portHolder: (protocol, address, port) => portHolder(protocol, address, port),
    pipe: () => calls().pipe(),
  };
}
