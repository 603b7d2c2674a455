import { fail } from '@engine/core/errors';
import { align, decodeAttributes, decodeError, decodeMessages, NETLINK_NETFILTER, NETLINK_ROUTE, NLM_F, NLMSG, textOf, type Message } from './netlink-codec.ts';
import { ERRNO, kernelWire, netlinkError, type NetlinkWire } from './netlink-wire.ts';

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
  /** One message with one answer. Undefined: the kernel answered with one of the errnos `absent`. Errors: ERR_NATIVE. */
  ask(message: Uint8Array, absent?: readonly number[]): Message | undefined;
  /** All of a table, complete: asked for again when it changed meanwhile. Errors: ERR_NATIVE; EINTR when it never held still. */
  dump(message: Uint8Array): Message[];
  close(): void;
}

const ATTEMPTS = 10;
const names: Readonly<Record<number, Readonly<Record<number, string>>>> = {
  [NETLINK_ROUTE]: {
    16: 'set up a link', 17: 'delete a link', 18: 'read links', 19: 'change a link', 20: 'add an address', 21: 'delete an address', 22: 'read addresses', 24: 'add a route', 25: 'delete a route',
    26: 'read routes', 28: 'add a neighbour', 29: 'delete a neighbour', 30: 'read neighbours',
  },
  [NETLINK_NETFILTER]: {
    0x10: 'change nftables', 0x11: 'change nftables', 0xa00: 'add a table', 0xa01: 'read tables', 0xa02: 'delete a table', 0xa03: 'add a chain', 0xa04: 'read chains', 0xa05: 'delete a chain',
    0xa06: 'add a rule', 0xa07: 'read rules', 0xa08: 'delete a rule', 0xa09: 'add a set', 0xa0a: 'read sets', 0xa0b: 'delete a set', 0xa0c: 'add elements', 0xa0d: 'read elements', 0xa0e: 'delete elements',
    0xa10: 'read the generation',
  },
};
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
const LAST_SEQUENCE = 0xffff_ffff;

/** A message of a batch, as far as its answers are concerned. */
interface Sent { readonly type: number; readonly counted: boolean }

export function openNetlink(protocol: number, wire: NetlinkWire = kernelWire(protocol)): NetlinkSocket {
  let closed = false;
  let sequence = 0;

  const operation = (type: number | undefined): string => names[protocol]?.[type ?? -1] ?? `send netlink message ${type ?? '?'}`;
  const check = (): void => {
    if (closed) throw fail('ERR_NATIVE', 'the netlink socket is closed', { errno: 'EBADF' });
  };
  /** `count` numbers that no answer under way can have. The first of them. */
  const numbers = (count: number): number => {
    if (sequence + count > LAST_SEQUENCE) sequence = 0;
    sequence += count;
    return sequence - count + 1;
  };
  const lost = (errno: number): string => (errno === ERRNO.ENOBUFS ? 'answers were lost: there were more than the socket holds' : '');
  const own = (message: Message, place: number): Message => ({ ...message, sequence: place, body: Buffer.from(message.body) });

  /** A single message with these flags and a number of its own, sent. The number. */
  const transmit = (message: Uint8Array, flags: number): number => {
    check();
    const bytes = Buffer.from(message);
    if (bytes.length < 16 || bytes.readUInt32LE(0) > bytes.length) throw netlinkError('send a netlink message', ERRNO.EBADMSG);
    const mine = numbers(1);
    bytes.writeUInt16LE(flags, 6);
    bytes.writeUInt32LE(mine, 8);
    const errno = wire.send(bytes);
    if (errno) throw netlinkError(operation(typeOf(message)), errno);
    return mine;
  };
  const typeOf = (message: Uint8Array): number => (message[4] as number) | ((message[5] as number) << 8);

  /** One try of a dump; undefined: it was disturbed. */
  const dumpOnce = (message: Uint8Array): Message[] | undefined => {
    const mine = transmit(message, NLM_F.REQUEST | NLM_F.DUMP);
    const found: Message[] = [];
    let disturbed = false;
    for (;;) {
      const got = wire.receive(false);
      if (got === undefined || typeof got === 'number') {
        // part of it is lost, or an end never came: a socket that is still dumping cannot be asked again
        wire.reset();
        if (got === undefined || got === -ERRNO.ENOBUFS || got === -ERRNO.EMSGSIZE) return undefined;
        throw netlinkError(operation(typeOf(message)), -got);
      }
      for (const answer of decodeMessages(got)) {
        if (answer.sequence !== mine) continue;
        if (answer.flags & NLM_F.DUMP_INTR) disturbed = true;
        if (answer.type === NLMSG.DONE || answer.type === NLMSG.ERROR) {
          const { errno, text } = answer.type === NLMSG.ERROR ? decodeError(answer) : endOf(answer);
          if (errno === ERRNO.EINTR || errno === ERRNO.EBUSY) disturbed = true;
          else if (errno > 0) throw netlinkError(operation(typeOf(message)), errno, text);
          return disturbed ? undefined : found;
        }
        if (answer.type !== NLMSG.NOOP) found.push(own(answer, 1));
      }
    }
  };

  /** Numbers the messages in place, from `sequence` on. */
  const number = (bytes: Buffer): { first: number; sent: Sent[] } => {
    const places: number[] = [];
    for (let at = 0; at + 16 <= bytes.length; at += Math.max(16, align(bytes.readUInt32LE(at)))) places.push(at);
    const first = numbers(places.length);
    return {
      first,
      sent: places.map((at, i) => {
        bytes.writeUInt32LE(first + i, at + 8);
        const type = bytes.readUInt16LE(at + 4);
        // nftables acknowledges begin and end of a batch since Linux 6.10 only
        const border = protocol === NETLINK_NETFILTER && (type === BATCH_BEGIN || type === BATCH_END);
        return { type, counted: !border && (bytes.readUInt16LE(at + 6) & NLM_F.ACK) !== 0 };
      }),
    };
  };

  return {
    request(batch) {
      check();
      const bytes = Buffer.from(batch);
      const { first, sent } = number(bytes);
      const expected = sent.filter(({ counted }) => counted).length;
      const refused = wire.send(bytes);
      if (refused) throw netlinkError(operation(sent[0]?.type), refused);
      const answers: Message[] = [];
      let error: Error | undefined;
      // what isn't acknowledged may be answered all the same: then until nothing is left
      for (let acknowledged = 0; expected < sent.length || acknowledged < expected;) {
        const got = wire.receive(true);
        if (typeof got === 'number') {
          wire.reset();
          throw netlinkError(operation(sent[0]?.type), -got, lost(-got));
        }
        if (got === undefined) {
          if (acknowledged < expected) error ??= netlinkError(operation(sent[0]?.type), ERRNO.EPROTO, `${acknowledged} of ${expected} netlink messages were acknowledged`);
          break;
        }
        for (const answer of decodeMessages(got)) {
          const place = answer.sequence - first + 1;
          const message = sent[place - 1];
          // an answer to something earlier that was given up
          if (!message) continue;
          if (answer.type === NLMSG.ERROR) {
            const { errno, text } = decodeError(answer);
            if (message.counted) acknowledged++;
            if (errno) error ??= netlinkError(operation(message.type), errno, text, { message: place });
          } else if (answer.type !== NLMSG.NOOP && answer.type !== NLMSG.DONE) {
            answers.push(own(answer, place));
          }
        }
      }
      if (error) throw error;
      return answers;
    },
    ask(message, absent = []) {
      // without an acknowledgement there is exactly one answer, an error or what was asked for
      let mine = transmit(message, NLM_F.REQUEST);
      for (let attempt = 1; ;) {
        const got = wire.receive(false);
        if (got === -ERRNO.EMSGSIZE && attempt < ATTEMPTS) {
          attempt++;
          mine = transmit(message, NLM_F.REQUEST);
          continue;
        }
        if (got === undefined) throw netlinkError(operation(typeOf(message)), ERRNO.EPROTO, 'no answer');
        if (typeof got === 'number') {
          wire.reset();
          throw netlinkError(operation(typeOf(message)), -got, lost(-got));
        }
        for (const answer of decodeMessages(got)) {
          if (answer.sequence !== mine) continue;
          if (answer.type !== NLMSG.ERROR) return own(answer, 1);
          const { errno, text } = decodeError(answer);
          if (absent.includes(errno)) return undefined;
          throw netlinkError(operation(typeOf(message)), errno || ERRNO.EPROTO, text);
        }
      }
    },
    dump(message) {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const found = dumpOnce(message);
        if (found) return found;
      }
      throw netlinkError(operation(typeOf(message)), ERRNO.EINTR, `it changed ${ATTEMPTS} times while it was read`);
    },
    close() {
      wire.reset();
      closed = true;
    },
  };
}

/** NLMSG_DONE: an errno, and the kernel's own words right after it. */
function endOf({ body }: Message): { errno: number; text: string } {
  if (body.length < 4) return { errno: 0, text: '' };
  return { errno: -body.readInt32LE(0), text: textOf(decodeAttributes(body, 4).get(1)) ?? '' };
}
