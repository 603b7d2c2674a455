import { type Span } from '@engine/core/api';
import { waits } from './trace-layout.ts';

/** `12.3 µs`, `4.56 ms`, `1.20 s`. */
export function duration(ns: bigint | number): string {
  const us = Number(ns) / 1000;
  const three = (value: number): string => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
  if (us < 999.5) return `${us >= 100 ? us.toFixed(0) : us.toFixed(1)} µs`;
  return us < 999_500 ? `${three(us / 1000)} ms` : `${three(us / 1e6)} s`;
}

export interface Tick { readonly at: number; readonly label: string }
/** Time to position, 0 to 1. What takes long while nothing is to be seen is cut out. */
export interface Scale {
  at(time: bigint): number;
  readonly ticks: readonly Tick[];
  /** Begin and end of what is cut out, and how long it is. */
  readonly cuts: readonly { readonly from: number; readonly to: number; readonly length: bigint }[];
}

/** Part of the width that is left of what is cut out. */
const CUT = 0.08;

/** The next 1, 2 or 5 times a power of ten. */
function nice(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return (value / power <= 1 ? 1 : value / power <= 2 ? 2 : value / power <= 5 ? 5 : 10) * power;
}

/** `zero`: the time that is called 0 on the ruler. The time in which only the program of the user runs is cut out when it is more than all the rest. */
export function createScale(begin: bigint, end: bigint, zero: bigint, spans: readonly Span[], ticks = 10): Scale {
  const long = spans.filter((span) => span.begin >= begin && span.end <= end && waits(span) && span.details?.['waits'] === 'program' && (span.end - span.begin) * 2n > end - begin);
  const cut = long[0];
  const pieces = cut ? [[begin, cut.begin], [cut.begin, cut.end], [cut.end, end]] as const : [[begin, end]] as const;
  const shown = Number(end - begin) - (cut ? Number(cut.end - cut.begin) : 0) || 1;
  const free = cut ? 1 - CUT : 1;
  let from = 0;
  const parts = pieces.map(([a, b], i) => {
    const width = i === 1 ? CUT : (Number(b - a) / shown) * free;
    const piece = { a, b, from, width };
    from += width;
    return piece;
  });
  const at = (time: bigint): number => {
    const piece = parts.find(({ b }) => time <= b) ?? parts.at(-1);
    if (!piece) return 0;
    const length = Number(piece.b - piece.a);
    const within = length === 0 ? 0 : Math.min(1, Math.max(0, Number(time - piece.a) / length));
    return piece.from + within * piece.width;
  };
  const step = nice(shown / ticks);
  const last = Number(end - zero);
  const unit = last >= 1e10 ? 1e9 : last >= 1e6 ? 1e6 : 1e3;
  const digits = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
  const marks = parts.flatMap(({ a, b }, i): Tick[] => {
    if (i === 1 || a === b) return [];
    const found: Tick[] = [];
    for (let t = Math.ceil(Number(a - zero) / step) * step; t <= Number(b - zero); t += step) {
      found.push({ at: at(zero + BigInt(Math.round(t))), label: `${(t / unit).toFixed(digits)} ${unit === 1e3 ? 'µs' : unit === 1e6 ? 'ms' : 's'}` });
    }
    return found;
  });
  return { at, ticks: marks, cuts: cut ? [{ from: at(cut.begin), to: at(cut.begin) + CUT, length: cut.end - cut.begin }] : [] };
}
