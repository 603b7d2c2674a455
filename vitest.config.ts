import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { defineConfig } from 'vitest/config';
import { parts } from './test/vm/selection.ts';

// Modules are loaded by Node itself: with vitest's own runner a plugin in node_modules would get a second copy of core.
// Who calls the product by itself gets no resident engine that goes on after the test; TestEngine says what it wants.
// Nor a network: that of the machine is not to be touched, networks are made in worlds (test/helpers/world.ts).
const shared = { experimental: { viteModuleRunner: false }, pool: 'forks', env: { ENGINE_RESIDENT: 'off', ENGINE_DRIVERS_NETWORK: 'none' } } as const;

/** What takes minutes begins first: else the other workers wait for it in the end. */
const long = ['test/crash/matrix', 'test/crash/network', 'test/e2e/same', 'test/e2e/chaos', 'test/e2e/coexist', 'test/e2e/peers', 'test/e2e/conformance/firewall', 'test/e2e/stuck', 'test/e2e/pool'];
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => {
      const at = long.findIndex((name) => moduleId.includes(name));
      return at < 0 ? long.length : at;
    };
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b));
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongFirst },
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: [
            'core/**/*.test.ts',
            'plugins/**/*.test.ts',
            'config/**/*.test.ts',
            'native/ts/**/*.test.ts',
            'test/{lint,docs,helpers,unit}/**/*.test.ts',
          ],
          // The sample's test is for node:test, as its authors run it.
          exclude: ['**/node_modules/**', '**/*.e2e.test.ts', 'plugins/sample/**'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        // Real containers, a few files at a time: each engine has roots of its own and answers for what is named after them.
        test: {
          ...shared,
          name: 'e2e',
          include: ['test/{e2e,advisories,crash}/**/*.test.ts', '{core,plugins,config,native}/**/*.e2e.test.ts'],
          exclude: ['**/node_modules/**', 'test/crash/**/*.soak.test.ts'],
          maxWorkers: 3,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
      {
        // In a guest on a stock kernel (test/vm): one process has several files, since loading what they need takes it seconds.
        test: {
          ...shared,
          name: 'vm',
          include: [...(parts[process.env['VM_PART'] ?? ''] ?? [])],
          exclude: ['**/node_modules/**'],
          isolate: false,
          maxWorkers: 1,
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
});
