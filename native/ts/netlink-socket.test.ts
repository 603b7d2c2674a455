import { describe, expect, it } from 'vitest';
import { attribute, encodeAttributes, encodeBatch, encodeMessage, ifinfomsg, NETLINK_NETFILTER, NETLINK_ROUTE, NLM_F, NLMSG, RTM, setLink } from './netlink.ts';
import { openNetlink } from './netlink-socket.ts';
import { ERRNO, type NetlinkWire } from './netlink-wire.ts';

const EPERM = 1;
function answer(type: number, flags: number, sequence: number, body: Uint8Array): Buffer {
  const bytes = encodeMessage(type, 0, body, [], sequence);
  bytes.writeUInt16LE(flags, 6);
  return bytes;
}
function error(sequence: number, errno: number, text?: string): Buffer {
  const body = Buffer.alloc(20);
  body.writeInt32LE(-errno);
  return answer(NLMSG.ERROR, text === undefined ? 0x100 : 0x300, sequence, text === undefined ? body : Buffer.concat([body, encodeAttributes([attribute(1, text)])]));
}
const done = (sequence: number, errno = 0, flags = 0): Buffer => {
  const body = Buffer.alloc(4);
  body.writeInt32LE(-errno);
  return answer(NLMSG.DONE, NLM_F.MULTI | flags, sequence, body);
};
type Got = Uint8Array | number | undefined;
/** A kernel that answers what it is told to: `reply` gets the numbers of what was sent. */
function fakeWire(reply: (sequences: number[], attempt: number) => Got[]): NetlinkWire & { sent: Buffer[]; resets: number } {
  let queue: Got[] = [];
  const wire = {
    sent: [] as Buffer[], resets: 0,
    send(bytes: Uint8Array) {
      const copy = Buffer.from(bytes);
      wire.sent.push(copy);
      const numbers: number[] = [];
      for (let at = 0; at + 16 <= copy.length; at += (copy.readUInt32LE(at) + 3) & ~3) numbers.push(copy.readUInt32LE(at + 8));
      queue.push(...reply(numbers, wire.sent.length));
      return 0;
    },
    receive: () => queue.shift(),
    reset() {
      wire.resets++;
      queue = [];
    },
  };
  return wire;
}
const getLinks = encodeMessage(RTM.GETLINK, 0, ifinfomsg());
const up = setLink({ name: 'x' }, { up: true });
const body = Buffer.from('0123456789abcdef');

describe('a request', () => {
  it('has the answers of its own messages only', () => {
    let last: number[] = [];
    const socket = openNetlink(NETLINK_ROUTE, fakeWire((numbers) => {
      const before = last.map((number) => error(number, EPERM));
      last = numbers;
      return [...before, Buffer.concat([answer(RTM.NEWLINK, 0, numbers[1] ?? 0, body), error(numbers[0] ?? 0, 0)]), error(numbers[1] ?? 0, 0)];
    }));
    for (let i = 0; i < 3; i++) expect(socket.request(encodeBatch([up, up]))).toEqual([{ type: RTM.NEWLINK, flags: 0, sequence: 2, body }]);
  });

  it('says which message failed, and why', () => {
    const socket = openNetlink(NETLINK_ROUTE, fakeWire(([one = 0, two = 0, three = 0]) => [error(one, 0), error(two, ERRNO.EEXIST, 'it is there'), error(three, EPERM)]));
    expect(() => socket.request(encodeBatch([up, up, up]))).toThrow(expect.objectContaining({ code: 'ERR_NATIVE', errno: 'EEXIST', operation: 'set up a link', message: 'cannot set up a link: it is there (EEXIST)', data: { message: 2 } }));
  });

  it('fails when not all is acknowledged', () => {
    const socket = openNetlink(NETLINK_ROUTE, fakeWire(([one = 0]) => [error(one, 0)]));
    expect(() => socket.request(encodeBatch([up, up]))).toThrow(expect.objectContaining({ errno: 'EPROTO', message: expect.stringContaining('1 of 2') as string }));
  });

  it('says that answers were lost, and begins afresh', () => {
    const wire = fakeWire(([one = 0], attempt) => (attempt === 1 ? [-ERRNO.ENOBUFS, error(one, 0)] : [error(one, 0)]));
    const socket = openNetlink(NETLINK_ROUTE, wire);
    expect(() => socket.request(up)).toThrow(expect.objectContaining({ errno: 'ENOBUFS' }));
    expect(wire.resets).toBe(1);
    expect(socket.request(up)).toEqual([]);
  });

  it('counts no acknowledgement of the borders of an nftables batch, whether the kernel sends one or not', () => {
    for (const borders of [true, false]) {
      const batch = encodeBatch([0x10, 0xa0c, 0x11].map((type) => encodeMessage(type, 0, Buffer.alloc(4))));
      const socket = openNetlink(NETLINK_NETFILTER, fakeWire((numbers) => numbers.filter((_, i) => borders || i === 1).map((number) => error(number, 0))));
      expect(socket.request(batch)).toEqual([]);
    }
    const refused = openNetlink(NETLINK_NETFILTER, fakeWire(([begin = 0]) => [error(begin, EPERM)]));
    expect(() => refused.request(encodeBatch([0x10, 0xa0c, 0x11].map((type) => encodeMessage(type, 0, Buffer.alloc(4)))))).toThrow(expect.objectContaining({ errno: 'EPERM', operation: 'change nftables' }));
  });

  it('is refused once the socket is closed', () => {
    const socket = openNetlink(NETLINK_ROUTE, fakeWire(() => []));
    socket.close();
    for (const use of [() => socket.request(up), () => socket.ask(up), () => socket.dump(getLinks)]) expect(use).toThrow(expect.objectContaining({ errno: 'EBADF' }));
  });
});

describe('a question', () => {
  it('has one answer, or none when it says so', () => {
    const socket = openNetlink(NETLINK_ROUTE, fakeWire(([one = 0], attempt) => [error(one - 1, EPERM), attempt === 1 ? answer(RTM.NEWLINK, 0, one, body) : error(one, ERRNO.ENODEV)]));
    expect(socket.ask(getLinks)?.body).toEqual(body);
    expect(socket.ask(getLinks, [ERRNO.ENODEV])).toBeUndefined();
    expect(() => socket.ask(getLinks)).toThrow(expect.objectContaining({ errno: 'ENODEV', operation: 'read links' }));
  });

  it('is asked again when the answer was too long', () => {
    const wire = fakeWire(([one = 0], attempt) => [attempt === 1 ? -ERRNO.EMSGSIZE : answer(RTM.NEWLINK, 0, one, body)]);
    expect(openNetlink(NETLINK_ROUTE, wire).ask(getLinks)?.body).toEqual(body);
    expect(wire.sent.length).toBe(2);
    expect(() => openNetlink(NETLINK_ROUTE, fakeWire(() => [-ERRNO.EMSGSIZE])).ask(getLinks)).toThrow(expect.objectContaining({ errno: 'EMSGSIZE' }));
    expect(() => openNetlink(NETLINK_ROUTE, fakeWire(() => [])).ask(getLinks)).toThrow(expect.objectContaining({ errno: 'EPROTO' }));
    expect(() => openNetlink(NETLINK_ROUTE, fakeWire(() => [])).ask(Buffer.alloc(8))).toThrow(expect.objectContaining({ errno: 'EBADMSG' }));
  });
});

describe('a dump', () => {
  const link = (number: number, flags = 0): Buffer => answer(RTM.NEWLINK, NLM_F.MULTI | flags, number, body);

  it('is one table in many pieces', () => {
    const socket = openNetlink(NETLINK_ROUTE, fakeWire(([one = 0]) => [Buffer.concat([link(one), link(one)]), link(one), link(one - 1), done(one)]));
    expect(socket.dump(getLinks).length).toBe(3);
    expect(socket.dump(getLinks).length).toBe(3);
  });

  it('is asked for again when it changed, was cut or lost, and never held still', () => {
    for (const disturbance of [
      (one: number): Got[] => [link(one, NLM_F.DUMP_INTR), done(one)], (one: number): Got[] => [link(one), done(one, 0, NLM_F.DUMP_INTR)], (one: number): Got[] => [link(one), done(one, ERRNO.EINTR)],
      (one: number): Got[] => [link(one), -ERRNO.ENOBUFS], (): Got[] => [-ERRNO.EMSGSIZE], (one: number): Got[] => [link(one), undefined], (one: number): Got[] => [error(one, ERRNO.EBUSY)],
    ]) {
      const wire = fakeWire(([one = 0], attempt) => (attempt < 4 ? disturbance(one) : [link(one), done(one)]));
      expect(openNetlink(NETLINK_ROUTE, wire).dump(getLinks).length).toBe(1);
      expect(wire.sent.length).toBe(4);
      const restless = fakeWire(([one = 0]) => disturbance(one));
      expect(() => openNetlink(NETLINK_ROUTE, restless).dump(getLinks)).toThrow(expect.objectContaining({ errno: 'EINTR' }));
      expect(restless.sent.length).toBe(10);
    }
  });

  it('fails with the kernel\'s words', () => {
    const words = (one: number): Buffer => answer(NLMSG.DONE, 0x202, one, Buffer.concat([done(one, EPERM).subarray(16, 20), encodeAttributes([attribute(1, 'not for you')])]));
    for (const end of [(one: number) => words(one), (one: number) => error(one, EPERM, 'not for you')]) {
      expect(() => openNetlink(NETLINK_ROUTE, fakeWire(([one = 0]) => [link(one), end(one)])).dump(getLinks)).toThrow(expect.objectContaining({ errno: 'EPERM', message: 'cannot read links: not for you (EPERM)' }));
    }
  });
});

it('a number is never used again for what may still be answered', () => {
  const seen = new Set<number>();
  const socket = openNetlink(NETLINK_ROUTE, fakeWire((numbers) => {
    for (const number of numbers) {
      expect(seen.has(number)).toBe(false);
      seen.add(number);
    }
    return [...numbers.map((number) => error(number, 0)), done(numbers[0] ?? 0)];
  }));
  for (let i = 0; i < 20; i++) {
    socket.request(encodeBatch([up, up, up]));
    socket.dump(getLinks);
  }
  expect(seen.size).toBe(80);
});
