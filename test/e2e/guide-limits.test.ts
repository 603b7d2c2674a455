/** docs/guide/limits.md from top to bottom, as it stands there: each block of commands in its order. */
import { execFile } from 'node:child_process';
import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { TestEngine } from '../helpers/engine.ts';

const repository = join(import.meta.dirname, '..', '..');
const guide = readFileSync(join(repository, 'docs/guide/limits.md'), 'utf8');
const blocks = [...guide.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, text = '']) => text);

interface Outcome { readonly out: string; readonly err: string; readonly code: number }
const MiB = 1 << 20;
/** What a block begins with, and what is expected of it. */
const expected: readonly (readonly [begins: string, check: (outcome: Outcome) => void, code?: number])[] = [
  ['bin/engine run -d --name worker', ({ out }) => expect(out).toMatch(new RegExp(`^[0-9a-f]{64}\n${256 * MiB} 500000000 100\n$`))],
  ['bin/engine update -m 400m', ({ out }) => expect(out).toBe(`worker\nworker\n${400 * MiB} 250000000 200\n`)],
  ['bin/engine update -m 1m', ({ err }) => expect(err).toBe('engine: minimum memory limit allowed is 6MB\n'), 1],
  ['bin/engine stats --no-stream', ({ out }) => expect(out).toMatch(/^CONTAINER ID .*PIDS\n[0-9a-f]{12} {3}worker .* 400MiB .*\nworker [\d.]+% 1\nUID .*CMD\nroot .*while :; do :; done\nPID +NI +COMMAND\n\d+ +0 +sh\n$/)],
  ['bin/engine pause worker\nbin/engine ps', ({ out }) => expect(out).toMatch(/^worker\nCONTAINER ID [^]*\(Paused\)[^]*worker\nworker\n$/)],
  ['bin/engine pause worker\nbin/engine stop', ({ out }) => expect(out).toBe('worker\nworker\nworker\n')],
];

it('the guide to limits does what it says', { timeout: 300_000 }, async () => {
  const engine = new TestEngine();
  try {
    symlinkSync(join(repository, 'bin'), join(engine.folder, 'cwd', 'bin'));
    expect(blocks.map((text, i) => text.startsWith(expected[i]?.[0] ?? '?'))).toEqual(expected.map(() => true));
    for (const [i, [begins, check, wanted = 0]] of expected.entries()) {
      const outcome = await new Promise<Outcome>((resolve) => {
        execFile('sh', ['-ec', blocks[i] ?? ''], { cwd: join(engine.folder, 'cwd'), env: engine.env }, (error, out, err) => resolve({ out, err, code: error ? Number(error.code ?? -1) : 0 }));
      });
      expect(outcome.code, `${begins}: ${outcome.err}${outcome.out}`).toBe(wanted);
      check(outcome);
    }
  } finally {
    expect(await engine.close()).toEqual([]);
  }
});
