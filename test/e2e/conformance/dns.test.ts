import { describe } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { dnsSuite } from '@engine/core/contracts/dns/suite';
import { createLocalDns } from '../../../plugins/dns-local/driver.ts';
import { realBench, unable } from './bench.ts';

describe.skipIf(unable)('real shim', () => {
  describeSuite('local', dnsSuite, { bench: () => realBench(), create: createLocalDns });
});
