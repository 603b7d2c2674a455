import { fail } from '../errors/index.ts';
import { FRAME } from '../plan/protocol.ts';
import { type ExitRecord, type Session, type WindowSize } from '../api/index.ts';
import { type Frame, type ShimConnection } from '../native/index.ts';
import { readExitFrame } from './frames.ts';

/**
 * Output that is held for a reader before the connection is paused, bytes. Much, because a shim cuts off who reads nothing for seconds:
 * somebody who looks at the first page in a pager must not lose the rest.
 */
const HIGH_WATER = 1 << 26;
const ESRCH = 3;
/** Longest stdin frame. */
const CHUNK = 1 << 16;

type Output = { readonly stream: 'stdout' | 'stderr'; readonly data: Buffer };

/** Output in order, for one reader; tells when it is full and when there is room again. */
class OutputQueue implements AsyncIterable<Output> {
  readonly #items: Output[] = [];
  readonly #pressure: (full: boolean) => void;
  #bytes = 0;
  #ended = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(pressure: (full: boolean) => void) {
    this.#pressure = pressure;
  }
  push(item: Output): void {
    if (this.#ended) return;
    this.#items.push(item);
    this.#bytes += item.data.length;
    if (this.#bytes > HIGH_WATER) this.#pressure(true);
    this.#wake?.();
  }
  end(error?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }
  /** Nobody reads any more. */
  drop(): void {
    this.#items.length = 0;
    this.#bytes = 0;
    this.#pressure(false);
    this.end();
  }
  async *[Symbol.asyncIterator](): AsyncIterator<Output> {
    try {
      for (;;) {
        const item = this.#items.shift();
        if (item) {
          this.#bytes -= item.data.length;
          if (this.#bytes <= HIGH_WATER / 2) this.#pressure(false);
          yield item;
        } else if (this.#ended) {
          if (this.#error) throw this.#error;
          return;
        } else {
          await new Promise<void>((resolve) => { this.#wake = resolve; });
          this.#wake = undefined;
        }
      }
    } finally {
      this.drop();
    }
  }
}

export interface SessionOptions {
  readonly connection: ShimConnection;
  readonly container: string;
  /** The run that it belongs to. */
  readonly run: string;
  /** 0 is init. */
  readonly number: number;
  readonly pid: number;
  readonly startedAt?: string;
  /** After init's shim has said its last word (or is gone): collect the run. Not for exec sessions. */
  finish?(): Promise<void>;
  /** The connection was lost: the exit, when the run goes on or has ended in order. */
  lateExit?(): Promise<ExitRecord | undefined>;
}

/** A {@link Session} over a connection whose frames are handed to `receive`. */
export interface LiveSession extends Session {
  receive(frame: Frame): void;
}

export function createSession(options: SessionOptions): LiveSession {
  const { connection, number } = options;
  const queue = new OutputQueue((full) => (full ? connection.pause() : connection.resume()));
  const exit = Promise.withResolvers<ExitRecord>();
  const over = Promise.withResolvers<void>();
  let detached = false;
  let exited = false;
  const cutOff = (): Error => fail('ERR_TIMEOUT', 'the output was not read for too long and has been cut off', { operation: 'attach', path: options.container, hint: 'the rest is in its log: engine logs' });
  exit.promise.catch(() => {});
  const gone = over.promise.then(() => options.finish?.());
  gone.catch(() => {});

  const receive = (frame: Frame): void => {
    if (frame.session !== number) return;
    switch (frame.type) {
      case FRAME.output:
        if (!detached) queue.push({ stream: frame.argument === 2 ? 'stderr' : 'stdout', data: frame.payload });
        break;
      case FRAME.exit:
        exited = true;
        exit.resolve(readExitFrame(frame, options.run, options.startedAt));
        queue.end();
        if (number !== 0) {
          over.resolve();
          connection.close();
        }
        break;
      case FRAME.gone:
        over.resolve();
        connection.close();
        break;
      case FRAME.cutOff:
        queue.end(cutOff());
        break;
      case FRAME.error:
        // other refusals (a resize of what has no terminal) leave the streams as they are
        if (frame.argument === ESRCH) queue.end(fail('ERR_NO_SUCH_EXEC', `container ${options.container.slice(0, 12)} has no session ${number}`, { operation: 'attach' }));
        break;
      default:
    }
  };
  const lost = async (): Promise<void> => {
    if (!exited && !detached) {
      const gone_ = fail('ERR_SHIM_GONE', `the shim of container ${options.container.slice(0, 12)} ended unexpectedly`, { path: options.container });
      const late = options.lateExit?.().catch(() => undefined);
      const record = await late;
      queue.end(record ? cutOff() : gone_);
      if (record) exit.resolve(record);
      else exit.reject(gone_);
    }
    exit.reject(fail('ERR_SHIM_GONE', 'the connection was given up', { path: options.container }));
    queue.end();
    over.resolve();
  };
  connection.closed.then(lost, () => {});
  // a peer that has gone shows in `closed`; what was to be sent to it doesn't matter any more
  const tell = (type: number, frame: { argument?: number; payload?: Uint8Array } = {}): void => void connection.send(type, { session: number, ...frame }).catch(() => {});

  return {
    container: options.container, pid: options.pid, number, output: queue, exit: exit.promise, gone, receive,
    async write(data) {
      for (let at = 0; at < data.length; at += CHUNK) await connection.send(FRAME.stdin, { session: number, payload: data.subarray(at, at + CHUNK) });
    },
    endInput: () => tell(FRAME.stdinEof),
    resize: (size) => tell(FRAME.resize, { payload: windowPayload(size) }),
    signal: (signal) => tell(FRAME.signal, { argument: signal }),
    detach() {
      detached = true;
      tell(FRAME.detach);
      queue.drop();
      if (number !== 0) connection.close();
    },
  };
}

export function windowPayload({ rows, cols }: WindowSize): Uint8Array {
  const payload = Buffer.alloc(4);
  payload.writeUInt16LE(Math.min(rows, 0xffff), 0);
  payload.writeUInt16LE(Math.min(cols, 0xffff), 2);
  return payload;
}
