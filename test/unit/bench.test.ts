import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { chart } from '../bench/chart.ts';
import { goals } from '../bench/goals.ts';
import { Driver, median, parse, quantile, takeTurns } from '../bench/measure.ts';
import { type Outcome, type Report, type Row } from '../bench/outcome.ts';
import { between, markdown, plain } from '../bench/report.ts';

const row = (name: string, p50: number, more: Partial<Row> = {}): Row => ({ name, own: name.startsWith('engine'), runs: 10, answered: { p50, p99: p50 * 2 }, gone: { p50: p50 + 1, p99: p50 * 2 + 1 }, ...more });
const idle: Outcome = { scenario: 'idle-none', kind: 'latency', title: 'idle', note: 'in ms', rows: [row('engine, pooled', 3), row('engine', 5), row('engine, cold', 50), row('docker', 240), row('crun', 10)] };
const eight: Outcome = { scenario: 'eight', kind: 'rate', title: '8 clients', rows: [row('engine', 20, { rate: 300 }), row('docker', 2000, { rate: 4 })] };
const network: readonly Outcome[] = [
  { scenario: 'idle-bridge', kind: 'latency', title: 'bridge', rows: [row('engine', 6, { plain: 5 }), row('docker', 330, { plain: 240 })] },
  { scenario: 'throughput', kind: 'throughput', title: 'throughput', rows: [{ name: 'a bare veth pair', own: false, gigabits: 20 }, { name: 'container to container', own: true, gigabits: 19, share: 0.96, shareRouted: 1.2 }] },
  { scenario: 'ports', kind: 'by', title: 'ports', rows: [{ name: 'engine', own: true, by: [[1, 6], [100, 6], [500, 9]] }] },
  { scenario: 'restore', kind: 'took', title: 'restore', rows: [{ name: 'engine, 400 containers with a published port', own: true, took: 300 }] },
];
const report: Report = { machine: '2 cores', versions: ['crun 1.8'], date: '2026-01-01', rounds: 10, absent: ['podman: podman not installed'], outcomes: [idle, eight] };

describe('the numbers of the bench', () => {
  it('are quantiles of what was measured', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(quantile([1, 2, 3, 4], 0.99)).toBe(4);
    expect(median([])).toBeNaN();
    expect(parse('1500000 0\n2500000 3500000\n4000000 -1\nwindow 9000000\n')).toEqual({ answered: [1.5, 2.5, 4], gone: [3.5], window: 9 });
  });

  it('meet a goal or not, and say when nobody measured it', () => {
    const found = new Map(goals(report.outcomes).map((goal) => [goal.text, goal]));
    expect(found.get('unpooled takes at most 0.6 of `crun run` on a bare bundle')).toMatchObject({ met: true, found: '0.50' });
    expect(found.get('docker takes at least 40 times as long as pooled')).toMatchObject({ met: true, found: '80.0' });
    expect(found.get('cold, `--no-daemon`: at most 4 times crun')).toMatchObject({ met: false, found: '5.00' });
    expect(found.get("8 clients, fully gone: at least 40 times docker's rate, unpooled")).toMatchObject({ met: true, found: '75.0' });
    expect(found.get('a shim takes at most 100 KB (PSS)')).toMatchObject({ met: undefined, found: 'not measured' });
  });

  it('of networks have goals and tables too', () => {
    const found = new Map(goals(network).map((goal) => [goal.text, goal]));
    expect(found.get('bridge: at most 1.5 ms more than none, unpooled')).toMatchObject({ met: true, found: '1.00' });
    expect(found.get("bridge: docker's takes at least 50 times as long as unpooled")).toMatchObject({ met: true, found: '55.0' });
    expect(found.get('container to container: at least 0.95 of it')).toMatchObject({ met: true, found: '0.960' });
    expect(found.get('with a port, unpooled: beside 500 published ports at most 1.1 times as long as beside one')).toMatchObject({ met: false, found: '1.50' });
    expect(found.get('the rules of 400 containers are back in less than 1,000 ms')).toMatchObject({ met: true, found: '300' });
    const text = markdown({ ...report, outcomes: network });
    for (const line of ['| container to container | 19.0 | 96.0 % | 120.0 % |', '| engine | 6.00 | 6.00 | 9.00 | 1.50 |', '| engine, 400 containers with a published port | 300 |']) expect(text).toContain(line);
  });

  it('of runtimes below others have goals', () => {
    const cycle: Outcome = { scenario: 'oci-cycle', kind: 'latency', title: 'cycle', rows: [row('engine-oci', 6), row('crun', 12), row('runc', 40)] };
    const docker: Outcome = { scenario: 'oci-docker', kind: 'latency', title: 'docker', rows: [row('engine-oci', 200), row('runc', 220)] };
    const found = new Map(goals([cycle, docker]).map((goal) => [goal.text, goal]));
    expect(found.get("engine-oci, resident: create, start and delete take at most 0.6 of crun's time")).toMatchObject({ met: true, found: '0.50' });
    expect(found.get("and at most 0.2 of runc's")).toMatchObject({ met: true, found: '0.15' });
    expect(found.get('`docker run` with engine-oci below it is faster than with runc by at least 0.8 of what runc takes for the three')).toMatchObject({ met: false, found: '0.50' });
  });

  it('become a page and a table for terminals', () => {
    const text = markdown(report);
    expect(text).toContain('| engine | 5.00 | 10.0 | 6.00 | 11.0 | 0.60 | 1.00 | 10.0 | 10 |');
    expect(text).toContain('Not there: podman: podman not installed.');
    expect(between('a\n<!-- npm run bench writes this: begin -->\nold\n<!-- npm run bench writes this: end -->\nb\n', 'new')).toBe('a\n<!-- npm run bench writes this: begin -->\n\nnew\n\n<!-- npm run bench writes this: end -->\nb\n');
    expect(plain(text)).not.toMatch(/[|*`]|^#/m);
  });

  it('have a place in the docs', () => {
    const page = readFileSync(join(import.meta.dirname, '../../docs/performance.md'), 'utf8');
    expect(() => between(page, '')).not.toThrow();
  });

  it('are drawn on a log scale, for light and dark pages', () => {
    const svg = chart(report.outcomes) ?? '';
    expect(svg).toMatch(/^<svg [^>]*viewBox=/);
    expect(svg).not.toMatch(/NaN|undefined|Infinity|fill="(#fff|#000|white|black)/);
    const widths = [...svg.matchAll(/<rect [^>]*width="([\d.]+)"/g)].map(([, width]) => Number(width)).slice(0, 5);
    expect(widths).toEqual(widths.toSorted((a, b) => a - b));
    expect(chart([])).toBeUndefined();
  });
});

describe('the driver', () => {
  let folder: string;
  let driver: Driver;
  const env = { PATH: process.env['PATH'] ?? '' };
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'engine-bench-driver-'));
    driver = new Driver(folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('measures until the answer, and until what was left is gone', async () => {
    const script = `touch ${folder}/run-%i; { sleep 0.5; rm ${folder}/run-%i; } >/dev/null 2>&1 &`;
    const { answered, gone, window } = await driver.run({ argv: ['/bin/sh', '-c', script], env }, { runs: 3, gone: ['-f', `${folder}:run-`] });
    expect(answered).toHaveLength(3);
    expect(gone).toHaveLength(3);
    for (const [i, time] of gone.entries()) expect(time - (answered[i] ?? NaN)).toBeGreaterThan(20);
    expect(window).toBeGreaterThanOrEqual(gone.reduce((sum, time) => sum + time, 0));
  });
  it('sees processes that go on, and leaves alone those of others', async () => {
    const own = join(folder, 'own');
    const { answered, gone } = await driver.run({ argv: ['/bin/sh', '-c', `sh -c 'touch ${own}; sleep 0.5; rm ${own}' >/dev/null 2>&1 & until [ -e ${own} ]; do :; done`], env }, { runs: 2, gone: ['-c', `sh:${own}`] });
    for (const [i, time] of gone.entries()) expect(time - (answered[i] ?? NaN)).toBeGreaterThan(20);
    expect(gone).toHaveLength(2);
  });
  it('starts in parallel for a while, each worker under its own name', async () => {
    const { answered, window } = await driver.run({ argv: ['/bin/sh', '-c', `mkdir ${folder}/w-%w && rmdir ${folder}/w-%w`], env }, { seconds: 0.2, workers: 4 });
    expect(answered.length).toBeGreaterThanOrEqual(4);
    expect(window).toBeGreaterThanOrEqual(200);
  });
  it('says what failed, with its words', async () => {
    await expect(driver.run({ argv: ['/bin/sh', '-c', 'echo no luck >&2; exit 3'], env }, { runs: 2 })).rejects.toThrow(/no luck[^]*status 0x300/);
    await expect(driver.run({ argv: ['/no/such/program'], env }, { runs: 1 })).rejects.toThrow(/can't run|status/);
  });
  it('lets all take turns and counts no warming up', async () => {
    const order: string[] = [];
    const turn = (name: string) => ({ name, command: { argv: ['/bin/true'], env }, pace: { runs: 2 }, reset: () => void order.push(name) });
    const series = await takeTurns(driver, [turn('a'), turn('b')], 2);
    expect(order).toEqual(['a', 'b', 'a', 'b', 'b', 'a']);
    expect(series.get('a')?.answered).toHaveLength(4);
  });
});
