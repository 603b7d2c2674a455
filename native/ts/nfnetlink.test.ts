import { existsSync } from 'node:fs';
import { randomBytes, randomInt } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressText } from './addresses.ts';
import { checkNft, runNft } from './libnftables.ts';
import { decodeMessages, NETLINK_NETFILTER, NLM_F } from './netlink.ts';
import { openNetlink, type NetlinkSocket } from './netlink-socket.ts';
import { createNftables, decodeElements, elementMessages, elements, interfaceKey, NFT_MSG, nftBatch, portKey, portTarget, readPortKey, readPortTarget, watchNftables, type Element, type NftablesEvent } from './nfnetlink.ts';
import { enterNetns, netnsUnable } from './testing-netns.ts';

const library = ['/lib', '/usr/lib', '/lib64', '/usr/lib64'].some((folder) => existsSync(`${folder}/libnftables.so.1`) || existsSync(`${folder}/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/libnftables.so.1`));

describe('messages', () => {
  it('have keys and data as the maps want them', () => {
    expect(Buffer.from(portKey('tcp', '192.168.1.1', 8080)).toString('hex')).toBe('06000000' + 'c0a80101' + '1f900000');
    expect(Buffer.from(portTarget('10.0.0.2', 80)).toString('hex')).toBe('0a000002' + '00500000');
    expect(Buffer.from(interfaceKey('eth0')).toString('hex')).toBe('65746830'.padEnd(32, '0'));
    expect(() => interfaceKey('a-name-that-is-too-long')).toThrow(RangeError);
    for (let i = 0; i < 200; i++) {
      const target = { address: addressText(randomBytes(randomInt(2) ? 4 : 16)), port: randomInt(65_536) };
      expect(readPortKey(portKey('sctp', target.address, target.port))).toEqual({ protocol: 'sctp', ...target });
      expect(readPortTarget(portTarget(target.address, target.port))).toEqual(target);
    }
    expect([readPortKey(Buffer.alloc(12)), readPortTarget(Buffer.alloc(7))]).toEqual([undefined, undefined]);
  });

  it('come back, and are a transaction', () => {
    const wanted = Array.from({ length: 3000 }, (_, i) => ({ key: portKey('udp', '10.0.0.1', i + 1), data: portTarget('10.0.0.2', i + 1), comment: `engine-00000000 ${i}` }));
    const messages = decodeMessages(elements({ table: 't', set: 's', add: true, elements: wanted }));
    expect([messages.at(0)?.type, messages.at(-1)?.type]).toEqual([0x10, 0x11]);
    expect(messages.length).toBeGreaterThan(3);
    const between = messages.slice(1, -1);
    expect(between.every(({ type, flags }) => type === NFT_MSG.NEWSETELEM && flags === (NLM_F.REQUEST | NLM_F.ACK | NLM_F.CREATE))).toBe(true);
    expect(between.flatMap(({ body }) => decodeElements(body))).toEqual(wanted.map(({ key, data, comment }) => ({ key: Buffer.from(key), data: Buffer.from(data), comment, flags: 0 })));
    // what is deleted is named by its key alone
    expect(decodeElements(decodeMessages(elementMessages({ table: 't', set: 's', add: false, elements: wanted.slice(0, 1) })[0] as Buffer)[0]?.body as Buffer)).toEqual([{ key: Buffer.from((wanted[0] as Element).key), flags: 0 }]);
    expect(() => elements({ table: 't', set: 's', add: true, elements: [{ key: Buffer.alloc(4), comment: 'x'.repeat(128) }] })).toThrow(RangeError);
  });
});

describe.skipIf(netnsUnable !== undefined || !library)('nftables of the kernel', () => {
  let leave: () => void;
  let socket: NetlinkSocket;
  let read: ReturnType<typeof createNftables>;
  const ruleset = `table inet t {
    map ports4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }
    map ports6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; }
    set links { type ifname; }
    map verdicts { type ifname : verdict; }
    chain pre {
      type nat hook prerouting priority dstnat; policy accept;
      dnat ip to meta l4proto . ip daddr . th dport map @ports4
      dnat ip6 to meta l4proto . ip6 daddr . th dport map @ports6
    }
    chain forward { type filter hook forward priority -10; policy drop; }
    chain plain { }
  }`;
  beforeAll(() => {
    leave = enterNetns();
    socket = openNetlink(NETLINK_NETFILTER);
    read = createNftables();
    runNft(ruleset);
  });
  afterAll(() => {
    socket.close();
    read.close();
    leave();
  });
  const change = (add: boolean, set: string, ...list: Element[]): void => void socket.request(elements({ table: 't', set, add, elements: list }));
  const key = portKey('tcp', '192.168.1.1', 8080);

  it('says what tables and chains there are', () => {
    expect([read.hasTable('t'), read.hasTable('none'), read.hasTable('t', 'ip')]).toEqual([true, false, false]);
    expect(read.chains()).toEqual([
      { family: 'inet', table: 't', name: 'pre', type: 'nat', hook: 0, priority: -100, policy: 'accept' }, { family: 'inet', table: 't', name: 'forward', type: 'filter', hook: 2, priority: -10, policy: 'drop' },
      { family: 'inet', table: 't', name: 'plain' },
    ]);
  });

  it('has the elements that were added, until they are deleted', () => {
    const before = read.generation();
    expect(read.hasElement('t', 'ports4', key)).toBe(false);
    change(true, 'ports4', { key, data: portTarget('10.0.0.2', 80), comment: 'engine-00000000 run' });
    change(true, 'ports6', { key: portKey('udp', 'fd00::1', 53), data: portTarget('fd00::2', 5353) });
    change(true, 'links', { key: interfaceKey('eth0') });
    change(true, 'verdicts', { key: interfaceKey('eth0'), verdict: { kind: 'jump', chain: 'plain' } }, { key: interfaceKey('eth1'), verdict: { kind: 'drop' } });
    expect(read.generation()).not.toBe(before);
    expect(read.hasElement('t', 'ports4', key)).toBe(true);
    expect(read.listElements('t', 'ports4')).toEqual([{ key: Buffer.from(key), data: Buffer.from(portTarget('10.0.0.2', 80)), comment: 'engine-00000000 run', flags: 0 }]);
    const text = runNft('list table inet t');
    for (const words of ['tcp . 192.168.1.1 . 8080 comment "engine-00000000 run" : 10.0.0.2 . 80', 'udp . fd00::1 . 53 : fd00::2 . 5353', '"eth0" : jump plain', '"eth1" : drop']) expect(text).toContain(words);
    change(false, 'ports4', { key });
    expect([read.hasElement('t', 'ports4', key), read.listElements('t', 'ports4')]).toEqual([false, []]);
    expect([read.hasElement('none', 'ports4', key), read.hasElement('t', 'none', key)]).toEqual([false, false]);
    expect(() => read.listElements('t', 'none')).toThrow(expect.objectContaining({ errno: 'ENOENT', operation: 'read elements' }));
  });

  it('takes all of a batch or nothing', () => {
    const other = portKey('tcp', '192.168.1.1', 8081);
    change(true, 'ports4', { key, data: portTarget('10.0.0.2', 80) });
    // the same again is no change, other data is refused
    change(true, 'ports4', { key, data: portTarget('10.0.0.2', 80) });
    expect(() => change(true, 'ports4', { key: other, data: portTarget('10.0.0.2', 81) }, { key, data: portTarget('10.0.0.3', 80) })).toThrow(expect.objectContaining({ errno: 'EEXIST', operation: 'add elements' }));
    expect(() => socket.request(elements({ table: 't', set: 'ports4', add: true, exclusive: true, elements: [{ key, data: portTarget('10.0.0.2', 80) }] }))).toThrow(expect.objectContaining({ errno: 'EEXIST' }));
    expect(() => change(false, 'ports4', { key }, { key: other })).toThrow(expect.objectContaining({ errno: 'ENOENT', operation: 'delete elements' }));
    expect([read.hasElement('t', 'ports4', key), read.hasElement('t', 'ports4', other)]).toEqual([true, false]);
    const both = nftBatch([...elementMessages({ table: 't', set: 'links', add: true, elements: [{ key: interfaceKey('x') }] }), ...elementMessages({ table: 't', set: 'none', add: true, elements: [{ key: interfaceKey('x') }] })]);
    expect(() => socket.request(both)).toThrow(expect.objectContaining({ errno: 'ENOENT' }));
    expect(read.hasElement('t', 'links', interfaceKey('x'))).toBe(false);
    change(false, 'ports4', { key });
  });

  it('takes and lists thousands', () => {
    const many = Array.from({ length: 20_000 }, (_, i) => ({ key: portKey('tcp', '192.168.1.1', i + 1), data: portTarget('10.0.0.2', i + 1) }));
    change(true, 'ports4', ...many);
    expect(new Set(read.listElements('t', 'ports4').map((element) => element.key.toString('hex'))).size).toBe(20_000);
    change(false, 'ports4', ...many);
    expect(read.listElements('t', 'ports4')).toEqual([]);
  });

  it('tells who watches, in order, until it is closed', async () => {
    const events: NftablesEvent[] = [];
    const watch = watchNftables((event) => events.push(event));
    const generations = (): number => events.filter(({ kind }) => kind === 'generation').length;
    runNft('add table inet u');
    change(true, 'links', { key: interfaceKey('eth7') });
    runNft('delete table inet u');
    while (generations() < 3) await new Promise((resolve) => setTimeout(resolve, 2));
    expect(events).toEqual([{ kind: 'newtable', family: 1, table: 'u' }, { kind: 'generation' }, { kind: 'newelement', family: 1, table: 't', name: 'links' }, { kind: 'generation' }, { kind: 'deltable', family: 1, table: 'u' }, { kind: 'generation' }]);
    runNft('add table inet u');
    watch.close();
    watch.close();
    const second: NftablesEvent[] = [];
    const next = watchNftables((event) => second.push(event));
    runNft('delete table inet u');
    while (second.length < 2) await new Promise((resolve) => setTimeout(resolve, 2));
    next.close();
    expect(generations()).toBe(3);
  });

  it('says that changes were lost', async () => {
    const events: NftablesEvent[] = [];
    const watch = watchNftables((event) => events.push(event), { buffer: 4096 });
    for (let i = 0; i < 100; i++) change(true, 'links', { key: interfaceKey(`lost${i}`) });
    while (!events.some(({ kind }) => kind === 'lost')) await new Promise((resolve) => setTimeout(resolve, 2));
    // and it goes on
    const before = events.length;
    change(true, 'links', { key: interfaceKey('later') });
    while (events.length < before + 2) await new Promise((resolve) => setTimeout(resolve, 2));
    watch.close();
  });

  describe('by its own language', () => {
    it('runs, lists and refuses', () => {
      expect(runNft('list tables')).toBe('table inet t\n');
      const { nftables } = JSON.parse(runNft('list ruleset', { json: true, handles: true })) as { nftables: Record<string, { handle?: number }>[] };
      expect(nftables.filter((one) => 'chain' in one).length).toBe(3);
      expect(nftables.find((one) => 'table' in one)?.['table']?.handle).toBeTypeOf('number');
      expect(runNft('list ruleset', { terse: true })).not.toContain('eth0');
      expect(() => runNft('bogus')).toThrow(expect.objectContaining({ code: 'ERR_NATIVE', message: expect.stringContaining('syntax error') as string }));
      expect(() => runNft('add table inet a\nadd rule inet none none accept')).toThrow(expect.objectContaining({ errno: 'ENOENT' }));
      expect(read.hasTable('a')).toBe(false);
    });

    it('checks without doing', () => {
      checkNft('add table inet a');
      expect(read.hasTable('a')).toBe(false);
      expect(() => checkNft('add rule inet t none accept')).toThrow(expect.objectContaining({ errno: 'ENOENT' }));
      expect(() => checkNft('add table')).toThrow(expect.objectContaining({ code: 'ERR_NATIVE' }));
    });

    it('puts everything back in one transaction', () => {
      runNft(`flush ruleset\n${ruleset}`);
      expect(read.listElements('t', 'links')).toEqual([]);
      expect(read.chains().length).toBe(3);
    });
  });
});
