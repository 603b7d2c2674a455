import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const root = join(import.meta.dirname, '../..');

/** Text of config/builtins.ts: one lazy import per folder of plugins/, except the sample, which is there to be copied. */
export function builtinsModule(): string {
  const folders = readdirSync(join(root, 'plugins'))
    .filter((name) => name !== 'sample' && existsSync(join(root, 'plugins', name, 'package.json')))
    .filter((name) =>
      existsSync(
        join(
          root,
          'plugins',
          name,
          (JSON.parse(readFileSync(join(root, 'plugins', name, 'package.json'), 'utf8')) as { engine: { main: string } }).engine.main,
        ),
      ),
    )
    .sort();
  const local = (name: string): string => name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
  return `// Made by config/setup/builtins.ts from the folders of plugins/. A test compares them.
import { type PluginDefinition } from '@engine/core/plugin';
${folders.map((name) => `import ${local(name)} from '../plugins/${name}/package.json' with { type: 'json' };`).join('\n')}

/** A plugin that comes with the engine: its package.json, and how its code is loaded when it is needed. */
export interface Builtin {
  readonly packageJson: { readonly [key: string]: unknown };
  readonly load: () => Promise<{ readonly default: PluginDefinition<never> }>;
}

export const builtins: readonly Builtin[] = [
${folders.map((name) => `  { packageJson: ${local(name)}, load: () => import('../plugins/${name}/plugin.ts') },`).join('\n')}
];
`;
}

/** Write it where it changed. */
export function writeBuiltins(): void {
  const file = join(root, 'config/builtins.ts');
  const text = builtinsModule();
  if (!existsSync(file) || readFileSync(file, 'utf8') !== text) writeFileSync(file, text);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeBuiltins();
