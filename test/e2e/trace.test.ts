import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine({ resident: 'auto' });
  await importBusybox(engine);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

interface Event { readonly name: string; readonly ph: string; readonly cat: string; readonly ts: number; readonly dur: number; readonly pid: number; readonly tid: number; readonly args: Readonly<Record<string, string>> }
interface Traced extends Event { readonly track: string }

const file = (name: string): string => join(engine.folder, 'cwd', name);
/** Complete events with the name of their thread; times in µs. */
function read(name: string): { readonly all: readonly Traced[]; readonly operations: readonly Traced[]; readonly error: string | undefined } {
  const { traceEvents, otherData } = JSON.parse(readFileSync(file(name), 'utf8')) as { traceEvents: Event[]; otherData: { error?: string } };
  const tracks = new Map(traceEvents.filter((event) => event.name === 'thread_name').map(({ tid, args }) => [tid, args['name'] ?? '']));
  const all = traceEvents.filter(({ ph }) => ph === 'X').map((event) => ({ ...event, track: tracks.get(event.tid) ?? '' }));
  return { all, operations: all.filter(({ cat }) => cat === 'operation'), error: otherData.error };
}
const inOrder = (events: readonly Traced[]): Traced[] => events.toSorted((a, b) => a.ts - b.ts);
/** What `--explain` says would be run. */
async function explained(...args: string[]): Promise<string[]> {
  const steps = JSON.parse(await engine.ok('run', '--explain=json', ...args)) as { part: string; slot: string; operation: string; origin: { plugin: string } }[];
  return steps.map(({ slot, operation, origin }) => `${slot} ${operation} ${origin.plugin}`);
}
const told = (operations: readonly Traced[]): string[] => operations.map(({ name, args }) => `${args['slot']} ${name} ${args['plugin']}`);
const RUN = ['compile', 'configure', 'prepareRootfs', 'createNamespaces', 'applyLimits', 'attachNetwork'];

describe.each([['in a process of its own', ['--no-daemon']], ['by the resident engine', []]] as const)('--trace %s', (_, global) => {
  beforeAll(async () => {
    if (global.length === 0) await engine.startEngined();
  });

  it('holds every operation of the plan exactly once, on the track of who runs it', async () => {
    const plan = await explained('busybox', 'true');
    expect(await engine.run([...global, 'run', '--name', 'traced', '--trace', 'kept', 'busybox', 'true'])).toMatchObject({ code: 0, stdout: '', stderr: '' });
    await engine.ok('rm', 'traced');
    const { operations } = read('kept.json');
    // asked for twice: for the exit status, and in its place in the undo
    const ofRun = operations.filter(({ track, name }) => track !== 'helper' && name !== 'memoryEvents');
    expect(operations.filter(({ name }) => name === 'memoryEvents').length).toBeLessThanOrEqual(2);
    expect(told(ofRun).sort()).toEqual(plan.filter((line) => !line.includes(' memoryEvents ')).sort());
    expect(new Set(ofRun.map(({ args }) => args['index'])).size).toBe(ofRun.length);
    for (const { track, args, dur } of operations) expect([track, dur >= 0]).toEqual([args['slot']?.split('.')[0], true]);
    const init = inOrder(ofRun.filter(({ track }) => track === 'init'));
    expect([init.at(-1)?.name, ...init.map(({ args }) => Number(args['index']))]).toEqual(['exec', ...init.map(({ args }) => Number(args['index'])).sort((a, b) => a - b)]);
    expect(existsSync(file('kept.html'))).toBe(true);
  });
  it('has hooks in their order, taps and drivers within them, and covers all of the time', async () => {
    const begin = performance.now();
    expect(await engine.run([...global, 'run', '--rm', '--trace', 'run.json', 'busybox', 'echo', 'x'])).toMatchObject({ code: 0, stdout: 'x\n' });
    const wall = (performance.now() - begin) * 1000;
    const { all, operations, error } = read('run.json');
    expect(error).toBeUndefined();
    const hooks = inOrder(all.filter(({ cat }) => cat === 'hook'));
    expect(hooks.map(({ name }) => name).filter((name) => RUN.includes(name))).toEqual(RUN);
    for (const tap of all.filter(({ cat }) => cat === 'tap' || cat === 'driver')) {
      expect(hooks.some(({ name, ts, dur }) => name === tap.args['hook'] && ts <= tap.ts && tap.ts + tap.dur <= ts + dur + 0.001), tap.name).toBe(true);
    }
    const whole = all.find(({ name }) => name === 'engine run');
    expect(whole?.ts).toBe(0);
    expect(whole?.dur).toBeLessThan(wall);
    for (const { name, ts, dur } of all) expect(ts >= 0 && ts + dur <= (whole?.dur ?? 0) + 0.001, name).toBe(true);
    const phases = inOrder(all.filter(({ cat, name }) => cat === 'engine' && name !== 'engine run'));
    let [covered, last] = [0, 0];
    for (const { ts, dur } of phases) {
      covered += Math.max(0, ts + dur - Math.max(last, ts));
      last = Math.max(last, ts + dur);
    }
    expect(covered).toBeGreaterThan(0.7 * (whole?.dur ?? Infinity));
    // the undo is in it: it is written when all is gone
    expect(operations.some(({ track }) => track === 'after')).toBe(true);
    expect(phases.some(({ name }) => name === 'start Node')).toBe(global.length > 0);
  });
  it('is written when the run fails, too: how far it came, what failed, the undo', async () => {
    const { code, stderr } = await engine.run([...global, 'run', '--rm', '--trace', 'failed', 'busybox', '/no/such']);
    expect(code).toBe(127);
    const { operations, error } = read('failed.json');
    expect(stderr).toContain(error);
    expect(operations.filter(({ args }) => args['error'] !== undefined).map(({ name, track }) => [name, track])).toEqual([['resolveExec', 'init']]);
    expect(operations.some(({ track }) => track === 'after')).toBe(true);
    expect(operations.some(({ name }) => name === 'exec')).toBe(false);
    expect(readFileSync(file('failed.html'), 'utf8')).toMatch(/<p class="error">exec: &#34;\/no\/such&#34;/);
    expect(await engine.ok('ps', '-aq')).toBe('');
  });
  it('shows a start', async () => {
    const id = await engine.ok('create', 'busybox', 'echo', 'again');
    expect(await engine.run([...global, 'start', '-a', '--trace', 'start.json', id])).toMatchObject({ code: 0, stdout: 'again\n' });
    expect(read('start.json').operations.map(({ name }) => name)).toContain('exec');
    await engine.ok('rm', id);
  });
});

it('says before anything runs that the file cannot be written', async () => {
  const { code, stderr } = await engine.run(['run', '--rm', '--trace', 'no/such/folder/x', 'busybox', 'true']);
  expect([code, stderr]).toEqual([125, expect.stringContaining('cannot write the trace')]);
});
