import assert from 'node:assert/strict';
import { failsWith } from '../common/checks.ts';
import { type DriverDeps } from '../common/index.ts';
import { type Bench, type Suite, type SuiteCase, type SuiteContext } from '../common/suite.ts';
import { type AddressPool } from '../network/records.ts';
import { type IpamDriver, type PoolsRequest } from './index.ts';

/** What the kernel of the host says. The suite changes it; the driver under test must see it as it is when it is asked. */
export interface HostFacts {
  links: { index: number; name: string; alias?: string }[];
  /** `10.0.0.2/24` on a link, up or down. */
  addresses: { index: number; address: string; prefix: number }[];
  /** `gateway`: absent for what is reached directly. */
  routes: { destination: string; index?: number; gateway?: string; table?: number }[];
  resolvers: string[];
}
export interface IpamFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps, host: HostFacts): IpamDriver;
}

export class IpamContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: IpamDriver;
  readonly host: HostFacts;
  /** Another engine on the same host. */
  readonly other: IpamDriver;

  constructor(bench: Bench, factory: IpamFactory) {
    this.bench = bench;
    this.host = { links: [{ index: 1, name: 'lo' }, { index: 2, name: 'eth0' }], addresses: [{ index: 1, address: '127.0.0.1', prefix: 8 }], routes: [{ destination: '0.0.0.0/0', index: 2, gateway: '192.0.2.1' }], resolvers: [] };
    this.driver = factory.create(bench.deps, this.host);
    this.other = factory.create(bench.deps, this.host);
  }
  has(need: string): boolean {
    return this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  request(more: Partial<PoolsRequest> = {}): PoolsRequest {
    return { pools: [], ipv6: false, taken: [], instance: 'engine-0a1b2c3d', network: 'f00d'.repeat(16), ...more };
  }
  /** The pools for one subnet that is asked for. */
  asked(subnet: string, more: Partial<PoolsRequest['pools'][number]> = {}): AddressPool {
    const pool = this.driver.choosePools(this.request({ pools: [{ subnet, ...more }], ipv6: subnet.includes(':') })).find(({ family }) => (family === 6) === subnet.includes(':'));
    assert.ok(pool);
    return pool;
  }
  close(): Promise<void> {
    return this.bench.close();
  }
}

/** The first `count` of what may be very many. */
function first(of: Iterable<string>, count: number): string[] {
  const found: string[] = [];
  if (count > 0) for (const one of of) if (found.push(one) >= count) break;
  return found;
}
/** Numbers of a subnet, without the driver's help. */
function numbers(text: string): { readonly family: 4 | 6; readonly first: bigint; readonly last: bigint } {
  const [address = '', prefix = ''] = text.split('/');
  const family = address.includes(':') ? 6 : 4;
  const bits = BigInt(family === 4 ? 32 : 128);
  const value = valueOf(address);
  const size = 1n << (bits - BigInt(prefix === '' ? bits : prefix));
  return { family, first: value - (value % size), last: value - (value % size) + size - 1n };
}
function valueOf(address: string): bigint {
  if (!address.includes(':')) return address.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n);
  const [head = '', tail] = address.split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const all = tail === undefined ? groups(head) : [...groups(head), ...Array<string>(8 - groups(head).length - groups(tail).length).fill('0'), ...groups(tail)];
  return all.reduce((sum, group) => sum * 65536n + BigInt(`0x${group}`), 0n);
}
const overlap = (one: string, two: string): boolean => {
  const [a, b] = [numbers(one), numbers(two)];
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
};
const inside = (address: string, subnet: string): boolean => overlap(address, subnet);

const cases: readonly SuiteCase<IpamContext>[] = [
  {
    name: 'probe answers in words',
    needs: [],
    async run({ driver, bench }) {
      assert.ok((await driver.probe(bench.deps.machine)).reasons.length > 0);
    },
  },
  {
    name: 'without a wish: an IPv4 subnet with a gateway in it, and an IPv6 one when wanted; the same for the same host',
    needs: [],
    run(c) {
      const [four, none] = c.driver.choosePools(c.request());
      assert.ok(four && !none);
      assert.equal(four.family, 4);
      assert.ok(inside(four.gateway, four.subnet));
      const both = c.driver.choosePools(c.request({ ipv6: true }));
      assert.deepEqual(both.map(({ family }) => family), [4, 6]);
      assert.match(both[1]?.subnet ?? '', /^fd[0-9a-f:]+\/64$/, 'a unique local subnet');
      assert.deepEqual(c.driver.choosePools(c.request({ ipv6: true })), both);
      assert.deepEqual(JSON.parse(JSON.stringify(both)), both);
    },
  },
  {
    name: 'IPv6 subnets of two engines, and of two networks, differ',
    needs: [],
    run(c) {
      const of = (more: Partial<PoolsRequest>): string => c.driver.choosePools(c.request({ ipv6: true, ...more }))[1]?.subnet ?? '';
      assert.equal(new Set([of({}), of({ network: 'beef'.repeat(16) }), of({ instance: 'engine-ffffffff' })]).size, 3);
    },
  },
  {
    name: 'a subnet that nobody named overlaps with no network, address, route or resolver',
    needs: [],
    run(c) {
      const taken: { subnet: string; network: string }[] = [];
      for (let i = 0; i < 60; i++) {
        const pools = c.driver.choosePools(c.request({ ipv6: true, network: String(i).padStart(64, '0'), taken }));
        for (const { subnet, gateway } of pools) {
          for (const other of [...taken.map((one) => one.subnet), ...c.host.addresses.map(({ address, prefix }) => `${address}/${prefix}`), ...c.host.routes.filter(({ destination }) => !destination.endsWith('/0')).map(({ destination }) => destination), ...c.host.resolvers]) {
            assert.ok(!overlap(subnet, other), `${subnet} overlaps with ${other}`);
          }
          // each way of being taken in turn
          const index = c.host.links.push({ index: 10 + c.host.links.length, name: `x${i}` }) + 9;
          if (i % 5 === 0) taken.push({ subnet, network: `n${i}` });
          else if (i % 5 === 1) c.host.addresses.push({ index, address: gateway, prefix: Number(subnet.split('/')[1]) });
          else if (i % 5 === 2) c.host.routes.push({ destination: subnet, index });
          else if (i % 5 === 3) c.host.routes.push({ destination: subnet, index, gateway: '192.0.2.9', table: 100 });
          else c.host.resolvers.push(gateway);
        }
      }
    },
  },
  {
    name: 'exhaustion is reported as such',
    needs: [],
    async run(c) {
      const all = [{ subnet: '10.0.0.0/8', network: 'a' }, { subnet: '172.16.0.0/12', network: 'b' }, { subnet: '192.168.0.0/16', network: 'c' }, { subnet: '0.0.0.0/1', network: 'd' }, { subnet: '128.0.0.0/1', network: 'e' }];
      await failsWith('ERR_NO_ADDRESS', () => c.driver.choosePools(c.request({ taken: all })));
      await failsWith('ERR_NO_ADDRESS', () => c.driver.choosePools(c.request({ ipv6: true, taken: [{ subnet: 'fc00::/7', network: 'a' }] })));
    },
  },
  {
    name: 'routes that mean the whole world are in nobody\'s way',
    needs: [],
    run(c) {
      const before = c.driver.choosePools(c.request({ ipv6: true }));
      c.host.routes.push({ destination: '0.0.0.0/1', index: 2, gateway: '192.0.2.9' }, { destination: '128.0.0.0/1', index: 2, gateway: '192.0.2.9' }, { destination: '::/0', index: 2, gateway: 'fe80::1' }, { destination: '2000::/3', index: 2, gateway: 'fe80::1' });
      assert.deepEqual(c.driver.choosePools(c.request({ ipv6: true })), before);
    },
  },
  {
    name: 'a wish is completed: gateway, range, auxiliary addresses, in one form',
    needs: [],
    run(c) {
      const pool = c.asked('10.77.0.0/24', { gateway: '10.77.0.254', range: '10.77.0.128/25', auxiliary: { printer: '10.77.0.130' } });
      assert.deepEqual(pool, { family: 4, subnet: '10.77.0.0/24', gateway: '10.77.0.254', range: '10.77.0.128/25', auxiliary: { printer: '10.77.0.130' } });
      assert.deepEqual(c.asked('FD00:0077::/64'), { family: 6, subnet: 'fd00:77::/64', gateway: 'fd00:77::1' });
      assert.equal(c.asked('10.78.0.0/24', { auxiliary: { a: '10.78.0.1' } }).gateway, '10.78.0.2');
    },
  },
  {
    name: 'a malformed wish is refused',
    needs: [],
    async run(c) {
      const subnets = ['', '10.1.2.3', '10.1.2.0/33', '10.1.2.0/-1', '10.1.2.0/', '10.1.2.0/024', '10.1.2.3/24', '010.1.2.0/24', '10.1.2/24', '10.1.2.0/24/24', ' 10.1.2.0/24', '10.1.2.0/24\n', '10.1.2.0/24\0', '300.1.2.0/24', 'a/b', 'fd00::/129', 'fd00::1/64', 'fd00:::/64', '::ffff:10.0.0.0/104', '::ffff:0:0/96', 'fe80::/64', 'fe80::%eth0/64', 'ff00::/16', '127.0.0.0/16', '0.0.0.0/0', '::/0', '224.0.1.0/24', '10.1.2.0/32', 'fd00::/128', '1'.repeat(100_000)];
      for (const subnet of subnets) await failsWith('ERR_INVALID_VALUE', () => c.driver.choosePools(c.request({ pools: [{ subnet }], ipv6: true })));
      const subnet = '10.77.0.0/24';
      for (const wish of [{ gateway: '10.78.0.1' }, { gateway: '10.77.0.0' }, { gateway: '10.77.0.255' }, { gateway: 'x' }, { gateway: 'fd00::1' }, { gateway: '::ffff:10.77.0.1' }, { range: '10.78.0.0/25' }, { range: '10.0.0.0/8' }, { range: '10.77.0.1/25' }, { range: 'fd00::/65' }, { auxiliary: { a: '10.78.0.1' } }, { auxiliary: { a: '' } }, { gateway: '10.77.0.9', auxiliary: { a: '10.77.0.9' } }]) {
        await failsWith('ERR_INVALID_VALUE', () => c.driver.choosePools(c.request({ pools: [{ subnet, ...wish }] })));
      }
      await failsWith('ERR_INVALID_VALUE', () => c.driver.choosePools(c.request({ pools: [{ gateway: '10.77.0.1' }] })));
      await failsWith('ERR_INVALID_VALUE', () => c.driver.choosePools(c.request({ pools: [{ subnet }, { subnet: '10.78.0.0/24' }] })));
      await failsWith('ERR_INVALID_VALUE', () => c.driver.choosePools(c.request({ pools: [{ subnet: 'fd00:77::/64' }], ipv6: false })));
    },
  },
  {
    name: 'a subnet that somebody has is refused with who has it',
    needs: [],
    async run(c) {
      const refused = async (subnet: string, who: RegExp, taken: PoolsRequest['taken'] = []): Promise<void> => {
        const action = (): unknown => c.driver.choosePools(c.request({ pools: [{ subnet }], ipv6: true, taken }));
        await failsWith('ERR_SUBNET_TAKEN', action);
        assert.throws(action, who);
      };
      c.host.links.push({ index: 7, name: 'lan7' }, { index: 8, name: 'engine-br' });
      c.host.addresses.push({ index: 7, address: '10.60.1.2', prefix: 24 }, { index: 7, address: 'fd00:60::1', prefix: 64 });
      c.host.routes.push({ destination: '10.61.0.0/16', index: 7, gateway: '10.60.1.1' }, { destination: '10.62.0.0/16', index: 8 });
      c.host.resolvers.push('10.63.0.53');
      for (const subnet of ['10.60.1.0/24', '10.60.1.128/25', '10.60.0.0/16', '10.60.1.0/28']) await refused(subnet, /lan7/);
      await refused('fd00:60::/56', /lan7/);
      await refused('10.61.0.0/16', /10\.61\.0\.0\/16/);
      await refused('10.60.0.0/14', /./);
      await refused('10.62.5.0/24', /engine-br/);
      await refused('10.63.0.0/24', /name server 10\.63\.0\.53/);
      await refused('10.70.0.0/24', /network blue/, [{ subnet: '10.70.0.0/16', network: 'blue' }]);
      // the longer prefix wins
      assert.equal(c.asked('10.61.7.0/24').subnet, '10.61.7.0/24');
    },
  },
  {
    name: 'candidates: each address once, in order, never the network, broadcast, gateway or an auxiliary one',
    needs: [],
    run(c) {
      const pool = c.asked('10.77.0.0/29', { gateway: '10.77.0.3', auxiliary: { a: '10.77.0.5' } });
      assert.deepEqual([...c.driver.candidates(pool)], ['10.77.0.1', '10.77.0.2', '10.77.0.4', '10.77.0.6']);
      assert.deepEqual([...c.driver.candidates(pool, '10.77.0.2')], ['10.77.0.4', '10.77.0.6', '10.77.0.1', '10.77.0.2']);
      for (const last of ['10.77.0.6', '10.77.0.7', '10.99.0.1', 'nonsense', '']) assert.deepEqual([...c.driver.candidates(pool, last)], ['10.77.0.1', '10.77.0.2', '10.77.0.4', '10.77.0.6'], last);
      const six = c.asked('fd00:77::/125');
      assert.deepEqual([...c.driver.candidates(six, 'fd00:77::6')], ['fd00:77::7', 'fd00:77::2', 'fd00:77::3', 'fd00:77::4', 'fd00:77::5', 'fd00:77::6']);
    },
  },
  {
    name: 'candidates come from the range; an address may be asked for outside of it',
    needs: [],
    run(c) {
      const pool = c.asked('10.77.0.0/24', { range: '10.77.0.248/29' });
      assert.deepEqual(first(c.driver.candidates(pool), 99), ['10.77.0.248', '10.77.0.249', '10.77.0.250', '10.77.0.251', '10.77.0.252', '10.77.0.253', '10.77.0.254']);
      assert.deepEqual(first(c.driver.candidates(pool, '10.77.0.100'), 1), ['10.77.0.248']);
      assert.equal(c.driver.check(pool, '10.77.0.9'), '10.77.0.9');
    },
  },
  {
    name: 'the smallest subnets',
    needs: [],
    async run(c) {
      assert.deepEqual([...c.driver.candidates(c.asked('10.77.0.0/30'))], ['10.77.0.2']);
      assert.deepEqual([...c.driver.candidates(c.asked('10.77.0.4/31'))], ['10.77.0.5']);
      assert.deepEqual([...c.driver.candidates(c.asked('fd00:77::/127'))], ['fd00:77::1']);
      assert.deepEqual([...c.driver.candidates(c.asked('10.77.0.4/31', { gateway: '10.77.0.5' }))], ['10.77.0.4']);
      await failsWith('ERR_INVALID_VALUE', () => c.asked('10.77.0.0/30', { auxiliary: { a: '10.77.0.2' } }));
      await failsWith('ERR_INVALID_VALUE', () => c.asked('10.77.0.0/24', { range: '10.77.0.1/32' }));
    },
  },
  {
    name: 'the largest subnets cost no more than the smallest',
    needs: [],
    run(c) {
      const [eight, six] = [c.asked('11.0.0.0/8'), c.asked('fd00:77::/48')];
      const begun = performance.now();
      assert.deepEqual(first(c.driver.candidates(eight, '11.255.255.253'), 3), ['11.255.255.254', '11.0.0.2', '11.0.0.3']);
      assert.deepEqual(first(c.driver.candidates(six, 'fd00:77:0:ffff:ffff:ffff:ffff:fffe'), 3), ['fd00:77:0:ffff:ffff:ffff:ffff:ffff', 'fd00:77::2', 'fd00:77::3']);
      assert.ok(performance.now() - begun < 1000);
    },
  },
  {
    name: 'an address is checked, and written in one way',
    needs: [],
    async run(c) {
      const [four, six] = [c.asked('10.77.0.0/24', { auxiliary: { printer: '10.77.0.9' } }), c.asked('fd00:77::/64')];
      assert.equal(c.driver.check(four, '10.77.0.8'), '10.77.0.8');
      assert.equal(c.driver.check(six, 'FD00:0077:0:0::00AB'), 'fd00:77::ab');
      for (const address of ['', 'x', '10.77.0.0', '10.77.0.255', '10.77.0.1', '10.77.0.9', '10.77.1.8', '10.77.0.08', '10.77.0.8/24', '10.77.0.8 ', '10.77.0.8\n', '10.77.0.8\0', '::ffff:10.77.0.8', '::10.77.0.8', 'fd00:77::8', '169.8', '0x0a4d0008']) await failsWith('ERR_INVALID_VALUE', () => c.driver.check(four, address));
      for (const address of ['fd00:77::', 'fd00:77::1', 'fd00:77:0:1::8', 'fe80::8%eth0', 'fd00:77::8%eth0', 'fd00:77::8::', '10.77.0.8', '::ffff:10.77.0.8']) await failsWith('ERR_INVALID_VALUE', () => c.driver.check(six, address));
    },
  },
  {
    name: 'whatever is a candidate is in the range, passes the check and comes once (many subnets)',
    needs: [],
    run(c) {
      let seed = 42;
      const random = (below: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
      for (let i = 0; i < 300; i++) {
        const prefix = 22 + random(10);
        const size = 2 ** (32 - prefix);
        const start = (100 << 24) + random(2 ** (prefix - 8)) * size;
        const text = (value: number): string => [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
        const subnet = `${text(start)}/${prefix}`;
        const longer = Math.min(31, prefix + random(3));
        const pool = c.asked(subnet, size > 8 ? { range: `${text(start + random(2 ** (longer - prefix)) * 2 ** (32 - longer))}/${longer}`, auxiliary: { a: text(start + 2 + random(size - 4)) } } : {});
        const last = text(start + random(size));
        const found = [...c.driver.candidates(pool, last)];
        assert.equal(new Set(found).size, found.length, subnet);
        assert.ok(found.length > 0, subnet);
        for (const address of found) {
          assert.ok(inside(address, pool.range ?? pool.subnet), `${address} of ${JSON.stringify(pool)}`);
          assert.equal(c.driver.check(pool, address), address);
        }
        // nothing that passes is left out
        const { first: low, last: high } = numbers(pool.range ?? pool.subnet);
        let passes = 0;
        for (let value = low; value <= high; value++) {
          try {
            c.driver.check(pool, text(Number(value)));
            passes++;
          } catch {
            // not to be given out
          }
        }
        assert.equal(found.length, passes, JSON.stringify(pool));
        // going round begins behind the last one
        const after = found.filter((address) => valueOf(address) > valueOf(last));
        if (inside(last, pool.range ?? pool.subnet)) assert.deepEqual(found, [...after, ...found.filter((address) => valueOf(address) <= valueOf(last))]);
      }
    },
  },
  {
    name: 'two engines that chose the same at the same time: whoever looks sees it, and then both choose otherwise',
    needs: [],
    run(c) {
      const request = c.request({ ipv6: true });
      const mine = c.driver.choosePools(request);
      const theirs = c.other.choosePools({ ...request, instance: 'engine-99999999' });
      assert.equal(mine[0]?.subnet, theirs[0]?.subnet);
      const bridge = (index: number, name: string, pools: readonly AddressPool[]): void => {
        c.host.links.push({ index, name, alias: `engine-0000000${index} x` });
        for (const { subnet, gateway } of pools) {
          c.host.addresses.push({ index, address: gateway, prefix: Number(subnet.split('/')[1]) });
          c.host.routes.push({ destination: subnet, index });
        }
      };
      bridge(5, 'mine', mine);
      assert.equal(c.driver.conflict(mine, 'mine'), undefined);
      bridge(6, 'theirs', theirs.slice(0, 1));
      assert.match(c.driver.conflict(mine, 'mine') ?? '', /theirs/);
      assert.match(c.other.conflict(theirs, 'theirs') ?? '', /mine/);
      // both take theirs away, and again look at the same instant
      c.host.addresses.splice(1);
      c.host.routes.splice(1);
      const [again, theirsAgain] = [c.driver.choosePools(request), c.other.choosePools({ ...request, instance: 'engine-99999999' })];
      assert.ok(!overlap(again[0]?.subnet ?? '', theirsAgain[0]?.subnet ?? ''));
    },
  },
  {
    name: 'what is no conflict: a router\'s wider route, one\'s own link, the default route',
    needs: [],
    run(c) {
      c.host.links.push({ index: 5, name: 'mine' });
      const pool = c.asked('10.77.0.0/24');
      c.host.addresses.push({ index: 5, address: pool.gateway, prefix: 24 });
      c.host.routes.push({ destination: '10.77.0.0/24', index: 5 }, { destination: '10.77.0.1/32', index: 5, table: 255 }, { destination: '10.77.0.255/32', index: 5, table: 255 }, { destination: '10.0.0.0/8', index: 2, gateway: '192.0.2.1' });
      assert.equal(c.driver.conflict([pool], 'mine'), undefined);
      assert.match(c.driver.conflict([pool], 'mine2') ?? '', /mine/, 'a link whose name begins alike is another one');
    },
  },
  {
    name: '10,000 networks later it is still quick',
    needs: [],
    run(c) {
      const taken: { subnet: string; network: string }[] = [];
      for (let i = 0; i < 5000; i++) taken.push({ subnet: `10.${64 + (i >> 8)}.${i & 255}.0/24`, network: `n${i}` }, { subnet: `fd00:77:${i.toString(16)}::/64`, network: `n${i}` });
      for (let i = 0; i < 1000; i++) c.host.routes.push({ destination: `10.${160 + (i >> 8)}.${i & 255}.0/24`, index: 2, gateway: '192.0.2.1' });
      const begun = performance.now();
      const pools = c.driver.choosePools(c.request({ ipv6: true, taken }));
      assert.ok(performance.now() - begun < 2000, `${performance.now() - begun} ms`);
      for (const { subnet } of pools) for (const other of taken) assert.ok(!overlap(subnet, other.subnet));
    },
  },
];

/** The conformance suite of contract `ipam`. */
export const ipamSuite: Suite<IpamFactory, IpamContext> = {
  contract: 'ipam',
  cases,
  async open(factory) {
    return new IpamContext(await factory.bench(), factory);
  },
};
