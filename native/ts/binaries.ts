import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '@engine/core/errors';

/** The folder with engine-shim and libengine.so: `dist/bin` of the checkout, seen from the sources or from the bundle. */
export function binaryFolder(): string {
  for (const candidate of ['bin', '../bin', '../../dist/bin']) {
    const folder = join(import.meta.dirname, candidate);
    if (existsSync(join(folder, 'engine-shim'))) return folder;
  }
  throw fail('ERR_NATIVE', 'the shim is not built', { path: join(import.meta.dirname, '../../dist/bin'), hint: 'build it with: sh config/setup/build-native.sh' });
}
