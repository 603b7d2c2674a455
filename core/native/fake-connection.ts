import { type Frame, type ShimConnection } from './index.ts';

/** The shim's end of a fake connection. */
export interface FakePeer {
  send(type: number, frame?: { session?: number; argument?: number; payload?: Uint8Array }): void;
  onFrame(listener: (frame: Frame) => void): void;
  close(): void;
  readonly closed: boolean;
}

function channel(): { push(frame: Frame): void; listen(listener: (frame: Frame) => void): void; pause(): void; resume(): void } {
  const waiting: Frame[] = [];
  let listener: ((frame: Frame) => void) | undefined;
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

/** Two ends of a connection in memory. `isDead`: the engine's process has ended, nothing reaches it any more. */
export function fakeConnection(isDead: () => boolean): { readonly engine: ShimConnection; readonly shim: FakePeer } {
  const toEngine = channel();
  const toShim = channel();
  let closed = false;
  let resolveClosed: () => void = () => {};
  const whenClosed = new Promise<void>((resolve) => (resolveClosed = resolve));
  const close = (): void => {
    if (closed) return;
    closed = true;
    if (!isDead()) resolveClosed();
  };
  return {
    engine: {
      async send(type, frame) {
        if (!closed && !isDead()) toShim.push(frameOf(type, frame));
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
    },
  };
}
