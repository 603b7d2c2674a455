import assert from 'node:assert/strict';
import { execFile, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { decode, encode, type DecodedPacket, type RecordType } from 'dns-packet';
import { afterEach, beforeEach, describe, it } from 'vitest';
import type { Ask, Mode, Order, Received } from './service.fixture.ts';

const run = promisify(execFile);
const A = 'a'.repeat(64), INSIDE = 'c'.repeat(64);
const ALPHA = { id: A, name: 'alpha', gateways: ['10.1.0.1', 'fd00:a::1'], subnets: ['10.1.0.0/24', 'fd00:a::/64'], internal: false };

/** A network namespace with a gateway, two addresses of containers, hosts of name servers and a stranger, all on one machine. */
class World {
  readonly folder = mkdtempSync('/tmp/engine-dns-');
  readonly service = join(this.folder, 'service');
  readonly resolvConf = join(this.folder, 'resolv.conf');
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting = new Map<number, (result: unknown) => void>();
  #number = 0;
  #errors = '';

  constructor(resolvers: readonly string[], late = '') {
    for (const name of ['networks', 'containers']) mkdirSync(join(this.service, name), { recursive: true });
    this.resolvers(resolvers);
    const script = `ip link set lo up
ip link add b0 type bridge && ip link set b0 up
for a in ${late === '10.1.0.1' ? '' : '10.1.0.1/24'} 10.1.0.2/32 10.1.0.3/32 10.3.0.1/24 10.3.0.2/32 192.0.2.1/32 192.0.2.2/32 192.0.2.3/32 192.0.2.99/32; do ip addr add $a dev b0; done
ip addr add fd00:a::1/64 dev b0 nodad; ip addr add fd00:a::2/128 dev b0 nodad
mount --bind ${this.folder} /mnt && mount --bind ${this.folder}/etc /etc
exec ${process.execPath} --disable-warning=ExperimentalWarning ${join(import.meta.dirname, 'service.fixture.ts')}`;
    this.#child = spawn('unshare', ['-n', '-m', 'sh', '-ec', script], { stdio: 'pipe' });
    this.#child.stderr.on('data', (data: Buffer) => (this.#errors += data.toString()));
    this.#child.on('exit', () => this.#waiting.forEach((resolve) => resolve(undefined)));
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const { number, result } = JSON.parse(line) as { number: number; result: unknown };
      this.#waiting.get(number)?.(result);
    });
  }
  resolvers(list: readonly string[]): void {
    mkdirSync(join(this.folder, 'etc'), { recursive: true });
    writeFileSync(join(this.folder, 'etc/resolv.conf.new'), list.map((address) => `nameserver ${address}\n`).join(''));
    renameSync(join(this.folder, 'etc/resolv.conf.new'), join(this.folder, 'etc/resolv.conf'));
  }
  network(file: typeof ALPHA): void {
    writeFileSync(join(this.service, 'networks', `${file.id}.json`), JSON.stringify(file));
  }
  container(id: string, names: readonly string[], addresses: readonly string[], more: { servers?: readonly string[]; network?: string } = {}): void {
    writeFileSync(join(this.service, 'containers', `${id}.json`), JSON.stringify({ container: id, servers: more.servers ?? [], endpoints: [{ network: more.network ?? A, name: names[0], names, addresses }] }));
  }
  ready(): Promise<unknown> {
    return new Promise((resolve) => this.#waiting.set(0, resolve));
  }
  async order<T>(order: Order): Promise<T> {
    const number = ++this.#number;
    const answer = new Promise((resolve) => this.#waiting.set(number, resolve));
    this.#child.stdin.write(`${JSON.stringify({ number, ...order })}\n`);
    const result = await answer;
    this.#waiting.delete(number);
    assert.ok(this.#child.exitCode === null, this.#errors);
    return result as T;
  }
  start(resolvers?: readonly string[]): Promise<number> {
    return this.order({ start: { folder: this.service, ...(resolvers ? { options: { resolvers } } : {}) } });
  }
  upstream(address: string, mode: Mode = 'answer'): Promise<unknown> {
    return this.order({ upstream: { address, mode } });
  }
  received(address: string): Promise<Received[]> {
    return this.order({ log: `${address} 53` });
  }
  raw(packets: readonly string[], more: Partial<Ask> = {}): Promise<(string | null)[]> {
    return this.order({ ask: { server: '10.1.0.1', source: '10.1.0.2', packets, ...more } });
  }
  async ask(name: string, type: RecordType = 'A', more: Partial<Ask> = {}): Promise<DecodedPacket | undefined> {
    const [reply] = await this.raw([query(name, type)], more);
    return reply && reply !== 'refused' ? decode(Buffer.from(reply, 'hex')) : undefined;
  }
  inside(...argv: string[]): Promise<{ stdout: string }> {
    return run('nsenter', [`--net=/proc/${this.#child.pid}/ns/net`, ...argv]);
  }
  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin.end();
    if (this.#child.exitCode === null) await ended;
    assert.equal(this.#errors, '');
    rmSync(this.folder, { recursive: true, force: true });
  }
}
const query = (name: string, type: RecordType = 'A', more: object = {}): string => encode({ type: 'query', id: 4711, flags: 0x100, questions: [{ name, type }], ...more }).toString('hex');
const data = (packet: DecodedPacket | undefined): unknown => packet?.answers?.map((answer) => (answer as { data: unknown }).data);
const rcode = (packet: DecodedPacket | undefined): unknown => (packet as { rcode?: string } | undefined)?.rcode;

let world: World;
async function open(resolvers: readonly string[] = ['192.0.2.1', '192.0.2.2'], late = ''): Promise<void> {
  world = new World(resolvers, late);
  await world.ready();
  world.network(ALPHA);
  world.container('1', ['web', 'www'], ['10.1.0.2', 'fd00:a::2']);
  world.container('2', ['db'], ['10.1.0.3']);
}

describe.skipIf(process.getuid?.() !== 0)('in a network namespace', () => {
  beforeEach(() => open());
  afterEach(() => world.close());

  it('answers on both gateways, by UDP and TCP, several questions on one connection', async () => {
    await world.start();
    for (const transport of ['udp', 'tcp'] as const) {
      assert.deepEqual(data(await world.ask('web', 'A', { transport })), ['10.1.0.2']);
      assert.deepEqual(data(await world.ask('web', 'AAAA', { transport, server: 'fd00:a::1', source: 'fd00:a::2' })), ['fd00:a::2']);
    }
    const replies = await world.raw([query('web'), query('db'), query('www')], { transport: 'tcp' });
    assert.deepEqual(replies.map((hex) => data(decode(Buffer.from(hex ?? '', 'hex')))).toSorted(), [['10.1.0.2'], ['10.1.0.2'], ['10.1.0.3']]);
  });

  it.skipIf(!existsSync('/usr/bin/dig'))('dig understands it', async () => {
    await world.start();
    const dig = async (...words: string[]): Promise<string> => (await world.inside('dig', '+time=2', '+tries=1', '-b', '10.1.0.2', '@10.1.0.1', ...words)).stdout.trim();
    assert.equal(await dig('+short', 'WEB'), '10.1.0.2');
    assert.equal(await dig('+short', '+tcp', 'web', 'AAAA'), 'fd00:a::2');
    assert.equal(await dig('+short', '-x', '10.1.0.3'), 'db.');
    assert.equal(await dig('+short', '-x', 'fd00:a::2'), 'web.');
    const whole = await dig('+dnssec', 'web');
    assert.match(whole, /status: NOERROR/);
    assert.match(whole, /EDNS: version: 0, flags: do; udp: 1232/);
    assert.doesNotMatch(whole, /WARNING|malformed|Got bad packet/);
    assert.match(await dig('+edns=1', '+noednsneg', 'web'), /status: BADVERS/);
    assert.match(await dig('-x', '10.1.0.200'), /status: NXDOMAIN/);
    assert.match(await dig('web', 'ANY', '+notcp'), /HINFO\s+"RFC8482" ""/);
  });

  it('a container that has just started is found by the first who asks, and one that ended is not', async () => {
    await world.upstream('192.0.2.1');
    await world.start();
    for (let i = 0; i < 20; i++) {
      world.container('new', [`new${i}`], [`10.1.0.${100 + i}`]);
      assert.deepEqual(data(await world.ask(`new${i}`)), [`10.1.0.${100 + i}`]);
      rmSync(join(world.service, 'containers/new.json'));
      // asked of others, who know it by another address
      assert.deepEqual(data(await world.ask(`new${i}`)), ['192.0.2.80']);
    }
  });

  it('other names are asked of the host\'s servers: byte by byte, under an id and from a port that nobody can guess', async () => {
    await world.upstream('192.0.2.1');
    await world.start();
    const strange = query('eXample.ORG', 'A', { additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 1400, ednsVersion: 0, flags: 0x8000, flag_do: true, extendedRcode: 0, options: [{ code: 10, data: Buffer.from('0011223344556677', 'hex') }] }] });
    const replies = await world.raw(Array<string>(20).fill(strange));
    for (const reply of replies) {
      const packet = decode(Buffer.from(reply ?? '', 'hex'));
      assert.deepEqual([packet.id, packet.questions?.[0]?.name, data(packet)], [4711, 'eXample.ORG', ['192.0.2.80']]);
    }
    const received = await world.received('192.0.2.1');
    assert.equal(received.length, 20);
    for (const { packet } of received) assert.equal(packet.slice(4), strange.slice(4));
    assert.ok(new Set(received.map(({ packet }) => packet.slice(0, 4))).size > 15);
    assert.ok(new Set(received.map(({ port }) => port)).size > 10);
  });

  it('the next server is asked when one is silent or fails, and the silent one last from then on', async () => {
    await world.upstream('192.0.2.1', 'silent');
    await world.upstream('192.0.2.2');
    await world.start();
    const from = Date.now();
    assert.deepEqual(data(await world.ask('example.org')), ['192.0.2.80']);
    assert.ok(Date.now() - from > 1000);
    await world.received('192.0.2.1');
    assert.deepEqual(data(await world.ask('example.org')), ['192.0.2.80']);
    assert.deepEqual(await world.received('192.0.2.1'), []);
    await world.upstream('192.0.2.1');
    await world.upstream('192.0.2.2', 'servfail');
    assert.deepEqual(data(await world.ask('example.org')), ['192.0.2.80']);
    await world.upstream('192.0.2.1', 'servfail');
    assert.equal(rcode(await world.ask('example.org')), 'SERVFAIL');
  });

  it('an answer that comes late counts, also when another one was asked meanwhile', async () => {
    await world.upstream('192.0.2.1', 'late');
    await world.upstream('192.0.2.2', 'silent');
    await world.start();
    assert.deepEqual(data(await world.ask('example.org')), ['192.0.2.80']);
  });

  it('nobody answers: that is said before the asker gives up', async () => {
    await world.upstream('192.0.2.1', 'silent');
    await world.start(['192.0.2.1']);
    // libc gives up after five seconds
    assert.equal(rcode(await world.ask('example.org', 'A', { patience: 4990 })), 'SERVFAIL');
    assert.equal((await world.received('192.0.2.1')).length, 2);
    // a closed port is no reason to wait
    const then = Date.now();
    world.resolvers(['192.0.2.3']);
    await world.order({ stop: 0 });
    await world.start();
    assert.equal(rcode(await world.ask('example.org')), 'SERVFAIL');
    // one that is silent is waited for twice as long, and longer
    assert.ok(Date.now() - then < 2900);
  });

  it('an answer under another id is none', async () => {
    await world.upstream('192.0.2.1', 'lie');
    await world.start();
    assert.deepEqual(data(await world.ask('example.org')), ['192.0.2.80']);
  });

  it('an answer that was cut off is asked again by TCP for who asked by TCP, and told to who asked by UDP', async () => {
    await world.upstream('192.0.2.1', 'truncate');
    await world.start();
    const short = await world.ask('example.org');
    assert.deepEqual([short?.flag_tc, data(short)], [true, []]);
    const whole = await world.ask('example.org', 'A', { transport: 'tcp' });
    assert.deepEqual([whole?.flag_tc, data(whole)], [false, ['192.0.2.80']]);
    assert.deepEqual((await world.received('192.0.2.1')).map(({ transport }) => transport), ['udp', 'udp', 'tcp']);
  });

  it('the host\'s servers may change, and a container may have its own', async () => {
    for (const address of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) await world.upstream(address);
    await world.start();
    await world.ask('example.org');
    world.resolvers(['192.0.2.2']);
    await world.ask('example.org');
    world.container('2', ['db'], ['10.1.0.3'], { servers: ['192.0.2.3'] });
    await world.order({ stop: 0 });
    await world.start();
    await world.ask('example.org', 'A', { source: '10.1.0.3' });
    for (const address of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) assert.equal((await world.received(address)).length, 1, address);
  });

  it('it never asks itself', async () => {
    world.resolvers(['10.1.0.1', 'fd00:a::1']);
    await world.start();
    const from = Date.now();
    assert.equal(rcode(await world.ask('example.org')), 'SERVFAIL');
    assert.ok(Date.now() - from < 2900);
  });

  it('a stranger hears nothing, by UDP and by TCP; and no packet ends it', async () => {
    await world.start();
    const patience = 300;
    assert.deepEqual(await world.raw([query('web')], { source: '192.0.2.99', patience }), [null]);
    assert.deepEqual(await world.raw([query('web')], { source: '192.0.2.99', transport: 'tcp', patience }), [null]);
    const noise = Array.from({ length: 300 }, (_, i) => Buffer.from(Array.from({ length: 1 + (i % 60) }, (__, n) => (i * 31 + n * 17) % 256)).toString('hex'));
    await world.raw(noise, { patience });
    for (const bad of noise.slice(0, 20)) await world.raw([bad], { transport: 'tcp', patience: 50 });
    await world.raw(['ff'.repeat(60_000)], { transport: 'tcp', patience });
    assert.deepEqual(data(await world.ask('web')), ['10.1.0.2']);
  });

  it('who asks for more than it can ask for is told so at once, and others are served', async () => {
    await world.upstream('192.0.2.1', 'silent');
    await world.start(['192.0.2.1']);
    let over = false;
    const flood = world.raw(Array<string>(100).fill(query('example.org')), { patience: 3000 }).finally(() => (over = true));
    assert.deepEqual(data(await world.ask('db', 'A', { source: '10.1.0.3' })), ['10.1.0.3']);
    assert.equal(over, false);
    const told = (await flood).filter((reply) => reply !== null);
    assert.equal(told.length, 36);
    // each of them once or twice
    assert.ok([64, 128].includes((await world.received('192.0.2.1')).length));
  });

  it('a network comes and goes while it serves', async () => {
    await world.start();
    const other = { ...ALPHA, id: INSIDE, name: 'inside', gateways: ['10.3.0.1'], subnets: ['10.3.0.0/24'], internal: true };
    world.network(other);
    world.container('5', ['inner'], ['10.3.0.2'], { network: INSIDE });
    const from = { server: '10.3.0.1', source: '10.3.0.2', patience: 200 };
    for (const end = Date.now() + 2000; Date.now() < end && data(await world.ask('inner', 'A', from)) === undefined; );
    assert.deepEqual(data(await world.ask('inner', 'A', from)), ['10.3.0.2']);
    assert.equal(rcode(await world.ask('example.org', 'A', from)), 'NXDOMAIN');
    assert.equal(data(await world.ask('web', 'A', { ...from, source: '10.1.0.2' })), undefined);
    rmSync(join(world.service, `networks/${INSIDE}.json`));
    for (const end = Date.now() + 2000; Date.now() < end && (await world.raw([query('inner')], from))[0] !== 'refused'; );
    assert.deepEqual(await world.raw([query('inner')], from), ['refused']);
  });

  it('an address whose port another program has is served when that has ended', { timeout: 20_000 }, async () => {
    await world.order({ occupy: '10.1.0.1' });
    await world.start();
    assert.deepEqual(await world.order({ log: 'service' }), ['warn another program answers on this address: names of this network cannot be served']);
    assert.deepEqual(data(await world.ask('web', 'AAAA', { server: 'fd00:a::1', source: 'fd00:a::2' })), ['fd00:a::2']);
    await world.order({ free: '10.1.0.1' });
    for (const end = Date.now() + 8000; Date.now() < end && data(await world.ask('web', 'A', { patience: 100 })) === undefined; ) await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(data(await world.ask('web')), ['10.1.0.2']);
  });

  it('while one comes after the other there is no instant without an answer', async () => {
    const old = await world.start();
    let going = true;
    let asked = 0;
    const replies: (string | null)[] = [];
    const asking = (async () => {
      while (going) {
        replies.push(...(await world.raw([query('web')], { patience: 500 })));
        asked++;
      }
    })();
    for (let i = 0; i < 3; i++) {
      await world.start();
      await world.order({ stop: old + i });
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    // on a busy machine it takes longer to have asked often enough
    for (const end = Date.now() + 20_000; asked <= 50 && Date.now() < end; ) await new Promise((resolve) => setTimeout(resolve, 20));
    going = false;
    await asking;
    assert.ok(asked > 50, `${asked}`);
    assert.equal(replies.filter((reply) => reply === 'refused').length, 0);
    // what lies unread in a socket that is closed is asked again: a datagram may be lost
    assert.ok(replies.filter((reply) => reply === null).length <= 1);
  });
});

describe.skipIf(process.getuid?.() !== 0)('before the bridge is there', () => {
  it('it waits for the address', async () => {
    await open(undefined, '10.1.0.1');
    await world.start();
    assert.deepEqual(await world.raw([query('web')], { patience: 200 }).then(([reply]) => reply === 'refused' || reply === null), true);
    await world.inside('ip', 'addr', 'add', '10.1.0.1/24', 'dev', 'b0');
    for (const end = Date.now() + 2000; Date.now() < end && data(await world.ask('web', 'A', { patience: 100 })) === undefined; );
    assert.deepEqual(data(await world.ask('web')), ['10.1.0.2']);
    assert.deepEqual(await world.order({ log: 'service' }), []);
    await world.close();
  });
});
