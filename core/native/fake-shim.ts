import * as fs from 'node:fs';
import { join } from 'node:path';
import { decodePlan, type DecodedStep } from '../plan/decode.ts';
import { FRAME, RUN_FILES } from '../plan/protocol.ts';
import { parts, type Part } from '../plan/slots.ts';
import { type FakeFrame, type FakePeer } from './fake-connection.ts';
import { errnoNumber } from './fake-operations.ts';
import { type Frame } from './index.ts';

/** The user's program, played by a test. */
export interface FakeProgram {
  readonly argv: readonly string[];
  readonly env: readonly string[];
  /** 0 for init, else the exec session's number. */
  readonly session: number;
  write(stream: 'stdout' | 'stderr', data: string | Uint8Array): void;
  /** Everything written to stdin, once it has ended. */
  readonly stdin: Promise<Buffer>;
  /** Resolves with the first signal; without anybody asking, a signal ends the program. */
  signalled(): Promise<number>;
}
/** The program's exit code. */
export type RunProgram = (program: FakeProgram) => number | Promise<number>;

/** `true`, `false`, `echo …` and `cat` do what one expects; everything else runs until it is signalled. */
export const defaultProgram: RunProgram = async (program) => {
  const [name = '', ...rest] = program.argv;
  switch (name.slice(name.lastIndexOf('/') + 1)) {
    case 'true': return 0;
    case 'false': return 1;
    case 'echo': return program.write('stdout', `${rest.join(' ')}\n`), 0;
    case 'cat': return program.write('stdout', await program.stdin), 0;
    default: return new Promise<number>(() => {});
  }
};

/** How a shim does one operation; throws an error with a `code`. Null: the shim was killed at this operation. */
export type Perform = (step: DecodedStep, part: Part) => Promise<'done' | null>;

export class Session {
  readonly id: number;
  readonly #stdin: Buffer[] = [];
  #stdinDone: (all: Buffer) => void = () => {};
  #onSignal: ((signal: number) => void) | undefined;
  #end: (end: { code: number; signal: number }) => void = () => {};
  readonly ended: Promise<{ code: number; signal: number }>;
  readonly program: FakeProgram;
  exitPayload: Buffer | undefined;
  exitCode = 0;

  constructor(id: number, step: DecodedStep, write: FakeProgram['write'], run: RunProgram) {
    this.id = id;
    this.ended = new Promise((resolve) => (this.#end = resolve));
    this.program = {
      session: id,
      argv: (step.operation.args['argv'] as string[] | undefined) ?? [],
      env: (step.operation.args['env'] as string[] | undefined) ?? [],
      write,
      stdin: new Promise((resolve) => (this.#stdinDone = resolve)),
      signalled: () => new Promise((resolve) => (this.#onSignal = resolve)),
    };
    setImmediate(() => void Promise.resolve(run(this.program)).then((code) => this.#end({ code, signal: 0 })));
  }
  input(data: Buffer): void { this.#stdin.push(data); }
  endInput(): void { this.#stdinDone(Buffer.concat(this.#stdin)); }
  signal(signal: number): void {
    if (this.#onSignal && signal !== 9) this.#onSignal(signal);
    else this.#end({ code: 128 + signal, signal });
  }
}

export const failure = (step: DecodedStep, part: Part, error: unknown): { payload: Buffer; json: { part: string; index: number; errno: number; detail: string } } => {
  const { code = 'EIO', message } = error as NodeJS.ErrnoException;
  const detail = message === code ? '' : message;
  const text = Buffer.from(detail);
  const payload = Buffer.alloc(16 + text.length);
  payload.writeUInt32LE(parts.indexOf(part), 0);
  payload.writeUInt32LE(step.index, 4);
  payload.writeInt32LE(errnoNumber(code), 8);
  payload.writeUInt32LE(text.length, 12);
  text.copy(payload, 16);
  return { payload, json: { part, index: step.index, errno: errnoNumber(code), detail } };
};
/** As `started` frames have it: 1. */
export const startTime = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
/** Up to awaitStart. */
function beforeStart(plan: Uint8Array): (step: DecodedStep, i: number) => boolean {
  const last = decodePlan(plan).steps.filter(({ part }) => part === 'init').findIndex(({ operation }) => operation.name === 'awaitStart');
  return (_step, i) => i <= last;
}
const nowNs = (): string => String(BigInt(Date.now()) * 1_000_000n);

/** A shim without processes: it obeys the protocol and keeps the files of its run's folder. */
export class FakeShim {
  readonly #folder: string;
  readonly #perform: Perform;
  readonly #program: RunProgram;
  readonly #release: () => void;
  readonly #freePorts: () => void;
  readonly #clients = new Set<FakePeer>();
  readonly #attached = new Map<number, Set<FakePeer>>();
  /** Who gets the streams of what a client attaches, undefined: one that has gone. */
  readonly #streams = new Map<FakePeer, FakePeer | undefined>();
  readonly #relays = new Set<FakePeer>();
  readonly #pool: number | undefined;
  readonly #trace: boolean;
  readonly #entries: Buffer[] = [];
  readonly #owner: object;
  readonly #handOver: ((plan: Uint8Array) => void) | undefined;
  #abandoned = false;
  #resume: ((plan: Uint8Array | undefined) => void) | undefined;
  readonly #sessions = new Map<number, Session>();
  readonly #pid: number;
  #plan: Uint8Array;
  #barrier: ((reply: Frame) => void) | undefined;
  dead = false;

  constructor(options: {
    folder: string; plan: Uint8Array; pid: number; perform: Perform; program: RunProgram; release: () => void; freePorts: () => void; pool: number | undefined; trace: boolean;
    /** Whose control connection it is. */
    owner: object;
    /** What becomes of init when it is handed over. */
    handOver?: ((plan: Uint8Array) => void) | undefined;
  }) {
    this.#folder = options.folder;
    this.#plan = options.plan;
    this.#pid = options.pid;
    this.#perform = options.perform;
    this.#program = options.program;
    this.#release = options.release;
    this.#freePorts = options.freePorts;
    this.#pool = options.pool;
    this.#trace = options.trace;
    this.#owner = options.owner;
    this.#handOver = options.handOver;
  }

  connect(peer: FakePeer, handed?: { client: FakePeer | undefined }): void {
    this.#clients.add(peer);
    if (handed) this.#adopt(peer, handed.client);
    peer.onFrame((frame) => void this.#receive(peer, frame));
    if (this.#pool !== undefined) void peer.whenClosed.then(() => this.#resume?.(undefined));
  }
  /** This engine has been killed: what only waits for it ends. */
  abandon(owner: object): void {
    if (owner !== this.#owner) return;
    this.#abandoned = true;
    this.#resume?.(undefined);
  }
  #adopt(owner: FakePeer, relay: FakePeer | undefined): void {
    this.#streams.set(owner, relay);
    if (relay) this.#relays.add(relay);
  }
  /** Output goes to `peer` or to who was adopted for it, which is heard from then on. */
  #attach(id: number, peer: FakePeer): void {
    const to = this.#streams.has(peer) ? this.#streams.get(peer) : peer;
    if (!to) return;
    this.#attached.set(id, (this.#attached.get(id) ?? new Set()).add(to));
    if (to !== peer) to.onFrame((frame) => void this.#receive(to, frame));
  }
  /** SIGKILL: the lock is free, nothing is written. */
  kill(): void {
    this.dead = true;
    this.#freePorts();
    for (const client of [...this.#clients, ...this.#relays]) client.close();
    this.#release();
  }

  #broadcast(type: number, frame: { session?: number; argument?: number; payload?: Uint8Array }): void {
    if (this.dead) return;
    for (const client of this.#clients) client.send(type, frame);
    for (const relay of type === FRAME.exit ? (this.#attached.get(frame.session ?? 0) ?? []) : []) if (this.#relays.has(relay)) relay.send(type, frame);
  }
  /** An operation as it is told of, whatever becomes of it. */
  async #timed<T>(step: DecodedStep, work: () => Promise<T>): Promise<T> {
    const begin = process.hrtime.bigint();
    try {
      return await work();
    } finally {
      const entry = Buffer.alloc(24);
      entry.writeUInt32LE(parts.indexOf(step.part), 0);
      entry.writeUInt32LE(step.index, 4);
      entry.writeBigUInt64LE(begin, 8);
      entry.writeBigUInt64LE(process.hrtime.bigint(), 16);
      this.#entries.push(entry);
    }
  }
  #tellTrace(): void {
    if (this.#trace) this.#broadcast(FRAME.trace, { payload: Buffer.concat(this.#entries.splice(0)) });
  }
  #output(session: number, stream: number, data: string | Uint8Array): void {
    for (const client of this.#attached.get(session) ?? []) client.send(FRAME.output, { session, argument: stream, payload: Buffer.from(data) });
  }
  #start(id: number, step: DecodedStep): Session {
    const session = new Session(id, step, (stream, data) => this.#output(id, stream === 'stdout' ? 1 : 2, data), this.#program);
    this.#sessions.set(id, session);
    this.#broadcast(FRAME.started, { session: id, argument: this.#pid + id, payload: startTime });
    return session;
  }
  #write(file: string, value: unknown): void {
    const path = join(this.#folder, file);
    fs.writeFileSync(`${path}.tmp`, JSON.stringify(value));
    fs.renameSync(`${path}.tmp`, path);
  }

  /** Undefined when all went well, null when the shim was killed. */
  async #runPart(plan: Uint8Array, part: Part, wanted: (step: DecodedStep, i: number) => boolean = () => true): Promise<{ step: DecodedStep; error: unknown } | null | undefined> {
    for (const step of decodePlan(plan).steps.filter((candidate) => candidate.part === part).filter(wanted)) {
      try {
        if (step.operation.name === 'barrier') await this.#timed(step, () => this.#waitAtBarrier(step));
        else if ((await this.#timed(step, () => this.#perform(step, part))) === null) return null;
      } catch (error) {
        if (!step.operation.flags?.optional) return { step, error };
        this.#broadcast(FRAME.warning, { payload: failure(step, part, error).payload });
      }
      if (this.dead) return null;
    }
    return undefined;
  }
  async #waitAtBarrier(step: DecodedStep): Promise<void> {
    const handler = Buffer.from(String(step.operation.args['handler']));
    const input = Buffer.from((step.operation.args['input'] as Uint8Array | undefined) ?? []);
    const head = (...values: number[]): Buffer => Buffer.concat(values.map((value) => (value = value >>> 0, Buffer.from([value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24]))));
    const reply = new Promise<Frame>((resolve) => (this.#barrier = resolve));
    this.#broadcast(FRAME.barrier, { payload: Buffer.concat([head(step.index, this.#pid, handler.length), handler, head(input.length), input]) });
    const { argument } = await reply;
    if (argument !== 0) throw Object.assign(new Error('the barrier was refused'), { code: 'ECANCELED' });
  }

  /** From the plan to the end of its undo. */
  async run(): Promise<void> {
    const common = this.#pool ?? 0;
    const late = (step: DecodedStep): boolean => step.operation.name === 'stdio' || step.slot === 'shim.started';
    const waited = this.#pool !== undefined;
    type Phase = readonly [part: Part | 'wait', wanted?: ((step: DecodedStep, i: number) => boolean) | undefined];
    const phases: Phase[] = waited
      ? [['shim', (step) => !late(step)], ['stage'], ['init', (_step, i) => i < common], ['wait'], ['shim', late], ['init', (_step, i) => i >= common]]
      : [['shim'], ['stage'], ['init', this.#handOver ? beforeStart(this.#plan) : undefined]];
    for (const [part, wanted] of phases) {
      if (part === 'wait') {
        if (!(await this.#waitForPlan())) return this.dead ? undefined : this.#finish();
        continue;
      }
      const problem = await this.#runPart(this.#plan, part, wanted);
      if (problem === null) return this.kill();
      if (problem) {
        const { payload, json } = failure(problem.step, part, problem.error);
        this.#freePorts();
        this.#write(RUN_FILES.failed, json);
        this.#tellTrace();
        this.#broadcast(FRAME.failed, { payload });
        return this.#finish();
      }
    }
    const startedAt = nowNs();
    if (this.#handOver) {
      // nobody would know of it
      if (this.#abandoned || [...this.#clients].every((client) => client.closed)) return this.#finish();
      this.#write(RUN_FILES.started, { pid: this.#pid, startTime: 1, startedAt });
      this.#handOver(this.#plan);
      this.#tellTrace();
      this.#broadcast(FRAME.started, { argument: this.#pid, payload: startTime });
      return this.kill();
    }
    const exec = decodePlan(this.#plan).steps.find((step) => step.operation.name === 'exec' && step.part === 'init');
    if (!exec) return this.#finish();
    const stdioFlags = Number(decodePlan(this.#plan).steps.find((step) => step.operation.name === 'stdio')?.operation.args['flags'] ?? 0);
    this.#tellTrace();
    this.#write(RUN_FILES.started, { pid: this.#pid, startTime: 1, startedAt });
    const session = this.#start(0, exec);
    for (const client of this.#clients) if (stdioFlags & 0b111000 || this.#streams.has(client)) this.#attach(0, client);
    const { code, signal } = await session.ended;
    if (this.dead) return;
    const exit = { code, signal, coreDumped: false, oom: { killed: false, limit: '' }, finishedAt: nowNs(), dropped: 0 };
    this.#freePorts();
    this.#write(RUN_FILES.exit, exit);
    session.exitCode = code;
    session.exitPayload = Buffer.from(JSON.stringify(exit));
    this.#broadcast(FRAME.exit, { argument: code, payload: session.exitPayload });
    await this.#finish();
  }
  /** Mode `pool`: false when nobody wants it any more. */
  async #waitForPlan(): Promise<boolean> {
    const next = new Promise<Uint8Array | undefined>((resolve) => (this.#resume = resolve));
    if (this.#abandoned || [...this.#clients].some((client) => client.closed)) this.#resume?.(undefined);
    this.#broadcast(FRAME.prepared, { argument: this.#pid });
    const plan = await next;
    this.#resume = undefined;
    if (!plan || this.dead) return false;
    this.#plan = plan;
    return true;
  }
  async #finish(): Promise<void> {
    const failures: unknown[] = [];
    // as it is now: it may have been amended since the start
    const file = join(this.#folder, RUN_FILES.plan);
    if (fs.existsSync(file)) this.#plan = fs.readFileSync(file);
    for (const step of decodePlan(this.#plan).steps.filter((candidate) => candidate.part === 'after')) {
      try {
        if ((await this.#timed(step, () => this.#perform(step, 'after'))) === null) return this.kill();
      } catch (error) {
        if (!step.operation.flags?.optional) failures.push(failure(step, 'after', error).json);
      }
      if (this.dead) return;
    }
    this.#write(RUN_FILES.undone, { failures });
    this.#tellTrace();
    this.#broadcast(FRAME.gone, { argument: failures.length });
    this.kill();
  }

  async #receive(peer: FakePeer, frame: FakeFrame): Promise<void> {
    const { session: id } = frame;
    const session = this.#sessions.get(id);
    switch (frame.type) {
      case FRAME.attach: return this.#attach(id, peer);
      case FRAME.adopt: return this.#adopt(peer, frame.adopted);
      case FRAME.resume: return this.#resume?.(frame.payload);
      case FRAME.detach: return void this.#attached.get(id)?.delete(peer);
      case FRAME.stdin: return session?.input(frame.payload);
      case FRAME.stdinEof: return session?.endInput();
      case FRAME.signal: return session?.signal(frame.argument);
      case FRAME.barrierReply: return this.#barrier?.(frame);
      case FRAME.amend:
        return peer.send(FRAME.ok, { session: id });
      case FRAME.state: {
        const sessions = [...this.#sessions.keys()].map((number) => ({ session: number, pid: this.#pid + number }));
        return peer.send(FRAME.state_, { session: id, payload: Buffer.from(JSON.stringify({ pid: this.#pid, startTime: 1, paused: false, sessions, dropped: 0 })) });
      }
      case FRAME.wait:
        if (session?.exitPayload) peer.send(FRAME.exit, { session: id, argument: session.exitCode, payload: session.exitPayload });
        return;
      case FRAME.exec: return this.#exec(peer, frame);
      default:
    }
  }
  async #exec(peer: FakePeer, { session: id, argument, payload }: Frame): Promise<void> {
    const problem = await this.#runPart(payload, 'exec');
    if (problem === null) return this.kill();
    if (problem) return peer.send(FRAME.failed, { session: id, payload: failure(problem.step, 'exec', problem.error).payload });
    const exec = decodePlan(payload).steps.find((step) => step.operation.name === 'exec');
    if (!exec) return peer.send(FRAME.error, { session: id, argument: errnoNumber('EINVAL') });
    const session = this.#start(id, exec);
    if (argument & 0b111000 || this.#streams.has(peer)) this.#attach(id, peer);
    const { code, signal } = await session.ended;
    session.exitCode = code;
    session.exitPayload = Buffer.from(JSON.stringify({ code, signal, coreDumped: false, oom: { killed: false }, finishedAt: nowNs(), dropped: 0 }));
    this.#broadcast(FRAME.exit, { session: id, argument: code, payload: session.exitPayload });
  }
}
