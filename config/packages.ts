import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname, extname, isAbsolute, join, resolve } from 'node:path';
import { fail } from '@engine/core/errors';
import { checkManifest } from './manifest.ts';
import { checkOwnership } from './ownership.ts';
import { type Package } from './read-package.ts';

/** A plugin's package on disk. */
export interface FoundPackage extends Package {
  readonly folder: string;
  /** Absolute path of the module whose default export is the definition. */
  readonly main: string;
}

/**
 * The package that an entry of `plugins:` names: a path (`./x`, `/x`: its folder, or its package.json), or a package that is looked for in the
 * `node_modules` folders from `base` upwards, as Node does. Only package.json is read. Errors: ERR_PLUGIN_INVALID, ERR_CONFIG_UNTRUSTED.
 */
export async function findPackage(entry: string, base: string): Promise<FoundPackage> {
  const invalid = (reason: string, hint?: string, cause?: unknown): never => {
    throw fail('ERR_PLUGIN_INVALID', `plugin ${entry}: ${reason}`, {
      operation: 'load plugin',
      path: entry,
      plugin: entry,
      ...(hint ? { hint } : {}),
      ...(cause === undefined ? {} : { cause }),
    });
  };
  const isPath = isAbsolute(entry) || /^\.{1,2}(\/|$)/.test(entry);
  let folder: string;
  if (isPath) {
    folder = resolve(base, entry);
    if (folder.endsWith('/package.json')) folder = dirname(folder);
    if (!existsSync(folder)) return invalid(`there is no folder ${folder}`);
    if (!statSync(folder).isDirectory()) return invalid('name its folder, not a file', `write ${dirname(entry)}`);
    folder = realpathSync(folder);
  } else {
    const found = searchUp(entry, base);
    if (found === undefined)
      return invalid(`there is no such package in ${base} or above it`, `install it with: cd ${base} && npm install ${entry}`);
    folder = realpathSync(found);
  }
  const file = join(folder, 'package.json');
  if (!existsSync(file)) return invalid(`${folder} has no package.json`);
  checkOwnership(file, 'plugin');
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    return invalid(`${file} is not valid JSON`, undefined, cause);
  }
  const found = await checkManifest(json, folder);
  const usable = (what: string, path: string): string => {
    const module = join(folder, path);
    if (!existsSync(module)) return invalid(`its ${what} file ${module} is not there`, extname(module) === '.js' ? 'it may have to be built first' : undefined);
    if (/\/node_modules\//.test(realpathSync(module)) && /\.[cm]?ts$/.test(module)) {
      return invalid(`its ${what} file is TypeScript, which works for plugins by path only`, 'its author ships JavaScript');
    }
    checkOwnership(module, 'plugin');
    return module;
  };
  const main = usable('main', found.manifest.main);
  if (found.manifest.service !== undefined) usable('service', found.manifest.service);
  return { ...found, folder, main };
}

function searchUp(name: string, base: string): string | undefined {
  if (!/^(@[\w.~-]+\/)?[\w~-][\w.~-]*$/.test(name)) return undefined;
  for (let folder = resolve(base); ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
    if (folder === dirname(folder)) return undefined;
  }
}
