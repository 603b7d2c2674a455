/** docs/guide/user-namespaces.md from top to bottom, as it stands there: each block of commands in its order. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { followGuide, guideText, type Expected } from '../helpers/guide.ts';

const guide = guideText('user-namespaces.md');
const expected: readonly Expected[] = [
  ['bin/engine run -d --name one', ({ out }) => {
    const [, , inside, outside] = /^[0-9a-f]{64}\n(0)\n +(0) +(\d+) +65536\n +(\d+)\n/.exec(out)?.slice(1) ?? [];
    expect(outside).toBe(inside);
    // what the table says, where nobody has said anything in /etc/subuid
    const own = (file: string): boolean => /^(engine|containers):/m.test(readFileSync(file, 'utf8'));
    if (!own('/etc/subuid') && !own('/etc/subgid')) expect(out).toMatch(/IDS FOR --userns=auto +FROM +IN USE\n[\d,]+ uids +built in +65,536 by a container\n[\d,]+ gids +built in +65,536 by a container\n$/);
  }],
  ['mkdir -p data', ({ out, err }) => {
    expect(out).toMatch(/65534 +65534 .*file\n$/);
    expect(err).toContain('Permission denied');
  }, 1],
  ['bin/engine run --rm --userns=auto -v "$PWD/data:/data:idmap"', ({ out }) => expect(out).toBe('secret\n0 data/new\n')],
  ['bin/engine run --rm --userns=auto -v shared:/v', ({ out }) => expect(out).toBe('0 /v/file\nkept\nshared\n')],
  ['bin/engine run --rm --userns=auto:size=1000', ({ err }) => expect(guide).toContain(`\`\`\`\n${err}\`\`\``), 125],
  ['bin/engine run --rm --time-offset', ({ out }) => expect(Number(out)).toBeGreaterThan(31536000)],
  ['bin/engine rm -f one', ({ out }) => expect(out).toBe('one\n')],
];

it('the guide to user namespaces does what it says', { timeout: 300_000 }, async () => {
  const engine = new TestEngine();
  try {
    await importBusybox(engine, 'box');
    await followGuide(engine, guide, expected);
  } finally {
    expect(await engine.close()).toEqual([]);
  }
});
