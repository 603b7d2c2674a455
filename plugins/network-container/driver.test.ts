import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { networkSuite } from '@engine/core/contracts/network/suite';
import { expect, it } from 'vitest';
import { createNetworkContainer } from './driver.ts';

describeSuite('container on a fake machine', networkSuite, { bench: () => fakeBench(), create: createNetworkContainer, mode: 'container:web' });

it('names the container that is meant', () => {
  const driver = createNetworkContainer();
  const request = (mode: string) => ({ mode, hostname: '', ports: [], options: {} });
  expect(driver.namespace(request('container:web'))).toEqual({ kind: 'container', container: 'web' });
  expect(() => driver.namespace(request('container:'))).toThrow(/no container is named/);
});
