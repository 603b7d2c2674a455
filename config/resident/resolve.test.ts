import { mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { loadConfig } from '../sources.ts';
import { createResolver, type Resolved } from './resolve.ts';

let folder: string;
const load = vi.fn(loadConfig);
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'engine-resolve-')));
  for (const name of ['cwd', 'home', 'home/.config', 'home/.config/engine']) mkdirSync(join(folder, name), { mode: 0o700 });
  load.mockClear();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Files as old as if nobody had touched them for a while. */
function write(path: string, text: string): void {
  const file = join(folder, path);
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 150));

function resolverOf(): (env?: Record<string, string>, flags?: object) => Promise<Resolved> {
  const resolver = createResolver(load);
  return (env = {}, flags = {}) => resolver.resolve({ cwd: join(folder, 'cwd'), env: { HOME: join(folder, 'home'), ...env }, flags });
}

it('reads once what does not change, whatever else is in the environment', async () => {
  write('home/.config/engine/enginerc', 'logLevel: error\n');
  await settle();
  const resolve = resolverOf();
  const first = await resolve({ PATH: '/a' });
  expect(first.config.value.logLevel).toBe('error');
  expect(await resolve({ PATH: '/b' })).toBe(first);
  expect(load).toHaveBeenCalledTimes(1);
  expect((await resolve({ ENGINE_LOG_LEVEL: 'info' })).digest).not.toBe(first.digest);
  expect((await resolve({}, { set: ['logLevel=error'] })).digest).toBe(first.digest);
});

it.each([
  ['a file that is edited', () => write('home/.config/engine/enginerc', 'logLevel: warn\n')],
  ['one that comes', () => write('cwd/.enginerc', 'drivers: { log: none }\n')],
  ['one that goes', () => rmSync(join(folder, 'home/.config/engine/enginerc'))],
  ['one that takes the place of another, as old and as long', () => {
    const file = join(folder, 'home/.config/engine/enginerc');
    writeFileSync(`${file}.x`, 'logLevel: fatal\n', { mode: 0o600 });
    utimesSync(`${file}.x`, 1, 1);
    renameSync(`${file}.x`, file);
  }],
  ['a folder that leads elsewhere now', () => {
    renameSync(join(folder, 'home/.config'), join(folder, 'home/.old'));
    symlinkSync('.old', join(folder, 'home/.config'));
  }],
  ['trust', () => write('home/.config/engine/trust.json', '{"folders": []}')],
])('sees %s', async (_what, change) => {
  write('home/.config/engine/enginerc', 'logLevel: error\n');
  await settle();
  const resolve = resolverOf();
  await resolve();
  await resolve();
  expect(load).toHaveBeenCalledTimes(1);
  change();
  await resolve();
  expect(load).toHaveBeenCalledTimes(2);
});

it('does not believe times that are too young to tell', async () => {
  write('home/.config/engine/enginerc', 'logLevel: error\n');
  const resolve = resolverOf();
  await resolve();
  await resolve();
  expect(load).toHaveBeenCalledTimes(2);
});

it('tells what is wrong every time, and remembers nothing of it', async () => {
  write('cwd/.enginerc', 'nope: 1\n');
  await settle();
  const resolve = resolverOf();
  await expect(resolve()).rejects.toMatchObject({ code: 'ERR_CONFIG_INVALID' });
  write('cwd/.enginerc', 'drivers: {}\n');
  expect((await resolve()).config.files).toHaveLength(1);
});
