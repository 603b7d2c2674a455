import { type Driver, type RunContext, type Steps } from '../common/index.ts';
import { type LinuxResources } from '../../spec/index.ts';

/**
 * Where the processes of a run are counted and limited.
 *
 * Model: one *group* per run (a folder in each hierarchy), named `<parent>/<instance>-<run>`, made and limited in the shim part, joined
 * by init itself before anything else runs, killed and removed by the undo. Limits hold before the first user instruction.
 * Example (v1): shim.cgroup: mkdir per hierarchy (undo: cgroupKill + cgroupRemove) → shim.limits: writeFile per limit, open of each
 * `tasks` into a register → init.cgroup: writeFd "0" → init.namespaces: unshare(NEWCGROUP).
 *
 * Features: `freeze`, `oom-events`, `devices`, `update`.
 */
export interface CgroupDriver extends Driver {
  /** Sections of `linux.resources` it can honour, e.g. `memory.limit`; others that are set are refused by field name. */
  readonly resources: ReadonlySet<string>;
  /** **plan** Make, limit and join. Errors: ERR_INVALID_VALUE for a value out of range, ERR_FEATURE_MISSING for one it can't honour. */
  planGroup(request: GroupRequest, run: RunContext): Steps | Promise<Steps>;
  /** **plan** Steps of an exec plan (`exec.join` is the shim's own; this adds what is needed besides, mostly nothing). */
  planExec?(request: GroupRequest, run: RunContext): Steps;
  /** **read** The mounts that show the container its own cgroups, as OCI mounts to be placed below /sys/fs/cgroup. */
  mounts(request: GroupRequest): readonly { readonly destination: string; readonly type: string; readonly source: string; readonly options: readonly string[] }[];
  /** **read** Current numbers of a run's group. */
  stats(group: { readonly run: string; readonly path?: string }): GroupStats;
  /** **read** Every group of this instance that is there now, for doctor and reconcile: run ids. */
  list(): readonly string[];
  /** as data: what removes the group of `run`, kill included; missing is success. */
  removeGroup(run: string, path?: string): readonly import('../../plan/types.ts').Effect[];
}
export interface GroupRequest {
  readonly resources: LinuxResources;
  /** `cgroupsPath` of the spec or `--cgroup-parent`, where given. */
  readonly path?: string;
  /** Is the container's cgroup namespace its own? */
  readonly ownNamespace: boolean;
  /** Who joins: `stage` when init lives in a user namespace (v1's `tasks` can't be written from there on older kernels); default `init`. */
  readonly join?: 'init' | 'stage';
}
export interface GroupStats {
  readonly cpuNanoseconds?: number;
  readonly memoryBytes?: number;
  readonly memoryPeakBytes?: number;
  readonly memoryLimitBytes?: number;
  readonly pids?: number;
  readonly throttledPeriods?: number;
  readonly oomKills?: number;
}
