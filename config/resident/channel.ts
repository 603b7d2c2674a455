import { closeSync } from 'node:fs';
import { type Socket } from 'node:net';
import { LAUNCH } from '@engine/native/launch';
import { encodeFrame, FrameReader } from '@engine/native/frames';
import { type Frame } from '@engine/core/native';
import { type Syscalls } from '@engine/native';

/** Longest request: what execve(2) takes of arguments and environment is at most 6 MB. */
const MAX_REQUEST = 8 << 20;
/** Longest time until the request is there, ms. */
const REQUEST_DEADLINE = 10_000;
const EAGAIN = /EAGAIN|EWOULDBLOCK/;

export type SocketCalls = Pick<Syscalls, 'sendWithFd' | 'sendWithFds' | 'socketPair'>;
interface FrameHead {
  readonly argument?: number;
  readonly payload?: Uint8Array;
}

/** The connection of one launcher. Whatever goes wrong with it shows in `closed`. */
export interface Channel {
  /** Resolves when the bytes are with the kernel; false: nobody is there any more. */
  send(type: number, frame?: FrameHead): Promise<boolean>;
  /** After everything that was sent before; `fd` is closed here in any case. */
  sendFd(type: number, frame: FrameHead, fd: number): Promise<boolean>;
  /** The same with several, in the order of the calls; they stay the caller's to close, when this has resolved. */
  sendFds(type: number, frame: FrameHead, fds: readonly number[]): Promise<boolean>;
  /** The first frame. Rejects when none comes in time, or none that can be read. */
  readonly first: Promise<Frame>;
  /** Frames after the first. Set once. */
  onFrame(listener: (frame: Frame) => void): void;
  readonly gone: boolean;
  readonly closed: Promise<void>;
  /** Close after what was sent has been written. */
  end(): void;
  /** Close now. */
  destroy(): void;
}

export function createChannel(socket: Socket, calls: SocketCalls): Channel {
  const reader = new FrameReader();
  const first = Promise.withResolvers<Frame>();
  first.promise.catch(() => {});
  let begun = false;
  let received = 0;
  const waiting: Frame[] = [];
  let listener: ((frame: Frame) => void) | undefined;
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  const timer = setTimeout(() => first.reject(new Error('no request came in time')), REQUEST_DEADLINE);
  socket.on('error', () => {}); // ECONNRESET, EPIPE: 'close' follows
  socket.once('close', () => {
    clearTimeout(timer);
    first.reject(new Error('the connection was closed before its request'));
  });
  socket.on('end', () => socket.destroy()); // a launcher that closes its side has gone
  socket.on('data', (chunk: Buffer) => {
    try {
      received += chunk.length;
      if (!begun && received > MAX_REQUEST) throw new Error('the request is too long');
      for (const frame of reader.push(chunk)) {
        if (!begun) {
          begun = true;
          clearTimeout(timer);
          first.resolve(frame);
        } else if (listener) listener(frame);
        else waiting.push(frame);
      }
      // between frames at most one of input is under way, and that is bounded by what it was allowed
      if (reader.pending > MAX_REQUEST || waiting.length > 1024) throw new Error('the connection is flooded');
    } catch (error) {
      first.reject(error);
      if (begun) socket.destroy();
    }
  });

  const gone = (): boolean => socket.destroyed || !socket.writable;
  /** Node has handed everything to the kernel: what is sent beside it now comes after. */
  const flushed = async (): Promise<boolean> => {
    while (!gone() && socket.writableLength > 0) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          socket.off('drain', done);
          socket.off('close', done);
          resolve();
        };
        socket.write('', done);
        socket.once('drain', done);
        socket.once('close', done);
      });
    }
    return !gone();
  };
  const ownFd = (): number => (socket as unknown as { readonly _handle: { readonly fd: number } })._handle.fd;
  /** `send` tells how many bytes have gone, with the fds: the rest follows before anything else can. */
  const sendBeside = async (bytes: Uint8Array, send: (socket: number) => number): Promise<boolean> => {
    while (await flushed()) {
      try {
        const sent = send(ownFd());
        if (sent === bytes.length) return true;
        return await new Promise((resolve) => socket.write(bytes.subarray(sent), (error) => resolve(!error)));
      } catch (error) {
        if (!EAGAIN.test(String((error as { errno?: string }).errno))) return false;
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return false;
  };
  let turn: Promise<unknown> = Promise.resolve();
  return {
    send(type, frame) {
      if (gone()) return Promise.resolve(false);
      return new Promise((resolve) => socket.write(encodeFrame(type, frame), (error) => resolve(!error)));
    },
    async sendFd(type, frame, fd) {
      try {
        const bytes = encodeFrame(type, frame);
        return await sendBeside(bytes, (own) => calls.sendWithFd(own, bytes, fd));
      } finally {
        closeSync(fd);
      }
    },
    sendFds(type, frame, fds) {
      const bytes = encodeFrame(type, frame);
      const sent = turn.then(() => sendBeside(bytes, (own) => calls.sendWithFds(own, bytes, fds)));
      turn = sent;
      return sent;
    },
    first: first.promise,
    onFrame(next) {
      listener = next;
      for (const frame of waiting.splice(0)) next(frame);
    },
    get gone() {
      return gone();
    },
    closed,
    // one that has not been heard yet may still be writing
    end: () => void (begun && socket.writableLength === 0 ? socket.destroy() : socket.end(() => socket.destroySoon())),
    destroy: () => void socket.destroy(),
  };
}

/** Say it to the caller in its own words and end. */
export async function refuse(channel: Channel, text: string, code = 125, name = 'engine'): Promise<void> {
  await channel.send(LAUNCH.error, { payload: Buffer.from(`${name}: ${text}\n`) });
  await channel.send(LAUNCH.done, { argument: code });
  channel.end();
}
