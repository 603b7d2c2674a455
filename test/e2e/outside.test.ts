import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { packCore, packPlugin } from '../../config/setup/pack.ts';

const home = join(import.meta.dirname, '../..');
const engineBin = join(home, 'bin/engine');
const isRoot = process.getuid?.() === 0;
const busybox = '/bin/busybox';
let base: string;

beforeAll(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'engine-outside-')));
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** bin/engine with roots and a home of its own. */
function engine(cwd: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const env = {
    ...process.env,
    HOME: join(base, 'home'),
    XDG_CONFIG_HOME: '',
    ENGINE_ROOT: join(base, 'root'),
    ENGINE_RUN_ROOT: join(base, 'run'),
  };
  return spawnSync(engineBin, args, { cwd, env, encoding: 'utf8' });
}
function importBusybox(cwd: string): void {
  const rootfs = join(base, 'rootfs');
  if (!existsSync(rootfs)) {
    mkdirSync(join(rootfs, 'bin'), { recursive: true });
    cpSync(busybox, join(rootfs, 'bin/busybox'));
    for (const name of ['sh', 'cat', 'echo']) symlinkSync('busybox', join(rootfs, 'bin', name));
    execFileSync('tar', ['-C', rootfs, '-cf', join(base, 'rootfs.tar'), '.']);
  }
  expect(engine(cwd, 'import', join(base, 'rootfs.tar'), 'bb:latest')).toMatchObject({ status: 0 });
}

describe('packed, and installed with npm outside the workspace', () => {
  let folder: string;
  beforeAll(() => {
    folder = join(base, 'npm');
    mkdirSync(folder);
    const core = packCore(join(base, 'packs'));
    const sample = packPlugin(join(home, 'plugins/sample'), core, join(base, 'packs'));
    writeFileSync(join(folder, 'package.json'), '{"private": true, "type": "module"}');
    execFileSync('npm', ['install', '--silent', '--prefer-offline', '--no-audit', '--no-fund', core, sample], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  });

  test('core works as a library: the suite of its contract passes on the installed driver', () => {
    writeFileSync(
      join(folder, 'check.js'),
      `
      import { fakeBench } from '@engine/core/contracts/common/fake-bench';
      import { runCase } from '@engine/core/contracts/common/suite';
      import { storageSuite } from '@engine/core/contracts/storage/suite';
      import { createSampleStorage } from '@engine/plugin-sample/driver';
      import plugin from '@engine/plugin-sample';
      let ran = 0;
      for (const one of storageSuite.cases) {
        let skipped = false;
        await runCase(storageSuite, one, { bench: () => fakeBench(), create: (deps) => createSampleStorage(deps) }, () => (skipped = true));
        if (!skipped) ran++;
      }
      console.log(typeof plugin.create, ran > 10);`,
    );
    expect(execFileSync(process.execPath, ['check.js'], { cwd: folder, encoding: 'utf8' })).toBe('function true\n');
  });

  test('the types of both are there', () => {
    writeFileSync(
      join(folder, 'use.ts'),
      `import { definePlugin } from '@engine/core/plugin'; import { createSampleStorage } from '@engine/plugin-sample/driver';
      export default definePlugin({ create: (context) => ({ drivers: [createSampleStorage(context, { sync: false })] }) });
      // @ts-expect-error: there is no such option
      export const wrong = (context: never) => createSampleStorage(context, { snyc: false });`,
    );
    symlinkSync(join(home, 'node_modules/@types'), join(folder, 'node_modules/@types'));
    const { status, stdout } = spawnSync(
      join(home, 'node_modules/.bin/tsc'),
      [
        '--ignoreConfig',
        '--noEmit',
        '--strict',
        '--skipLibCheck',
        '--module',
        'nodenext',
        '--target',
        'es2024',
        '--types',
        'node',
        'use.ts',
      ],
      { cwd: folder, encoding: 'utf8' },
    );
    expect(stdout).toBe('');
    expect(status).toBe(0);
  });

  test.skipIf(!isRoot || !existsSync(busybox))('the engine takes the plugin from there, and its containers live on it', () => {
    writeFileSync(join(folder, '.enginerc'), 'plugins: ["@engine/plugin-sample"]\ndrivers: { storage: sample }\n');
    expect(engine(folder, 'ps')).toMatchObject({ status: 125, stderr: expect.stringContaining('not trusted') });
    expect(engine(folder, 'trust')).toMatchObject({ status: 0 });
    expect(engine(folder, 'plugin', 'ls').stdout).toMatch(/^sample +0\.1\.0 +storage:sample +\/.*node_modules\/@engine\/plugin-sample$/m);
    importBusybox(folder);
    expect(engine(folder, 'run', '--name', 'one', 'bb', 'sh', '-c', 'echo kept > /file; cat /file')).toMatchObject({
      status: 0,
      stdout: 'kept\n',
    });
    expect(engine(folder, 'diff', 'one').stdout).toContain('A /file');
    expect(existsSync(join(base, 'root/sample/snapshots'))).toBe(true);
    expect(engine(folder, 'rm', 'one')).toMatchObject({ status: 0 });
  });
});

describe.skipIf(!isRoot)('a plugin that was begun with `engine plugin new`', () => {
  test('is good, is chosen by .enginerc, and its containers stay with it', () => {
    const folder = join(base, 'own');
    mkdirSync(folder);
    expect(engine(folder, 'plugin', 'new', 'mystore')).toMatchObject({ status: 0 });
    const check = engine(folder, 'plugin', 'check', 'mystore');
    expect(check.stdout).toMatch(/the plugin is good\n$/);
    expect(check.stdout).toMatch(/level 2 \(this machine\): \d\d passed, 0 failed/);
    if (!existsSync(busybox)) return;
    writeFileSync(join(folder, '.enginerc'), 'plugins: [./mystore]\ndrivers: { storage: mystore }\n');
    engine(folder, 'trust');
    importBusybox(folder);
    expect(engine(folder, 'run', '--name', 'mine', 'bb', 'echo', 'hi')).toMatchObject({ status: 0, stdout: 'hi\n' });
    // Another configuration is for new containers only.
    writeFileSync(join(folder, '.enginerc'), 'plugins: [./mystore]\ndrivers: { storage: vfs }\n');
    expect(engine(folder, 'start', '-a', 'mine')).toMatchObject({ status: 0, stdout: 'hi\n' });
    expect(engine(folder, 'rm', 'mine')).toMatchObject({ status: 0 });
    expect(engine(folder, 'rmi', 'bb')).toMatchObject({ status: 0 });
  });

  test('broken, it does not stand in the way of what repairs it', () => {
    const folder = join(base, 'broken');
    mkdirSync(folder);
    engine(folder, 'plugin', 'new', 'bad');
    writeFileSync(join(folder, 'bad/plugin.ts'), 'throw new Error("boom");\n');
    writeFileSync(join(folder, '.enginerc'), 'plugins: [./bad]\ndrivers: { storage: bad }\n');
    engine(folder, 'trust');
    expect(engine(folder, 'run', '--rm', 'host', 'true')).toMatchObject({
      status: 125,
      stderr: expect.stringMatching(/^engine: plugin bad .*boom.*\n$/),
    });
    for (const args of [['--help'], ['config'], ['plugin', 'ls'], ['doctor'], ['version']])
      expect([args, engine(folder, ...args).status]).toEqual([args, 0]);
    expect(engine(folder, 'plugin', 'check', 'bad')).toMatchObject({ status: 1, stdout: expect.stringContaining('boom') });
  });

  test('a name is taken, a contract misspelt, a folder not empty', () => {
    expect(engine(base, 'plugin', 'new', 'Bad!').stderr).toMatch(/is no name for a plugin/);
    expect(engine(base, 'plugin', 'new', 'x', '--contract', 'storag').stderr).toMatch(/did you mean "storage"/);
    expect(engine(base, 'plugin', 'new', 'x', '--contract', 'log').stderr).toMatch(/there is no sample of a log plugin yet/);
    mkdirSync(join(base, 'full/of'), { recursive: true });
    expect(engine(base, 'plugin', 'new', 'full').stderr).toMatch(/exists and is not empty/);
  });
});
