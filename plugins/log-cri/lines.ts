import { fstatSync, read as readCallback } from 'node:fs';
import { promisify } from 'node:util';
import { type LogLine } from '@engine/core/contracts/log';

const readAt = promisify(readCallback);
/** Bytes per read. */
const CHUNK = 64 * 1024;
/** A longer line is no line of ours (the shim cuts at 16 KiB): the file is damaged there, and the line is skipped. */
const MAX_LINE = 1 << 20;
const NEWLINE = 0x0a;
const SPACE = 0x20;

/** A line as it stands in the file. `partial`: the container's line goes on in the next one of the same stream. */
export interface RawLine extends LogLine {
  readonly partial: boolean;
}

/** Parse `<time> <stream> <tags> <text>` (no newline). Undefined for what is not a CRI line, e.g. the half line of a crash. */
export function parseLine(line: Buffer): RawLine | undefined {
  const first = line.indexOf(SPACE);
  const second = first < 0 ? -1 : line.indexOf(SPACE, first + 1);
  const third = second < 0 ? -1 : line.indexOf(SPACE, second + 1);
  if (third < 0) return undefined;
  const time = line.toString('latin1', 0, first);
  const stream = line.toString('latin1', first + 1, second);
  const [tag] = line.toString('latin1', second + 1, third).split(':');
  if ((stream !== 'stdout' && stream !== 'stderr') || (tag !== 'F' && tag !== 'P') || !/^\d{4}-\d\d-\d\dT/.test(time)) return undefined;
  const partial = tag === 'P';
  const text = line.subarray(third + 1);
  return { time, stream, partial, text: partial ? Buffer.from(text) : Buffer.concat([text, Buffer.of(NEWLINE)]) };
}

/** Lines of an open file from byte `position` on, in order, up to its present end. Keeps its place: call {@link more} again after growth. */
export class ForwardReader {
  readonly fd: number;
  #position: number;
  #rest: Buffer = Buffer.alloc(0);
  #skipping = false;

  constructor(fd: number, position = 0) {
    this.fd = fd;
    this.#position = position;
  }

  /** Is the file shorter than what was read of it? */
  isBeyondEnd(): boolean {
    return fstatSync(this.fd).size < this.#position;
  }

  /** The whole lines that are there now. A last line without newline waits for the next call. */
  async *more(): AsyncGenerator<RawLine> {
    const chunk = Buffer.allocUnsafe(CHUNK);
    for (;;) {
      const { bytesRead } = await readAt(this.fd, chunk, 0, CHUNK, this.#position);
      if (bytesRead === 0) return;
      this.#position += bytesRead;
      let data: Buffer = Buffer.concat([this.#rest, chunk.subarray(0, bytesRead)]);
      for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE)) {
        const line = this.#skipping ? undefined : parseLine(data.subarray(0, end));
        this.#skipping = false;
        data = data.subarray(end + 1);
        if (line) yield line;
      }
      if (data.length > MAX_LINE) {
        this.#skipping = true;
        data = Buffer.alloc(0);
      }
      this.#rest = data;
    }
  }
}

/** The byte after the last newline: where a line begins that is being written. */
export async function endOfLines(fd: number, size: number): Promise<number> {
  const length = Math.min(CHUNK, size);
  const chunk = Buffer.alloc(length);
  const { bytesRead } = await readAt(fd, chunk, 0, length, size - length);
  return size - length + chunk.subarray(0, bytesRead).lastIndexOf(NEWLINE) + 1;
}

/** Lines of an open file from its end (byte `size`) backwards, each with the byte at which it starts. */
export async function* backward(fd: number, size: number): AsyncGenerator<{ readonly line: RawLine; readonly start: number }> {
  let position = size;
  // `rest` is what is known of the file from `position` on, up to the start of the last line given.
  let rest: Buffer = Buffer.alloc(0);
  let atEnd = true;
  while (position > 0) {
    const length = Math.min(CHUNK, position);
    const chunk = Buffer.alloc(length);
    const { bytesRead } = await readAt(fd, chunk, 0, length, position - length);
    if (bytesRead < length) return;
    position -= length;
    rest = Buffer.concat([chunk, rest]);
    if (atEnd) {
      // What comes after the last newline is not a line yet.
      const last = rest.lastIndexOf(NEWLINE);
      if (last < 0) continue;
      rest = rest.subarray(0, last + 1);
      atEnd = false;
    }
    for (;;) {
      // The newline before the last line; the last byte is that line's own.
      const before = rest.length < 2 ? -1 : rest.lastIndexOf(NEWLINE, rest.length - 2);
      if (before < 0 && (position > 0 || rest.length === 0)) break;
      const start = before + 1;
      const line = parseLine(rest.subarray(start, rest.length - 1));
      if (line) yield { line, start: position + start };
      rest = rest.subarray(0, start);
      if (start === 0) break;
    }
    if (rest.length > MAX_LINE) return;
  }
}
