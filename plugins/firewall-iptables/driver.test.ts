import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { type BoundPort, type Endpoint } from '@engine/core/contracts/network';
import { type Effect, type Step } from '@engine/core/plan';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { firewallSuite } from '@engine/core/contracts/firewall/suite';
import { parseRuleset } from '@engine/native/foreign-chains';
import { afterAll, describe, expect, it } from 'vitest';
import { createFirewallIptables } from './driver.ts';
import { createForeign, type Foreign } from './foreign.ts';
import { parseTable } from './read-legacy.ts';
import { type Programs } from './programs.ts';
import { FakeTables, type Files } from './tables.fixture.ts';

const programs: Programs = { variant: 'nft', restore4: '/usr/sbin/iptables-nft-restore', restore6: '/usr/sbin/ip6tables-nft-restore' };
const machine = fakeMachine({ root: '/r', runRoot: '/rr' });
const files: Files = { write: (path, data) => writeFileSync(path, data), remove: (path) => rmSync(path, { force: true }) };
const foreign: Foreign = { ensure: () => [], remove: () => [], why: () => [] };
const rtnetlink = { addresses: () => [{ index: 2, family: 4 as const, address: '192.0.2.1', prefix: 24 }] };
const make = (tables = new FakeTables(files)) => ({ tables, driver: createFirewallIptables({ instance: 'engine-0a1b2c3d', machine, serviceFolder }, {}, { programs, reader: tables, foreign, rtnetlink }) });
const serviceFolder = mkdtempSync(join(tmpdir(), 'engine-iptables-'));
afterAll(() => rmSync(serviceFolder, { recursive: true }));
const network = (letter: string, more: Partial<FirewallNetwork> = {}): FirewallNetwork => ({
  id: letter.repeat(64), name: `net-${letter}`, link: `en-${letter.repeat(12)}`, subnets: [`10.208.${Number.parseInt(letter, 16)}.0/24`], gateways: [`10.208.${Number.parseInt(letter, 16)}.1`],
  internal: false, icc: true, isolated: true, masquerade: true, dns: true, ...more,
});
const dual = (letter: string): FirewallNetwork => network(letter, { subnets: [`10.208.0.0/24`, 'fd00:1::/64'], gateways: ['10.208.0.1', 'fd00:1::1'] });
const port = (more: Partial<BoundPort> = {}): BoundPort => ({ protocol: 'tcp', hostAddress: '0.0.0.0', hostPort: 8080, containerPort: 80, ...more });
const endpoint = (ports: BoundPort[], more: Partial<Endpoint> = {}): Endpoint => ({
  container: 'c', run: '0123456789abcdef', network: 'a'.repeat(64), interface: 'eth0', link: 'v0-0123456789ab', mac: '', addresses: [{ family: 4, address: '10.208.10.2', prefix: 24 }],
  isDefault: true, aliases: [], ports, options: {}, ...more,
});
const run = { container: 'c', run: '0123456789abcdef', instance: 'engine-0a1b2c3d', runFolder: '/x', explain: false };
const apply = (tables: FakeTables, effects: readonly Effect[]): void => effects.forEach(({ operation }) => tables.run(operation));
const undo = (tables: FakeTables, effects: readonly { readonly undo: Effect['undo'] }[]): void => effects.toReversed().forEach((one) => one.undo.forEach((operation) => tables.run(operation)));
const sync = <T>(value: T | Promise<T>): T => value as T;

describeSuite('iptables on a fake machine', firewallSuite, { bench: () => fakeBench(), create: (deps) => createFirewallIptables(deps, {}, { programs, reader: new FakeTables(), foreign, rtnetlink }) });

describe('networks', () => {
  it('ensure makes what is missing once, in every family, and its undo leaves nothing', () => {
    const { tables, driver } = make();
    const effects = sync(driver.ensure(dual('a')));
    expect(effects).toHaveLength(2);
    apply(tables, effects);
    expect(sync(driver.ensure(dual('a')))).toEqual([]);
    expect(tables.chain(4, 'filter', 'FORWARD')).toEqual(['-j ENG-0a1b2c3d-FORWARD']);
    expect(tables.chain(4, 'nat', 'ENG-0a1b2c3d-SOURCE')).toEqual(['-o en-aaaaaaaaaaaa -g ENG-0a1b2c3d-Saaaaaaaaaaaa', '-s 10.208.0.0/24 -j ENG-0a1b2c3d-Saaaaaaaaaaaa']);
    undo(tables, effects);
    expect(tables.all()).toEqual([]);
    undo(tables, effects);
    expect(tables.all()).toEqual([]);
  });
  it('a second one only adds its own, and the undo of the first leaves that', () => {
    const { tables, driver } = make();
    const first = sync(driver.ensure(network('a')));
    apply(tables, first);
    apply(tables, sync(driver.ensure(network('b'))));
    undo(tables, first);
    expect(sync(driver.ensure(network('b')))).toEqual([]);
    expect(tables.all().filter((line) => line.includes('aaaa'))).toEqual([]);
    apply(tables, sync(driver.remove(network('b'))));
    expect(tables.all()).toEqual([]);
    expect(sync(driver.remove(network('b')))).toEqual([]);
  });
  it('two engine processes that bring up the first two at once', () => {
    const { tables, driver } = make();
    const other = make(tables).driver;
    const one = sync(driver.ensure(network('a')));
    const two = sync(other.ensure(network('b')));
    apply(tables, one);
    apply(tables, two);
    expect([sync(driver.ensure(network('a'))), sync(driver.ensure(network('b')))]).toEqual([[], []]);
    expect(tables.chain(4, 'mangle', 'FORWARD')).toHaveLength(1);
  });
  it.each([
    ['filter', '-D FORWARD -j ENG-0a1b2c3d-FORWARD'], ['filter', '-F ENG-0a1b2c3d-Faaaaaaaaaaaa'], ['filter', '-F ENG-0a1b2c3d-FORWARD'], ['nat', '-F ENG-0a1b2c3d-SOURCE'], ['nat', '-D POSTROUTING -j ENG-0a1b2c3d-SOURCE'],
    ['nat', '-D ENG-0a1b2c3d-SOURCE -s 10.208.10.0/24 -j ENG-0a1b2c3d-Saaaaaaaaaaaa'], ['mangle', '-F ENG-0a1b2c3d-LOOPBACK'], ['mangle', '-D PREROUTING -j ENG-0a1b2c3d-LOOPBACK'], ['mangle', '-F ENG-0a1b2c3d-GUARD'], ['mangle', '-F ENG-0a1b2c3d-OPEN'], ['raw', '-F ENG-0a1b2c3d-INGRESS'], ['raw', '-F ENG-0a1b2c3d-Raaaaaaaaaaaa'], ['raw', '-D PREROUTING -j ENG-0a1b2c3d-INGRESS'],
  ])('what somebody took out of %s (%s) is put back, and only that', (table, line) => {
    const { tables, driver } = make();
    const open = network('a', { isolated: false });
    apply(tables, sync(driver.ensure(open)));
    const before = tables.all().sort();
    tables.restore(4, `*${table}\n${line}\nCOMMIT\n`);
    const effects = sync(driver.ensure(open));
    expect(effects.map(({ noUndo }) => noUndo)).toEqual([expect.stringContaining('put back')]);
    apply(tables, effects);
    expect(tables.all().sort()).toEqual(before);
  });
  it('are removed even when somebody took a part of them away', () => {
    const { tables, driver } = make();
    apply(tables, sync(driver.ensure(network('a'))));
    for (const [table, line] of [['filter', '-D FORWARD -j ENG-0a1b2c3d-FORWARD'], ['nat', '-F ENG-0a1b2c3d-SOURCE'], ['mangle', '-D ENG-0a1b2c3d-GUARD -i en-aaaaaaaaaaaa -j ENG-0a1b2c3d-Gaaaaaaaaaaaa']]) tables.restore(4, `*${table}\n${line}\nCOMMIT\n`);
    apply(tables, sync(driver.remove(network('a'))));
    expect(tables.all()).toEqual([]);
  });
  it('of two that are open, each may reach the other; of an isolated one nobody', () => {
    const { tables, driver } = make();
    for (const one of [network('a', { isolated: false }), network('b', { isolated: false }), network('c')]) apply(tables, sync(driver.ensure(one)));
    expect(tables.chain(4, 'mangle', 'ENG-0a1b2c3d-OPEN')).toEqual(['-i en-aaaaaaaaaaaa -j ACCEPT', '-i en-bbbbbbbbbbbb -j ACCEPT']);
    expect(tables.chain(4, 'mangle', 'ENG-0a1b2c3d-Gaaaaaaaaaaaa')).toContain('-o en-aaaaaaaaaaaa -j ENG-0a1b2c3d-OPEN');
    expect(tables.chain(4, 'mangle', 'ENG-0a1b2c3d-Gcccccccccccc')).not.toContain('-o en-cccccccccccc -j ENG-0a1b2c3d-OPEN');
  });
  it('internal: nothing out, nothing in, no masquerade', () => {
    const { tables, driver } = make();
    apply(tables, sync(driver.ensure(network('a', { internal: true }))));
    expect(tables.chain(4, 'mangle', 'ENG-0a1b2c3d-Gaaaaaaaaaaaa').at(-1)).toBe('-j DROP');
    expect(tables.chain(4, 'nat', 'ENG-0a1b2c3d-Saaaaaaaaaaaa').some((rule) => rule.includes('! -o'))).toBe(false);
  });
  it('a name that iptables would take for more is refused', () => {
    const { driver } = make();
    for (const link of ['en+', 'a b', '', 'x\nCOMMIT', 'x'.repeat(16)]) expect(() => driver.ensure(network('a', { link }))).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE' }));
  });
  it('no name of a chain is longer than the 28 characters that there are', () => {
    const { tables, driver } = make();
    apply(tables, sync(driver.ensure(dual('a'))));
    const steps = driver.planPorts(endpoint([port()], { interface: 'eth12' }), network('a'), run);
    steps.forEach(({ operation }) => tables.run(operation));
    const names = tables.all().map((line) => line.split(' ')[2] ?? '').filter((name) => /^EN?G?-?0a1b/.test(name));
    expect(names.some((name) => name.endsWith('0123456789abcdef12'))).toBe(true);
    expect(Math.max(...names.map((name) => name.length))).toBe(28);
    undo(tables, steps);
  });
});

describe('ports', () => {
  it('of one endpoint and family are one change; the undo takes them away, there or not', () => {
    const { tables, driver } = make();
    apply(tables, sync(driver.ensure(network('a'))));
    const before = tables.all();
    const steps = driver.planPorts(endpoint([port(), port({ hostAddress: '127.0.0.1', hostPort: 81 }), port({ protocol: 'udp', hostAddress: '192.0.2.1', hostPort: 53 })]), network('a'), run);
    expect(steps.map(({ slot, operation }) => [slot, operation.name])).toEqual([['shim.attach', 'execHost'], ['shim.attach', 'writeFile'], ['shim.attach', 'forgetFlows']]);
    expect(steps[2]?.operation.args).toEqual({ protocol: 17, port: 53, address: Buffer.from([192, 0, 2, 1]) });
    steps.forEach(({ operation }) => tables.run(operation));
    expect(tables.chain(4, 'nat', 'E0a1b2c3d-0123456789abcdef0')).toEqual([
      '-p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.208.10.2:80',
      '-d 127.0.0.1 -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.208.10.2:80',
      '-d 192.0.2.1 -p udp -m udp --dport 53 -j DNAT --to-destination 10.208.10.2:80',
    ]);
    undo(tables, steps);
    expect(tables.all()).toEqual(before);
    undo(tables, steps);
    expect(tables.all()).toEqual(before);
  });
  it('that somebody took away are put back with the next start, the last one first', () => {
    const { tables, driver } = make();
    const made = sync(driver.ensure(network('a')));
    apply(tables, made);
    const one = driver.planPorts(endpoint([port()]), network('a'), run);
    const two = driver.planPorts(endpoint([port({ hostPort: 81 })], { run: 'f'.repeat(16) }), network('a'), run);
    [...one, ...two].forEach(({ operation }) => tables.run(operation));
    const before = tables.all().sort();
    expect(tables.chain(4, 'nat', 'ENG-0a1b2c3d-PORTS')[0]).toContain('ffff');
    for (const text of ['*nat\n-F ENG-0a1b2c3d-PORTS\nCOMMIT\n', '*nat\n-F ENG-0a1b2c3d-PORTS\n-F Effff\nCOMMIT\n'.replace('Effff', `E0a1b2c3d-${'f'.repeat(16)}0`)]) {
      tables.restore(4, text);
      const effects = sync(driver.ensure(network('a')));
      expect(effects).toHaveLength(1);
      apply(tables, effects);
      expect(tables.all().sort()).toEqual(before);
      expect(sync(driver.ensure(network('a')))).toEqual([]);
    }
    undo(tables, [...one, ...two]);
    expect(readdirSync(serviceFolder)).toEqual([]);
    undo(tables, made);
    expect(tables.all()).toEqual([]);
  });
  it('that the held socket relays are closed to internal networks, which may come before or after', () => {
    const { tables, driver } = make();
    const inner = (letter: string): FirewallNetwork => network(letter, { internal: true, subnets: [`10.208.${Number.parseInt(letter, 16)}.0/24`, `fd00:${letter}::/64`], gateways: [`10.208.${Number.parseInt(letter, 16)}.1`, `fd00:${letter}::1`] });
    const publish = (ports: BoundPort[], letter: string): readonly Step[] => {
      const steps = driver.planPorts(endpoint(ports, { run: letter.repeat(16) }), network('a'), run);
      steps.forEach(({ operation }) => tables.run(operation));
      return steps;
    };
    apply(tables, sync(driver.ensure(network('a'))));
    const empty = tables.all();
    const one = publish([port({ hostAddress: '::' }), port({ hostAddress: '2001:db8::1', protocol: 'udp', hostPort: 53 }), port({ hostAddress: '::1', hostPort: 9 })], '1');
    expect(one.map(({ operation }) => operation.name)).toEqual(['writeFile', 'execHost']);
    expect(tables.chain(6, 'raw', 'E0a1b2c3d-11111111111111110')).toEqual(['-p tcp -m tcp --dport 8080 -j DROP', '-d 2001:db8::1 -p udp -m udp --dport 53 -j DROP']);
    const made = sync(driver.ensure(inner('b')));
    apply(tables, made);
    expect(tables.chain(6, 'raw', 'ENG-0a1b2c3d-Rbbbbbbbbbbbb')).toEqual(['-m rpfilter --invert -j DROP', '-m addrtype --dst-type LOCAL -j ENG-0a1b2c3d-RELAYED']);
    const two = publish([port({ hostAddress: '::', hostPort: 81 })], '2');
    expect(tables.chain(6, 'raw', 'ENG-0a1b2c3d-RELAYED')).toEqual(['-j E0a1b2c3d-22222222222222220', '-j E0a1b2c3d-11111111111111110']);
    // somebody takes them away; other networks have no use for them
    const before = tables.all().sort();
    tables.restore(6, '*raw\n-F ENG-0a1b2c3d-RELAYED\n-F E0a1b2c3d-11111111111111110\nCOMMIT\n');
    expect(sync(driver.ensure(network('a')))).toEqual([]);
    apply(tables, sync(driver.ensure(inner('b'))));
    expect(tables.all().sort().map((line) => line.replace(/[12]{16}/, ''))).toEqual(before.map((line) => line.replace(/[12]{16}/, '')));
    expect(sync(driver.ensure(inner('b')))).toEqual([]);
    undo(tables, one);
    expect(tables.chain(6, 'raw', 'ENG-0a1b2c3d-RELAYED')).toEqual(['-j E0a1b2c3d-22222222222222220']);
    undo(tables, made);
    undo(tables, two);
    undo(tables, two);
    expect(tables.all()).toEqual(empty);
    expect(readdirSync(serviceFolder)).toEqual([]);
  });
  it('by IPv6 lead to the address that the container has there, but not ::1', () => {
    const { tables, driver } = make();
    apply(tables, sync(driver.ensure(dual('a'))));
    const both = endpoint([port(), port({ hostAddress: '::' }), port({ hostAddress: '::1', hostPort: 9 })], { addresses: [{ family: 4, address: '10.208.0.2', prefix: 24 }, { family: 6, address: 'fd00:1::2', prefix: 64 }] });
    const steps = driver.planPorts(both, dual('a'), run);
    steps.forEach(({ operation }) => tables.run(operation));
    expect(tables.chain(6, 'nat', 'E0a1b2c3d-0123456789abcdef0')).toEqual(['-p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:1::2]:80']);
    undo(tables, steps);
    expect(tables.chain(6, 'nat', 'OUTPUT')).toEqual(['! -d ::1/128 -m addrtype --dst-type LOCAL -j ENG-0a1b2c3d-PORTS']);
  });
  it('why says who, by which rule, and what is missing', async () => {
    const { tables, driver } = make();
    const here = endpoint([port(), port({ hostAddress: '127.0.0.1', hostPort: 81 }), port({ hostAddress: '::' })]);
    const ask = async (n: number): Promise<string> => (await driver.why(here.ports[n] as BoundPort, here, network('a'))).join('\n');
    expect(await ask(0)).toMatch(/everyone[^]*192\.0\.2\.1[^]*has no -A ENG-0a1b2c3d-PORTS -j E0a1b2c3d-0123456789abcdef0 now[^]*relays[^]*FORWARD has no jump/);
    apply(tables, sync(driver.ensure(network('a'))));
    const steps = driver.planPorts(here, network('a'), run);
    steps.forEach(({ operation }) => tables.run(operation));
    expect(await ask(0)).not.toMatch(/has no|relays/);
    expect(await ask(0)).toMatch(/--dport 8080 -j DNAT --to-destination 10\.208\.10\.2:80: the container sees the client[^]*127\.0\.0\.1 of this host: by the same rule[^]*before all others/);
    expect(await ask(1)).toMatch(/from this host only[^]*LOOPBACK$/m);
    expect(await ask(2)).toMatch(/no IPv6 address[^]*relays/);
    expect((await driver.why(port({ hostAddress: '203.0.113.9' }), here, network('a'))).join('\n')).toContain('by nobody: no interface of this host has 203.0.113.9');
    tables.restore(4, '*filter\n-I FORWARD 1 -j DROP\nCOMMIT\n');
    expect(await ask(0)).toContain('after 1 rule of others');
    undo(tables, steps);
  });
});

describe('chains of nftables', () => {
  const rejecting = parseRuleset({ nftables: [
    { table: { family: 'inet', name: 'firewalld' } },
    { chain: { family: 'inet', table: 'firewalld', name: 'filter_FORWARD', handle: 1, type: 'filter', hook: 'forward', prio: 10, policy: 'accept' } },
    { rule: { family: 'inet', table: 'firewalld', chain: 'filter_FORWARD', handle: 2, expr: [{ reject: null }] } },
    { chain: { family: 'ip', table: 'filter', name: 'FORWARD', handle: 1, type: 'filter', hook: 'forward', prio: 0, policy: 'drop' } },
  ] });
  const chains = () => rejecting.chains.map(({ family, table, name }) => ({ family: family as 'ip' | 'inet', table, name, type: 'filter', hook: 2 }));
  const texts = (variant: 'nft' | 'legacy', nft: string | undefined = '/usr/sbin/nft'): string[] =>
    createForeign({ instance: 'engine-0a1b2c3d', variant, nft, chains, ruleset: () => rejecting }).ensure(network('a')).map(({ operation }) => Buffer.from(operation.args['stdin'] as Uint8Array).toString());
  it('that drop get the accept that is needed, those of the same iptables none', () => {
    expect(texts('nft')).toEqual(['-i', '-o'].map((side) => `insert rule inet firewalld filter_FORWARD ${side === '-i' ? 'iif' : 'oif'}name "en-aaaaaaaaaaaa" counter accept comment "engine-0a1b2c3d en-aaaaaaaaaaaa"\n`).join('').split('\0'));
    expect(texts('legacy')[0]).toContain('insert rule ip filter FORWARD');
  });
  it('are said to be in the way where there is no nft to change them', () => {
    const without = createForeign({ instance: 'engine-0a1b2c3d', variant: 'nft', nft: undefined, chains, ruleset: () => rejecting });
    expect(without.ensure(network('a'))).toEqual([]);
    expect(without.why(network('a'), 4).join('\n')).toMatch(/filter_FORWARD of table inet firewalld .* drops what goes from en-a/);
  });
});

describe('tables of the old kind, as getsockopt gives them', () => {
  /** An entry of IPv4: `target` '' with a verdict, or a name. */
  const entry = (target: string, data: Buffer, incoming = ''): Buffer => {
    const bytes = Buffer.alloc(112 + 32 + ((data.length + 7) & ~7));
    bytes.write(incoming, 16, 'latin1');
    bytes.writeUInt16LE(112, 88);
    bytes.writeUInt16LE(bytes.length, 90);
    bytes.write(target, 112 + 2, 'latin1');
    data.copy(bytes, 112 + 32);
    return bytes;
  };
  const verdict = (number: number, incoming?: string): Buffer => {
    const data = Buffer.alloc(4);
    data.writeInt32LE(number);
    return entry('', data, incoming);
  };
  const head = (name: string): Buffer => entry('ERROR', Buffer.from(name.padEnd(30, '\0')));

  it('are chains with jumps by name, without policies and the end', () => {
    const size = verdict(-1).length;
    // FORWARD: a jump to OURS, the policy; OURS: one rule, its end
    const ours = 2 * size + head('OURS').length;
    const entries = Buffer.concat([verdict(ours, 'eth0'), verdict(-2), head('OURS'), entry('MASQUERADE', Buffer.alloc(16)), verdict(-5), head('ERROR')]);
    const info = Buffer.alloc(84);
    info.writeUInt32LE(1 << 2, 32);
    const chains = parseTable(4, info, entries);
    expect([...chains].map(([name, rules]) => [name, rules.length])).toEqual([['FORWARD', 1], ['OURS', 1]]);
    const [rule] = chains.get('FORWARD') ?? [];
    expect(['OURS', 'eth0', 'eth', 'MASQUERADE'].map((name) => rule?.mentions(name))).toEqual([true, true, false, false]);
    expect(chains.get('OURS')?.[0]?.mentions('MASQUERADE')).toBe(true);
  });
  it('what is damaged ends the list', () => {
    for (let length = 0; length < 400; length += 7) expect(() => parseTable(4, Buffer.alloc(84), Buffer.concat([verdict(-2), head('OURS')]).subarray(0, length))).not.toThrow();
    expect(parseTable(6, Buffer.alloc(84), Buffer.alloc(1000)).size).toBe(0);
  });
});

it('the probe wants root and the program', async () => {
  const { driver } = make();
  expect(await driver.probe(machine)).toMatchObject({ available: true, reasons: [expect.stringContaining('/usr/sbin/iptables-nft-restore'), expect.anything()] });
  expect(await driver.probe({ ...machine, uid: 1000 })).toMatchObject({ available: false, reasons: ['rules need root'] });
  expect(await createFirewallIptables({ instance: 'engine-0a1b2c3d', machine, serviceFolder }, {}, { programs: { variant: 'legacy', restore4: '/x' } }).probe(machine)).toMatchObject({ available: true, reasons: [expect.stringContaining('legacy'), expect.stringContaining('IPv4 only'), expect.anything()] });
});
