/**
 * `npm run bench`: start latency, rates and memory against docker, podman, runc and crun, by turns in one run on one machine. docs/performance.md says how to read it.
 *
 *   npm run bench -- [--docs | --no-docs] [--json FILE] [SCENARIO...]
 *
 * BENCH_ROUNDS (10), BENCH_PAUSE (ms, 50), BENCH_ONLY (scenarios), BENCH_PEERS (docker,podman,runc,crun), BENCH_JSON. A whole run of 10 rounds and more
 * writes docs/performance.md and docs/performance.svg, others with --docs only. The exit code says whether it could measure, not how fast we are.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Arena } from './arena.ts';
import { chart } from './chart.ts';
import { describeMachine, withoutUnifiedControllers, withUnifiedControllers } from './machine.ts';
import { unshared } from './namespace.ts';
import { type Outcome, type Report } from './outcome.ts';
import { markdown, plain, writePage } from './report.ts';
import { inner, scenarios } from './scenarios.ts';
import { traceOf } from './trace.ts';

const docs = join(import.meta.dirname, '..', '..', 'docs');
const words = (text: string | undefined): string[] => (text ?? '').split(',').map((word) => word.trim()).filter(Boolean);

const { values, positionals } = parseArgs({ options: { docs: { type: 'boolean' }, json: { type: 'string' } }, allowPositionals: true, allowNegative: true });
const only = [...positionals, ...words(process.env['BENCH_ONLY'])];
const all = [...scenarios, ...inner.filter(({ name }) => !scenarios.some((one) => one.name === name))];
const known = all.map(({ name }) => name);
const rounds = Number(process.env['BENCH_ROUNDS'] ?? 10);

async function bench(): Promise<void> {
  const folder = mkdtempSync('/var/tmp/engine-bench-');
  withoutUnifiedControllers(folder);
  if (process.env['BENCH_BRIDGE'] === '1') execFileSync('ip', ['link', 'set', 'lo', 'up']);
  mountMany(folder, Number(process.env['BENCH_MOUNTS'] ?? 0));
  const settings = { rounds, pause: Number(process.env['BENCH_PAUSE'] ?? 50), peers: words(process.env['BENCH_PEERS']), bridge: process.env['BENCH_BRIDGE'] === '1' };
  const arena = new Arena(folder, settings);
  const stop = (): void => arena.driver.stop();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
  const outcomes: Outcome[] = [];
  try {
    await arena.open(say);
    for (const scenario of all.filter(({ name }) => (only.length > 0 ? only.includes(name) : scenarios.some((one) => one.name === name)))) {
      say(`measuring ${scenario.name}: ${scenario.title}`);
      const outcome = await scenario.run(arena, outcomes);
      outcomes.push(...[outcome ?? []].flat());
      for (const engine of arena.engines) {
        const rows = await engine.rows();
        if (rows > 0) say(`${engine.name} still has ${rows} containers after ${scenario.name}`);
      }
    }
    const report: Report = { machine: describeMachine(), versions: arena.versions, date: new Date().toISOString().slice(0, 10), rounds, absent: arena.absent, outcomes, trace: traceOf(arena) };
    publish(report);
  } catch (error) {
    if (!arena.driver.stopped) throw error;
    say('interrupted');
    process.exitCode = 130;
  } finally {
    const left = await arena.close();
    if (left.length > 0) say(`left behind: ${left.join(', ')}`);
    spawnSync('umount', ['-R', '-l', join(folder, 'many')], { stdio: 'ignore' });
    await withUnifiedControllers(folder);
    rmSync(folder, { recursive: true, force: true });
  }
}

function publish(report: Report): void {
  const text = markdown(report);
  console.log(plain(text));
  const json = values.json ?? process.env['BENCH_JSON'];
  if (json) writeFileSync(json, `${JSON.stringify(report, undefined, 2)}\n`);
  const whole = only.length === 0 && rounds >= 10 && !process.env['BENCH_PEERS'];
  if (!(values.docs ?? whole)) return;
  writePage(join(docs, 'performance.md'), report);
  const svg = chart(report.outcomes);
  if (svg) writeFileSync(join(docs, 'performance.svg'), svg);
  say('docs/performance.md and docs/performance.svg are written');
}

/** Mounts of ours on the host, as a machine with many filesystems has them. */
function mountMany(folder: string, count: number): void {
  if (count === 0) return;
  const script = 'mkdir -p "$1"; mount -t tmpfs many "$1"; i=0; while [ $i -lt "$2" ]; do mkdir "$1/$i"; mount -t tmpfs -o size=4k many "$1/$i"; i=$((i+1)); done';
  execFileSync('sh', ['-c', script, 'sh', join(folder, 'many'), String(count)]);
}

function say(line: string): void {
  process.stderr.write(`bench: ${line}\n`);
}

const unknown = only.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  say(`no such scenario: ${unknown.join(', ')}; there are: ${known.join(', ')}`);
  process.exitCode = 2;
} else if (process.getuid?.() !== 0) {
  say('needs root');
  process.exitCode = 2;
} else if (process.env['BENCH_NAMESPACE'] === undefined) {
  // whatever is mounted goes with the namespace, also when somebody kills us
  process.exitCode = await unshared(['-m'], {}, process.argv.slice(2));
} else {
  await bench();
}
