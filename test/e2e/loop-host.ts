/**
 * An engine as engined hosts it, under load, that watches its own event loop: `node loop-host.ts FOLDER IMAGE SECONDS`. FOLDER has root and run; IMAGE is
 * loaded again and again beside four clients that run containers and two that list them. Prints JSON, see {@link LoopReport}.
 */
import { once } from 'node:events';
import { createHook } from 'node:async_hooks';
import { PerformanceObserver, performance } from 'node:perf_hooks';
import { PassThrough } from 'node:stream';
import { createCli } from '../../plugins/frontend-cli/driver.ts';
import { loadConfig } from '../../config/sources.ts';
import { openEngine } from '../../config/open.ts';
import { defineLibrary } from '../../native/ts/library.ts';
import { startWatchdog } from '../../config/resident/watchdog.ts';

/** All times in ms of CPU of the main thread, outside garbage collection. */
export interface LoopReport {
  /** Synchronous pieces, turns of the loop they came in, and how many of them took more than 2 ms. */
  readonly pieces: number;
  readonly turns: number;
  readonly above2: number;
  /** Garbage collections that took longer than 2 ms. */
  readonly collections: number;
  readonly worst: readonly { readonly cpu: number; readonly wall: number; readonly at: number; readonly what: string }[];
  readonly starts: number;
  readonly lists: number;
  readonly loads: number;
  readonly failures: readonly string[];
}

const [folder = '', image = '', seconds = '5'] = process.argv.slice(2);
const env = { PATH: process.env['PATH'] ?? '', HOME: folder, ENGINE_ROOT: `${folder}/root`, ENGINE_RUN_ROOT: `${folder}/run` };
Object.assign(process.env, env);
const watchdog = startWatchdog({ folder });
const { engine } = await openEngine({ config: await loadConfig({}), host: watchdog.host });
const cli = createCli();

async function command(...argv: string[]): Promise<{ code: number; output: string }> {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  stdin.end();
  let output = '';
  for (const stream of [stdout, stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
  const code = await cli.run(async () => engine, { argv, cwd: '/', env, stdin, stdout, stderr, version: '0', commands: [] } as unknown as Parameters<typeof cli.run>[1]);
  return { code, output };
}

interface Piece { readonly start: number; readonly wall: number; readonly cpu: number; readonly what: string }
/** What ran without giving others a turn: a callback of the event loop, with the promises that it settled. */
const pieces: Piece[] = [];
let turns = 0;
const collections: { readonly start: number; readonly duration: number }[] = [];
new PerformanceObserver((list) => {
  for (const { startTime, duration } of list.getEntries()) collections.push({ start: startTime, duration });
}).observe({ entryTypes: ['gc'] });

// to the nanosecond; what getrusage says (process.threadCpuUsage) grows by whole ticks of 4 ms on many kernels
const libc = defineLibrary('libc.so.6', { clock_gettime: { args: ['int', 'bytes'], result: 'int' } });
const CLOCK_THREAD_CPUTIME_ID = 3;
const time = Buffer.alloc(16);
const cpuNow = (): number => {
  libc.clock_gettime(CLOCK_THREAD_CPUTIME_ID, time);
  return Number(time.readBigInt64LE(0)) * 1000 + Number(time.readBigInt64LE(8)) / 1e6;
};
const count = { starts: 0, lists: 0, loads: 0, pieces: 0 };
let measuring = false;
let cpu = cpuNow();
let at = performance.now();
let what = '';
function cut(next: string): void {
  const [nextCpu, now] = [cpuNow(), performance.now()];
  if (measuring && nextCpu - cpu > 0.2) pieces.push({ start: at, wall: now - at, cpu: nextCpu - cpu, what });
  if (measuring) count.pieces++;
  cpu = nextCpu;
  at = now;
  what = next;
}
const types = new Map<number, string>();
let depth = 0;
createHook({
  init: (id, type) => void types.set(id, type),
  before(id) {
    if (depth++ === 0) cut(types.get(id) ?? '?');
  },
  after: () => void depth--,
  destroy: (id) => void types.delete(id),
  trackPromises: false,
} as Parameters<typeof createHook>[0]).enable();
/** Once per turn of the loop, without keeping it from sleeping: an immediate that is not referenced. */
function turn(): void {
  if (measuring) turns++;
  setImmediate(turn).unref();
}

const failures: string[] = [];
let stop = false;
async function client(kind: 'starts' | 'lists' | 'loads', ...argv: string[]): Promise<void> {
  while (!stop) {
    const { code, output } = await command(...argv);
    if (code !== 0) failures.push(`${argv.join(' ')}: ${code}: ${output}`);
    count[kind]++;
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
}
const run = ['run', '--rm', '--network', 'none', 'loop', 'true'];
const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

for (const argv of [['load', '-q', '-i', image], ['run', '-d', '--network', 'none', 'loop', 'sleep', '1000'], ...Array.from({ length: 20 }, () => ['create', '--network', 'none', 'loop', 'true'])]) {
  const { code, output } = await command(...argv);
  if (code !== 0) throw new Error(`${argv.join(' ')}: ${output}`);
}
turn();
const clients = [
  ...Array.from({ length: 4 }, () => client('starts', ...run)),
  client('lists', 'ps', '-a'), client('lists', 'ps'),
  client('loads', 'load', '-q', '-i', image),
];
await sleep(Math.max(3000, Number(seconds) * 300)); // warm-up: V8 compiles
measuring = true;
await sleep(Number(seconds) * 1000);
measuring = false;
stop = true;
await Promise.all(clients);
await sleep(200); // the observer's last entries

const cleaned = pieces.map(({ start, wall, cpu: used, what: kind }) => {
  const gc = used < 2 ? 0 : collections.reduce((sum, c) => sum + Math.max(0, Math.min(c.start + c.duration, start + wall) - Math.max(c.start, start)), 0);
  return { cpu: Math.max(0, used - gc), wall, at: start, what: kind };
}).sort((a, b) => b.cpu - a.cpu);
const report: LoopReport = {
  ...count, turns, above2: cleaned.filter((i) => i.cpu > 2).length, collections: collections.filter((c) => c.duration > 2).length, worst: cleaned.slice(0, 15), failures: failures.slice(0, 5),
};
await command('rm', '-f', ...(await engine.containers.list({ all: true })).map(({ record }) => record.id));
await engine.close();
await watchdog.stop();
process.stdout.write(`${JSON.stringify(report)}\n`);
if (process.stdout.writableLength > 0) await once(process.stdout, 'drain');
process.exit(0);
