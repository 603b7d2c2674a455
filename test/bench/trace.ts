import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Arena } from './arena.ts';

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  /** µs. */
  readonly ts?: number;
  readonly dur?: number;
}

/** What a start of the unpooled engine takes, by `run --trace`: what lasted at least 1 % of the whole, in order. Empty when this build has no traces. */
export function traceOf(arena: Arena): (readonly [string, number])[] {
  const engine = arena.engines.find(({ kind }) => kind === 'unpooled') ?? arena.engines[0];
  if (!engine) return [];
  const file = join(arena.folder, 'trace.json');
  const [program = '', ...args] = engine.plain();
  const at = args.indexOf('run') + 1;
  const traced = [...args.slice(0, at), '--trace', file, ...args.slice(at)];
  execFileSync(program, args, { env: engine.env });
  if (spawnSync(program, traced, { env: engine.env, stdio: 'ignore' }).status !== 0) return [];
  const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: TraceEvent[] };
  const spans = traceEvents.filter(({ ph, dur }) => ph === 'X' && dur !== undefined);
  const longest = Math.max(...spans.map(({ dur = 0 }) => dur));
  return spans.filter(({ dur = 0 }) => dur >= longest / 100).sort((a, b) => (a.ts ?? 0) - (b.ts ?? 0)).map(({ name, dur = 0 }) => [name, dur] as const);
}
