import { type Span } from '@engine/core/api';

/** What is drawn: everything that `--trace` collected of one command. */
export interface Trace {
  /** The command, as typed. */
  readonly title: string;
  readonly version: string;
  /** When it began, ISO 8601. */
  readonly startedAt: string;
  readonly spans: readonly Span[];
  /** Why the command failed, in words. */
  readonly error?: string;
}
export interface Placed {
  readonly span: Span;
  /** Position among all, in order of their begin. */
  readonly number: number;
  /** How many others of its lane are around it. */
  readonly depth: number;
  /** Its time without that of those within it, ns. */
  own: bigint;
}
/** Spans of one track that nest cleanly: each is apart from any other or within it. */
export interface Lane {
  readonly track: string;
  /** 0; more when things on one track overlap. */
  readonly number: number;
  readonly spans: readonly Placed[];
}

/** In the order in which they come to work. */
const ORDER = ['engine', 'helper', 'shim', 'stage', 'init', 'exec', 'after'];
const rank = (track: string): number => (ORDER.includes(track) ? ORDER.indexOf(track) : ORDER.length);

const compare = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);

/** Lanes in the order of their work; within each, spans by begin, the outer one first. */
export function layOut(spans: readonly Span[]): readonly Lane[] {
  const lanes: { track: string; number: number; spans: Placed[]; open: Placed[] }[] = [];
  // of two with the same times the one that was told later is the outer one
  const sorted = spans.map((span, told) => ({ span, told })).sort((a, b) => compare(a.span.begin, b.span.begin) || compare(b.span.end, a.span.end) || b.told - a.told);
  sorted.forEach(({ span }, number) => {
    for (let at = 0; ; at++) {
      let lane = lanes.find((each) => each.track === span.track && each.number === at);
      if (!lane) lanes.push((lane = { track: span.track, number: at, spans: [], open: [] }));
      while (lane.open.length > 0 && (lane.open.at(-1)?.span.end ?? 0n) <= span.begin && (lane.open.at(-1)?.span.end ?? 0n) < span.end) lane.open.pop();
      const parent = lane.open.at(-1);
      if (parent && parent.span.end < span.end) continue;
      const placed: Placed = { span, number, depth: lane.open.length, own: span.end - span.begin };
      if (parent) parent.own -= placed.own;
      lane.open.push(placed);
      lane.spans.push(placed);
      return;
    }
  });
  return lanes.sort((a, b) => rank(a.track) - rank(b.track) || a.number - b.number);
}

export const failed = (span: Span): boolean => span.details?.['error'] !== undefined;
/** Somebody else was working meanwhile: the time is found there. */
export const waits = (span: Span): boolean => span.details?.['waits'] !== undefined;

/** First begin and last end, ns. */
export function extent(spans: readonly Span[]): { readonly begin: bigint; readonly end: bigint } {
  let [begin, end] = [spans[0]?.begin ?? 0n, spans[0]?.end ?? 0n];
  for (const span of spans) {
    if (span.begin < begin) begin = span.begin;
    if (span.end > end) end = span.end;
  }
  return { begin, end };
}
