import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { createOverlayStorage, type OverlayOptions } from './driver.ts';

const ways: readonly OverlayOptions[] = [{ mount: 'fd' }, { mount: 'mount' }, { mount: 'auto', sync: false }];
for (const options of ways) {
  describeSuite(`overlay ${JSON.stringify(options)} on a fake machine`, storageSuite, { bench: () => fakeBench(), create: (deps) => createOverlayStorage(deps, options) });
}
