import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { busyboxTar } from '../helpers/busybox.ts';
import { dockerArchive, tar } from '../helpers/tar.ts';
import type { LoopReport } from './loop-host.ts'; // an inline type would run the module

/**
 * Nothing synchronous above 2 ms on the main thread, while a 100 MB image is loaded again and again, four clients run containers and two list them.
 * What counts is CPU time: a machine with other work interrupts a thread at will. Of what takes longer, most is V8 compiling and optimising.
 */
it.skipIf(process.getuid?.() !== 0)('no piece of work holds the event loop for long', async (context) => {
  const folder = realpathSync(mkdtempSync('/var/tmp/engine-loop-'));
  try {
    mkdirSync(join(folder, 'root'), { mode: 0o700 });
    const image = join(folder, 'image.tar');
    const big = tar(Array.from({ length: 50 }, (_, i) => ({ path: `big${i}`, content: randomBytes(2 << 20).toString('latin1') })));
    writeFileSync(image, dockerArchive([{ layers: [{ tar: readFileSync(busyboxTar()) }, { tar: big }], names: ['loop:latest'], config: { Cmd: ['sh'], Env: ['PATH=/bin'] } }]));
    const { stdout } = await promisify(execFile)(process.execPath, [join(import.meta.dirname, 'loop-host.ts'), folder, image, '6'], { maxBuffer: 1 << 24, env: { ...process.env, UV_THREADPOOL_SIZE: '16' } });
    const report = JSON.parse(stdout) as LoopReport;
    const text = `${report.starts} starts, ${report.lists} lists, ${report.loads} loads; ${report.pieces} pieces in ${report.turns} turns, ${report.above2} above 2 ms, worst ${report.worst.map((w) => `${w.cpu.toFixed(1)} (${w.what})`).slice(0, 8).join(', ')}; ${report.collections} collections above 2 ms`;
    await context.annotate(text);
    if (process.env['ENGINE_LOOP_REPORT']) process.stderr.write(`${text}\n`);
    expect(report.failures).toEqual([]);
    expect(report.starts).toBeGreaterThan(20);
    expect(report.loads).toBeGreaterThan(0);
    expect(report.above2 / report.pieces, text).toBeLessThan(0.03);
    expect(report.worst[0]?.cpu ?? 0, text).toBeLessThan(15);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
