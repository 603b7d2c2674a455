import { type Frontend } from '@engine/core/contracts/frontend';
import { type PluginContext } from '@engine/core/plugin';
import { builtins } from './builtins.ts';
import { readPackage } from './read-package.ts';

/** A built-in frontend. It gets no machine and no state: all it may do goes through the engine. */
export async function loadFrontend(driver: string): Promise<Frontend> {
  for (const { packageJson, load } of builtins) {
    const { manifest } = readPackage(packageJson);
    if (!manifest.provides?.some((provided) => provided.contract === 'frontend' && provided.driver === driver)) continue;
    const { default: definition } = await load();
    const { drivers } = definition.create({ manifest, options: {} } as unknown as PluginContext<never>);
    const found = drivers?.find(({ name }) => name === driver);
    if (found) return found as Frontend;
  }
  throw new Error(`there is no frontend ${driver}`);
}
