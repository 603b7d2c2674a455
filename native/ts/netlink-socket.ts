import { closeSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { defineLibrary, errnoName, type Library } from './library.ts';
import { align, decodeError, decodeMessages, NETLINK_NETFILTER, NETLINK_ROUTE, NLM_F, NLMSG, type Message } from './netlink-codec.ts';

/**
 * A netlink socket that is asked and answers at once: the kernel works a request off in the sender's own context, so that all answers are there when
 * send returns, and waiting is not needed. Opened at the first use, in the net namespace that the thread is in then.
 */
export interface NetlinkSocket {
  /**
   * Send messages (as of encodeBatch) and collect what they are answered with, acknowledgements aside; `sequence` of an answer is the place of its
   * message in the batch, from 1. Errors: ERR_NATIVE with the first message's errno, and its place in `data.message`.
   */
  request(batch: Uint8Array): Message[];
  /** One message with one answer. Undefined: the kernel answered with one of the errnos `absent`. */
  ask(message: Uint8Array, absent?: readonly number[]): Message | undefined;
  /** All of a table, complete: asked for again when it changed meanwhile. Errors: ERR_NATIVE; EINTR when it never held still. */
  dump(message: Uint8Array): Message[];
  close(): void;
}

const libc = {
  socket: { args: ['int', 'int', 'int'], result: 'int' },
  bind: { args: ['int', 'bytes', 'u32'], result: 'int' },
  setsockopt: { args: ['int', 'int', 'int', 'bytes', 'u32'], result: 'int' },
  send: { args: ['int', 'bytes', 'size', 'int'], result: 'i64' },
  recv: { args: ['int', 'bytes', 'size', 'int'], result: 'i64' },
} as const;
let calls: Library<typeof libc> | undefined;
/** The C library's socket calls; loaded when they are first needed. */
export const socketCalls = (): Library<typeof libc> => (calls ??= defineLibrary(['libc.so.6', `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`], libc));

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
export const SO = { SNDBUFFORCE: 32, RCVBUFFORCE: 33 } as const;
export const SOL_NETLINK = 270;
export const NETLINK_OPTION = { ADD_MEMBERSHIP: 1, CAP_ACK: 10, EXT_ACK: 11, GET_STRICT_CHK: 12 } as const;
export const MSG = { PEEK: 2, TRUNC: 0x20, DONTWAIT: 0x40 } as const;
export const ERRNO = { ENOENT: 2, EINTR: 4, EAGAIN: 11, EBUSY: 16, ENODEV: 19, EPROTO: 71, EMSGSIZE: 90, ENOBUFS: 105 } as const;
const ATTEMPTS = 10;
/** What a batch must be larger than for the socket's own buffers not to hold it and its answers. */
const SMALL = 65_536;
const LARGE_BUFFER = 8 << 20;

const names: Readonly<Record<number, Readonly<Record<number, string>>>> = {
  [NETLINK_ROUTE]: {
    16: 'set up a link', 17: 'delete a link', 18: 'read links', 19: 'change a link', 20: 'add an address', 21: 'delete an address', 22: 'read addresses', 24: 'add a route', 25: 'delete a route',
    26: 'read routes', 28: 'add a neighbour', 29: 'delete a neighbour', 30: 'read neighbours',
  },
  [NETLINK_NETFILTER]: {
    0xa00: 'add a table', 0xa01: 'read tables', 0xa02: 'delete a table', 0xa03: 'add a chain', 0xa04: 'read chains', 0xa05: 'delete a chain', 0xa06: 'add a rule', 0xa07: 'read rules', 0xa08: 'delete a rule',
    0xa09: 'add a set', 0xa0a: 'read sets', 0xa0b: 'delete a set', 0xa0c: 'add elements', 0xa0d: 'read elements', 0xa0e: 'delete elements', 0xa10: 'read the generation',
  },
};
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;

/** An fd of a netlink socket. `extended`: with the kernel's words to errors, and requests checked strictly. Errors: ERR_NATIVE. */
export function netlinkDescriptor(protocol: number, extended = true): number {
  const c = socketCalls();
  const { value: fd, errno } = c.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) throw failed('open a netlink socket', errno);
  // older kernels lack some of these, and do without
  if (extended) for (const option of [NETLINK_OPTION.EXT_ACK, NETLINK_OPTION.CAP_ACK, NETLINK_OPTION.GET_STRICT_CHK]) setOption(fd, SOL_NETLINK, option, 1);
  return fd;
}
/** setsockopt of an int; its errno, 0 for success. */
export function setOption(fd: number, level: number, option: number, value: number): number {
  const { value: result, errno } = socketCalls().setsockopt(fd, level, option, Int32Array.of(value), 4);
  return result < 0 ? errno : 0;
}
/** Make a socket get what is told to `group`. Errors: ERR_NATIVE. */
export function joinGroup(fd: number, group: number): void {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK);
  // one without an address of its own counts as the sender of every message, and is left out
  const { value, errno } = socketCalls().bind(fd, address, address.length);
  const failure = value < 0 ? errno : setOption(fd, SOL_NETLINK, NETLINK_OPTION.ADD_MEMBERSHIP, group);
  if (failure) throw failed('watch for changes', failure);
}
/** Larger buffers, past the limits where one may. */
export const enlarge = (fd: number, size = LARGE_BUFFER): void => [SO.SNDBUFFORCE, SO.RCVBUFFORCE].forEach((option) => setOption(fd, SOL_SOCKET, option, size));

function failed(operation: string, errno: number, text = '', data?: Record<string, unknown>): Error {
  const name = errnoName(errno);
  return fail('ERR_NATIVE', `cannot ${operation}: ${text === '' ? name : `${text} (${name})`}`, { operation, errno: name, ...(data ? { data } : {}) });
}

let buffer: Buffer | undefined;
/** What is there next, in memory that is overwritten by the next one; undefined: nothing. Errors: the negative errno; -EMSGSIZE when it was too long and is lost, the next one may be longer. */
function receiveOnce(fd: number): Uint8Array | undefined | number {
  buffer ??= Buffer.allocUnsafeSlow(SMALL);
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
export function receive(fd: number): Uint8Array | undefined | number {
  buffer ??= Buffer.allocUnsafeSlow(SMALL);
  for (;;) {
    const { value, errno } = socketCalls().recv(fd, buffer, 0, MSG.PEEK | MSG.TRUNC | MSG.DONTWAIT);
    const length = Number(value);
    if (length < 0 && errno === ERRNO.EINTR) continue;
    if (length < 0) return errno === ERRNO.EAGAIN ? undefined : -errno;
    if (length > buffer.length) buffer = Buffer.allocUnsafeSlow(align(length));
    return receiveOnce(fd);
  }
}

export function openNetlink(protocol: number): NetlinkSocket {
  let fd: number | undefined;
  let closed = false;
  let sequence = 0;
  let enlarged = false;

  const reset = (): void => {
    if (fd !== undefined) closeSync(fd);
    fd = undefined;
    enlarged = false;
  };
  const open = (): number => {
    if (closed) throw fail('ERR_NATIVE', 'the netlink socket is closed', { errno: 'EBADF' });
    return (fd ??= netlinkDescriptor(protocol));
  };
  const describe = (batch: Uint8Array, place = 1): string => {
    const message = decodeMessages(batch)[place - 1];
    return names[protocol]?.[message?.type ?? -1] ?? (message && protocol === NETLINK_NETFILTER && (message.type === BATCH_BEGIN || message.type === BATCH_END) ? 'change the rules' : `send netlink message ${message?.type ?? '?'}`);
  };
  const next = (): number => (sequence = (sequence % 0xffff_fff0) + 1);
  const transmit = (bytes: Uint8Array): void => {
    if (bytes.length > SMALL && !enlarged) {
      enlarge(open());
      enlarged = true;
    }
    for (;;) {
      const { value, errno } = socketCalls().send(open(), bytes, bytes.length, 0);
      if (Number(value) === bytes.length) return;
      if (errno !== ERRNO.EINTR) throw failed(describe(bytes), errno);
    }
  };
  const own = (message: Message, place: number): Message => ({ ...message, sequence: place, body: Buffer.from(message.body) });

  /** Flags and sequence number set, as a copy. */
  const prepared = (message: Uint8Array, flags: number): { bytes: Buffer; mine: number } => {
    const bytes = Buffer.from(message);
    if (bytes.length < 16 || bytes.readUInt32LE(0) > bytes.length) throw fail('ERR_NATIVE', 'damaged netlink message', { errno: 'EBADMSG' });
    bytes.writeUInt16LE(flags, 6);
    const mine = next();
    bytes.writeUInt32LE(mine, 8);
    return { bytes, mine };
  };

  /** One try of a dump; undefined: it was disturbed. */
  const dumpOnce = (message: Uint8Array): Message[] | undefined => {
    const { bytes, mine } = prepared(message, NLM_F.REQUEST | NLM_F.DUMP);
    transmit(bytes);
    const found: Message[] = [];
    let disturbed = false;
    for (;;) {
      const got = receiveOnce(open());
      if (got === undefined || typeof got === 'number') {
        // part of it is lost, or an end never came: a socket that is still dumping cannot be asked again
        reset();
        if (got === undefined || got === -ERRNO.ENOBUFS || got === -ERRNO.EMSGSIZE) return undefined;
        throw failed(describe(bytes), -got);
      }
      for (const answer of decodeMessages(got)) {
        if (answer.sequence !== mine) continue;
        if (answer.flags & NLM_F.DUMP_INTR) disturbed = true;
        if (answer.type === NLMSG.DONE || answer.type === NLMSG.ERROR) {
          const { errno, text } = answer.body.length >= 4 ? decodeError(answer) : { errno: 0, text: '' };
          if (errno === ERRNO.EINTR || errno === ERRNO.EBUSY) disturbed = true;
          else if (errno > 0) throw failed(describe(bytes), errno, text);
          return disturbed ? undefined : found;
        }
        if (answer.type !== NLMSG.NOOP) found.push(own(answer, 1));
      }
    }
  };

  return {
    request(batch) {
      const bytes = Buffer.from(batch);
      const first = sequence + 1;
      let expected = 0;
      let drain = false;
      for (let at = 0; at + 16 <= bytes.length;) {
        const type = bytes.readUInt16LE(at + 4);
        // nftables acknowledges begin and end of a batch since Linux 6.10 only
        const border = protocol === NETLINK_NETFILTER && (type === BATCH_BEGIN || type === BATCH_END);
        const acknowledged = (bytes.readUInt16LE(at + 6) & NLM_F.ACK) !== 0;
        if (border || !acknowledged) drain = true;
        else expected++;
        bytes.writeUInt32LE(++sequence, at + 8);
        at += Math.max(16, align(bytes.readUInt32LE(at)));
      }
      const last = sequence;
      if (sequence > 0x7fff_0000) sequence = 0;
      transmit(bytes);
      const answers: Message[] = [];
      let error: Error | undefined;
      let acknowledged = 0;
      for (;;) {
        if (!drain && acknowledged === expected) break;
        const got = receive(open());
        if (got === undefined) break;
        if (typeof got === 'number') {
          reset();
          throw failed(describe(bytes), -got, got === -ERRNO.ENOBUFS ? 'answers were lost: there were more than the socket holds' : '');
        }
        for (const answer of decodeMessages(got)) {
          // an answer to something earlier that was given up
          if (answer.sequence < first || answer.sequence > last) continue;
          const place = answer.sequence - first + 1;
          if (answer.type === NLMSG.ERROR) {
            const { errno, text } = decodeError(answer);
            const type = bytes.length >= 6 && place === 1 ? bytes.readUInt16LE(4) : undefined;
            if (!(protocol === NETLINK_NETFILTER && (type === BATCH_BEGIN || decodeMessages(bytes)[place - 1]?.type === BATCH_END))) acknowledged++;
            if (errno) error ??= failed(describe(bytes, place), errno, text, { message: place });
          } else if (answer.type !== NLMSG.NOOP && answer.type !== NLMSG.DONE) {
            answers.push(own(answer, place));
          }
        }
      }
      if (error) throw error;
      if (acknowledged < expected) throw failed(describe(bytes), ERRNO.EPROTO, `${acknowledged} of ${expected} netlink messages were acknowledged`);
      return answers;
    },
    ask(message, absent = []) {
      // without an acknowledgement there is exactly one answer, an error or what was asked for
      let { bytes, mine } = prepared(message, NLM_F.REQUEST);
      transmit(bytes);
      for (;;) {
        const got = receiveOnce(open());
        if (got === -ERRNO.EMSGSIZE) {
          ({ bytes, mine } = prepared(message, NLM_F.REQUEST));
          transmit(bytes);
          continue;
        }
        if (got === undefined) throw failed(describe(bytes), ERRNO.EPROTO, 'no answer');
        if (typeof got === 'number') {
          reset();
          throw failed(describe(bytes), -got);
        }
        for (const answer of decodeMessages(got)) {
          if (answer.sequence !== mine) continue;
          if (answer.type !== NLMSG.ERROR) return own(answer, 1);
          const { errno, text } = decodeError(answer);
          if (absent.includes(errno)) return undefined;
          throw failed(describe(bytes), errno || ERRNO.EPROTO, text);
        }
      }
    },
    dump(message) {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const found = dumpOnce(message);
        if (found) return found;
      }
      throw failed(describe(message), ERRNO.EINTR, `it changed ${ATTEMPTS} times while it was read`);
    },
    close() {
      reset();
      closed = true;
    },
  };
}
