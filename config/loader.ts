import { createHash } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { fail, isEngineError } from '@engine/core/errors';
import { type PluginEntry } from '@engine/core/lifecycle';
import { type PluginDefinition, type PluginInstance, type PluginManifest } from '@engine/core/plugin';
import { builtins, type Builtin } from './builtins.ts';
import { didYouMean, isRecord, validate, withDefaults, type JsonSchema } from './json-schema.ts';
import { readPackage } from './read-package.ts';
import { type Config } from './schema.ts';

/** A plugin that is known by its manifest, before the engine can make it. */
export interface KnownPlugin {
  readonly manifest: PluginManifest;
  readonly builtin: boolean;
  /** Package name for built-in ones, folder for others. */
  readonly source: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly optionsDigest: string;
  readonly eager: boolean;
  /** Import its main module. Errors: ERR_PLUGIN_INVALID. */
  definition(): Promise<PluginDefinition>;
}

export interface LoadPlugins {
  readonly config: Pick<Config, 'plugins' | 'options' | 'security'>;
  /** Where packages are looked for; see LoadedConfig. */
  readonly pluginBase: string;
  /** Instead of the built-in ones; tests. */
  readonly builtins?: readonly Builtin[];
  /** Called for a plugin that is not usable, instead of throwing: so that `plugin ls` and `doctor` can show the rest. */
  readonly onBroken?: (entry: string, error: unknown) => void;
}

/**
 * Every plugin that the configuration knows, built-in ones first, then `plugins:` in its order. Manifests and options are checked, no code
 * is loaded. Errors: ERR_PLUGIN_INVALID names the package and the reason, ERR_CONFIG_INVALID for bad options.
 */
export async function loadPlugins({ config, pluginBase, builtins: own = builtins, onBroken }: LoadPlugins): Promise<KnownPlugin[]> {
  const known: KnownPlugin[] = [];
  for (const { packageJson, load } of own) {
    const { name, manifest } = readPackage(packageJson);
    known.push(await make(manifest, { builtin: true, source: name, config, load: async () => load() }));
  }
  for (const entry of config.plugins) {
    try {
      const { findPackage } = await import('./packages.ts');
      const { manifest, folder, main } = await findPackage(entry, pluginBase);
      const plugin = await make(manifest, { builtin: false, source: folder, config, load: () => importForeign(main) });
      refuseDuplicates(known, plugin, entry);
      known.push(plugin);
    } catch (error) {
      if (!onBroken) throw error;
      onBroken(entry, error);
    }
  }
  for (const name of Object.keys(config.options)) {
    if (known.some(({ manifest }) => manifest.name === name)) continue;
    const near = didYouMean(
      name,
      known.map(({ manifest }) => manifest.name),
    );
    const error = fail('ERR_CONFIG_INVALID', `options.${name}: there is no plugin of that name${near ? `, did you mean "${near}"?` : ''}`, {
      operation: 'config',
      path: name,
      hint: 'see: engine plugin ls',
    });
    if (!onBroken) throw error;
    onBroken(name, error);
  }
  return known;
}

interface Origin {
  readonly builtin: boolean;
  readonly source: string;
  readonly config: Pick<Config, 'options' | 'security'>;
  readonly load: () => Promise<unknown>;
}

async function make(manifest: PluginManifest, { builtin, source, config, load }: Origin): Promise<KnownPlugin> {
  const options = await optionsOf(manifest, config);
  return {
    manifest,
    builtin,
    source,
    options,
    optionsDigest: `sha256:${createHash('sha256').update(canonical(options)).digest('hex')}`,
    eager: (manifest.provides?.length ?? 0) === 0 || (manifest.taps?.length ?? 0) > 0,
    async definition() {
      const { name } = manifest;
      const invalid = (reason: string, cause?: unknown): never => {
        throw fail('ERR_PLUGIN_INVALID', `plugin ${name} (${source}) ${reason}`, {
          operation: 'load plugin',
          path: source,
          plugin: name,
          ...(cause === undefined ? {} : { cause }),
        });
      };
      let module: unknown;
      try {
        module = await load();
      } catch (error) {
        return invalid('cannot be loaded', error);
      }
      const definition = isRecord(module) || typeof module === 'object' ? (module as { default?: unknown }).default : undefined;
      if (typeof definition !== 'object' || definition === null || typeof (definition as PluginDefinition).create !== 'function') {
        return invalid('does not export default definePlugin({create})');
      }
      return definition as PluginDefinition;
    },
  };
}

type DriverKey = Exclude<keyof Config['security'], 'userns'>;
/** How `security:` reaches the driver of each name: as which of its plugin's options. Undefined: as if it had not been said. */
const securityOptions: { readonly [K in DriverKey]: (value: Config['security'][K]) => Record<string, unknown> | undefined } =
  {
    seccomp: (profile) => (profile === 'default' ? undefined : { profile }),
    apparmor: (profile) => (profile === 'engine-default' ? undefined : { profile }),
    capabilities: (value) => (value === 'default' ? undefined : { default: value === 'none' ? [] : value }),
  };

/** What `.enginerc` says to this plugin, defaults filled in. */
async function optionsOf(manifest: PluginManifest, config: Pick<Config, 'options' | 'security'>): Promise<Record<string, unknown>> {
  const schema = manifest.options as JsonSchema | undefined;
  let given: Record<string, unknown> = config.options[manifest.name] ?? {};
  for (const { contract, driver } of manifest.provides ?? []) {
    if (contract !== 'security' || !Object.hasOwn(securityOptions, driver)) continue;
    const key = driver as DriverKey;
    const translate = securityOptions[key] as (value: unknown) => Record<string, unknown> | undefined;
    const wished = translate(config.security[key]);
    if (wished && Object.keys(wished).every((name) => schema?.properties?.[name])) given = { ...wished, ...given };
  }
  if (Object.keys(given).length > 0) {
    const problem = (await validate({ type: 'object', additionalProperties: false, ...schema }, given))[0];
    if (problem) {
      const at = `options.${manifest.name}${problem.pointer.replaceAll('/', '.')}`;
      throw fail('ERR_CONFIG_INVALID', `${at}: ${problem.message}`, { operation: 'config', path: at, plugin: manifest.name });
    }
  }
  return withDefaults(schema, given);
}

/** JSON with sorted keys, so that equal options have equal digests. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (!isRecord(value)) return JSON.stringify(value) ?? 'null';
  return `{${Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`)
    .join(',')}}`;
}

function refuseDuplicates(known: readonly KnownPlugin[], plugin: KnownPlugin, entry: string): void {
  const invalid = (reason: string): never => {
    throw fail('ERR_PLUGIN_INVALID', `plugin ${entry}: ${reason}`, {
      operation: 'load plugin',
      path: plugin.source,
      plugin: plugin.manifest.name,
      hint: 'remove one of the two from the configuration',
    });
  };
  for (const other of known) {
    if (other.manifest.name === plugin.manifest.name) invalid(`there is a plugin ${other.manifest.name} already (${other.source})`);
    for (const { contract, driver } of plugin.manifest.provides ?? []) {
      if (other.manifest.provides?.some((theirs) => theirs.contract === contract && theirs.driver === driver)) {
        invalid(`${contract} driver ${driver} is provided by plugin ${other.manifest.name} already`);
      }
    }
    // Drivers of one contract replace each other and may own the same sections; what always takes part may not.
    if (!alwaysTakesPart(plugin) || !alwaysTakesPart(other)) continue;
    const section = plugin.manifest.sections?.find((name) => other.manifest.sections?.includes(name));
    if (section) invalid(`section ${section} of the OCI spec is compiled by plugin ${other.manifest.name} already`);
  }
}
const alwaysTakesPart = ({ eager, manifest }: KnownPlugin): boolean =>
  eager || (manifest.provides ?? []).some(({ contract }) => contract === 'security');

async function importForeign(main: string): Promise<unknown> {
  const { mapRunningCore } = await import('./running-core.ts');
  mapRunningCore();
  return import(/* @vite-ignore */ pathToFileURL(main).href);
}

/** What the core is handed: the plugin with the means to make it. `create` is called at most once, after `prepare`. */
export function toEntry(
  plugin: KnownPlugin,
  create: (plugin: KnownPlugin, definition: PluginDefinition) => PluginInstance,
  prepare?: (plugin: KnownPlugin, definition: PluginDefinition) => Promise<void>,
  importing: (plugin: KnownPlugin, load: () => Promise<PluginDefinition>) => Promise<PluginDefinition> = (_plugin, load) => load(),
): PluginEntry {
  const { manifest, builtin, source, optionsDigest, eager } = plugin;
  return {
    manifest,
    builtin,
    source,
    optionsDigest,
    eager,
    async load() {
      const definition = await importing(plugin, () => plugin.definition());
      await prepare?.(plugin, definition);
      try {
        const instance: unknown = create(plugin, definition);
        if (typeof instance !== 'object' || instance === null || instance instanceof Promise)
          throw new TypeError('create must return an object, and not a promise');
        return instance as PluginInstance;
      } catch (cause) {
        if (isEngineError(cause)) throw cause;
        throw fail('ERR_PLUGIN_FAILED', `plugin ${manifest.name} failed in create`, {
          operation: 'create plugin',
          path: source,
          plugin: manifest.name,
          cause,
        });
      }
    },
  };
}
