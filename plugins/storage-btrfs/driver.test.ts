import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import assert from 'node:assert/strict';
import { expect, it } from 'vitest';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { createBtrfsStorage, probeBtrfs } from './driver.ts';
import { IOCTL } from './ioctls.ts';

/** A subvolume is a folder here, a snapshot a copy of one. */
function ioctl({ path, request, arg, patch }: { path: string; request: number; arg: Uint8Array; patch?: string }): void {
  const name = Buffer.from(arg.subarray(56)).toString().replace(/\0.*$/s, '');
  if (request === IOCTL.subvolCreateV2) mkdirSync(join(path, name));
  if (request === IOCTL.snapCreateV2) cpSync(patch ?? '', join(path, name), { recursive: true, preserveTimestamps: true, errorOnExist: true, force: false });
}

describeSuite('btrfs on a fake machine', storageSuite, { bench: () => fakeBench({ ioctl }), create: (deps) => createBtrfsStorage(deps) });

it('the probe wants root on btrfs', () => {
  const folders = { root: '/var/lib/engine', runRoot: '/run/engine' };
  const [root] = fakeMachine(folders).mounts;
  assert.ok(root);
  const btrfs = [root, { ...root, id: 2, target: '/var', type: 'btrfs', source: '/dev/sdb' }];
  expect(probeBtrfs(fakeMachine(folders)).reasons.join()).toMatch(/ext4, not on btrfs/);
  expect(probeBtrfs(fakeMachine(folders, { mounts: btrfs })).available).toBe(true);
  expect(probeBtrfs(fakeMachine(folders, { mounts: btrfs, uid: 1000, capabilities: [] })).available).toBe(false);
});

it('a size is an operation of its own, after quotas were switched on and before anybody can write', async () => {
  const bench = await fakeBench({ ioctl });
  const requests = async (options: { quota?: string }, size?: string): Promise<unknown[]> =>
    (await createBtrfsStorage(bench.deps, options).createSnapshot({ key: 'k', lower: {}, ...(size && { options: { size } }) })).filter(({ operation }) => operation.name === 'ioctl').map(({ operation }) => operation.args['request']);
  expect(await requests({})).toEqual([IOCTL.subvolCreateV2]);
  expect(await requests({ quota: '1g' })).toEqual([IOCTL.quotaCtl, IOCTL.subvolCreateV2, IOCTL.qgroupLimit]);
  expect(await requests({}, '1g')).toEqual([IOCTL.quotaCtl, IOCTL.subvolCreateV2, IOCTL.qgroupLimit]);
  assert.throws(() => createBtrfsStorage(bench.deps, { quota: 'much' }), { code: 'ERR_INVALID_VALUE' });
  await bench.close();
});
