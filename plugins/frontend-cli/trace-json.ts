import { extent, failed, layOut, type Trace } from './trace-layout.ts';

/** Which process a track is a thread of, and where the process stands. */
const PROCESSES: Readonly<Record<string, readonly [name: string, pid: number]>> = {
  engine: ['engine', 1], helper: ['helper', 2], shim: ['shim', 3], after: ['shim', 3], stage: ['stage', 4], init: ['init', 5], exec: ['exec', 6],
};

/**
 * The Chrome trace event format (https://ui.perfetto.dev opens it): complete events with `ts` and `dur` in µs from the begin of the command, a
 * process with a thread per track.
 */
export function traceJson(trace: Trace): string {
  const { begin, end } = extent(trace.spans);
  const us = (ns: bigint): number => Number(ns) / 1000;
  const events: Record<string, unknown>[] = [];
  const named = new Set<number>();
  layOut(trace.spans).forEach(({ track, number, spans }, i) => {
    const [process, pid] = PROCESSES[track] ?? [track, 7];
    const tid = i + 1;
    const meta = (name: string, args: object): void => void events.push({ name, ph: 'M', pid, tid, args });
    if (!named.has(pid)) {
      meta('process_name', { name: process });
      meta('process_sort_index', { sort_index: pid });
    }
    named.add(pid);
    meta('thread_name', { name: number === 0 ? track : `${track} (${number + 1})` });
    meta('thread_sort_index', { sort_index: tid });
    for (const { span } of spans) {
      const { name, kind, details = {} } = span;
      // a reserved colour name: red
      events.push({ name, cat: kind, ph: 'X', ts: us(span.begin - begin), dur: us(span.end - span.begin), pid, tid, args: details, ...(failed(span) && { cname: 'terrible' }) });
    }
  });
  const { title, version, startedAt, error } = trace;
  const otherData = { command: title, version, startedAt, total: `${us(end - begin)} µs`, ...(error !== undefined && { error }) };
  return `{"displayTimeUnit":"ns","otherData":${JSON.stringify(otherData)},"traceEvents":[\n${events.map((event) => JSON.stringify(event)).join(',\n')}\n]}\n`;
}
