import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as core from '@engine/core/errors';
import { builtins } from './builtins.ts';
import { createComposition, type PluginValues } from './compose.ts';
import { loadPlugins, toEntry } from './loader.ts';
import { checkManifest } from './manifest.ts';
import { builtinsModule, servicesModule } from './setup/builtins.ts';
import { defaults } from './schema.ts';

let base: string;
beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'engine-loader-')));
});
afterEach(() => rmSync(base, { recursive: true }));

interface Plugin {
  folder?: string;
  manifest?: object;
  packageJson?: object;
  main?: string;
  files?: Record<string, string>;
}
const engineBlock = { name: 'mine', main: './plugin.ts', provides: [{ contract: 'storage', driver: 'mine' }] };
function plugin({
  folder = 'mine',
  manifest = {},
  packageJson = {},
  main = 'export default { create: () => ({}) };',
  files = {},
}: Plugin = {}): string {
  const at = join(base, folder);
  const all = {
    'package.json': JSON.stringify({
      name: 'mine',
      version: '1.0.0',
      type: 'module',
      peerDependencies: { '@engine/core': '^0.1.0' },
      engine: { ...engineBlock, ...manifest },
      ...packageJson,
    }),
    'plugin.ts': main,
    ...files,
  };
  for (const [name, text] of Object.entries(all)) {
    mkdirSync(dirname(join(at, name)), { recursive: true });
    writeFileSync(join(at, name), text);
  }
  return at;
}
const load = (plugins: string[], options: Record<string, Record<string, unknown>> = {}) =>
  loadPlugins({ config: { plugins, options, security: defaults.security }, pluginBase: base, builtins });
const invalid = (message: RegExp, code = 'ERR_PLUGIN_INVALID') =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe('built-in plugins', () => {
  test('the table is that of the folders', async () => {
    const { readFileSync } = await import('node:fs');
    expect(readFileSync(join(import.meta.dirname, 'builtins.ts'), 'utf8')).toBe(builtinsModule());
    expect(readFileSync(join(import.meta.dirname, 'keeper/services.ts'), 'utf8')).toBe(servicesModule());
  });
  test.each(builtins.map(({ packageJson }) => [String(packageJson.name), packageJson] as const))(
    '%s has a good manifest',
    async (name, packageJson) => {
      const { manifest } = await checkManifest(packageJson, name);
      expect(name).toBe(`@engine/plugin-${manifest.name}`);
      expect(packageJson.license).toBe('Apache-2.0');
    },
  );
  test('all load together, and make what they promise', async () => {
    for (const known of await load([])) expect(typeof (await known.definition()).create).toBe('function');
  });
});

describe('finding', () => {
  test('by path, as TypeScript, from the folder of the file that names it', async () => {
    plugin();
    const found = (await load(['./mine'])).at(-1);
    expect(found?.manifest).toMatchObject({ name: 'mine', version: '1.0.0', core: '^0.1.0' });
    expect(found?.source).toBe(join(base, 'mine'));
  });
  test('by package name, ESM only, from a node_modules folder above', async () => {
    plugin({
      folder: 'node_modules/@acme/x',
      manifest: { main: './main.js' },
      packageJson: { exports: { import: './main.js' } },
      files: { 'main.js': `import { fail } from '@engine/core/errors'; export default { create: () => ({ fail }) };` },
    });
    mkdirSync(join(base, 'a/b'), { recursive: true });
    const [found] = await loadPlugins({
      config: { plugins: ['@acme/x'], options: {}, security: defaults.security },
      pluginBase: join(base, 'a/b'),
      builtins: [],
    });
    const definition = await found!.definition();
    expect((definition.create as () => { fail: unknown })().fail).toBe(core.fail);
  });
  test('a copy of core that the plugin carries is not used', async () => {
    plugin({
      main: `import { fail, EngineError } from '@engine/core/errors'; export default { create: () => ({ fail, EngineError }) };`,
      files: {
        'node_modules/@engine/core/package.json': JSON.stringify({
          name: '@engine/core',
          version: '0.0.1',
          type: 'module',
          exports: { './errors': './errors.js' },
        }),
        'node_modules/@engine/core/errors.js': 'export const fail = 1; export class EngineError {}; globalThis.__oldCore = true;',
      },
    });
    const definition = await (await load(['./mine'])).at(-1)!.definition();
    expect((definition.create as () => object)()).toEqual({ fail: core.fail, EngineError: core.EngineError });
    expect(globalThis).not.toHaveProperty('__oldCore');
  });
  test.each([
    ['./nowhere', /there is no folder/],
    ['@acme/none', /there is no such package/],
    ['../../etc/passwd', /there is no folder|name its folder/],
    ['not a name', /there is no such package/],
  ])('%s', async (entry, message) => expect(load([entry])).rejects.toEqual(invalid(message)));

  test('a file instead of a folder', async () => {
    plugin();
    await expect(load(['./mine/plugin.ts'])).rejects.toEqual(invalid(/name its folder/));
  });
  test('TypeScript in node_modules', async () => {
    plugin({ folder: 'node_modules/mine' });
    await expect(load(['mine'])).rejects.toEqual(invalid(/works for plugins by path only/));
  });
  test('somebody else could have written it', async () => {
    const folder = plugin();
    chmodSync(join(folder, 'plugin.ts'), 0o666);
    await expect(load(['./mine'])).rejects.toEqual(invalid(/can be written by others/, 'ERR_CONFIG_UNTRUSTED'));
    chmodSync(join(folder, 'plugin.ts'), 0o644);
    chmodSync(folder, 0o777);
    symlinkSync(folder, join(base, 'link'));
    await expect(load(['./link'])).rejects.toEqual(invalid(/can be written by others/, 'ERR_CONFIG_UNTRUSTED'));
  });
});

describe('manifests, checked before any code runs', () => {
  const trap = `globalThis.__ran = true; export default {};`;
  test.each([
    [{ packageJson: { engine: undefined } }, /has no "engine" block/],
    [{ manifest: { provides: [{ contract: 'storge', driver: 'x' }] } }, /contract: "storge" is not one of .*did you mean "storage"/],
    [{ manifest: { provide: [] } }, /unknown key "provide", did you mean "provides"/],
    [
      {
        manifest: {
          provides: [
            { contract: 'log', driver: 'x' },
            { contract: 'log', driver: 'x' },
          ],
        },
      },
      /log driver x is provided twice/,
    ],
    [{ manifest: { requires: ['everything'] } }, /"everything" is not one of/],
    [{ manifest: { main: './../x.ts' } }, /leads out/],
    [{ manifest: { main: './other.ts' } }, /is not there/],
    [{ manifest: { service: './../x.ts' } }, /"service" leads out/],
    [{ manifest: { service: './service.ts' } }, /its service file .* is not there/],
    [{ manifest: { service: 'service.ts' } }, /service/],
    [{ manifest: { sections: ['linux.x', 'linux.x'] } }, /named twice/],
    [{ manifest: { sections: ['/linux'] } }, /not a dotted path/],
    [{ packageJson: { peerDependencies: {} } }, /does not say which @engine\/core/],
    [{ packageJson: { peerDependencies: { '@engine/core': '^9.0.0' } } }, /works with @engine\/core \^9\.0\.0, this is/],
    [{ packageJson: { peerDependencies: { '@engine/core': 'newest' } } }, /is not a version range/],
    [{ manifest: { name: 'storage-overlay', provides: [] } }, /there is a plugin storage-overlay already/],
    [
      { manifest: { provides: [{ contract: 'storage', driver: 'overlay' }] } },
      /storage driver overlay is provided by plugin storage-overlay already/,
    ],
    [{ manifest: { provides: [], sections: ['mounts'] } }, /section mounts of the OCI spec is compiled by plugin linux-base already/],
    [{ files: { 'package.json': '{' } }, /not valid JSON/],
  ])('%j', async (options, message) => {
    plugin({ main: trap, ...options });
    await expect(load(['./mine'])).rejects.toEqual(invalid(message));
    expect(globalThis).not.toHaveProperty('__ran');
  });

  test('a plugin that is not asked for is not imported', async () => {
    plugin({ main: trap });
    await load(['./mine']);
    expect(globalThis).not.toHaveProperty('__ran');
  });
  test('broken ones can be collected instead', async () => {
    plugin({ manifest: { provides: 5 } });
    const broken: string[] = [];
    const known = await loadPlugins({
      config: { plugins: ['./mine', './none'], options: {}, security: defaults.security },
      pluginBase: base,
      builtins,
      onBroken: (entry) => broken.push(entry),
    });
    expect(broken).toEqual(['./mine', './none']);
    expect(known).toHaveLength(builtins.length);
  });
});

describe('code', () => {
  test.each([
    ['export const x = 1;', /does not export default definePlugin/],
    ['throw new Error("boom");', /cannot be loaded/],
    ['import "./missing.ts"; export default { create() {} };', /cannot be loaded/],
    ['export default { create: 5 };', /does not export default/],
  ])('%s', async (main, message) => {
    plugin({ main });
    await expect((await load(['./mine'])).at(-1)!.definition()).rejects.toEqual(invalid(message));
  });
  test('create that throws, or is asynchronous, names the plugin', async () => {
    plugin({ main: 'export default { create() { throw new Error("no") } };' });
    const known = (await load(['./mine'])).at(-1)!;
    const entry = toEntry(known, (_, definition) => definition.create({} as never));
    await expect(entry.load()).rejects.toEqual(invalid(/plugin mine failed in create/, 'ERR_PLUGIN_FAILED'));
    const late = toEntry(known, () => Promise.resolve({}) as never);
    await expect(late.load()).rejects.toEqual(invalid(/failed in create/, 'ERR_PLUGIN_FAILED'));
  });
});

describe('options', () => {
  const options = {
    type: 'object',
    additionalProperties: false,
    properties: {
      size: { type: 'string', default: '1G' },
      deep: { type: 'object', properties: { on: { type: 'boolean', default: true } } },
    },
  };
  test('validated, defaults filled in, equal ones with equal digests', async () => {
    plugin({ manifest: { options } });
    const one = (await load(['./mine'], { mine: { deep: { on: true } } })).at(-1)!;
    expect(one.options).toEqual({ size: '1G', deep: { on: true } });
    const two = (await load(['./mine'], { mine: { size: '1G' } })).at(-1)!;
    expect(two.optionsDigest).toBe(one.optionsDigest);
    expect((await load(['./mine'], { mine: { size: '2G' } })).at(-1)!.optionsDigest).not.toBe(one.optionsDigest);
  });
  test.each([
    [{ mine: { siz: '1' } }, /options\.mine\.siz: unknown key "siz", did you mean "size"/],
    [{ mine: { size: 1 } }, /options\.mine\.size: 1 is not a string/],
    [{ 'storage-overly': {} }, /no plugin of that name, did you mean "storage-overlay"/],
  ])('%j', async (given, message) => {
    plugin({ manifest: { options } });
    await expect(load(['./mine'], given)).rejects.toEqual(invalid(message, 'ERR_CONFIG_INVALID'));
  });
  test('security: of the configuration reaches the drivers', async () => {
    const known = await loadPlugins({
      config: { plugins: [], options: {}, security: { seccomp: '/p.json', apparmor: 'x', userns: 'auto', capabilities: 'none' } },
      pluginBase: base,
    });
    expect(known.find(({ manifest }) => manifest.name === 'security-seccomp')?.options).toMatchObject({ profile: '/p.json' });
    expect(known.find(({ manifest }) => manifest.name === 'security-capabilities')?.options).toMatchObject({ default: [] });
  });
});

describe('composition', () => {
  const values = {
    machine: {},
    state: {},
    log: {},
    folder: '/f',
    serviceFolder: '/s',
    instance: 'i',
    options: {},
    manifest: {},
    tap() {},
    engine: () => {},
  } as unknown as PluginValues;
  test('a plugin gets what its manifest requires and nothing else', async () => {
    plugin({ manifest: { requires: ['machine'] }, main: 'export default { create: (context) => ({ context }) };' });
    const known = (await load(['./mine'])).at(-1)!;
    const { context } = createComposition().create(known, await known.definition(), values) as unknown as {
      context: Record<string, unknown>;
    };
    expect(context.machine).toBe(values.machine);
    expect(Object.keys(context).sort()).toEqual(['folder', 'instance', 'log', 'machine', 'manifest', 'options', 'serviceFolder', 'tap']);
    expect(() => context.state).toThrow(/plugin mine uses state, but its manifest does not require it/);
  });
  test('twice in one engine is refused, in two engines it is not', async () => {
    plugin();
    const known = (await load(['./mine'])).at(-1)!;
    const definition = await known.definition();
    const composition = createComposition();
    composition.create(known, definition, values);
    expect(() => composition.create(known, definition, values)).toThrow(/registered twice/);
    createComposition().create(known, definition, values);
  });
});

test('with its own tapable and tsyringe a plugin works as well', async () => {
  plugin({
    main: `import tapable from 'tapable'; import { container } from 'tsyringe'; import { definePlugin } from '@engine/core/plugin';
      export default definePlugin({ create: () => ({ mine: [tapable.mark, container.mark] }) });`,
    files: Object.fromEntries(
      ['tapable', 'tsyringe'].flatMap((name) => [
        [`node_modules/${name}/package.json`, JSON.stringify({ name, version: '0.0.1', type: 'module', exports: './i.js' })],
        [`node_modules/${name}/i.js`, name === 'tapable' ? 'export default { mark: 1 };' : 'export const container = { mark: 2 };'],
      ]),
    ),
  });
  const definition = await (await load(['./mine'])).at(-1)!.definition();
  expect((definition.create as () => { mine: number[] })().mine).toEqual([1, 2]);
});

test('the published schema is that of the code', async () => {
  const [{ schema }, { readFileSync }] = await Promise.all([import('./schema.ts'), import('node:fs')]);
  expect(JSON.parse(readFileSync(join(import.meta.dirname, 'enginerc.schema.json'), 'utf8'))).toEqual(schema);
});

test('the program starts without loading what it does not need', () => {
  const script = `import { registerHooks } from 'node:module'; const seen = [];
    registerHooks({ load(url, context, next) { seen.push(url); return next(url, context); } });
    process.argv = [process.argv[0], 'main.ts', 'version'];
    await import(${JSON.stringify(join(import.meta.dirname, 'main.ts'))});
    process.stderr.write(seen.filter((url) => /tsyringe|reflect-metadata|cosmiconfig|\\/yaml\\/|tapable|json-schema\\/dist|koffi|node:sqlite|semver/.test(url)).join(' '));`;
  const { stderr, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  expect(stdout).toMatch(/^engine \d/);
  expect(stderr).toBe('');
});
