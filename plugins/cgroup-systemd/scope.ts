import { fail } from '@engine/core/errors';
import { type BarrierHandler } from '@engine/core/plugin';
import { type Property, type Systemd } from './systemd.ts';

export const HANDLER = 'cgroup-systemd.scope';
/** A systemd that loads thousands of units anew answers late: ms. */
export const DEADLINE = 30_000;

/** Input of the barrier. */
export interface ScopeInput {
  readonly unit: string;
  /** Where its folder comes to lie, below the root of the hierarchy. */
  readonly folder: string;
  readonly properties: readonly Property[];
}

/** The group of a process in the unified hierarchy, as the engine sees it; undefined: it is gone. */
export function groupOf(read: (path: string) => string | undefined, pid: number): string | undefined {
  return /^0::(.*)$/m.exec(read(`/proc/${pid}/cgroup`) ?? '')?.[1];
}

/**
 * The shim stands at the barrier before anything of the container is there: systemd makes a scope around it. So the scope lasts as long as its shim (what
 * the kernel counted is read before systemd collects it), and a container outlives the service or session that its engine was started in.
 */
export function createScopeHandler(systemd: Systemd, read: (path: string) => string | undefined): BarrierHandler {
  return async ({ input, pid, signal }) => {
    const { unit, folder, properties } = input as ScopeInput;
    const isPlaced = (): boolean => groupOf(read, pid) === `/${folder}`;
    await systemd.startScope({ unit, properties: [...properties, ['PIDs', 'au', [pid]]], isPlaced }, signal);
    if (isPlaced()) return;
    throw fail('ERR_OPERATION_FAILED', `systemd has put the shim of ${unit} into ${groupOf(read, pid) ?? 'nothing'}, not into /${folder}`, { operation: 'StartTransientUnit', path: unit, hint: 'does systemd manage the hierarchy that the engine sees?' });
  };
}
