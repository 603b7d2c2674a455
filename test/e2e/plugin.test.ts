import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';

// A storage plugin as somebody else writes it: begun with `engine plugin new`, in a folder that knows nothing of this workspace.
let engine: TestEngine;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync('/var/tmp/engine-author-');
  engine = new TestEngine();
});
afterAll(async () => {
  expect(await engine.close()).toEqual([]);
  rmSync(folder, { recursive: true, force: true });
});
const author = (...args: string[]): ReturnType<TestEngine['run']> => engine.run(args, { cwd: folder });

it('a storage plugin of under 100 lines is begun, written, checked, chosen and used', async () => {
  expect(await author('plugin', 'new', 'attic')).toMatchObject({ code: 0, stdout: expect.stringContaining('engine plugin check attic') });
  const path = join(folder, 'attic', 'driver.ts');
  // the author's own idea: containers may say where their files are kept
  const source = readFileSync(path, 'utf8')
    .replace('readonly sync?: boolean;', 'readonly sync?: boolean;\n  readonly label?: string;')
    .replace('{ sync = true }', "{ sync = true, label = 'attic' }")
    .replace(/reasons: \['copies every layer whole[^']*'\]/, "reasons: ['keeps every container in an attic']")
    .replaceAll("join(folder, 'tree')", 'join(folder, label)');
  writeFileSync(path, source);
  expect(source).toContain('join(folder, label)');
  expect(source.split('\n').filter((line) => line.trim() !== '' && !/^\s*(\/\/|\/?\*)/.test(line)).length).toBeLessThan(100);
  const manifestPath = join(folder, 'attic', 'package.json');
  const manifest = JSON.parse(readFileSync(manifestPath, 'utf8')) as { engine: { options: { properties: Record<string, unknown> } } };
  manifest.engine.options.properties['label'] = { type: 'string', description: 'name of the folder that holds the files' };
  writeFileSync(manifestPath, JSON.stringify(manifest));

  const check = await author('plugin', 'check', 'attic');
  expect(check.stdout, check.stderr).toMatch(/the plugin is good\n$/);
  expect(check.code).toBe(0);

  writeFileSync(join(folder, '.enginerc'), 'plugins: [./attic]\ndrivers: { storage: attic }\noptions: { attic: { label: boxes } }\n');
  expect(await author('ps')).toMatchObject({ code: 125, stderr: expect.stringMatching(/^engine: .*not trusted.*engine trust/) });
  expect(await author('trust')).toMatchObject({ code: 0 });
  expect((await author('plugin', 'ls')).stdout).toMatch(/^attic .*storage:attic/m);
  expect((await author('doctor')).stdout).toMatch(/keeps every container in an attic/);
  await importBusybox(engine);
  expect(await author('run', '--name', 'first', 'busybox', 'sh', '-c', 'echo kept >> /file; cat /file')).toMatchObject({ code: 0, stdout: 'kept\n', stderr: '' });
  expect(await author('inspect', '-f', '{{.Driver}}', 'first')).toMatchObject({ stdout: 'attic\n' });
  expect(await author('diff', 'first')).toMatchObject({ stdout: 'A /file\n' });
  const snapshots = join(engine.root, 'attic/snapshots');
  expect(readdirSync(join(snapshots, readdirSync(snapshots)[0] ?? ''))).toContain('boxes');

  // Another configuration is for new containers; the old one stays with its driver.
  mkdirSync(join(folder, 'elsewhere'));
  writeFileSync(join(folder, '.enginerc'), 'plugins: [./attic]\ndrivers: { storage: vfs }\noptions: { attic: { label: boxes } }\n');
  expect(await author('start', '-a', 'first')).toMatchObject({ code: 0, stdout: 'kept\nkept\n' });
  expect(await author('run', '--name', 'second', 'busybox', 'true')).toMatchObject({ code: 0 });
  expect(await author('inspect', '-f', '{{.Driver}}', 'first', 'second')).toMatchObject({ stdout: 'attic\nvfs\n' });

  // Without the plugin: told by name, and what can be done without it can be done.
  rmSync(join(folder, '.enginerc'));
  expect(await author('start', 'first')).toMatchObject({ code: 125, stdout: '', stderr: expect.stringMatching(/^engine: [^\n]*attic[^\n]*\n$/) });
  expect((await author('ps', '-a', '--format', '{{.Names}}')).stdout).toBe('second\nfirst\n');
  writeFileSync(join(folder, '.enginerc'), 'plugins: [./attic]\noptions: { attic: { label: boxes } }\n');
  expect(await author('rm', 'first', 'second')).toMatchObject({ code: 0, stdout: 'first\nsecond\n', stderr: '' });
  expect(await author('rmi', 'busybox')).toMatchObject({ code: 0, stderr: '' });
  expect(readdirSync(snapshots)).toEqual([]);
  expect(readdirSync(join(engine.root, 'attic/layers'))).toEqual([]);
});
