import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { cutEverywhere, failsWith, listTree } from '../common/checks.ts';
import { type DriverDeps } from '../common/index.ts';
import { apply, applyOnCommit, type Bench, type Suite, type SuiteCase, type SuiteContext } from '../common/suite.ts';
import { type VolumeDriver } from './index.ts';

export interface VolumeFactory {
  bench(): Promise<Bench>;
  create(deps: DriverDeps): VolumeDriver;
}
export class VolumeContext implements SuiteContext {
  readonly bench: Bench;
  readonly driver: VolumeDriver;

  constructor(bench: Bench, driver: VolumeDriver) {
    this.bench = bench;
    this.driver = driver;
  }
  has(need: string): boolean {
    return this.bench.abilities.has(need) || this.driver.features.has(need);
  }
  close(): Promise<void> {
    return this.bench.close();
  }
  make(name: string): Promise<void> {
    return apply(this.bench, this.driver.create(name, {}));
  }
  remove(name: string): Promise<void> {
    return applyOnCommit(this.bench, this.driver.remove(name));
  }
  tree(): string[] {
    return listTree(this.bench.deps.folder);
  }
}

const cases: readonly SuiteCase<VolumeContext>[] = [
  {
    name: 'probe answers in words',
    needs: [],
    async run({ driver, bench }) {
      const probe = await driver.probe(bench.deps.machine);
      assert.ok(probe.reasons.length > 0);
    },
  },
  {
    name: 'a volume is an empty folder that lasts until it is removed, twice too',
    needs: [],
    async run(c) {
      assert.deepEqual(c.driver.list(), []);
      await c.make('data');
      const path = c.driver.mountpoint('data', c.bench.run);
      assert.deepEqual(fs.readdirSync(path), []);
      fs.writeFileSync(`${path}/x`, 'x');
      assert.deepEqual(c.driver.list(), ['data']);
      assert.equal(c.driver.mountpoint('data'), path);
      await c.remove('data');
      await c.remove('data');
      assert.deepEqual(c.driver.list(), []);
      assert.ok(!fs.existsSync(path));
      await c.make('data');
      assert.deepEqual(fs.readdirSync(c.driver.mountpoint('data')), []);
    },
  },
  {
    name: 'a name that is taken is refused, and what is in it stays, also when the engine dies over it',
    needs: ['faults'],
    async run(c) {
      await c.make('data');
      fs.writeFileSync(`${c.driver.mountpoint('data')}/precious`, 'x');
      const before = c.tree();
      await failsWith('ERR_OPERATION_FAILED', () => c.make('data'), 'EEXIST');
      assert.deepEqual(c.tree(), before);
      await failsWith('ERR_OPERATION_FAILED', () => cutEverywhere(c.bench, 'die', {
        verb: (effects) => effects.run(c.driver.create('data', {})),
        check: (at) => assert.deepEqual(c.tree(), before, `die at ${at}`),
      }), 'EEXIST');
      assert.deepEqual(c.tree(), before);
    },
  },
  {
    name: 'names that would lead elsewhere, and options it does not know, are refused',
    needs: [],
    async run({ driver }) {
      for (const bad of ['', '.', '..', '../x', 'a/b', '/etc', '.hidden', 'a\0b', 'x'.repeat(300)]) {
        await failsWith('ERR_INVALID_VALUE', () => driver.create(bad, {}));
        await failsWith('ERR_INVALID_VALUE', () => driver.remove(bad));
        await failsWith('ERR_INVALID_VALUE', () => driver.mountpoint(bad));
      }
      await failsWith('ERR_INVALID_VALUE', () => driver.create('data', { colour: 'red' }));
    },
  },
  {
    name: 'cut anywhere, a volume is there whole or not at all',
    needs: ['faults'],
    async run(c) {
      await c.make('data');
      await c.remove('data');
      const before = c.tree();
      for (const kind of ['fail', 'die'] as const) {
        await cutEverywhere(c.bench, kind, {
          verb: (effects) => effects.run(c.driver.create('data', {})),
          check: (at) => {
            assert.deepEqual(c.tree(), before, `${kind} at ${at}`);
            assert.deepEqual(c.driver.list(), []);
          },
        });
        await c.remove('data');
      }
      await cutEverywhere(c.bench, 'die', {
        prepare: () => c.make('data'),
        async verb(effects) {
          effects.onCommit(c.driver.remove('data'));
          await effects.commit();
        },
        check: (at) => assert.deepEqual(c.tree(), before, `removal, die at ${at}`),
      });
    },
  },
  {
    name: 'the folder is root\'s and readable for all, those above it are private',
    needs: ['owners'],
    async run(c) {
      await c.make('data');
      const { mode, uid, gid } = fs.statSync(c.driver.mountpoint('data'));
      assert.deepEqual([mode & 0o7777, uid, gid], [0o755, 0, 0]);
    },
  },
];

/** The conformance suite of contract `volume`. */
export const volumeSuite: Suite<VolumeFactory, VolumeContext> = {
  contract: 'volume',
  cases,
  async open(factory) {
    const bench = await factory.bench();
    return new VolumeContext(bench, factory.create(bench.deps));
  },
};
