import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Engine, type Span } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { type CommandContext } from './command.ts';
import { createScale, duration } from './trace-scale.ts';
import { layOut, type Trace } from './trace-layout.ts';
import { traceHtml } from './trace-html.ts';
import { traceJson } from './trace-json.ts';
import { traced, traceFiles } from './trace.ts';

const folder = mkdtempSync(join(tmpdir(), 'engine-trace-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Times in µs from a begin that is no round number. */
const BEGIN = 123_456_789_012_345n;
function span(name: string, track: string, from: number, to: number, kind: Span['kind'] = 'operation', details?: Record<string, string>): Span {
  return { name, track, kind, begin: BEGIN + BigInt(Math.round(from * 1000)), end: BEGIN + BigInt(Math.round(to * 1000)), ...(details && { details }) };
}
const spans: Span[] = [
  span('storage-overlay', 'engine', 120, 300, 'driver', { plugin: 'storage-overlay', hook: 'prepareRootfs' }),
  span('core: storage', 'engine', 110, 310, 'tap', { plugin: 'core', hook: 'prepareRootfs' }),
  span('prepareRootfs', 'engine', 100, 400, 'hook'),
  span('plan', 'engine', 90, 500, 'engine'),
  span('wait for the start', 'engine', 600, 1500, 'engine', { waits: 'shim' }),
  span('mkdir', 'shim', 700, 712.5, 'operation', { plugin: 'core', index: '0', slot: 'shim.stdio', path: '/x/<script>alert("1")</script>' }),
  span('spawn', 'shim', 712.5, 990, 'operation', { plugin: 'core', index: '1', slot: 'shim.spawn' }),
  span('moveMount', 'init', 800, 804.25, 'operation', { plugin: 'linux-base', index: '2', slot: 'init.mounts', path: "/a'b\u001b[31m" }),
  span('exec', 'init', 850, 1400, 'operation', { plugin: 'linux-base', index: '3', slot: 'init.exec' }),
  span('program', 'engine', 1500, 901_500, 'engine', { waits: 'program' }),
  span('umount', 'after', 901_600, 901_700, 'operation', { plugin: 'storage-overlay', index: '4', slot: 'after.undo' }),
  span('engine run', 'engine', 0, 902_000, 'engine'),
];
const trace: Trace = { title: 'engine run --rm image sh -c "a < b && c"', version: '1.2.3', startedAt: '2026-01-01T00:00:00.000Z', spans };

interface Event { name: string; ph: string; ts?: number; dur?: number; pid: number; tid: number; cat?: string; args: Record<string, string | number> }
const events = (of: Trace): Event[] => (JSON.parse(traceJson(of)) as { traceEvents: Event[] }).traceEvents;

/** Every element is closed in order, every attribute is quoted, every entity is whole. */
function checkMarkup(html: string): string[] {
  const open: string[] = [];
  const names: string[] = [];
  const rest = html.replace('<!DOCTYPE html>', '').replaceAll(/<style>[^<]*<\/style>/g, '').replaceAll(/<(\/?)([a-z][a-z0-9]*)((?:\s+[a-zA-Z][a-zA-Z0-9-]*="[^"<>]*")*)\s*(\/?)>/g, (_, end: string, name: string, _attributes: string, self: string) => {
    names.push(name);
    if (end) expect(open.pop()).toBe(name);
    else if (!self) open.push(name);
    return '';
  });
  expect(open).toEqual([]);
  expect(rest).not.toMatch(/[<>]/);
  expect(html).not.toMatch(/&(?!#\d+;)/);
  return names;
}

describe('layout', () => {
  it('nests what lies within, the one told later around, and gives overlaps a lane of their own', () => {
    const same = [span('inner', 'engine', 1, 2), span('outer', 'engine', 1, 2), span('across', 'engine', 1.5, 3)];
    const lanes = layOut([...same, span('x', 'init', 0, 1), span('y', 'shim', 0, 1)]);
    expect(lanes.map(({ track, number }) => [track, number])).toEqual([['engine', 0], ['engine', 1], ['shim', 0], ['init', 0]]);
    expect(lanes[0]?.spans.map((placed) => [placed.span.name, placed.depth, placed.own])).toEqual([['outer', 0, 0n], ['inner', 1, 1000n]]);
    expect(lanes[1]?.spans.map((placed) => placed.span.name)).toEqual(['across']);
  });
  it('gives each its own time', () => {
    const own = new Map(layOut(spans).flatMap((lane) => lane.spans).map((placed) => [placed.span.name, placed.own]));
    expect([own.get('prepareRootfs'), own.get('core: storage'), own.get('storage-overlay'), own.get('mkdir')]).toEqual([100_000n, 20_000n, 180_000n, 12_500n]);
  });
});

describe('scale', () => {
  it('is straight, with a ruler, from 0 to 1', () => {
    const scale = createScale(BEGIN, BEGIN + 1_000_000n, BEGIN, []);
    expect([scale.at(BEGIN), scale.at(BEGIN + 250_000n), scale.at(BEGIN + 1_000_000n)]).toEqual([0, 0.25, 1]);
    expect(scale.ticks.map(({ label }) => label)).toEqual(['0.0 ms', '0.1 ms', '0.2 ms', '0.3 ms', '0.4 ms', '0.5 ms', '0.6 ms', '0.7 ms', '0.8 ms', '0.9 ms', '1.0 ms']);
    expect(createScale(BEGIN, BEGIN, BEGIN, []).at(BEGIN)).toBe(0);
  });
  it('cuts out the time in which only the program ran', () => {
    const scale = createScale(BEGIN, BEGIN + 902_000_000n, BEGIN, spans);
    expect(scale.cuts.map(({ length }) => duration(length))).toEqual(['900 ms']);
    expect(scale.at(BEGIN + 1_500_000n)).toBeGreaterThan(0.5);
    expect(scale.at(BEGIN + 902_000_000n)).toBeCloseTo(1);
    const positions = [0n, 1_000_000n, 1_500_000n, 500_000_000n, 901_500_000n, 901_700_000n].map((at) => scale.at(BEGIN + at));
    expect(positions).toEqual([...positions].sort((a, b) => a - b));
  });
  it('writes times in three digits', () => {
    expect([0, 12_345, 999_000, 1_234_567, 45_600_000, 999_999_999, 12_340_000_000].map(duration)).toEqual(['0.0 µs', '12.3 µs', '999 µs', '1.23 ms', '45.6 ms', '1.00 s', '12.3 s']);
  });
});

describe('json', () => {
  it('keeps the rules of the trace event format', () => {
    const all = events(trace);
    expect(all.filter(({ ph }) => ph === 'X')).toHaveLength(spans.length);
    for (const { name, ph, ts, dur, pid, tid, args } of all) {
      expect([typeof name, typeof args, Number.isInteger(pid), Number.isInteger(tid)]).toEqual(['string', 'object', true, true]);
      expect(['X', 'M']).toContain(ph);
      if (ph === 'X') expect([ts !== undefined && ts >= 0, dur !== undefined && dur >= 0]).toEqual([true, true]);
    }
    expect(all.find(({ name }) => name === 'moveMount')).toMatchObject({ ts: 800, dur: 4.25, cat: 'operation', args: { plugin: 'linux-base', slot: 'init.mounts' } });
  });
  it('names a process for each that works and a thread for each track', () => {
    const named = (what: string): unknown[] => events(trace).filter(({ name }) => name === what).map(({ pid, args }) => [pid, args['name']]);
    expect(named('process_name')).toEqual([[1, 'engine'], [3, 'shim'], [5, 'init']]);
    expect(named('thread_name')).toEqual([[1, 'engine'], [3, 'shim'], [5, 'init'], [3, 'after']]);
  });
  it('lets events of one thread be apart or within each other', () => {
    const done = events({ ...trace, spans: [...spans, span('across', 'engine', 300, 700)] }).filter(({ ph }) => ph === 'X') as Required<Event>[];
    for (const a of done) {
      for (const b of done) {
        if (a === b || a.tid !== b.tid || a.ts > b.ts) continue;
        expect(b.ts >= a.ts + a.dur - 1e-6 || b.ts + b.dur <= a.ts + a.dur + 1e-6 || a.ts === b.ts, `${a.name} ${b.name}`).toBe(true);
      }
    }
  });
});

describe('html', () => {
  it('is whole, of its own, and escapes what it shows', () => {
    const html = traceHtml({ ...trace, error: 'no <b>such</b> & such' });
    const names = new Set(checkMarkup(html));
    expect(names.has('svg') && names.has('table')).toBe(true);
    expect(names.has('script') || names.has('img') || names.has('link') || names.has('iframe')).toBe(false);
    expect(html).not.toMatch(/https?:|src=|@import|url\(/);
    expect(html).toContain('&#60;script&#62;');
    expect(html).toContain('\\u001b[31m');
    expect(html).toContain('prefers-color-scheme: dark');
    for (const { name } of spans) expect(html).toContain(`>${name}</td>`);
  });
  it('marks what failed', () => {
    const html = traceHtml({ ...trace, spans: [...spans, span('broken', 'init', 1400, 1401, 'operation', { plugin: 'x', error: 'mount /x failed' })] });
    expect(html).toMatch(/<tr id="s\d+" class="failed"[^>]*><td class="name"[^>]*>broken/);
    expect(html).toContain('<em>mount /x failed</em>');
  });
  it('lists the ten that took longest by themselves, without what only waited', () => {
    const html = traceHtml(trace);
    const top = html.slice(html.indexOf('class="longest"'), html.indexOf('</table>'));
    expect([...top.matchAll(/<a href="#s\d+">([^<]*)<\/a>/g)].map((match) => match[1])).toEqual(['engine run', 'exec', 'spawn', 'storage-overlay', 'plan', 'prepareRootfs', 'umount', 'core: storage', 'mkdir', 'moveMount']);
  });
  it('is there for nothing, too', () => {
    checkMarkup(traceHtml({ ...trace, spans: [] }));
  });
});

describe('traced', () => {
  const warnings: string[] = [];
  const context = (argv: readonly string[]): CommandContext => ({
    open: () => Promise.resolve({} as Engine), invocation: { argv, cwd: folder, env: {}, version: '1.2.3' } as unknown as CommandContext['invocation'],
    print: () => Promise.resolve(), warn: (text) => void warnings.push(text), forEach: () => Promise.resolve(0),
  });
  const read = (name: string): string => readFileSync(join(folder, name), 'utf8');

  it('takes the form from the name', () => {
    expect(traceFiles('/x/a.json')).toEqual([{ path: '/x/a.json', form: 'json' }]);
    expect(traceFiles('a.HTML')).toEqual([{ path: 'a.HTML', form: 'html' }]);
    expect(traceFiles('a.trace')).toEqual([{ path: 'a.trace.json', form: 'json' }, { path: 'a.trace.html', form: 'html' }]);
  });
  it('does nothing when nobody asked', async () => {
    const own = context(['run']);
    expect(await traced(own, undefined, async (given, tracing) => (given === own && Object.keys(tracing).length === 0 ? 7 : 1))).toBe(7);
    expect(readdirSync(folder)).toEqual([]);
  });
  it('writes into the folder of the caller, over what was there', async () => {
    for (const command of ['first-and-longer-than-the-second', 'second']) {
      const code = await traced(context([command]), 'both', async ({ open }, { trace: record }) => {
        await open();
        record?.({ name: 'request', kind: 'engine', track: 'engine', begin: process.hrtime.bigint(), end: process.hrtime.bigint() });
        return 3;
      });
      expect(code).toBe(3);
    }
    const { traceEvents } = JSON.parse(read('both.json')) as { traceEvents: Event[] };
    expect(traceEvents.filter(({ ph }) => ph === 'X').map(({ name }) => name)).toEqual(['engine second', 'read the command', 'open the engine', 'request']);
    expect(read('both.html')).toContain('<code>engine second</code>');
    expect(warnings).toEqual([]);
  });
  it('shows how far a command came that failed, and which operation it was', async () => {
    const error = fail('ERR_OPERATION_FAILED', 'mkdir /x failed', { operation: 'mkdir', errno: 'EACCES', data: { index: 1, detail: '' } });
    const work = traced(context(['run']), 'failed.json', async (_, { trace: record }) => {
      for (const each of spans) record?.(each);
      throw error;
    });
    await expect(work).rejects.toBe(error);
    const { traceEvents, otherData } = JSON.parse(read('failed.json')) as { traceEvents: (Event & { cname?: string })[]; otherData: { error: string } };
    expect(otherData.error).toContain('mkdir /x failed');
    expect(traceEvents.filter(({ cname }) => cname !== undefined).map(({ name }) => name)).toEqual(['engine run', 'spawn']);
  });
  it('says before anything runs that it cannot be written', async () => {
    let ran = false;
    await expect(traced(context(['run']), 'no/such/folder/x.json', async () => ((ran = true), 0))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', path: join(folder, 'no/such/folder/x.json') });
    expect(ran).toBe(false);
  });
});
