import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createFakeNative, type FakeNativeOptions } from '../../native/fake.ts';
import { createBench, fakeMachine } from './bench.ts';
import { type Machine } from './index.ts';
import { type Bench } from './suite.ts';

/** A bench of level 1: no root, no processes; file operations happen in a folder of its own, everything else is only recorded. */
export async function fakeBench(options: { readonly machine?: Partial<Machine>; readonly ioctl?: NonNullable<FakeNativeOptions['ioctl']> } = {}): Promise<Bench> {
  const parent = realpathSync(mkdtempSync(join(tmpdir(), 'engine-fake-')));
  const native = createFakeNative({ prefix: parent, ...(options.ioctl && { ioctl: options.ioctl }) });
  const bench = await createBench({ native, level: 1, parent, machine: (folders) => fakeMachine(folders, options.machine) });
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
