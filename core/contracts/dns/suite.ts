import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type DriverDeps } from '../common/index.ts';
import { apply, applyOnCommit, Died, type Bench, type BenchEffects, type Suite, type SuiteCase, type SuiteContext } from '../common/suite.ts';
import { type NetworkRecord } from '../network/records.ts';
import { operations } from '../../plan/table.ts';
import { type Effect, type Operation } from '../../plan/types.ts';
import { type ContainerNames, type DnsDriver } from './index.ts';

export interface DnsFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps): DnsDriver;
}

export class DnsContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: DnsDriver;

  constructor(bench: Bench, driver: DnsDriver) {
    this.bench = bench;
    this.driver = driver;
  }
  has(need: string): boolean {
    return this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  close(): Promise<void> {
    return this.bench.close();
  }
  network(more: Partial<NetworkRecord> = {}): NetworkRecord {
    const choice = { driver: 'x', plugin: 'x', version: '1', options: 'sha256:0' };
    return {
      id: 'ab'.repeat(32), name: 'mynet', created: '2026-01-01T00:00:00Z', labels: {}, internal: false, ipv6: true, predefined: false, options: {}, settings: {},
      pools: [{ family: 6, subnet: 'fd00:1::/64', gateway: 'fd00:1::1' }, { family: 4, subnet: '10.9.0.0/24', gateway: '10.9.0.1' }],
      drivers: { network: choice, ipam: choice, firewall: choice, dns: choice },
      ...more,
    };
  }
  names(more: Partial<ContainerNames> = {}): ContainerNames {
    return { container: 'c0'.repeat(32), servers: [], endpoints: [{ network: this.network().id, name: 'web', names: ['web', 'c0c0c0c0c0c0', 'www'], addresses: ['10.9.0.2', 'fd00:1::2'] }], ...more };
  }
  /** All files below the service's folder, with what they hold. */
  files(folder = this.bench.deps.serviceFolder, prefix = ''): Record<string, string> {
    if (!existsSync(folder)) return {};
    return Object.fromEntries(readdirSync(folder).sort().flatMap((name) => {
      const path = join(folder, name);
      return statSync(path).isDirectory() ? Object.entries(this.files(path, `${prefix}${name}/`)) : [[`${prefix}${name}`, readFileSync(path, 'utf8')]];
    }));
  }
  /** What a shim does with the steps, and what is done when the run is over. */
  async run(names: ContainerNames): Promise<() => Promise<void>> {
    const steps = this.driver.planNames(names, this.bench.run);
    const effects = steps.map(({ operation, undo }): Effect => ({ operation, undo }));
    await apply(this.bench, effects);
    return () => applyOnCommit(this.bench, effects.toReversed().flatMap(({ undo }) => undo.map((operation: Operation): Effect => ({ operation, undo: [] }))));
  }
}

const cases: readonly SuiteCase<DnsContext>[] = [
  {
    name: 'probe answers in words',
    needs: [],
    async run({ driver, bench }) {
      assert.ok((await driver.probe(bench.deps.machine)).reasons.length > 0);
    },
  },
  {
    name: 'the default network has no names, and its containers the host\'s name servers',
    needs: [],
    run(c) {
      const { driver } = c;
      const predefined = c.network({ predefined: true });
      assert.deepEqual(driver.resolvers(predefined), []);
      assert.deepEqual([...driver.ensure(predefined), ...driver.remove(predefined)], []);
    },
  },
  {
    name: 'name servers of a network are IPv4 where it has any',
    needs: [],
    run(c) {
      const { driver } = c;
      const { pools } = c.network();
      const family = (list: readonly string[]): boolean[] => list.map((address) => address.includes(':'));
      assert.deepEqual([...new Set(family(driver.resolvers(c.network())))], [false]);
      assert.deepEqual([...new Set(family(driver.resolvers(c.network({ pools: pools.filter((pool) => pool.family === 6) }))))], [true]);
    },
  },
  {
    name: 'a network is made known once, again when it is another, and forgotten',
    needs: [],
    async run(c) {
      await apply(c.bench, c.driver.ensure(c.network()));
      assert.deepEqual(c.driver.ensure(c.network()), []);
      const known = c.files();
      const wider = c.network({ pools: [{ family: 4, subnet: '10.9.0.0/16', gateway: '10.9.0.1' }] });
      assert.notEqual(c.driver.ensure(wider).length, 0);
      await apply(c.bench, c.driver.ensure(wider));
      assert.notDeepEqual(c.files(), known);
      await applyOnCommit(c.bench, c.driver.remove(wider));
      await applyOnCommit(c.bench, c.driver.remove(wider));
      assert.deepEqual(c.files(), {});
    },
  },
  {
    name: 'a network that was taken away behind its back is made known again',
    needs: [],
    async run(c) {
      await apply(c.bench, c.driver.ensure(c.network()));
      const known = c.files();
      await applyOnCommit(c.bench, c.driver.remove(c.network()));
      await apply(c.bench, c.driver.ensure(c.network()));
      assert.deepEqual(c.files(), known);
    },
  },
  {
    name: 'names lie in the slot for links, each change with its undo, and nothing is left after the run',
    needs: [],
    async run(c) {
      await apply(c.bench, c.driver.ensure(c.network()));
      const before = c.files();
      const steps = c.driver.planNames(c.names(), c.bench.run);
      for (const { slot, operation, undo, noUndo } of steps) {
        assert.equal(slot, 'shim.links');
        if (operations[operation.name].changes) assert.ok(undo.length > 0 || noUndo, operation.name);
      }
      const end = await c.run(c.names());
      assert.notDeepEqual(c.files(), before);
      await end();
      await end();
      assert.deepEqual(c.files(), before);
    },
  },
  {
    name: 'the same names are the same plan, and a container without such networks has none',
    needs: [],
    run(c) {
      assert.deepEqual(c.driver.planNames(c.names(), c.bench.run), c.driver.planNames(c.names(), c.bench.run));
      assert.deepEqual(c.driver.planNames(c.names({ endpoints: [] }), c.bench.run), []);
    },
  },
  {
    name: 'names of a running container change, also from none and to none',
    needs: [],
    async run(c) {
      await apply(c.bench, c.driver.ensure(c.network()));
      const nothing = c.files();
      const more = c.names({ endpoints: [...c.names().endpoints, { network: 'cd'.repeat(32), name: 'web', names: ['web', 'other'], addresses: ['10.10.0.2'] }] });
      const end = await c.run(c.names());
      const one = c.files();
      await apply(c.bench, c.driver.change(more, c.names()));
      assert.notDeepEqual(c.files(), one);
      await apply(c.bench, c.driver.change(c.names({ endpoints: [] }), more));
      assert.deepEqual(c.files(), nothing);
      await apply(c.bench, c.driver.change(c.names(), c.names({ endpoints: [] })));
      assert.deepEqual(c.files(), one);
      await end();
      assert.deepEqual(c.files(), nothing);
    },
  },
  {
    name: 'cut anywhere, the state is that of before',
    needs: ['faults'],
    async run(c) {
      await apply(c.bench, c.driver.ensure(c.network()));
      await c.run(c.names());
      const before = c.files();
      const wider = c.network({ pools: [{ family: 4, subnet: '10.9.0.0/16', gateway: '10.9.0.1' }] });
      const more = c.names({ servers: ['192.0.2.1'] });
      for (const effects of [c.driver.ensure(wider), c.driver.change(more, c.names()), c.driver.change(c.names({ endpoints: [] }), c.names())]) {
        for (let at = 0; at < effects.length; at++) {
          for (const kind of ['fail', 'die'] as const) {
            const transaction: BenchEffects = c.bench.effects({ at, kind });
            await transaction.run(effects).then(
              () => assert.fail('not cut'),
              (error: unknown) => (kind === 'die' ? assert.ok(error instanceof Died) : undefined),
            );
            await transaction.recover();
            assert.deepEqual(c.files(), before, `${kind} at ${at}`);
          }
        }
      }
    },
  },
];

/** The conformance suite of contract `dns`. What a service answers is for each driver's own tests: it speaks to a network. */
export const dnsSuite: Suite<DnsFactory, DnsContext> = {
  contract: 'dns',
  cases,
  async open(factory) {
    const bench = await factory.bench();
    return new DnsContext(bench, factory.create(bench.deps));
  },
};
