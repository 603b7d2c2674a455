import { describe } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { firewallSuite, type PacketWorld } from '@engine/core/contracts/firewall/suite';
import { createFirewallIptables } from '../../../plugins/firewall-iptables/driver.ts';
import { findPrograms } from '../../../plugins/firewall-iptables/programs.ts';
import { createFirewallNone } from '../../../plugins/firewall-none/driver.ts';
import { packetWorld } from '../../helpers/firewall-world.ts';
import { realBench, unable } from './bench.ts';

/** Where other software uses iptables on nf_tables, its base chains are there and stay: nobody but that takes them away. */
async function beside(): Promise<PacketWorld> {
  const world = await packetWorld();
  await world.machine.sh('for t in iptables-nft ip6tables-nft; do for at in filter/INPUT filter/FORWARD nat/PREROUTING nat/OUTPUT nat/POSTROUTING mangle/PREROUTING mangle/FORWARD raw/PREROUTING; do $t -t ${at%/*} -P ${at#*/} ACCEPT; done; done');
  return {
    ...world,
    async close() {
      await world.machine.sh('nft flush ruleset');
      await world.close();
    },
  };
}
/** The policy of the chain in which our accept stands first can change as it will: there is nothing to tell the driver. */
const without = (name: string): typeof firewallSuite => ({ ...firewallSuite, cases: firewallSuite.cases.filter((one) => one.name !== name) });

describe.skipIf(unable)('real packets', () => {
  for (const variant of ['nft', 'legacy'] as const) {
    describe.skipIf(!findPrograms(variant))(`iptables (${variant})`, () => {
      describeSuite('on a machine', variant === 'nft' ? without('another firewall that comes later is told at the next start') : firewallSuite, {
        bench: () => realBench(), packets: beside, create: (deps) => createFirewallIptables(deps, { variant }),
      });
    });
  }
  describeSuite('none', firewallSuite, { bench: () => realBench(), packets: packetWorld, create: createFirewallNone });
});
