import { type AttachStreams, type ExitRecord, type Session, type WindowSize } from '@engine/core/api';
import { describeError, fail, isEngineError } from '@engine/core/errors';
import { type Invocation, type Relay } from '@engine/core/contracts/frontend';
import { constants } from 'node:os';
import { makeRaw } from './terminal.ts';

/** `ctrl-p,ctrl-q` → byte values. Errors: ERR_INVALID_VALUE. */
export function parseDetachKeys(text: string): number[] {
  if (text === '') return [];
  return text.split(',').map((key) => {
    const ctrl = /^ctrl-([a-z@[\\\]^_])$/i.exec(key)?.[1];
    if (ctrl) return ctrl.toUpperCase().charCodeAt(0) & 0x1f;
    if (key.length === 1 && key >= ' ' && key <= '~') return key.charCodeAt(0);
    throw fail('ERR_INVALID_VALUE', `invalid detach key "${key}"`, { hint: 'use letters, or ctrl- and a letter or one of @[\\]^_, joined by commas' });
  });
}

/** Finds the detach keys in a stream of bytes. Bytes of a half-typed sequence are held back until it is decided. */
export class DetachScanner {
  readonly #keys: readonly number[];
  #matched = 0;
  constructor(keys: readonly number[]) {
    this.#keys = keys;
  }
  /** What to pass on, and whether the sequence was completed. */
  scan(data: Buffer): { pass: Buffer; detach: boolean } {
    if (this.#keys.length === 0) return { pass: data, detach: false };
    const pass: number[] = [];
    for (const byte of data) {
      if (byte === this.#keys[this.#matched]) {
        if (++this.#matched === this.#keys.length) return { pass: Buffer.from(pass), detach: true };
        continue;
      }
      pass.push(...this.#keys.slice(0, this.#matched));
      this.#matched = byte === this.#keys[0] ? 1 : 0;
      if (this.#matched === 0) pass.push(byte);
    }
    return { pass: Buffer.from(pass), detach: false };
  }
}

function writeAll(stream: NodeJS.WriteStream, data: Buffer): Promise<boolean> {
  return new Promise((resolve) => stream.write(data, (error) => resolve(!error)));
}

export function windowSize(invocation: Invocation): WindowSize | undefined {
  if (invocation.windowSize) return invocation.windowSize;
  const out = invocation.stdout.isTTY ? invocation.stdout : undefined;
  return out ? { rows: out.rows, cols: out.columns } : undefined;
}

/** Signals that are not passed on: those that end or stop the client itself in ways nobody means for the container, or come by themselves. */
const KEPT = new Set(['SIGKILL', 'SIGSTOP', 'SIGCHLD', 'SIGPIPE', 'SIGURG', 'SIGWINCH', 'SIGTTIN', 'SIGTTOU', 'SIGTSTP', 'SIGPROF', 'SIGSEGV', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGABRT', 'SIGIOT', 'SIGTRAP', 'SIGSYS', 'SIGVTALRM', 'SIGALRM', 'SIGIO', 'SIGPOLL', 'SIGUNUSED', 'SIGUSR1', 'SIGSTKFLT']);

function proxySignals(session: Session): () => void {
  const handlers: [NodeJS.Signals, () => void][] = [];
  for (const [name, number] of Object.entries(constants.signals)) {
    // SIGUSR1 starts Node's inspector only while it has no listener: with one it is an ordinary signal
    if (KEPT.has(name) && name !== 'SIGUSR1') continue;
    const handler = (): void => session.signal(number);
    process.on(name as NodeJS.Signals, handler);
    handlers.push([name as NodeJS.Signals, handler]);
  }
  return () => {
    for (const [name, handler] of handlers) process.off(name, handler);
  };
}

export interface AttachOptions {
  readonly terminal: boolean;
  readonly stdin: boolean;
  /** The end of this client's input is the end of the program's: not for a container that keeps its stdin open for the next client. */
  readonly endInput: boolean;
  readonly detachKeys: string;
  readonly proxySignals: boolean;
}

/** Which limit was hit, so that nobody has to guess what 137 means. */
function memoryMessage({ oom }: ExitRecord): string {
  // without a limit of its own it was one that it shares with others
  if (oom?.limitBytes === undefined) return 'the container ran out of memory: it has no limit of its own, so a process was killed at that of a group above (--cgroup-parent), or because the machine had no more';
  return `the container ran out of memory: a process was killed at its ${oom.limit ?? 'memory'} limit of ${Math.round(oom.limitBytes / 2 ** 20)} MiB; allow more with -m`;
}

/** Connect this terminal or these pipes with a session. Resolves to the exit code, 0 after a detach. */
export async function connect(session: Session, invocation: Invocation, options: AttachOptions): Promise<{ code: number; detached: boolean }> {
  const { stdout, stderr } = invocation;
  // looking at it makes a stream of it
  const stdin = options.stdin ? invocation.stdin : undefined;
  const raw = options.terminal && stdin?.isTTY === true;
  const scanner = new DetachScanner(options.terminal ? parseDetachKeys(options.detachKeys) : []);
  let detached = false;
  let leave: () => void = () => {};
  const left = new Promise<void>((resolve) => (leave = resolve));
  const cleanups: (() => void)[] = [];

  if (options.terminal && stdout.isTTY) {
    const resize = (): void => session.resize({ rows: stdout.rows, cols: stdout.columns });
    stdout.on('resize', resize);
    cleanups.push(() => stdout.off('resize', resize));
    resize();
  }
  if (raw && stdin) cleanups.push(makeRaw(stdin));
  if (options.proxySignals && !raw) cleanups.push(proxySignals(session));

  if (stdin) {
    const onData = (data: Buffer): void => {
      const { pass, detach } = scanner.scan(data);
      stdin.pause();
      void session.write(pass).then(
        () => (detach ? undefined : stdin.resume()),
        () => undefined, // the session is over; its exit says why
      );
      if (detach) {
        detached = true;
        session.detach();
        leave();
      }
    };
    const onEnd = (): void => {
      if (options.endInput) session.endInput();
    };
    stdin.on('data', onData);
    stdin.once('end', onEnd);
    stdin.once('error', onEnd); // a folder, or what may only be written: there is nothing to read
    cleanups.push(() => {
      stdin.off('data', onData);
      stdin.off('end', onEnd);
      stdin.pause();
    });
  }

  const pump = (async (): Promise<void> => {
    try {
      for await (const { stream, data } of session.output) {
        if (!(await writeAll(stream === 'stderr' ? stderr : stdout, data))) break; // the reader has gone (EPIPE)
      }
    } catch (error) {
      // cut off: the program goes on, and its exit code is still worth waiting for
      if (!isEngineError(error, 'ERR_TIMEOUT')) throw error;
      stderr.write(`engine: warning: ${describeError(error)}\n`);
    }
  })();
  try {
    const exit = Promise.all([session.exit, pump]).then(([record]) => record);
    exit.catch(() => undefined);
    const record = await Promise.race([exit, left.then(() => undefined)]);
    if (record?.oom?.killed) cleanups.push(() => stderr.write(`engine: ${memoryMessage(record)}\n`));
    return { code: record?.code ?? 0, detached };
  } finally {
    for (const cleanup of cleanups) cleanup();
  }
}

/** The caller speaks with the session's shim by itself; here only the end is heard. */
async function connectRelay(session: Session, relay: Relay, { stderr }: Invocation): Promise<{ code: number; detached: boolean }> {
  // told again below, to whoever waits for it
  session.exit.catch(() => undefined);
  const { detached } = await relay.connect(session);
  if (detached) return { code: 0, detached };
  const record = await session.exit;
  if (record.oom?.killed) stderr.write(`engine: ${memoryMessage(record)}\n`);
  return { code: record.code, detached };
}

/**
 * Begin a session and connect the caller with it: directly with its shim where the caller can be (`begin` passes `client` on to the engine then), else
 * through this process. Resolves when the session has ended and been collected, or the caller has detached; with a relay, and unless `whole`,
 * collecting goes on after that.
 */
export async function attachTo(
  invocation: Invocation, options: AttachOptions & { readonly attach: AttachStreams; readonly whole?: boolean; readonly session?: number }, begin: (client: { readonly client?: number }) => Promise<Session>,
): Promise<number> {
  const { attach, terminal, endInput, proxySignals: signals, whole = false } = options;
  const relay = invocation.relay?.({ attach, terminal, endInput, detachKeys: terminal ? parseDetachKeys(options.detachKeys) : [], proxySignals: signals, final: !whole, ...(options.session === undefined ? {} : { session: options.session }) });
  let session: Session;
  try {
    // read by who takes it: what fails before that leaves it here, to be closed
    session = await begin(relay ? { get client() { return relay.client; } } : {});
  } catch (error) {
    relay?.abandon();
    throw error;
  }
  const { code, detached } = await (relay ? connectRelay(session, relay, invocation) : connect(session, invocation, options));
  if (!detached && (whole || !relay)) await session.gone;
  return code;
}
