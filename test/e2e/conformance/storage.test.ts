import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { apply, applyOnCommit } from '@engine/core/contracts/common/suite';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { createOverlayStorage } from '../../../plugins/storage-overlay/driver.ts';
import { createBtrfsStorage } from '../../../plugins/storage-btrfs/driver.ts';
import { createVfsStorage } from '../../../plugins/storage-vfs/driver.ts';
import { realBench, unable } from './bench.ts';

/** A filesystem of its own on a loop device, mounted with what a careful host might use; undefined when this machine can't. */
function loopDevice(type: string): { readonly path: string; remove(): void } | undefined {
  const folder = mkdtempSync('/var/tmp/engine-loop-');
  const image = join(folder, 'image');
  const path = join(folder, 'mount');
  let device = '';
  const remove = (): void => {
    for (const [command, ...args] of [['umount', '-l', path], ...(device ? [['losetup', '-d', device]] : [])]) {
      try {
        execFileSync(command ?? '', args, { stdio: 'ignore' });
      } catch {
        // Not mounted or not attached.
      }
    }
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    mkdirSync(path);
    writeFileSync(image, '');
    truncateSync(image, 1 << 30);
    execFileSync(`mkfs.${type}`, ['-q', image], { stdio: 'ignore' });
    device = execFileSync('losetup', ['--find', '--show', image]).toString().trim();
    execFileSync('mount', ['-t', type, '-o', 'nodev,nosuid', device, path]);
    return { path, remove };
  } catch {
    remove();
    return undefined;
  }
}

describe.skipIf(unable)('real shim', () => {
  describeSuite('overlay by fd', storageSuite, { bench: () => realBench(), create: (deps) => createOverlayStorage(deps, { mount: 'fd' }) });
  describeSuite('overlay by mount(2)', storageSuite, { bench: () => realBench(), create: (deps) => createOverlayStorage(deps, { mount: 'mount' }) });
  describeSuite('vfs', storageSuite, { bench: () => realBench(), create: createVfsStorage });

  const btrfs = unable ? undefined : loopDevice('btrfs');
  const xfs = unable ? undefined : loopDevice('xfs');
  describe.skipIf(!btrfs)('on btrfs (needs btrfs-progs and a loop device)', () => {
    describeSuite('btrfs', storageSuite, { bench: () => realBench({ parent: btrfs?.path ?? '' }), create: createBtrfsStorage });
    describeSuite('btrfs with a default quota', storageSuite, { bench: () => realBench({ parent: btrfs?.path ?? '' }), create: (deps) => createBtrfsStorage(deps, { quota: '100m' }) });
    describeSuite('overlay', storageSuite, { bench: () => realBench({ parent: btrfs?.path ?? '' }), create: createOverlayStorage });
    describeSuite('vfs with reflinks', storageSuite, { bench: () => realBench({ parent: btrfs?.path ?? '' }), create: createVfsStorage });

    it.for([createBtrfsStorage, createVfsStorage])('a snapshot in which a container made subvolumes, read-only ones too, can be removed: %o', async (create) => {
      const bench = await realBench({ parent: btrfs?.path ?? '' });
      const driver = create(bench.deps);
      const request = { key: 'k', lower: {} };
      await apply(bench, await driver.createSnapshot(request));
      const changes = driver.changes(request);
      const tree = changes.kind === 'trees' ? changes.tree : '';
      const run = (...args: string[]): unknown => execFileSync('btrfs', ['subvolume', ...args], { stdio: 'ignore' });
      mkdirSync(join(tree, 'deep/er'), { recursive: true });
      run('create', join(tree, 'deep/er/one'));
      run('create', join(tree, 'deep/er/one/two'));
      writeFileSync(join(tree, 'deep/er/one/two/file'), 'x');
      run('snapshot', '-r', join(tree, 'deep/er/one/two'), join(tree, 'frozen'));
      await applyOnCommit(bench, driver.removeSnapshot('k'));
      expect(readdirSync(join(bench.deps.folder, 'snapshots'))).toEqual([]);
      expect(readdirSync(join(bench.deps.folder, 'trash'))).toEqual([]);
      await bench.close();
    });
    it('nothing is left on the filesystem', () => {
      expect(execFileSync('btrfs', ['subvolume', 'list', btrfs?.path ?? '']).toString()).toBe('');
      expect(readdirSync(btrfs?.path ?? '')).toEqual([]);
    });
  });
  describe.skipIf(!xfs)('on xfs (needs xfsprogs and a loop device)', () => {
    describeSuite('vfs with reflinks', storageSuite, { bench: () => realBench({ parent: xfs?.path ?? '' }), create: createVfsStorage });
  });
  afterAll(() => {
    btrfs?.remove();
    xfs?.remove();
  });
});
