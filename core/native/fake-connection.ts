import { FRAME } from '../plan/protocol.ts';
import { type Frame, type ShimConnection } from './index.ts';

/** A frame as a fake shim gets it: `adopted` came along with `adopt`, undefined when the fd was no end of a fake pair. */
export type FakeFrame = Frame & { readonly adopted?: FakePeer | undefined };

/** The shim's end of a fake connection. */
export interface FakePeer {
  send(type: number, frame?: { session?: number; argument?: number; payload?: Uint8Array }): void;
  onFrame(listener: (frame: FakeFrame) => void): void;
  close(): void;
  readonly closed: boolean;
  /** Resolves when either side has closed. */
  readonly whenClosed: Promise<void>;
}

function channel(): { push(frame: FakeFrame): void; listen(listener: (frame: FakeFrame) => void): void; pause(): void; resume(): void } {
  const waiting: FakeFrame[] = [];
  let listener: ((frame: FakeFrame) => void) | undefined;
  let paused = false;
  const flush = (): void => {
    for (;;) {
      const frame = listener && !paused ? waiting.shift() : undefined;
      if (!frame) return;
      listener?.(frame);
    }
  };
  return {
    push(frame) {
      waiting.push(frame);
      flush();
    },
    listen(to) {
      listener = to;
      flush();
    },
    pause: () => void (paused = true),
    resume() {
      paused = false;
      flush();
    },
  };
}
const frameOf = (type: number, { session = 0, argument = 0, payload }: { session?: number; argument?: number; payload?: Uint8Array } = {}): Frame =>
  ({ type, session, argument, payload: Buffer.from(payload ?? []) });

/**
 * Two ends of a connection in memory. `isDead`: the engine's process has ended, nothing reaches it any more. `take`: the fake client behind an fd that
 * is handed over, which it closes.
 */
export function fakeConnection(isDead: () => boolean, take: (fd: number) => FakePeer | undefined = () => undefined): { readonly engine: ShimConnection; readonly shim: FakePeer } {
  const toEngine = channel();
  const toShim = channel();
  let closed = false;
  let resolveClosed: () => void = () => {};
  let resolveEnded: () => void = () => {};
  const whenClosed = new Promise<void>((resolve) => (resolveClosed = resolve));
  const whenEnded = new Promise<void>((resolve) => (resolveEnded = resolve));
  const close = (): void => {
    if (closed) return;
    closed = true;
    resolveEnded();
    if (!isDead()) resolveClosed();
  };
  return {
    engine: {
      async send(type, frame) {
        if (!closed && !isDead()) toShim.push(frameOf(type, frame));
      },
      adopt(fd) {
        const adopted = take(fd);
        if (closed || isDead()) adopted?.close();
        else toShim.push({ ...frameOf(FRAME.adopt), adopted });
      },
      onFrame: (listener) => toEngine.listen(listener),
      pause: () => toEngine.pause(),
      resume: () => toEngine.resume(),
      closed: whenClosed,
      close,
    },
    shim: {
      send: (type, frame) => void (!closed && !isDead() && toEngine.push(frameOf(type, frame))),
      onFrame: (listener) => toShim.listen(listener),
      close,
      get closed() { return closed; },
      whenClosed: whenEnded,
    },
  };
}
