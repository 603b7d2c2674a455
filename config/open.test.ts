import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Machine } from '@engine/core/contracts/common';
import { openEngine } from './open.ts';

let base: string;
beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'engine-open-')));
});
afterEach(() => rmSync(base, { recursive: true }));

test.each([
  [[5, 10], 'linux 5.10.0 is too old: the engine needs 5.14 or later'],
  [[4, 18], 'linux 4.18.0 is too old: the engine needs 5.14 or later'],
] as const)('a kernel %s is refused in one line', async (kernel, message) => {
  const wrap = { machine: (machine: Machine) => ({ ...machine, kernel, release: `${kernel.join('.')}.0` }) };
  await expect(openEngine({ flags: { root: join(base, 'root'), runRoot: join(base, 'run') }, cwd: base, env: {}, wrap })).rejects.toMatchObject({ code: 'ERR_MACHINE', message });
});
