import { defineConfig } from 'vitest/config';

// Modules are loaded by Node itself: with vitest's own runner a plugin in node_modules would get a second copy of core.
// Who calls the product by itself gets no resident engine that goes on after the test; TestEngine says what it wants.
// Nor a network: that of the machine is not to be touched, networks are made in worlds (test/helpers/world.ts).
const shared = { experimental: { viteModuleRunner: false }, pool: 'forks', testTimeout: 20_000, hookTimeout: 20_000, env: { ENGINE_RESIDENT: 'off', ENGINE_DRIVERS_NETWORK: 'none' } } as const;

// Each in a net namespace and with roots of its own, and mostly waiting for packets that must not come.
const worlds = ['test/e2e/{coexist,firewall-drivers,guide-networks,network*,web}.test.ts', 'test/e2e/conformance/{firewall-*,network}.test.ts', 'test/advisories/network*.test.ts', 'test/crash/network.test.ts'];

export default defineConfig({
  test: {
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
        },
      },
      {
        // Real containers on one machine: one file after another, so that a leak has one suspect.
        test: {
          ...shared,
          name: 'e2e',
          include: ['test/{e2e,advisories,crash}/**/*.test.ts', '{core,plugins,config,native}/**/*.e2e.test.ts'],
          exclude: ['**/node_modules/**', 'test/crash/**/*.soak.test.ts', ...worlds],
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        // Networks: a few at a time.
        test: { ...shared, name: 'worlds', include: worlds, exclude: ['**/node_modules/**'], maxWorkers: 3, testTimeout: 180_000, hookTimeout: 180_000 },
      },
    ],
  },
});
