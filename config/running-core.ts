import { registerHooks } from 'node:module';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

declare const ENGINE_BUNDLED: boolean | undefined;
/** Are we the bundle in dist? Set by the build. */
export const bundled = typeof ENGINE_BUNDLED !== 'undefined' && ENGINE_BUNDLED;

/** URL of the running copy of a public module of core or native; undefined when there is none of that name. */
export function runningCopy(specifier: string): string | undefined {
  const [, library, path = '/index'] = /^@engine\/(core|native)(\/.+)?$/.exec(specifier) ?? [];
  if (library === undefined) return undefined;
  if (bundled) {
    const url = new URL(`./${library}${path}.js`, import.meta.url);
    return existsSync(url) ? url.href : undefined;
  }
  try {
    return import.meta.resolve(specifier);
  } catch {
    return undefined;
  }
}

const loaded = new Set<string>();
/** Files of plugins from outside that were loaded, and what they import of their own. */
export const loadedFiles = (): ReadonlySet<string> => loaded;
const ownFolder = new URL(bundled ? '.' : '..', import.meta.url).href;

let mapped = false;
/**
 * From now on whoever imports `@engine/core…` or `@engine/native…` gets the copy that runs, also a plugin that carries another one in its
 * own node_modules: two copies would mean two hook tables and two kinds of errors. Called before the first foreign plugin is imported.
 */
export function mapRunningCore(): void {
  if (mapped) return;
  mapped = true;
  registerHooks({
    load(url, context, next) {
      if (url.startsWith('file:') && !url.startsWith(ownFolder)) loaded.add(fileURLToPath(url));
      return next(url, context);
    },
    resolve(specifier, context, next) {
      if (!/^@engine\/(core|native)(\/|$)/.test(specifier)) return next(specifier, context);
      // Unbundled: resolved as if this file had asked (import.meta.resolve would come back here).
      if (!bundled) return next(specifier, { ...context, parentURL: import.meta.url });
      const url = runningCopy(specifier);
      return url === undefined ? next(specifier, context) : { url, format: 'module', shortCircuit: true };
    },
  });
}
