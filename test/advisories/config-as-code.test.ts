import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

// SECURITY: a cloned repository, or a folder that others may write, must not make the engine run code as root.
const engineBin = join(import.meta.dirname, '../../bin/engine');
let base: string;
let repository: string;
let proof: string;

beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'engine-attack-')));
  repository = join(base, 'repository');
  proof = join(base, 'code-ran');
  mkdirSync(join(repository, 'evil'), { recursive: true });
  write(
    'evil/package.json',
    JSON.stringify({
      name: 'evil',
      version: '1.0.0',
      type: 'module',
      peerDependencies: { '@engine/core': '*' },
      engine: { name: 'evil', main: './plugin.ts' },
    }),
  );
  write(
    'evil/plugin.ts',
    `import { writeFileSync } from 'node:fs'; writeFileSync(${JSON.stringify(proof)}, ''); export default { create: () => ({}) };`,
  );
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const file = join(repository, name);
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, text);
  return file;
}
function attack(cwd = repository, ...args: string[]) {
  const env = {
    ...process.env,
    HOME: join(base, 'home'),
    XDG_CONFIG_HOME: '',
    ENGINE_ROOT: join(base, 'root'),
    ENGINE_RUN_ROOT: join(base, 'run'),
  };
  const { status, stderr } = spawnSync(engineBin, args.length > 0 ? args : ['ps'], { cwd, env, encoding: 'utf8' });
  expect(existsSync(proof)).toBe(false);
  return { status, stderr };
}
const code = (): string => `require('node:fs').writeFileSync(${JSON.stringify(proof)}, ''); module.exports = {};`;
const refused = (message: RegExp) => ({ status: 125, stderr: expect.stringMatching(message) });

test('plugins of a cloned repository', () => {
  write('.enginerc', 'plugins: [./evil]');
  expect(attack()).toEqual(refused(/plugins decides which code is run/));
  for (const verb of [['doctor'], ['config'], ['plugin', 'ls']]) expect(attack(repository, ...verb).status).toBe(125);
  mkdirSync(join(repository, 'a/b'), { recursive: true });
  // From a folder below, an untrusted file doesn't count at all.
  expect(attack(join(repository, 'a/b'))).toMatchObject({ status: 0 });
});

test.each(['.enginerc.js', '.enginerc.cjs', '.enginerc.mjs', '.enginerc.ts'])('%s', (name) => {
  write(name, code());
  expect(attack()).toEqual(refused(/data, not code/));
});

test.each(['.config/config.js', '.config/config.cjs', '.config/config.mjs', '.config/config.ts', 'package.json', '.config/config.json'])(
  "cosmiconfig's meta-configuration: %s",
  (name) => {
    write('.enginerc', 'drivers: { storage: vfs }');
    write('imported.js', code());
    write(
      name,
      name.endsWith('.json')
        ? JSON.stringify({ cosmiconfig: { searchPlaces: ['imported.js'], $import: './imported.js' }, $import: './imported.js' })
        : code(),
    );
    expect(attack()).toMatchObject({ status: 0 });
  },
);

test.each(['./x.js', '["./x.js"]', '/x'])('$import: %s', (target) => {
  write('x.js', code());
  write('.enginerc', `$import: ${target}`);
  expect(attack()).toEqual(refused(/"\$import" is not allowed/));
});

test.each(['!!js/function "function(){}"', '!!js/undefined x', '!!binary x y'])('YAML tag %s', (value) => {
  write('.enginerc', `root: ${value}`);
  expect(attack().status).toBe(125);
});

test('an alias bomb ends at once', () => {
  write(
    '.enginerc',
    `options:\n  a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefgh'
      .split('')
      .map((name, i) => `  ${name}: &${name} [${Array(9).fill(`*${'abcdefgh'[i]}`).join(',')}]`)
      .join('\n')}\n`,
  );
  const start = Date.now();
  expect(attack().status).toBe(125);
  expect(Date.now() - start).toBeLessThan(5000);
});

test('lower security', () => {
  write('.enginerc', 'security: { seccomp: unconfined }');
  expect(attack()).toEqual(refused(/would lower security/));
});

test.skipIf(process.getuid?.() !== 0)("somebody else's files, also in trusted folders", () => {
  const file = write('.enginerc', 'plugins: [./evil]');
  attack(repository, 'trust');
  chmodSync(file, 0o666);
  expect(attack()).toEqual(refused(/can be written by others/));
  chmodSync(file, 0o644);
  chmodSync(repository, 0o1777);
  expect(attack()).toEqual(refused(/can be written by others/));
  chmodSync(repository, 0o755);
  chownSync(file, 1000, 1000);
  expect(attack()).toEqual(refused(/belongs to uid 1000/));
  chownSync(file, 0, 0);
  chownSync(join(repository, 'evil/plugin.ts'), 1000, 1000);
  expect(attack()).toEqual(refused(/belongs to uid 1000/));
  chownSync(join(repository, 'evil/plugin.ts'), 0, 0);
  chmodSync(join(repository, 'evil'), 0o777);
  expect(attack()).toEqual(refused(/can be written by others/));
  rmSync(file);
  mkdirSync(join(base, 'theirs'));
  writeFileSync(join(base, 'theirs/rc'), 'plugins: [./evil]');
  chownSync(join(base, 'theirs'), 1000, 1000);
  symlinkSync('../theirs/rc', file);
  expect(attack()).toEqual(refused(/theirs belongs to uid 1000/));
});

test('the bait would work where it is trusted', () => {
  write('.enginerc', 'plugins: [./evil]');
  attack(repository, 'trust');
  const { status } = spawnSync(engineBin, ['ps'], {
    cwd: repository,
    env: {
      ...process.env,
      HOME: join(base, 'home'),
      XDG_CONFIG_HOME: '',
      ENGINE_ROOT: join(base, 'root'),
      ENGINE_RUN_ROOT: join(base, 'run'),
    },
  });
  expect(status).toBe(process.getuid?.() === 0 ? 0 : 125);
  expect(existsSync(proof)).toBe(true);
});
