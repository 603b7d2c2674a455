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

/** Text of config/keeper/services.ts: one lazy import per folder of plugins/ whose manifest has a `service`. */
export function servicesModule(): string {
  const services = readdirSync(join(root, 'plugins'))
    .sort()
    .flatMap((folder) => {
      const file = join(root, 'plugins', folder, 'package.json');
      if (folder === 'sample' || !existsSync(file)) return [];
      const { engine } = JSON.parse(readFileSync(file, 'utf8')) as { engine?: { name: string; service?: string } };
      if (engine?.service === undefined || !existsSync(join(root, 'plugins', folder, engine.service))) return [];
      return [`  '${engine.name}': () => import('../../${join('plugins', folder, engine.service)}'),`];
    });
  return `// Made by config/setup/builtins.ts from the manifests of plugins/. A test compares them.
import { type ServiceDefinition } from '@engine/core/plugin';

/** Services of the plugins that come with the engine. */
export const services: Readonly<Record<string, () => Promise<{ readonly default: ServiceDefinition<never> }>>> = {
${services.join('\n')}
};
`;
}

/** Write them where they changed. */
export function writeBuiltins(): void {
  for (const [path, text] of [
    ['config/builtins.ts', builtinsModule()],
    ['config/keeper/services.ts', servicesModule()],
  ] as const) {
    const file = join(root, path);
    if (!existsSync(file) || readFileSync(file, 'utf8') !== text) writeFileSync(file, text);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeBuiltins();
