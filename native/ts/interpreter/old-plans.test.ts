import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { decodePlan } from '@engine/core/plan';
import { build, canRun, runBytes } from './harness.ts';

const fixtures = join(import.meta.dirname, '../../../test/fixtures');
const releases = readdirSync(fixtures).flatMap((name) => /^plan-(v\d+)\.bin$/.exec(name)?.[1] ?? []);
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? `${item}n` : item instanceof Uint8Array ? Buffer.from(item).toJSON() : item)));

describe.each(releases)('a plan of release %s', (release) => {
  const at = `/tmp/engine-undo-${release}`;
  afterEach(() => rmSync(at, { recursive: true, force: true }));

  it('is read by this engine as it was meant', () => {
    const { steps } = decodePlan(readFileSync(join(fixtures, `plan-${release}.bin`)));
    expect(plain(steps.map(({ slot, operation }) => ({ slot, ...operation })))).toEqual(JSON.parse(readFileSync(join(fixtures, `plan-${release}.json`), 'utf8')));
    expect(steps[0]?.origin).toEqual({ plugin: 'storage-overlay', hook: 'prepareRootfs', pointer: '/root' });
  });
  it.skipIf(!canRun)('is read by the interpreter, and undone', { timeout: 120_000 }, () => {
    build('interpret');
    expect(runBytes('helper', readFileSync(join(fixtures, `plan-${release}.bin`)))).toMatchObject({ result: 0, failures: [] });
    for (const folder of ['', 'folder', 'renamed', 'tree', 'tree/deep', 'kept']) mkdirSync(join(at, folder));
    for (const file of ['file', 'tree/deep/file']) writeFileSync(join(at, file), '');
    expect(runBytes('after', readFileSync(join(fixtures, `undo-${release}.bin`)))).toMatchObject({ result: 0, failures: [], warnings: [] });
    expect(existsSync(at) && readdirSync(at).sort()).toEqual(['back', 'kept']);
  });
});
it('of at least one release are kept', () => expect(releases).toContain('v1'));
