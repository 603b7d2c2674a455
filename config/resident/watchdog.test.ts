import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BLOCKED_FILE, isBlocking, startWatchdog } from './watchdog.ts';
import { type Verdict } from './watchdog-worker.ts';

let folder: string;
beforeEach(() => { folder = mkdtempSync(join(tmpdir(), 'engine-watchdog-')); });
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const prelude = `import { startWatchdog } from ${JSON.stringify(join(import.meta.dirname, 'watchdog.ts'))};
const watchdog = startWatchdog({ folder: process.argv[1], limit: 400 });
const hang = (how) => { for (;;) if (how === 'wait') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000); };
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
`;
function host(body: string): Promise<{ signal: string | null; code: number | null; stderr: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', prelude + body, folder], { stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    child.on('close', (code, signal) => resolve({ code, signal, stderr }));
  });
}
const verdict = (): Verdict => JSON.parse(readFileSync(join(folder, 'engined.died'), 'utf8')) as Verdict;

describe('watchdog', () => {
  it('ends a process whose main thread is blocked, and says who did it', async () => {
    const { signal, stderr } = await host("await sleep(300); watchdog.mark('acme', 'hook configure', () => hang('spin'));");
    expect(signal).toBe('SIGKILL');
    expect(verdict()).toMatchObject({ plugin: 'acme', reason: 'plugin acme blocked the engine for 0.4 s in hook configure' });
    expect(verdict().stack?.[0]).toMatch(/^hang /);
    expect(stderr).toContain('plugin acme blocked the engine');
    expect(statSync(join(folder, 'engined.died')).mode & 0o777).toBe(0o600);
  });
  it('names a plugin that goes on after it has given way, by its code', async () => {
    const body = `import { writeFileSync, mkdirSync } from 'node:fs';
      mkdirSync(process.argv[1] + '/acme'); writeFileSync(process.argv[1] + '/acme/main.mjs', 'export async function tap() { await new Promise((r) => setTimeout(r, 50)); for (;;); }');
      const { tap } = await import(process.argv[1] + '/acme/main.mjs');
      watchdog.host.admit({ manifest: { name: 'acme' }, source: process.argv[1] + '/acme' });
      watchdog.mark('other', 'hook create', () => sleep(60_000)); await watchdog.mark('acme', 'hook create', tap);`;
    expect((await host(body)).signal).toBe('SIGKILL');
    expect(verdict()).toMatchObject({ plugin: 'acme', reason: 'plugin acme blocked the engine for 0.4 s in hook create' });
  });
  it('does not take part in what is only slow, and none in a process that was stopped', async () => {
    const body = "watchdog.mark('acme', 'hook create', () => sleep(60_000)); const end = Date.now() + 3000; while (Date.now() < end) { await sleep(1); const t = Date.now() + 100; while (Date.now() < t); } process.exit(7);";
    const running = host(body);
    expect(await running).toMatchObject({ code: 7, signal: null });
    expect(existsSync(join(folder, 'engined.died'))).toBe(false);
  });
  it('says so when it was nobody\'s plugin', async () => {
    await host("await sleep(100); hang('wait');");
    expect(verdict().plugin).toBeUndefined();
    expect(verdict().reason).toBe('the engine was blocked for 0.4 s');
  });

  it('checkpoints a database beside the main thread', async () => {
    const path = join(folder, 'state.db');
    const db = new DatabaseSync(path);
    db.exec('PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID; CREATE TABLE t (x TEXT)');
    for (let i = 0; i < 500; i++) db.exec(`INSERT INTO t VALUES ('${'x'.repeat(1000)}')`);
    const before = statSync(`${path}-wal`).size;
    const watchdog = startWatchdog({ folder });
    try {
      await watchdog.compact(path);
      for (let i = 0; i < 100; i++) db.exec("INSERT INTO t VALUES ('y')");
      // written over from its start
      expect(statSync(`${path}-wal`).size).toBeLessThanOrEqual(before);
      await expect(watchdog.compact(join(folder, 'missing', 'x.db'))).rejects.toThrow(/unable to open/);
    } finally {
      await watchdog.stop();
    }
    db.close();
  });
});

it('three verdicts in a row, and a plugin stays out until it was changed or an hour has passed', () => {
  const at = Date.parse('2026-01-01T00:00:00Z');
  const write = (plugins: string[]): void => writeFileSync(join(folder, BLOCKED_FILE), JSON.stringify(plugins.map((plugin, i) => ({ plugin, reason: '', pid: 1, time: new Date(at + i * 1000).toISOString() }))));
  const blocking = (changed: number, now = at + 10_000): boolean => isBlocking(folder, 'acme', changed, now);
  expect(blocking(0)).toBe(false);
  write(['acme', 'acme']);
  expect(blocking(0)).toBe(false);
  write(['acme', 'other', 'acme', 'acme']);
  expect(blocking(0)).toBe(false);
  write(['other', 'acme', 'acme', 'acme']);
  expect(blocking(0)).toBe(true);
  expect(blocking(at + 5000)).toBe(false);
  expect(blocking(0, at + 3_700_000)).toBe(false);
});
