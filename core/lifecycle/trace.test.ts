import { afterEach, describe, expect, it } from 'vitest';
import { type Span } from '../api/index.ts';
import { request, startEngines } from './engine.fixture.ts';

const start = startEngines(afterEach);
const attach = { stdin: false, stdout: true, stderr: true };
const sorted = (spans: readonly Span[]): Span[] => spans.toSorted((a, b) => (a.begin < b.begin ? -1 : a.begin > b.begin ? 1 : 0));
const named = (spans: readonly Span[], kind: Span['kind']): string[] => sorted(spans).filter((span) => span.kind === kind).map(({ name }) => name);

describe('the trace of a run', () => {
  it('holds every operation of the plan once, in order, with the plugin behind it', async () => {
    const { engine, fixture } = await start();
    const spans: Span[] = [];
    const from = process.hrtime.bigint();
    const session = await engine.containers.run(request({ command: ['true'], autoRemove: true }), { attach, trace: (span) => spans.push(span) });
    await session.gone;
    const to = process.hrtime.bigint();
    const operations = spans.filter(({ kind }) => kind === 'operation');
    const performed = fixture.native.operations.map(({ part, name, origin }) => `${part} ${name} ${origin.plugin}`);
    expect(operations.map(({ track, name, details }) => `${track} ${name} ${details?.['plugin']}`).sort()).toEqual(performed.sort());
    expect(new Set(operations.map(({ track, details }) => `${track} ${details?.['index']}`)).size).toBe(operations.length);
    expect(new Set(operations.map(({ track }) => track))).toEqual(new Set(['shim', 'init', 'after']));
    for (const { begin, end, name } of spans) expect(from <= begin && begin <= end && end <= to, name).toBe(true);
  });
  it('names hooks in their order and covers all of the time with phases', async () => {
    const { engine } = await start();
    const spans: Span[] = [];
    const from = process.hrtime.bigint();
    const session = await engine.containers.run(request({ command: ['true'], autoRemove: true }), { attach, trace: (span) => spans.push(span) });
    await session.gone;
    const to = process.hrtime.bigint();
    const hooks = named(spans, 'hook');
    const wanted = ['compile', 'configure', 'prepareRootfs', 'applyLimits', 'attachNetwork'];
    expect(hooks.filter((name) => wanted.includes(name))).toEqual(wanted);
    const phases = named(spans, 'engine');
    for (const name of ['request', 'draft', 'plan', 'encode', 'database', 'run folder', 'spawn the shim', 'wait for the start', 'program', 'undo', 'collect']) expect(phases).toContain(name);
    expect(phases.indexOf('plan')).toBeLessThan(phases.indexOf('spawn the shim'));
    let covered = 0n;
    let last = from;
    for (const { begin, end } of sorted(spans.filter(({ kind }) => kind === 'engine'))) {
      if (end <= last) continue;
      covered += end - (begin > last ? begin : last);
      last = end;
    }
    expect(Number(covered) / Number(to - from)).toBeGreaterThan(0.8);
  });
  it('shows what a failed start did, its failed operation and its undo', async () => {
    const { engine, fixture } = await start();
    const made = await engine.containers.create(request({ command: ['true'], name: 'one' }));
    fixture.native.failAt(3, { errno: 'EACCES' });
    const spans: Span[] = [];
    await expect(engine.containers.start(made.id, { trace: (span) => spans.push(span) })).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', data: { index: 3 } });
    fixture.native.reset();
    expect(spans.filter(({ kind, details, track }) => kind === 'operation' && track !== 'after' && details?.['index'] === '3')).toHaveLength(1);
    expect(named(spans, 'engine')).toEqual(expect.arrayContaining(['wait for the start', 'collect']));
  });
  it('tells of a creation that needs a process of its own', async () => {
    const { engine } = await start();
    const spans: Span[] = [];
    const session = await engine.containers.run(request({ command: ['true'], name: 'kept' }), { attach, trace: (span) => spans.push(span) });
    await session.gone;
    expect(spans.some(({ track, name }) => track === 'helper' && name === 'process for helper')).toBe(true);
    expect(named(spans, 'engine')).toEqual(expect.arrayContaining(['create container kept', 'start container kept']));
  });
});
