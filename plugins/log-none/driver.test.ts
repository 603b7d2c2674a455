import { describeSuite } from '@engine/core/contracts/common/vitest';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { logSuite } from '@engine/core/contracts/log/suite';
import { createNoneLog } from './driver.ts';

describeSuite('none', logSuite, { bench: () => fakeBench(), create: createNoneLog });
