import { Socket } from 'node:net';

/** A pipe as two fds. */
export type MakePipe = () => { readonly read: number; readonly write: number };

/** Whoever read the other end of the pipe has gone; its own error says why. */
export class BrokenFeed extends Error {}

/** The writing end of a pipe, with back-pressure and without a thread: libuv's pool stays free for reading and decompressing. */
export class Feed {
  readonly #socket: Socket;
  #broken = false;
  #ended = false;
  #ending = false;
  #pending = 0;
  #wake: (() => void) | undefined;
  readonly #written = (): void => {
    this.#pending--;
    this.#wake?.();
  };

  constructor(fd: number) {
    this.#socket = new Socket({ fd, readable: false, writable: true });
    const broken = (): void => {
      if (!this.#ended) this.#broken = true;
      this.#wake?.();
    };
    this.#socket.on('error', broken);
    this.#socket.on('close', broken);
  }
  /** Has {@link end} been called? */
  get ended(): boolean {
    return this.#ending;
  }
  push(parts: readonly Buffer[]): void {
    if (this.#broken || parts.length === 0) return;
    this.#pending++;
    this.#socket.cork();
    for (const [i, part] of parts.entries()) this.#socket.write(part, i === parts.length - 1 ? this.#written : undefined);
    this.#socket.uncork();
  }
  /** Resolves when all that was pushed is in the pipe: its buffers may be used again. Errors: BrokenFeed. */
  async room(): Promise<void> {
    while (!this.#broken && this.#pending > 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#broken) throw new BrokenFeed('the reader of a pipe has gone');
  }
  /** Resolves when everything is in the pipe and its end is closed. Errors: BrokenFeed. */
  async end(): Promise<void> {
    this.#ending = true;
    if (this.#broken) throw new BrokenFeed('the reader of a pipe has gone');
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#socket.end(resolve);
    });
    this.#ended = !this.#broken;
    this.#socket.destroy();
    if (this.#broken) throw new BrokenFeed('the reader of a pipe has gone');
  }
  close(): void {
    if (this.#ended) return;
    this.#broken = true;
    this.#socket.destroy();
    this.#wake?.();
  }
}
