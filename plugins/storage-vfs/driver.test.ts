import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { createVfsStorage } from './driver.ts';

describeSuite('vfs on a fake machine', storageSuite, { bench: () => fakeBench(), create: (deps) => createVfsStorage(deps) });
