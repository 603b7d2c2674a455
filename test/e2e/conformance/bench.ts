import { existsSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createBench } from '@engine/core/contracts/common/bench';
import { type Machine } from '@engine/core/contracts/common';
import { type Bench } from '@engine/core/contracts/common/suite';
import { createNative } from '@engine/native';
import { readMachine } from '@engine/config/machine';

const testShim = fileURLToPath(new URL('../../../dist/bin/engine-shim-test', import.meta.url));

/** Why suites of level 2 cannot run here; undefined when they can. */
export const unable = process.getuid?.() !== 0 ? 'not root' : existsSync(testShim) ? undefined : 'the test shim is not built (sh config/setup/build-native.sh)';

/** A bench of level 2: the real shim, which can be killed at every operation. `parent`: a folder on the filesystem to be tested. */
export async function realBench(options: { readonly parent?: string; readonly machine?: Partial<Machine> } = {}): Promise<Bench> {
  const parent = realpathSync(mkdtempSync(`${options.parent ?? '/var/tmp'}/engine-conformance-`));
  const bench = await createBench({
    native: createNative({ shimPath: testShim }), level: 2, parent, killable: true,
    // Read anew for each bench: the mount that the test made is one of them.
    machine: (folders) => ({ ...readMachine(folders), ...options.machine }),
  });
  return {
    ...bench,
    async close() {
      try {
        await bench.close();
      } finally {
        rmSync(parent, { recursive: true, force: true });
      }
    },
  };
}
