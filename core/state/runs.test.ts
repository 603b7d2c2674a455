import * as fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type FakeNative } from '../native/fake.ts';
import { type Frame } from '../native/index.ts';
import { op } from '../plan/build.ts';
import { type Operation } from '../plan/types.ts';
import { FRAME, RUN_FILES } from '../plan/protocol.ts';
import { instanceOf, openState } from './open.ts';
import { container, Crash, createFixture, plan, silent, simplePlan, type Fixture } from './state.fixture.ts';
import { type RunRecord, type State } from './types.ts';

let fixture: Fixture;
beforeEach(() => { fixture = createFixture(); });
afterEach(() => fixture.remove());

const id = 'c'.repeat(64);
const group = (): string => join(fixture.work, 'group');
let runs = 0;
const record = (native: FakeNative): RunRecord => ({ run: `run${runs++}`, container: id, instance: instanceOf(join(fixture.folder, 'root')), boot: native.bootId(), created: '2026-01-01T00:00:00Z' });

async function insert(state: State): Promise<void> {
  if (state.containers.get(id)) return;
  await state.begin('insert').commit((rows) => rows.insertContainer(container(id, 'x')));
}
/** As the lifecycle does it: folder, shim, its lock. Resolves when the program runs or the plan failed. */
async function start(state: State, native: FakeNative, bytes: Uint8Array): Promise<{ folder: string; frames: Frame[]; closed: Promise<void> }> {
  const { folder, lock } = await state.runs.create(record(native), bytes);
  const connection = native.spawnShim({ mode: 'run', plan: join(folder, RUN_FILES.plan), runFolder: folder, lock });
  lock.release();
  const frames: Frame[] = [];
  await new Promise<void>((resolve) => {
    connection.onFrame((frame) => {
      frames.push(frame);
      if (frame.type === FRAME.started || frame.type === FRAME.failed) resolve();
    });
    void connection.closed.then(resolve);
  });
  return { folder, frames, closed: connection.closed };
}

describe('runs below a root of their own', () => {
  it('know what they are deleting on another thread, and nothing of what others left', async () => {
    const asked: string[] = [];
    const state = await fixture.open(fixture.native, undefined, (folder) => void asked.push(folder));
    const root = join(fixture.folder, 'below');
    fs.mkdirSync(join(root, '.trash'), { recursive: true });
    const below = state.runsIn(root);
    const { folder, lock } = await below.create(record(fixture.native), plan([]));
    await below.clear(folder, lock);
    expect(asked).toEqual([expect.stringMatching(/\/below\/\.trash\//)]);
    expect(state.runsIn(root).isLeaving(asked[0] ?? '')).toBe(true);
    expect(below.isLeaving(join(root, '.trash', 'other'))).toBe(false);
  });

  it('need no process to undo groups that nobody is in, and one for all that is more', async () => {
    const asked: string[] = [];
    const busy = new Set<string>();
    let shims = 0;
    const native = Object.assign(Object.create(fixture.native) as FakeNative, {
      removeGroup: (path: string) => (asked.push(path), !busy.has(path)),
      spawnShim: (request: Parameters<FakeNative['spawnShim']>[0]) => (shims++, fixture.native.spawnShim(request)),
    });
    const root = join(fixture.folder, 'below');
    for (const name of ['.trash', '.leftovers']) fs.mkdirSync(join(root, name), { recursive: true });
    const below = (await fixture.open(native)).runsIn(root);
    const group = (name: string): Operation[] => [op.cgroupKill({ path: `/g/${name}`, deadline: 1 }), op.memoryEvents({ path: `/g/${name}`, version: 1 }), op.cgroupRemove({ path: `/g/${name}`, deadline: 1 })];
    const clear = async (...undo: Operation[]): Promise<[string[], number, readonly string[]]> => {
      const { folder, lock } = await below.create(record(native), plan(undo.map((operation) => ({ slot: 'after.undo', operation }))));
      asked.length = shims = 0;
      const failures = await below.clear(folder, lock);
      return [[...asked], shims, failures];
    };
    expect(await clear(...group('a'), ...group('b'))).toEqual([['/g/a', '/g/b'], 0, []]);
    busy.add('/g/b');
    expect(await clear(...group('a'), ...group('b'), ...group('c'))).toEqual([['/g/a', '/g/b'], 1, []]);
    expect(await clear(...group('a'), op.rmdir({ path: '/nowhere' }, { okMissing: true }))).toEqual([[], 1, []]);
    expect(await clear()).toEqual([[], 0, []]);
  });
});

describe('runs', () => {
  it('run to their end, and are collected once', async () => {
    const state = await fixture.open();
    await insert(state);
    const { closed } = await start(state, fixture.native, simplePlan(group(), ['false']));
    await closed;
    const [one, two] = await Promise.all([state.runs.collect(id), state.runs.collect(id)]);
    expect(one).toMatchObject({ exit: { code: 1 }, failures: [] });
    expect(two?.exit ?? one?.exit).toEqual(one?.exit);
    expect(state.containers.get(id)?.lastExit).toMatchObject({ code: 1 });
    expect(state.containers.get(id)?.lastExit?.startedAt).toMatch(/T.*\.\d{9}Z$/);
    expect(state.runs.find(id)).toBeUndefined();
    expect(await state.runs.collect(id)).toBeUndefined();
    expect(fixture.leftOver()).toEqual([]);
  });

  it('are alive while the shim holds the lock, also without the engine that started them', async () => {
    const state = await fixture.open();
    await insert(state);
    await start(state, fixture.native, simplePlan(group(), ['sleep', '9']));
    expect(state.runs.find(id)).toMatchObject({ alive: true, undone: false, stale: false, started: { pid: expect.any(Number) as number } });
    await expect(state.runs.create(record(fixture.native), simplePlan(group(), ['true']))).rejects.toMatchObject({ code: 'ERR_ALREADY_RUNNING' });
    await expect(state.runs.collect(id, { timeout: 20 })).rejects.toMatchObject({ code: 'ERR_BUSY' });
    const native = fixture.native.restart();
    const next = await fixture.open(native);
    expect(await next.reconcile()).toEqual([]);
    expect(next.runs.list()).toMatchObject([{ alive: true, record: { container: id } }]);
    const connection = await native.connectShim(join(next.runs.find(id)?.folder ?? '', RUN_FILES.socket));
    await connection.send(FRAME.signal, { argument: 15 });
    await connection.closed;
    expect(await next.runs.collect(id)).toMatchObject({ exit: { code: 143, signal: 15 } });
    expect(fs.existsSync(group())).toBe(false);
  });

  it('whose shim is killed are undone, with 137', async () => {
    const state = await fixture.open();
    await insert(state);
    const { folder } = await start(state, fixture.native, simplePlan(group(), ['sleep']));
    fixture.native.killShim(folder);
    expect(state.runs.find(id)).toMatchObject({ alive: false });
    expect(await state.orphans()).toMatchObject([{ kind: 'run' }]);
    expect(await state.reconcile()).toMatchObject([expect.stringContaining('exit code 137, the shim was killed') as string]);
    expect(fixture.native.operations.map((operation) => operation.name).slice(-2)).toEqual(['cgroupKill', 'removeTree']);
    expect(state.containers.get(id)?.lastExit).toMatchObject({ code: 137, signal: 9, error: 'the shim was killed' });
    expect(fixture.leftOver()).toEqual([]);
  });

  it('of another boot are undone and told from a killed shim', async () => {
    const state = await fixture.open();
    await insert(state);
    await start(state, fixture.native, simplePlan(group(), ['sleep']));
    const native = fixture.native.restart({ reboot: true });
    const next = await fixture.open(native);
    expect(next.runs.find(id)).toMatchObject({ stale: true, alive: false });
    await next.reconcile();
    expect(next.containers.get(id)?.lastExit).toMatchObject({ code: 137, error: 'the machine was restarted' });
    expect(next.containers.get(id)?.lastExit?.signal).toBeUndefined();
    expect(fs.existsSync(group())).toBe(false);
    expect(fixture.leftOver()).toEqual([]);
  });

  it('that never came to the program leave no exit', async () => {
    const state = await fixture.open();
    await insert(state);
    const { lock } = await state.runs.create(record(fixture.native), simplePlan(group(), ['true']));
    lock.release();
    await state.reconcile();
    expect(state.containers.get(id)?.lastExit).toBeUndefined();
    expect(fixture.leftOver()).toEqual([]);
  });

  it('whose plan failed have Docker\'s exit codes', async () => {
    for (const [k, errno, code] of [[0, 'EIO', 125], [1, 'ENOENT', 127], [2, 'EACCES', 126], [1, 'EACCES', 126]] as const) {
      fixture.remove();
      fixture = createFixture();
      const state = await fixture.open();
      await insert(state);
      fixture.native.failAt(k, { errno, detail: 'because' });
      const { closed, frames } = await start(state, fixture.native, simplePlan(group(), ['program']));
      await closed;
      expect(frames.map((frame) => frame.type)).toEqual([FRAME.failed, FRAME.gone]);
      const collected = await state.runs.collect(id);
      expect(collected?.exit.code).toBe(code);
      expect(collected?.exit.error).toContain(`${errno}, because [plugin test]`);
      expect(fs.existsSync(group())).toBe(false);
    }
  });

  it('are not started again before their undo is done; what cannot be undone is kept and tried again', async () => {
    const state = await fixture.open();
    await insert(state);
    const bytes = plan([
      { slot: 'init.exec', operation: op.exec({ program: 'p', argv: ['true'], env: [] }) },
      { slot: 'after.undo', operation: op.rmdir({ path: group() }, { okMissing: true }) },
    ]);
    fs.mkdirSync(join(group(), 'busy'), { recursive: true });
    const { closed } = await start(state, fixture.native, bytes);
    await closed;
    expect(await state.runs.collect(id)).toMatchObject({ exit: { code: 0 }, failures: [expect.stringContaining('ENOTEMPTY') as string] });
    expect(state.runs.find(id)).toBeUndefined();
    expect(await state.orphans()).toMatchObject([{ kind: 'undo' }]);
    expect(await state.reconcile()).toMatchObject([expect.stringContaining('could not undo') as string]);
    fs.rmdirSync(join(group(), 'busy'));
    expect(await state.reconcile()).toMatchObject([expect.stringContaining('undone') as string]);
    expect(fixture.leftOver()).toEqual([]);
  });

  it('of an engine with another root, in the same run root, are left to that one', async () => {
    const state = await fixture.open();
    await insert(state);
    const { folder } = await start(state, fixture.native, simplePlan(group(), ['sleep']));
    fixture.native.killShim(folder);
    const native = fixture.native.restart();
    const other = await openState({ root: join(fixture.folder, 'other'), runRoot: join(fixture.folder, 'run'), native, log: silent });
    expect([await other.reconcile({ fix: true }), await other.orphans()]).toEqual([[], []]);
    other.close();
    const own = await fixture.open(native);
    expect(await own.reconcile()).toHaveLength(1);
    expect(own.containers.get(id)?.lastExit?.code).toBe(137);
  });

  it('follow an amended plan', async () => {
    const state = await fixture.open();
    await insert(state);
    const { folder } = await start(state, fixture.native, simplePlan(group(), ['sleep']));
    fs.mkdirSync(join(fixture.work, 'extra'));
    await state.runs.amend(id, plan([{ slot: 'after.undo', operation: op.removeTree({ path: join(fixture.work, 'extra') }) }]));
    fixture.native.killShim(folder);
    await state.runs.collect(id);
    expect(fs.existsSync(join(fixture.work, 'extra'))).toBe(false);
    await expect(state.runs.amend(id, new Uint8Array())).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
  });

  it('with an unreadable record are shown, block nothing, and are cleared by a fix', async () => {
    const state = await fixture.open();
    await insert(state);
    const { folder } = await start(state, fixture.native, simplePlan(group(), ['sleep']));
    fixture.native.killShim(folder);
    fs.writeFileSync(join(folder, RUN_FILES.record), '{"run":');
    fs.writeFileSync(join(folder, '..', 'stray'), '');
    expect(await state.reconcile()).toHaveLength(2);
    expect(await state.orphans()).toMatchObject([{ kind: 'run', owner: expect.stringContaining('not readable') as string }, { kind: 'run' }]);
    const { lock } = await state.runs.create(record(fixture.native), simplePlan(group(), ['true']));
    lock.release();
    await state.runs.collect(id);
    fs.unlinkSync(join(folder, '..', 'stray'));
    await state.reconcile();
    expect(fs.existsSync(group())).toBe(false);
    expect(fixture.leftOver()).toEqual([]);
  });

  it('survive a crash of the engine at every record point of create and collect', async () => {
    const seen = new Set<string>();
    for (let stop = 0; ; stop++) {
      fixture.remove();
      fixture = createFixture();
      let calls = 0;
      let at = '';
      const first = await fixture.open();
      await insert(first);
      const state = await fixture.open(fixture.native, (name) => {
        if (calls++ !== stop) return;
        at = name;
        fixture.native.die();
        throw new Crash(name);
      });
      const result = await (async () => {
        const { folder } = await start(state, fixture.native, simplePlan(group(), ['sleep']));
        fixture.native.killShim(folder);
        return state.runs.collect(id);
      })().catch((error: unknown) => error);
      if (at === '') break;
      expect(result).toBeInstanceOf(Crash);
      seen.add(at);
      const next = await fixture.open(fixture.native.restart());
      await next.reconcile();
      expect(fixture.leftOver()).toEqual([]);
      expect(fs.existsSync(group())).toBe(false);
      const exit = next.containers.get(id)?.lastExit;
      expect(exit?.code).toBe(at.startsWith('run.write') || at.startsWith('run.create') ? undefined : 137);
    }
    expect([...seen].filter((name) => name.endsWith('.after')).sort()).toEqual(['run.create.after', 'run.exit.after', 'run.record.after', 'run.remove.after', 'run.undo.after', 'run.write.after']);
  });

  it('survive shim and engine killed at every operation', async () => {
    for (const victim of ['shim', 'both'] as const) {
      for (let k = 0; k < 5; k++) {
        for (const when of ['before', 'after'] as const) {
          fixture.remove();
          fixture = createFixture();
          const state = await fixture.open();
          await insert(state);
          fixture.native.crashAt(k, { victim, when });
          void start(state, fixture.native, simplePlan(group(), ['true'])).catch(() => {});
          await new Promise((resolve) => setTimeout(resolve, 30));
          const next = await fixture.open(fixture.native.restart());
          await next.reconcile();
          expect(fixture.leftOver()).toEqual([]);
          expect(fs.existsSync(group())).toBe(false);
          expect(next.containers.get(id)?.lastExit?.code).toBe(k >= 3 ? 0 : undefined);
        }
      }
    }
  });
});
