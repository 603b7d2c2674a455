import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { op } from '../plan/build.ts';
import { encodePlan } from '../plan/encode.ts';
import { ENTRY } from '../plan/entries.ts';
import { FRAME, RUN_FILES } from '../plan/protocol.ts';
import { type Slot } from '../plan/slots.ts';
import { BITS } from '../plan/table.ts';
import { type Operation } from '../plan/types.ts';
import { createFakeNative, type FakeNative } from './fake.ts';
import { type Frame, type ShimConnection } from './index.ts';

let folder: string;
let native: FakeNative;
beforeEach(() => {
  folder = fs.realpathSync(fs.mkdtempSync(join(tmpdir(), 'engine-fake-')));
  native = createFakeNative({ prefix: folder });
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

const encode = (...steps: [Slot, Operation][]): Uint8Array =>
  encodePlan({ steps: steps.map(([slot, operation]) => ({ slot, operation, undo: [], origin: { plugin: 'test', hook: 'test' } })) });
const write = (plan: Uint8Array): string => {
  const path = join(folder, 'plan');
  fs.writeFileSync(path, plan);
  return path;
};
function listen(connection: ShimConnection): { frames: Frame[]; until(type: number): Promise<Frame> } {
  const frames: Frame[] = [];
  const waiting: { type: number; resolve: (frame: Frame) => void }[] = [];
  connection.onFrame((frame) => {
    frames.push(frame);
    for (const each of waiting.filter((candidate) => candidate.type === frame.type)) each.resolve(frame);
  });
  return { frames, until: (type) => new Promise((resolve) => { const there = frames.find((frame) => frame.type === type); if (there) resolve(there); else waiting.push({ type, resolve }); }) };
}
async function helper(operations: Operation[], streams: number[] = []): Promise<Frame[]> {
  const connection = native.spawnShim({ mode: 'helper', plan: write(encode(...operations.map((operation): [Slot, Operation] => ['helper.main', operation]))), streams });
  const { frames } = listen(connection);
  await connection.closed;
  return frames;
}
const list = (): string[] => (fs.readdirSync(folder, { recursive: true }) as string[]).filter((name) => name !== 'plan').sort();
const at = (name: string): string => join(folder, name);

describe('fake helper', () => {
  it('does file operations below the prefix and records the others', async () => {
    const frames = await helper([
      op.mkdir({ path: at('a/b'), mode: 0o751, parents: 1 }),
      op.writeFile({ path: at('a/f'), data: Buffer.from('one'), how: BITS.WRITE.atomic, mode: 0o644 }),
      op.writeFile({ path: at('a/f'), data: Buffer.from('two'), how: BITS.WRITE.append }),
      op.symlink({ path: at('a/l'), target: 'f' }),
      op.link({ path: at('a/h'), target: at('a/f') }),
      op.open({ path: at('a'), flags: 0, out: 'dir' }),
      op.mkdir({ root: 'dir', path: '../../inside', mode: 0o700 }),
      op.mkdir({ path: at('copy'), mode: 0o755 }),
      op.copyTree({ from: at('a'), to: at('copy') }),
      op.rename({ from: at('a'), to: at('moved') }),
      op.removeTree({ path: at('nothing') }),
      op.rmdir({ path: at('nothing') }, { okMissing: true }),
      op.mkdir({ path: '/sys/fs/cgroup/x', mode: 0o755 }),
      op.setHostname({ name: 'x' }),
    ]);
    expect(frames.map((frame) => frame.type)).toEqual([FRAME.ok]);
    expect(list()).toEqual(['copy', 'copy/b', 'copy/f', 'copy/h', 'copy/inside', 'copy/l', 'moved', 'moved/b', 'moved/f', 'moved/h', 'moved/inside', 'moved/l'].sort());
    expect(fs.readFileSync(at('copy/f'), 'utf8')).toBe('onetwo');
    expect(fs.statSync(at('moved/b')).mode & 0o777).toBe(0o751);
    expect(native.operations.at(-1)).toMatchObject({ name: 'setHostname', part: 'helper', origin: { plugin: 'test' } });
  });

  it('unpacks a stream through a pipe', async () => {
    const entry = (kind: number, path: string, { mode = 0o644, size = 0, link = '' } = {}): Buffer => {
      const body = Buffer.alloc(40);
      body.writeUInt32LE(mode, 0);
      body.writeBigInt64LE(1_000_000_000n, 16);
      body.writeBigUInt64LE(BigInt(size), 24);
      const text = (value: string): Buffer => Buffer.concat([Buffer.from(Uint32Array.of(value.length).buffer), Buffer.from(value)]);
      return frame(kind, Buffer.concat([body, text(path), text(link)]));
    };
    const frame = (kind: number, body: Buffer): Buffer => {
      const head = Buffer.alloc(8);
      head.writeUInt8(kind, 0);
      head.writeUInt32LE(body.length, 4);
      return Buffer.concat([head, body]);
    };
    fs.mkdirSync(at('layer'));
    fs.writeFileSync(at('layer/gone'), '');
    const pipe = native.pipe();
    const done = helper([op.unpack({ path: at('layer'), stream: 'fd0' })], [pipe.read]);
    fs.closeSync(pipe.read);
    fs.writeSync(pipe.write, Buffer.concat([
      entry(ENTRY.folder, 'd', { mode: 0o700 }), entry(ENTRY.file, 'd/f', { size: 5, mode: 0o4755 }), frame(ENTRY.data, Buffer.from('hello')),
      entry(ENTRY.symlink, 's', { link: '/etc' }), entry(ENTRY.hardlink, 'h', { link: 'd/f' }), entry(ENTRY.whiteout, 'gone'),
    ]));
    await new Promise((resolve) => setTimeout(resolve, 5));
    fs.writeSync(pipe.write, frame(ENTRY.end, Buffer.alloc(0)));
    fs.closeSync(pipe.write);
    expect((await done).map((each) => each.type)).toEqual([FRAME.ok]);
    expect(fs.readdirSync(at('layer')).sort()).toEqual(['d', 'h', 's']);
    expect(fs.readFileSync(at('layer/h'), 'utf8')).toBe('hello');
    expect([fs.statSync(at('layer/d/f')).mode & 0o7777, fs.statSync(at('layer/d')).mtimeMs]).toEqual([0o4755, 1000]);
    expect(list().filter((name) => name.startsWith('.'))).toEqual([]);
  });

  it('fails and crashes where it is told to', async () => {
    native.failAt(1, { errno: 'ENOSPC' });
    const two = [op.mkdir({ path: at('a'), mode: 0o755 }), op.mkdir({ path: at('b'), mode: 0o755 })];
    expect((await helper(two)).map((frame) => frame.type)).toEqual([FRAME.failed, FRAME.error]);
    native.reset();
    fs.rmdirSync(at('a'));
    native.crashAt(0, { victim: 'shim', when: 'after' });
    expect(await helper(two)).toEqual([]);
    expect(list()).toEqual(['a']);
  });
});

describe('fake shim', () => {
  const program = async (argv: string[], more: [Slot, Operation][] = []): Promise<{ connection: ShimConnection; run: string }> => {
    const run = at('run');
    fs.mkdirSync(run);
    const lock = native.tryLock(join(run, 'lock'), { create: true });
    if (!lock) throw new Error('no lock');
    const connection = native.spawnShim({ mode: 'run', plan: write(encode(...more, ['init.exec', op.exec({ program: 'p', argv, env: [] })])), runFolder: run, lock });
    lock.release();
    await connection.send(FRAME.attach, { argument: 56 });
    return { connection, run };
  };

  it('plays a container: streams, exec, exit', async () => {
    const { connection, run } = await program(['cat']);
    const { until, frames } = listen(connection);
    await until(FRAME.started);
    expect(native.tryLock(join(run, 'lock'))).toBeUndefined();
    await connection.send(FRAME.exec, { session: 1, argument: 56, payload: encode(['exec.exec', op.exec({ program: 'p', argv: ['echo', 'hi'], env: [] })]) });
    expect((await until(FRAME.output)).payload.toString()).toBe('hi\n');
    expect(await until(FRAME.exit)).toMatchObject({ session: 1, argument: 0 });
    await connection.send(FRAME.stdin, { payload: Buffer.from('text') });
    await connection.send(FRAME.stdinEof);
    await connection.closed;
    expect(frames.filter((frame) => frame.session === 0).map((frame) => frame.type)).toEqual([FRAME.started, FRAME.output, FRAME.exit, FRAME.gone]);
    expect(fs.readdirSync(run).sort()).toEqual(['exit', 'lock', 'started', 'undone']);
    native.tryLock(join(run, 'lock'))?.release();
    await expect(native.connectShim(join(run, RUN_FILES.socket))).rejects.toMatchObject({ code: 'ERR_SHIM_GONE' });
  });

  it('waits at a barrier', async () => {
    const { connection, run } = await program(['true'], [['shim.attach', op.barrier({ handler: 'h', input: Buffer.from('{}'), deadline: 1000 })]]);
    const { until } = listen(connection);
    const { payload } = await until(FRAME.barrier);
    expect(payload.toString('utf8', 12, 13)).toBe('h');
    await connection.send(FRAME.barrierReply, { argument: 13 });
    await connection.closed;
    expect(fs.existsSync(join(run, RUN_FILES.failed))).toBe(true);
  });
});

describe('fake locks', () => {
  it('exclude each other by file, and are shared to those who ask', () => {
    const path = at('lock');
    const lock = native.tryLock(path);
    expect(native.tryLock(path)).toBeUndefined();
    expect(native.tryLock(path, { shared: true })).toBeUndefined();
    fs.renameSync(path, at('other'));
    expect(native.tryLock(path, { create: false })).toBeUndefined();
    expect(createFakeNative({ prefix: folder }).tryLock(at('other'))).toBeUndefined();
    const byte = native.tryLock(at('bytes'), { byte: 7 });
    expect(native.tryLock(at('bytes'), { byte: 7 })).toBeUndefined();
    expect(native.tryLock(at('bytes'), { byte: 8 })).toBeDefined();
    byte?.release();
    expect(native.tryLock(at('bytes'), { byte: 7 })).toBeDefined();
    lock?.release();
    lock?.release();
    const asked = native.tryLock(at('other'), { shared: true });
    expect(native.tryLock(at('other'), { shared: true })).toBeDefined();
    expect(asked).toBeDefined();
    native.die();
    expect(() => native.tryLock(path)).toThrow('dead');
    expect(native.restart().tryLock(at('other'))).toBeDefined();
  });
});

describe('a shim of the fake', () => {
  const steps = (command: string, flags = 0): Uint8Array => encode(
    ['shim.stdio', op.stdio({ flags })], ['shim.cgroup', op.mkdir({ path: join(folder, 'made'), mode: 0o700 })],
    ['init.pivot', op.pivotRoot({ root: 'root' })], ['init.exec', op.exec({ program: 'program', argv: [command, 'hi'], env: [] })],
    ['after.undo', op.rmdir({ path: join(folder, 'made') })],
  );
  const { stdin, attachStdin, attachStdout } = BITS.STDIO;

  it('gives the streams to the client that it is born with, the rest to the engine', async () => {
    const [mine, client] = native.socketPair();
    const end = listen(native.endOf(mine));
    const engine = listen(native.spawnShim({ mode: 'run', plan: write(steps('echo', attachStdout)), runFolder: folder, client, trace: true }));
    await engine.until(FRAME.gone);
    expect(end.frames.map(({ type }) => type)).toEqual([FRAME.output, FRAME.exit]);
    expect(engine.frames.map(({ type }) => type)).toEqual([FRAME.trace, FRAME.started, FRAME.exit, FRAME.trace, FRAME.gone]);
  });

  it('waits for its plan, adopts a client, and goes on', async () => {
    const connection = native.spawnShim({ mode: 'run', plan: write(steps('true')), runFolder: folder, pool: 1 });
    const engine = listen(connection);
    await engine.until(FRAME.prepared);
    expect(native.operations.map(({ name }) => name)).toEqual(['mkdir', 'pivotRoot']);
    const [mine, client] = native.socketPair();
    const launcher = native.endOf(mine);
    const end = listen(launcher);
    await launcher.send(FRAME.stdin, { payload: Buffer.from('early') });
    await launcher.send(FRAME.stdinEof);
    connection.adopt(client);
    await connection.send(FRAME.resume, { payload: steps('cat', stdin | attachStdin | attachStdout) });
    await engine.until(FRAME.gone);
    expect(end.frames.map(({ type, payload }) => (type === FRAME.output ? payload.toString() : type))).toEqual(['early', FRAME.exit]);
    expect(native.operations.map(({ name }) => name)).toEqual(['mkdir', 'pivotRoot', 'stdio', 'exec', 'rmdir']);
  });

  it('undoes what nobody came for', async () => {
    const connection = native.spawnShim({ mode: 'run', plan: write(steps('true')), runFolder: folder, pool: 1 });
    await listen(connection).until(FRAME.prepared);
    connection.close();
    await expect.poll(() => fs.existsSync(join(folder, RUN_FILES.undone))).toBe(true);
    expect(fs.existsSync(join(folder, 'made'))).toBe(false);
  });
});

describe('fake ports', () => {
  const hold = (address: number[], port: number): [Slot, Operation] => ['shim.links', op.holdPort({ protocol: 6, address: Buffer.from(address), port })];
  const run = (name: string, ...steps: [Slot, Operation][]): { frames: Frame[]; until(type: number): Promise<Frame>; connection: ShimConnection } => {
    fs.mkdirSync(at(name));
    fs.writeFileSync(at(`${name}/plan`), encode(...steps, ['init.exec', op.exec({ program: 'p', argv: ['sleep'], env: [] })]));
    const connection = native.spawnShim({ mode: 'run', plan: at(`${name}/plan`), runFolder: at(name) });
    return { ...listen(connection), connection };
  };

  it('are held by shims while their run lasts', async () => {
    const one = run('one', hold([0, 0, 0, 0], 80), hold(Array<number>(16).fill(0), 80));
    await one.until(FRAME.started);
    expect(native.isPortFree('tcp', '127.0.0.1', 80)).toBe(false);
    expect(native.isPortFree('tcp', '::1', 80)).toBe(false);
    expect(native.portHolder('tcp', '0:0:0:0:0:0:0:1', 80)).toBe('engine-shim');
    expect([native.isPortFree('udp', '127.0.0.1', 80), native.isPortFree('tcp', '127.0.0.1', 81)]).toEqual([true, true]);
    const two = run('two', hold([127, 0, 0, 1], 80));
    const { payload } = await two.until(FRAME.failed);
    expect(payload.toString()).toContain('tcp 127.0.0.1:80');
    await one.connection.send(FRAME.signal, { argument: 9 });
    await one.until(FRAME.exit);
    expect(native.isPortFree('tcp', '127.0.0.1', 80)).toBe(true);
  });

  it('are freed when a shim is killed, and can be taken by a test', async () => {
    const one = run('one', hold([127, 0, 0, 1], 80));
    await one.until(FRAME.started);
    native.killShim(at('one'));
    expect(native.isPortFree('tcp', '0.0.0.0', 80)).toBe(true);
    const giveBack = native.takePort('tcp', 80, 'nginx (pid 12)');
    expect(native.portHolder('tcp', '10.0.0.1', 80)).toBe('nginx (pid 12)');
    const two = run('two', hold([10, 0, 0, 1], 80));
    await two.until(FRAME.failed);
    giveBack();
    native.takePort('udp', 53, undefined, '127.0.0.1');
    expect([native.isPortFree('tcp', '::', 80), native.isPortFree('udp', '::', 53), native.isPortFree('udp', '0.0.0.0', 53)]).toEqual([true, true, false]);
  });
});
