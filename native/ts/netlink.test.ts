import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BITS, op, step } from '@engine/core/plan';
import { CLONE_NEWNET } from './constants.ts';
import { createNative } from './index.ts';
import { addressBytes, AF, attribute, decodeAttributes, decodeError, decodeMessages, encodeAttributes, encodeBatch, IFF, IFLA, loopbackUp, NETLINK_ROUTE, newAddress, newLink, newRoute, newVeth, RTM, setLink } from './netlink.ts';
import { Bench, namespaces, unable } from './testing.ts';

describe('netlink', () => {
  it('encodes the loopback request as iproute2 does', () => {
    expect(Buffer.from(loopbackUp()).toString('hex')).toBe('20000000' + '1000' + '0500' + '01000000' + '00000000' + '0000' + '0000' + '01000000' + '01000000' + '01000000');
  });

  it('pads, nests and reads attributes back', () => {
    const bytes = encodeAttributes([attribute(IFLA.IFNAME, 'eth0'), attribute(IFLA.LINKINFO, [attribute(1, 'veth')]), attribute(IFLA.MTU, 1500)]);
    expect(bytes.length).toBe(12 + 16 + 8);
    const read = decodeAttributes(bytes);
    expect(read.get(IFLA.IFNAME)?.toString()).toBe('eth0\0');
    expect(decodeAttributes(read.get(IFLA.LINKINFO) as Buffer).get(1)?.toString()).toBe('veth\0');
    expect(read.get(IFLA.MTU)?.readUInt32LE()).toBe(1500);
    expect(decodeAttributes(Buffer.from([2, 0, 1, 0])).size).toBe(0);
  });

  it('numbers a batch and cuts it again', () => {
    const batch = encodeBatch([setLink({ name: 'abc' }, { up: true, mtu: 9000 }), newLink('br0', 'bridge'), newAddress(3, '10.0.0.2', 24), newRoute({ gateway: '10.0.0.1' })]);
    const messages = decodeMessages(batch);
    expect(messages.map((m) => [m.type, m.sequence])).toEqual([[RTM.NEWLINK, 1], [RTM.NEWLINK, 2], [RTM.NEWADDR, 3], [RTM.NEWROUTE, 4]]);
    expect(messages[0]?.body.readUInt32LE(8)).toBe(IFF.UP);
    expect(messages[2]?.body[0]).toBe(AF.INET);
    expect(messages[2]?.body[1]).toBe(24);
    expect(decodeMessages(batch.subarray(0, batch.length - 1)).length).toBe(3);
  });

  it('reads addresses', () => {
    expect(addressBytes('192.168.0.1').toString('hex')).toBe('c0a80001');
    expect(addressBytes('::1').toString('hex')).toBe(`${'0'.repeat(31)}1`);
    expect(addressBytes('fd00:1::2').toString('hex')).toBe('fd000001000000000000000000000002');
    expect(addressBytes('::ffff:10.0.0.1').toString('hex')).toBe('00000000000000000000ffff0a000001');
    for (const wrong of ['1.2.3.256', ':::', '1::2::3', 'x', '1:2:3:4:5:6:7', '']) expect(() => addressBytes(wrong)).toThrow(RangeError);
  });

  it('reads an extended acknowledgement', () => {
    const text = encodeAttributes([attribute(1, 'Device is already in use')]);
    const body = Buffer.concat([Buffer.alloc(20), text]);
    body.writeInt32LE(-16, 0);
    expect(decodeError({ type: 2, flags: 0x300, sequence: 1, body })).toEqual({ errno: 16, text: 'Device is already in use' });
    expect(decodeError({ type: 2, flags: 0x100, sequence: 1, body: Buffer.alloc(20) })).toEqual({ errno: 0, text: '' });
  });

  it.skipIf(unable !== undefined)('is understood by the kernel', async () => {
    const bench = new Bench(createNative());
    try {
      const talk = bench.start({
        argv: ['cat', '/proc/net/dev', '/proc/net/route', '/proc/net/if_inet6'], stdio: BITS.STDIO.attachStdout | BITS.STDIO.attachStderr, flags: namespaces | CLONE_NEWNET,
        extra: [
          step('init.netns', op.netlink({ protocol: NETLINK_ROUTE, messages: loopbackUp() })),
          step('init.netns', op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([
            newVeth({ name: 'left', index: 10, up: true }, { name: 'right', index: 11, mtu: 1400 }), setLink({ index: 11 }, { up: true }),
            newAddress(10, '10.9.8.7', 24), newAddress(10, 'fd00::7', 64), newRoute({ gateway: '10.9.8.1', index: 10 }),
          ]) })),
        ],
      });
      expect((await talk.frame('exit')).argument, talk.describe()).toBe(0);
      expect(talk.output()).toMatch(/\bleft:/);
      expect(talk.output()).toMatch(/\bright:/);
      expect(talk.output()).toMatch(/left\t00000000\t0108090A/);
      expect(talk.output()).toContain('fd000000000000000000000000000007 0a 40');
      expect(talk.output()).toContain('00000000000000000000000000000001 01 80');
    } finally {
      await bench.close();
    }
  });

  it.skipIf(!existsSync('/sbin/ip'))('leaves the host as it is', () => {
    expect(execFileSync(join('/sbin', 'ip'), ['-o', 'link']).toString()).not.toMatch(/ (left|right)@/);
  });
});
