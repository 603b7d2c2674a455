import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { firewallSuite } from '@engine/core/contracts/firewall/suite';
import { type Endpoint } from '@engine/core/contracts/network';
import { expect, it } from 'vitest';
import { createFirewallNone } from './driver.ts';

describeSuite('none on a fake machine', firewallSuite, { bench: () => fakeBench(), create: createFirewallNone });

const network = (more: Partial<FirewallNetwork> = {}): FirewallNetwork =>
  ({ id: 'a'.repeat(64), name: 'front', link: 'en-a', subnets: ['10.0.0.0/24'], gateways: ['10.0.0.1'], internal: false, icc: true, isolated: true, masquerade: true, dns: true, ...more });

it('says once per network what it does not do', async () => {
  const warnings: string[] = [];
  const driver = createFirewallNone({ log: { warn: (_: unknown, text: string) => warnings.push(text) } as never });
  expect([await driver.ensure(network()), await driver.ensure(network())]).toEqual([[], []]);
  expect(warnings).toEqual([expect.stringMatching(/front: nothing is masqueraded .*; it is not isolated/)]);
  await driver.ensure(network({ id: 'b', internal: true, icc: false, isolated: false }));
  expect(warnings[1]).toMatch(/: internal is not enforced; icc=false is not enforced$/);
});

it('why says that the relay serves it', async () => {
  const driver = createFirewallNone({ log: { warn: () => {} } as never });
  const why = async (hostAddress: string): Promise<string> => (await driver.why({ protocol: 'tcp', hostAddress, hostPort: 80, containerPort: 8000 }, {} as Endpoint, network({ internal: true }))).join('\n');
  expect(await why('0.0.0.0')).toMatch(/^0\.0\.0\.0:80\/tcp: by the relay[^]*from anywhere[^]*internal/);
  expect(await why('::1')).toMatch(/^\[::1\]:80\/tcp[^]*this host alone/);
});
