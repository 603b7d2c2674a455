import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Bench, type Suite, type SuiteContext } from '@engine/core/contracts/common/suite';
import { type Driver, type DriverDeps } from '@engine/core/contracts/common';
import { describeError, fail } from '@engine/core/errors';
import { contractKinds, type ContractName, type PluginDefinition } from '@engine/core/plugin';
import { createComposition } from './compose.ts';
import { didYouMean } from './json-schema.ts';
import { loadPlugins, type KnownPlugin } from './loader.ts';
import { readMachine } from './machine.ts';
import { findPackage } from './packages.ts';
import { bundled, runningCopy } from './running-core.ts';
import { defaults } from './schema.ts';
import { type LoadedConfig } from './sources.ts';
import { version } from './version.ts';

/** The checkout or installation: where plugins/sample lies. */
const home = join(import.meta.dirname, '..');

export interface PluginLine {
  readonly name: string;
  readonly version: string;
  readonly provides: readonly string[];
  readonly source: string;
  readonly builtin: boolean;
  /** Why it can't be used. */
  readonly error?: string;
}

/** Every plugin that the configuration names, without loading code of any; one that is broken is listed with the reason. */
export async function listPlugins(config: LoadedConfig): Promise<PluginLine[]> {
  const broken: PluginLine[] = [];
  const known = await loadPlugins({
    config: config.value,
    pluginBase: config.pluginBase,
    onBroken: (entry, error) =>
      broken.push({ name: entry, version: '', provides: [], source: entry, builtin: false, error: describeError(error) }),
  });
  const lines = known.map(({ manifest, source, builtin }) => ({
    name: manifest.name,
    version: manifest.version,
    source,
    builtin,
    provides: (manifest.provides ?? []).map(({ contract, driver }) => `${contract}:${driver}`),
  }));
  return [...lines, ...broken];
}

/** Contracts that there is a plugin to copy for. */
const templates: Partial<Record<ContractName, string>> = { storage: 'plugins/sample' };

/**
 * Make folder `name` (or a path ending in it) from the sample plugin of a contract: a driver that works, its test, a README.
 * Returns the folder. Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED for a contract without a sample.
 */
export function newPlugin(path: string, options: { readonly contract?: string; readonly cwd?: string } = {}): string {
  const folder = resolve(options.cwd ?? process.cwd(), path);
  const name = folder.split('/').at(-1) ?? '';
  if (!/^[a-z][a-z0-9-]*$/.test(name))
    throw fail('ERR_INVALID_VALUE', `"${name}" is no name for a plugin: lower case letters, digits and dashes`, {
      operation: 'plugin new',
    });
  const contract = options.contract ?? 'storage';
  if (!Object.hasOwn(contractKinds, contract)) {
    const near = didYouMean(contract, Object.keys(contractKinds));
    throw fail('ERR_INVALID_VALUE', `there is no contract "${contract}"${near ? `, did you mean "${near}"?` : ''}`, {
      operation: 'plugin new',
      hint: `contracts: ${Object.keys(contractKinds).join(', ')}`,
    });
  }
  const template = templates[contract as ContractName];
  if (template === undefined) {
    throw fail('ERR_NOT_SUPPORTED', `there is no sample of a ${contract} plugin yet`, {
      operation: 'plugin new',
      hint: `with a sample: ${Object.keys(templates).join(', ')}; for others read docs/plugins and a built-in plugin of that contract`,
    });
  }
  if (existsSync(folder) && readdirSync(folder).length > 0)
    throw fail('ERR_INVALID_VALUE', `${folder} exists and is not empty`, { operation: 'plugin new', path: folder });
  mkdirSync(folder, { recursive: true });
  const source = join(home, template);
  const pascal = name.replace(/(^|-)(\w)/g, (_, _dash: string, letter: string) => letter.toUpperCase());
  for (const file of readdirSync(source)) {
    if (file === 'node_modules') continue;
    if (!/\.(ts|md|json)$/.test(file)) cpSync(join(source, file), join(folder, file));
    else writeFileSync(join(folder, file), rename(file, readFileSync(join(source, file), 'utf8'), name, pascal));
  }
  return realpathSync(folder);
}

function rename(file: string, text: string, name: string, pascal: string): string {
  if (file === 'package.json') {
    const json = JSON.parse(text) as { name: string; devDependencies?: object; engine: { name: string; provides: { driver: string }[] } };
    json.name = `engine-plugin-${name}`;
    // Nothing but the engine is needed to write, check and use it.
    delete json.devDependencies;
    json.engine.name = name;
    for (const provided of json.engine.provides) provided.driver = name;
    return `${JSON.stringify(json, null, 2)}\n`;
  }
  return text
    .replaceAll('Sample', pascal)
    .replaceAll('mystore', name)
    .replaceAll(/'sample'|\bsample(?=,)|^# sample/gm, (match) => match.replace('sample', name));
}

export interface CheckLine {
  readonly state: 'ok' | 'failed' | 'skipped';
  readonly what: string;
  readonly detail?: string;
}

/**
 * Everything that can be known of a plugin without using it: manifest, options, loading, and for each driver the suite of its contract: level 1
 * on a fake machine, level 2 (as root) on this one. Yields a line as soon as it is known; the plugin is good when none says `failed`.
 */
export async function* checkPlugin(
  folder: string,
  options: { readonly cwd?: string; readonly level?: 1 | 2; readonly schemaOptions?: Readonly<Record<string, unknown>> } = {},
): AsyncGenerator<CheckLine> {
  const cwd = options.cwd ?? process.cwd();
  const entry = resolve(cwd, folder);
  let plugin: KnownPlugin;
  try {
    const found = await findPackage(entry, cwd);
    const config = {
      plugins: [entry],
      options: options.schemaOptions ? { [found.manifest.name]: { ...options.schemaOptions } } : {},
      security: defaults.security,
    };
    plugin = (await loadPlugins({ config, pluginBase: cwd, builtins: [] }))[0] as KnownPlugin;
    yield {
      state: 'ok',
      what: `manifest of ${plugin.manifest.name} ${plugin.manifest.version}`,
      detail: `for core ${plugin.manifest.core ?? ''}, this is ${version}`,
    };
  } catch (error) {
    yield { state: 'failed', what: 'manifest', detail: describeError(error) };
    return;
  }
  let definition: PluginDefinition;
  try {
    definition = await plugin.definition();
    yield { state: 'ok', what: 'its code loads', detail: join(plugin.source, plugin.manifest.main) };
  } catch (error) {
    yield { state: 'failed', what: 'its code loads', detail: describeError(error) };
    return;
  }
  for (const [index, { contract, driver: name }] of (plugin.manifest.provides ?? []).entries()) {
    const create = (deps: DriverDeps): Driver => {
      const { drivers } = createComposition().create(plugin, definition, {
        ...deps,
        options: plugin.options,
        manifest: plugin.manifest,
        tap: () => {},
        engine: () => Promise.reject(fail('ERR_NOT_SUPPORTED', 'there is no engine in a check')),
      });
      const driver = drivers?.[index]?.name === name ? drivers[index] : drivers?.find((candidate) => candidate.name === name);
      if (!driver)
        throw fail('ERR_PLUGIN_INVALID', `it promises ${contract} driver ${name} but does not make it`, { plugin: plugin.manifest.name });
      return driver;
    };
    yield* checkDriver(
      contract,
      name,
      plugin.manifest.provides?.[index]?.features ?? [],
      create,
      options.level ?? (process.geteuid?.() === 0 ? 2 : 1),
    );
  }
}

type Create = (deps: DriverDeps) => Driver;

async function* checkDriver(
  contract: ContractName,
  name: string,
  features: readonly string[],
  create: Create,
  most: 1 | 2,
): AsyncGenerator<CheckLine> {
  const what = `${contract} driver ${name}`;
  const { fakeBench } = await import('@engine/core/contracts/common/fake-bench');
  try {
    const bench = await fakeBench();
    try {
      const driver = create(bench.deps);
      const undeclared = [...driver.features].filter((feature) => !features.includes(feature));
      if (undeclared.length > 0)
        yield { state: 'failed', what: `${what}: features`, detail: `${undeclared.join(', ')} not in the manifest` };
      const probe = await driver.probe(readMachine({ root: bench.deps.machine.root, runRoot: bench.deps.machine.runRoot }));
      yield {
        state: 'ok',
        what: `${what}: probe`,
        detail: `${probe.available ? `available, score ${probe.score}` : 'not available here'}: ${probe.reasons.join('; ')}`,
      };
    } finally {
      await bench.close();
    }
  } catch (error) {
    yield { state: 'failed', what, detail: describeError(error) };
    return;
  }
  const suite = await loadSuite(contract);
  if (!suite) {
    yield { state: 'skipped', what: `${what}: conformance`, detail: `contract ${contract} has no suite` };
    return;
  }
  yield* runSuite(`${what}, level 1 (fake machine)`, suite, create, () => fakeBench());
  if (most < 2) {
    yield { state: 'skipped', what: `${what}, level 2`, detail: 'needs root' };
    return;
  }
  const [{ createBench }, { createNative }] = await Promise.all([import('@engine/core/contracts/common/bench'), import('@engine/native')]);
  yield* runSuite(`${what}, level 2 (this machine)`, suite, create, () =>
    createBench({ native: createNative(), level: 2, machine: readMachine, parent: '/var/tmp' }),
  );
}

type AnySuite = Suite<{ bench(): Promise<Bench>; create: Create }, SuiteContext>;

async function loadSuite(contract: ContractName): Promise<AnySuite | undefined> {
  const url = runningCopy(`@engine/core/contracts/${contract}/suite`);
  if (url === undefined || (!bundled && !existsSync(new URL(url)))) return undefined;
  const module = (await import(/* @vite-ignore */ url)) as Record<string, unknown>;
  return module[`${contract}Suite`] as AnySuite | undefined;
}

async function* runSuite(what: string, suite: AnySuite, create: Create, bench: () => Promise<Bench>): AsyncGenerator<CheckLine> {
  const { runCase } = await import('@engine/core/contracts/common/suite');
  let passed = 0;
  const skipped: string[] = [];
  let failed = 0;
  for (const one of suite.cases) {
    let reason: string | undefined;
    try {
      await runCase(suite, one, { bench, create }, (why) => (reason = why));
      if (reason === undefined) passed++;
      else skipped.push(`${one.name} (${reason})`);
    } catch (error) {
      failed++;
      yield { state: 'failed', what: `${what}: ${one.name}`, detail: firstLines(describeError(error)) };
    }
  }
  yield { state: failed > 0 ? 'failed' : 'ok', what, detail: `${passed} passed, ${failed} failed, ${skipped.length} do not apply` };
}
const firstLines = (text: string): string =>
  text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .slice(0, 6)
    .join(' | ');
