import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { join, relative } from 'node:path';
import { rolldown } from 'rolldown';
import corePackage from '../../core/package.json' with { type: 'json' };
import { buildProgram, warmProgram } from './program.ts';

/**
 * Makes dist/: start.cjs, what commands are run with (see program.ts); engine.js, the same for who brings plugins of their own, with a chunk for everything that is loaded when needed (each plugin, the configuration's parsers), and one module per
 * public module of core and native, which plugins from outside are given. Built beside and renamed into place: a running engine may
 * be reading the old one.
 */
const root = join(import.meta.dirname, '../..');
const dist = join(root, 'dist');
const work = join(dist, `.build-${process.pid}`);

function publicModules(): Record<string, string> {
  const modules: Record<string, string> = {};
  for (const [name, target] of Object.entries(corePackage.exports)) {
    const names = name.includes('*') ? readdirSync(join(root, 'core/contracts')) : [''];
    for (const one of names) {
      const file = join('core', target.replace('*', one));
      if (file.endsWith('/vitest.ts')) continue; // for the tests of plugins, with a vitest of their own
      if (existsSync(join(root, file))) modules[`core/${name.slice(2).replace('*', one)}`] = file;
    }
  }
  if (existsSync(join(root, 'native/ts'))) {
    for (const file of readdirSync(join(root, 'native/ts'))) {
      if (file.endsWith('.ts') && !/\.(test|bench)\.ts$|^(generate|testing|launcher-testing|container-runner)\.ts$/.test(file))
        modules[`native/${file.slice(0, -3)}`] = `native/ts/${file}`;
    }
  }
  return modules;
}

/** Loaded by Node itself, from beside the bundle: koffi has a native part, pino is rarely needed and starts slowly. */
const external = { koffi: 'native/node_modules/koffi', pino: 'config/node_modules/pino' };

/**
 * Node's own modules without their ESM face: making that reads every property of the module, and so loads much that nobody uses (`import 'node:fs'`
 * 12 ms against 0.01 ms).
 */
const builtinModules = {
  name: 'builtin-modules',
  resolveId: (source: string, _importer: string | undefined, { kind }: { kind: string }) =>
    isBuiltin(source) && kind === 'import-statement' ? { id: `\0builtin:${source.replace(/^node:/, '')}`, moduleSideEffects: false } : null,
  load(id: string) {
    if (!id.startsWith('\0builtin:')) return null;
    const name = `node:${id.slice('\0builtin:'.length)}`;
    const keys = Object.keys(process.getBuiltinModule(name) ?? {}).filter((key) => /^[A-Za-z_$][\w$]*$/.test(key) && key !== 'default');
    return `const module = process.getBuiltinModule(${JSON.stringify(name)});
const get = (name) => module[name];
export default module;
${keys.map((key) => `const _${key} = /* @__PURE__ */ get(${JSON.stringify(key)});`).join('\n')}
export { ${keys.map((key) => `_${key} as ${key}`).join(', ')} };`;
  },
};

/** Each file that Node links costs half a millisecond or more: what is always loaded together goes into one. */
const groups = [
  {
    name: 'base',
    test: /builtin:(fs|fs\/promises|path|os|util|url|events)$|config\/(read-package|version|builtins)\.ts|package\.json|core\/(errors|spec|api|plan|contracts\/common\/(index|mounts|trees)|plugin)(\/|\.ts)/,
    priority: 3,
  },
  {
    name: 'engine-core',
    test: /(core\/(hooks|lifecycle|state|native\/index)|native\/ts\/(index|shim|syscalls|library|frames|constants)\.ts|tapable|tsyringe|reflect-metadata|tslib|config\/(open|compose|keeper\/(ensure|place)|loader|log|machine|sources|read-file|ambient|hosts|merge|restrict|trust|ownership|capabilities|schema|json-schema)\.ts)/,
    priority: 2,
  },
];

/** The keeper's own bundle, so that nothing of the engine is loaded into it: keeper.js, with a chunk for each service. */
async function buildKeeper(resolve: object): Promise<void> {
  const bundle = await rolldown({
    cwd: root,
    input: { keeper: 'config/keeper/main.ts' },
    platform: 'node',
    external: [...Object.keys(external), /^koffi\//, 'node:module'],
    transform: { define: { ENGINE_BUNDLED: 'true' } },
    treeshake: { moduleSideEffects: [{ test: /config\/keeper\/main\.ts$/, sideEffects: true }, { test: /./, sideEffects: false }] },
    resolve,
    plugins: [builtinModules],
    onwarn(warning) {
      if (warning.code === 'UNRESOLVED_IMPORT') throw new Error(warning.message);
    },
  } as Parameters<typeof rolldown>[0]);
  await bundle.write({
    dir: work,
    format: 'esm',
    entryFileNames: '[name].js',
    chunkFileNames: 'keeper-[name]-[hash].js',
    minify: { mangle: false, compress: true, codegen: { removeWhitespace: false } },
  });
  await bundle.close();
}

async function build(): Promise<void> {
  // As old as what is read: a source that changes meanwhile is newer.
  mkdirSync(work, { recursive: true });
  writeFileSync(join(work, '.stamp'), '');
  const resolve = {
    alias: Object.fromEntries(
      Object.entries(publicModules()).map(([name, file]) => [`@engine/${name}`.replace(/\/index$/, ''), join(root, file)]),
    ),
  };
  const bundle = await rolldown({
    cwd: root,
    input: { engine: 'config/main.ts', ...publicModules() },
    platform: 'node',
    // node:module is what the bundler's own runtime asks for, before anything else is there.
    external: [...Object.keys(external), /^koffi\//, 'node:module', 'node:test'],
    transform: { define: { ENGINE_BUNDLED: 'true' } },
    preserveEntrySignatures: 'allow-extension',
    // `import { type X } from 'pino'` leaves an import behind; nothing here is imported for its effects but these.
    treeshake: {
      moduleSideEffects: [
        { test: /reflect-metadata|config\/main\.ts$/, sideEffects: true },
        { test: /./, sideEffects: false },
      ],
    },
    resolve,
    plugins: [builtinModules],
    // What is not found would be left for Node to look up at run time: only the listed externals lie beside the bundle.
    onwarn(warning) {
      if (warning.code === 'UNRESOLVED_IMPORT') throw new Error(warning.message);
      process.stderr.write(`${warning.message}\n`);
    },
  } as Parameters<typeof rolldown>[0]);
  await bundle.write({
    dir: work,
    format: 'esm',
    entryFileNames: '[name].js',
    chunkFileNames: '[name]-[hash].js',
    codeSplitting: { groups, includeDependenciesRecursively: false },
    minify: { mangle: false, compress: true, codegen: { removeWhitespace: false } },
    sourcemap: process.env.ENGINE_BUILD_SOURCEMAP === '1',
  });
  await bundle.close();
  await buildKeeper(resolve);
  await buildProgram(work, {
    cwd: root,
    platform: 'node',
    plugins: [builtinModules],
    resolve,
    treeshake: {
      moduleSideEffects: [
        { test: /reflect-metadata/, sideEffects: true },
        { test: /./, sideEffects: false },
      ],
    },
    onwarn(warning) {
      if (warning.code === 'UNRESOLVED_IMPORT') throw new Error(warning.message);
    },
  });
  writeFileSync(join(work, 'package.json'), '{"type":"module"}\n');
  mkdirSync(join(work, 'node_modules'));
  for (const [name, target] of Object.entries(external))
    symlinkSync(relative(join(dist, 'node_modules'), join(root, target)), join(work, 'node_modules', name));
  // What other steps put into dist (the shim) stays.
  mkdirSync(dist, { recursive: true });
  const keep = new Set(readdirSync(work));
  // The chunks before what imports them.
  const last = (name: string): number => Number(name === 'engine.js' || name === 'keeper.js' || name === 'start.cjs');
  for (const name of readdirSync(work).sort((a, b) => last(a) - last(b))) {
    if (name === '.stamp') continue;
    rmSync(join(dist, `${name}.old`), { recursive: true, force: true });
    if (existsSync(join(dist, name)) && !/\.(js|cjs|json)$/.test(name)) renameSync(join(dist, name), join(dist, `${name}.old`));
    renameSync(join(work, name), join(dist, name));
    rmSync(join(dist, `${name}.old`), { recursive: true, force: true });
  }
  // An engine that is running may still load a chunk of the build that it started from.
  for (const name of readdirSync(dist)) {
    if (/\.(js|cache)$/.test(name) && !keep.has(name) && Date.now() - statSync(join(dist, name)).mtimeMs > 3_600_000)
      rmSync(join(dist, name));
  }
  warmProgram(dist);
  renameSync(join(work, '.stamp'), join(dist, '.stamp'));
  rmSync(work, { recursive: true, force: true });
}

try {
  await import('./builtins.ts').then(({ writeBuiltins }) => writeBuiltins());
  await build();
} catch (error) {
  rmSync(work, { recursive: true, force: true });
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}
