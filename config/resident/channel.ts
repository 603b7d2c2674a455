import { closeSync } from 'node:fs';
import { type Socket } from 'node:net';
import { LAUNCH } from '@engine/native/launch';
import { encodeFrame, FrameReader } from '@engine/native/frames';
import { type Frame } from '@engine/core/native';
import { type Syscalls } from '@engine/native';

/** Longest request: twice what execve(2) takes of arguments and environment. */
const MAX_REQUEST = 4 << 20;
/** Longest time until the request is there, ms. */
const REQUEST_DEADLINE = 10_000;
const EAGAIN = /EAGAIN|EWOULDBLOCK/;

export type SocketCalls = Pick<Syscalls, 'sendWithFd' | 'socketPair'>;
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
  return {
    send(type, frame) {
      if (gone()) return Promise.resolve(false);
      return new Promise((resolve) => socket.write(encodeFrame(type, frame), (error) => resolve(!error)));
    },
    async sendFd(type, frame, fd) {
      try {
        const bytes = encodeFrame(type, frame);
        while (await flushed()) {
          try {
            // a message this small goes as a whole or not at all
            calls.sendWithFd((socket as unknown as { readonly _handle: { readonly fd: number } })._handle.fd, bytes, fd);
            return true;
          } catch (error) {
            if (!EAGAIN.test(String((error as { errno?: string }).errno))) return false;
          }
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        return false;
      } finally {
        closeSync(fd);
      }
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
    end: () => void socket.end(() => socket.destroySoon()),
    destroy: () => void socket.destroy(),
  };
}

/** Say it to the caller in its own words and end. */
export async function refuse(channel: Channel, text: string, code = 125): Promise<void> {
  await channel.send(LAUNCH.error, { payload: Buffer.from(`engine: ${text}\n`) });
  await channel.send(LAUNCH.done, { argument: code });
  channel.end();
}
