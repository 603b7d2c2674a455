import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { defineLibrary } from '@engine/native';
import { type Answer, withFolder } from './view.ts';

/** Each asks the kernel whether it knows something, with arguments that can have no effect. Undefined: it may not be asked here. */
export interface KernelCalls {
  pidfdOpen(): Answer;
  clone3(): Answer;
  pidfdGetfd(): Answer;
  openat2(): Answer;
  closeRangeCloexec(): Answer;
  mountApi(): Answer;
  mountSetattr(): Answer;
  faccessat2(): Answer;
  fchmodat2(): Answer;
  memfdExec(): Answer;
  pipeNowait(): Answer;
  bpf(): Answer;
  overlayLayers(): Answer;
  overlayFolders(): Answer;
}

const { ENOSYS, EPERM, EINVAL, EOPNOTSUPP } = constants.errno;
/** Numbers that differ by machine; those from 424 on are the same everywhere. */
const numbers: Readonly<Record<string, { memfd: number; bpf: number; preadv2: number; pipe2: number }>> = {
  x64: { memfd: 319, bpf: 321, preadv2: 327, pipe2: 293 },
  arm64: { memfd: 279, bpf: 280, preadv2: 286, pipe2: 59 },
};
const FSOPEN = 430, FSCONFIG = 431;
const SET_FLAG = 0, SET_STRING = 1, SET_FD = 5;
const ANY = 0xffffffff, CLOEXEC = 1, MFD_EXEC = 0x10, RWF_NOWAIT = 8;

let made: { readonly calls: KernelCalls | undefined } | undefined;
/** By libc's syscall(2). Undefined where there is none that can be loaded, or for another machine. */
export function kernelCalls(): KernelCalls | undefined {
  return (made ??= { calls: make() }).calls;
}

function make(): KernelCalls | undefined {
  const own = numbers[process.arch];
  if (!own) return undefined;
  const libc = ['libc.so.6', 'libc.so', `libc.musl-${process.arch === 'x64' ? 'x86_64' : 'aarch64'}.so.1`];
  const long = 'koffi:long';
  try {
    const { syscall: call } = defineLibrary(libc, { syscall: { args: [long, long, long, long, long, long], result: long } });
    const { syscall: callBytes } = defineLibrary(libc, { syscall: { args: [long, long, 'bytes', long, long, long, long], result: long } });
    const { syscall: callText } = defineLibrary(libc, { syscall: { args: [long, 'str', long], result: long } });
    const { syscall: configure } = defineLibrary(libc, { syscall: { args: [long, long, long, 'str', 'koffi:const char *', long], result: long } });
    /** Its errno, 0 when it succeeded. */
    const errno = (...args: readonly number[]): number => {
      const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = args;
      const { value, errno: error } = call(a, b, c, d, e, f);
      return Number(value) < 0 ? error : 0;
    };
    const known = (error: number): Answer => (error === ENOSYS ? false : error === EPERM ? undefined : true);
    /** A context of an overlay that is never made: what it says to a key. */
    const overlay = (ask: (set: (command: number, key: string, value: string | null, fd: number) => number) => boolean): Answer => {
      const { value, errno: error } = callText(FSOPEN, 'overlay', CLOEXEC);
      const fs = Number(value);
      if (fs < 0) return error === ENOSYS ? false : undefined;
      try {
        return ask((command, key, text, fd) => {
          const result = configure(FSCONFIG, fs, command, key, text, fd);
          return Number(result.value) < 0 ? result.errno : 0;
        });
      } finally {
        closeSync(fs);
      }
    };
    return {
      pidfdOpen: () => known(errno(434, -1)),
      clone3: () => known(errno(435)),
      pidfdGetfd: () => known(errno(438, -1, -1)),
      openat2: () => known(errno(437, -1)),
      // a range without a descriptor
      closeRangeCloexec: () => {
        const error = errno(436, ANY, ANY, 4);
        return error === EINVAL ? false : known(error);
      },
      mountApi: () => known(errno(428, -1, 0, ANY)),
      mountSetattr: () => known(errno(442, -1, 0, ANY)),
      faccessat2: () => known(errno(439, -1, 0, 0, ANY)),
      fchmodat2: () => known(errno(452, -1, 0, 0, ANY)),
      // flags are looked at before the name, which is none
      memfdExec: () => {
        const error = errno(own.memfd, 0, CLOEXEC | MFD_EXEC);
        return error === EPERM ? undefined : error !== EINVAL;
      },
      pipeNowait: () => {
        const fds = new Int32Array(2);
        const { syscall: pipe } = defineLibrary(libc, { syscall: { args: [long, 'bytes', long], result: long } });
        if (Number(pipe(own.pipe2, fds, 0x80000).value) < 0) return undefined;
        try {
          // one byte, to nowhere; the pipe is empty
          const vector = new BigUint64Array([0n, 1n]);
          const { value, errno: error } = callBytes(own.preadv2, fds[0] as number, new Uint8Array(vector.buffer), 1, -1, -1, RWF_NOWAIT);
          return Number(value) >= 0 || error !== EOPNOTSUPP;
        } finally {
          for (const fd of fds) closeSync(fd);
        }
      },
      bpf: () => known(errno(own.bpf, 0xffff)),
      // what takes any key is the old form of mount options (before Linux 6.5)
      overlayLayers: () => overlay((set) => set(SET_FLAG, 'engine-no-such', null, 0) !== 0 && set(SET_STRING, 'lowerdir+', '/', 0) === 0),
      overlayFolders: () => overlay((set) => withFolder('/', (fd) => set(SET_FD, 'lowerdir+', null, fd) === 0) ?? false),
    };
  } catch {
    return undefined;
  }
}
