import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { environmentVariables } from '../../config/ambient.ts';

const root = join(import.meta.dirname, '../..');
const read = (file: string): string => readFileSync(join(root, file), 'utf8');
const packages = [
  'package.json',
  'core/package.json',
  'native/package.json',
  'config/package.json',
  'test/package.json',
  ...readdirSync(join(root, 'plugins'), { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => `plugins/${name}/package.json`),
];

test('every dependency has its reason in docs/dependencies.md, and every reason its dependency', () => {
  const names = new Set(
    packages
      .flatMap((file) => {
        const json = JSON.parse(read(file)) as Record<string, Record<string, string> | undefined>;
        return ['dependencies', 'devDependencies', 'optionalDependencies', 'peerDependencies'].flatMap((key) =>
          Object.keys(json[key] ?? {}),
        );
      })
      .filter((name) => !name.startsWith('@engine/')),
  );
  const listed = [...read('docs/dependencies.md').matchAll(/^\| ([^|]+) \|/gm)]
    .flatMap(([, cell = '']) => cell.trim().split(', '))
    .filter((name) => name !== 'package' && name !== '---');
  expect(listed.toSorted()).toEqual([...names].toSorted());
});

test('no package needs an install script', () => {
  const workspace = read('pnpm-workspace.yaml');
  expect(workspace).toContain('ignoredBuiltDependencies');
  for (const file of packages)
    expect(
      Object.keys((JSON.parse(read(file)) as { scripts?: object }).scripts ?? {}).filter((name) => /install|prepare/.test(name)),
    ).toEqual([]);
});

test('docs/configuration.md names every variable', () => {
  const documented = new Set([...read('docs/configuration.md').matchAll(/`(ENGINE_[A-Z_]+)`/g)].map(([, name]) => name));
  expect([...documented].toSorted()).toEqual([...environmentVariables].toSorted());
});
