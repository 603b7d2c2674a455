import assert from 'node:assert/strict';
import { decode, encode, type Answer, type DecodedPacket, type RecordType } from 'dns-packet';
import { it } from 'vitest';
import { addressKey, reverseAddress, subnetTest } from './address.ts';
import { createResolver, type Client } from './resolver.ts';
import { parseResolvConf, parseUpstream, type Upstream } from './resolvers.ts';
import { answers, readQuestion } from './wire.ts';
import { createZone } from './zone.ts';

const A = 'a'.repeat(64), B = 'b'.repeat(64), INSIDE = 'c'.repeat(64);
function zone() {
  const made = createZone();
  made.setNetwork({ id: A, name: 'alpha', gateways: ['10.1.0.1', 'fd00:a::1'], subnets: ['10.1.0.0/24', 'fd00:a::/64'], internal: false });
  made.setNetwork({ id: B, name: 'beta', gateways: ['10.2.0.1'], subnets: ['10.2.0.0/24'], internal: false });
  made.setNetwork({ id: INSIDE, name: 'inside', gateways: ['10.3.0.1'], subnets: ['10.3.0.0/24'], internal: true });
  const add = (container: string, servers: readonly string[], ...endpoints: readonly [string, string, readonly string[], readonly string[]][]): void =>
    made.setContainer({ container, servers, endpoints: endpoints.map(([network, name, names, addresses]) => ({ network, name, names, addresses })) });
  add('1', [], [A, 'web', ['web', '111111111111', 'WWW'], ['10.1.0.2', 'fd00:a:0:0::2']]);
  add('2', [], [A, 'db', ['pool'], ['10.1.0.3']], [B, 'db', ['db'], ['10.2.0.3']]);
  add('3', [], [A, 'db2', ['pool'], ['10.1.0.4']]);
  add('4', ['192.0.2.7'], [B, 'hidden', ['hidden'], ['10.2.0.4']]);
  add('5', [], [INSIDE, 'inner', ['inner'], ['10.3.0.2']]);
  return made;
}
interface Asked { readonly servers: readonly Upstream[]; readonly client: string; readonly full: boolean }
function setup(refresh: (zone: ReturnType<typeof createZone>) => void = () => {}) {
  const made = zone();
  const forwarded: Asked[] = [];
  const resolve = createResolver({
    zone: made,
    forwarder: { ask: async (_question, servers, client, full) => (forwarded.push({ servers, client, full }), undefined), isAsking: () => false, inFlight: 0 },
    upstreams: () => [{ address: '192.0.2.1', port: 53 }],
    refresh: () => refresh(made),
    isOwn: () => false,
    log: { debug() {} } as never,
  });
  const ask = async (name: string, type: RecordType | 'ANY' = 'A', client: Partial<Client> = {}, more: object = {}): Promise<DecodedPacket | undefined> => {
    const packet = await resolve(encode({ type: 'query', id: 7, flags: 0x100, questions: [{ name, type: type as RecordType, class: 'IN' }], ...more }), { network: A, address: '10.1.0.2', transport: 'udp', ...client });
    return packet && decode(packet);
  };
  return { zone: made, resolve, ask, forwarded };
}
const data = (packet: DecodedPacket | undefined): unknown[] => (packet?.answers ?? []).map((answer: Answer) => (answer as { data: unknown }).data);
const rcode = (packet: DecodedPacket | undefined): string => (packet as unknown as { rcode: string }).rcode;

it('answers names, ids and aliases of the asker\'s networks, in any case, with the question as it was asked', async () => {
  const { ask } = setup();
  for (const name of ['web', 'WeB', 'www', '111111111111', 'web.alpha', 'WWW.Alpha']) {
    const packet = await ask(name);
    assert.deepEqual(data(packet), ['10.1.0.2'], name);
    assert.equal(packet?.questions?.[0]?.name, name);
    assert.equal(packet?.answers?.[0]?.name, name);
    assert.deepEqual([packet?.id, packet?.flag_aa, packet?.flag_ra, packet?.flag_rd, packet?.flag_qr], [7, true, true, true, true]);
  }
  assert.deepEqual(data(await ask('web', 'AAAA')), ['fd00:a::2']);
});

it('a name without an address of that kind, or asked for something else, is there and empty; never asked of others', async () => {
  const { ask, forwarded } = setup();
  for (const type of ['AAAA', 'MX', 'TXT', 'SRV'] as const) {
    const packet = await ask('db', type);
    assert.deepEqual([rcode(packet), data(packet)], ['NOERROR', []]);
  }
  assert.deepEqual(forwarded, []);
});

it('an alias of several is all of them, in turn', async () => {
  const { ask } = setup();
  const [first, second] = [data(await ask('pool')), data(await ask('pool'))];
  assert.deepEqual(first.toSorted(), ['10.1.0.3', '10.1.0.4']);
  assert.deepEqual(second, first.toReversed());
});

it('who is on several networks hears of all, who is on one of no other; who is not known, of the one he came by', async () => {
  const { ask, forwarded } = setup();
  assert.deepEqual(data(await ask('hidden', 'A', { network: B, address: '10.2.0.3' })), ['10.2.0.4']);
  assert.deepEqual(data(await ask('hidden', 'A', { address: '10.1.0.3' })), ['10.2.0.4']);
  assert.deepEqual(data(await ask('hidden')), []);
  assert.equal(forwarded.length, 1);
  assert.deepEqual(data(await ask('web', 'A', { address: '10.1.0.99' })), ['10.1.0.2']);
  // of his own networks, the first that has the name
  assert.deepEqual(data(await ask('db', 'A', { network: B, address: '10.2.0.3' })), ['10.1.0.3']);
});

it('addresses have names; those of our subnets are never asked of others, those of others are', async () => {
  const { ask, forwarded } = setup();
  assert.deepEqual(data(await ask('2.0.1.10.in-addr.arpa', 'PTR')), ['web']);
  assert.deepEqual(data(await ask(`${'2'.concat('0'.repeat(23), 'a00000df').replaceAll(/(.)/g, '$1.')}ip6.arpa`, 'PTR')), ['web']);
  for (const name of ['77.0.1.10.in-addr.arpa', '4.0.2.10.in-addr.arpa']) assert.equal(rcode(await ask(name, 'PTR')), 'NXDOMAIN', name);
  assert.deepEqual(forwarded, []);
  await ask('1.2.0.192.in-addr.arpa', 'PTR');
  await ask('0.1.10.in-addr.arpa', 'PTR');
  assert.equal(forwarded.length, 2);
});

it('all else goes to the host\'s name servers, or those of the container; of a search domain too', async () => {
  const { ask, forwarded } = setup();
  assert.equal(rcode(await ask('web.example.lan')), 'SERVFAIL');
  await ask('example.org', 'A', { network: B, address: '10.2.0.4', transport: 'tcp' });
  assert.deepEqual(forwarded, [
    { servers: [{ address: '192.0.2.1', port: 53 }], client: '10.1.0.2', full: false },
    { servers: [{ address: '192.0.2.7', port: 53 }], client: '10.2.0.4', full: true },
  ]);
});

it('for who is on internal networks alone nothing outside exists', async () => {
  const { ask, forwarded } = setup();
  assert.equal(rcode(await ask('example.org', 'A', { network: INSIDE, address: '10.3.0.2' })), 'NXDOMAIN');
  assert.deepEqual(data(await ask('inner', 'A', { network: INSIDE, address: '10.3.0.2' })), ['10.3.0.2']);
  assert.deepEqual(forwarded, []);
});

it('everything at once is refused in the way of RFC 8482; what is no internet question, by its code', async () => {
  const { ask, resolve, forwarded } = setup();
  for (const name of ['web', 'example.org']) assert.deepEqual(data(await ask(name, 'ANY')), [{ cpu: 'RFC8482', os: '' }]);
  assert.equal(rcode(await ask('version.bind', 'TXT', {}, { questions: [{ name: 'version.bind', type: 'TXT', class: 'CH' }] })), 'REFUSED');
  const update = encode({ type: 'query', id: 1, flags: 5 << 11, questions: [{ name: 'web', type: 'SOA' }] });
  assert.equal(rcode(decode((await resolve(update, { network: A, address: '10.1.0.2', transport: 'udp' })) ?? Buffer.alloc(12))), 'NOTIMP');
  assert.deepEqual(forwarded, []);
});

it('nobody else is answered: addresses outside the network, networks that are not there', async () => {
  const { ask, forwarded } = setup();
  for (const client of [{ address: '192.0.2.9' }, { address: '10.2.0.3' }, { network: 'x' }, { address: '' }]) assert.equal(await ask('web', 'A', client), undefined);
  assert.deepEqual(forwarded, []);
});

it('EDNS is answered where it was spoken; a version that nobody knows is told so', async () => {
  const { ask } = setup();
  const opt = (version: number, flags = 0, size = 4096) => ({ additionals: [{ type: 'OPT', name: '.', udpPayloadSize: size, ednsVersion: version, flags, flag_do: flags !== 0, extendedRcode: 0, options: [] }] });
  const packet = await ask('web', 'A', {}, opt(0, 0x8000));
  const echo = (answer: DecodedPacket | undefined) => (answer?.additionals ?? [])[0] as unknown as { type: string; udpPayloadSize: number; flag_do: boolean; extendedRcode: number } | undefined;
  assert.deepEqual([echo(packet)?.type, echo(packet)?.udpPayloadSize, echo(packet)?.flag_do], ['OPT', 1232, true]);
  assert.deepEqual((await ask('web'))?.additionals, []);
  const unknown = await ask('web', 'A', {}, opt(1));
  assert.deepEqual([data(unknown), echo(unknown)?.extendedRcode], [[], 1]);
});

it('an answer that is too long is cut off over UDP, and whole over TCP', async () => {
  const { zone: made, ask } = setup();
  for (let i = 10; i < 110; i++) made.setContainer({ container: `many${i}`, servers: [], endpoints: [{ network: A, name: `m${i}`, names: ['many'], addresses: [`10.1.0.${i}`] }] });
  const plain = await ask('many');
  assert.deepEqual([plain?.flag_tc, data(plain).length < 40], [true, true]);
  const wide = await ask('many', 'A', {}, { additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 4096, ednsVersion: 0, flags: 0, flag_do: false, extendedRcode: 0, options: [] }] });
  assert.deepEqual([wide?.flag_tc, data(wide).length > data(plain).length], [true, true]);
  const whole = await ask('many', 'A', { transport: 'tcp' });
  assert.deepEqual([whole?.flag_tc, data(whole).length], [false, 100]);
});

it('who has just started is found: the files are read again before anybody is told no', async () => {
  const { ask, forwarded } = setup((made) => made.setContainer({ container: '9', servers: [], endpoints: [{ network: A, name: 'new', names: [], addresses: ['10.1.0.9'] }] }));
  assert.deepEqual(data(await ask('new')), ['10.1.0.9']);
  assert.deepEqual(data(await ask('9.0.1.10.in-addr.arpa', 'PTR')), ['new']);
  assert.deepEqual(forwarded, []);
});

it('a container that goes, or is called otherwise, leaves no name behind', async () => {
  const { zone: made, ask } = setup();
  made.setContainer({ container: '1', servers: [], endpoints: [{ network: A, name: 'site', names: [], addresses: ['10.1.0.2'] }] });
  assert.deepEqual([data(await ask('www')), data(await ask('site'))], [[], ['10.1.0.2']]);
  made.removeContainer('3');
  assert.deepEqual(data(await ask('pool')), ['10.1.0.3']);
  made.removeContainer('1');
  assert.equal(rcode(await ask('2.0.1.10.in-addr.arpa', 'PTR')), 'NXDOMAIN');
});

it('no packet makes it throw, and no answer is longer than allowed', async () => {
  const { resolve } = setup();
  let seed = 12345;
  const random = (n: number): number => (seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff) % n;
  const good = [
    encode({ type: 'query', id: 1, flags: 0x100, questions: [{ name: 'web', type: 'A' }] }),
    encode({ type: 'query', id: 1, flags: 0x100, questions: [{ name: '2.0.1.10.in-addr.arpa', type: 'PTR' }], additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 1400, ednsVersion: 0, flags: 0, flag_do: false, extendedRcode: 0, options: [{ code: 12, length: 9, data: Buffer.alloc(9) }] } as never] }),
  ];
  const listening: Client = { network: A, address: '10.1.0.2', transport: 'udp' };
  for (let i = 0; i < 20_000; i++) {
    const from = good[i % good.length] ?? Buffer.alloc(0);
    let packet = Buffer.from(from);
    if (i % 5 === 0) packet = Buffer.from(Array.from({ length: random(80) }, () => random(256)));
    else if (i % 5 === 1) packet = packet.subarray(0, random(packet.length + 1));
    else for (let n = 1 + random(4); n > 0; n--) packet[random(packet.length)] = random(256);
    const reply = await resolve(packet, listening);
    if (reply) assert.ok(reply.length <= 1232 && reply.readUInt16BE(0) === packet.readUInt16BE(0) && (reply[2] ?? 0) & 0x80);
  }
  // a name of pointers to itself, one that is too long, many questions
  for (const hex of ['000101000001000000000000c00c00010001', `00010100000100000000000${'03f61'.repeat(40)}`, '0001010000020000000000000377656200000100010377656200000100 01'.replace(' ', '')]) assert.equal(await resolve(Buffer.from(hex, 'hex'), listening), undefined);
});

it('an answer belongs to a question by id and name, whatever its case', () => {
  const packet = encode({ type: 'query', id: 5, questions: [{ name: 'Example.org', type: 'A' }] });
  const question = readQuestion(packet);
  assert.ok(question);
  const reply = (name: string, id = 9, type: RecordType = 'A'): Buffer => encode({ type: 'response', id, questions: [{ name, type }] });
  assert.equal(answers(reply('eXample.ORG'), question, 9), true);
  for (const wrong of [reply('example.org', 8), reply('example.net'), reply('example.org', 9, 'AAAA'), packet, Buffer.alloc(3)]) assert.equal(answers(wrong, question, 9), false);
});

it('addresses in all their spellings', () => {
  assert.equal(addressKey('fd00:0:0::0002'), addressKey('FD00::2'));
  assert.equal(addressKey('::ffff:10.0.0.1'), '10.0.0.1');
  assert.equal(addressKey('fe80::1%eth0'), addressKey('fe80::1'));
  assert.equal(addressKey('x'), undefined);
  assert.equal(reverseAddress('1.0.0.10.in-addr.arpa'), '10.0.0.1');
  assert.equal(reverseAddress('1.0.0.999.in-addr.arpa'), undefined);
  assert.equal(reverseAddress(`${'2'.concat('0'.repeat(29), 'df').replaceAll(/(.)/g, '$1.')}ip6.arpa`), addressKey('fd00::2'));
  const inside = subnetTest(['10.0.0.0/8', 'fd00::/64', 'nonsense', '1.2.3.4/99']);
  assert.deepEqual(['10.255.0.1', '11.0.0.1', 'fd00::9', 'fd00:1::9', 'x'].map(inside), [true, false, true, false, false]);
});

it('name servers as resolv.conf(5) and the options have them', () => {
  const at = (address: string, port = 53): Upstream => ({ address, port });
  assert.deepEqual(parseResolvConf('# x\nsearch lan\nnameserver 192.0.2.1\n nameserver\t2001:db8::1\n#nameserver 9.9.9.9\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n'), [at('192.0.2.1'), at('2001:db8::1'), at('fe80::1%eth0')]);
  assert.deepEqual(parseResolvConf('nameserver x\n'), [at('127.0.0.1')]);
  assert.deepEqual(parseUpstream('192.0.2.1#5353'), at('192.0.2.1', 5353));
  for (const wrong of ['', 'x', '192.0.2.1#0', '192.0.2.1#x', '192.0.2.1#1#2']) assert.equal(parseUpstream(wrong), undefined);
});
