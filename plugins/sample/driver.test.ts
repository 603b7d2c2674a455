import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/node-test';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { createSampleStorage } from './driver.ts';

// The contract's own suite, on a fake machine: no root, a fault after each step. `engine plugin check .` runs it on the real one too.
for (const sync of [true, false]) {
  describeSuite(`sample, sync ${sync}`, storageSuite, { bench: () => fakeBench(), create: (deps) => createSampleStorage(deps, { sync }) });
}
