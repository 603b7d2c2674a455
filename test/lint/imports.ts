import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseAst } from 'rolldown/parseAst';
import { compositionPackages, compositionRoot, forbiddenInDrivers, readingFs, writers, zones, type Zone } from './table.ts';

const root = join(import.meta.dirname, '../..');

export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}
interface Import {
  readonly specifier: string;
  readonly typeOnly: boolean;
  readonly line: number;
  readonly names: readonly string[];
  readonly local: readonly string[];
}
interface Node {
  readonly type: string;
  readonly start: number;
  readonly [key: string]: unknown;
}
export interface Manifest {
  readonly name?: string;
  readonly dependencies?: object;
  readonly peerDependencies?: object;
  readonly optionalDependencies?: object;
  readonly devDependencies?: object;
  readonly exports?: Readonly<Record<string, unknown>>;
}

/** Check one file (path relative to the repository) against the table. `manifest`: the package.json of its package; `core`: that of core. */
export function checkImports(file: string, source: string, manifest: Manifest, core: Manifest = corePackage()): Finding[] {
  const findings: Finding[] = [];
  const isTest = /\.(test|bench)\.ts$|\/suite[^/]*\.ts$|^core\/contracts\/.*\/(vitest|node-test|fake)[^/]*\.ts$/.test(file);
  const isDriver = file.startsWith('plugins/') && !isTest && !writers.some((folder) => file.startsWith(`${folder}/`));
  const program = parseAst(source, { lang: 'ts', sourceType: 'module' }) as unknown as Node;
  const zone = zones.find((candidate) => file.startsWith(`${candidate.zone}/`));
  const own = packageFolder(file);
  const imports = collectImports(program, source);
  const say = (line: number, message: string): void => void findings.push({ file, line, message });

  for (const { specifier, typeOnly, line, names } of imports) {
    if (specifier.startsWith('.')) {
      const target = relative('/', resolve('/', dirname(file), specifier));
      if (!specifier.endsWith('.ts') && !specifier.endsWith('.json'))
        say(line, `${specifier}: relative imports name their file with its extension`);
      if (target.startsWith('test/') && !file.startsWith('test/') && !isTest) say(line, `${specifier}: nothing imports test`);
      if (zone) checkRelative(zone, own, file, target, typeOnly, isTest, (message) => say(line, `${specifier}: ${message}`));
    } else if (specifier.startsWith('@engine/')) {
      if (zone && !isTest) checkOurs(zone, file, specifier, core, (message) => say(line, `${specifier}: ${message}`));
    } else if (isBuiltin(specifier)) {
      if (!specifier.startsWith('node:')) say(line, `${specifier}: write node:${specifier}`);
      if (isDriver) {
        if (forbiddenInDrivers.includes(specifier) && !typeOnly) say(line, `${specifier}: a driver acts through effects only`);
        if (/^node:fs(\/promises)?$/.test(specifier))
          for (const name of names)
            if (!readingFs.has(name)) say(line, `${specifier}: a driver may not write files (${name}); return effects`);
      }
    } else checkPackage(zone, file, specifier, manifest, typeOnly, isTest, (message) => say(line, `${specifier}: ${message}`));
  }
  if (isDriver) {
    for (const { name, line } of fsMembers(program, source, imports))
      if (!readingFs.has(name)) say(line, `fs.${name}: a driver may not write files; return effects`);
  }
  return findings;
}

function checkRelative(
  zone: Zone,
  own: string,
  file: string,
  target: string,
  typeOnly: boolean,
  isTest: boolean,
  say: (message: string) => void,
): void {
  const inside = zone.zone === 'plugins' ? own : zone.zone;
  if (target.startsWith(`${inside}/`) || (isTest && (target.startsWith('test/') || target.startsWith(own.split('/')[0] ?? '')))) return;
  if (zone.uses.some((name) => target === name || target.startsWith(`${name}/`))) return;
  if (typeOnly && zone.types?.some((name) => target.startsWith(`${name}/`))) return;
  say(
    zone.zone === 'plugins'
      ? 'a plugin imports nothing outside its folder by path'
      : `${file.startsWith('core/') ? zone.zone : zone.zone} may not import ${target.split('/').slice(0, 2).join('/')}${typeOnly ? '' : ' at run time'}`,
  );
}

function checkOurs(zone: Zone, file: string, specifier: string, core: Manifest, say: (message: string) => void): void {
  if (file.startsWith('core/')) return say('inside core, imports are relative');
  if (!zone.uses.some((name) => specifier === name || specifier.startsWith(`${name}/`))) return say(`${zone.zone} may not import it`);
  if (specifier.startsWith('@engine/core') && !isPublic(specifier, core)) say('not a public path of core (see its package.json)');
}

function isPublic(specifier: string, core: Manifest): boolean {
  const path = `.${specifier.slice('@engine/core'.length)}`;
  return Object.keys(core.exports ?? {}).some(
    (pattern) =>
      pattern === path || (pattern.includes('*') && new RegExp(`^${pattern.replaceAll('.', '\\.').replace('*', '[^/]+')}$`).test(path)),
  );
}

function checkPackage(
  zone: Zone | undefined,
  file: string,
  specifier: string,
  manifest: Manifest,
  typeOnly: boolean,
  isTest: boolean,
  say: (message: string) => void,
): void {
  const name = specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
  if (compositionPackages.includes(name) && !file.startsWith(`${compositionRoot}/`))
    return say(`only ${compositionRoot} knows the container`);
  if (isTest || !zone) return;
  if (/^config\/setup\//.test(file)) return;
  if (zone.packages && !zone.packages.includes(name)) return say(`${zone.zone} may not import it`);
  const declared = {
    ...manifest.dependencies,
    ...manifest.peerDependencies,
    ...manifest.optionalDependencies,
    ...(typeOnly ? manifest.devDependencies : {}),
  };
  if (!Object.hasOwn(declared, name)) say(`not among the dependencies of ${manifest.name ?? 'its package'}`);
}

/** Folder of the package that a file belongs to. */
function packageFolder(file: string): string {
  const [first = '', second = ''] = file.split('/');
  return first === 'plugins' ? `${first}/${second}` : first;
}

function collectImports(program: Node, source: string): Import[] {
  const imports: Import[] = [];
  walk(program, (node) => {
    const literal = (value: unknown): string | undefined =>
      typeof (value as Node | undefined)?.value === 'string' ? ((value as Node).value as string) : undefined;
    const line = lineOf(source, node.start);
    if (node.type === 'ImportDeclaration' || node.type === 'ExportNamedDeclaration' || node.type === 'ExportAllDeclaration') {
      const specifier = literal(node.source);
      if (specifier === undefined) return;
      const parts = (node.specifiers ?? []) as Node[];
      const isType = (part: Node): boolean => part.importKind === 'type' || part.exportKind === 'type';
      const typeOnly = isType(node) || (parts.length > 0 && parts.every(isType));
      const named = parts.filter(
        (part) => (part.type === 'ImportSpecifier' || part.type === 'ExportSpecifier') && !isType(part) && !isType(node),
      );
      imports.push({
        specifier,
        typeOnly,
        line,
        names: named.map((part) => ((part.imported ?? part.local) as { name: string }).name),
        local: parts
          .filter((part) => part.type !== 'ImportSpecifier')
          .map((part) => (part.local as { name: string } | undefined)?.name ?? ''),
      });
    } else if (node.type === 'ImportExpression' || node.type === 'TSImportType') {
      const specifier = literal(node.source) ?? literal(node.argument) ?? literal((node.argument as Node | undefined)?.literal);
      if (specifier !== undefined) imports.push({ specifier, typeOnly: node.type === 'TSImportType', line, names: [], local: [] });
    }
  });
  return imports;
}

/** Members used of a default or namespace import of fs. */
function fsMembers(program: Node, source: string, imports: readonly Import[]): { name: string; line: number }[] {
  const locals = new Set(
    imports
      .filter(({ specifier }) => /^node:fs(\/promises)?$/.test(specifier))
      .flatMap(({ local, names }) => [...local, ...names.filter((name) => name === 'promises')]),
  );
  const members: { name: string; line: number }[] = [];
  if (locals.size === 0) return members;
  walk(program, (node) => {
    if (node.type !== 'MemberExpression' || node.computed) return;
    const object = node.object as Node & { name?: string };
    if (object.type === 'Identifier' && locals.has(object.name ?? ''))
      members.push({ name: (node.property as { name: string }).name, line: lineOf(source, node.start) });
  });
  return members;
}

function walk(node: unknown, visit: (node: Node) => void): void {
  if (Array.isArray(node)) return node.forEach((item) => walk(item, visit));
  if (typeof node !== 'object' || node === null) return;
  if (typeof (node as Node).type === 'string') visit(node as Node);
  for (const value of Object.values(node)) if (typeof value === 'object') walk(value, visit);
}
const lineOf = (source: string, offset: number): number => source.slice(0, offset).split('\n').length;

const manifests = new Map<string, Manifest>();
function manifestOf(folder: string): Manifest {
  let manifest = manifests.get(folder);
  if (!manifest) {
    const file = join(root, folder, 'package.json');
    manifest = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Manifest) : {};
    manifests.set(folder, manifest);
  }
  return manifest;
}
const corePackage = (): Manifest => manifestOf('core');

/** Every source file of the repository. */
export function sourceFiles(): string[] {
  return ['core', 'native/ts', 'plugins', 'config', 'test'].flatMap((folder) =>
    (existsSync(join(root, folder)) ? readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }) : [])
      .filter((name) => name.endsWith('.ts') && !/(^|\/)(node_modules|fixtures)\//.test(name))
      .map((name) => `${folder}/${name}`),
  );
}

export function checkRepository(): Finding[] {
  return sourceFiles().flatMap((file) => {
    try {
      return checkImports(file, readFileSync(join(root, file), 'utf8'), manifestOf(packageFolder(file)));
    } catch (error) {
      return [{ file, line: 1, message: `cannot be parsed: ${(error as Error).message.split('\n')[0] ?? ''}` }];
    }
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const findings = checkRepository();
  for (const { file, line, message } of findings) process.stderr.write(`${file}:${line}: ${message}\n`);
  process.exitCode = findings.length > 0 ? 1 : 0;
}
