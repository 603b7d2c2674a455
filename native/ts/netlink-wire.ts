import { closeSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { defineLibrary, errnoName, type Library } from './library.ts';
import { align } from './netlink-codec.ts';

/** The socket calls below netlink. The library is loaded when they are first needed. */

const libc = {
  socket: { args: ['int', 'int', 'int'], result: 'int' },
  bind: { args: ['int', 'bytes', 'u32'], result: 'int' },
  setsockopt: { args: ['int', 'int', 'int', 'bytes', 'u32'], result: 'int' },
  send: { args: ['int', 'bytes', 'size', 'int'], result: 'i64' },
  recv: { args: ['int', 'bytes', 'size', 'int'], result: 'i64' },
} as const;
let calls: Library<typeof libc> | undefined;
const socketCalls = (): Library<typeof libc> => (calls ??= defineLibrary(['libc.so.6', `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`], libc));

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
const SO = { SNDBUFFORCE: 32, RCVBUFFORCE: 33 } as const;
const SOL_NETLINK = 270;
const OPTION = { ADD_MEMBERSHIP: 1, CAP_ACK: 10, EXT_ACK: 11, GET_STRICT_CHK: 12 } as const;
const MSG = { PEEK: 2, TRUNC: 0x20, DONTWAIT: 0x40 } as const;
export const ERRNO = { ENOENT: 2, EINTR: 4, EBADF: 9, EAGAIN: 11, EBUSY: 16, EEXIST: 17, ENODEV: 19, EPROTO: 71, EBADMSG: 74, EMSGSIZE: 90, ENOBUFS: 105 } as const;
const FIRST_BUFFER = 65_536;
/** A larger batch may have more acknowledgements (about 1 KiB of the kernel's memory each) than a socket holds by default. */
const SMALL_BATCH = 4096;
const LARGE = 8 << 20;

export function netlinkError(operation: string, errno: number, text = '', data?: Record<string, unknown>): Error {
  const name = errnoName(errno);
  return fail('ERR_NATIVE', `cannot ${operation}: ${text === '' ? name : `${text} (${name})`}`, { operation, errno: name, ...(data ? { data } : {}) });
}

/** setsockopt of an int; its errno, 0 for success. */
function setOption(fd: number, level: number, option: number, value: number): number {
  const { value: result, errno } = socketCalls().setsockopt(fd, level, option, Int32Array.of(value), 4);
  return result < 0 ? errno : 0;
}

/** A new netlink socket, in the net namespace of the calling thread; whoever asks closes it. Errors come with the kernel's words, requests are checked strictly. Errors: ERR_NATIVE. */
export function netlinkDescriptor(protocol: number): number {
  const { value: fd, errno } = socketCalls().socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) throw netlinkError('open a netlink socket', errno);
  // older kernels lack some of these, and do without
  for (const option of [OPTION.EXT_ACK, OPTION.CAP_ACK, OPTION.GET_STRICT_CHK]) setOption(fd, SOL_NETLINK, option, 1);
  return fd;
}
/** Make a socket get what is told to `group`. Errors: ERR_NATIVE. */
export function joinGroup(fd: number, group: number): void {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK);
  // one without an address of its own counts as the sender of every message, and is left out
  const { value, errno } = socketCalls().bind(fd, address, address.length);
  const failure = value < 0 ? errno : setOption(fd, SOL_NETLINK, OPTION.ADD_MEMBERSHIP, group);
  if (failure) throw netlinkError('watch for changes', failure);
}
/** Other sizes of the buffers, past the limits where one may. */
export function resizeBuffers(fd: number, size: number = LARGE): void {
  for (const option of [SO.SNDBUFFORCE, SO.RCVBUFFORCE]) setOption(fd, SOL_SOCKET, option, size);
}

let buffer: Buffer | undefined;
/**
 * What is there next, in memory that is overwritten by the next one; undefined: nothing. Errors: the negative errno; -EMSGSIZE when it was too long and is
 * lost, the next one may be longer.
 */
function take(fd: number): Uint8Array | undefined | number {
  buffer ??= Buffer.allocUnsafeSlow(FIRST_BUFFER);
  for (;;) {
    const { value, errno } = socketCalls().recv(fd, buffer, buffer.length, MSG.TRUNC | MSG.DONTWAIT);
    const length = Number(value);
    if (length < 0 && errno === ERRNO.EINTR) continue;
    if (length < 0) return errno === ERRNO.EAGAIN ? undefined : -errno;
    if (length <= buffer.length) return buffer.subarray(0, length);
    buffer = Buffer.allocUnsafeSlow(align(length));
    return -ERRNO.EMSGSIZE;
  }
}
/** The same, for what cannot be asked for again: it is looked at before it is taken, and never too long. */
export function receiveWhole(fd: number): Uint8Array | undefined | number {
  buffer ??= Buffer.allocUnsafeSlow(FIRST_BUFFER);
  for (;;) {
    const { value, errno } = socketCalls().recv(fd, buffer, 0, MSG.PEEK | MSG.TRUNC | MSG.DONTWAIT);
    const length = Number(value);
    if (length < 0 && errno === ERRNO.EINTR) continue;
    if (length < 0) return errno === ERRNO.EAGAIN ? undefined : -errno;
    if (length > buffer.length) buffer = Buffer.allocUnsafeSlow(align(length));
    return take(fd);
  }
}

/** What a netlink socket needs of the kernel; tests hand in one of their own. */
export interface NetlinkWire {
  /** 0, or the errno. */
  send(bytes: Uint8Array): number;
  /** What is there, in memory that is used again; undefined: nothing. Errors: the negative errno. `whole`: never EMSGSIZE. */
  receive(whole: boolean): Uint8Array | undefined | number;
  /** Forget all that is under way; the next use begins afresh. */
  reset(): void;
}
/** The real one: opened at the first use. */
export function kernelWire(protocol: number): NetlinkWire {
  let fd: number | undefined;
  let large = false;
  const open = (): number => (fd ??= netlinkDescriptor(protocol));
  return {
    send(bytes) {
      if (bytes.length > SMALL_BATCH && !large) {
        resizeBuffers(open());
        large = true;
      }
      for (;;) {
        const { value, errno } = socketCalls().send(open(), bytes, bytes.length, 0);
        if (Number(value) === bytes.length) return 0;
        if (errno !== ERRNO.EINTR) return errno || ERRNO.EMSGSIZE;
      }
    },
    receive: (whole) => (whole ? receiveWhole(open()) : take(open())),
    reset() {
      if (fd !== undefined) closeSync(fd);
      fd = undefined;
      large = false;
    },
  };
}
