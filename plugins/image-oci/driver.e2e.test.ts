import { join } from 'node:path';
import { createBench, fakeMachine } from '@engine/core/contracts/common/bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { imageSuite } from '@engine/core/contracts/image/suite';
import { createNative } from '@engine/native';
import { createImageOci } from './driver.ts';

const shimPath = join(import.meta.dirname, '../../dist/bin/engine-shim-test');
describeSuite('oci through the shim', imageSuite, {
  bench: () => createBench({ native: createNative({ shimPath }), level: 2, machine: (folders) => fakeMachine(folders), killable: true }),
  create: (deps, pipe) => createImageOci(deps, {}, pipe),
}, { timeout: 120_000 });
