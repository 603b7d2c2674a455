import { describe } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { volumeSuite } from '@engine/core/contracts/volume/suite';
import { createLocalVolumes } from '../../../plugins/volume-local/driver.ts';
import { realBench, unable } from './bench.ts';

describe.skipIf(unable)('real shim', () => {
  describeSuite('local', volumeSuite, { bench: () => realBench(), create: createLocalVolumes });
});
