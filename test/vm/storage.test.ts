/** The storage driver of most machines on a real disk: layers go in one by one on 6.12, and by mount(2) on 6.1. */
import { describe } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { storageSuite } from '@engine/core/contracts/storage/suite';
import { createOverlayStorage } from '../../plugins/storage-overlay/driver.ts';
import { realBench, unable } from '../e2e/conformance/bench.ts';

describe.skipIf(unable)('real shim', () => {
  describeSuite('overlay', storageSuite, { bench: () => realBench(), create: createOverlayStorage });
});
