/** Configuration that came with somebody else's folder: it must not lower a fence, and odd files must not stop the engine. Files that are code: config-as-code.test.ts. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Result } from '../helpers/engine.ts';
import { Attack } from './attack.ts';

let engine: Attack;
let cwd: string;
let marker: string;
let count = 0;
beforeAll(async () => {
  engine = new Attack();
  await engine.image('plain');
});
beforeEach(() => {
  cwd = join(engine.folder, `clone-${count++}`);
  marker = join(engine.folder, `marker-${count}`);
  mkdirSync(cwd);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

function put(files: Readonly<Record<string, string>>): void {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(cwd, name)), { recursive: true });
    writeFileSync(join(cwd, name), content);
  }
}
const evil = (): string => `require('node:fs').writeFileSync(${JSON.stringify(marker)}, 'ran'); module.exports = {};`;
/** A run in that folder that would show a lowered fence. */
const run = (): Promise<Result> => engine.run(['run', '--rm', 'plain', 'sh', '-c', 'grep -E "^(Seccomp|CapEff):" /proc/self/status | tr -d "\\n\\t"; ls /sys/class/net | wc -l'], { cwd });
const fenced = expect.stringMatching(/^CapEff:00000000a80425fbSeccomp:2\s*1\n$/) as unknown;
/** Either the file is not looked at and the fence is whole, or one line says what is wrong with it. */
async function harmless(pattern?: RegExp): Promise<'ignored' | 'refused'> {
  const result = await run();
  expect(existsSync(marker), 'code of the folder was run').toBe(false);
  if (result.code === 0) {
    expect(result.stdout).toEqual(fenced);
    return 'ignored';
  }
  expect(result.code).toBe(125);
  expect(result.stderr.trimEnd().split('\n'), result.stderr).toHaveLength(1);
  expect(result.stderr).not.toMatch(/\n\s+at /);
  if (pattern) expect(result.stderr).toMatch(pattern);
  return 'refused';
}

describe('config as code', () => {
  it('control: these files do run code when they are loaded', () => {
    put({ 'evil.cjs': evil() });
    execFileSync(process.execPath, [join(cwd, 'evil.cjs')]);
    expect(existsSync(marker)).toBe(true);
  });
  it('plugins, drivers of confinement, lower security and hosts: of an untrusted folder are refused', async () => {
    put({ 'evil.cjs': evil(), 'plugin/package.json': JSON.stringify({ name: 'evil', version: '1.0.0', type: 'commonjs', main: '../evil.cjs', exports: '../evil.cjs', engine: { driver: '../evil.cjs' } }), 'plugin/index.js': evil(), 'profile.json': '{"defaultAction":"SCMP_ACT_ALLOW"}' });
    for (const content of ['plugins: [./plugin]', 'plugins: [./evil.cjs]', 'security: {seccomp: unconfined}', 'security: {seccomp: ./profile.json}', 'security: {apparmor: unconfined}', 'drivers: {network: host}', 'drivers: {security: []}', 'root: /tmp/elsewhere', 'runRoot: ./run', 'options: {storage-overlay: {x: 1}}', 'hosts: [{match: {}, security: {seccomp: unconfined}}]', '__proto__: {security: {seccomp: unconfined}}', 'constructor: {prototype: {x: 1}}', 'drivers: {__proto__: {network: host}}']) {
      put({ '.enginerc': content });
      expect(await harmless(/enginerc/), content).toBe('refused');
    }
  });
  it('what lies in node_modules of the folder is not loaded in the place of ours', async () => {
    for (const name of ['@engine/core', '@engine/plugin-storage-overlay', 'koffi', 'cosmiconfig', 'yaml', 'tapable']) {
      put({ [`node_modules/${name}/package.json`]: JSON.stringify({ name, version: '99.0.0', main: 'index.js', exports: { '.': './index.js', './*': './index.js' } }), [`node_modules/${name}/index.js`]: evil() });
    }
    put({ '.npmrc': 'node-options=--require ./evil.cjs', 'tsconfig.json': '{', '.env': `NODE_OPTIONS=--require ${cwd}/evil.cjs`, 'evil.cjs': evil() });
    expect(await harmless()).toBe('ignored');
  });
});

describe('whose file it is', () => {
  const lower = 'drivers: {storage: overlay}\n';
  const trust = async (): Promise<void> => void (await engine.ok('trust', cwd));
  it('files and folders that others can write to, or own, do not count', async () => {
    for (const spoil of [
      () => chmodSync(join(cwd, '.enginerc'), 0o666), () => chmodSync(join(cwd, '.enginerc'), 0o664), () => chownSync(join(cwd, '.enginerc'), 1000, 1000), () => chownSync(cwd, 1000, 1000), () => chmodSync(cwd, 0o777), () => chmodSync(cwd, 0o1777),
    ]) {
      put({ '.enginerc': lower });
      chmodSync(join(cwd, '.enginerc'), 0o644);
      chownSync(cwd, 0, 0);
      chmodSync(cwd, 0o755);
      spoil();
      expect(await harmless(/owned|writ/), spoil.toString()).toBe('refused');
      rmSync(join(cwd, '.enginerc'));
    }
  });
  it('nor below a parent that others can write to', async () => {
    const parent = cwd;
    cwd = join(parent, 'project');
    mkdirSync(cwd);
    put({ '.enginerc': lower });
    chmodSync(parent, 0o777);
    expect(await harmless(/owned|writ/)).toBe('refused');
    chmodSync(parent, 0o755);
    expect((await run()).code).toBe(0); // control
  });
  it('links, fifos, folders, devices and files without end are refused at once', async () => {
    const other = join(engine.folder, `world-${count}`);
    mkdirSync(other);
    chmodSync(other, 0o777);
    writeFileSync(join(other, 'rc'), lower);
    const path = join(cwd, '.enginerc');
    for (const make of [
      () => symlinkSync(join(other, 'rc'), path), () => symlinkSync('/dev/zero', path), () => execFileSync('mkfifo', [path]), () => mkdirSync(path), () => symlinkSync(path, path),
      () => { writeFileSync(path, ''); truncateSync(path, 2 ** 33); }, () => writeFileSync(path, `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghijk'.split('').map((k, i) => `${k}: &${k} [${Array(9).fill(`*${'abcdefghij'[i] ?? 'a'}`).join(',')}]`).join('\n')}\n`),
      () => writeFileSync(path, `${'['.repeat(50_000)}`), () => writeFileSync(path, Buffer.from([0xff, 0xfe, 0, 0, 1])), () => writeFileSync(path, '\0'), () => writeFileSync(path, '\u001b]0;evil\u0007: 1\n'),
    ]) {
      make();
      const begun = Date.now();
      expect(await harmless(), make.toString()).toBe('refused');
      expect(Date.now() - begun, make.toString()).toBeLessThan(8000);
      rmSync(path, { recursive: true });
    }
  });
  it('trust is for a real folder that nobody else can change, and lasts no longer than that', async () => {
    put({ '.enginerc': 'security: {seccomp: unconfined}\n' });
    expect(await harmless()).toBe('refused');
    const link = join(engine.folder, `link-${count}`);
    symlinkSync(cwd, link);
    await trust();
    expect((await run()).stdout).toMatch(/Seccomp:0/); // trusted by its owner: now it counts, by its real path
    chmodSync(join(cwd, '.enginerc'), 0o666);
    expect(await harmless(/owned|writ/)).toBe('refused');
    chmodSync(join(cwd, '.enginerc'), 0o644);
    chmodSync(cwd, 0o777);
    expect(await harmless(/owned|writ/)).toBe('refused');
    expect((await engine.run(['trust', cwd])).code).not.toBe(0);
    chmodSync(cwd, 0o755);
    // somebody puts another folder in its place
    rmSync(cwd, { recursive: true });
    mkdirSync(cwd);
    chownSync(cwd, 1000, 1000);
    put({ '.enginerc': 'security: {seccomp: unconfined}\n' });
    expect(await harmless(/owned|writ/)).toBe('refused');
  });
});
