/** An engined that does what a test says, and a launcher in an installation of its own whose Node is a shell script. */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, Socket, type Server } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Frame, type Spawner } from '@engine/core/native';
import { FRAME } from '@engine/core/plan';
import { encodeFrame, FrameReader } from './frames.ts';
import { LAUNCH, RELAY } from './launch.ts';
import { decodeRequest, type LaunchRequest } from './launch-request.ts';
import { decodeAnswer, encodeSpawn } from './launch-spawn.ts';
import { binaryFolder } from './binaries.ts';
import { createSyscalls } from './syscalls.ts';

/** Another build, with sanitizers for example, by ENGINE_TEST_LAUNCHER. */
export const launcherBinary = process.env.ENGINE_TEST_LAUNCHER ?? join(binaryFolder(), 'engine-launcher');
const syscalls = createSyscalls();

export async function until<T>(what: string, look: () => T | undefined | false | Promise<T | undefined | false>, limit = 10_000): Promise<T> {
  for (const end = Date.now() + limit; ; await sleep(5)) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > end) throw new Error(`waited too long for: ${what}`);
  }
}

type FrameOptions = { readonly session?: number; readonly argument?: number; readonly payload?: Uint8Array };

/** One end of a connection with frames. */
export class Peer {
  readonly frames: Frame[] = [];
  readonly socket: Socket;
  closed = false;
  #taken = 0;
  constructor(socket: Socket) {
    this.socket = socket;
    const reader = new FrameReader();
    socket.on('data', (data: Buffer) => this.frames.push(...reader.push(data)));
    socket.on('error', () => {});
    socket.on('close', () => (this.closed = true));
  }
  /** The next frame of this type that nobody has asked for. */
  async next(type: number): Promise<Frame> {
    return until(`a frame of type ${type}`, () => {
      const at = this.frames.findIndex((frame, i) => i >= this.#taken && frame.type === type);
      if (at < 0) return undefined;
      this.#taken = at + 1;
      return this.frames[at];
    });
  }
  /** All payloads of this type, joined. */
  bytes(type: number): Buffer {
    return Buffer.concat(this.frames.filter((frame) => frame.type === type).map(({ payload }) => payload));
  }
  send(type: number, options: FrameOptions = {}): boolean {
    return this.socket.write(encodeFrame(type, options));
  }
  end(): void {
    this.socket.destroy();
  }
}

/** A launcher's connection. */
export class Call extends Peer {
  readonly request: Promise<LaunchRequest>;
  constructor(socket: Socket) {
    super(socket);
    this.request = this.next(LAUNCH.request).then(({ payload }) => decodeRequest(payload));
    this.request.catch(() => {});
  }
  get fd(): number {
    return (this.socket as unknown as { _handle: { fd: number } })._handle.fd;
  }
  get pid(): number {
    return syscalls.peer(this.fd).pid;
  }
  out(text: string): void {
    this.send(LAUNCH.output, { payload: Buffer.from(text) });
  }
  done(code: number): void {
    this.send(LAUNCH.done, { argument: code });
  }
  /** How the relay ended, when the launcher says so. */
  async relayed(): Promise<number> {
    return (await this.next(LAUNCH.relayed)).argument;
  }
  /** Have it start something; its answer. */
  async spawn(request: Parameters<Spawner['spawn']>[0], adopt = false): Promise<ReturnType<typeof decodeAnswer>> {
    const { argument, payload, fds } = encodeSpawn(request, adopt);
    const frame = encodeFrame(LAUNCH.spawn, { argument, payload });
    const sent = syscalls.sendWithFds(this.fd, frame, fds);
    if (sent < frame.length) this.socket.write(frame.subarray(sent));
    return decodeAnswer(await this.next(LAUNCH.spawned));
  }
  /** Hand over one end of a socket; gives the other, as a shim has it. */
  relay(bits: readonly (keyof typeof RELAY)[], options: { readonly session?: number; readonly keys?: readonly number[] } = {}): Shim {
    const [ours, theirs] = syscalls.socketPair();
    const { session = 0, keys = [] } = options;
    const payload = Buffer.alloc(8 + keys.length);
    payload.writeUInt32LE(session, 0);
    payload.writeUInt32LE(keys.length, 4);
    payload.set(keys, 8);
    const frame = encodeFrame(LAUNCH.relay, { argument: bits.reduce((all, bit) => all | RELAY[bit], 0), payload });
    if (syscalls.sendWithFd(this.fd, frame, theirs) !== frame.length) throw new Error('the relay was not sent as a whole');
    syscalls.close(theirs);
    return new Shim(new Socket({ fd: ours, readable: true, writable: true }), session);
  }
}

export class Shim extends Peer {
  readonly session: number;
  constructor(socket: Socket, session: number) {
    super(socket);
    this.session = session;
    socket.resume();
  }
  output(stream: 1 | 2, text: string | Buffer): boolean {
    return this.send(FRAME.output, { session: this.session, argument: stream, payload: Buffer.from(text as string) });
  }
  exit(code: number, record: object = { code, oom: { killed: false } }): void {
    this.send(FRAME.exit, { session: this.session, argument: code, payload: Buffer.from(JSON.stringify(record)) });
  }
}

export interface Run {
  readonly child: ChildProcess;
  out: string;
  err: string;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
}

export class Installation {
  readonly folder = realpathSync(mkdtempSync(join(tmpdir(), 'engine-launcher-')));
  readonly home = join(this.folder, 'home');
  readonly program = join(this.home, 'bin/engine');
  readonly oci = join(this.home, 'bin/engine-oci');
  runRoot = join(this.folder, 'run');
  readonly calls: Call[] = [];
  readonly #runs: ChildProcess[] = [];
  #server: Server | undefined;
  #taken = 0;

  constructor() {
    const node = join(this.home, `node_modules/node-linux-${process.arch}/bin`);
    for (const path of [join(this.home, 'bin'), node, join(this.home, 'dist'), this.runRoot]) mkdirSync(path, { recursive: true });
    copyFileSync(launcherBinary, this.program);
    copyFileSync(launcherBinary, this.oci);
    // what it is given, as Node's program would get it
    writeFileSync(join(node, 'node'), '#!/bin/sh\necho "local: $*"\nexit ${LOCAL_CODE:-0}\n');
    chmodSync(join(node, 'node'), 0o755);
    writeFileSync(join(this.home, 'dist/start.cjs'), '');
  }

  get socket(): string {
    return join(this.runRoot, 'engined.sock');
  }
  env(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
    return { PATH: process.env.PATH, HOME: this.folder, ENGINE_RUN_ROOT: this.runRoot, ...more };
  }

  /** Serve as engined. */
  async listen(path = this.socket): Promise<void> {
    const server = createServer({ allowHalfOpen: false }, (socket) => this.calls.push(new Call(socket)));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(path, resolve));
    chmodSync(path, 0o600);
  }
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const call of this.calls) call.end();
    if (server) await new Promise((resolve) => server.close(resolve));
  }
  /** The next connection, once its request is there. */
  async call(): Promise<Call> {
    const call = await until('a connection', () => this.calls[this.#taken]);
    this.#taken++;
    await call.request;
    return call;
  }

  run(args: readonly string[], options: SpawnOptions & { readonly more?: NodeJS.ProcessEnv } = {}): Run {
    return this.exec(this.program, args, options);
  }
  exec(program: string, args: readonly string[], { more = {}, ...options }: SpawnOptions & { readonly more?: NodeJS.ProcessEnv } = {}): Run {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: this.env(more), ...options });
    this.#runs.push(child);
    child.stdin?.on('error', () => {});
    const run: Run = {
      child,
      out: '',
      err: '',
      ended: new Promise((resolve, reject) => {
        child.on('error', reject);
        child.on('close', (code, signal) => resolve({ code, signal }));
      }),
    };
    child.stdout?.on('data', (data: Buffer) => (run.out += data.toString()));
    child.stderr?.on('data', (data: Buffer) => (run.err += data.toString()));
    return run;
  }
  /** The same at a terminal of its own; the program is a shell's line. What is typed goes to the child's stdin, what is seen comes on its stdout. */
  terminal(line: string, more: NodeJS.ProcessEnv = {}): Run {
    return this.exec('script', ['-qec', line, '/dev/null'], { more: { TERM: 'xterm', SHELL: '/bin/sh', E: this.program, ...more } });
  }

  async close(): Promise<void> {
    for (const child of this.#runs) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Signals that have come to a process and that it has not taken. */
export const pendingSignals = (pid: number): bigint => BigInt(`0x${/^ShdPnd:\s*([0-9a-f]+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 'f'}`);
/** Letter of /proc/PID/stat. */
export function processState(pid: number): string | undefined {
  try {
    return /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];
  } catch {
    return undefined;
  }
}
export const signalNumber = (name: NodeJS.Signals): number => constants.signals[name];
