import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');
const files = execFileSync('git', ['-c', 'safe.directory=*', 'ls-files', '-z'], { cwd: root, encoding: 'utf8' }).split('\0').filter((name) => name && existsSync(join(root, name)));
const read = (name: string): string => readFileSync(join(root, name), 'utf8');

/** What drivers share with each other: it lies beside their contracts, and nothing of the core uses it. */
const forDrivers = /\/contracts\/(common\/(mounts|staging)|storage\/(changes|folders|names))\.ts$/;
/** What lies in the core but isn't part of it: tests, conformance suites, fakes, and what drivers share. */
const beside = /\.(test|fixture)\.ts$|\/(suite[^/]*|fake[^/]*|bench|checks|archives|containers|stream|shim-log|vitest|node-test)\.ts$/;
/** Lines that are neither empty nor comment (the `doc` of an operation is one) nor import. */
function codeLines(text: string): number {
  return text.replaceAll(/^\s*\/\*[^]*?\*\/\s*$/gm, '').split('\n').filter((line) => line.trim() !== '' && !/^\s*\/\/|^\s+doc: '|^import |^export .* from '/.test(line)).length;
}

// 5,000 for lifecycle, plans and state, 600 for what the resident engine needs of it: runs in one plan, remembered plans, sandboxes, traces; 1,000 for
// networks: four contracts, records, leases, ports, connect and disconnect; 700 for pause, update, stats, user namespaces (ranges of ids, owners on disk) and barriers; 1,300 for bundles of other
// engines: their state, every verb on it, config.json as it comes from outside, the hand-over; 400 for what they are watched and written down with: kills, ends, checkpoints
it('the core stays small: under 9,000 lines of code, imports aside', () => {
  const core = files.filter((name) => name.startsWith('core/') && name.endsWith('.ts') && !beside.test(name) && !forDrivers.test(name));
  const total = core.reduce((sum, name) => sum + codeLines(read(name)), 0);
  expect(total).toBeGreaterThan(2000);
  expect(total).toBeLessThan(9000);
});

it('what drivers share is theirs alone', () => {
  const shared = files.filter((name) => forDrivers.test(name)).flatMap((name) => [...read(name).matchAll(/^export (?:async )?(?:const|function|interface|type) (\w+)/gm)].map(([, word]) => word ?? ''));
  expect(shared.length).toBeGreaterThan(10);
  const own = files.filter((name) => name.startsWith('core/') && name.endsWith('.ts') && !beside.test(name) && !forDrivers.test(name));
  const uses = new RegExp(`^import .*\\b(${shared.join('|')})\\b.* from '.*contracts/(common|storage)/`, 'm');
  expect(own.filter((name) => uses.test(read(name)))).toEqual([]);
});

it('a file does one thing, in about 400 lines', () => {
  const long = files.filter((name) => /\.(ts|c|h|sh)$/.test(name)).map((name) => [name, read(name).split('\n').length] as const);
  expect(long.filter(([, lines]) => lines > 450)).toEqual([]);
});

it('every plugin is a package of its own, made in one way', () => {
  const plugins = files.filter((name) => /^plugins\/[^/]+\/package\.json$/.test(name)).map(dirname);
  expect(plugins.length).toBeGreaterThan(10);
  for (const folder of plugins) {
    const name = basename(folder);
    const { name: own, engine } = JSON.parse(read(`${folder}/package.json`)) as { name: string; engine: { name: string; provides?: { contract: string; driver: string }[] } };
    expect([own, engine.name]).toEqual([`@engine/plugin-${name}`, name]);
    for (const file of ['driver.ts', 'plugin.ts', 'README.md']) expect(files).toContain(`${folder}/${file}`);
    expect(files.some((file) => file.startsWith(`${folder}/`) && file.endsWith('.test.ts')), `${folder} has a test`).toBe(true);
    if (name !== 'sample') for (const { contract, driver } of engine.provides ?? []) expect(name).toBe(`${contract}-${driver}`);
    // the driver knows no registry, and what hands it over does nothing else
    expect(read(`${folder}/driver.ts`)).not.toMatch(/definePlugin|core\/plugin/);
    expect(codeLines(read(`${folder}/plugin.ts`))).toBeLessThan(20);
  }
});

it('every room says in a few lines what lives there', () => {
  const rooms = ['config', 'core', 'native', 'native/src', 'native/ts', 'plugins', 'test', 'docs', ...new Set(files.filter((name) => /^core\/[^/]+\//.test(name)).map((name) => name.split('/').slice(0, 2).join('/')))];
  expect(rooms.filter((folder) => !files.includes(`${folder}/README.md`) && !files.includes(`${folder}/index.md`))).toEqual([]);
});
