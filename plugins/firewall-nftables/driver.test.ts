import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply, applyOnCommit } from '@engine/core/contracts/common/suite';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { type DriverDeps } from '@engine/core/contracts/common';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { firewallSuite } from '@engine/core/contracts/firewall/suite';
import { type BoundPort, type Endpoint } from '@engine/core/contracts/network';
import { encodePlan, type Step } from '@engine/core/plan';
import { acceptText, neededAccepts } from '@engine/native/foreign-accepts';
import { parseRuleset, type Ruleset } from '@engine/native/foreign-chains';
import { decodeElements, type Nftables } from '@engine/native/nfnetlink';
import { decodeMessages } from '@engine/native/netlink-codec';
import { bindingLines, bindingsOf, readBindingLines, readKey, relayedOf } from './bindings.ts';
import { createNftablesFirewall, type NftablesOptions } from './driver.ts';
import { allMembers, readBindings, readNetworks, stampOf } from './files.ts';
import { legacyPrograms } from './foreign.ts';
import { createRestorer } from './restore.ts';
import { addText, CHAINS, digestOf, membersOf, tableText, versionMember } from './ruleset.ts';
import { explain, type Facts } from './why.ts';

const network = (n: number, more: Partial<FirewallNetwork> = {}): FirewallNetwork => ({
  id: String(n).repeat(64), name: `net${n}`, link: `en-${n}`, subnets: [`10.${n}.0.0/24`, `fd00:${n}::/64`], gateways: [`10.${n}.0.1`, `fd00:${n}::1`],
  internal: false, icc: true, isolated: true, masquerade: true, dns: true, ...more,
});
const port = (hostPort: number, more: Partial<BoundPort> = {}): BoundPort => ({ protocol: 'tcp', hostAddress: '0.0.0.0', hostPort, containerPort: 80, ...more });
const endpoint = (ports: readonly BoundPort[], addresses = ['10.1.0.2', 'fd00:1::2']): Endpoint => ({
  container: 'c'.repeat(64), run: '0123456789abcdef', network: network(1).id, interface: 'eth0', link: 'v0-0123456789ab', mac: '02:42:0a:01:00:02', isDefault: true, aliases: [], options: {}, ports,
  addresses: addresses.map((address) => ({ family: address.includes(':') ? 6 : 4, address, prefix: 24 })),
});
const run = { container: 'c', run: '0123456789abcdef', instance: 'engine-00000001', runFolder: '/run/x', explain: false };
/** A kernel without rules, in which elements are what a test says. */
const kernel = (elements: ReadonlySet<string> = new Set()): Required<Pick<NftablesOptions, 'nftables' | 'ruleset' | 'rtnetlink' | 'program'>> => ({
  nftables: { hasElement: (_table, set, key) => elements.has(`${set} ${Buffer.from(key).toString('latin1').replace(/\0+$/, '')}`), hasTable: () => elements.size > 0, generation: () => 1, chains: () => [] },
  ruleset: () => ({ tables: [], chains: [] }), rtnetlink: { addresses: () => [] }, program: '/usr/sbin/nft',
});
const create = (deps: DriverDeps): ReturnType<typeof createNftablesFirewall> => createNftablesFirewall(deps, kernel());
const root = process.getuid?.() === 0;
/** What nft says of a ruleset, in a net namespace of its own. */
const nft = (text: string, ...args: string[]): string => execFileSync('unshare', ['-n', 'sh', '-ec', `nft -f -; ${args.join(' ')}`], { input: text, encoding: 'utf8' });

describeSuite('nftables on a fake machine', firewallSuite, { bench: () => fakeBench(), create });

describe('the ruleset', () => {
  const members = [versionMember, ...membersOf(network(1)), ...membersOf(network(2, { internal: true, icc: false })), ...bindingsOf(endpoint([port(8080), port(53, { protocol: 'udp', hostAddress: '192.0.2.1' }), port(1, { hostAddress: '2001:db8::1', protocol: 'sctp' })]))];

  it('is one table: its rules are fixed, what varies lies in sets', () => {
    expect(tableText('engine-00000001', members)).toMatchInlineSnapshot(`
      "add table inet engine-00000001
      flush table inet engine-00000001
      table inet engine-00000001 {
      	set known {
      		type ifname
      		elements = { "ruleset-2", "b91d7669c7f089", "bc6544fdf0f56b" }
      	}
      	set links {
      		type ifname
      		elements = { "en-1", "en-2" }
      	}
      	set pairs {
      		type ifname . ifname
      		elements = { "en-1" . "en-1", "en-2" . "en-2" }
      	}
      	set within {
      		type ifname . ifname
      		elements = { "en-1" . "en-1" }
      	}
      	set internal {
      		type ifname
      		elements = { "en-2" }
      	}
      	set open {
      		type ifname
      	}
      	set masqueraded {
      		type ifname
      		elements = { "en-1" }
      	}
      	set relayed {
      		type inet_proto . inet_service
      	}
      	set relayed6 {
      		type inet_proto . ipv6_addr . inet_service
      	}
      	map ports4 {
      		type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
      		elements = { udp . 192.0.2.1 . 53 : 10.1.0.2 . 80 }
      	}
      	map ports6 {
      		type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service
      		elements = { sctp . 2001:db8::1 . 1 : fd00:1::2 . 80 }
      	}
      	map any4 {
      		type inet_proto . inet_service : ipv4_addr . inet_service
      		elements = { tcp . 8080 : 10.1.0.2 . 80 }
      	}
      	map any6 {
      		type inet_proto . inet_service : ipv6_addr . inet_service
      	}
      	chain martians {
      		type filter hook prerouting priority raw; policy accept;
      		iifname != "lo" ip daddr 127.0.0.0/8 drop
      		iifname != "lo" ip saddr 127.0.0.0/8 drop
      		iifname @links ip6 saddr != :: fib saddr . iif oif missing drop
      		iifname @links meta nfproto ipv4 fib saddr . iif oif missing drop
      	}
      	chain published {
      		dnat ip to meta l4proto . ip daddr . th dport map @ports4
      		dnat ip6 to meta l4proto . ip6 daddr . th dport map @ports6
      		dnat ip to meta l4proto . th dport map @any4
      		dnat ip6 to meta l4proto . th dport map @any6
      	}
      	chain prerouting {
      		type nat hook prerouting priority dstnat; policy accept;
      		fib daddr type local jump published
      	}
      	chain output {
      		type nat hook output priority -100; policy accept;
      		ip6 daddr ::1 return
      		fib daddr type local jump published
      	}
      	chain postrouting {
      		type nat hook postrouting priority srcnat; policy accept;
      		ct status dnat iifname . oifname @pairs masquerade
      		ct status dnat iif 0 oifname @links fib saddr type != local masquerade
      		oifname @links ip saddr 127.0.0.0/8 masquerade
      		iifname @masqueraded oifname != @links masquerade
      	}
      	chain input {
      		type filter hook input priority filter; policy accept;
      		iifname @internal meta nfproto ipv6 meta l4proto . th dport @relayed drop
      		iifname @internal meta l4proto . ip6 daddr . th dport @relayed6 drop
      	}
      	chain forward {
      		type filter hook forward priority filter; policy accept;
      		iifname . oifname @within accept
      		iifname @internal drop
      		oifname @internal drop
      		ct state established,related accept
      		ct status dnat accept
      		iifname . oifname @pairs drop
      		iifname @open oifname @open accept
      		oifname @links drop
      		iifname @links jump foreign
      	}
      	chain foreign {
      		oifname "docker0" drop
      		oifname "br-*" drop
      		oifname "docker_gwbridge" drop
      		oifname "podman*" drop
      		oifname "cni-podman*" drop
      		oifname "virbr*" drop
      		oifname "lxcbr*" drop
      		oifname "lxdbr*" drop
      		oifname "incusbr*" drop
      	}
      }
      "
    `);
  });
  it.skipIf(!root)('is what nft takes, lists, and takes again, also over itself', () => {
    const text = tableText('engine-00000001', members);
    const listed = nft(text + text, 'nft list ruleset');
    for (const { rules } of CHAINS) for (const rule of rules) assert.ok(listed.includes(rule), rule);
    nft(listed, 'true');
    nft(tableText('engine-00000001', members.slice(0, 9)) + tableText('engine-00000001', members.slice(9)), 'test $(nft list ruleset | grep -c "drop$") = 19');
    nft(text + tableText('engine-00000001', members, { anew: true }), 'true');
    nft(tableText('engine-00000001', [versionMember]) + addText('engine-00000001', members) + addText('engine-00000001', members), 'true');
  });
  it('has another digest for every setting that makes other rules', () => {
    const all = [network(1), network(2), network(1, { internal: true }), network(1, { icc: false }), network(1, { isolated: false }), network(1, { masquerade: false }), network(1, { dns: false }), network(1, { link: 'x' })].map(digestOf);
    assert.equal(new Set(all).size, all.length);
    assert.equal(digestOf(network(1, { name: 'renamed' })), digestOf(network(1)));
  });
  it('takes no link name that could be more than a name', () => {
    for (const link of ['', 'a b', 'a"', '";flush ruleset', 'a\n', 'x'.repeat(16), '../x']) assert.throws(() => membersOf(network(1, { link })), RangeError);
  });
});

describe('bindings', () => {
  it('are per family, where the container has an address of it; the rest is relayed', () => {
    const ports = [port(1), port(1, { hostAddress: '::' }), port(2, { hostAddress: '127.0.0.1' }), port(2, { hostAddress: '::1' }), port(3, { hostAddress: '2001:db8::1' })];
    assert.deepEqual(bindingsOf(endpoint(ports)).map(({ set, text }) => `${set} ${text}`), ['any4 tcp . 1 : 10.1.0.2 . 80', 'any6 tcp . 1 : fd00:1::2 . 80', 'ports4 tcp . 127.0.0.1 . 2 : 10.1.0.2 . 80', 'ports6 tcp . 2001:db8::1 . 3 : fd00:1::2 . 80']);
    assert.deepEqual(bindingsOf(endpoint(ports, ['10.1.0.2'])).map(({ set }) => set), ['any4', 'ports4']);
  });
  it('are elements in the kernel\'s form', () => {
    const [any, one] = bindingsOf(endpoint([port(8080), port(53, { protocol: 'udp', hostAddress: '192.0.2.1', containerPort: 5353 })]));
    assert.equal(Buffer.from(any?.key ?? []).toString('hex'), '06000000' + '1f900000');
    assert.equal(Buffer.from(any?.data ?? []).toString('hex'), '0a010002' + '00500000');
    assert.equal(Buffer.from(one?.key ?? []).toString('hex'), '11000000' + 'c0000201' + '00350000');
    assert.equal(Buffer.from(one?.data ?? []).toString('hex'), '0a010002' + '14e90000');
  });
  it('that the socket relays are elements of sets, and come back out of lines too', () => {
    const ports = [port(1), port(1, { hostAddress: '::' }), port(2, { hostAddress: '::1' }), port(3, { hostAddress: '2001:db8::1', protocol: 'udp' })];
    assert.deepEqual(relayedOf(endpoint(ports)), []);
    const relayed = relayedOf(endpoint(ports, ['10.1.0.2']));
    assert.deepEqual(relayed.map(({ set, text }) => `${set} ${text}`), ['relayed tcp . 1', 'relayed6 udp . 2001:db8::1 . 3']);
    const read = readBindingLines(`${bindingLines(relayed)}relayed tcp . 1 : 10.0.0.1 . 80\nrelayed tcp . 1 } ; flush ruleset\nrelayed7 tcp . 1`);
    assert.deepEqual(read, relayed.map(({ set, text }) => ({ set, text })));
    assert.deepEqual(read.map(readKey), relayed.map(({ key }) => Buffer.from(key).toString('hex')));
  });
  it('come back out of their lines, and what is no line is left out', () => {
    const bindings = bindingsOf(endpoint([port(1), port(2, { hostAddress: '192.0.2.1', protocol: 'udp' }), port(3, { hostAddress: '::' }), port(4, { hostAddress: '2001:db8::1', protocol: 'sctp' })]));
    const read = readBindingLines(`${bindingLines(bindings)}nonsense\nany4 tcp . 1 : 10.0.0.1\nany4 tcp . 1 : 10.0.0.1 . 80 } ; flush ruleset\nany4 tc`);
    assert.deepEqual(read, bindings.map(({ set, text }) => ({ set, text })));
    assert.deepEqual(read.map(readKey), bindings.map(({ key, data }) => Buffer.concat([key, data ?? Buffer.alloc(0)]).toString('hex')));
  });
});

describe('the driver', () => {
  const plan = (steps: readonly Step[]): string[] => steps.map(({ slot, operation }) => `${slot} ${operation.name}`);
  it('plans a file, one batch and forgotten flows, and undoes them in the order that leaves no gap', async () => {
    const bench = await fakeBench();
    const driver = create(bench.deps);
    const steps = driver.planPorts(endpoint([port(80), port(53, { protocol: 'udp' }), port(53, { protocol: 'udp', hostAddress: '::' }), port(54, { protocol: 'udp', hostAddress: '192.0.2.1' })]), network(1), run);
    assert.deepEqual(plan(steps), ['shim.links writeFile', 'shim.attach netlink', 'shim.attach forgetFlows', 'shim.attach forgetFlows']);
    assert.deepEqual(steps.map(({ undo }) => undo.map(({ name }) => name)), [['unlink'], ['unlink', 'netlink', 'forgetFlows', 'forgetFlows'], [], []]);
    // the socket serves it, and the firewall knows whom not
    assert.deepEqual(plan(driver.planPorts(endpoint([port(80, { hostAddress: '::' })], ['10.1.0.2']), network(1), run)), ['shim.links writeFile', 'shim.attach netlink']);
    assert.deepEqual(driver.planPorts(endpoint([port(80, { hostAddress: '::1' })], ['10.1.0.2']), network(1), run), []);
    const messages = decodeMessages(steps[1]?.operation.args['messages'] as Uint8Array);
    assert.deepEqual(messages.map(({ type }) => type.toString(16)), ['10', 'a1e', 'a1e', 'a1e', 'a0c', 'a0c', 'a0c', '11']);
    assert.deepEqual(messages.filter(({ type }) => type === 0xa0c).flatMap(({ body }) => decodeElements(body)).map(({ key, data }) => `${key.toString('hex')} ${data?.toString('hex')}`), [
      '0600000000500000 0a01000200500000', '1100000000350000 0a01000200500000', '1100000000350000 fd00000100000000000000000000000200500000', '11000000c000020100360000 0a01000200500000',
    ]);
    await bench.close();
  });
  it('plans for another address and run of the same lengths what its tokens say', async () => {
    const bench = await fakeBench();
    const driver = create(bench.deps);
    const ports = [port(80), port(80, { hostAddress: '::' }), port(53, { protocol: 'udp', hostAddress: '192.0.2.1' }), port(54, { hostAddress: '2001:db8::1' })];
    const [one, two] = [endpoint(ports), { ...endpoint(ports, ['10.1.0.7', 'fd00:1::7']), run: 'fedcba9876543210' }];
    const text = (of: Endpoint): string => Buffer.from(encodePlan({ steps: driver.planPorts(of, network(1), { ...run, run: of.run }).flatMap((step) => [step, ...step.undo.map((operation) => ({ slot: 'after.undo' as const, operation, undo: [] }))]).map((step) => ({ ...step, origin: { plugin: 'p', hook: 'h' } })).sort((a, b) => Number(a.slot.startsWith('after')) - Number(b.slot.startsWith('after'))) })).toString('latin1');
    const tokens = (of: Endpoint): string[] => [of.run, ...(driver.tokens?.(of) ?? []).map((token) => Buffer.from(token).toString('latin1'))];
    assert.equal(tokens(one).reduce((result, token, i) => result.replaceAll(token, tokens(two)[i] ?? ''), text(one)), text(two));
    await bench.close();
  });
  it('asks nothing more when the network is known, and takes the whole table when it is not', async () => {
    const bench = await fakeBench();
    const known = new Set<string>();
    const driver = createNftablesFirewall(bench.deps, kernel(known));
    const text = async (n: FirewallNetwork): Promise<string> => (await driver.ensure(n)).flatMap(({ operation }) => (operation.name === 'execHost' ? [Buffer.from(operation.args['stdin'] as Uint8Array).toString()] : [])).join('');
    assert.match(await text(network(1)), /^add table inet \S+\nflush table/);
    await apply(bench, await driver.ensure(network(1)));
    // another one, with the table there
    known.add('known ruleset-2').add(`known ${digestOf(network(1))}`);
    assert.deepEqual(await driver.ensure(network(1)), []);
    assert.match(await text(network(2)), /flush table[^]*"en-2"/);
    assert.doesNotMatch(await text(network(2)), /"en-1"/);
    // its settings are others now, or somebody has taken something out: nothing old may stay
    assert.match(await text(network(1, { icc: false })), /delete table[^]*"en-1"/);
    // the table of another version of the program
    known.delete('known ruleset-2');
    assert.match(await text(network(2)), /delete table[^]*"en-1"[^]*"en-2"/);
    // flushed: all of them come back, and one that comes up at the same time is not lost
    known.clear();
    assert.match(await text(network(2)), /flush table[^]*"en-1"[^]*"en-2"/);
    assert.match(await text(network(1)), /flush table[^]*"en-1"/);
    // the last one takes the table along
    const removal = await driver.remove(network(1));
    assert.ok(removal.some(({ operation }) => JSON.stringify(operation.args['argv'] ?? '').includes('delete table')));
    await applyOnCommit(bench, removal.filter(({ operation }) => operation.name !== 'execHost'));
    assert.deepEqual(readNetworks(bench.deps.serviceFolder), []);
    await bench.close();
  });
  it('says what keeps it from working', async () => {
    const bench = await fakeBench();
    const reasons = async (options: NftablesOptions, machine = bench.deps.machine): Promise<[boolean, string]> => {
      const probe = await createNftablesFirewall(bench.deps, { ...kernel(), ...options }).probe(machine);
      return [probe.available, probe.reasons.join()];
    };
    assert.deepEqual((await reasons({}))[0], true);
    assert.match((await reasons({}, { ...bench.deps.machine, kernel: [5, 4] })).join(), /false,needs Linux 5\.7/);
    const broken = { hasTable: () => false, hasElement: () => { throw new Error('EPROTONOSUPPORT'); }, generation: () => 0, chains: () => [] };
    assert.match((await reasons({ nftables: broken })).join(), /false,.*EPROTONOSUPPORT/);
    await bench.close();
  });
  it('refuses a network whose link is no link', async () => {
    const bench = await fakeBench();
    const driver = create(bench.deps);
    for (const bad of [network(1, { link: 'a b' }), { ...network(1), id: '../x' }]) {
      assert.throws(() => driver.ensure(bad), { code: 'ERR_INVALID_VALUE' });
      assert.throws(() => driver.remove(bad), { code: 'ERR_INVALID_VALUE' });
      assert.throws(() => driver.planPorts(endpoint([port(1)]), bad, run), { code: 'ERR_INVALID_VALUE' });
    }
    await bench.close();
  });
});

describe('others\' chains', () => {
  const ruleset = (...chains: object[]): Ruleset => parseRuleset({ nftables: chains.map((chain) => ({ chain: { handle: 1, type: 'filter', prio: 0, policy: 'drop', ...chain } })) });
  const drops = ruleset({ family: 'ip', table: 'filter', name: 'FORWARD', hook: 'forward' }, { family: 'ip6', table: 'filter', name: 'FORWARD', hook: 'forward' }, { family: 'inet', table: 'fw', name: 'in', hook: 'input' }, { family: 'inet', table: 'engine-00000002', name: 'forward', hook: 'forward' });

  it('get one accept per direction, and per protocol for names', () => {
    assert.equal(acceptText(neededAccepts(drops, network(1)), 'engine-00000001 en-1'), [
      'insert rule ip filter FORWARD iifname "en-1" counter accept comment "engine-00000001 en-1"', 'insert rule ip filter FORWARD oifname "en-1" counter accept comment "engine-00000001 en-1"',
      'insert rule ip6 filter FORWARD iifname "en-1" counter accept comment "engine-00000001 en-1"', 'insert rule ip6 filter FORWARD oifname "en-1" counter accept comment "engine-00000001 en-1"',
      'insert rule inet fw in iifname "en-1" udp dport 53 counter accept comment "engine-00000001 en-1"', 'insert rule inet fw in iifname "en-1" tcp dport 53 counter accept comment "engine-00000001 en-1"', '',
    ].join('\n'));
    assert.deepEqual(neededAccepts(drops, network(1, { dns: false, subnets: ['10.1.0.0/24'] })).map(({ chain }) => chain.family), ['ip', 'ip']);
  });
  it('of the old iptables are found by what the kernel lists', () => {
    assert.deepEqual(legacyPrograms((path) => (path === '/proc/net/ip_tables_names' ? 'nat\nfilter\n' : undefined)), ['iptables-legacy']);
    assert.deepEqual(legacyPrograms(() => ''), []);
  });
});

describe('what is put back', () => {
  function folderWith(networks: readonly FirewallNetwork[], bindings: Readonly<Record<string, string>>): string {
    const folder = mkdtempSync(join(tmpdir(), 'engine-firewall-'));
    for (const name of ['networks', 'bindings']) mkdirSync(join(folder, name));
    for (const one of networks) writeFileSync(join(folder, 'networks', `${one.id}.json`), JSON.stringify(one));
    for (const [name, text] of Object.entries(bindings)) writeFileSync(join(folder, 'bindings', name), text);
    return folder;
  }
  it('is what the files say: damaged ones aside, and of two bindings of one port the younger', () => {
    const folder = folderWith([network(1), network(2)], { 'a-eth0': 'any4 tcp . 1 : 10.1.0.2 . 80\n', 'b-eth0': 'any4 tcp . 1 : 10.1.0.3 . 80\nany4 udp . 1 : 10.1.0.3 . 80\n' });
    writeFileSync(join(folder, 'networks', 'x.json'), '{"id":');
    writeFileSync(join(folder, 'networks', 'y.json'), '{"id":"y","link":"a b"}');
    utimesSync(join(folder, 'bindings', 'b-eth0'), 1, 1);
    assert.deepEqual(readNetworks(folder).map(({ link }) => link), ['en-1', 'en-2']);
    assert.deepEqual(readBindings(folder).map(({ text }) => text), ['tcp . 1 : 10.1.0.2 . 80', 'udp . 1 : 10.1.0.3 . 80']);
    // a link has one network, and the one that is handed in counts
    assert.equal(allMembers(folder, [{ ...network(3), link: 'en-1' }]).filter(({ set, text }) => set === 'links' && text === '"en-1"').length, 1);
    const stamp = stampOf(folder);
    assert.equal(stampOf(folder), stamp);
    writeFileSync(join(folder, 'bindings', 'c-eth0'), '');
    assert.notEqual(stampOf(folder), stamp);
    rmSync(folder, { recursive: true });
  });
  it('is nothing any more when the last network was removed meanwhile', () => {
    const folder = folderWith([network(1)], {});
    const ran: string[] = [];
    const restorer = createRestorer({
      instance: 'engine-00000001', folder, nftables: { hasElement: () => false, listElements: () => [] }, ruleset: () => ({ tables: [], chains: [] }),
      run(text) {
        ran.push(text);
        rmSync(join(folder, 'networks', `${network(1).id}.json`), { force: true });
      },
    });
    restorer.restore();
    assert.deepEqual(ran.map((text) => [text.startsWith('add table'), text.includes('chain')]), [[true, true], [true, false]]);
    rmSync(folder, { recursive: true });
  });
  it('is of single bindings only what is missing still when it is looked at again', () => {
    const folder = folderWith([network(1)], { 'a-eth0': 'any4 tcp . 1 : 10.1.0.2 . 80\nany4 tcp . 2 : 10.1.0.2 . 80\nany4 tcp . 3 : 10.1.0.2 . 80\n' });
    const there = new Set<number>([1]);
    const ran: string[] = [];
    const elementOf = (n: number): { key: Buffer; data: Buffer; flags: number } => ({ key: Buffer.from([6, 0, 0, 0, 0, n, 0, 0]), data: Buffer.from([10, 1, 0, 2, 0, 80, 0, 0]), flags: 0 });
    const nftables: Pick<Nftables, 'hasElement' | 'listElements'> = { hasElement: () => true, listElements: () => [...there].map(elementOf) };
    const restorer = createRestorer({ instance: 'engine-00000001', folder, nftables, ruleset: () => ({ tables: [], chains: [] }), run: (text) => void ran.push(text) });
    const missing = restorer.missing();
    assert.deepEqual([...missing], ['any4 tcp . 2 : 10.1.0.2 . 80', 'any4 tcp . 3 : 10.1.0.2 . 80']);
    there.add(2); // its run was just starting
    writeFileSync(join(folder, 'bindings', 'b-eth0'), 'any4 tcp . 4 : 10.1.0.2 . 80\n'); // and this one is now
    assert.equal(restorer.complete(missing), 1);
    assert.deepEqual(ran, ['add element inet engine-00000001 any4 { tcp . 3 : 10.1.0.2 . 80 }\n']);
    rmSync(folder, { recursive: true });
  });
  it('is one transaction, made again when the files changed meanwhile, and without others\' chains when these have gone', () => {
    const folder = folderWith([network(1)], {});
    const ran: string[] = [];
    const nftables: Pick<Nftables, 'hasElement' | 'listElements'> = { hasElement: () => false, listElements: () => [] };
    const restorer = createRestorer({
      instance: 'engine-00000001', folder, nftables, ruleset: () => parseRuleset({ nftables: [{ chain: { family: 'ip', table: 'filter', name: 'FORWARD', handle: 1, type: 'filter', hook: 'forward', prio: 0, policy: 'drop' } }] }),
      run(text) {
        ran.push(text);
        if (ran.length === 1) writeFileSync(join(folder, 'networks', `${network(2).id}.json`), JSON.stringify(network(2)));
        if (text.includes('insert rule ip filter') && ran.length > 1) throw new Error('no such chain');
      },
    });
    assert.equal(restorer.damage(), 'the table is gone');
    restorer.restore();
    assert.deepEqual(ran.map((text) => [text.includes('"en-1"'), text.includes('"en-2"'), text.includes('insert rule')]), [[true, false, true], [true, true, true], [true, true, true], [true, true, false]]);
    rmSync(folder, { recursive: true });
    assert.equal(restorer.damage(), undefined);
    assert.equal(restorer.needed, false);
  });
});

describe('why', () => {
  const facts = (binding: BoundPort, more: Partial<Facts> = {}): Facts => ({
    binding, endpoint: endpoint([binding]), network: network(1), table: 'engine-00000001', hasElement: () => true, addresses: [{ address: '192.0.2.1' }, { address: '127.0.0.1' }, { address: 'fe80::1' }],
    read: (path) => (path.endsWith('route_localnet') ? '1\n' : '1\n'),
    ruleset: { tables: [], chains: CHAINS.map(({ name, rules }) => ({ family: 'inet', table: 'engine-00000001', name, handle: 1, rules: rules.map((_, i) => ({ family: 'inet', table: 'engine-00000001', chain: name, handle: 10 + i, expr: [] })) })) },
    ...more,
  });
  it('tells who, by which rule, and with which client address', () => {
    expect(explain(facts(port(8080)))).toMatchInlineSnapshot(`
      [
        "0.0.0.0:8080/tcp leads to 10.1.0.2:80 of container cccccccccccc on network net1",
        "reachable by everyone who can reach this host over IPv4: 192.0.2.1",
        "by element tcp . 8080 of map any4, rule with handle 12 in chain published of table inet engine-00000001: the container sees the client's own address",
        "127.0.0.1 of this host: by the same rule; the container sees the gateway 10.1.0.1 (rule with handle 12 in chain postrouting)",
        "containers of network net1, through an address of this host: they appear as the gateway; those of other networks keep their address",
        "forwarded by rule with handle 14 in chain forward of table inet engine-00000001",
      ]
    `);
    expect(explain(facts(port(8080, { hostAddress: '127.0.0.1' })))).toMatchInlineSnapshot(`
      [
        "127.0.0.1:8080/tcp leads to 10.1.0.2:80 of container cccccccccccc on network net1",
        "reachable from this host only",
        "by element tcp . 127.0.0.1 . 8080 of map ports4, rule with handle 10 in chain published of table inet engine-00000001",
        "127.0.0.1 of this host: by the same rule; the container sees the gateway 10.1.0.1 (rule with handle 12 in chain postrouting)",
      ]
    `);
    expect(explain(facts(port(8080, { hostAddress: '::' }), { endpoint: endpoint([], ['10.1.0.2']) }))).toMatchInlineSnapshot(`
      [
        "[::]:8080/tcp leads to 10.1.0.2:80 of container cccccccccccc on network net1",
        "reachable by everyone who can reach this host over IPv6: it has no address but loopback now",
        "the container has no IPv6 address: the socket that holds the port relays: the container sees the gateway 10.1.0.1 as client",
      ]
    `);
  });
  it('tells what is missing', () => {
    assert.match(explain(facts(port(1), { hasElement: () => false })).join('\n'), /no element for it now: the socket that holds the port relays/);
    assert.match(explain(facts(port(1), { ruleset: { tables: [], chains: [] } })).join('\n'), /no rule for map any4 now/);
    assert.match(explain(facts(port(1), { read: () => '0' })).join('\n'), /route_localnet is not 1[^]*ip_forward is 0/);
    assert.match(explain(facts(port(1), { network: network(1, { internal: true }) })).join('\n'), /internal \(rule with handle 12 in chain forward/);
    assert.match(explain(facts(port(1, { hostAddress: '198.51.100.1' }))).join('\n'), /by nobody: no interface of this host has 198\.51\.100\.1/);
  });
});
