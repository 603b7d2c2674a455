import { fail } from '@engine/core/errors';
import { type Frame } from '@engine/core/native';

const HEAD = 12;
/** Longest payload that is believed; a longer one means that the two sides no longer understand each other. */
export const MAX_FRAME = 64 << 20;

/** The bytes of a frame, as `core/plan/protocol.ts` describes them. */
export function encodeFrame(type: number, frame: { readonly session?: number; readonly argument?: number; readonly payload?: Uint8Array } = {}): Buffer {
  const payload = frame.payload ?? new Uint8Array(0);
  const bytes = Buffer.allocUnsafe(HEAD + payload.length);
  bytes.writeUInt32LE(payload.length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(frame.session ?? 0, 6);
  bytes.writeUInt32LE((frame.argument ?? 0) >>> 0, 8);
  bytes.set(payload, HEAD);
  return bytes;
}

/** Cuts a byte stream into frames, however it was split or merged on its way. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #length = 0;

  /** Add bytes; gives the frames that are complete now. Errors: ERR_SHIM_PROTOCOL. */
  push(chunk: Buffer): Frame[] {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    const frames: Frame[] = [];
    while (this.#length >= HEAD) {
      const head = this.#peek(HEAD);
      const size = head.readUInt32LE(0);
      if (size > MAX_FRAME) throw fail('ERR_SHIM_PROTOCOL', `a frame of ${size} bytes`);
      if (this.#length < HEAD + size) break;
      const bytes = this.#take(HEAD + size);
      frames.push({ type: bytes.readUInt16LE(4), session: bytes.readUInt16LE(6), argument: bytes.readUInt32LE(8), payload: bytes.subarray(HEAD) });
    }
    return frames;
  }

  /** Bytes of a frame that is not complete. */
  get pending(): number {
    return this.#length;
  }

  #peek(n: number): Buffer {
    const first = this.#chunks[0];
    if (first && first.length >= n) return first;
    this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] as Buffer;
  }

  #take(n: number): Buffer {
    const all = this.#peek(n);
    this.#chunks[0] = all.subarray(n);
    if (all.length === n) this.#chunks.shift();
    this.#length -= n;
    return all.subarray(0, n);
  }
}

/** Payload of `failed` and `warning` frames. `errno` is positive. */
export interface FailureReport { readonly part: number; readonly index: number; readonly errno: number; readonly detail: string }
export function decodeFailure(payload: Buffer): FailureReport {
  if (payload.length < 16) throw fail('ERR_SHIM_PROTOCOL', 'a failure frame is too short');
  const length = payload.readUInt32LE(12);
  return { part: payload.readUInt32LE(0), index: payload.readUInt32LE(4), errno: payload.readInt32LE(8), detail: payload.toString('utf8', 16, 16 + length) };
}

/** Payload of a `barrier` frame. */
export interface BarrierRequest { readonly index: number; readonly pid: number; readonly handler: string; readonly input: Buffer }
export function decodeBarrier(payload: Buffer): BarrierRequest {
  if (payload.length < 16) throw fail('ERR_SHIM_PROTOCOL', 'a barrier frame is too short');
  const handlerLength = payload.readUInt32LE(8);
  const inputAt = 12 + handlerLength + 4;
  if (inputAt > payload.length) throw fail('ERR_SHIM_PROTOCOL', 'a barrier frame is too short');
  const inputLength = payload.readUInt32LE(inputAt - 4);
  return { index: payload.readUInt32LE(0), pid: payload.readUInt32LE(4), handler: payload.toString('utf8', 12, 12 + handlerLength), input: payload.subarray(inputAt, inputAt + inputLength) };
}
