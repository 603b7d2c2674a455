import { type Spawner } from '../native/index.ts';
import { type DumpOptions, type RestoreOptions } from '../contracts/checkpoint/index.ts';
import { type GroupDetails, type GroupStats } from '../contracts/cgroup/index.ts';
import { type InterfaceStats } from './engine.ts';
import { type LinuxResources, type Process } from '../spec/index.ts';

/**
 * Containers of OCI bundles, as a runtime below somebody else's engine has them (engine-oci): that one owns images, networks and logs, and waits
 * for the container's process itself. Nothing of ours stays with a container: its shim ends at the hand-over, the undo of its plan is run by
 * `delete`. What is known of it lies in `<root>/<id>/` alone, so callers with any number of roots are served by one engine.
 */
export interface Bundles {
  /**
   * All up to the start of the user's program, which waits for `start`. Errors: ERR_NAME_TAKEN, ERR_INVALID_VALUE (names the field), ERR_SECTION_UNOWNED, ERR_EXEC_NOT_FOUND, what
   * the plan says; nothing is left then.
   */
  create(request: BundleRequest): Promise<BundleState>;
  /** Let the program begin. Resolves when it has been exec'd and the poststart hooks have run. Errors: ERR_ALREADY_RUNNING, ERR_NOT_RUNNING (it has ended), what its last steps say. */
  start(ref: BundleRef, options?: { onWarning?(text: string): void }): Promise<BundleState>;
  /** Errors: ERR_NO_SUCH_CONTAINER. */
  state(ref: BundleRef): Promise<BundleState>;
  /** By id; what cannot be read is left out and told. A root that is not there has none. */
  list(root: string, options?: { onWarning?(text: string): void }): Promise<readonly BundleState[]>;
  /** A signal number; to every process of its cgroup with `all`, also when the first has ended. Errors: ERR_NOT_RUNNING. */
  kill(ref: BundleRef, signal: number, options?: { readonly all?: boolean }): Promise<void>;
  /**
   * Undo and forget. One that was not started yet is killed first; `force`: one that runs too, one whose state cannot be read goes, one that is not there is success.
   * Errors: ERR_NO_SUCH_CONTAINER, ERR_ALREADY_RUNNING, ERR_STATE (not readable), ERR_UNDO_FAILED: it is forgotten, and what is left is tried again with later ones.
   */
  delete(ref: BundleRef, options?: { readonly force?: boolean; onWarning?(text: string): void }): Promise<void>;
  /** Another process in it. Errors: ERR_NOT_RUNNING, ERR_PAUSED, ERR_EXEC_NOT_FOUND, ERR_EXEC_FAILED. */
  exec(ref: BundleRef, request: BundleExec): Promise<{ readonly pid: number }>;
  /** Pids on the host. */
  processes(ref: BundleRef): Promise<readonly number[]>;
  pause(ref: BundleRef): Promise<void>;
  resume(ref: BundleRef): Promise<void>;
  /** New limits; only what is set changes. */
  update(ref: BundleRef, resources: LinuxResources): Promise<void>;
  stats(ref: BundleRef): Promise<BundleStats>;
  /** Resolves with the number of OOM kills once there are more than `since` (default: than now), with undefined at its end or abort. Errors: ERR_NOT_RUNNING, ERR_FEATURE_MISSING. */
  oom(ref: BundleRef, signal?: AbortSignal, since?: number): Promise<number | undefined>;
  /**
   * Write the state of its processes to files; it has ended then, unless it is to go on. Errors: ERR_NOT_RUNNING, ERR_DRIVER_UNAVAILABLE (nobody here can do it), ERR_OPERATION_FAILED, with
   * the words of the program's log: the container is as it was.
   */
  checkpoint(ref: BundleRef, request: BundleCheckpoint): Promise<void>;
  /** A container of what `checkpoint` wrote, which goes on at once. Errors: those of create, and ERR_OPERATION_FAILED; nothing is left then. */
  restore(request: BundleRestore): Promise<BundleState>;
  /** What of the spec this machine's drivers honour, for `features`. */
  features(): Promise<BundleFeatures>;
}

/** `root`: the folder that holds the state of all containers of a caller. */
export interface BundleRef { readonly root: string; readonly id: string }

/** Fds and sockets of the caller that its container's processes get. */
export interface CallerStreams {
  /** Starts the shim as the caller's own child: its init is then orphaned to whoever waits for it. Its fds 0 to 2 become the program's, unless it has a terminal. */
  readonly spawner: Spawner;
  /** Unix socket that gets the master of the terminal; absent with a terminal: the spawner relays it. */
  readonly consoleSocket?: string;
  /** Nobody stays who could relay a terminal: one without a socket is refused. */
  readonly detached?: boolean;
  /** So many fds of the caller from 3 on are the program's. */
  readonly preserveFds: number;
  onWarning?(text: string): void;
}
export interface BundleRequest extends BundleRef, CallerStreams {
  /** Absolute folder. */
  readonly bundle: string;
  /** Default: `config.json` in it. */
  readonly config?: string;
  /** Added to the environment of the program: what socket activation hands over (LISTEN_PID=1). */
  readonly env: readonly string[];
  /** By names of `drivers.cgroup`; absent: what the configuration says. */
  readonly cgroupDriver?: string;
  readonly noPivot: boolean;
  readonly noNewKeyring: boolean;
}
export interface BundleExec extends CallerStreams {
  /** Whole: what is not said is not taken over from the container's. See {@link Bundles.state} for that one's. */
  readonly process: Process;
  /** A group below the container's own (v2), `controller:path` on v1. */
  readonly cgroups: readonly string[];
  readonly ignorePaused: boolean;
}

/** Folders of an image, absolute: of its files, which is made when it is not there, and of logs. */
export interface CheckpointFolders { readonly images: string; readonly work?: string }
export interface BundleCheckpoint extends DumpOptions, CheckpointFolders, Pick<CallerStreams, 'spawner'> {
  /** Pages can be asked for. */
  onReady?(): void;
}
export interface BundleRestore extends BundleRequest, RestoreOptions, CheckpointFolders {}

export type BundleStatus = 'creating' | 'created' | 'running' | 'paused' | 'stopped';
export interface BundleState extends BundleRef {
  readonly ociVersion: string;
  readonly status: BundleStatus;
  /** 0 when it has ended. */
  readonly pid: number;
  readonly bundle: string;
  readonly rootfs: string;
  /** RFC 3339. */
  readonly created: string;
  readonly annotations: Readonly<Record<string, string>>;
  /** Name of the user that made it, as runc's `owner`. */
  readonly owner: string;
  /** As it was compiled. */
  readonly process: Process;
}
export interface BundleStats {
  readonly group: GroupStats;
  /** Absent: the driver counts no more than `group`. */
  readonly details?: GroupDetails;
  /** Of its network namespace, `lo` too; none with the host's. */
  readonly interfaces: readonly InterfaceStats[];
}
/** Plain data of `features` (https://github.com/opencontainers/runtime-spec/blob/main/features.md). */
export type BundleFeatures = Readonly<Record<string, unknown>>;
