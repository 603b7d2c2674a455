import { mkdtempSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createHooks } from '@engine/core/hooks';
import { createLog } from './log.ts';
import { loadPlugins } from './loader.ts';
import { checkPlugin, listPlugins, newPlugin, type CheckLine } from './plugin-kit.ts';
import { defaults } from './schema.ts';
import { loadConfig } from './sources.ts';

let base: string;
beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), 'engine-kit-')));
});
afterEach(() => rmSync(base, { recursive: true }));

async function check(folder: string): Promise<CheckLine[]> {
  const lines: CheckLine[] = [];
  for await (const line of checkPlugin(folder, { cwd: base, level: 1 })) lines.push(line);
  return lines;
}

test('a new plugin is a copy of the sample under its own name, and is good', async () => {
  const folder = newPlugin('my-store', { cwd: base });
  const driver = readFileSync(join(folder, 'driver.ts'), 'utf8');
  expect(driver).toContain('createMyStoreStorage');
  expect(driver).toContain("name: 'my-store'");
  for (const file of ['driver.ts', 'plugin.ts', 'driver.test.ts', 'README.md', 'package.json'])
    expect(readFileSync(join(folder, file), 'utf8')).not.toMatch(/\bsample\b(?! (plugin|to start))|Sample/);
  expect(driver.split('\n').length).toBeLessThan(100);
  const lines = await check('my-store');
  expect(lines.filter(({ state }) => state === 'failed')).toEqual([]);
  expect(lines.some(({ what, detail }) => /level 1/.test(what) && /[1-9]\d passed, 0 failed/.test(detail ?? ''))).toBe(true);
});

test('what is wrong with a driver is found by its suite', async () => {
  const folder = newPlugin('store', { cwd: base });
  const file = join(folder, 'driver.ts');
  writeFileSync(
    file,
    readFileSync(file, 'utf8')
      .replace('hasLayer: (chainID) => existsSync(folders.layer(chainID))', 'hasLayer: () => true')
      .replace('features: new Set()', "features: new Set(['quota'])"),
  );
  const failed = (await check('store')).filter(({ state }) => state === 'failed').map(({ what }) => what);
  expect(failed).toContain('storage driver store: features');
  expect(failed.length).toBeGreaterThan(1);
});

test('a plugin that does not make what it promises', async () => {
  const folder = newPlugin('store', { cwd: base });
  writeFileSync(join(folder, 'plugin.ts'), 'export default { create: () => ({ drivers: [] }) };');
  expect(await check('store')).toContainEqual(
    expect.objectContaining({ state: 'failed', detail: expect.stringContaining('promises storage driver store but does not make it') }),
  );
});

test('a broken plugin is listed with its reason', async () => {
  const config = await loadConfig({ cwd: base, env: {}, places: { system: base, user: undefined }, flags: { set: ['plugins=./none'] } });
  const lines = await listPlugins(config);
  expect(lines.at(-1)).toMatchObject({ name: join(base, 'none'), error: expect.stringContaining('there is no folder') });
});

test("the example in the author's book works", async () => {
  const book = readFileSync(join(import.meta.dirname, '../docs/plugins/README.md'), 'utf8');
  const block = (kind: string): string => new RegExp(`\`\`\`${kind} plugin\\n([^]*?)\`\`\``).exec(book)?.[1] ?? '';
  const folder = join(base, 'site');
  mkdirSync(folder);
  writeFileSync(join(folder, 'plugin.ts'), block('ts'));
  writeFileSync(join(folder, 'package.json'), block('json'));
  const [plugin] = await loadPlugins({
    config: { plugins: [folder], options: { site: { site: 'lab' } }, security: defaults.security },
    pluginBase: base,
    builtins: [],
  });
  const log = createLog({ level: 'silent', format: 'text' });
  const hooks = createHooks({ log });
  (await plugin!.definition()).create({ tap: hooks.tapFor('site'), options: plugin!.options, log } as never);
  const request = { verb: 'create', arguments: { request: { privileged: true } }, caller: { uid: 0, pid: 1 }, config: [] };
  await expect(hooks.call('request', request)).rejects.toMatchObject({ code: 'ERR_DENIED' });
  expect(hooks.taps('configure').map((tap) => tap.plugin)).toEqual(['site']);
});
