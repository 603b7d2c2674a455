import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../errors/index.ts';
import { decodePlan, encodePlan, op, type PlannedStep } from '../../plan/index.ts';
import { type Spec } from '../../spec/index.ts';
import { type OciState } from '../../spec/state.ts';
import { errnoName, randomName } from '../../state/files.ts';
import { runShim, subjectOf, type Failure } from '../../state/helper.ts';
import { type Core } from '../core.ts';
import { type Found } from './store.ts';

interface Hook { readonly path: string; readonly args?: readonly string[]; readonly env?: readonly string[]; readonly timeout?: number }

/** A plan of this moment, in the run's folder; gone when `work` has ended. */
export async function withPlan<T>(folder: string, bytes: Uint8Array, work: (file: string) => Promise<T>): Promise<T> {
  const file = join(folder, `plan-${randomName()}`);
  writeFileSync(file, bytes, { mode: 0o600, flag: 'wx' });
  try {
    return await work(file);
  } finally {
    rmSync(file, { force: true });
  }
}

export const mayHaveHooks = ({ stored: { hooks } }: Found, kind: string): boolean => hooks?.includes(kind) ?? true;
type Kind = 'prestart' | 'createRuntime' | 'poststart' | 'poststop';
const STATUS = { prestart: 'creating', createRuntime: 'creating', poststart: 'running', poststop: 'stopped' } as const satisfies Record<Kind, OciState['status']>;
/**
 * Of the spec, those that run outside, one after another. One of `poststop` that fails is told, and the rest goes on (runtime.md, Lifecycle). `prestart` and `createRuntime`: of a container
 * that is restored; those of others are in its plan. Errors: ERR_OPERATION_FAILED, of the first that fails of all other kinds.
 */
export async function runHooks(core: Core, { folder, stored }: Pick<Found, 'folder' | 'stored'>, spec: Spec, kind: Kind, pid: number | undefined, onWarning: (text: string) => void): Promise<void> {
  const hooks = (spec.hooks?.[kind] ?? []) as readonly Hook[];
  if (hooks.length === 0) return;
  const { ociVersion, id, bundle, annotations } = stored;
  const state: OciState = { ociVersion, id, status: STATUS[kind], ...(pid !== undefined && { pid }), bundle, annotations };
  const optional = kind === 'poststop';
  const steps = hooks.map(({ path, args, env, timeout }, i): PlannedStep => ({
    slot: 'helper.main', undo: [], origin: { plugin: 'core', hook: kind, pointer: `/hooks/${kind}/${i}` },
    operation: op.hook({ path, argv: args?.length ? args : [path], env: env ?? [], timeout: (timeout ?? 0) * 1000, cwd: bundle, stateHead: JSON.stringify(state), stateTail: '' }, { optional }),
  }));
  const bytes = encodePlan({ steps });
  const names = new Map(decodePlan(bytes).steps.map((step) => [step.index, step]));
  const words = ({ index, detail }: Failure): string => `${kind} hook ${subjectOf(names.get(index))} failed${detail === '' ? '' : `: ${detail}`}`;
  const { ended, message, failures: [failed] } = await withPlan(folder, bytes, (plan) => runShim(core.parts.native, { mode: 'host', plan }, { onWarning: (failure) => onWarning(words(failure)) }));
  if (ended === 'ok') return;
  const error = fail('ERR_OPERATION_FAILED', failed ? words(failed) : `${kind} hooks: ${message || 'the helper ended unexpectedly'}`, { operation: kind, ...(failed && { errno: errnoName(failed.errno) }) });
  if (!optional) throw error;
  onWarning(error.message);
}
