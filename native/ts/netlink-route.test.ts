import { randomBytes, randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { addressText, macText } from './addresses.ts';
import {
  AF, attribute, bridgeData, decodeAttributes, decodeError, decodeMessages, deleteAddress, deleteLink, deleteRoute, encodeAttributes, encodeBatch, encodeMessage, encodePatched, IFA, IFLA, IFLA_BR, IFLA_BRPORT, IFLA_INFO, listAttributes,
  newAddress, newBridge, newLink, newRoute, newVeth, RTM, RTN, setLink, slot, VETH_INFO_PEER, type Encoded,
} from './netlink.ts';
import { decodeInterfaceAddress, decodeLink, decodeRoute } from './rtnetlink.ts';
import { decodeChain, decodeElements } from './nfnetlink.ts';
import { decodeNftablesEvent } from './nftables-events.ts';

const bodyOf = (message: Uint8Array): Buffer => decodeMessages(message)[0]?.body ?? Buffer.alloc(0);
const attributesOf = (message: Uint8Array, fixed = 16): Map<number, Buffer> => decodeAttributes(bodyOf(message), fixed);
const address = (size = randomInt(2) ? 4 : 16): string => addressText(randomBytes(size));
const one = <T>(...of: readonly T[]): T => of[randomInt(of.length)] as T;
const maybe = <K extends string, V>(key: K, value: V): { [P in K]?: V } => (randomInt(2) ? { [key]: value } as { [P in K]: V } : {});

describe('what is built', () => {
  it('links come back', () => {
    for (let i = 0; i < 500; i++) {
      const name = `l${randomInt(1e9)}`;
      const kind = one('bridge', 'dummy', 'veth');
      const wanted = { ...maybe('mtu', randomInt(68, 65_000)), ...maybe('master', randomInt(1, 1 << 30)), ...maybe('address', macText(randomBytes(6))) };
      const index = randomInt(1, 1 << 30);
      const up = one(true, false);
      expect(decodeLink(bodyOf(newLink(name, kind, { ...wanted, index, up })))).toEqual({ mtu: 0, ...wanted, name, kind, index, up });
      const alias = `alias ${i} ä`;
      expect(decodeLink(bodyOf(setLink({ index }, { ...wanted, alias, rename: name, up })))).toEqual({ mtu: 0, ...wanted, name, alias, index, up });
      expect(decodeLink(bodyOf(deleteLink({ name })))?.name).toBe(name);
    }
  });

  it('addresses come back', () => {
    for (let i = 0; i < 500; i++) {
      const size = one(4, 16);
      const wanted = { index: randomInt(1, 1 << 30), family: size === 4 ? 4 : 6, address: address(size), prefix: randomInt(size * 8 + 1) } as const;
      const added = newAddress(wanted.index, wanted.address, wanted.prefix, { noPrefixRoute: one(true, false) });
      expect(decodeInterfaceAddress(bodyOf(added))).toEqual({ ...wanted, scope: 0, permanent: false });
      expect(decodeInterfaceAddress(bodyOf(deleteAddress(wanted.index, wanted.address, wanted.prefix)))).toMatchObject(wanted);
      // IPv6 addresses are usable at once
      if (size === 16) expect((attributesOf(added, 8).get(IFA.FLAGS)?.readUInt32LE() ?? 0) & 2).toBe(2);
    }
  });

  it('routes come back', () => {
    for (let i = 0; i < 500; i++) {
      const size = one(4, 16);
      const prefix = randomInt(1, size * 8 + 1);
      const destination = address(size);
      const wanted = {
        ...maybe('gateway', address(size)), ...maybe('index', randomInt(1, 1 << 30)), ...maybe('source', address(size)), ...maybe('metric', randomInt(1 << 30)), ...maybe('table', one(100, 254, 1000)),
        ...maybe('type', one(...(Object.keys(RTN) as (keyof typeof RTN)[]))),
      };
      const read = { family: size === 4 ? 4 : 6, table: 254, type: 'unicast', protocol: 'static', ...wanted };
      expect(decodeRoute(bodyOf(newRoute({ ...wanted, destination, prefix })))).toEqual({ ...read, destination: `${destination}/${prefix}` });
      expect(decodeRoute(bodyOf(newRoute({ ...wanted, family: size === 4 ? AF.INET : AF.INET6 })))).toEqual({ ...read, destination: size === 4 ? '0.0.0.0/0' : '::/0' });
      expect(decodeRoute(bodyOf(deleteRoute({ type: 'unicast', ...wanted, destination, prefix })))).toEqual({ ...read, protocol: 'unspec', destination: `${destination}/${prefix}` });
    }
  });

  it('a bridge and its ports have their settings', () => {
    const info = decodeAttributes(attributesOf(newBridge('br', { stp: false, forwardDelay: 2, ageing: 300, multicastSnooping: false, groupForward: 8, callIptables: false })).get(IFLA.LINKINFO) as Buffer);
    const data = decodeAttributes(info.get(IFLA_INFO.DATA) as Buffer);
    expect([data.get(IFLA_BR.STP_STATE)?.readUInt32LE(), data.get(IFLA_BR.FORWARD_DELAY)?.readUInt32LE(), data.get(IFLA_BR.AGEING_TIME)?.readUInt32LE()]).toEqual([0, 200, 30_000]);
    expect([data.get(IFLA_BR.MCAST_SNOOPING), data.get(IFLA_BR.GROUP_FWD_MASK), data.get(IFLA_BR.NF_CALL_IPTABLES)]).toEqual([Buffer.of(0), Buffer.of(8, 0), Buffer.of(0)]);
    expect(data.has(IFLA_BR.VLAN_FILTERING)).toBe(false);
    expect(bridgeData({})).toEqual([]);
    const slave = decodeAttributes(attributesOf(setLink({ name: 'x' }, { port: { hairpin: true, isolated: false } })).get(IFLA.LINKINFO) as Buffer);
    expect(slave.get(IFLA_INFO.SLAVE_KIND)?.toString()).toBe('bridge\0');
    expect([...decodeAttributes(slave.get(IFLA_INFO.SLAVE_DATA) as Buffer)]).toEqual([[IFLA_BRPORT.MODE, Buffer.of(1)], [IFLA_BRPORT.ISOLATED, Buffer.of(0)]]);
  });

  it('both ends of a veth pair are in it', () => {
    const message = newVeth({ name: 'host', master: 7, mtu: 1400 }, { name: 'eth0', mtu: 1401, address: '02:00:00:00:00:09', netnsPid: 4242 });
    expect(decodeLink(bodyOf(message))).toMatchObject({ name: 'host', kind: 'veth', master: 7, mtu: 1400 });
    const info = decodeAttributes(attributesOf(message).get(IFLA.LINKINFO) as Buffer);
    const peer = decodeAttributes(info.get(IFLA_INFO.DATA) as Buffer).get(VETH_INFO_PEER) as Buffer;
    expect(decodeLink(peer)).toMatchObject({ name: 'eth0', mtu: 1401, address: '02:00:00:00:00:09' });
    expect(decodeAttributes(peer, 16).get(IFLA.NET_NS_PID)?.readUInt32LE()).toBe(4242);
  });
});

describe('slots', () => {
  it('are found where the plan is to store them, and nowhere else', () => {
    const build = (where: number, link: number): Encoded[] => [
      newVeth({ name: 'host' }, { name: 'eth0', netnsPid: where }), setLink({ index: link }, { up: true }), newAddress(link, '10.0.0.2', 24), newRoute({ gateway: '10.0.0.1', index: link }), newVeth({ name: 'two' }, { name: 'e', netnsFd: where }),
    ];
    const wanted = encodeBatch(build(0x01020304, 0x0a0b0c0d));
    const { bytes, at } = encodePatched([
      newVeth({ name: 'host' }, { name: 'eth0', netnsPid: slot('where') }), setLink({ index: slot('link') }, { up: true }), newAddress(slot('link'), '10.0.0.2', 24), newRoute({ gateway: '10.0.0.1', index: slot('link') }),
      newVeth({ name: 'two' }, { name: 'e', netnsFd: slot('where') }),
    ]);
    const patched = Buffer.from(bytes);
    const store = (list: Uint8Array | undefined, value: number): number => {
      const places = Buffer.from(list ?? []);
      for (let i = 0; i < places.length; i += 4) patched.writeUInt32LE(value, places.readUInt32LE(i));
      return places.length / 4;
    };
    expect(patched.equals(encodeBatch(build(0, 0)))).toBe(true);
    expect([store(at['where'], 0x01020304), store(at['link'], 0x0a0b0c0d)]).toEqual([2, 3]);
    expect(patched.equals(wanted)).toBe(true);
    expect(Object.keys(at)).toEqual(['where', 'link']);
  });

  it('are not forgotten', () => {
    expect(() => encodeBatch([setLink({ index: slot('link') }, { up: true })])).toThrow(/link/);
  });
});

it('a value that is too long is refused', () => {
  expect(() => encodeAttributes([attribute(1, Buffer.alloc(65_532))])).toThrow(RangeError);
  expect(listAttributes(encodeAttributes([attribute(1, Buffer.alloc(65_531))])).length).toBe(1);
});

it('damaged messages are nothing worse', () => {
  const good = encodeBatch([newVeth({ name: 'host', master: 3 }, { name: 'eth0', netnsPid: 1 }), newAddress(3, 'fd00::1', 64), newRoute({ gateway: '10.0.0.1', index: 3 }), encodeMessage(RTM.NEWLINK, 0, Buffer.alloc(16), [attribute(IFLA.LINKINFO, [])])]);
  const decoders = [decodeLink, decodeInterfaceAddress, decodeRoute, decodeChain, decodeElements, (bytes: Buffer) => decodeNftablesEvent(0xa00 | randomInt(32), bytes)];
  const read = (bytes: Buffer): void => {
    for (const message of [...decodeMessages(bytes), { type: 2, flags: 0x300, sequence: 0, body: bytes }]) {
      for (const decode of decoders) decode(message.body);
      decodeError(message);
    }
  };
  for (let length = 0; length < good.length; length++) read(good.subarray(0, length));
  for (let i = 0; i < 20_000; i++) {
    const bytes = randomInt(2) ? randomBytes(randomInt(128)) : Buffer.from(good);
    for (let changes = randomInt(6); changes > 0 && bytes.length > 0; changes--) bytes[randomInt(bytes.length)] = one(0, 1, 2, 4, 8, 16, 255, randomInt(256));
    read(bytes);
  }
});
