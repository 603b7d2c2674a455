import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { cutEverywhere, failsWith } from '../common/checks.ts';
import { type RunningContainer } from '../common/containers.ts';
import { apply, applyOnCommit, type SuiteCase } from '../common/suite.ts';
import { encodePlan } from '../../plan/encode.ts';
import { operations } from '../../plan/table.ts';
import { type Effect, type Step } from '../../plan/types.ts';
import { type Endpoint, type ManagedNetworks, type NetworkDesign, type NetworkRecord } from './index.ts';
import { type NetworkContext } from './suite.ts';

const choice = { driver: 'x', plugin: 'x', version: '0', options: '' };
const CLONE_NEWNET = 0x40000000;

const managedOf = ({ driver }: NetworkContext): ManagedNetworks => {
  assert.ok(driver.managed);
  return driver.managed;
};
const hex = (seed: number, digits: number): string => ((seed * 2654435761) % 0xffffffff).toString(16).padStart(8, '1').padEnd(digits, '7');

/** A record as the core makes it. */
function record(c: NetworkContext, more: Partial<NetworkDesign> & { readonly number?: number } = {}): NetworkRecord {
  const { number = 1, ...design } = more;
  const request: NetworkDesign = { id: hex(number, 64), name: `net${number}`, predefined: false, internal: false, ipv6: false, options: {}, ...design };
  const settings = managedOf(c).design(request);
  return {
    id: request.id, name: request.name, created: '2024-01-01T00:00:00Z', labels: {}, internal: request.internal, ipv6: request.ipv6, predefined: request.predefined, options: { ...request.options },
    pools: [
      { family: 4, subnet: `10.231.${number}.0/24`, gateway: `10.231.${number}.1` },
      ...(request.ipv6 ? [{ family: 6 as const, subnet: `fd00:231:${number}::/64`, gateway: `fd00:231:${number}::1` }] : []),
    ],
    settings, drivers: { network: choice, ipam: choice, firewall: choice },
  };
}
function endpoint(network: NetworkRecord, host: number, more: Partial<Endpoint> = {}): Endpoint {
  const run = hex(host + 1000, 16);
  const routed = network.internal ? [] : network.pools.map(({ gateway }) => gateway);
  return {
    container: hex(host, 64), run, network: network.id, interface: 'eth0', link: `v0-${run.slice(0, 12)}`, mac: `02:42:0a:e7:01:${host.toString(16).padStart(2, '0')}`,
    addresses: network.pools.map(({ family, gateway }, i) => ({
      family, address: family === 4 ? gateway.replace(/\.1$/, `.${host}`) : gateway.replace(/::1$/, `::${host.toString(16)}`), prefix: family === 4 ? 24 : 64, ...(routed[i] === undefined ? {} : { gateway: routed[i] }),
    })),
    isDefault: true, aliases: [], ports: [], options: {}, ...more,
  };
}
const links = (): string[] => readFileSync('/proc/net/dev', 'utf8').split('\n').slice(2).map((line) => line.split(':')[0]?.trim() ?? '').filter(Boolean).sort();

/** The network is there, in the kernel or in what stands for it. */
async function make(c: NetworkContext, network: NetworkRecord): Promise<void> {
  await apply(c.bench, await managedOf(c).ensure(network));
  c.factory.present?.(c.driver, network);
}
const attach = (c: NetworkContext, one: Endpoint, network: NetworkRecord): readonly Step[] => managedOf(c).planAttach(one, network, { ...c.bench.run, run: one.run, container: one.container });
const bytesOf = (steps: readonly Step[]): Buffer =>
  Buffer.from(encodePlan({ steps: [{ slot: 'shim.spawn', operation: { name: 'spawn', args: { flags: 0n, pid: 'init', pidfd: 'init.pidfd' } }, undo: [], origin: { plugin: 'x', hook: 'x' } }, ...steps.map((step) => ({ ...step, origin: { plugin: 'x', hook: 'x' } }))] }));
const undoable = (effects: readonly Effect[]): void => {
  for (const { operation, undo, noUndo } of effects) if (operations[operation.name].changes) assert.ok(undo.length > 0 || noUndo, `${operation.name} has neither an undo nor a reason`);
};
/** The steps of a whole container on a network, as the core puts them together. */
const whole = async (c: NetworkContext, one: Endpoint, network: NetworkRecord): Promise<readonly Step[]> => [...await c.plan({ mode: network.name }), ...attach(c, one, network)];
const wait = 'while :; do sleep 1; done';
const starts = async (c: NetworkContext, one: Endpoint, network: NetworkRecord, script = wait): Promise<RunningContainer> => c.runner.start(await whole(c, one, network), script, { namespaces: CLONE_NEWNET });

/** Cases for drivers with feature `networks`. At level 2 they change the net namespace they run in: it must be a new one. */
export const managedCases: readonly SuiteCase<NetworkContext>[] = [
  {
    name: 'a driver that keeps networks says so, and no other does',
    needs: [],
    run(c) {
      assert.equal(c.has('networks'), c.driver.managed !== undefined);
    },
  },
  {
    name: 'a design is plain data and the same for the same request',
    needs: ['networks'],
    run(c) {
      const { settings } = record(c);
      assert.deepEqual(JSON.parse(JSON.stringify(settings)), settings);
      assert.deepEqual(record(c).settings, settings);
    },
  },
  {
    name: 'an option that it does not have is refused, and named',
    needs: ['networks'],
    async run(c) {
      for (const option of ['no-such-option', '', '__proto__', 'constructor', 'x'.repeat(10_000), 'a\0b', 'a\nb']) await failsWith('ERR_INVALID_VALUE', () => record(c, { options: Object.fromEntries([[option, '1']]) }));
    },
  },
  {
    name: 'what a firewall is told agrees with the record',
    needs: ['networks'],
    run(c) {
      const network = record(c, { ipv6: true, internal: true });
      const told = managedOf(c).firewalled(network);
      assert.deepEqual([told.id, told.name, told.internal, told.dns], [network.id, network.name, true, true]);
      assert.deepEqual([told.subnets, told.gateways], [network.pools.map(({ subnet }) => subnet), network.pools.map(({ gateway }) => gateway)]);
      assert.match(told.link, /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/);
      assert.notEqual(told.link, managedOf(c).firewalled(record(c, { number: 2 })).link);
      assert.equal(managedOf(c).firewalled(record(c, { predefined: true })).dns, false);
    },
  },
  {
    name: 'making a network: each change has an undo or a reason; when all is there, nothing is left to do',
    needs: ['networks'],
    async run(c) {
      const network = record(c, { ipv6: true });
      const effects = await managedOf(c).ensure(network);
      assert.ok(effects.length > 0);
      undoable(effects);
      await make(c, network);
      assert.deepEqual(await managedOf(c).ensure(network), []);
      undoable(await managedOf(c).remove(network));
      await applyOnCommit(c.bench, await managedOf(c).remove(network));
    },
  },
  {
    name: 'the same endpoint gives the same plan, byte for byte; steps lie in their slots',
    needs: ['networks'],
    async run(c) {
      const network = record(c, { ipv6: true });
      await make(c, network);
      const one = endpoint(network, 7);
      const steps = attach(c, one, network);
      assert.deepEqual(bytesOf(steps), bytesOf(attach(c, structuredClone(one), structuredClone(network))));
      for (const { slot, operation, undo, noUndo } of steps) {
        assert.ok(['shim.attach', 'init.netns'].includes(slot), slot);
        if (slot.startsWith('shim.') && operations[operation.name].changes) assert.ok(undo.length > 0 || noUndo, operation.name);
      }
      await applyOnCommit(c.bench, await managedOf(c).remove(network));
    },
  },
  {
    name: 'plans of two endpoints differ in their run and in the tokens, and in nothing else',
    needs: ['networks'],
    async run(c) {
      const managed = managedOf(c);
      if (!managed.tokens) return;
      const network = record(c, { ipv6: true });
      await make(c, network);
      const [one, two] = [endpoint(network, 7), endpoint(network, 200)];
      const [from, to] = [managed.tokens(one), managed.tokens(two)];
      assert.deepEqual(from.map(({ length }) => length), to.map(({ length }) => length));
      for (const token of from) assert.ok(token.length >= 8, 'a token is too short to be alone');
      let text = bytesOf(attach(c, one, network)).toString('latin1').replaceAll(one.run, two.run);
      from.forEach((token, i) => (text = text.replaceAll(Buffer.from(token).toString('latin1'), Buffer.from(to[i] as Uint8Array).toString('latin1'))));
      assert.ok(Buffer.from(text, 'latin1').equals(bytesOf(attach(c, two, network))));
      await applyOnCommit(c.bench, await managed.remove(network));
    },
  },
  {
    name: 'connecting and disconnecting: each change has an undo or a reason',
    needs: ['networks'],
    async run(c) {
      const network = record(c);
      await make(c, network);
      const one = endpoint(network, 9, { isDefault: false });
      undoable(managedOf(c).connect(one, network, { container: one.container, run: one.run, pid: 4242, startTime: 77n }));
      undoable(managedOf(c).disconnect(one, network));
      await applyOnCommit(c.bench, await managedOf(c).remove(network));
    },
  },
  {
    name: 'a network that is not there: no plan, and removing it is success',
    needs: ['networks'],
    async run(c) {
      const network = record(c, { number: 3 });
      assert.throws(() => attach(c, endpoint(network, 7), network));
      await applyOnCommit(c.bench, await managedOf(c).remove(network));
    },
  },
  {
    name: 'made, found complete, repaired when somebody changed it, and gone without a trace',
    needs: ['networks', 'containers'],
    async run(c) {
      const before = links();
      const network = record(c, { ipv6: true });
      const managed = managedOf(c);
      await make(c, network);
      const { link } = managed.firewalled(network);
      assert.ok(links().includes(link));
      await applyOnCommit(c.bench, await managed.remove(network));
      await applyOnCommit(c.bench, await managed.remove(network));
      assert.deepEqual(links(), before);
      assert.ok((await managed.ensure(network)).length > 0, 'it was not noticed that the network is gone');
    },
  },
  {
    name: 'cut anywhere, by a failing operation or by a death, making a network leaves nothing',
    needs: ['networks', 'containers', 'faults'],
    async run(c) {
      const before = links();
      const managed = managedOf(c);
      const network = record(c, { ipv6: true });
      for (const kind of ['fail', 'die'] as const) {
        await cutEverywhere(c.bench, kind, {
          async verb(effects) {
            await effects.run(await managed.ensure(network));
            await effects.commit();
          },
          check: (at) => assert.deepEqual(links(), before, `cut at ${at} (${kind})`),
        });
        await applyOnCommit(c.bench, await managed.remove(network));
      }
    },
  },
  {
    name: 'two containers reach each other and the host, by both families; the way out is there; nothing stays',
    needs: ['networks', 'containers'],
    async run(c) {
      const before = links();
      const network = record(c, { ipv6: true });
      await make(c, network);
      const [one, two] = [endpoint(network, 7), endpoint(network, 8)];
      const other = await starts(c, two, network);
      try {
        assert.equal(managedOf(c).isGone(two), false);
        const targets = [...two.addresses.map(({ address }) => address), ...network.pools.map(({ gateway }) => gateway)];
        const { output, errors, failure, code } = await c.runner.run(await whole(c, one, network), `set -e; for a in ${targets.join(' ')}; do ping -c 1 -W 5 $a; done; ip route; ip -6 route; ip link show eth0`, { namespaces: CLONE_NEWNET });
        assert.equal(failure, undefined);
        assert.equal(code, 0, `${output}${errors}`);
        assert.match(output, /default via 10\.231\.1\.1 dev eth0/);
        assert.match(output, /default via fd00:231:1::1 dev eth0/);
        assert.ok(output.includes(one.mac), output);
      } finally {
        assert.deepEqual((await other.stop()).undoFailures, []);
      }
      await gone(c, one);
      await gone(c, two);
      await applyOnCommit(c.bench, await managedOf(c).remove(network));
      assert.deepEqual(links(), before);
    },
  },
  {
    name: 'an internal network, and one that is not the default, give no way out',
    needs: ['networks', 'containers'],
    async run(c) {
      for (const [network, more] of [[record(c, { internal: true }), {}], [record(c, { number: 2 }), { isDefault: false }]] as const) {
        await make(c, network);
        const { output, code } = await c.runner.run(await whole(c, endpoint(network, 7, more), network), `ping -c 1 -W 5 ${network.pools[0]?.gateway}; ip route`, { namespaces: CLONE_NEWNET });
        assert.equal(code, 0, output);
        assert.match(output, /1 packets received/);
        assert.doesNotMatch(output, /default/);
        await gone(c, endpoint(network, 7));
        await applyOnCommit(c.bench, await managedOf(c).remove(network));
      }
    },
  },
  {
    name: 'a running container is connected and disconnected; cut anywhere, it is as before',
    needs: ['networks', 'containers', 'faults'],
    async run(c) {
      const managed = managedOf(c);
      const [first, second] = [record(c), record(c, { number: 2, ipv6: true })];
      await make(c, first);
      await make(c, second);
      const before = links();
      const container = await starts(c, endpoint(first, 7), first);
      try {
        const attached = links();
        const { run } = endpoint(first, 7);
        const more = endpoint(second, 9, { interface: 'eth1', run, link: `v1-${run.slice(0, 12)}`, isDefault: false });
        const target = { container: more.container, run, pid: container.pid, startTime: container.startTime };
        const inside = async (): Promise<string> => (await container.exec([], 'ip -o addr')).output;
        for (const kind of ['fail', 'die'] as const) {
          await cutEverywhere(c.bench, kind, {
            async verb(effects) {
              await effects.run(managed.connect(more, second, target));
              await effects.commit();
            },
            async check(at) {
              assert.deepEqual(links(), attached, `cut at ${at} (${kind})`);
              assert.doesNotMatch(await inside(), /eth1/);
            },
          });
          assert.match(await inside(), /eth1 +inet 10\.231\.2\.9\/24/);
          assert.match(await inside(), /eth1 +inet6 fd00:231:2::9\/64/);
          assert.equal((await container.exec([], 'ping -c 1 -W 5 10.231.2.1 && ping -c 1 -W 5 fd00:231:2::1')).code, 0);
          assert.equal(managed.isGone(more), false);
          await applyOnCommit(c.bench, managed.disconnect(more, second));
          await applyOnCommit(c.bench, managed.disconnect(more, second));
          assert.equal(managed.isGone(more), true);
          assert.deepEqual(links(), attached);
        }
        await failsWith('ERR_OPERATION_FAILED', () => apply(c.bench, managed.connect(more, second, { ...target, startTime: target.startTime + 1n })), 'ESRCH');
      } finally {
        await container.stop();
      }
      await gone(c, endpoint(first, 7));
      assert.deepEqual(links(), before);
      for (const network of [first, second]) await applyOnCommit(c.bench, await managed.remove(network));
    },
  },
  {
    name: 'the default route goes to another network of a running container; asked again, nothing changes',
    needs: ['networks', 'containers'],
    async run(c) {
      const managed = managedOf(c);
      if (!managed.promote) return;
      const [first, second, internal] = [record(c), record(c, { number: 2, ipv6: true }), record(c, { number: 3, internal: true })];
      for (const network of [first, second, internal]) await make(c, network);
      const [one, two] = [endpoint(first, 7), endpoint(second, 9, { interface: 'eth1', run: endpoint(first, 7).run, link: 'v1-000000000000', isDefault: false })];
      const container = await c.runner.start([...await whole(c, one, first), ...attach(c, two, second)], wait, { namespaces: CLONE_NEWNET });
      try {
        const target = { container: one.container, run: one.run, pid: container.pid, startTime: container.startTime };
        const routes = async (): Promise<string> => (await container.exec([], 'ip route; ip -6 route')).output;
        assert.match(await routes(), /default via 10\.231\.1\.1/);
        await applyOnCommit(c.bench, managed.disconnect(one, first));
        assert.doesNotMatch(await routes(), /default via/);
        for (const _ of [1, 2]) {
          await apply(c.bench, managed.promote({ ...two, isDefault: true }, second, target));
          assert.match(await routes(), /default via 10\.231\.2\.1 dev eth1/);
          assert.match(await routes(), /default via fd00:231:2::1 dev eth1/);
        }
        await failsWith('ERR_OPERATION_FAILED', () => apply(c.bench, managed.promote?.(two, second, { ...target, startTime: target.startTime + 1n }) ?? []), 'ESRCH');
        assert.deepEqual(managed.promote(endpoint(internal, 5), internal, target), []);
      } finally {
        await container.stop();
      }
      await gone(c, two);
      for (const network of [first, second, internal]) await applyOnCommit(c.bench, await managed.remove(network));
    },
  },
];

/** The netns of a container that has ended is taken down by the kernel in its own time. */
async function gone(c: NetworkContext, one: Endpoint): Promise<void> {
  for (let left = 500; !managedOf(c).isGone(one); left--) {
    assert.ok(left > 0, 'the link is still there');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
