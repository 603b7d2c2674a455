import { fail } from '@engine/core/errors';

const MAGIC = 0xfd2fb528;
/** 0x184d2a50 to 0x184d2a5f: frames that decoders pass over. */
const SKIPPABLE = 0x184d2a5;

/**
 * Splits zstd content into its frames (RFC 8878), because node:zlib stops after the first: pzstd and zstd:chunked write many, with frames to be
 * passed over between them. Use: `while (await frames.next()) consume(frames.frame())`, each to its end.
 * Chunks are only looked at until the next one is asked for.
 */
export class ZstdFrames {
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #what: string;
  #rest: Buffer = Buffer.alloc(0);

  constructor(chunks: AsyncIterable<Buffer>, what: string) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#what = what;
  }

  /** Is there another frame? */
  async next(): Promise<boolean> {
    for (;;) {
      if (!(await this.#has(4))) {
        if (this.#rest.length > 0) throw this.#damaged();
        return false;
      }
      const magic = this.#rest.readUInt32LE(0);
      if (magic === MAGIC) return true;
      if (magic >>> 4 !== SKIPPABLE) throw this.#damaged();
      await this.#need(8);
      let left = 8 + this.#rest.readUInt32LE(4);
      while (left > 0) {
        await this.#need(1);
        left -= this.#take(left).length;
      }
    }
  }

  /** The bytes of the frame that {@link next} has found. */
  async *frame(): AsyncGenerator<Buffer> {
    await this.#need(5);
    const descriptor = this.#rest.readUInt8(4);
    const single = (descriptor >> 5) & 1;
    const window = 1 - single;
    const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
    const contentSize = [single, 2, 4, 8][descriptor >> 6] ?? 0;
    yield* this.#pass(5 + window + dictionary + contentSize);
    for (let last = false; !last; ) {
      await this.#need(3);
      const block = this.#rest.readUIntLE(0, 3);
      last = (block & 1) === 1;
      const type = (block >> 1) & 3;
      if (type === 3) throw this.#damaged();
      // a run of one byte is stored as that byte
      yield* this.#pass(3 + (type === 1 ? 1 : block >> 3));
    }
    if ((descriptor & 4) !== 0) yield* this.#pass(4);
  }

  async *#pass(length: number): AsyncGenerator<Buffer> {
    for (let left = length; left > 0; ) {
      await this.#need(1);
      const piece = this.#take(left);
      left -= piece.length;
      yield piece;
    }
  }
  #take(most: number): Buffer {
    const piece = this.#rest.subarray(0, most);
    this.#rest = this.#rest.subarray(piece.length);
    return piece;
  }
  async #has(length: number): Promise<boolean> {
    while (this.#rest.length < length) {
      // the chunk it lies in is about to be used again
      const kept = Buffer.from(this.#rest);
      const { done, value } = await this.#chunks.next();
      if (done === true) {
        this.#rest = kept;
        return false;
      }
      this.#rest = kept.length === 0 ? value : Buffer.concat([kept, value]);
    }
    return true;
  }
  async #need(length: number): Promise<void> {
    if (!(await this.#has(length))) throw this.#damaged();
  }
  #damaged(): Error {
    return fail('ERR_IMAGE_INVALID', `${this.#what} cannot be decompressed (zstd): it is damaged or cut off`, { path: this.#what });
  }
}
