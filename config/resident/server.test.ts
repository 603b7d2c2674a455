import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer as listen, type Server as Listener, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Frontend, type Invocation } from '@engine/core/contracts/frontend';
import { fail } from '@engine/core/errors';
import { type Frame } from '@engine/core/native';
import { createSyscalls, type Syscalls } from '@engine/native';
import { encodeFrame, FrameReader } from '@engine/native/frames';
import { LAUNCH, LAUNCH_VERSION, TERMINALS } from '@engine/native/launch';
import { encodeRequest, type LaunchRequest } from '@engine/native/launch-request';
import { createLog } from '../log.ts';
import { requestContext } from './context.ts';
import { createInstances, type Instances } from './instances.ts';
import { ownWorld } from './local.ts';
import { createServer, type Server } from './server.ts';

let folder: string;
let listener: Listener;
let server: Server;
let run: (invocation: Invocation, open: () => Promise<unknown>) => Promise<number>;
let peer: Syscalls['peer'];
let busy: string | undefined;
let instances: Instances;
const syscalls = createSyscalls();

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'engine-server-'));
  busy = undefined;
  peer = syscalls.peer;
  instances = createInstances({ open: () => Promise.reject(fail('ERR_STATE', 'no engine here')) });
  const frontend = { name: 'cli', features: new Set(), probe: () => ({ available: true, score: 1, reasons: [] }), run: (open, invocation) => run(invocation, open) } as Frontend;
  server = createServer({
    instances, calls: { ...syscalls, peer: (fd) => peer(fd) }, frontend: () => Promise.resolve(frontend), log: createLog({ level: 'silent', format: 'json' }), busyWith: () => busy, wake: async () => {},
  });
  listener = listen({ allowHalfOpen: true }, (socket) => void server.accept(socket));
  await new Promise<void>((resolve) => listener.listen(join(folder, 's'), resolve));
});
afterEach(async () => {
  await new Promise((resolve) => listener.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

/** The launcher, as far as it speaks. */
class Launcher {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  readonly closed: Promise<void>;
  #wake: () => void = () => {};
  constructor() {
    const reader = new FrameReader();
    this.socket = connect(join(folder, 's'));
    this.closed = new Promise((resolve) => this.socket.on('close', () => resolve()));
    this.socket.on('error', () => {});
    this.socket.on('data', (data: Buffer) => {
      this.frames.push(...reader.push(data));
      this.#wake();
    });
    this.socket.on('close', () => this.#wake());
  }
  send(type: number, argument = 0, payload: Uint8Array = new Uint8Array(0)): void {
    this.socket.write(encodeFrame(type, { argument, payload }));
  }
  request(request: Partial<LaunchRequest>, version: number = LAUNCH_VERSION): this {
    this.send(LAUNCH.request, version, encodeRequest({ argv: ['ps'], cwd: '/', env: {}, terminals: 0, rows: 0, cols: 0, world: ownWorld(), umask: 0o22, home: '', ...request }));
    return this;
  }
  async next(type: number): Promise<Frame> {
    for (;;) {
      const at = this.frames.findIndex((frame) => frame.type === type);
      if (at >= 0) return this.frames.splice(at, 1)[0] as Frame;
      if (this.socket.destroyed) throw new Error(`closed without frame ${type}`);
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
  text(type: number): string {
    return Buffer.concat(this.frames.filter((frame) => frame.type === type).map(({ payload }) => payload)).toString();
  }
}

describe('a request', () => {
  it('gets its words, its folder and its environment, and answers with output and a code', async () => {
    run = async ({ argv, cwd, env, stdout, stderr, umask, windowSize }) => {
      stderr.write('err');
      stdout.write(JSON.stringify({ argv, cwd, env, umask, isTTY: stdout.isTTY, windowSize }));
      return 7;
    };
    const launcher = new Launcher().request({ argv: ['--root', '/r', 'ps', '-a'], cwd: '/tmp', env: { A: 'b=c' }, umask: 0o77, terminals: TERMINALS.stdout, rows: 5, cols: 6 });
    expect((await launcher.next(LAUNCH.done)).argument).toBe(7);
    await launcher.closed;
    expect(JSON.parse(launcher.text(LAUNCH.output))).toEqual({ argv: ['ps', '-a'], cwd: '/tmp', env: { A: 'b=c' }, umask: 0o77, isTTY: true, windowSize: { rows: 5, cols: 6 } });
    expect(launcher.text(LAUNCH.error)).toBe('err');
  });
  it('is asked for its input only when somebody reads, and only so much', async () => {
    run = async ({ stdin }) => {
      let size = 0;
      for await (const chunk of stdin) size += (chunk as Buffer).length;
      return size === 600_000 ? 0 : 1;
    };
    const launcher = new Launcher().request({});
    for (let left = 600_000; left > 0; ) {
      const { argument } = await launcher.next(LAUNCH.want);
      expect(argument).toBeLessThanOrEqual(1 << 18);
      for (let allowed = Math.min(argument, left); allowed > 0; allowed -= 50_000, left -= Math.min(50_000, allowed + 50_000)) {
        launcher.send(LAUNCH.input, 0, Buffer.alloc(Math.min(50_000, allowed)));
      }
    }
    launcher.send(LAUNCH.inputEnd);
    expect((await launcher.next(LAUNCH.done)).argument).toBe(0);
  });
  it('that sends more than it may is cut off', async () => {
    run = () => new Promise(() => {});
    const launcher = new Launcher().request({});
    launcher.send(LAUNCH.input, 0, Buffer.alloc(1 << 20));
    await launcher.closed;
  });
  it('whose reader is slow holds its writer back', async () => {
    let written = 0;
    run = async ({ stdout }) => {
      for (let i = 0; i < 200; i++) {
        await new Promise((resolve) => stdout.write(Buffer.alloc(1 << 16), resolve));
        written++;
      }
      return 0;
    };
    const launcher = new Launcher();
    launcher.socket.pause();
    launcher.request({});
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(written).toBeLessThan(50);
    launcher.socket.resume();
    await launcher.next(LAUNCH.done);
    expect(written).toBe(200);
  });
  it('whose caller vanishes sees a closed pipe', async () => {
    const seen = Promise.withResolvers<unknown[]>();
    run = async ({ stdout, signal }) => {
      const error = await new Promise<NodeJS.ErrnoException>((resolve) => stdout.once('error', resolve));
      seen.resolve([error.code, signal?.aborted]);
      return 0;
    };
    const launcher = new Launcher().request({});
    await new Promise((resolve) => setTimeout(resolve, 50));
    launcher.socket.destroy();
    expect(await seen.promise).toEqual(['EPIPE', true]);
  });
  it('ends by a signal that nobody passes on', async () => {
    run = () => new Promise(() => {});
    const launcher = new Launcher().request({});
    launcher.send(LAUNCH.signal, 15);
    expect((await launcher.next(LAUNCH.done)).argument).toBe(143);
  });
  it('that fails unexpectedly is told so, and the next one is served', async () => {
    run = () => Promise.reject(new Error('boom'));
    const first = new Launcher().request({});
    expect((await first.next(LAUNCH.done)).argument).toBe(125);
    expect(first.text(LAUNCH.error)).toBe('engine: boom\n');
    run = () => {
      setImmediate(() => requestContext.getStore()?.fail(new Error('later')));
      return new Promise(() => {});
    };
    const second = new Launcher().request({});
    expect((await second.next(LAUNCH.done)).argument).toBe(125);
    run = () => Promise.resolve(0);
    expect((await new Launcher().request({}).next(LAUNCH.done)).argument).toBe(0);
  });
  it('gets a window that changes', async () => {
    run = async ({ stdout }) => {
      stdout.write('now ');
      await new Promise((resolve) => stdout.once('resize', resolve));
      stdout.write(`${stdout.rows} ${stdout.columns}`);
      return 0;
    };
    const launcher = new Launcher().request({ terminals: 7, rows: 1, cols: 1 });
    await launcher.next(LAUNCH.output);
    launcher.send(LAUNCH.resize, 0, Buffer.from([9, 0, 44, 1]));
    await launcher.next(LAUNCH.done);
    expect(launcher.text(LAUNCH.output)).toBe('9 300');
  });
});

describe('what is no request', () => {
  it.each([
    ['another frame', encodeFrame(LAUNCH.input, { payload: Buffer.from('x') })],
    ['half of one', encodeFrame(LAUNCH.request, { argument: LAUNCH_VERSION, payload: Buffer.alloc(20, 0xff) })],
    ['one that promises too much', Buffer.from([0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0, 1, 0, 0, 0])],
    ['one that is too long', Buffer.alloc(5 << 20)],
  ])('%s', async (_what, bytes) => {
    run = () => Promise.reject(new Error('called'));
    const launcher = new Launcher();
    launcher.socket.write(bytes);
    await launcher.closed;
    expect(launcher.text(LAUNCH.error)).not.toContain('called');
    expect(server.active).toBe(0);
  });
});

describe('what is served elsewhere', () => {
  it.each([
    ['another version', {}, LAUNCH_VERSION + 1],
    ['another world', { world: '1 2 3 4 5 6 7' }],
    ['plugin verbs', { argv: ['plugin', 'ls'] }],
    ['files of the caller itself', { argv: ['run', '--env-file', '/dev/fd/63', 'x'] }],
    ['files of the caller in a mount', { argv: ['run', '-v', '/proc/self/cwd:/x', 'x'] }],
    ['a folder of the caller itself', { cwd: '/proc/self/cwd' }],
    ['another installation', { home: '/somewhere/else' }],
  ] as [string, Partial<LaunchRequest>, number?][])('%s', async (_what, request, version) => {
    run = () => Promise.reject(new Error('called'));
    const launcher = new Launcher().request(request, version);
    await launcher.next(LAUNCH.local);
    await launcher.closed;
    expect(launcher.frames).toEqual([]);
  });
  it('everything, while code is being exchanged', async () => {
    busy = 'new code';
    expect((await new Launcher().request({}).next(LAUNCH.local)).payload.toString()).toBe('new code');
  });
  it('nothing at all for another user; root is one of those whom a user serves, in his own process', async () => {
    run = () => Promise.reject(new Error('called'));
    peer = () => ({ pid: 1, uid: 12345, gid: 0 });
    const launcher = new Launcher().request({});
    expect((await launcher.next(LAUNCH.done)).argument).toBe(125);
    expect(launcher.text(LAUNCH.error)).toContain('serves uid');
  });
});

it('tells those who wait when it ends', async () => {
  run = () => new Promise(() => {});
  const launcher = new Launcher().request({});
  await new Promise((resolve) => setTimeout(resolve, 50));
  await server.cancel('it was stopped');
  expect((await launcher.next(LAUNCH.done)).argument).toBe(125);
  expect(launcher.text(LAUNCH.error)).toBe('engine: it was stopped\n');
});
