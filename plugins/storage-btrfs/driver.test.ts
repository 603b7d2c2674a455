import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { createBtrfsStorage } from './driver.ts';
import { IOCTL } from './ioctls.ts';

/** A subvolume is a folder here, a snapshot a copy of one. */
function ioctl({ path, request, arg, patch }: { path: string; request: number; arg: Uint8Array; patch?: string }): void {
  const name = Buffer.from(arg.subarray(56)).toString().replace(/\0.*$/s, '');
  if (request === IOCTL.subvolCreateV2) mkdirSync(join(path, name));
  if (request === IOCTL.snapCreateV2) cpSync(patch ?? '', join(path, name), { recursive: true, preserveTimestamps: true, errorOnExist: true, force: false });
}

describeSuite('btrfs on a fake machine', storageSuite, { bench: () => fakeBench({ ioctl }), create: (deps) => createBtrfsStorage(deps) });
