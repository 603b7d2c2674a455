import { readFileSync, writeFileSync } from 'node:fs';
import { goals } from './goals.ts';
import { type Outcome, type Report, type Row } from './outcome.ts';

/** Three digits that count. */
export const format = (value: number | undefined): string => (value === undefined || Number.isNaN(value) ? '–' : value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0));

function table(head: readonly string[], lines: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
const shown = (row: Row): string => (row.name === 'runc' || row.name === 'crun' ? `${row.name} (bare bundle)` : row.name);

/** One column per own row: its number as a part of this row's (`higher`: as a multiple). */
function ratios(rows: readonly Row[], value: (row: Row) => number | undefined): { head: string[]; cells: (row: Row) => string[] } {
  const own = rows.filter((row) => row.own && value(row) !== undefined);
  return { head: own.map((row) => `${row.name} ÷ this`), cells: (row) => own.map((one) => format((value(one) ?? NaN) / (value(row) ?? NaN))) };
}

function outcomeTable(outcome: Outcome): string {
  const { rows } = outcome;
  switch (outcome.kind) {
    case 'latency': {
      const against = ratios(rows, (row) => row.answered?.p50);
      const withPlain = rows.some((row) => row.plain !== undefined);
      return table(
        ['', 'answered: median', 'p99', 'everything gone: median', 'p99', ...(withPlain ? ['answered without: median'] : []), ...against.head, 'starts'],
        rows.map((row) => [shown(row), format(row.answered?.p50), format(row.answered?.p99), format(row.gone?.p50), format(row.gone?.p99), ...(withPlain ? [format(row.plain)] : []), ...against.cells(row), String(row.runs ?? '')]),
      );
    }
    case 'rate': {
      const against = ratios(rows, (row) => row.rate);
      return table(['', 'fully gone per second', 'answered: median ms', 'p99 ms', ...against.head], rows.map((row) => [shown(row), format(row.rate), format(row.answered?.p50), format(row.answered?.p99), ...against.cells(row)]));
    }
    case 'many':
      return table(['', 'first ten', 'last ten', 'last ÷ first'], rows.map((row) => [shown(row), format(row.first), format(row.last), format((row.last ?? NaN) / (row.first ?? NaN))]));
    case 'throughput':
      return table(['', 'Gbit/s', 'of a bare pair', 'of two, routed'], rows.map((row) => [row.name, format(row.gigabits), ...[row.share, row.shareRouted].map((part) => (part === undefined ? '' : `${(part * 100).toFixed(1)} %`))]));
    case 'by': {
      const numbers = rows[0]?.by?.map(([n]) => n) ?? [];
      return table(['', ...numbers.map(String), 'last ÷ first'], rows.map((row) => [row.name, ...(row.by ?? []).map(([, ms]) => format(ms)), format((row.by?.at(-1)?.[1] ?? NaN) / (row.by?.[0]?.[1] ?? NaN))]));
    }
    case 'took':
      return table(['', 'ms'], rows.map((row) => [row.name, format(row.took)]));
    case 'load': {
      const against = ratios(rows, (row) => row.answered?.p50);
      return table(['', 'median', 'slowest', ...against.head], rows.map((row) => [shown(row), format(row.answered?.p50), format(row.answered?.p99), ...against.cells(row)]));
    }
    case 'memory': {
      const amounts = table(['', 'KB'], rows.map((row) => [row.name, format(row.memory)]));
      if (!outcome.growth?.length) return amounts;
      return `${amounts}\n\nengined by the number of starts that it has made, one after another:\n\n${table(['starts', 'RSS in MB'], outcome.growth.map(([starts, kb]) => [starts.toLocaleString('en'), (kb / 1024).toFixed(1)]))}`;
    }
  }
}

/** The numbers as Markdown. */
export function markdown(report: Report): string {
  const reached = goals(report.outcomes);
  const parts = [
    `${report.machine}; ${report.versions.join(', ')}; ${report.rounds} rounds, ${report.date}.${report.absent.length > 0 ? ` Not there: ${report.absent.join('; ')}.` : ''}`,
    ...report.outcomes.map((outcome) => `### ${outcome.title}\n\n${outcome.note ? `${outcome.note[0]?.toUpperCase()}${outcome.note.slice(1)}.\n\n` : ''}${outcomeTable(outcome)}`),
    `### Goals\n\nNetwork none, idle, median until answered, if nothing else is said.\n\n${table(['', 'goal', 'measured'], reached.map(({ text, met, found }) => [met === undefined ? 'not measured' : met ? 'met' : '**not met**', text, found]))}`,
  ];
  if (report.trace?.length) {
    parts.push(`### What an unpooled start is made of\n\nFrom \`engine run --trace\`, in µs; a line may contain others.\n\n${table(['', 'µs'], report.trace.map(([name, us]) => [name, us.toFixed(0)]))}`);
  }
  return `${parts.join('\n\n')}\n`;
}

const begin = '<!-- npm run bench writes this: begin -->';
const end = '<!-- npm run bench writes this: end -->';

/** Put text between the two marks of a page. */
export function between(page: string, text: string): string {
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from < 0 || to < from) throw new Error(`the page has no place for numbers: ${begin} … ${end}`);
  return `${page.slice(0, from + begin.length)}\n\n${text.trim()}\n\n${page.slice(to)}`;
}
export function writePage(path: string, report: Report): void {
  writeFileSync(path, between(readFileSync(path, 'utf8'), `![times on a log scale](performance.svg)\n\n${markdown(report)}`));
}

/** The same for a terminal: columns aligned, no marks. */
export function plain(text: string): string {
  return text.split('\n\n').map((block) => {
    if (!block.startsWith('|')) return block.replaceAll(/[`*]|^#+ /gm, '');
    const lines = block.split('\n').filter((line) => !/^\|( --- \|)+$/.test(line)).map((line) => line.replaceAll(/[`*]/g, '').slice(2, -2).split(' | '));
    const widths = lines[0]?.map((_, i) => Math.max(...lines.map((line) => (line[i] ?? '').length))) ?? [];
    return lines.map((line) => line.map((cell, i) => cell + ' '.repeat((widths[i] ?? 0) - cell.length)).join('  ').trimEnd()).join('\n');
  }).join('\n\n');
}
