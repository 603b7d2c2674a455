import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { imageSuite } from '@engine/core/contracts/image/suite';
import { createImageOci } from './driver.ts';

describeSuite('oci on a fake machine', imageSuite, { bench: () => fakeBench(), create: (deps, pipe) => createImageOci(deps, {}, pipe) });
