import { describe, expect, it } from 'vitest';
import { decodeBarrier, decodeFailure, encodeFrame, FrameReader } from './frames.ts';

describe('frames', () => {
  const frames = [
    { type: 2, session: 0, argument: 0, payload: Buffer.from('hello') },
    { type: 67, session: 65535, argument: 0xffffffff, payload: Buffer.alloc(0) },
    { type: 68, session: 3, argument: 137, payload: Buffer.alloc(70_000, 'x') },
    { type: 69, session: 0, argument: 0, payload: Buffer.from([0]) },
  ];
  const bytes = Buffer.concat(frames.map((f) => encodeFrame(f.type, f)));

  it('survive any split and any merge', () => {
    for (const size of [1, 2, 3, 5, 11, 12, 13, 17, 4096, bytes.length]) {
      const reader = new FrameReader();
      const got = [];
      for (let at = 0; at < bytes.length; at += size) got.push(...reader.push(bytes.subarray(at, at + size)));
      expect(got.map((f) => ({ ...f, payload: Buffer.from(f.payload) }))).toEqual(frames);
      expect(reader.pending).toBe(0);
    }
  });

  it('refuse a length that cannot be', () => {
    const bad = encodeFrame(1);
    bad.writeUInt32LE(0x7fffffff, 0);
    expect(() => new FrameReader().push(bad)).toThrow(expect.objectContaining({ code: 'ERR_SHIM_PROTOCOL' }));
  });

  it('carry failures and barriers', () => {
    const failure = Buffer.alloc(16 + 3);
    failure.writeUInt32LE(2, 0);
    failure.writeUInt32LE(7, 4);
    failure.writeInt32LE(13, 8);
    failure.writeUInt32LE(3, 12);
    failure.write('why', 16);
    expect(decodeFailure(failure)).toEqual({ part: 2, index: 7, errno: 13, detail: 'why' });
    expect(() => decodeFailure(Buffer.alloc(3))).toThrow(expect.objectContaining({ code: 'ERR_SHIM_PROTOCOL' }));
    const barrier = Buffer.concat([Buffer.from([1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]), Buffer.from('h'), Buffer.from([2, 0, 0, 0]), Buffer.from('{}')]);
    expect(decodeBarrier(barrier)).toEqual({ index: 1, pid: 2, handler: 'h', input: Buffer.from('{}') });
    expect(() => decodeBarrier(Buffer.concat([barrier.subarray(0, 8), Buffer.alloc(8, 0xff)]))).toThrow(expect.objectContaining({ code: 'ERR_SHIM_PROTOCOL' }));
  });
});
