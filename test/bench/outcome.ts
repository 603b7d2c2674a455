import { median, quantile, type Series } from './measure.ts';

/** ms, or starts per second, or KB, by the outcome's kind. */
export interface Row {
  readonly name: string;
  readonly own: boolean;
  readonly runs?: number;
  readonly answered?: Quantiles;
  readonly gone?: Quantiles;
  /** Starts per second, all of them fully gone. */
  readonly rate?: number;
  /** KB. */
  readonly memory?: number;
  /** ms of the first ten starts and of the last ten. */
  readonly first?: number;
  readonly last?: number;
  /** Gbit/s, and as a part of a bare veth pair's, and of two that this host routes between. */
  readonly gigabits?: number;
  readonly share?: number;
  readonly shareRouted?: number;
  /** ms by a number: of ports that are published. */
  readonly by?: readonly (readonly [number, number])[];
  /** ms that something took once, the slowest. */
  readonly took?: number;
  /** ms in the same scenario without what makes this one special. */
  readonly plain?: number;
}
export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
}
export interface Outcome {
  readonly scenario: string;
  readonly kind: 'latency' | 'rate' | 'many' | 'memory' | 'load' | 'throughput' | 'by' | 'took';
  readonly title: string;
  readonly note?: string;
  readonly rows: readonly Row[];
  /** KB of engined's RSS, and how many starts it had made. */
  readonly growth?: readonly (readonly [number, number])[];
  /** RSS of engined in KB after that, quiet. */
  readonly settled?: number;
}
export interface Report {
  readonly machine: string;
  readonly versions: readonly string[];
  readonly date: string;
  readonly rounds: number;
  readonly absent: readonly string[];
  readonly outcomes: readonly Outcome[];
  readonly trace?: readonly (readonly [string, number])[];
}

export const quantiles = (values: readonly number[]): Quantiles => ({ p50: median(values), p99: quantile(values, 0.99) });

export function latencyRow(name: string, own: boolean, series: Series): Row {
  return { name, own, runs: series.answered.length, answered: quantiles(series.answered), ...(series.gone.length > 0 && { gone: quantiles(series.gone) }) };
}
export function rateRow(name: string, own: boolean, series: Series): Row {
  return { name, own, runs: series.answered.length, answered: quantiles(series.answered), rate: median(series.rates) };
}
