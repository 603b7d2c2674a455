import { describe } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { firewallSuite } from '@engine/core/contracts/firewall/suite';
import { createNftablesFirewall } from '../../../plugins/firewall-nftables/driver.ts';
import service from '../../../plugins/firewall-nftables/service.ts';
import { packetWorld } from '../../helpers/firewall-world.ts';
import { realBench, unable } from './bench.ts';

describe.skipIf(unable)('real packets', () => {
  const factory = {
    bench: () => realBench(), create: createNftablesFirewall, packets: packetWorld,
    service: (deps: Parameters<typeof createNftablesFirewall>[0] & { machine: { runRoot: string } }) => service.start({ log: deps.log, instance: deps.instance, serviceFolder: deps.serviceFolder, options: {}, runRoot: deps.machine.runRoot }),
  };
  describeSuite('nftables', firewallSuite, factory);
  // an older kernel: each element is undone by itself
  describeSuite('nftables before Linux 6.3', firewallSuite, { ...factory, bench: () => realBench({ machine: { kernel: [6, 1] } }) });
});
