import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';

/** What is run again and again. `%w` and `%i` in an argument: the worker, and the number of the run. The program as an absolute path. */
export interface Command {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}
export interface Pace {
  /** Starts per worker; instead of it, `seconds` until none begins any more. */
  readonly runs?: number;
  readonly seconds?: number;
  readonly workers?: number;
  /** ms before each start. */
  readonly pause?: number;
  /** What must be gone, as arguments of the driver. */
  readonly gone?: readonly string[];
}
/** All in ms. */
export interface Measured {
  readonly answered: readonly number[];
  /** Empty when nothing was watched; without those that took over 5 s. */
  readonly gone: readonly number[];
  /** From the first start until all was gone (or, with nothing watched, until the last had answered). */
  readonly window: number;
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);
/** NaN of none. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? NaN;
}

/** Lines "ANSWERED GONE" and a last "window NS", in nanoseconds. */
export function parse(text: string): Measured {
  const answered: number[] = [];
  const gone: number[] = [];
  let window = NaN;
  for (const line of text.split('\n').filter(Boolean)) {
    const [first = '', second = ''] = line.split(' ');
    if (first === 'window') window = Number(second) / 1e6;
    else {
      answered.push(Number(first) / 1e6);
      if (Number(second) > 0) gone.push(Number(second) / 1e6);
    }
  }
  return { answered, gone, window };
}

/** The program that starts commands and looks at the clock: C, so that what it adds is the same small thing for all. */
export class Driver {
  readonly program: string;
  #running: ChildProcess | undefined;
  stopped = false;

  /** Compiles it into `folder`. Needs gcc (or $CC). */
  constructor(folder: string) {
    this.program = join(folder, 'bench-driver');
    const source = join(import.meta.dirname, 'src');
    execFileSync(process.env['CC'] ?? 'gcc', ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-static', join(source, 'driver.c'), join(source, 'watch.c'), '-o', this.program]);
  }

  /** Let nothing more be measured; what is running is ended. */
  stop(): void {
    this.stopped = true;
    this.#running?.kill('SIGTERM');
  }

  async run(command: Command, { runs, seconds, workers, pause, gone = [] }: Pace): Promise<Measured> {
    if (this.stopped) throw new Error('interrupted');
    const flags = [runs === undefined ? [] : ['-n', String(runs)], seconds === undefined ? [] : ['-s', String(seconds)], workers === undefined ? [] : ['-w', String(workers)], pause === undefined ? [] : ['-p', String(pause)]].flat();
    const child = spawn(this.program, [...flags, ...gone, '--', ...command.argv], { env: { ...command.env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#running = child;
    let out = '';
    let errors = '';
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    this.#running = undefined;
    if (this.stopped) throw new Error('interrupted');
    if (code !== 0) throw new Error(`${command.argv.join(' ')} failed: ${errors.trim()}`);
    return parse(out);
  }
}

export interface Series {
  readonly answered: number[];
  readonly gone: number[];
  /** Starts per second, each round's. */
  readonly rates: number[];
}
export interface Turn {
  readonly name: string;
  readonly command: Command;
  readonly pace: Pace;
  /** ms of quiet before its turn, and what puts things back after it. */
  readonly settle?: number;
  readonly reset?: () => void | Promise<void>;
}

/** All take turns round by round, so that noise of the machine hits everyone alike; who begins changes. One round more warms caches and isn't counted. */
export async function takeTurns(driver: Driver, turns: readonly Turn[], rounds: number, between?: 'sync'): Promise<ReadonlyMap<string, Series>> {
  const results = new Map<string, Series>(turns.map(({ name }) => [name, { answered: [], gone: [], rates: [] }]));
  for (let round = -1; round < rounds; round++) {
    for (let i = 0; i < turns.length; i++) {
      const turn = turns[(i + Math.max(round, 0)) % turns.length] as Turn;
      if (between === 'sync') execFileSync('sync');
      await new Promise((resolve) => setTimeout(resolve, turn.settle ?? 0));
      const warm = turn.pace.seconds === undefined ? { ...turn.pace, runs: 1 } : { ...turn.pace, seconds: Math.min(0.5, turn.pace.seconds) };
      const measured = await driver.run(turn.command, round < 0 ? warm : turn.pace).catch((error: unknown) => {
        throw new Error(`${turn.name}: ${(error as Error).message}`, { cause: error });
      });
      await turn.reset?.();
      if (round < 0) continue;
      const series = results.get(turn.name) as Series;
      series.answered.push(...measured.answered);
      series.gone.push(...measured.gone);
      series.rates.push((measured.answered.length / measured.window) * 1000);
    }
  }
  return results;
}
