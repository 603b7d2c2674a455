import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { networkSuite } from '@engine/core/contracts/network/suite';
import { expect, it } from 'vitest';
import { createNetworkNone } from './driver.ts';

describeSuite('none on a fake machine', networkSuite, { bench: () => fakeBench(), create: createNetworkNone });

it('says that ports are left out', async () => {
  const warnings: string[] = [];
  const log = { warn: (_: unknown, text: string) => warnings.push(text) } as never;
  const run = { container: 'c', run: 'r', instance: 'i', runFolder: '/x', explain: false };
  await createNetworkNone({ log }).planEndpoint({ mode: 'none', hostname: '', options: {}, ports: [{ containerPort: 80, protocol: 'tcp' }] }, run);
  expect(warnings).toEqual(['published ports are discarded with network none']);
});
