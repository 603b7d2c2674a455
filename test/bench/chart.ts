import { type Outcome, type Row } from './outcome.ts';

interface Bar {
  readonly name: string;
  /** ms. */
  readonly value: number;
}
interface Group {
  readonly title: string;
  readonly bars: readonly Bar[];
}

// mid tones: readable on white and on black
const colours: Readonly<Record<string, string>> = { 'engine, pooled': '#2da44e', engine: '#3b82f6', 'engine, cold': '#8b7cf0', docker: '#d9822b', podman: '#c9609f', runc: '#8a949e', crun: '#8a949e' };
const grey = '#7d8590';
const left = 128;
const right = 60;
const width = 760;
const bar = 15;

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const label = (value: number): string => (value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0));

function group(outcomes: readonly Outcome[], scenario: string, title: string, value: (row: Row) => number | undefined): Group[] {
  const bars = outcomes.find((one) => one.scenario === scenario)?.rows.flatMap((row) => {
    const ms = value(row);
    return ms !== undefined && ms > 0 ? [{ name: row.name, value: ms }] : [];
  });
  return bars?.length ? [{ title, bars: bars.sort((a, b) => a.value - b.value) }] : [];
}

/** What the chart shows: always ms per container, so that shorter is better. */
export function groups(outcomes: readonly Outcome[]): Group[] {
  const answered = (row: Row): number | undefined => row.answered?.p50;
  return [
    ...group(outcomes, 'idle-none', 'run --rm, network none, idle: until answered (median)', answered),
    ...group(outcomes, 'idle-none', 'the same, until everything is gone', (row) => row.gone?.p50),
    ...group(outcomes, 'idle-host', 'run --rm, network host, idle: until answered', answered),
    ...group(outcomes, 'idle-bridge', 'run --rm, network bridge, idle: until answered', answered),
    ...group(outcomes, 'mounts', 'network none, idle, 1,500 mounts on the host: until answered', answered),
    ...group(outcomes, 'eight', '8 clients: ms per container, everything gone', (row) => (row.rate ? 1000 / row.rate : undefined)),
  ];
}

/** Bars on a log scale, as SVG. Undefined: there is nothing to show. */
export function chart(outcomes: readonly Outcome[]): string | undefined {
  const all = groups(outcomes);
  const values = all.flatMap(({ bars }) => bars.map(({ value }) => value));
  if (values.length === 0) return undefined;
  const from = Math.floor(Math.log10(Math.min(...values) * 0.8));
  const to = Math.ceil(Math.log10(Math.max(...values)));
  const x = (value: number): number => left + ((Math.log10(value) - from) / (to - from)) * (width - left - right);
  const lines: string[] = [];
  let y = 8;
  for (const { title, bars } of all) {
    lines.push(`<text x="0" y="${y + 13}" font-weight="bold">${escape(title)}</text>`);
    y += 20;
    for (const { name, value } of bars) {
      lines.push(
        `<text x="${left - 8}" y="${y + 11}" text-anchor="end">${escape(name)}</text>`,
        `<rect x="${left}" y="${y + 1}" width="${Math.max(1, x(value) - left).toFixed(1)}" height="${bar - 3}" rx="2" fill="${colours[name] ?? grey}"/>`,
        `<text x="${(x(value) + 5).toFixed(1)}" y="${y + 11}">${label(value)}</text>`,
      );
      y += bar;
    }
    y += 12;
  }
  const bottom = y;
  const grid: string[] = [];
  for (let power = from; power <= to; power++) {
    const at = x(10 ** power).toFixed(1);
    grid.push(`<line x1="${at}" y1="4" x2="${at}" y2="${bottom - 6}" stroke="${grey}" stroke-opacity="0.3"/>`, `<text x="${at}" y="${bottom + 8}" text-anchor="middle">${10 ** power} ms</text>`);
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${bottom + 16}" width="${width}" height="${bottom + 16}" font-family="system-ui, sans-serif" font-size="12" fill="${grey}" role="img" aria-label="times to start a container, in ms, on a log scale">
${[...grid, ...lines].join('\n')}
</svg>
`;
}
