import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { logSuite } from '@engine/core/contracts/log/suite';
import { createCriLog } from './driver.ts';
import { backward, endOfLines, ForwardReader, parseLine } from './lines.ts';
import { parseOptions } from './options.ts';

describeSuite('cri', logSuite, { bench: () => fakeBench(), create: createCriLog });
describeSuite('cri, non-blocking', logSuite, { bench: () => fakeBench(), create: createCriLog, options: { mode: 'non-blocking', 'max-buffer-size': '4m', 'max-size': '1m', 'max-file': '5' } });

it('options have Docker\'s forms and are checked', () => {
  assert.deepEqual(parseOptions({}), { maxSize: 10n << 20n, maxFiles: 3, ring: 0 });
  assert.deepEqual(parseOptions({ 'max-size': '1g', 'max-file': '2', mode: 'non-blocking' }), { maxSize: 1n << 30n, maxFiles: 2, ring: 1 << 20 });
  assert.deepEqual(parseOptions({ 'max-size': '-1' }), { maxSize: 0n, maxFiles: 3, ring: 0 });
  assert.deepEqual(parseOptions({ 'max-size': '65536' }).maxSize, 65536n);
  const wrong: Record<string, string>[] = [
    { colour: 'red' }, { 'max-size': '10 apples' }, { 'max-size': '0' }, { 'max-size': '1k' }, { 'max-file': '0' }, { 'max-file': '1.5' }, { 'max-file': '-1' },
    { mode: 'quick' }, { 'max-buffer-size': '1m' }, { mode: 'blocking', 'max-buffer-size': '1m' }, { mode: 'non-blocking', 'max-buffer-size': '1' }, { 'max-size': '-1', 'max-file': '2' },
  ];
  for (const options of wrong) assert.throws(() => parseOptions(options), { code: 'ERR_INVALID_VALUE' }, JSON.stringify(options));
});

it('a CRI line is parsed strictly, and its tags may have more parts', () => {
  assert.equal(parseLine(Buffer.from('2026-01-01T00:00:00.1Z stdout P:x a b'))?.text.toString(), 'a b');
  for (const bad of ['', 'x', '2026-01-01T00:00:00Z stdout', '2026-01-01T00:00:00Z stdin F x', '2026-01-01T00:00:00Z stdout X x', 'today stdout F x']) assert.equal(parseLine(Buffer.from(bad)), undefined, bad);
});

it('reading backwards gives the lines of reading forwards, wherever chunks are cut', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'engine-log-'));
  let seed = 7;
  const random = (below: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  for (let round = 0; round < 20; round++) {
    const path = join(folder, String(round));
    const lengths = Array.from({ length: 1 + random(60) }, () => [0, 1, random(200), 65536 - 40 - random(3), random(140_000)][random(5)] ?? 0);
    const tail = ['', 'x', '2026-01-01T00:00:00Z stdout F half'][random(3)] ?? '';
    writeFileSync(path, lengths.map((length, i) => `2026-01-01T00:00:${String(i % 60).padStart(2, '0')}.${String(i).padStart(9, '0')}Z stdout F ${'x'.repeat(length)}\n`).join('') + tail);
    const fd = openSync(path, 'r');
    const { size } = statSync(path);
    const forwards: string[] = [];
    for await (const line of new ForwardReader(fd).more()) forwards.push(`${line.time} ${line.text.length}`);
    const backwards: string[] = [];
    for await (const { line, start } of backward(fd, size)) {
      backwards.push(`${line.time} ${line.text.length}`);
      for await (const again of new ForwardReader(fd, start).more()) {
        assert.equal(`${again.time} ${again.text.length}`, backwards.at(-1));
        break;
      }
    }
    assert.deepEqual(backwards.reverse(), forwards);
    assert.equal(forwards.length, lengths.length);
    assert.equal(await endOfLines(fd, size), size - tail.length);
    closeSync(fd);
  }
  rmSync(folder, { recursive: true });
});
