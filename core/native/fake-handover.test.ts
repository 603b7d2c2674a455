import { mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, writeFileSync, writeSync, closeSync, constants } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { encodePlan } from '../plan/encode.ts';
import { op, step } from '../plan/build.ts';
import { FRAME, RUN_FILES } from '../plan/protocol.ts';
import { type Step } from '../plan/types.ts';
import { createFakeNative, type FakeNative } from './fake.ts';
import { type Frame, type ShimConnection, type SpawnShim } from './index.ts';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});
function machine(): { native: FakeNative; run: string } {
  const prefix = mkdtempSync(join(tmpdir(), 'engine-fake-'));
  folders.push(prefix);
  mkdirSync(join(prefix, 'run'));
  return { native: createFakeNative({ prefix }), run: join(prefix, 'run') };
}
const bytes = (steps: readonly Step[]): Uint8Array => encodePlan({ steps: steps.map((one) => ({ ...one, origin: { plugin: 'test', hook: 'test' } })) });
const container = (argv: readonly string[]): Uint8Array => bytes([
  step('shim.stdio', op.stdio({ flags: 64 })),
  step('init.exec', op.awaitStart({})),
  step('init.exec', op.unlink({ path: '/tmp/nothing' })),
  step('init.exec', op.exec({ program: 'p', argv, env: [] })),
]);
const session = (argv: readonly string[]): Uint8Array => bytes([step('exec.join', op.joinContainer({})), step('exec.exec', op.exec({ program: 'p', argv, env: [] }))]);

interface Heard { readonly frames: Frame[]; readonly connection: ShimConnection }
async function start(native: FakeNative, run: string, mode: SpawnShim['mode'], plan: Uint8Array, more: Partial<SpawnShim> = {}): Promise<Heard> {
  const path = join(run, mode === 'run' ? 'plan' : 'session');
  writeFileSync(path, plan);
  const lock = mode === 'run' || mode === 'undo' ? native.tryLock(join(run, 'lock')) : undefined;
  const connection = native.spawnShim({ mode, plan: path, runFolder: run, ...(lock ? { lock } : {}), ...(mode === 'undo' ? {} : { handOver: { preserve: 0 } }), ...more });
  lock?.release();
  const frames: Frame[] = [];
  connection.onFrame((frame) => frames.push(frame));
  await connection.closed;
  return { frames, connection };
}
/** As `start` does it. */
async function begin(run: string): Promise<string> {
  const status = openSync(join(run, RUN_FILES.status), constants.O_RDONLY | constants.O_NONBLOCK);
  const go = openSync(join(run, RUN_FILES.go), constants.O_WRONLY | constants.O_NONBLOCK);
  writeSync(go, 'x');
  closeSync(go);
  const buffer = Buffer.alloc(4096);
  let text = '';
  for (let n = -1; n !== 0;) {
    try {
      text += buffer.toString('utf8', 0, (n = readSync(status, buffer)));
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
  closeSync(status);
  return text;
}

describe('a fake run that is handed over', () => {
  it('goes on without its shim, and is started, joined and signalled by its pid', async () => {
    const { native, run } = machine();
    const { frames } = await start(native, run, 'run', container(['sleep']));
    expect(frames.map(({ type }) => type)).toEqual([FRAME.started]);
    const pid = frames[0]?.argument ?? 0;
    expect(native.tryLock(join(run, 'lock'), { create: false })).toBeDefined();
    expect(native.processStartTime(pid)).toBe(1n);
    expect(native.operations.some(({ name }) => name === 'exec')).toBe(false);
    expect(await begin(run)).toBe('');
    expect(native.operations.some(({ name }) => name === 'exec')).toBe(true);
    const echo = await start(native, run, 'exec', session(['echo', 'hi']));
    const echoed = native.processOf(echo.frames[0]?.argument ?? 0);
    expect([await echoed?.ended, echoed?.output.stdout]).toEqual([{ code: 0, signal: 0 }, 'hi\n']);
    expect(native.signalProcess(pid, 2n, 9)).toBe(false);
    expect(native.signalProcess(pid, 1n, 15)).toBe(true);
    expect(await native.processOf(pid)?.ended).toEqual({ code: 143, signal: 15 });
    expect(native.processStartTime(pid)).toBe(undefined);
    const late = await start(native, run, 'exec', session(['true']));
    expect(late.frames.map(({ type }) => type)).toEqual([FRAME.failed]);
    expect(late.frames[0]?.payload.readInt32LE(8)).toBe(3);
  });

  it('says in the fifo what fails after the start', async () => {
    const { native, run } = machine();
    await start(native, run, 'run', container(['sleep']));
    native.failAt(0, { errno: 'EACCES', detail: 'no' });
    expect(JSON.parse(await begin(run))).toEqual({ part: 'init', index: 2, errno: 13, detail: 'no' });
  });

  it('is undone when it fails before, and its undo kills who waits', async () => {
    const failed = machine();
    failed.native.failAt(1);
    const { frames } = await start(failed.native, failed.run, 'run', container(['sleep']));
    expect(frames.map(({ type }) => type)).toEqual([FRAME.failed, FRAME.gone]);
    expect(readdirSync(failed.run)).not.toContain('started');
    const { native, run } = machine();
    await start(native, run, 'run', container(['sleep']));
    const { pid } = JSON.parse(readFileSync(join(run, 'started'), 'utf8')) as { pid: number };
    expect((await start(native, run, 'undo', container(['sleep']))).frames.at(-1)?.type).toBe(FRAME.ok);
    expect(await native.processOf(pid)?.ended).toMatchObject({ signal: 9 });
  });

  it('is started by its caller, or not at all', async () => {
    const { native, run } = machine();
    const asked: string[] = [];
    const spawn = async ({ argv }: { argv: readonly string[] }): Promise<number> => asked.push(argv.join(' '));
    expect((await start(native, run, 'run', container(['sleep']), { by: { spawn } })).frames[0]?.type).toBe(FRAME.started);
    expect(asked).toEqual(['engine-shim run']);
    const other = machine();
    const { frames, connection } = await start(other.native, other.run, 'run', container(['sleep']), { by: { spawn: () => Promise.reject(new Error('gone')) } });
    expect([frames, connection.failure?.message]).toEqual([[], 'gone']);
    expect(other.native.tryLock(join(other.run, 'lock'), { create: false })).toBeDefined();
  });
});
