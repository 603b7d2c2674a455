import { describe, expect, test } from 'vitest';
import { checkImports, checkRepository, type Manifest } from './imports.ts';

const core: Manifest = { exports: { './errors': '', './plan': '', './contracts/*': '', './contracts/*/suite': '', './plugin': '' } };
const check = (file: string, source: string, dependencies: Record<string, string> = {}): string[] =>
  checkImports(file, source, { name: 'it', dependencies }, core).map(({ message }) => message);

describe('what the table permits', () => {
  test.each([
    ['core/plan/x.ts', `import { fail } from '../errors/index.ts';`],
    ['core/contracts/storage/index.ts', `import { type Engine } from '../../api/index.ts';`],
    ['core/api/x.ts', `import type { A } from '../plugin/index.ts'; type B = import('../contracts/log/index.ts').L;`],
    ['core/lifecycle/x.ts', `import { a } from '../state/index.ts'; export * from '../hooks/index.ts';`],
    ['native/ts/x.ts', `import { OP } from '@engine/core/plan'; import koffi from 'koffi';`],
    [
      'plugins/storage-x/driver.ts',
      `import { op } from '@engine/core/plan'; import { defineLibrary } from '@engine/native/library'; import { readFileSync } from 'node:fs'; import './other.ts';`,
    ],
    [
      'plugins/storage-x/driver.test.ts',
      `import { x } from '@engine/core/contracts/storage/suite'; import { writeFileSync } from 'node:fs'; import { h } from '../../test/helpers/leaks.ts';`,
    ],
    ['plugins/storage-x/driver.ts', `import * as fs from 'node:fs'; fs.readFileSync('/x');`],
    [
      'config/builtins.ts',
      `import a from '../plugins/storage-x/package.json' with { type: 'json' }; const l = () => import('../plugins/storage-x/plugin.ts');`,
    ],
    ['config/compose.ts', `import 'reflect-metadata';`],
    ['test/e2e/x.test.ts', `import '../../core/lifecycle/index.ts'; import '../helpers/x.ts';`],
  ])('%s', (file, source) => expect(check(file, source, { koffi: '1', 'reflect-metadata': '1' })).toEqual([]));
});

describe('what it refuses', () => {
  test.each([
    ['core/errors/x.ts', `import { op } from '../plan/index.ts';`, 'core/errors may not import core/plan at run time'],
    ['core/plan/x.ts', `import { type A } from '../contracts/common/index.ts';`, 'core/plan may not import core/contracts'],
    ['core/contracts/log/index.ts', `import { createEngine } from '../../lifecycle/index.ts';`, 'at run time'],
    ['core/contracts/log/index.ts', `import { thing } from '../../api/index.ts';`, 'core/contracts may not import core/api at run time'],
    ['core/state/x.ts', `import { createHooks } from '../hooks/index.ts';`, 'core/state may not import core/hooks'],
    ['core/lifecycle/x.ts', `import { createNative } from '@engine/native';`, 'inside core, imports are relative'],
    ['core/lifecycle/x.ts', `import { createNative } from '../../native/ts/index.ts';`, 'may not import native/ts'],
    ['core/lifecycle/x.ts', `const p = await import('../../plugins/storage-vfs/plugin.ts');`, 'may not import plugins/storage-vfs'],
    ['core/hooks/x.ts', `import 'reflect-metadata';`, 'only config knows the container'],
    ['core/plan/x.ts', `import pino from 'pino';`, 'core/plan may not import it'],
    ['native/ts/x.ts', `import { createEngine } from '@engine/core/lifecycle';`, 'native may not import it'],
    ['plugins/a-b/driver.ts', `import { x } from '../c-d/driver.ts';`, 'a plugin imports nothing outside its folder'],
    ['plugins/a-b/driver.ts', `import { x } from '@engine/plugin-c-d/driver';`, 'plugins may not import it'],
    ['plugins/a-b/driver.ts', `import { x } from '@engine/core/plan/encode';`, 'not a public path'],
    ['plugins/a-b/driver.ts', `import { x } from '../../core/plan/index.ts';`, 'a plugin imports nothing outside its folder'],
    ['plugins/a-b/driver.ts', `import { container } from 'tsyringe';`, 'only config knows the container'],
    ['plugins/a-b/driver.ts', `import { left } from 'leftpad';`, 'not among the dependencies'],
    ['plugins/a-b/driver.ts', `import { spawn } from 'node:child_process';`, 'a driver acts through effects only'],
    ['plugins/a-b/driver.ts', `import { readFileSync, writeFileSync } from 'node:fs';`, 'may not write files (writeFileSync)'],
    ['plugins/a-b/driver.ts', `import fs from 'node:fs'; fs.rmSync('/x');`, 'fs.rmSync: a driver may not write'],
    ['plugins/a-b/driver.ts', `import { promises } from 'node:fs'; void promises.rm('/x');`, 'fs.rm: a driver may not write'],
    ['plugins/a-b/driver.ts', `import { readFileSync } from 'fs';`, 'write node:fs'],
    ['config/x.ts', `import { h } from '../test/helpers/x.ts';`, 'nothing imports test'],
    ['core/plan/x.ts', `import { h } from './y';`, 'with its extension'],
  ])('%s: %s', (file, source, message) => expect(check(file, source).join('\n')).toContain(message));
});

test('the repository keeps to it', () => {
  expect(checkRepository().map(({ file, line, message }) => `${file}:${line}: ${message}`)).toEqual([]);
});
