import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { apply, applyOnCommit } from '@engine/core/contracts/common/suite';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { isSince } from '../../../config/kernel/versions.ts';
import { readMachine } from '../../../config/machine.ts';
import { createOverlayStorage } from '../../../plugins/storage-overlay/driver.ts';
import { createBtrfsStorage } from '../../../plugins/storage-btrfs/driver.ts';
import { createVfsStorage } from '../../../plugins/storage-vfs/driver.ts';
import { realBench, unable } from './bench.ts';

const machine = readMachine({ root: '/', runRoot: '/' });

/** For what may never have been mounted or attached. */
function quietly(command: string, ...args: string[]): void {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
  } catch {
    // Then there is nothing to be taken back.
  }
}

/** A filesystem of its own on a loop device, made when the first test needs it, mounted with what a careful host might use. */
class LoopFilesystem {
  readonly #type: string;
  #folder: string | undefined;
  #device = '';

  constructor(type: string) {
    this.#type = type;
  }
  /** Is there a mkfs for it, and does the kernel know it? */
  get possible(): boolean {
    return unable === undefined && readFileSync('/proc/filesystems', 'utf8').includes(`\t${this.#type}\n`) && ['/sbin', '/usr/sbin'].some((folder) => existsSync(`${folder}/mkfs.${this.#type}`));
  }
  get path(): string {
    if (this.#folder !== undefined) return join(this.#folder, 'mount');
    this.#folder = mkdtempSync('/var/tmp/engine-loop-');
    const image = join(this.#folder, 'image');
    const path = join(this.#folder, 'mount');
    mkdirSync(path);
    writeFileSync(image, '');
    truncateSync(image, 1 << 30);
    execFileSync(`mkfs.${this.#type}`, ['-q', image], { stdio: 'ignore' });
    this.#device = execFileSync('losetup', ['--find', '--show', image]).toString().trim();
    execFileSync('mount', ['-t', this.#type, '-o', 'nodev,nosuid', this.#device, path]);
    return path;
  }
  remove(): void {
    if (this.#folder === undefined) return;
    quietly('umount', join(this.#folder, 'mount'));
    quietly('losetup', '-d', this.#device);
    rmSync(this.#folder, { recursive: true, force: true });
    this.#folder = undefined;
  }
}

describe.skipIf(unable)('real shim', () => {
  // Debian 12's kernel has no way for layers one by one
  describe.skipIf(!isSince(machine.kernel, [6, 8]))('with layers one by one', () => {
    describeSuite('overlay by fd', storageSuite, { bench: () => realBench(), create: (deps) => createOverlayStorage(deps, { mount: 'fd' }) });
  });
  describeSuite('overlay by mount(2)', storageSuite, { bench: () => realBench(), create: (deps) => createOverlayStorage(deps, { mount: 'mount' }) });
  describeSuite('vfs', storageSuite, { bench: () => realBench(), create: createVfsStorage });

  const btrfs = new LoopFilesystem('btrfs');
  const xfs = new LoopFilesystem('xfs');
  describe.skipIf(!btrfs.possible)('on btrfs (needs btrfs-progs and a loop device)', () => {
    describeSuite('btrfs', storageSuite, { bench: () => realBench({ parent: btrfs.path }), create: createBtrfsStorage });
    describeSuite('btrfs with a default quota', storageSuite, { bench: () => realBench({ parent: btrfs.path }), create: (deps) => createBtrfsStorage(deps, { quota: '100m' }) });
    describeSuite('overlay', storageSuite, { bench: () => realBench({ parent: btrfs.path }), create: createOverlayStorage });
    describeSuite('vfs with reflinks', storageSuite, { bench: () => realBench({ parent: btrfs.path }), create: createVfsStorage });

    it.for([createBtrfsStorage, createVfsStorage])('a snapshot in which a container made subvolumes, read-only ones too, can be removed: %o', async (create) => {
      const bench = await realBench({ parent: btrfs.path });
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
      expect(execFileSync('btrfs', ['subvolume', 'list', btrfs.path]).toString()).toBe('');
      expect(readdirSync(btrfs.path)).toEqual([]);
    });
  });
  describe.skipIf(!xfs.possible)('on xfs (needs xfsprogs and a loop device)', () => {
    describeSuite('vfs with reflinks', storageSuite, { bench: () => realBench({ parent: xfs.path }), create: createVfsStorage });
  });
  afterAll(() => {
    btrfs.remove();
    xfs.remove();
  });
});
