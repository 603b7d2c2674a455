import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

/**
 * Packages for npm. The sources are TypeScript that Node runs as it is, but Node strips types only outside node_modules: what is installed
 * must be JavaScript, with its types beside it.
 *
 *     node config/setup/pack.ts OUT [PLUGIN_FOLDER...]     core and the plugins as tarballs in OUT
 */
const root = join(import.meta.dirname, '../..');
const tsc = join(root, 'node_modules/.bin/tsc');

interface PackageJson {
  name: string;
  version: string;
  exports?: Record<string, string>;
  scripts?: object;
  devDependencies?: object;
  dependencies?: Record<string, string>;
  peerDependencies?: Record<string, string>;
  files?: string[];
  engine?: { main: string; service?: string };
}

/** `engine-core-VERSION.tgz` in `out`; returns its path. */
export function packCore(out: string): string {
  return inTemporary((work) => {
    const folder = join(work, 'core');
    compile(join(root, 'core'), folder, join(work, 'tsconfig.json'));
    writePackage(join(root, 'core'), folder);
    return pack(folder, out);
  });
}

/** The tarball of a plugin, compiled against the packed core, as it would be outside the workspace. `core`: that tarball. */
export function packPlugin(source: string, core: string, out: string): string {
  return inTemporary((work) => {
    const sources = join(work, 'sources');
    cpSync(source, sources, { recursive: true, filter: (path) => !path.includes('/node_modules') });
    const modules = join(work, 'node_modules/@engine/core');
    mkdirSync(modules, { recursive: true });
    execFileSync('tar', ['-xzf', core, '-C', modules, '--strip-components=1']);
    for (const name of ['@types', ...Object.keys(readJson(join(root, 'core')).dependencies ?? {})]) {
      const from = [join(root, 'node_modules', name), join(root, 'core/node_modules', name)].find((path) => existsSync(path));
      if (from) symlinkSync(from, join(work, 'node_modules', name));
    }
    const folder = join(work, 'package');
    compile(sources, folder, join(work, 'tsconfig.json'));
    writePackage(sources, folder);
    if (existsSync(join(source, 'README.md'))) cpSync(join(source, 'README.md'), join(folder, 'README.md'));
    return pack(folder, out);
  });
}

function compile(from: string, to: string, config: string): void {
  const base = JSON.parse(readFileSync(join(root, 'tsconfig.json'), 'utf8')) as { compilerOptions: Record<string, unknown> };
  const compilerOptions = {
    ...base.compilerOptions,
    noEmit: false,
    declaration: true,
    rewriteRelativeImportExtensions: true,
    rootDir: from,
    outDir: to,
    typeRoots: [join(root, 'node_modules/@types')],
  };
  writeFileSync(
    config,
    JSON.stringify({
      compilerOptions,
      include: [`${from}/**/*.ts`],
      exclude: [`${from}/**/*.test.ts`, `${from}/**/*.fixture.ts`, `${from}/**/node_modules`],
    }),
  );
  try {
    execFileSync(tsc, ['-p', config], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    throw new Error(`cannot compile ${from}:\n${(error as { stdout?: string }).stdout ?? ''}`, { cause: error });
  }
}

const readJson = (folder: string): PackageJson => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as PackageJson;
const javascript = (path: string): string => path.replace(/\.ts$/, '.js');

/** The package.json that fits what was compiled: no TypeScript, no workspace. */
function writePackage(from: string, to: string): void {
  const { scripts: _, devDependencies: _dev, ...json } = readJson(from);
  const released = (versions: Record<string, string>): Record<string, string> =>
    Object.fromEntries(
      Object.entries(versions).map(([name, range]) => [
        name,
        range.replace(/^workspace:/, '').replace(/^[*^~]?$/, `^${readJson(root).version}`),
      ]),
    );
  const result = {
    ...json,
    ...(json.exports && {
      exports: Object.fromEntries(
        Object.entries(json.exports).map(([name, path]) => [name, { types: path.replace(/\.ts$/, '.d.ts'), default: javascript(path) }]),
      ),
    }),
    ...(json.dependencies && { dependencies: released(json.dependencies) }),
    ...(json.peerDependencies && { peerDependencies: released(json.peerDependencies) }),
    ...(json.engine && { engine: { ...json.engine, main: javascript(json.engine.main), ...(json.engine.service && { service: javascript(json.engine.service) }) } }),
    files: ['**/*.js', '**/*.d.ts', 'README.md'],
  };
  writeFileSync(join(to, 'package.json'), `${JSON.stringify(result, null, 2)}\n`);
  cpSync(join(root, 'LICENSE'), join(to, 'LICENSE'));
}

function pack(folder: string, out: string): string {
  mkdirSync(out, { recursive: true });
  const before = new Set(readdirSync(out));
  execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', resolve(out)], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const { name, version } = readJson(folder);
  const file = `${name.replace('@', '').replace('/', '-')}-${version}.tgz`;
  if (!before.has(file) && !existsSync(join(out, file))) throw new Error(`npm pack made no ${file}`);
  return join(resolve(out), file);
}

function inTemporary<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'engine-pack-'));
  try {
    return use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [out, ...plugins] = process.argv.slice(2);
  if (out === undefined) {
    process.stderr.write('usage: node config/setup/pack.ts OUT [PLUGIN_FOLDER...]\n');
    process.exitCode = 2;
  } else {
    const core = packCore(out);
    process.stdout.write([core, ...plugins.map((plugin) => packPlugin(resolve(plugin), core, out))].map((file) => `${file}\n`).join(''));
  }
}
