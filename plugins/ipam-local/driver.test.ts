import assert from 'node:assert/strict';
import { describe, it } from 'vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { type Machine } from '@engine/core/contracts/common';
import { ipamSuite, type HostFacts } from '@engine/core/contracts/ipam/suite';
import { type Rtnetlink } from '@engine/native/rtnetlink';
import { addressBytes } from '@engine/native/addresses';
import { cidrOf, firstFree, formatAddress, formatCidr, overlaps, parseAddress, parseCidr, parseLoose, type Cidr } from './cidr.ts';
import { createLocalIpam, type IpamOptions } from './driver.ts';

const kernelOf = (host: HostFacts): Pick<Rtnetlink, 'links' | 'addresses' | 'routes'> => ({
  links: () => host.links.map((link) => ({ ...link, up: false, mtu: 1500 })),
  addresses: () => host.addresses.map((one) => ({ ...one, family: one.address.includes(':') ? 6 : 4 })),
  routes: () => host.routes.map((route) => ({ table: 254, ...route, family: route.destination.includes(':') ? 6 : 4, type: 'unicast', protocol: 'static' })),
});
const create = (machine: Machine, host: HostFacts, options?: IpamOptions): ReturnType<typeof createLocalIpam> =>
  createLocalIpam({ machine: { ...machine, read: (path) => (path === '/etc/resolv.conf' ? host.resolvers.map((one) => `nameserver ${one}\n`).join('') : undefined) }, rtnetlink: kernelOf(host) }, options);

describeSuite('local', ipamSuite, { bench: () => fakeBench(), create: ({ machine }, host) => create(machine, host) });
describeSuite('local with pools of one\'s own', ipamSuite, {
  bench: () => fakeBench(),
  create: ({ machine }, host) => create(machine, host, { pools: [{ base: '10.0.0.0/9', size: 24 }, { base: '172.16.0.0/12', size: 28 }] }),
});
describeSuite('local with one pool', ipamSuite, {
  bench: () => fakeBench(),
  create: ({ machine }, host) => create(machine, host, { pools: [{ base: '10.208.0.0/12', size: 20 }] }),
});

const nothing: HostFacts = { links: [], addresses: [], routes: [], resolvers: [] };
const machine = { read: () => undefined } as unknown as Machine;
const request = { pools: [], ipv6: false, taken: [], instance: 'engine-00000000', network: 'x' };

describe('options', () => {
  it('pools are taken in order, and an IPv6 base replaces the default', () => {
    const driver = create(machine, nothing, { pools: [{ base: '10.9.0.0/30', size: 31 }, { base: 'fd00:9::/56', size: 64 }, { base: '10.8.0.0/24', size: 24 }] });
    const taken: { subnet: string; network: string }[] = [];
    for (const expected of ['10.9.0.0/31', '10.9.0.2/31', '10.8.0.0/24']) {
      assert.deepEqual(driver.choosePools({ ...request, taken }).map(({ subnet }) => subnet), [expected]);
      taken.push({ subnet: expected, network: 'n' });
    }
    assert.throws(() => driver.choosePools({ ...request, taken }), { code: 'ERR_NO_ADDRESS' });
    assert.equal(driver.choosePools({ ...request, ipv6: true })[1]?.subnet, 'fd00:9::/64');
  });
  it('a pool that cannot be cut so is refused', () => {
    for (const pools of [[{ base: '10.0.0.0/24', size: 20 }], [{ base: '10.0.0.0/24', size: 32 }], [{ base: '10.0.0.1/24', size: 28 }], [{ base: 'x', size: 28 }], [{ base: '10.0.0.0/24', size: 64 }]]) {
      assert.throws(() => create(machine, nothing, { pools }), (error: { code: string }) => ['ERR_CONFIG_INVALID', 'ERR_INVALID_VALUE'].includes(error.code));
    }
  });
  it('a host whose VPN takes 10.0.0.0/8 has subnets left', () => {
    const driver = create(machine, { ...nothing, links: [{ index: 2, name: 'tun0' }], routes: [{ destination: '10.0.0.0/8', index: 2 }] });
    assert.equal(driver.choosePools(request)[0]?.subnet, '172.28.0.0/20');
  });
  it('name servers behind systemd-resolved count', () => {
    const driver = createLocalIpam({ machine: { ...machine, read: (path) => (path.startsWith('/run/systemd') ? '# x\nnameserver 10.208.3.3\nnameserver fe80::1%eth0\n' : 'nameserver 127.0.0.53\n') }, rtnetlink: kernelOf(nothing) });
    assert.equal(driver.choosePools(request)[0]?.subnet, '10.208.16.0/20');
  });
});

describe('subnets', () => {
  let seed = 7;
  const random = (below: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  const address = (family: 4 | 6): bigint => Array.from({ length: family === 4 ? 4 : 16 }, () => (random(3) === 0 ? 0 : random(256))).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);

  it('text and number are one to the other', () => {
    for (let i = 0; i < 3000; i++) {
      const family = random(2) === 0 ? 4 : 6;
      const value = address(family);
      const text = formatAddress({ family, value });
      const parsed = parseAddress(text);
      if (family === 6 && value >> 32n === 0xffffn) assert.equal(parsed, undefined);
      else assert.deepEqual(parsed, { family, value });
      assert.equal(BigInt(`0x${addressBytes(text).toString('hex')}`), value);
    }
  });
  it('a subnet holds what its prefix says', () => {
    for (let i = 0; i < 2000; i++) {
      const family = random(2) === 0 ? 4 : 6;
      const prefix = random(family === 4 ? 33 : 129);
      const value = address(family);
      const cidr = cidrOf({ family, value }, prefix);
      assert.ok(cidr.first <= value && value <= cidr.last);
      assert.equal(cidr.last - cidr.first + 1n, 1n << BigInt((family === 4 ? 32 : 128) - prefix));
      const loose = parseLoose(`${formatAddress({ family, value })}/${prefix}`);
      if (loose) assert.deepEqual(loose.cidr, cidr);
      if (loose) assert.equal(parseCidr(`${formatAddress({ family, value })}/${prefix}`) !== undefined, cidr.first === value);
    }
  });
  it('no text makes it throw', () => {
    const pieces = ['10', '.', ':', '::', '/', '0', 'ffff', 'g', '%', ' ', '\0', '-', '255', '256', '1e3', '٣'];
    for (let i = 0; i < 5000; i++) parseLoose(Array.from({ length: random(12) }, () => pieces[random(pieces.length)]).join(''));
  });
  it('the first free one is the one that is found by trying them all', () => {
    for (let i = 0; i < 500; i++) {
      const base = parseCidr('10.0.0.0/16') as Cidr;
      const size = 18 + random(7);
      const blocked = Array.from({ length: random(40) }, () => cidrOf({ family: 4, value: base.first + BigInt(random(65_536)) }, 14 + random(19))).filter(({ prefix }) => prefix > 15 || random(20) === 0);
      const step = 1n << BigInt(32 - size);
      const from = base.first + BigInt(random(2 ** (size - 16))) * step;
      const all: Cidr[] = [];
      for (let value = base.first; value <= base.last; value += step) all.push(cidrOf({ family: 4, value }, size));
      const free = all.filter((one) => !blocked.some((other) => overlaps(one, other)));
      const expected = free.find(({ first }) => first >= from) ?? free[0];
      const found = firstFree(base, size, blocked, from);
      assert.equal(found && formatCidr(found), expected && formatCidr(expected));
    }
  });
});
