import { type Bundles } from './bundles.ts';
import { type ContainerRecord, type ContainerRequest, type ContainerState, type ContainerView, type ExitRecord } from './types.ts';
import { type HistoryEntry, type ImageInfo, type Progress } from '../contracts/image/index.ts';
import { type Change } from '../contracts/storage/index.ts';
import { type GroupStats } from '../contracts/cgroup/index.ts';
import { type LogLine, type ReadLogOptions } from '../contracts/log/index.ts';
import { type ContractName, type PluginManifest } from '../plugin/index.ts';
import { type Machine, type Probe } from '../contracts/common/index.ts';
import { type WishedPool } from '../contracts/ipam/index.ts';
import { type Endpoint, type EndpointWish, type NetworkRecord, type PortMapping } from '../contracts/network/index.ts';
import { type PlannedStep } from '../plan/types.ts';

/**
 * What the core offers to frontends: one method per verb. References (`ref`) are a name, a full id or an unambiguous prefix of one.
 * Every method throws `EngineError`s and leaves the state before or the state after.
 */
export interface Engine {
  readonly containers: Containers;
  readonly images: Images;
  readonly volumes: Volumes;
  readonly networks: Networks;
  readonly system: System;
  readonly bundles: Bundles;
  /** Run notifications, close files. Containers go on. */
  close(): Promise<void>;
}

export interface Containers {
  /**
   * Journalled; nothing runs yet. Returns the record; warnings go to `onWarning`. With `thenStart` the caller is about to start it: a
   * container with `autoRemove` whose caller dies before is removed, as it would be after its run.
   */
  create(request: ContainerRequest, options?: { onWarning?(text: string): void; readonly thenStart?: boolean }): Promise<ContainerRecord>;
  /**
   * create and start in one: fewer steps for a container that goes with its run (`autoRemove`). `onCreated` is called with the id before anything runs.
   * Errors: those of both; with `autoRemove` nothing is left then.
   */
  run(request: ContainerRequest, options?: StartOptions & { onCreated?(id: string): void }): Promise<Session>;
  /**
   * Make a sandbox for such a `run` to come: it has run all that does not depend on program and user. A later `run` whose plan begins in the same way
   * goes on in it. False: no sandbox can be made for it (it has volumes, or a plugin wants to be asked each time). Hooks of a container that is prepared
   * are called now, and for some it stays at that.
   */
  prepare(request: ContainerRequest, options?: Pick<StartOptions, 'attach' | 'windowSize'> & { readonly tag?: string }): Promise<boolean>;
  /** Remove the sandboxes that nobody has used; `idle`: only those older than so many ms; `tag`: only those. The tags of those that are left. */
  release(options?: { readonly idle?: number; readonly tag?: string }): Promise<{ readonly ready: readonly string[] }>;
  /**
   * Compile, write down, hand to a shim. Resolves when the user's program has been exec'd (the plan's failure is thrown, after its undo).
   * With `attach`, the streams are connected before the program starts, so nothing is lost.
   */
  start(ref: string, options?: StartOptions): Promise<Session>;
  /** stop and start again; a container that doesn't run is started. Counts as no automatic restart. */
  restart(ref: string, options?: { timeout?: number; signal?: string }): Promise<void>;
  /** The plan that `start` of such a container would run, with origins; runs nothing, makes nothing, needs no root where the spec allows. */
  explain(request: ContainerRequest): Promise<{ readonly steps: readonly PlannedStep[]; readonly bytes: Uint8Array }>;
  attach(ref: string, streams: AttachStreams, options?: { readonly client?: number }): Promise<Session>;
  exec(ref: string, request: ExecRequest): Promise<Session>;
  /** stopSignal, then SIGKILL after `timeout` seconds (default the container's, 10); resolves when the run's undo is done. Not running: success. */
  stop(ref: string, options?: { timeout?: number; signal?: string }): Promise<void>;
  kill(ref: string, signal: string): Promise<void>;
  /** Freeze all of its processes; stop and kill let them go. Errors: ERR_NOT_RUNNING, ERR_PAUSED when it is paused already, ERR_FEATURE_MISSING. */
  pause(ref: string): Promise<void>;
  /** Errors: ERR_NOT_RUNNING, ERR_NOT_PAUSED. */
  unpause(ref: string): Promise<void>;
  /**
   * Change what can be changed of a container, running or not: at once, and for every run to come. Limits that are not named stay; `pids`, `cpuQuota` and `memorySwap` are
   * lifted with -1, a rate of a device with 0. Errors: ERR_INVALID_VALUE with the same words as create, and for a limit below what is in use; nothing is changed then.
   */
  update(ref: string, changes: { readonly restart?: NonNullable<ContainerRequest['restart']>; readonly limits?: ContainerRequest['limits'] }): Promise<void>;
  /** One look at what it uses: counters, of which two looks make a rate. */
  stats(ref: string): Promise<ContainerStats>;
  /** Pids, on the host, of all its processes. Errors: ERR_NOT_RUNNING. */
  top(ref: string): Promise<readonly number[]>;
  remove(ref: string, options: { force: boolean; volumes: boolean }): Promise<void>;
  /** Resolves with the exit record of the current or the last run. `condition` as Docker's. */
  wait(ref: string, condition?: 'not-running' | 'next-exit' | 'removed', signal?: AbortSignal): Promise<ExitRecord>;
  resolve(ref: string): Promise<ContainerView>;
  list(options: { all: boolean }): Promise<readonly ContainerView[]>;
  logs(ref: string, options: ReadLogOptions): AsyncIterable<LogLine>;
  /** A added, C changed, D deleted; sorted by path. */
  diff(ref: string): Promise<readonly Change[]>;
  /** What the taps on hook `inspect` make of it (spec-docker: what `docker inspect` prints), with an `Engine` object for what is ours. */
  inspect(ref: string, options?: { size?: boolean }): Promise<Record<string, unknown>>;
}

/** `at`: when it was read, CLOCK_MONOTONIC in ns. Of a container that does not run, all counters are missing. */
export interface ContainerStats {
  readonly id: string;
  readonly name: string;
  readonly state: ContainerState;
  readonly time: string;
  readonly at: number;
  readonly group: GroupStats;
  /** Of its own network namespace; none with the host's. */
  readonly interfaces: readonly InterfaceStats[];
  /** What taps on `stats` add. */
  readonly more: Readonly<Record<string, number>>;
}
export interface InterfaceStats {
  readonly name: string;
  readonly rxBytes: number; readonly rxPackets: number; readonly rxErrors: number; readonly rxDropped: number;
  readonly txBytes: number; readonly txPackets: number; readonly txErrors: number; readonly txDropped: number;
}

export interface StartOptions {
  readonly attach?: AttachStreams;
  onWarning?(text: string): void;
  readonly windowSize?: WindowSize;
  /** A connected stream socket: whoever has its other end gets the streams (frames of the shim's protocol) instead of the Session. Taken over: closed in any case. */
  readonly client?: number;
  /** Receives what took how long, see {@link Span}. */
  readonly trace?: (span: Span) => void;
}
/** Something that took time. `begin`, `end`: CLOCK_MONOTONIC in ns, as process.hrtime.bigint() gives it. */
export interface Span {
  readonly name: string;
  /** Who did it: engine (a verb's phase), hook, tap, driver, operation. */
  readonly kind: 'engine' | 'hook' | 'tap' | 'driver' | 'operation';
  /** Of the process or thread that did it: `engine`, `shim`, `init`, `stage`, `after`, `helper`. */
  readonly track: string;
  readonly begin: bigint;
  readonly end: bigint;
  /** Plain text: plugin, slot, path … */
  readonly details?: Readonly<Record<string, string>>;
}
export interface AttachStreams { stdin: boolean; stdout: boolean; stderr: boolean }
export interface WindowSize { rows: number; cols: number }
export interface ExecRequest {
  args: string[];
  env: string[];
  user?: string;
  workdir?: string;
  terminal: boolean;
  openStdin: boolean;
  attach: AttachStreams;
  privileged: boolean;
  detached: boolean;
  windowSize?: WindowSize;
  /** As {@link StartOptions.client}. */
  client?: number;
}

/** A connection to the streams of init or of an exec session. */
export interface Session {
  readonly container: string;
  readonly pid: number;
  /** Of the shim's protocol: 0 is init. */
  readonly number: number;
  /** Output in the order it came; iterate once. Ends after the exit or a detach. */
  readonly output: AsyncIterable<{ readonly stream: 'stdout' | 'stderr'; readonly data: Buffer }>;
  /** Resolves when the bytes have been handed to the kernel: respects the container's reading speed. */
  write(data: Uint8Array): Promise<void>;
  endInput(): void;
  resize(size: WindowSize): void;
  signal(signal: number): void;
  detach(): void;
  /** The exit of the session's program; for init also recorded. Rejects with ERR_SHIM_GONE when the shim died. */
  readonly exit: Promise<ExitRecord>;
  /** Resolves when the undo is done and recorded, and the container removed when it was `--rm`. */
  readonly gone: Promise<void>;
}

export interface Images {
  list(): Promise<readonly ImageInfo[]>;
  resolve(ref: string): Promise<ImageInfo>;
  load(options: { path?: string; stream?: NodeJS.ReadableStream; progress?: Progress; signal?: AbortSignal }): Promise<readonly ImageInfo[]>;
  import(options: { path?: string; stream?: NodeJS.ReadableStream; reference?: string; changes: readonly string[]; message?: string; progress?: Progress; signal?: AbortSignal }): Promise<ImageInfo>;
  tag(ref: string, name: string): Promise<void>;
  remove(ref: string, options: { force: boolean }): Promise<readonly string[]>;
  history(ref: string): Promise<readonly HistoryEntry[]>;
  inspect(ref: string): Promise<Record<string, unknown>>;
}

export interface VolumeInfo { readonly name: string; readonly driver: string; readonly mountpoint: string; readonly created: string; readonly labels: Readonly<Record<string, string>>; readonly options: Readonly<Record<string, string>>; readonly anonymous: boolean }
export interface Volumes {
  create(request: { name?: string; driver?: string; labels: Record<string, string>; options: Record<string, string> }): Promise<VolumeInfo>;
  list(): Promise<readonly VolumeInfo[]>;
  inspect(name: string): Promise<VolumeInfo>;
  /** Errors: ERR_IN_USE names the containers. */
  remove(name: string, options: { force: boolean }): Promise<void>;
}

export interface NetworkRequest {
  name: string;
  /** `bridge` when absent. */
  driver?: string;
  /** One per family at most; what is missing is chosen. */
  pools: WishedPool[];
  internal: boolean;
  ipv6: boolean;
  labels: Record<string, string>;
  options: Record<string, string>;
}
/** `containers`: those with an endpoint now. */
export interface NetworkInfo { readonly record: NetworkRecord; readonly containers: readonly { readonly id: string; readonly name: string; readonly endpoint?: Endpoint }[] }
export interface Networks {
  /** Errors: ERR_NAME_TAKEN, ERR_SUBNET_TAKEN, ERR_INVALID_VALUE; nothing is left of one that failed. */
  create(request: NetworkRequest): Promise<NetworkInfo>;
  list(): Promise<readonly NetworkInfo[]>;
  /** By name, id, or a prefix of its id. Errors: ERR_NO_SUCH_NETWORK, ERR_AMBIGUOUS. */
  resolve(ref: string): Promise<NetworkInfo>;
  /** What the taps on hook `inspect` make of it. */
  inspect(ref: string): Promise<Record<string, unknown>>;
  /** Errors: ERR_IN_USE names the containers; ERR_INVALID_VALUE for a predefined one. */
  remove(ref: string): Promise<NetworkRecord>;
  /** Those without containers; predefined ones only when `predefined` says so (they are made again when they are needed, with the drivers that are configured then). Their names. */
  prune(options: { filter?(network: NetworkRecord): boolean; readonly predefined?: boolean }): Promise<readonly string[]>;
  /** Running or not. Errors: ERR_NAME_TAKEN when it is on it already. */
  connect(ref: string, container: string, wish: Omit<EndpointWish, 'network'>): Promise<void>;
  disconnect(ref: string, container: string, options: { force: boolean }): Promise<void>;
  /** Who can reach this port of the host, and by which rule: a line each. Errors: ERR_NO_SUCH_PORT when nothing of this engine has it (names who does). */
  why(port: number, protocol?: PortMapping['protocol']): Promise<readonly string[]>;
}

export interface DriverReport { readonly contract: ContractName; readonly driver: string; readonly plugin: string; readonly probe: Probe; readonly chosen: boolean }
export interface Orphan { readonly kind: string; readonly path: string; readonly owner: string; readonly fixed: boolean }
/**
 * One feature of a kernel: is it there, who uses it and what for, and what is done without it. `since`: first release of mainline that has it, `5.19`. `byVersion`: the kernel was not
 * asked, its version says so. `used`: something would use it on this machine.
 */
export interface KernelFeatureReport { readonly name: string; readonly since: string; readonly users: readonly string[]; readonly use: string; readonly without: string; readonly there: boolean; readonly byVersion: boolean; readonly used: boolean }
/** `oldest`: the oldest kernel that is promised. `facts`: how the machine is set up, in words: `cgroups`, `AppArmor` … */
export interface KernelReport { readonly release: string; readonly oldest: string; readonly facts: readonly { readonly name: string; readonly text: string }[]; readonly features: readonly KernelFeatureReport[] }
export interface System {
  readonly machine: Machine;
  /** Why an engine has to stay, in words, one reason each: what plugins will have to do without anybody asking. Empty: nothing is lost when it goes. */
  needed(): readonly string[];
  /** Counts, roots, drivers, versions. */
  info(): Promise<Record<string, unknown>>;
  plugins(): readonly { readonly manifest: PluginManifest; readonly builtin: boolean; readonly source: string }[];
  /**
   * Look after every run of this root that nobody in this process looks after: watched to its end and collected then, as by the engine that started it.
   * What ended without an engine is collected now. Returns what was done, in words. Stays in force until `close`.
   */
  supervise(): Promise<readonly string[]>;
  /** Every driver: available or not and why, and what `auto` picks; what the kernel has (where the host tells); orphans found, and removed with `fix`. */
  doctor(options: { fix: boolean }): Promise<{ readonly drivers: readonly DriverReport[]; readonly orphans: readonly Orphan[]; readonly ids: readonly IdReport[]; readonly kernel?: KernelReport }>;
}
/** Ids of the host that `--userns=auto` gives out: how many there are, from where, and who has them. */
export interface IdReport { readonly kind: 'uid' | 'gid'; readonly source: string; readonly ids: number; readonly leased: number; readonly containers: number }
