import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'vitest';
import { createSyscalls } from '@engine/native';
import { until } from '../../test/helpers/wait.ts';
import { createKeep, reviveKeeper, type KeepOptions } from './ensure.ts';
import { builtAt, endKeeper, FILES, keeperInfo, keeperOf, readInfo, readWork } from './place.ts';

const node = join(import.meta.dirname, '../../node_modules/.bin/node');
/** Writes each start and stop to its folder; fails as often as its options say. */
const service = `
import { appendFileSync, existsSync } from 'node:fs';
import { defineService } from '@engine/core/plugin';
export default defineService({
  async start({ serviceFolder, options, instance, runRoot }) {
    const say = (what) => appendFileSync(serviceFolder + '/events', [what, process.pid, ...(options.name ? [options.name] : [])].join(' ') + '\\n');
    say('start');
    if (instance !== 'engine-test') throw new Error('instance ' + instance);
    if (existsSync(runRoot + '/fail')) throw new Error('told to fail');
    const timer = setInterval(() => { if (existsSync(runRoot + '/crash-' + process.pid)) { clearInterval(timer); throw new Error('told to crash'); } }, 10);
    return { async stop() { clearInterval(timer); say('stop'); }, needed: () => existsSync(runRoot + '/needed') ? ['told so'] : [] };
  },
});
`;
let folder: string;
let runRoot: string;
let started: number[];
beforeEach(() => {
  folder = realpathSync(mkdtempSync('/tmp/engine-keeper-'));
  runRoot = join(folder, 'run');
  mkdirSync(join(runRoot, 'runs/r1'), { recursive: true, mode: 0o700 });
  writeFileSync(join(folder, 'service.mjs'), service);
  started = [];
});
afterEach(async () => {
  await endKeeper(runRoot);
  // one that has not come so far yet ends too
  for (const pid of started) end(pid);
  for (const pid of started) await until('processes to end', () => !existsSync(`/proc/${pid}`));
  rmSync(folder, { recursive: true, force: true });
});

function end(pid: number): void {
  try {
    if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(runRoot)) process.kill(pid, 'SIGTERM');
  } catch {
    // it has ended
  }
}
/** As the launcher does, from the sources, and without a lock. `script` in another folder is another build. */
const start = (script: string) => (): void => {
  const child = spawn(node, ['--disable-warning=ExperimentalWarning', script, runRoot], { cwd: '/', detached: true, stdio: ['ignore', 'ignore', openSync(join(runRoot, FILES.log), 'a')] });
  started.push(child.pid ?? 0);
  child.unref();
};
const main = join(import.meta.dirname, 'main.ts');
function plugin(name = 'told', options: Record<string, unknown> = {}) {
  return { manifest: { name, version: '1', main: './x', service: './service.mjs' }, builtin: false, source: folder, options };
}
function keeping(options: KeepOptions & { readonly plugins?: ReturnType<typeof plugin>[] } = {}): () => Promise<void> {
  const warnings: unknown[] = [];
  const keep = createKeep({ logLevel: 'warn' }, { runRoot, instance: 'engine-test' }, options.plugins ?? [plugin()], { idle: 60, patience: 30_000, built: 0, start: start(main), log: { warn: (...args: unknown[]) => void warnings.push(args) } as never, ...options });
  return async () => {
    await keep();
    assert.deepEqual(warnings, [], existsSync(join(runRoot, FILES.log)) ? readFileSync(join(runRoot, FILES.log), 'utf8') : '');
  };
}
async function killed(): Promise<void> {
  const pid = keeperOf(runRoot);
  assert.ok(pid);
  process.kill(pid, 'SIGKILL');
  await until('its end', () => !existsSync(`/proc/${pid}`));
}
const events = (name = 'told'): string[] => readFileSync(join(runRoot, name, 'events'), 'utf8').trim().split('\n');
const count = (what: string, name?: string): number => events(name).filter((line) => line.startsWith(what)).length;

it('is started by the first who asks, stays with the others, and ends when it is told to', async () => {
  const keep = keeping();
  await keep();
  const pid = keeperOf(runRoot);
  assert.ok(pid);
  assert.deepEqual(events(), [`start ${pid}`]);
  await Promise.all([keep(), keeping()()]);
  assert.equal(keeperOf(runRoot), pid);
  assert.equal(started.length, 1);
  assert.equal(await endKeeper(runRoot), true);
  assert.deepEqual(events().at(-1), `stop ${pid}`);
  assert.equal(await endKeeper(runRoot), false);
});

it('is one, however many start at once', async () => {
  await Promise.all(Array.from({ length: 5 }, () => keeping()()));
  const pid = keeperOf(runRoot);
  for (const other of started) if (other !== pid) await until('the others to end', () => !existsSync(`/proc/${other}`));
  assert.equal(keeperOf(runRoot), pid);
  assert.deepEqual(events(), [`start ${pid}`]);
});

it('killed, it is started again by the next start, and by an engine that looks after it', async () => {
  const keep = keeping();
  await keep();
  await killed();
  await keep();
  assert.ok(keeperOf(runRoot));
  await killed();
  assert.equal(reviveKeeper(runRoot, undefined, start(main)), true);
  await until('a third', () => keeperInfo(runRoot)?.ready);
  assert.equal(reviveKeeper(runRoot, undefined, start(main)), false);
  assert.equal(count('start'), 3);
  assert.equal(count('stop'), 0);
});

it('ends by itself when nothing runs for a while, and no service needs it; and is there for who comes just then', async () => {
  const keep = keeping({ idle: 0.2 });
  await keep();
  const pid = keeperOf(runRoot);
  writeFileSync(join(runRoot, 'needed'), '');
  rmSync(join(runRoot, 'runs/r1'), { recursive: true });
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal(keeperOf(runRoot), pid);
  rmSync(join(runRoot, 'needed'));
  await until('its end', () => keeperOf(runRoot) === undefined);
  assert.equal(readWork(runRoot), undefined);
  assert.equal(count('stop'), 1);
  mkdirSync(join(runRoot, 'runs/r2'));
  assert.equal(reviveKeeper(runRoot, undefined, start(main)), false);
  await keep();
  assert.ok(keeperOf(runRoot));
  // again and again, around the instant when it leaves
  rmSync(join(runRoot, 'runs/r2'), { recursive: true });
  for (let i = 0; i < 12; i++) {
    await keep();
    assert.ok(keeperOf(runRoot), `round ${i}`);
    await new Promise((resolve) => setTimeout(resolve, 150 + i * 15));
  }
});

it('ends when its folder is removed', async () => {
  await keeping({ idle: 1 })();
  const pid = keeperOf(runRoot);
  rmSync(runRoot, { recursive: true });
  await until('its end', () => !existsSync(`/proc/${pid}`));
});

it('of an older build it is replaced, the new one serving before the old one stops; of a newer one it stays', async () => {
  await keeping()();
  const old = keeperOf(runRoot);
  const before = readInfo(runRoot)?.built ?? 0;
  // another build: the same sources, seen from a folder with a stamp of its own
  const newer = join(folder, 'newer');
  mkdirSync(newer);
  writeFileSync(join(newer, '.stamp'), '');
  writeFileSync(join(newer, 'keeper.ts'), `process.argv[1] = ${JSON.stringify(join(newer, 'keeper.ts'))};\nawait import(${JSON.stringify(main)});\n`);
  const built = builtAt(join(newer, 'keeper.ts'));
  assert.ok(built > before);
  await keeping({ built, start: start(join(newer, 'keeper.ts')) })();
  const pid = keeperOf(runRoot);
  assert.notEqual(pid, old);
  await until('the end of the old one', () => !existsSync(`/proc/${old}`));
  assert.deepEqual(events(), [`start ${old}`, `start ${pid}`, `stop ${old}`]);
  await keeping()();
  assert.equal(keeperOf(runRoot), pid);
});

it('a service that fails to start, or later, is started again by itself; the others go on', async () => {
  writeFileSync(join(runRoot, 'fail'), '');
  await keeping()();
  await until('another attempt', () => count('start') > 1);
  rmSync(join(runRoot, 'fail'));
  await until('the attempt that works', () => count('start') > 2);
  const pid = keeperOf(runRoot);
  await keeping({ plugins: [plugin('other')] })();
  await until('the other service', () => existsSync(join(runRoot, 'other/events')));
  const [first, other] = [count('start'), count('start', 'other')];
  writeFileSync(join(runRoot, `crash-${pid}`), '');
  await until('both anew', () => count('start') > first && count('start', 'other') > other && events().at(-2)?.startsWith('stop'));
  rmSync(join(runRoot, `crash-${pid}`));
  assert.equal(keeperOf(runRoot), pid);
  assert.match(readFileSync(join(runRoot, FILES.log), 'utf8'), /"plugin":"told".*told to fail.*started again/);
});

it('a service with other options is started anew, one more is added, and one that another configuration has stays', async () => {
  await keeping()();
  const pid = keeperOf(runRoot);
  await keeping({ plugins: [plugin('told', { name: 'two' }), plugin('more')] })();
  await until('both', () => count('start') === 2 && existsSync(join(runRoot, 'more/events')));
  assert.deepEqual(events(), [`start ${pid}`, `stop ${pid}`, `start ${pid} two`]);
  await keeping({ plugins: [plugin('more')] })();
  assert.deepEqual(readWork(runRoot)?.services.map((one) => one.plugin).sort(), ['more', 'told']);
});

it('its log does not grow without end', async () => {
  mkdirSync(runRoot, { recursive: true });
  appendFileSync(join(runRoot, FILES.log), 'x'.repeat(2 << 20));
  await keeping()();
  // its next line is written a moment after it is ready
  await until('its log to begin anew', () => readFileSync(join(runRoot, FILES.log)).length < 10_000);
});

it('asking for it is one lock that is refused, and no waiting', async () => {
  const calls = createSyscalls();
  let locks = 0;
  const counting = { close: calls.close, lock: (...args: Parameters<typeof calls.lock>) => (locks++, calls.lock(...args)) };
  const keep = createKeep({ logLevel: 'warn' }, { runRoot, instance: 'engine-test' }, [plugin()], { patience: 30_000, built: 0, calls: counting, start: start(main) });
  await keep();
  locks = 0;
  for (let i = 0; i < 1000; i++) assert.equal(keep(), undefined);
  assert.equal(locks, 1000);
});
