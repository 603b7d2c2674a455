import { type Driver, type RunContext, type Steps } from '../common/index.ts';
import { type Effect } from '../../plan/types.ts';
import { type LinuxResources } from '../../spec/index.ts';

export { defaultDeviceRules } from './devices.ts';

/**
 * Where the processes of a run are counted and limited.
 *
 * Model: one *group* per run (a folder in each hierarchy), named `<parent>/<instance>-<run>`, made and limited in the shim part, joined
 * by init itself before anything else runs, killed and removed by the undo. Limits hold before the first user instruction.
 * Example (v1): shim.cgroup: mkdir per hierarchy (undo: cgroupKill + cgroupRemove) → shim.limits: writeFile per limit, open of each
 * `tasks` into a register → init.cgroup: writeFd "0" → init.namespaces: unshare(NEWCGROUP).
 *
 * Example (v2): shim.cgroup: mkdir → shim.limits: writeFile per limit, bpfProgram + bpfAttach, open of the folder, cloneInto → init.namespaces:
 * unshare(NEWCGROUP). A driver that must ask somebody else for the group (systemd) does so at a barrier in shim.cgroup, before init is born.
 *
 * Features: `freeze` (freeze, isFrozen), `oom-events` (watchKills), `devices`, `update` (update), `pressure` (stats have PSI), `exec-groups` (GroupRequest.execGroups), `slices` (parents are slices of systemd, not paths).
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
  stats(group: GroupRef): GroupStats;
  /** **read** All else that the kernel counts, for who passes it on whole (`events` of an OCI runtime). */
  details?(group: GroupRef): GroupDetails;
  /**
   * **read** with `oom-events`: call `told` soon after each rise of `oomKills` of `stats`, from the event loop and without looking again and again; it may be told once too often. A group that is gone
   * tells nothing. It keeps the process alive, until `close`, after which nothing is told. Errors: ERR_FEATURE_MISSING.
   */
  watchKills?(group: GroupRef, told: () => void): { close(): void };
  /** as data, with `freeze`: stop or let go all in the group; the undo of stopping lets go. A group that is so already is success. */
  freeze?(group: GroupRef, frozen: boolean): readonly Effect[];
  /** **read** with `freeze`: is it stopped? Asked for every container that is listed: microseconds. */
  isFrozen?(group: GroupRef): boolean;
  /**
   * as data, with `update`: new limits for a group in use, in an order that the kernel takes; only what is set changes. The undo writes what is there now.
   * Errors: as planGroup; ERR_INVALID_VALUE when the group uses more than the new limit already and the kernel would kill for it.
   */
  update?(group: GroupRef, resources: LinuxResources): readonly Effect[] | Promise<readonly Effect[]>;
  /** **read** Every group of this instance that is there now, for doctor and reconcile: run ids. */
  list(): readonly string[];
  /** as data: what removes the group of `run`, kill included; missing is success. */
  removeGroup(run: string, path?: string): readonly Effect[];
}
/** A group that was planned: `path` as in its {@link GroupRequest}. */
export interface GroupRef { readonly run: string; readonly path?: string; readonly exact?: boolean }
export interface GroupRequest {
  readonly resources: LinuxResources;
  /** `cgroupsPath` of the spec or `--cgroup-parent`, where given. */
  readonly path?: string;
  /**
   * `path` is the group itself, not its parent (a bundle's `cgroupsPath`: for systemd `slice:prefix:name`). Absolute from the root of each hierarchy, else below the group of the
   * engine's own choice. Absent path: named by `run`. One that exists already is joined when it is empty of processes, and removed by the undo all the same.
   */
  readonly exact?: boolean;
  /** Of a bundle: for a driver that asks somebody else for the group, what that one is to be told (`org.systemd.property.*`). */
  readonly annotations?: Readonly<Record<string, string>>;
  /** Is the container's cgroup namespace its own? */
  readonly ownNamespace: boolean;
  /** Of a bundle that may change its group from inside: the host's uid of the container's user, who gets the folder and the files that may be delegated (unified hierarchy only). */
  readonly owner?: number;
  /** planExec, with `exec-groups`: groups below its own that the session joins instead: a path on v2, `controller[,controller]:path` on v1. */
  readonly execGroups?: readonly string[];
  /** Who joins: `stage` when init lives in a user namespace (v1's `tasks` can't be written from there on older kernels); default `init`. */
  readonly join?: 'init' | 'stage';
}
/** What is there now; what the kernel or the driver does not count is absent. Times in ns, sizes in bytes. */
export interface GroupStats {
  readonly cpuNanoseconds?: number;
  readonly cpuUserNanoseconds?: number;
  readonly cpuSystemNanoseconds?: number;
  readonly periods?: number;
  readonly throttledPeriods?: number;
  readonly throttledNanoseconds?: number;
  readonly memoryBytes?: number;
  /** Of these, file pages that are given up first (inactive_file): `docker stats` leaves them out. */
  readonly memoryInactiveFileBytes?: number;
  readonly memoryPeakBytes?: number;
  readonly memoryLimitBytes?: number;
  readonly swapBytes?: number;
  readonly swapLimitBytes?: number;
  readonly pids?: number;
  readonly pidsLimit?: number;
  readonly oomKills?: number;
  readonly blockReadBytes?: number;
  readonly blockWriteBytes?: number;
  readonly blockReads?: number;
  readonly blockWrites?: number;
  /** Pressure stall information. `some`, `full`: share of the last 10, 60, 300 s in percent, and microseconds in all. */
  readonly pressure?: Readonly<Partial<Record<'cpu' | 'memory' | 'io', { readonly some?: Pressure; readonly full?: Pressure }>>>;
}
/** Numbers by CPU, page size and device; what is not there is absent. Times in ns, sizes in bytes; "no limit" is what the kernel writes for it, `max` is absent. */
export interface GroupDetails {
  readonly perCpu?: { readonly total: readonly number[]; readonly kernel?: readonly number[]; readonly user?: readonly number[] };
  /** CPUs and memory nodes that it may use, and the flags of v1's cpuset by the names of their files. */
  readonly cpuset?: { readonly cpus: readonly number[]; readonly mems: readonly number[]; readonly flags: Readonly<Record<string, number>> };
  /** memory.stat, key by key. */
  readonly memory?: Readonly<Record<string, number>>;
  /** `swap`: memory and swap together, on v2 too. */
  readonly counters?: Readonly<Partial<Record<'memory' | 'swap' | 'kernel' | 'kernelTcp', ResourceCounter>>>;
  /** By page size: `2MB`. */
  readonly hugetlb?: Readonly<Record<string, ResourceCounter>>;
  /** By kind, as v1 names them: `io_service_bytes`, `io_serviced`, `io_queued`, `io_service_time`, `io_wait_time`, `io_merged`, `time`, `sectors`. */
  readonly block?: Readonly<Record<string, readonly BlockCount[]>>;
}
export interface ResourceCounter { readonly limit?: number; readonly usage?: number; readonly peak?: number; readonly failures?: number }
/** `operation`: Read, Write, Sync, Async, Discard, Total; absent where the kernel counts them together. */
export interface BlockCount { readonly major: number; readonly minor: number; readonly operation?: string; readonly value: number }
export interface Pressure { readonly avg10: number; readonly avg60: number; readonly avg300: number; readonly total: number }
