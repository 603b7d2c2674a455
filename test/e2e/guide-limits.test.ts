/** docs/guide/limits.md from top to bottom, as it stands there: each block of commands in its order. */
import { expect, it } from 'vitest';
import { TestEngine } from '../helpers/engine.ts';
import { followGuide, guideText, type Expected } from '../helpers/guide.ts';

const guide = guideText('limits.md');
const MiB = 1 << 20;
const expected: readonly Expected[] = [
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
    await followGuide(engine, guide, expected);
  } finally {
    expect(await engine.close()).toEqual([]);
  }
});
