import { type Effect, type Operation } from '../../plan/types.ts';
import { type DriverDeps, type Effects, type RunContext } from './index.ts';

/** One case of a conformance suite: data, so that any test runner can show it by name. */
export interface SuiteCase<Context> {
  readonly name: string;
  /** Features of the driver and abilities of the bench (see {@link Bench.abilities}); without all of them the case is skipped. `!x`: only without x. */
  readonly needs: readonly string[];
  /** Throws (node:assert) when the driver is wrong. */
  run(context: Context): Promise<void> | void;
}
export interface SuiteContext {
  /** What of a case's `needs` is there. */
  has(need: string): boolean;
  close(): Promise<void>;
}
/** How much longer than on a machine of one's own everything may take, for emulated ones: `SUITE_PATIENCE=10`. */
export const suitePatience = Number(process.env['SUITE_PATIENCE'] ?? 1);

/** The cases of a contract. `open` makes a fresh context for each case. */
export interface Suite<Factory, Context extends SuiteContext> {
  readonly contract: string;
  readonly cases: readonly SuiteCase<Context>[];
  open(factory: Factory): Promise<Context>;
}

/** The needs of a case that a context lacks. */
export function missingNeeds(needs: readonly string[], context: SuiteContext): string[] {
  return needs.filter((need) => (need.startsWith('!') ? context.has(need.slice(1)) : !context.has(need)));
}

/** Run one case in a context of its own. `skip` is told what is missing. */
export async function runCase<Factory, Context extends SuiteContext>(
  suite: Suite<Factory, Context>, one: SuiteCase<Context>, factory: Factory, skip: (reason: string) => void,
): Promise<void> {
  const context = await suite.open(factory);
  try {
    const missing = missingNeeds(one.needs, context);
    if (missing.length) skip(`needs ${missing.join(', ')}`);
    else await one.run(context);
  } finally {
    await context.close();
  }
}

/**
 * Where a run of effects is cut: before operation `at` (all calls of one {@link BenchEffects} counted together).
 * `fail`: that operation fails. `die`: the engine is killed at that instant.
 */
export interface Fault { readonly at: number; readonly kind: 'fail' | 'die' }

/** Thrown by {@link BenchEffects} in place of the death of the engine. */
export class Died extends Error {}

/** Effects as the core gives them to a driver, with the transaction around them in the hands of the suite. */
export interface BenchEffects extends Effects {
  /** Operations begun so far. */
  readonly begun: number;
  commit(): Promise<void>;
  rollback(): Promise<void>;
  /** What the next engine does after a death: undo, or finish what was committed. */
  recover(): Promise<void>;
}

/** What a suite runs on: a fake machine (level 1), or the real shim (level 2). */
export interface Bench {
  readonly level: 1 | 2;
  /**
   * `owners` (uid, gid, modes, xattrs and nodes are real), `mounts` (plans run), `kill` (the helper can be killed at an operation),
   * `faults` (operations can be cut), `level-1`, `level-2`.
   */
  readonly abilities: ReadonlySet<string>;
  readonly deps: DriverDeps;
  /** A pipe as two fds, for drivers that feed streams. */
  pipe(): { readonly read: number; readonly write: number };
  /** A folder of the bench's own, beside the driver's. */
  readonly folder: string;
  readonly run: RunContext;
  effects(fault?: Fault): BenchEffects;
  /** Run operations in one helper process: a private mount namespace. Errors: ERR_OPERATION_FAILED. Needs `mounts`. */
  operations(operations: readonly Operation[], streams?: readonly number[]): Promise<void>;
  /** Mounts, processes and the like that the bench can see and that should not be: checked at the end of each case. */
  leaks(): readonly string[];
  close(): Promise<void>;
}

/** Run `effects` as one transaction, commit it. */
export async function apply(bench: Bench, effects: readonly Effect[]): Promise<void> {
  const transaction = bench.effects();
  await transaction.run(effects);
  await transaction.commit();
}
/** Run `effects` (a removal) as the core does: put off to the commit. */
export async function applyOnCommit(bench: Bench, effects: readonly Effect[]): Promise<void> {
  const transaction = bench.effects();
  transaction.onCommit(effects);
  await transaction.commit();
}
