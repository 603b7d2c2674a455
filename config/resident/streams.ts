import { Readable, Writable } from 'node:stream';
import { LAUNCH } from '@engine/native/launch';
import { type Channel } from './channel.ts';

/** Standard input that may be under way, bytes. */
const WINDOW = 1 << 18;
/** Longest frame of output. */
const CHUNK = 1 << 16;

export interface WindowSize {
  readonly rows: number;
  readonly cols: number;
}

/** The caller's standard input. Nothing of it is read before somebody reads here. */
export class RemoteInput extends Readable {
  readonly #channel: Channel;
  #allowed = 0;
  readonly isTTY: boolean;
  isRaw = false;
  readonly fd = 0;

  constructor(channel: Channel, isTTY: boolean) {
    super({ highWaterMark: WINDOW });
    this.#channel = channel;
    this.isTTY = isTTY;
    this.on('error', () => {});
  }
  override _read(): void {
    const more = WINDOW - this.#allowed;
    if (more < WINDOW / 2) return;
    this.#allowed += more;
    void this.#channel.send(LAUNCH.want, { argument: more });
  }
  /** Bytes from the launcher; undefined: the end. False when it sent more than it was allowed. */
  receive(data: Buffer | undefined): boolean {
    if (this.destroyed) return true;
    if (data === undefined) {
      this.push(null);
      return true;
    }
    if (data.length > this.#allowed) return false;
    this.#allowed -= data.length;
    this.push(data);
    return true;
  }
  setRawMode(raw: boolean): this {
    this.isRaw = raw;
    void this.#channel.send(LAUNCH.raw, { argument: raw ? 1 : 0 });
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
}

/** The caller's standard output or error. A caller that has gone is a closed pipe: EPIPE. */
export class RemoteOutput extends Writable {
  readonly #channel: Channel;
  readonly #type: number;
  readonly #size: () => WindowSize | undefined;
  readonly isTTY: boolean;
  readonly fd: number;

  constructor(channel: Channel, which: 'output' | 'error', isTTY: boolean, size: () => WindowSize | undefined) {
    super({ highWaterMark: CHUNK, decodeStrings: true });
    this.#channel = channel;
    this.#type = LAUNCH[which];
    this.#size = size;
    this.isTTY = isTTY;
    this.fd = which === 'output' ? 1 : 2;
    this.on('error', () => {});
  }
  get columns(): number {
    return this.#size()?.cols ?? 80;
  }
  get rows(): number {
    return this.#size()?.rows ?? 24;
  }
  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    const sent: Promise<boolean>[] = [];
    for (let at = 0; at < chunk.length; at += CHUNK) sent.push(this.#channel.send(this.#type, { payload: chunk.subarray(at, at + CHUNK) }));
    const tell = async (): Promise<void> => done((await Promise.all(sent)).every(Boolean) ? null : brokenPipe());
    void tell();
  }
  /** Resolves when everything written so far is with the kernel, or never will be. */
  flushed(): Promise<void> {
    return new Promise((resolve) => (this.writableLength === 0 || this.destroyed ? resolve() : void this.write('', () => resolve())));
  }
}

export const brokenPipe = (): Error => Object.assign(new Error('write EPIPE'), { code: 'EPIPE', errno: -32, syscall: 'write' });
