import { type Logger } from 'pino';
import { type Effect, type Step } from '../../plan/types.ts';

/** What is known of the machine, read once per engine; drivers probe against it, tests hand in another one. Plain data. */
export interface Machine {
  /** `uname -r` as [major, minor]. */
  readonly kernel: readonly [number, number];
  readonly release: string;
  readonly architecture: string;
  readonly hostname: string;
  /** uid of this process; 0 where the kernel can be changed at all. */
  readonly uid: number;
  /** Effective capabilities of this process, as names (`CAP_SYS_ADMIN`). */
  readonly capabilities: readonly string[];
  /** Filesystem types of /proc/filesystems. */
  readonly filesystems: readonly string[];
  /** Mounts of /proc/self/mountinfo. */
  readonly mounts: readonly MachineMount[];
  /** Namespace types of /proc/self/ns (`net`, `user`, `time` …). */
  readonly namespaces: readonly string[];
  /** uid_map and gid_map (user_namespaces(7)) of each user namespace that a process is in, this one's own excepted. Looks at every process. */
  readonly idMaps: readonly { readonly uid: string; readonly gid: string }[];
  /** The engine's folders; `root` is where images and snapshots lie. */
  readonly root: string;
  readonly runRoot: string;
  /** Reads a small file of /proc or /sys, undefined when it can't be read. The only function in here, so that a probe stays testable. */
  read(path: string): string | undefined;
}
export interface MachineMount {
  readonly id: number;
  readonly parent: number;
  readonly device: string;
  readonly root: string;
  readonly target: string;
  readonly options: readonly string[];
  readonly propagation: readonly string[];
  readonly type: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

/** A driver's answer to "can you work here, and how well?" */
export interface Probe {
  readonly available: boolean;
  /** `auto` takes the available driver with the highest score; 0 = never by itself. */
  readonly score: number;
  /** In words, for `engine doctor`: why (not), and which way it will work. */
  readonly reasons: readonly string[];
  /** Its options ask for it outright: where several drivers stack up, `auto` fails when this one is not available, instead of doing without. */
  readonly wanted?: boolean;
}

/** What every driver has, whatever its contract. */
export interface Driver {
  /** The driver's name, as in `.enginerc`. */
  readonly name: string;
  /** Declared optional abilities, named in the contract's docs. */
  readonly features: ReadonlySet<string>;
  /** **read** Its part of what an OCI runtime says of itself (https://github.com/opencontainers/runtime-spec/blob/main/features.md): `{linux: {seccomp: {enabled, actions}}}`. */
  ociFeatures?(available: boolean): Readonly<Record<string, unknown>>;
  /** **read** May be called any time, without root; never throws. */
  probe(machine: Machine): Probe | Promise<Probe>;
}

/** Runs operations now, crash-safe: each effect's undo is on disk before the first operation starts. */
export interface Effects {
  /**
   * Run `effects` in order in one helper process. When one fails, those done before are undone and the error names operation, path,
   * errno and plugin. When the engine dies, the next one undoes them, unless the transaction they belong to was committed.
   * `streams`: fds that registers `fd0`.. hold, for pack and unpack.
   */
  run(effects: readonly Effect[], options?: EffectsOptions): Promise<void>;
  /** Run these when the transaction commits (removals): from then on they are repeated until they succeed. */
  onCommit(effects: readonly Effect[]): void;
  /** Set (or delete, with undefined) a key of the calling plugin's state in the same instant as the transaction commits. */
  setState(key: string, value: unknown): void;
}
export interface EffectsOptions {
  readonly streams?: readonly number[];
  readonly signal?: AbortSignal;
  /** Receives warnings of `optional` operations. */
  readonly onWarning?: (text: string) => void;
}

/** What a driver is made with. A driver has no other way to reach the machine or the state. */
export interface DriverDeps {
  readonly machine: Machine;
  readonly log: Logger;
  /** Small values that outlive the process, namespaced to the plugin. */
  readonly state: PluginState;
  /** A folder below `root` that belongs to this plugin alone (`root/<plugin>`); made before the driver is. */
  readonly folder: string;
  /** The same below `runRoot`, gone with a reboot: what the plugin's service reads, see PluginManifest.service. */
  readonly serviceFolder: string;
  /** `engine-<hash of root>`: in the name of everything visible on the host. */
  readonly instance: string;
}

/** Plain JSON per key. Values are copied in and out. */
export interface PluginState {
  get(key: string): unknown;
  set(key: string, value: unknown): void;
  delete(key: string): void;
  list(prefix?: string): readonly { readonly key: string; readonly value: unknown }[];
}

/** The shape of a plugin's state, see PluginDefinition. */
export interface StateSchema {
  /** Starts at 1, which is also what a plugin has that declares none; rises with every change of shape. */
  readonly schemaVersion: number;
  /**
   * From an older version to this one: synchronous, in one transaction, before `create`. A throw leaves the state as it was and the plugin
   * unloaded. Not called on an empty state.
   */
  migrate?(state: PluginState, from: number): void;
}

/** What a **plan** method is told about the run it plans. */
export interface RunContext {
  readonly container: string;
  readonly run: string;
  readonly instance: string;
  /** Absolute path of the run's folder; its `rootfs` is an empty folder to mount on. */
  readonly runFolder: string;
  /** Is this only shown (`--explain`)? Then nothing may be looked up that needs root. */
  readonly explain: boolean;
  /** Of an OCI bundle whose caller is somebody else's engine. */
  readonly bundle?: BundleContext;
}
export interface BundleContext {
  /** Its folder. */
  readonly path: string;
  /** `--no-new-keyring`, `--no-pivot`. */
  readonly noNewKeyring: boolean;
  readonly noPivot: boolean;
  /** Of a session: groups below the container's own that it is to be in. */
  readonly execCgroups?: readonly string[];
}

/** Names of registers shared between plugins. A plugin's own registers start with its name and a dot. */
export const REGISTER = {
  /** O_PATH fd of the container's root, from slot `init.rootfs` on. Set by the core's storage adapter. */
  rootfs: 'rootfs',
  /** Private procfs handle, from `init.mounts` on; in a session after `exec.limits`, when its process has an `apparmorProfile` or an `oomScoreAdj`. */
  proc: 'proc',
  /** The container's devpts instance (folder fd), from `init.mounts` on. */
  devpts: 'devpts',
  /** pid and pidfd of init in the shim, after `shim.spawn`. */
  init: 'init',
  initPidfd: 'init.pidfd',
  uid: 'uid', gid: 'gid', groups: 'groups',
  /** A user namespace with the maps of the container's, for idmapMount, from `stage.mounts` on; set by the core where the container has one of its own. */
  userns: 'userns',
} as const;

export type Steps = readonly Step[];

export { checkIdMap, idMapText, MAX_ID_MAPPINGS } from './id-maps.ts';
export * from './mounts.ts';
export { readMounts } from './mountinfo.ts';
export * from './idmap.ts';
export * from './staging.ts';
export * from './trees.ts';
export { reach, reachOwn, REACH_PATIENCE } from './reach.ts';
export { addressBytes } from './addresses.ts';
export { within } from './within.ts';
