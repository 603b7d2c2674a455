import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rolldown, type RolldownOptions } from 'rolldown';

/** What the program in one file never needs. */
const standIns: Readonly<Record<string, string>> = {
  // only its types are imported, which leaves an import behind
  pino: 'export {};',
  // run by engine.js, see handOver in config/program.ts
  './plugin-commands.ts': 'export const runPlugin = undefined;',
  './resident/main.ts': 'export const engined = undefined;',
};
const leaveOut = {
  name: 'leave-out',
  resolveId: (source: string) => (standIns[source] === undefined ? null : { id: `\0left-out:${source}`, moduleSideEffects: false }),
  load: (id: string) => (id.startsWith('\0left-out:') ? (standIns[id.slice('\0left-out:'.length)] ?? null) : null),
};

/** Modules of Node that cost milliseconds and consist of functions alone: loaded by the first call. */
const late = new Set([
  'node:child_process',
  'node:crypto',
  'node:fs/promises',
  'node:stream/promises',
  'node:timers/promises',
  'node:zlib',
]);
const lateModules = {
  name: 'late-modules',
  resolveId: (source: string) => (late.has(source) ? { id: `\0late:${source}`, moduleSideEffects: false } : null),
  load(id: string) {
    if (!id.startsWith('\0late:')) return null;
    const name = id.slice('\0late:'.length);
    const module = process.getBuiltinModule(name) as Record<string, unknown>;
    const exported = Object.keys(module).filter((key) => /^[A-Za-z_$][\w$]*$/.test(key) && key !== 'default');
    const get = `process.getBuiltinModule(${JSON.stringify(name)})`;
    return exported
      .map((key) =>
        typeof module[key] === 'function' && /^[a-z]/.test(key)
          ? `export const ${key} = (...args) => ${get}.${key}(...args);`
          : `export const ${key} = /* @__PURE__ */ (() => ${get}.${key})();`,
      )
      .join('\n');
  },
};

/**
 * Write `folder`/program-HASH.js: everything that commands need, in one script whose parts are evaluated when they are first asked for. Loaded by
 * start.cjs, with V8's code cache of the functions that commands run: one file instead of thirty to find and link, and nothing to compile.
 */
export async function buildProgram(folder: string, options: RolldownOptions): Promise<void> {
  const bundle = await rolldown({
    ...options,
    input: 'config/program.ts',
    external: [/^koffi/, 'node:test', 'node:module'],
    transform: {
      define: { ENGINE_BUNDLED: 'true', ENGINE_SINGLE: 'true', 'import.meta.dirname': '__dirname', 'import.meta.url': '__url' },
    },
    plugins: [leaveOut, lateModules, ...(options.plugins as never[])],
  });
  const { output } = await bundle.generate({
    format: 'cjs',
    codeSplitting: false,
    minify: { mangle: false, compress: true, codegen: { removeWhitespace: true } },
  });
  await bundle.close();
  // ASCII: one byte per character in memory, and read without decoding
  const code = output[0].code.replaceAll(/[^\x00-\x7f]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const text = `(function (exports, require, module, __dirname, __url) {${code}\n})`;
  // V8 takes a cache for any source of the same length: the names keep together what belongs together.
  const name = `program-${createHash('sha256').update(text).digest('hex').slice(0, 8)}`;
  writeFileSync(join(folder, `${name}.js`), text);
  writeFileSync(join(folder, 'start.cjs'), start(name) + run);
}

/** As plain as can be: it is what every command waits for. A cache of another Node is refused by V8, and not needed. */
const start = (name: string): string => `'use strict';
const { readFileSync } = require('node:fs');
const { Script, constants } = require('node:vm');
const file = __dirname + '/${name}.js';
let cachedData;
try {
  cachedData = readFileSync(__dirname + '/${name}.cache');
} catch {}
const script = new Script(readFileSync(file, 'latin1'), { filename: file, cachedData, importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER });
const program = { exports: {} };
script.runInThisContext()(program.exports, require, program, __dirname, require('node:url').pathToFileURL(file).href);
`;
const run = 'program.exports.start().then(() => program.exports.end());\n';

/**
 * Runs each command of WARM in one process, serves the launcher as `--serve-one` where it is what started this, then writes the code of all functions that
 * ran to WARM_CACHE.
 */
const warmUp = `
const { WARM, WARM_CACHE } = process.env;
delete process.env.WARM;
delete process.env.WARM_CACHE;
const [node, self, ...own] = process.argv;
(async () => {
  for (const words of [...JSON.parse(WARM), ...(own.length > 0 ? [own] : [])]) {
    process.argv = [node, self, ...words];
    await program.exports.start();
  }
  require('node:fs').writeFileSync(WARM_CACHE, script.createCachedData());
})();
`;

/**
 * Write the cache of the program in `folder`, best effort: without it a command takes 40 ms longer. The functions are those that a run of the shim's own
 * program as a container needs, by a command of ours and by engine-oci from a bundle; where none can be made, those that explain one.
 */
export function warmProgram(folder: string): void {
  const work = mkdtempSync(join(tmpdir(), 'engine-build-'));
  const script = join(folder, `.warm-${process.pid}.cjs`);
  const cache = join(folder, `.cache-${process.pid}`);
  const run = (program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): boolean =>
    spawnSync(program, args, {
      cwd: work,
      env: { PATH: process.env.PATH ?? '', HOME: work, ENGINE_ROOT: join(work, 'root'), ENGINE_RUN_ROOT: join(work, 'run'), ENGINE_RESIDENT: 'off', ENGINE_NO_BUILD: '1', ...env },
      stdio: 'ignore',
      timeout: 30_000,
    }).status === 0;
  const node = (file: string, args: readonly string[], env?: Readonly<Record<string, string>>): boolean => run(process.execPath, ['--min-semi-space-size=16', file, ...args], env);
  try {
    const [name = ''] = /program-[0-9a-f]+/.exec(readFileSync(join(folder, 'start.cjs'), 'utf8')) ?? [];
    writeFileSync(script, start(name) + warmUp);
    const tar = join(work, 'image.tar');
    const image =
      spawnSync('tar', ['-C', join(folder, 'bin'), '-cf', tar, 'engine-shim'], { stdio: 'ignore' }).status === 0 &&
      node(join(folder, 'start.cjs'), ['import', tar, 'image']);
    const command = image
      ? ['run', '--rm', '--network', 'none', 'image', '/engine-shim']
      : ['run', '--explain', '--network', 'none', 'host', 'true'];
    const warm = { WARM: JSON.stringify([['version'], ['ps'], command]), WARM_CACHE: cache };
    const oci = launcher(folder, script, work);
    if (oci !== undefined) run(oci, ['--root', join(work, 'oci'), 'run', '--bundle', bundle(folder, work, (args) => run(oci, args)), 'warm'], warm);
    if (!existsSync(cache)) node(script, [], warm);
    renameSync(cache, join(folder, `${name}.cache`));
  } catch {
    // then commands compile what they need
  } finally {
    for (const path of [work, script, cache]) rmSync(path, { recursive: true, force: true });
  }
}

/** An engine-oci in `work` whose own process runs `script`, with WARM set, or start.cjs; nothing where there is no launcher. */
function launcher(folder: string, script: string, work: string): string | undefined {
  const program = join(folder, 'bin/engine-launcher');
  if (!existsSync(program)) return undefined;
  for (const name of ['bin', 'dist']) mkdirSync(join(work, name));
  copyFileSync(program, join(work, 'bin/engine-oci'));
  symlinkSync(realpathSync(join(folder, '../node_modules')), join(work, 'node_modules'));
  const [warm, plain] = [script, join(folder, 'start.cjs')].map((path) => JSON.stringify(path));
  writeFileSync(join(work, 'dist/start.cjs'), `require(process.env.WARM ? ${warm} : ${plain});\n`);
  return join(work, 'bin/engine-oci');
}

/** What `engine-oci spec` makes, with the shim as its only file and program. */
function bundle(folder: string, work: string, oci: (args: readonly string[]) => boolean): string {
  const path = join(work, 'bundle');
  mkdirSync(join(path, 'rootfs'), { recursive: true });
  copyFileSync(join(folder, 'bin/engine-shim'), join(path, 'rootfs/engine-shim'));
  if (!oci(['spec', '--bundle', path])) return path;
  const config = join(path, 'config.json');
  const spec = JSON.parse(readFileSync(config, 'utf8')) as { process: { args: string[]; terminal: boolean } };
  Object.assign(spec.process, { args: ['/engine-shim'], terminal: false });
  writeFileSync(config, JSON.stringify(spec));
  return path;
}
