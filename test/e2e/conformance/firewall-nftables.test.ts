import assert from 'node:assert/strict';
import { describe, it } from 'vitest';
import { type DriverDeps } from '@engine/core/contracts/common';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { firewallSuite, type FirewallFactory } from '@engine/core/contracts/firewall/suite';
import { createNftablesFirewall } from '../../../plugins/firewall-nftables/driver.ts';
import service from '../../../plugins/firewall-nftables/service.ts';
import { packetWorld } from '../../helpers/firewall-world.ts';
import { realBench, unable } from './bench.ts';

const factory: FirewallFactory = {
  bench: () => realBench(), create: createNftablesFirewall, packets: packetWorld,
  service: ({ log, instance, serviceFolder, machine }: DriverDeps) => service.start({ log, instance, serviceFolder, options: {}, runRoot: machine.runRoot }),
};

describe.skipIf(unable)('real packets', () => {
  describeSuite('nftables', firewallSuite, factory);

  it('a chain of the old iptables that drops lets our networks pass, and has nothing of ours afterwards', async () => {
    const c = await firewallSuite.open(factory);
    try {
      const { machine, peer } = c.world;
      await machine.sh('iptables-legacy -P FORWARD DROP');
      const before = await machine.sh('iptables-legacy -S; ip6tables-legacy -S');
      const network = c.network(1);
      const container = await c.setUp(network);
      await c.publish(network, [{ protocol: 'tcp', hostAddress: '0.0.0.0', hostPort: 8080, containerPort: 80 }]);
      await peer.serve('tcp/80');
      assert.equal((await peer.ask('tcp', machine.addresses[0] ?? '', 8080))?.client, peer.addresses[0]);
      assert.equal((await container.ask('tcp', peer.addresses[0] ?? '', 80))?.client, machine.addresses[0]);
      await c.remove(network);
      assert.equal(await machine.sh('iptables-legacy -S; ip6tables-legacy -S'), before);
    } finally {
      await c.close();
    }
  });

  it('before Linux 6.3 each element is undone by itself, there or not', async () => {
    const c = await firewallSuite.open({ ...factory, bench: () => realBench({ machine: { kernel: [6, 1] } }) });
    try {
      const [one, two] = [c.network(1), c.network(2)];
      await c.ensure(one);
      const before = await c.world.machine.sh('nft list ruleset');
      const { undo } = await c.publish(one, [80, 81, 82].map((hostPort) => ({ protocol: 'tcp', hostAddress: '0.0.0.0', hostPort, containerPort: 80 })));
      await c.world.machine.sh(`nft delete element inet ${c.bench.deps.instance} any4 '{ tcp . 81 }'`);
      await undo();
      await undo();
      assert.equal(await c.world.machine.sh('nft list ruleset'), before);
      await c.ensure(two);
      await c.remove(two);
      assert.equal(await c.world.machine.sh('nft list ruleset'), before);
      await c.remove(one);
      await undo();
      assert.equal(await c.world.machine.sh('nft list ruleset'), '');
    } finally {
      await c.close();
    }
  });
});
