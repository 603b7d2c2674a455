import { type Span } from '../api/engine.ts';
import { describeError } from '../errors/index.ts';

/** Where spans go, see StartOptions.trace. Whoever has none does nothing: `trace && openSpan(trace, …)`. */
export type Trace = (span: Span) => void;

/** Something begins now on the engine's track. The first call of what is returned ends it. */
export function openSpan(trace: Trace, kind: Span['kind'], name: string, details: Readonly<Record<string, string>> = {}): (error?: unknown) => void {
  const begin = process.hrtime.bigint();
  let over = false;
  return (error) => {
    if (over) return;
    over = true;
    trace({ name, kind, track: 'engine', begin, end: process.hrtime.bigint(), details: error === undefined ? details : { ...details, error: describeError(error) } });
  };
}

/** The phases of a verb, one after another: naming one ends the one before, no name ends the last. `waits`: for whom, who is the one that works. */
export type Phase = (name?: string, waits?: string) => void;
export function openPhases(trace: Trace): Phase {
  let end: (() => void) | undefined;
  return (name, waits) => {
    end?.();
    end = name === undefined ? undefined : openSpan(trace, 'engine', name, waits === undefined ? {} : { waits });
  };
}
