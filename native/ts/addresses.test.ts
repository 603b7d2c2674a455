import { randomBytes } from 'node:crypto';
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { describe, expect, it } from 'vitest';
import {
  addressBytes, addressFamily, addressNumber, addressText, broadcastOf, canonicalAddress, cidrText, contains, isAddress, macBytes, macText, numberAddress, overlaps, parseCidr,
} from './addresses.ts';

/** Random, but with many zeros: they are what is abbreviated. */
function random(size: number): Buffer {
  const bytes = randomBytes(size);
  const keep = randomBytes(2).readUInt16LE();
  for (let i = 0; i < size; i += 2) if (!(keep & (1 << (i / 2)))) bytes.fill(0, i, i + 2);
  return bytes;
}

describe('addresses', () => {
  it('have one text, that of RFC 5952', () => {
    for (const [text, canonical] of [
      ['2001:0DB8:0:0:0:0:2:1', '2001:db8::2:1'], ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'], ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'], ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
      ['0:0:0:0:0:0:0:0', '::'], ['0::1', '::1'], ['fe80:0::', 'fe80::'], ['::ffff:a00:1', '::ffff:10.0.0.1'], ['::ffff:10.0.0.1', '::ffff:10.0.0.1'], ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'], ['10.1.2.3', '10.1.2.3'],
    ] as const) expect(canonicalAddress(text)).toBe(canonical);
  });

  it('come back from bytes and numbers, as the URL standard writes them', () => {
    for (let i = 0; i < 5000; i++) {
      const bytes = random(i % 2 ? 16 : 4);
      const text = addressText(bytes);
      expect(addressBytes(text)).toEqual(bytes);
      expect(bytes.length === 4 ? isIPv4(text) : isIPv6(text)).toBe(true);
      if (bytes.length === 16 && !text.includes('.')) expect(new URL(`http://[${text}]`).hostname).toBe(`[${text}]`);
      expect(numberAddress(bytes.length === 4 ? 4 : 6, addressNumber(text))).toBe(text);
    }
    expect(() => numberAddress(4, 1n << 32n)).toThrow(RangeError);
    expect(() => numberAddress(6, -1n)).toThrow(RangeError);
    expect(() => addressText(Buffer.alloc(5))).toThrow(RangeError);
  });

  it('are refused when they could mean another one', () => {
    for (const wrong of ['010.0.0.1', '1.2.3', '1.2.3.4.5', '1.2.3.256', '1.2.3.0004', ' 1.2.3.4', '1.2.3.4 ', 'fe80::1%eth0', '1::2::3', ':::', '12345::', '1:2:3:4:5:6:7:8:9', '1:2:3:4:5:6:7:8::', ':1', '1:', '::1.2.3', '', 'x', '[::1]']) {
      expect(isAddress(wrong), wrong).toBe(false);
      expect(() => addressBytes(wrong)).toThrow(RangeError);
    }
    expect(addressFamily('::')).toBe(6);
    expect(addressFamily('0.0.0.0')).toBe(4);
  });

  it('agree with node about random text', () => {
    const letters = '0123456789abcdef:.%g';
    for (let i = 0; i < 5000; i++) {
      const text = Array.from(randomBytes(1 + (i % 20)), (byte) => letters[byte % letters.length]).join('');
      if (isAddress(text)) expect(isIPv4(text) || isIPv6(text)).toBe(true);
    }
  });
});

describe('subnets', () => {
  it('are read and written', () => {
    expect(parseCidr('10.1.2.3/24')).toEqual({ family: 4, address: '10.1.2.3', prefix: 24, network: '10.1.2.0', first: 0x0a010200n, last: 0x0a0102ffn });
    expect(cidrText('FD00:0::5/64')).toBe('fd00::/64');
    expect(cidrText('0.0.0.0/0')).toBe('0.0.0.0/0');
    expect(cidrText('10.0.0.1')).toBe('10.0.0.1/32');
    expect(parseCidr('::1', { single: true }).prefix).toBe(128);
    expect(broadcastOf('10.1.2.0/24')).toBe('10.1.2.255');
    expect([broadcastOf('10.1.2.0/31'), broadcastOf('fd00::/64')]).toEqual([undefined, undefined]);
    for (const wrong of ['10.0.0.0', '10.0.0.0/', '10.0.0.0/33', '10.0.0.0/08', '::/129', '10.0.0/8', '/8', '10.0.0.0/8/8', '10.0.0.0/-1', '']) expect(() => parseCidr(wrong), wrong).toThrow(RangeError);
  });

  it('hold and overlap as node says', () => {
    for (let i = 0; i < 500; i++) {
      const size = i % 2 ? 16 : 4;
      const type = size === 4 ? 'ipv4' : 'ipv6';
      const [one, other] = [random(size), random(size)].map((bytes) => `${addressText(bytes)}/${randomBytes(1).readUInt8() % (size * 8 + 1)}`) as [string, string];
      const list = new BlockList();
      list.addSubnet(parseCidr(one).network, parseCidr(one).prefix, type);
      const address = addressText(random(size));
      expect(contains(one, address), `${one} ${address}`).toBe(list.check(address, type));
      expect(overlaps(one, other)).toBe(list.check(parseCidr(other).network, type) || contains(other, parseCidr(one).network));
      expect(overlaps(other, one)).toBe(overlaps(one, other));
      if (contains(one, other)) expect(parseCidr(other).prefix).toBeGreaterThanOrEqual(parseCidr(one).prefix);
    }
    expect(overlaps('0.0.0.0/0', '::/0')).toBe(false);
  });
});

it('MAC addresses come back', () => {
  expect(macText(macBytes('02:42:AC:11:00:02'))).toBe('02:42:ac:11:00:02');
  for (const wrong of ['02:42:ac:11:00', '02:42:ac:11:00:0g', '', '0242ac110002']) expect(() => macBytes(wrong)).toThrow(RangeError);
});
