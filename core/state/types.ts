import { type ContainerRecord, type ExitRecord } from '../api/types.ts';
import { type Orphan, type Span } from '../api/engine.ts';
import { type Effects, type EffectsOptions, type PluginState, type StateSchema } from '../contracts/common/index.ts';
import { type Effect } from '../plan/types.ts';
import { type Endpoint, type NetworkRecord } from '../contracts/network/index.ts';
import { type Lock } from '../native/index.ts';

/** Folders of an engine. Engines with different roots run side by side. */
export interface Folders {
  readonly root: string;
  readonly runRoot: string;
  /** `engine-` + 8 hex digits of the hash of the real path of root. */
  readonly instance: string;
}

/** All that survives, and the records of what is in flight. */
export interface State {
  readonly folders: Folders;
  readonly containers: Containers;
  readonly volumes: VolumeTable;
  readonly networks: NetworkTable;
  readonly endpoints: EndpointTable;
  readonly ids: IdTable;
  /** Names of `one`/`many` tables of plugins. */
  pluginState(plugin: string): PluginState;
  /** Bring the state of a plugin to the version that its code knows. Errors: ERR_STATE when it is newer, ERR_PLUGIN_FAILED. */
  ensureStateSchema(plugin: string, schema: StateSchema | undefined): Promise<void>;
  /** Begin a journalled change. `what` for messages and doctor (`create container x`). */
  begin(what: string, trace?: (span: Span) => void): Transaction;
  readonly runs: Runs;
  /** Runs of others that live by their folder alone, below a root of theirs: `<root>/<id>`; what is set aside lies in `.trash` and `.leftovers` there. No row says anything of them. */
  runsIn(root: string): RunsBelow;
  /** One verb at a time per object, or several that share it. Waits up to `timeout` ms, then ERR_BUSY. kind: `container`, `name`, `image`, `volume`, `layer`. */
  lock(kind: string, id: string, options?: LockOptions): Promise<Lock>;
  /**
   * Undo or finish everything that can be locked. Returns what was done, in words. Called at every start. `fix`: also undo and remove
   * run folders whose record cannot be read (otherwise they are left for doctor to show).
   */
  reconcile(options?: { readonly fix?: boolean }): Promise<readonly string[]>;
  /** Is anybody, this engine or another, in the middle of a journalled change? */
  inFlight(): boolean;
  /** What reconcile would do and what nobody owns, for doctor. */
  orphans(): Promise<readonly Omit<Orphan, 'fixed'>[]>;
  /** The next number for an event; rises by one over all engines of this root. */
  nextEvent(): number;
  /** How often {@link Rows.countRemoval} was committed, by any engine of this root. */
  removals(): number;
  close(): void;
}

export interface LockOptions { readonly timeout?: number; readonly shared?: boolean }
export interface Containers {
  /** By full id. */
  get(id: string): ContainerRecord | undefined;
  /** Name, full id, or prefix of an id. Errors: ERR_NO_SUCH_CONTAINER, ERR_AMBIGUOUS. */
  resolve(ref: string): ContainerRecord;
  byName(name: string): ContainerRecord | undefined;
  list(): readonly ContainerRecord[];
  /** In the order of `list`, for who gives others a turn between two records. */
  ids(): readonly string[];
}
export interface VolumeRecord {
  name: string; driver: string; plugin: string; version: string; created: string; labels: Record<string, string>; options: Record<string, string>; anonymous: boolean;
}
export interface VolumeTable {
  get(name: string): VolumeRecord | undefined;
  list(): readonly VolumeRecord[];
  /** Ids of containers that use it. */
  users(name: string): readonly string[];
}

/** Ids of the host that a container's are mapped to. */
export interface IdLease { readonly container: string; readonly kind: 'uid' | 'gid'; readonly first: number; readonly size: number; /** By `--userns=auto`: nobody else may have them. */ readonly leased: boolean }
export interface IdTable {
  /** Of all containers, in the order of the host's ids. */
  list(kind: 'uid' | 'gid'): readonly IdLease[];
}

export interface NetworkTable {
  /** Name, full id, or prefix of an id. Errors: ERR_NO_SUCH_NETWORK, ERR_AMBIGUOUS. */
  resolve(ref: string): NetworkRecord;
  get(id: string): NetworkRecord | undefined;
  byName(name: string): NetworkRecord | undefined;
  list(): readonly NetworkRecord[];
  /** Ids of containers that are on it, running or not. */
  users(id: string): readonly string[];
}
/** Endpoints of runs, and with them the leases of their addresses: an address belongs to at most one endpoint, whoever asks. */
export interface EndpointTable {
  /** Those of a container's run that has not ended. */
  of(container: string): readonly Endpoint[];
  /** All that have not ended. */
  list(): readonly Endpoint[];
  /** Of these networks; their run is over, they keep their addresses as long as their links may be there. At most `limit`. */
  ended(networks: readonly string[], limit?: number): readonly Endpoint[];
  /** Who has this address on a network. */
  holder(network: string, address: string): { readonly endpoint: Endpoint; readonly ended: boolean } | undefined;
  /** The address that was given out last, so that the next is another. */
  last(network: string, family: 4 | 6): string | undefined;
  /** Forget those that are `gone`, and write these down all together, with their leases; false when one of the addresses has been taken meanwhile: nothing is written then. Errors: ERR_NO_SUCH_NETWORK. */
  claim(endpoints: readonly Endpoint[], gone: readonly Endpoint[]): Promise<boolean>;
  /** Their run is over. `isGone`: for good. */
  end(endpoints: readonly Endpoint[], isGone: (endpoint: Endpoint) => boolean): Promise<void>;
}

/**
 * A journalled change. Its folder `root/inflight/<id>` (flock'ed) holds the undo of every effect before that effect runs, and the effects to
 * run on commit. `commit` is one SQLite transaction: before it the next engine undoes, after it the next engine finishes.
 */
export interface Transaction {
  readonly id: string;
  /** Effects whose operations are blamed on `plugin`. */
  effects(plugin: string): Effects;
  /** Effects of several plugins in one helper, in order: one journal entry, one process. */
  runAll(groups: readonly { readonly plugin: string; readonly effects: readonly Effect[] }[], options?: EffectsOptions): Promise<void>;
  /** Apply row changes and make the transaction final, then run what was put off to the commit, then forget the journal. */
  commit(change: (rows: Rows) => void): Promise<void>;
  /** Undo everything, newest first; failures are collected into ERR_UNDO_FAILED after all was tried. */
  rollback(): Promise<void>;
}
/** Row changes, inside the commit's SQLite transaction. */
export interface Rows {
  /** Errors: ERR_NAME_TAKEN; ERR_BUSY when another container took the ids that were chosen for this one. */
  insertContainer(record: ContainerRecord, json?: string): void;
  updateContainer(record: ContainerRecord): void;
  deleteContainer(id: string): void;
  insertVolume(record: VolumeRecord): void;
  deleteVolume(name: string): void;
  /** Errors: ERR_NAME_TAKEN. */
  insertNetwork(record: NetworkRecord): void;
  /** Errors: ERR_IN_USE, at the end of the transaction, while a container is on it, or a run has an endpoint. */
  deleteNetwork(network: Pick<NetworkRecord, 'id' | 'name'>): void;
  /** A running container has one less, or another one has the default route. */
  updateEndpoint(endpoint: Endpoint): void;
  /** An image goes. */
  countRemoval(): void;
}

/** record.json of a run's folder. */
export interface RunRecord {
  readonly run: string;
  readonly container: string;
  readonly instance: string;
  readonly boot: string;
  readonly created: string;
  /** `path` of its cgroup's {@link GroupRef}, as it was planned. */
  readonly group?: string;
  /** Its shim ends at the hand-over: a free lock does not say that it is over. */
  readonly handed?: true;
}
/** Folder `runRoot/runs/<container id>`: at most one per container, so the rename into place is the mutual exclusion. */
export interface Runs {
  /** Under a temporary name: record, plan, `files` by name, rootfs/, lock taken; then renamed into place. Errors: ERR_ALREADY_RUNNING. */
  create(record: RunRecord, plan: Uint8Array, files?: Readonly<Record<string, string>>): Promise<{ readonly folder: string; readonly lock: Lock }>;
  /** The run of {@link find}, by its record alone. */
  current(container: string): RunRecord | undefined;
  /** What runs, or ran and was not collected. */
  find(container: string): RunView | undefined;
  list(): readonly RunView[];
  /** Replace the plan (temporary name, fsync, rename); the caller then sends `amend`. */
  amend(container: string, plan: Uint8Array): Promise<void>;
  /**
   * When nobody holds the lock: kill what is left, run the undo unless `undone` is there, write the exit to the container's row, remove the
   * folder. `forget`: the row is about to go, its exit need not be written. Returns the exit, undefined when there was no run. Waits for a shim in teardown up to `timeout` ms (ERR_BUSY after).
   */
  collect(container: string, options?: { timeout?: number; readonly forget?: boolean }): Promise<{ readonly exit: ExitRecord; readonly failures: readonly string[] } | undefined>;
}
/** See {@link State.runsIn}. */
export interface RunsBelow extends Pick<Runs, 'create' | 'current' | 'find'> {
  /** Undo a folder's plan, call `last`, and remove it, whatever its record says; what could not be undone. The lock is released. */
  clear(folder: string, lock: Lock, last?: () => Promise<void>): Promise<readonly string[]>;
  /** Is this, in the trash, being deleted by ourselves just now? */
  isLeaving(path: string): boolean;
}
export interface RunView {
  readonly record: RunRecord;
  readonly folder: string;
  /** Held lock = the shim (or an engine about to start it) is alive. */
  readonly alive: boolean;
  readonly started?: { readonly pid: number; readonly startTime: bigint; readonly startedAt: string };
  readonly exit?: ExitRecord;
  readonly failed?: { readonly part: string; readonly index: number; readonly errno: number; readonly detail: string };
  readonly undone: boolean;
  /** Another boot id: everything in it is gone with that boot. */
  readonly stale: boolean;
}
