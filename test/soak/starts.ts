import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { EngineContestant } from '../bench/engines.ts';
import { rss } from '../bench/machine.ts';
import { Driver } from '../bench/measure.ts';
import { owned } from '../helpers/leaks.ts';
import { until } from '../helpers/wait.ts';
import { notFlat, type Sample } from './flat.ts';

export interface SoakOptions {
  readonly starts: number;
  /** Starts between two looks. */
  readonly step: number;
  readonly pooled: boolean;
  say(line: string): void;
  /** Where interrupting ends it. */
  onDriver?(driver: Driver): void;
}
export interface SoakResult {
  readonly samples: readonly Sample[];
  readonly wrong: readonly string[];
}

const files = (folder: string): number => readdirSync(folder, { recursive: true }).length;
const count = (folder: string): number => readdirSync(folder).length;

/** Rows by table; the database is only read. */
function tablesOf(engine: EngineContestant): Record<string, number> {
  const db = new DatabaseSync(join(engine.engine.root, 'state.db'), { readOnly: true });
  try {
    const tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").all() as { name: string }[];
    return Object.fromEntries(tables.map(({ name }) => [name, (db.prepare(`SELECT count(*) AS n FROM "${name}"`).get() as { n: number }).n]));
  } finally {
    db.close();
  }
}

/** MB of V8's heap in use, as `engine info` says it; undefined when it doesn't. */
function heap(engine: EngineContestant): number | undefined {
  const text = execFileSync(engine.plain()[0] ?? '', ['info', '--format', '{{json .}}'], { env: engine.env, encoding: 'utf8' });
  const bytes = /"heapUsed":\s*(\d+)/i.exec(text)?.[1];
  return bytes === undefined ? undefined : Number(bytes) / (1 << 20);
}

function look(engine: EngineContestant, starts: number): Sample {
  const { root, runRoot, instance, folder } = engine.engine;
  const used = heap(engine);
  const { pid } = engine;
  const tables = tablesOf(engine);
  const mine = owned({ instance, folder });
  return {
    starts,
    ...(pid !== undefined && { rss: rss(pid) / 1024, fds: count(`/proc/${pid}/fd`), threads: count(`/proc/${pid}/task`) }),
    ...(used !== undefined && { heap: used }),
    rootFiles: files(root),
    runFiles: files(runRoot),
    tables,
    rows: Object.values(tables).reduce((sum, n) => sum + n, 0),
    cgroups: mine.cgroups.length,
    shims: mine.processes.filter((line) => line.startsWith('engine-shim')).length,
  };
}

const columns: readonly (readonly [Exclude<keyof Sample, 'tables'>, string])[] = [['starts', 'starts'], ['rss', 'RSS MB'], ['heap', 'heap MB'], ['fds', 'fds'], ['threads', 'threads'], ['rootFiles', 'files: root'], ['runFiles', 'run root'], ['rows', 'rows'], ['cgroups', 'cgroups'], ['shims', 'shims']];
const line = (cells: readonly string[]): string => cells.map((cell, i) => cell.padStart(Math.max(columns[i]?.[1].length ?? 0, 7))).join('  ');
const cell = (value: number | undefined): string => (value === undefined ? '-' : Number.isInteger(value) ? String(value) : value.toFixed(1));

/** Starts in a row, with a look at everything that may not grow after each `step`. Cleans up; what it leaves behind is `wrong`, too. */
export async function soakStarts({ starts, step, pooled, say, onDriver }: SoakOptions): Promise<SoakResult> {
  const parent = mkdtempSync('/var/tmp/engine-soak-');
  const driver = new Driver(parent);
  onDriver?.(driver);
  const engine = new EngineContestant(pooled ? 'pooled' : 'unpooled', parent);
  const samples: Sample[] = [];
  const wrong: string[] = [];
  try {
    await engine.start();
    const before = engine.pid;
    say(line(columns.map(([, title]) => title)));
    for (let done = 0; done < starts; ) {
      const runs = Math.min(step, starts - done);
      await driver.run({ argv: engine.plain(), env: engine.env }, { runs });
      done += runs;
      // the last one's undo goes on after its answer
      const calm = await until('the last start to be gone', async () => (await engine.rows()) === 0).then(() => true, () => false);
      const sample = look(engine, done);
      samples.push(sample);
      say(line(columns.map(([key]) => cell(sample[key]))));
      if (!calm) wrong.push(`containers are left after ${done} starts`);
      if (engine.pid !== before) wrong.push(`after ${done} starts engined is another process: ${before ?? 'none'} was replaced by ${engine.pid ?? 'none'}`);
      if (wrong.length > 0) break;
    }
    if (wrong.length === 0) wrong.push(...notFlat(samples));
  } finally {
    wrong.push(...(await engine.close()).map((what) => `left behind: ${what}`));
    rmSync(parent, { recursive: true, force: true });
  }
  return { samples, wrong };
}
