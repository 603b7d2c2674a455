/** Slope of the line that fits best (least squares) through pairs of starts and amounts, per 1,000 starts; the first two fifths are warming up and don't count. */
export function growthPerThousand(samples: readonly (readonly [starts: number, amount: number])[]): number {
  const used = samples.slice(Math.floor((samples.length * 2) / 5));
  if (used.length < 2) return NaN;
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const x = mean(used.map(([starts]) => starts));
  const y = mean(used.map(([, amount]) => amount));
  const over = used.reduce((sum, [starts, amount]) => sum + (starts - x) * (amount - y), 0);
  return (over / used.reduce((sum, [starts]) => sum + (starts - x) ** 2, 0)) * 1000;
}

/** One look at what may not grow. */
export interface Sample {
  readonly starts: number;
  /** MB; undefined without a resident engine. */
  readonly rss?: number;
  readonly heap?: number;
  readonly fds?: number;
  readonly threads?: number;
  readonly rootFiles: number;
  readonly runFiles: number;
  readonly rows: number;
  /** Rows of each table. */
  readonly tables?: Readonly<Record<string, number>>;
  readonly cgroups: number;
  readonly shims: number;
}

/** MB per 1,000 starts that count as flat, for memory. */
export const memoryLimit = 1;
type Counted = 'fds' | 'threads' | 'rootFiles' | 'runFiles' | 'rows' | 'cgroups' | 'shims';
/** So many more in the last quarter than in the first, for what is counted: pools fill and empty, a database has a journal at times. */
export const slack: Readonly<Record<Counted, number>> = { fds: 4, threads: 2, rootFiles: 6, runFiles: 12, rows: 2, cgroups: 18, shims: 4 };

const grown = (first: Sample, last: Sample): string => Object.entries(last.tables ?? {}).flatMap(([table, n]) => (n > (first.tables?.[table] ?? 0) ? [` (${table}: ${first.tables?.[table] ?? 0}, then ${n})`] : [])).join('');

/** What isn't flat, one line each. Memory is judged when there are samples over at least 4,000 starts: before that, code is still being compiled and the heap finds its size. */
export function notFlat(samples: readonly Sample[]): string[] {
  const wrong: string[] = [];
  const warm = samples.slice(Math.floor(samples.length / 5));
  const [first, last] = [warm[0], warm.at(-1)];
  if (!first || !last || warm.length < 4) return ['there are too few samples to say'];
  for (const key of ['rss', 'heap'] as const) {
    const pairs = samples.flatMap((sample) => (sample[key] === undefined ? [] : [[sample.starts, sample[key]] as const]));
    const growth = growthPerThousand(pairs);
    if (last.starts - first.starts >= 4000 && growth >= memoryLimit) wrong.push(`${key} grows by ${growth.toFixed(2)} MB per 1,000 starts (limit: ${memoryLimit})`);
  }
  const quarter = Math.ceil(warm.length / 4);
  for (const [key, allowed] of Object.entries(slack) as [Counted, number][]) {
    const numbers = (part: readonly Sample[]): number[] => part.flatMap((sample) => sample[key] ?? []);
    const before = Math.max(...numbers(warm.slice(0, quarter)));
    // a peak is no leak: what never comes down again is
    const after = Math.min(...numbers(warm.slice(-quarter)));
    if (after > before + allowed) wrong.push(`${key} went from at most ${before} to at least ${after}${key === 'rows' ? grown(first, last) : ''}`);
  }
  return wrong;
}
