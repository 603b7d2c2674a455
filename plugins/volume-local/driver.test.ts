import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'vitest';
import { apply, applyOnCommit } from '@engine/core/contracts/common/suite';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { volumeSuite } from '@engine/core/contracts/volume/suite';
import { createLocalVolumes } from './driver.ts';

describeSuite('local on a fake machine', volumeSuite, { bench: () => fakeBench(), create: createLocalVolumes });

it('a bind volume is the folder it names, which outlives it', async () => {
  const bench = await fakeBench();
  const driver = createLocalVolumes(bench.deps);
  const device = join(bench.folder, 'mine');
  mkdirSync(device);
  writeFileSync(join(device, 'x'), 'x');
  // before it is made, too: the container that makes it is to have it
  assert.equal(driver.mountpoint('v', undefined, { type: 'none', o: 'bind', device }), device);
  await apply(bench, driver.create('v', { type: 'none', o: 'bind', device }));
  assert.equal(driver.mountpoint('v'), device);
  await applyOnCommit(bench, driver.remove('v'));
  assert.ok(existsSync(join(device, 'x')));
  assert.deepEqual(driver.list(), []);
  await bench.close();
});

it('what it cannot do is refused, with what to do instead', async () => {
  const bench = await fakeBench();
  const driver = createLocalVolumes(bench.deps);
  const refused: [Record<string, string>, string][] = [
    [{ type: 'tmpfs', device: 'tmpfs' }, 'ERR_NOT_SUPPORTED'],
    [{ type: 'nfs', o: 'addr=1.2.3.4', device: ':/x' }, 'ERR_NOT_SUPPORTED'],
    [{ type: 'none', o: 'bind,ro', device: '/x' }, 'ERR_NOT_SUPPORTED'],
    [{ type: 'none', device: '/x' }, 'ERR_INVALID_VALUE'],
    [{ type: 'none', o: 'bind', device: 'x' }, 'ERR_INVALID_VALUE'],
    [{ type: 'none', o: 'bind' }, 'ERR_INVALID_VALUE'],
  ];
  for (const [options, code] of refused) assert.throws(() => driver.create('v', options), { code });
  await bench.close();
});
