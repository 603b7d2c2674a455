import { spawnSync } from 'node:child_process';
import { accessSync, chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

const home = join(import.meta.dirname, '../..');
const isRoot = process.getuid?.() === 0;
const nobody = 65534;
/** The checkout may lie where nobody else may look. */
const readable = spawnSync('test', ['-r', join(home, 'config/setup/setup.sh')], { uid: isRoot ? nobody : undefined }).status === 0;
let base: string;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'engine-setup-'));
  chmodSync(base, 0o755);
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

const oneLine = (status: number, message: RegExp) => ({
  status,
  stderr: expect.stringMatching(new RegExp(`^engine: ${message.source}[^\\n]*\\n$`)),
});
function run(command: string, args: string[], options: { uid?: number; path?: string; env?: Record<string, string> } = {}) {
  const env = {
    ...process.env,
    HOME: base,
    XDG_CONFIG_HOME: '',
    ...options.env,
    ...(options.path === undefined ? {} : { PATH: options.path }),
  };
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: home,
    encoding: 'utf8',
    env,
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  });
  return { status, stdout, stderr };
}
const setup = join(home, 'config/setup/setup.sh');

test.skipIf(!isRoot)('setting up without gcc is one line', () => {
  const bin = join(base, 'bin');
  mkdirSync(bin);
  for (const name of ['sh', 'uname', 'id', 'grep', 'sed', 'cat', 'node', 'npx', 'dirname']) {
    const folder = (process.env.PATH ?? '').split(delimiter).find((candidate) => {
      try {
        accessSync(join(candidate, name));
        return true;
      } catch {
        return false;
      }
    });
    if (folder !== undefined) symlinkSync(join(folder, name), join(bin, name));
  }
  expect(run('/bin/sh', [setup], { path: bin })).toMatchObject(oneLine(125, /gcc is missing/));
});

test.skipIf(!isRoot || !readable)('setting up and running without root is one line, explaining needs none', () => {
  expect(run('sh', [setup], { uid: nobody })).toMatchObject(oneLine(125, /root is needed/));
  const engine = join(home, 'bin/engine');
  expect(run(engine, ['ps'], { uid: nobody })).toMatchObject(oneLine(125, /containers can be run by root only/));
  expect(run(engine, ['run', '--rm', 'host', 'true'], { uid: nobody })).toMatchObject(oneLine(125, /containers can be run by root only/));
  const before = readdirSync(tmpdir()).filter((name) => name.startsWith('engine-explain-'));
  expect(run(engine, ['run', '--rm', '--explain', 'host', 'true'], { uid: nobody })).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/^shim:\n[^]*exec /),
  });
  expect(readdirSync(tmpdir()).filter((name) => name.startsWith('engine-explain-'))).toEqual(before);
  for (const verb of ['--help', 'config', 'doctor', 'version']) expect(run(engine, [verb], { uid: nobody })).toMatchObject({ status: 0 });
});

test('a checkout that is not set up says how', () => {
  cpSync(join(home, 'bin'), join(base, 'checkout/bin'), { recursive: true });
  const engine = join(base, 'checkout/bin/engine');
  expect(run(engine, ['ps'])).toMatchObject(oneLine(125, /not set up yet/));
  mkdirSync(join(base, 'checkout/node_modules'));
  for (const name of readdirSync(join(home, 'node_modules')).filter((entry) => entry.startsWith('node-linux-')))
    symlinkSync(join(home, 'node_modules', name), join(base, 'checkout/node_modules', name));
  expect(run(engine, ['ps'])).toMatchObject(oneLine(125, /not built yet/));
});

test('the bundle asks Node for nothing that does not lie beside it', () => {
  const dist = join(home, 'dist');
  const beside = readdirSync(join(dist, 'node_modules'));
  const unknown = new Set<string>();
  // chunks of earlier builds lie there too
  const reached = new Set([join(dist, 'engine.js')]);
  for (const file of reached) {
    // statements at the start of a line, and calls: a text may say `from` as well
    for (const [, whole, called] of readFileSync(file, 'utf8').matchAll(/^(?:import|export)\b(?:[^"'`\n]*\bfrom)?\s*["']([^"'\n]+)["'];?|\bimport\(["'`]([^"'`\n]+)["'`]\)/gm)) {
      const from = whole ?? called ?? '';
      if (from.startsWith('.')) reached.add(join(dirname(file), from));
      else if (!from.startsWith('node:') && !beside.includes(from.split('/')[0] ?? '')) unknown.add(`${file}: ${from}`);
    }
  }
  expect(reached.size).toBeGreaterThan(10);
  expect([...unknown]).toEqual([]);
});

test('the program can be called through a link, from anywhere', () => {
  symlinkSync(join(home, 'bin/engine'), join(base, 'one'));
  symlinkSync('one', join(base, 'two'));
  expect(run(join(base, 'two'), ['version'])).toMatchObject({ status: 0, stdout: expect.stringMatching(/^engine \d/) });
  expect(run('sh', ['-c', 'cd / && two version'], { path: `${base}:${process.env.PATH ?? ''}` })).toMatchObject({ status: 0 });
});
