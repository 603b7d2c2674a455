import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const worker = join(import.meta.dirname, 'state-worker.ts');

/** Its output; `killAfter` ms it is killed. */
function engine(folder: string, count: number, killAfter?: number): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [worker, folder, String(count)], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
    const timer = killAfter === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfter);
    child.on('close', () => {
      clearTimeout(timer);
      resolve(output);
    });
  });
}

/** Numbers between 0 and 1 that a failed round can be repeated with. */
function random(seed: number): () => number {
  let state = seed;
  return () => ((state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) / 2 ** 32);
}

describe.skipIf(process.getuid?.() !== 0)('engines killed at random on one root', () => {
  it('leave the state before or the state after, and the next start nothing in flight', async () => {
    const seed = Number(process.env['ENGINE_SEED'] ?? Date.now() % 100_000);
    const next = random(seed);
    const folder = fs.mkdtempSync(join(tmpdir(), 'engine-crash-'));
    fs.mkdirSync(join(folder, 'work'));
    try {
      const end = Date.now() + 8000;
      for (let round = 0; Date.now() < end; round++) {
        const outputs = await Promise.all([engine(folder, 100, 200 + next() * 400), engine(folder, 100, 200 + next() * 400), engine(folder, 4)]);
        const last = await engine(folder, 0);
        const where = `seed ${seed}, round ${round}: ${outputs.join('')}${last}`;
        expect(where).not.toMatch(/could not|Error/);
        expect(last, where).toContain('orphans []');
        const rows = /^containers (.*)$/m.exec(last)?.[1] ?? '';
        expect(fs.readdirSync(join(folder, 'work')).sort().join(' '), where).toBe(rows);
      }
    } finally {
      fs.rmSync(folder, { recursive: true, force: true });
    }
  });
});
