import { execFileSync, fork, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { BITS, decodePlan, FRAME, op, step, type Step } from '@engine/core/plan';
import { addressBytes } from './addresses.ts';
import { CLONE_NEWNET } from './constants.ts';
import { decodeFailure } from './frames.ts';
import { createNative } from './index.ts';
import { portHolder, portText } from './ports.ts';
import { binaryFolder } from './binaries.ts';
import { Bench, bytesOf, unable, type Container, type Talk } from './testing.ts';

const native = createNative();
const slow = createNative({ shimPath: join(binaryFolder(), 'engine-shim-test') });
const { stdin, attachStdout } = BITS.STDIO;
const NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const;
const MiB = 1 << 20;

/** The processes of a shim that pass on. */
function relays(shim: number): number[] {
  try {
    return readFileSync(`/proc/${shim}/task/${shim}/children`, 'utf8').trim().split(' ').map(Number).filter((pid) => pid > 0 && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'engine-relay\n');
  } catch {
    return [];
  }
}
const alive = (pid: number): boolean => native.processStartTime(pid) !== undefined && !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

describe.skipIf(unable !== undefined)(`ports${unable ? ` (skipped: ${unable})` : ''}`, () => {
  let agent: ChildProcess;
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let next = 0;
  const call = <T = unknown>(command: string, ...args: unknown[]): Promise<T> => new Promise((resolve, reject) => {
    waiting.set(++next, { resolve: resolve as (value: unknown) => void, reject });
    agent.send({ id: next, command, args });
  });
  beforeAll(async () => {
    agent = fork(join(import.meta.dirname, 'ports-agent.ts'), [], { execPath: '/usr/bin/unshare', execArgv: ['-n', '--', process.execPath, '--disable-warning=ExperimentalWarning'] });
    agent.on('message', ({ id, value, error }: { id: number; value: unknown; error?: string }) => {
      const { resolve, reject } = waiting.get(id) ?? {};
      if (error === undefined) resolve?.(value);
      else reject?.(new Error(error));
    });
    await call('shell', 'ip link set lo up; ip address add 10.9.9.1/32 dev lo; ip -6 address add fd99::1/128 dev lo nodad');
  });
  afterAll(() => agent.kill('SIGKILL'));

  const benches: Bench[] = [];
  const bench = (with_ = native): Bench => {
    const made = new Bench(with_);
    benches.push(made);
    return made;
  };
  afterEach(async () => {
    for (const one of benches.splice(0)) await one.close();
    for (const port of [7000, 7001, 7002, 7003, 7004]) await call('stop', port);
  });
  const hold = (protocol: keyof typeof NUMBERS, address: string, port: number, to?: readonly [string, number]) => op.holdPort({
    protocol: NUMBERS[protocol], address: addressBytes(address), port, ...(to && { to: addressBytes(to[0]), toPort: to[1] }),
  });
  /** The shim, and so the ports, in the agent's network namespace. */
  const inside = (): Step[] => [step('shim.cgroup', op.openNamespace({ type: 'net', path: `/proc/${agent.pid}/ns/net`, out: 'world' })), step('shim.cgroup', op.joinNamespace({ fd: 'world', flags: CLONE_NEWNET }))];
  const container = (...ports: ReturnType<typeof hold>[]): Container => ({ argv: ['cat'], stdio: stdin, extra: [...inside(), ...ports.map((port) => step('shim.links', port))] });
  const start = async (ports: readonly ReturnType<typeof hold>[], with_ = native, env?: Record<string, string>): Promise<{ b: Bench; talk: Talk; shim: number }> => {
    const b = bench(with_);
    const talk = b.start(container(...ports), env);
    await talk.frame('started');
    return { b, talk, shim: b.shimPid() };
  };
  const end = async (talk: Talk): Promise<void> => {
    await talk.send('signal', { argument: 9 });
    await talk.frame('gone');
  };

  it('are held for the life of the run, by nobody but the shim', async () => {
    const { b, talk, shim } = await start([hold('tcp', '0.0.0.0', 8080), hold('tcp', '::', 8080), hold('udp', '10.9.9.1', 53), hold('tcp', '127.0.0.1', 8081, ['127.0.0.1', 7000])]);
    const pid = JSON.parse(b.file('started')).pid as number;
    expect(readdirSync(`/proc/${pid}/fd`).sort()).toEqual(['0', '1', '2']);
    await talk.send('exec', { session: 1, argument: attachStdout, payload: b.session(['sh', '-c', 'echo /proc/self/fd/*']) });
    await talk.frame('exit', 1);
    expect(talk.output(1, 1).trim().split(' ').length).toBeLessThanOrEqual(4);
    const free = (protocol: string, address: string, port: number): Promise<boolean> => call('isPortFree', protocol, address, port);
    for (const [protocol, address, port] of [['tcp', '0.0.0.0', 8080], ['tcp', '127.0.0.1', 8080], ['tcp', '::1', 8080], ['udp', '0.0.0.0', 53], ['udp', '10.9.9.1', 53], ['tcp', '0.0.0.0', 8081]] as const) {
      expect(await free(protocol, address, port), portText(protocol, address, port)).toBe(false);
      expect(await call('portHolder', protocol, address, port), portText(protocol, address, port)).toBe('engine-shim');
    }
    for (const [protocol, address, port] of [['udp', '0.0.0.0', 8080], ['udp', '127.0.0.1', 53], ['udp', '::', 53], ['tcp', '10.9.9.1', 8081], ['tcp', '::', 8081], ['sctp', '0.0.0.0', 8080]] as const) {
      expect(await free(protocol, address, port), portText(protocol, address, port)).toBe(true);
      expect(await call('portHolder', protocol, address, port)).toBe(null);
    }
    expect(alive(shim)).toBe(true);
    await talk.send('signal', { argument: 9 });
    await talk.frame('exit');
    // who hears of the exit may have them at once
    expect([await free('tcp', '0.0.0.0', 8080), await free('udp', '10.9.9.1', 53)]).toEqual([true, true]);
    await talk.frame('gone');
  });

  it('that are taken fail the start, by name, and it is undone', async () => {
    await call('serve', '127.0.0.1', 7000, 'echo');
    const b = bench();
    const talk = b.start(container(hold('tcp', '127.0.0.1', 7100), hold('tcp', '0.0.0.0', 7000)));
    expect(decodeFailure((await talk.frame('failed')).payload)).toMatchObject({ part: 0, errno: constants.errno.EADDRINUSE, detail: 'tcp 0.0.0.0:7000' });
    await talk.frame('gone');
    expect(await call('isPortFree', 'tcp', '127.0.0.1', 7100)).toBe(true);
    expect(await call('portHolder', 'tcp', '0.0.0.0', 7000)).toMatch(new RegExp(`^.+ \\(pid ${agent.pid}\\)$`));
    const other = bench();
    const elsewhere = other.start(container(hold('tcp', 'fd99::9', 80)));
    expect(decodeFailure((await elsewhere.frame('failed')).payload)).toMatchObject({ errno: constants.errno.EADDRNOTAVAIL, detail: 'tcp [fd99::9]:80' });
    await expect(call('isPortFree', 'tcp', 'fd99::9', 80)).rejects.toThrow('cannot bind tcp [fd99::9]:80');
  });

  it('of a kind that this kernel has no sockets for are a warning', async () => {
    const { talk } = await start([hold('sctp', '0.0.0.0', 8080)]);
    const warning = talk.frames.find(({ type }) => type === FRAME.warning);
    // where the kernel has SCTP the port is held instead
    if (warning) expect(decodeFailure(warning.payload).detail).toBe('sctp 0.0.0.0:8080 is not held: this kernel has no such sockets');
    else expect(await call('isPortFree', 'sctp', '0.0.0.0', 8080)).toBe(false);
  });

  it('are held by the hundred, with no more fds for the container than usual', { timeout: 30_000 }, async () => {
    const many = Array.from({ length: 500 }, (_, i) => [hold('tcp', '0.0.0.0', 20_000 + i, ['127.0.0.1', 7000]), hold('tcp', '::', 20_000 + i, ['127.0.0.1', 7000])]).flat();
    const plain = bench().start({ argv: ['sh', '-c', 'ulimit -n; ulimit -Hn'], stdio: attachStdout });
    await plain.frame('exit');
    await call('serve', '127.0.0.1', 7000, 'talk');
    const b = bench();
    const talk = b.start({ ...container(...many), argv: ['sh', '-c', 'ulimit -n; ulimit -Hn; read x'], stdio: stdin | attachStdout });
    await talk.until(() => talk.output().split('\n').length === 3, 'the limits');
    expect(talk.output()).toBe(plain.output());
    expect(readdirSync(`/proc/${b.shimPid()}/fd`).length).toBeGreaterThan(1000);
    expect(await call('say', '::1', 20_499, 'x')).toBe('early late x');
    await talk.send('exec', { session: 1, argument: attachStdout, payload: b.session(['sh', '-c', 'ulimit -n; ulimit -Hn']) });
    await talk.frame('exit', 1);
    expect(talk.output(1, 1)).toBe(plain.output());
    await end(talk);
    expect(await call('isPortFree', 'tcp', '0.0.0.0', 20_499)).toBe(true);
  });

  it.each(['::1', '127.0.0.1', 'fd99::1'])('pass on what reaches them at %s, whole, in both directions', { timeout: 30_000 }, async (host) => {
    const { talk, shim } = await start([hold('tcp', '0.0.0.0', 8080, ['10.9.9.1', 7001]), hold('tcp', '::', 8080, ['10.9.9.1', 7001])]);
    await call('serve', '10.9.9.1', 7001, 50 * MiB);
    const client = await call<{ sent: string; received: number; digest: string }>('exchange', host, 8080, 50 * MiB, true);
    const [server] = await call<{ sent: string; received: number; digest: string }[]>('results');
    expect(client.received).toBe(50 * MiB);
    expect({ sent: server?.sent, digest: server?.digest }).toEqual({ sent: client.digest, digest: client.sent });
    await expect.poll(() => relays(shim)).toEqual([]);
    await end(talk);
  });

  it('do so without splice as well, as SCTP needs it', { timeout: 30_000 }, async () => {
    await start([hold('tcp', '127.0.0.1', 8080, ['10.9.9.1', 7001])], slow, { ENGINE_RELAY_COPY: '1' });
    await call('serve', '10.9.9.1', 7001, 20 * MiB);
    const client = await call<{ sent: string; received: number; digest: string }>('exchange', '127.0.0.1', 8080, 20 * MiB, true);
    const [server] = await call<{ sent: string; received: number; digest: string }[]>('results');
    expect({ sent: server?.sent, digest: server?.digest }).toEqual({ sent: client.digest, digest: client.sent });
  });

  it('keep a half-closed connection open, and reset what cannot be had', async () => {
    const { talk, shim } = await start([hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7002]), hold('tcp', '127.0.0.1', 8081, ['127.0.0.1', 7003]), hold('tcp', '127.0.0.1', 8082)]);
    await call('serve', '127.0.0.1', 7002, 'talk');
    expect(await call('say', '127.0.0.1', 8080, 'words')).toBe('early late words');
    expect(await call('fate', '127.0.0.1', 8081, '')).toBe('ECONNRESET'); // nobody listens behind it
    expect(await call('fate', '127.0.0.1', 8082, '')).toBe('ECONNRESET'); // nobody is behind it
    await call('serve', '127.0.0.1', 7003, 'reset');
    expect(await call('fate', '127.0.0.1', 8081, 'x')).toBe('ECONNRESET');
    await expect.poll(() => relays(shim)).toEqual([]);
    // idle for a while without a wake-up of the shim or the relay
    await call('open', '127.0.0.1', 8080, 1);
    await expect.poll(() => relays(shim).length).toBe(1);
    const ticks = (pid: number): string => readFileSync(`/proc/${pid}/status`, 'utf8').match(/^voluntary_ctxt_switches:.*$/m)?.[0] ?? '';
    await sleep(200);
    const before = [shim, ...relays(shim)].map(ticks);
    await sleep(500);
    expect([shim, ...relays(shim)].map(ticks)).toEqual(before);
    await end(talk);
  });

  it('pass urgent bytes on as any other, and wait in peace after them', async () => {
    const { shim } = await start([hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7000])]);
    await call('serve', '127.0.0.1', 7000, 'echo');
    const script = 'socket(S, PF_INET, SOCK_STREAM, 0); connect(S, sockaddr_in(8080, inet_aton("127.0.0.1"))) or die; syswrite(S, "a"); send(S, "b", MSG_OOB); select(undef, undef, undef, 0.3); syswrite(S, "c"); shutdown(S, 1); $| = 1; print while <S>';
    const said = call<string>('shell', `perl -MSocket -e '${script}'`);
    expect(await said).toBe('abc');
    await expect.poll(() => relays(shim)).toEqual([]);
    const idle = call<string>('shell', `perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); connect(S, sockaddr_in(8080, inet_aton("127.0.0.1"))); send(S, "b", MSG_OOB); select(undef, undef, undef, 0.6)'`);
    await expect.poll(() => relays(shim).length).toBe(1);
    await sleep(300);
    const [, , , , , , , , , , , user, system] = readFileSync(`/proc/${relays(shim)[0]}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
    expect(Number(user) + Number(system)).toBeLessThan(10); // of 30 ticks
    expect(await idle).toBe('');
  });

  it('take 200 connections at once, and forget them when they end', async () => {
    const { shim } = await start([hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7000])]);
    await call('serve', '127.0.0.1', 7000, 'echo');
    expect(await call('crowd', '127.0.0.1', 8080, 200)).toBe(200);
    await expect.poll(() => relays(shim)).toEqual([]);
  });

  it('let connections wait that are too many', async () => {
    const { shim } = await start([hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7000])], slow, { ENGINE_MAX_RELAYS: '5' });
    await call('serve', '127.0.0.1', 7000, 'echo');
    expect(await call('crowd', '127.0.0.1', 8080, 40)).toBe(40);
    await call('open', '127.0.0.1', 8080, 8);
    await expect.poll(() => relays(shim).length).toBe(5);
    const late = call('say', '127.0.0.1', 8080, 'late');
    await sleep(50);
    expect(relays(shim).length).toBe(5);
    await call('stop', 9999); // the open ones end
    expect(await late).toBe('late');
  });

  it('take connections again that came while there was no fd for them', async () => {
    const { shim } = await start([hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7000])]);
    await call('serve', '127.0.0.1', 7000, 'echo');
    const used = Math.max(...readdirSync(`/proc/${shim}/fd`).map(Number)) + 1;
    execFileSync('prlimit', ['--pid', String(shim), `--nofile=${used}:`]);
    const waiter = call('say', '127.0.0.1', 8080, 'patience');
    await sleep(300);
    expect(relays(shim)).toEqual([]);
    execFileSync('prlimit', ['--pid', String(shim), '--nofile=1024:']);
    expect(await waiter).toBe('patience');
  });

  it.each([['127.0.0.1', '127.0.0.1'], ['10.9.9.1', '10.9.9.1'], ['::1', '::1'], ['fd99::1', 'fd99::1']])('answer datagrams from the address that was asked: %s', async (host, from) => {
    const { talk, shim } = await start([hold('udp', '0.0.0.0', 8053, ['127.0.0.1', 7053]), hold('udp', '::', 8053, ['127.0.0.1', 7053])]);
    await call('serveDatagrams', '127.0.0.1', 7053);
    const texts = ['one', 'two', 'x'.repeat(9000)];
    const [a, b] = await Promise.all([0, 1].map(() => call<{ text: string; from: string }[]>('ask', host, 8053, texts)));
    for (const answers of [a ?? [], b ?? []]) {
      expect(answers.map(({ text }) => text.replace(/^\d+ /, ''))).toEqual(texts);
      expect(new Set(answers.map((answer) => answer.from))).toEqual(new Set([`${from} 8053`]));
      // one socket for each client, the same for all it says
      expect(new Set(answers.map(({ text }) => text.split(' ')[0])).size).toBe(1);
    }
    expect(a?.[0]?.text).not.toBe(b?.[0]?.text);
    expect(relays(shim).length).toBe(1);
    await talk.send('signal', { argument: 9 });
    await talk.frame('exit');
    expect(await call('isPortFree', 'udp', '0.0.0.0', 8053)).toBe(true);
  });

  it('forget clients that are silent, the oldest when there are too many', { timeout: 30_000 }, async () => {
    const { shim } = await start([hold('udp', '127.0.0.1', 8053, ['127.0.0.1', 7053])], slow, { ENGINE_FLOW_IDLE: '1500' });
    await call('serveDatagrams', '127.0.0.1', 7053);
    expect(await call('askers', '127.0.0.1', 8053, 1300)).toBe(1300);
    const [relay = 0] = relays(shim);
    expect(readdirSync(`/proc/${relay}/fd`).length).toBeLessThan(1024 + 8);
    await expect.poll(() => relays(shim), { timeout: 8000 }).toEqual([]);
    expect(await call('ask', '127.0.0.1', 8053, ['again'])).toHaveLength(1);
    expect(relays(shim)).not.toEqual([relay]);
  });

  it('leave nobody behind when the shim is killed', async () => {
    const { b, talk, shim } = await start([hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7000]), hold('udp', '127.0.0.1', 8053, ['127.0.0.1', 7053])]);
    await call('serve', '127.0.0.1', 7000, 'echo');
    await call('serveDatagrams', '127.0.0.1', 7053);
    await call('open', '127.0.0.1', 8080, 10);
    await call('ask', '127.0.0.1', 8053, ['x']);
    await expect.poll(() => relays(shim).length).toBe(11);
    const all = relays(shim);
    // they have nothing of the shim's: no lock, no folder, no socket of it
    for (const pid of all) expect(readdirSync(`/proc/${pid}/fd`).length).toBeLessThan(12);
    process.kill(shim, 'SIGKILL');
    await talk.connection.closed;
    expect(native.tryLock(join(b.run, 'lock'), { create: false })).toBeDefined();
    await expect.poll(() => all.filter(alive)).toEqual([]);
    expect(await call('isPortFree', 'udp', '127.0.0.1', 8053)).toBe(true);
    await b.other('undo', readFileSync(join(b.run, 'plan'))).frame('ok');
  });

  it('end their connections with the run, before it is gone', async () => {
    const { talk, shim } = await start([hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7000])]);
    await call('serve', '127.0.0.1', 7000, 'echo');
    await call('open', '127.0.0.1', 8080, 50);
    await expect.poll(() => relays(shim).length).toBe(50);
    const all = relays(shim);
    await talk.send('signal', { argument: 9 });
    await talk.frame('exit');
    expect(all.filter(alive)).toEqual([]);
  });

  it.each(['shim.links', 'shim.started'] as const)('of a sandbox that was prepared, in slot %s', async (slot) => {
    await call('serve', '127.0.0.1', 7002, 'talk');
    const b = bench();
    const steps = (argv: readonly string[]): Step[] => b.steps({ argv, stdio: stdin, extra: [...inside(), step(slot, hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7002]))] });
    const guess = bytesOf(steps(['guess']));
    const talk = b.startPlan(guess, undefined, { pool: decodePlan(guess).steps.filter(({ part }) => part === 'init').findIndex(({ operation }) => operation.name === 'pipes') });
    await talk.frame('prepared');
    expect(await call('isPortFree', 'tcp', '127.0.0.1', 8080)).toBe(slot === 'shim.started');
    const plan = bytesOf(steps(['cat']));
    writeFileSync(join(b.run, 'plan'), plan);
    await talk.send('resume', { payload: plan });
    await talk.frame('started');
    expect(await call('say', '127.0.0.1', 8080, 'words')).toBe('early late words');
    const pid = JSON.parse(b.file('started')).pid as number;
    expect(readdirSync(`/proc/${pid}/fd`).sort()).toEqual(['0', '1', '2']);
    await end(talk);
    expect(await call('isPortFree', 'tcp', '127.0.0.1', 8080)).toBe(true);
  });

  it('stay with a shim that is as small as before', async () => {
    const pss = (pid: number): number => Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
    const { shim } = await start([hold('tcp', '127.0.0.1', 8080, ['127.0.0.1', 7000])]);
    await expect.poll(() => pss(shim), { timeout: 5000 }).toBeLessThanOrEqual(120);
    await call('serve', '127.0.0.1', 7000, 'echo');
    await call('open', '127.0.0.1', 8080, 1);
    await expect.poll(() => relays(shim).length).toBe(1);
    expect(pss(relays(shim)[0] ?? 0)).toBeLessThan(150);
  });

  it('are free although connections of a former owner have not quite ended', async () => {
    await call('serve', '127.0.0.1', 7004, 10);
    await call('exchange', '127.0.0.1', 7004, 10, false); // the server ends it, and so has to wait
    await call('results');
    await call('stop', 7004);
    expect(await call('shell', 'grep -cE ": 0100007F:1B5C [0-9A-F:]+ 06 " /proc/net/tcp')).toBe('1\n');
    expect(await call('isPortFree', 'tcp', '127.0.0.1', 7004)).toBe(true);
  });
});

describe('who has a port', () => {
  const folder = mkdtempSync(join(tmpdir(), 'engine-proc-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';
  const line = (local: string, state: string, inode: number): string => `   0: ${local} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000     0        0 ${inode} 1 0000000000000000 100 0 0 10 0\n`;
  mkdirSync(join(folder, 'net/sctp'), { recursive: true });
  const sockets: [pid: number, name: string, inodes: number[]][] = [[12, 'nginx', [1, 2]], [13, 'curl', [3]], [14, 'engine-shim', [4]], [15, 'engine-relay', [5]], [16, 'a b)c', [6, 7]]];
  for (const [pid, name, inodes] of sockets) {
    mkdirSync(join(folder, String(pid), 'fd'), { recursive: true });
    writeFileSync(join(folder, String(pid), 'comm'), `${name}\n`);
    inodes.forEach((inode, fd) => symlinkSync(`socket:[${inode}]`, join(folder, String(pid), 'fd', String(fd))));
  }
  writeFileSync(join(folder, 'net/tcp'), `${head}${line('0100007F:0050', '0A', 1)}${line('0101A8C0:0050', '01', 3)}${line('0101A8C0:1F90', '06', 0)}${line('00000000:0016', '0A', 4)}`);
  writeFileSync(join(folder, 'net/tcp6'), `${head}${line('00000000000000000000000000000000:01BB', '0A', 2)}${line('0000000000000000FFFF00000100007F:0051', '0A', 6)}`);
  writeFileSync(join(folder, 'net/udp6'), `${head}${line('B80D0120000000000000000001000000:0035', '07', 5)}`);
  writeFileSync(join(folder, 'net/sctp/eps'), ' ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\nffff ffff 2   10  29   2905  0 7 10.0.0.1 2001:db8::1 \n');
  it.each([
    ['tcp', '0.0.0.0', 80, 'nginx (pid 12)'], ['tcp', '127.0.0.1', 80, 'nginx (pid 12)'], ['tcp', '192.168.1.1', 80, 'curl (pid 13)'], ['tcp', '10.0.0.1', 80, undefined], ['tcp', '::', 80, undefined],
    ['tcp', '192.168.1.1', 8080, undefined], ['tcp', '10.0.0.1', 22, 'engine-shim'], ['tcp', '::1', 443, 'nginx (pid 12)'], ['tcp', '10.0.0.1', 443, 'nginx (pid 12)'], ['tcp', '127.0.0.1', 81, 'a b)c (pid 16)'],
    ['tcp', '10.0.0.1', 81, undefined], ['udp', '2001:db8::1', 53, 'engine-shim'], ['udp', '2001:db8::2', 53, undefined], ['udp', '::', 53, 'engine-shim'], ['udp', '0.0.0.0', 53, undefined],
    ['sctp', '0.0.0.0', 2905, 'a b)c (pid 16)'], ['sctp', '2001:db8::1', 2905, 'a b)c (pid 16)'], ['sctp', '10.0.0.2', 2905, undefined],
  ] as const)('%s %s %d: %s', (protocol, address, port, expected) => expect(portHolder(protocol, address, port, folder)).toBe(expected));
});
