import assert from 'node:assert/strict';
import { expect, it } from 'vitest';
import { type Machine } from '@engine/core/contracts/common';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { createOverlayStorage, probeOverlay, type OverlayOptions } from './driver.ts';

const ways: readonly OverlayOptions[] = [{ mount: 'fd' }, { mount: 'mount' }, { mount: 'auto', sync: false }];
for (const options of ways) {
  describeSuite(`overlay ${JSON.stringify(options)} on a fake machine`, storageSuite, { bench: () => fakeBench(), create: (deps) => createOverlayStorage(deps, options) });
}

it.for<[string, Partial<Machine>, boolean, RegExp]>([
  ['a new kernel', {}, true, /new mount API/],
  ['an old kernel', { kernel: [5, 14], release: '5.14.0' }, true, /mount\(2\)/],
  ['a kernel that has the new mount API for it, but not lowerdir+', { kernel: [6, 6], release: '6.6.100' }, true, /mount\(2\)/],
  ['no root', { uid: 1000, capabilities: [] }, false, /root/],
  ['a kernel without overlay', { filesystems: ['ext4'] }, false, /no overlay/],
  ['a root on overlay', { mounts: mounted('overlay') }, false, /overlay.*vfs/],
  ['a root on NFS', { mounts: mounted('nfs4') }, false, /nfs4/],
  ['a root on some FUSE', { mounts: mounted('fuse.sshfs') }, false, /fuse.sshfs/],
])('the probe says why (not): %s', ([, changes, available, reason]) => {
  const probe = probeOverlay(fakeMachine({ root: '/var/lib/engine', runRoot: '/run/engine' }, changes));
  expect(probe.available).toBe(available);
  expect(probe.reasons.join('; ')).toMatch(reason);
});
function mounted(type: string): Machine['mounts'] {
  const [root] = fakeMachine({ root: '/', runRoot: '/' }).mounts;
  assert.ok(root);
  return [root, { ...root, id: 2, target: '/var/lib', type }, { ...root, id: 3, target: '/var/lib/engine-other', type: 'ext4' }];
}

it('a way that was named outright is not exchanged for the other', () => {
  const old = fakeMachine({ root: '/r', runRoot: '/run' }, { kernel: [6, 1], release: '6.1.0' });
  expect(probeOverlay(old, 'fd').available).toBe(false);
  expect(probeOverlay(old, 'mount').available).toBe(true);
});

it('mount(2) refuses what its options cannot carry, in words', async () => {
  const bench = await fakeBench();
  const driver = createOverlayStorage(bench.deps, { mount: 'mount' });
  const plan = (folder: string): unknown => driver.planRootfs({ key: 'k', lower: { folder }, out: 'o', readonly: false }, bench.run);
  for (const folder of ['/a:b', '/a,b', '/a\\b']) assert.throws(() => plan(folder), { code: 'ERR_NOT_SUPPORTED' });
  assert.throws(() => plan(`/${'x'.repeat(4096)}`), { code: 'ERR_IMAGE_LIMIT' });
  await bench.close();
});
