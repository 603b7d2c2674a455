import { join } from 'node:path';
import { rolldown } from 'rolldown';

/** Bundles the victim into dist/test, beside the product's own bundle, or into the folder that is named. */
const root = join(import.meta.dirname, '../..');
const bundle = await rolldown({
  cwd: root, input: { victim: 'test/crash/victim.ts' }, platform: 'node', external: ['koffi', 'pino', /^koffi\//, /^node:/], transform: { define: { ENGINE_BUNDLED: 'true' } }, onwarn: () => {},
} as Parameters<typeof rolldown>[0]);
await bundle.write({ dir: join(root, process.argv[2] ?? 'dist/test'), format: 'esm', entryFileNames: '[name].js', chunkFileNames: 'chunks/[name]-[hash].js' });
await bundle.close();
