import assert from 'node:assert/strict';
import { describe, it } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { networkSuite } from '@engine/core/contracts/network/suite';
import { createNative } from '@engine/native';
import { createContainerRunner, unable as noShim } from '@engine/native/container-runner';
import { createRtnetlink } from '@engine/native/rtnetlink';
import { createNetworkBridge } from '../../../plugins/network-bridge/driver.ts';
import { leaveTheNetwork } from '../../helpers/own-network.ts';
import { realBench, unable } from './bench.ts';

describe.skipIf(unable ?? noShim)('real shim', () => {
  if ((unable ?? noShim) === undefined) leaveTheNetwork();
  const common = { bench: () => realBench(), containers: createContainerRunner(createNative()) };
  describeSuite('network bridge', networkSuite, { ...common, create: ({ machine, instance }) => createNetworkBridge({ machine, instance, rtnetlink: createRtnetlink() }) }, { timeout: 110_000 });

  it('nothing is left', () => assert.deepEqual(createRtnetlink().links().map(({ name }) => name), ['lo']));
});
