import { type ImageConfig, type ImageInfo, type ImageRootfs } from '../contracts/image/index.ts';
import { type IdMapping, type LinuxResources, type Mount, type Process, type Spec } from '../spec/index.ts';
import { type Slot } from '../plan/slots.ts';
import { type OperationName, type Operation, type UndoArgument, type PlannedStep } from '../plan/types.ts';
import { type Endpoint, type NetworkRecord } from '../contracts/network/index.ts';
import { type ContainerStats, type NetworkInfo } from '../api/engine.ts';
import { type RunContext } from '../contracts/common/index.ts';
import { type ContainerRecord, type ContainerRequest, type ContainerView, type EngineEvent, type ExitRecord, type VerbRequest } from '../api/types.ts';
import { type ExecRequest } from '../api/engine.ts';
import { type Logger } from 'pino';
import { type PluginRecord } from './records.ts';

/** How a hook calls its taps, and what a throw does. */
export type HookKind = 'series' | 'waterfall' | 'notification';

/**
 * Every lifecycle hook, declared once. Names and kinds are a contract with third parties.
 *
 * kind `series`: taps run one after another; a throw stops the verb and what was done is undone (fail closed).
 * kind `waterfall`: each tap gets what the one before returned (undefined = unchanged); a throw stops the verb.
 * kind `notification`: every tap is called, throws are logged and collected (fail open); may come late or twice.
 */
export const hookTable = {
  configResolved: { kind: 'series', when: 'the configuration is known, before any driver is started' },
  pluginsReady: { kind: 'series', when: 'every plugin has been created and started; from now on the hooks are sealed' },
  request: { kind: 'series', when: 'before every verb: policy and authorisation on the normalised request as it will be executed' },
  compile: { kind: 'waterfall', when: 'a request becomes an OCI spec, once, when a container is made (not for OCI bundles)' },
  create: { kind: 'series', when: 'a container comes into being: its spec is known, nothing is on disk yet' },
  configure: { kind: 'waterfall', when: 'before each run: edit the OCI spec (not for OCI bundles)' },
  prepareRootfs: { kind: 'series', when: 'what / is made of: operations in slots rootfs and mounts' },
  createNamespaces: { kind: 'series', when: 'namespaces to make or join, id maps' },
  applyLimits: { kind: 'series', when: 'cgroup and limits, in force before user code runs' },
  attachNetwork: { kind: 'series', when: 'endpoints, names, ports' },
  networksChanged: { kind: 'waterfall', when: 'a running container comes to a network or leaves one: what becomes of its hosts and resolv.conf' },
  beforeStart: { kind: 'series', when: 'last look: the finished plan, read-only, with origins; a throw refuses the run' },
  compileExec: { kind: 'waterfall', when: 'somebody wants a session in a running container: what it asks for becomes a process of the spec' },
  exec: { kind: 'series', when: 'a session in a running container is planned' },
  pause: { kind: 'series', when: 'before a container is frozen' },
  resume: { kind: 'series', when: 'before a container is thawed by unpause; a stop or kill of one that is paused thaws it without' },
  compileUpdate: { kind: 'waterfall', when: 'somebody wants other limits for a container: what it asks for becomes resources of the spec' },
  update: { kind: 'series', when: 'before the limits or the restart policy of a container change' },
  stats: { kind: 'waterfall', when: 'numbers of a running container are collected' },
  inspect: { kind: 'waterfall', when: 'somebody wants to see all that is known of a container, an image or a network: what frontends show of it' },
  checkpoint: { kind: 'series', when: 'before a container is dumped' },
  stop: { kind: 'notification', when: 'somebody asks a container to end (stop, kill, restart), before the signal; also when it does not run' },
  exited: { kind: 'notification', when: 'a run has ended: exit status and OOM truth' },
  postExitCleanup: { kind: 'notification', when: 'the undo of a run is done; taps run in reverse order, failures are collected' },
  remove: { kind: 'series', when: 'a container is about to be removed' },
  event: { kind: 'notification', when: 'any change of a container, image, network or volume; numbered' },
  reconcile: { kind: 'notification', when: 'at start, after what crashed has been undone' },
  shutdown: { kind: 'notification', when: 'the engine process is about to end' },
} as const satisfies Record<string, { kind: HookKind; when: string }>;

export type HookName = keyof typeof hookTable;

/** What every tap gets besides the hook's own value. Made fresh for each tap, so that it can name its plugin. */
export interface TapContext {
  readonly plugin: string;
  readonly hook: HookName;
  readonly log: Logger;
  /** Fires when the tap's deadline has passed. */
  readonly signal: AbortSignal;
}

/** For hooks about a container. */
export interface RecordHookContext extends TapContext {
  /** What this plugin keeps with the container; can be set in `create` only. */
  readonly record: PluginRecord;
}

/** Lets a tap add operations to the plan; the origin is filled in by the core. */
export interface PlanWriter {
  add<S extends Slot, N extends OperationName>(slot: S, operation: Operation<N>, ...undo: UndoArgument<S, N>): void;
  /** `pointer`: the JSON pointer of the spec that following operations compile. */
  at(pointer: string): PlanWriter;
}

/** For the hooks of a run. */
export interface RunHookContext extends TapContext {
  /** What this plugin keeps with the container; what is set is committed when the run has started. */
  readonly record: PluginRecord;
  readonly container: ContainerRecord;
  readonly run: RunContext;
  /** Deep-frozen. */
  readonly spec: Spec;
  readonly plan: PlanWriter;
}

/** What is known of a container that is about to be made; plain data. */
export interface CompileFacts {
  readonly id: string;
  readonly request: ContainerRequest;
  readonly imageConfig: ImageConfig;
  readonly rootfs: ImageRootfs;
  /** `source`: the host folder of the volume; `idmap`: show it with the container's own ids. */
  readonly volumes: readonly { readonly target: string; readonly source: string; readonly readonly: boolean; readonly idmap?: boolean; readonly propagation?: string }[];
  /** What the network driver says the network namespace is. */
  readonly network: 'new' | 'host' | 'container';
  /** For `container:`: the hostname that goes with the shared network. */
  readonly sharedHostname?: string;
  /** The host folder in which `files` will lie; that of the other container when its network is shared. */
  readonly folder: string;
  readonly cgroupMounts: readonly Mount[];
  /** Fields of `linux.resources` that the cgroup driver can limit. */
  readonly resources: readonly string[];
  /** Absent: the ids of the host. */
  readonly ids?: { readonly uidMappings: readonly IdMapping[]; readonly gidMappings: readonly IdMapping[] };
  /** Default size of /dev/shm, bytes. */
  readonly shmSize?: number;
}
/** A spec in the making. */
export interface Compiled {
  readonly facts: CompileFacts;
  readonly spec: Spec;
  /** Files of the container to be written into `facts.folder`, for mounts of the spec: name and content. */
  readonly files: Readonly<Record<string, string>>;
}

/** Where a container is to be connected in this run; nothing of it with a mode such as `none`. */
export interface Attachment {
  readonly endpoints: readonly Endpoint[];
  readonly networks: readonly NetworkRecord[];
  /** Name servers of these networks; empty: those of the host. */
  readonly resolvers: readonly string[];
  /** Host folder of the container: its `hosts` and `resolv.conf` lie there. */
  readonly folder: string;
}

/** A running container, before and after the change. `files`: `hosts` and `resolv.conf` as they are now, to be returned as they shall be. */
export interface NetworksChanged {
  readonly container: ContainerRecord;
  readonly before: Attachment;
  readonly after: Attachment;
  readonly files: Readonly<Record<string, string>>;
}

/** The process of a session, in the making. It begins as the container's own with the arguments, the terminal and the user that are asked for. */
export interface CompiledExec {
  /** The container's own process. */
  readonly own: Process;
  readonly request: ExecRequest;
  readonly process: Process;
}

/** Limits of a container, in the making. They begin as what it has with `changes` over it, and the resources as they are. */
export interface CompiledUpdate {
  readonly container: ContainerRecord;
  readonly changes: ContainerRequest['limits'];
  /** Fields of `linux.resources` that its cgroup driver can limit. */
  readonly honoured: readonly string[];
  readonly limits: ContainerRequest['limits'];
  readonly resources: LinuxResources;
}
export interface CollectedStats { readonly container: ContainerRecord; readonly stats: ContainerStats }

/** What is known of an object that somebody looks at. `folder`: of the container; `size`: bytes that it has written, when asked for. */
export type InspectFacts =
  | { readonly kind: 'container'; readonly view: ContainerView; readonly networks: readonly NetworkRecord[]; readonly folder: string; readonly size?: number }
  | { readonly kind: 'network'; readonly info: NetworkInfo }
  | { readonly kind: 'image'; readonly image: ImageInfo; readonly architecture: string };
/** What is to be shown, in the making. It begins with `Engine`: what no other engine has. */
export interface Inspected {
  readonly facts: InspectFacts;
  readonly json: Record<string, unknown>;
}

/** Argument of each hook, after the context. */
export interface HookValues {
  configResolved: { readonly config: unknown };
  pluginsReady: Record<string, never>;
  request: VerbRequest;
  compile: Compiled;
  create: { readonly container: ContainerRecord };
  configure: Spec;
  prepareRootfs: Record<string, never>;
  createNamespaces: Record<string, never>;
  applyLimits: Record<string, never>;
  attachNetwork: Attachment;
  networksChanged: NetworksChanged;
  beforeStart: { readonly steps: readonly PlannedStep[] };
  compileExec: CompiledExec;
  exec: { readonly session: number; readonly args: readonly string[] };
  pause: { readonly container: ContainerRecord };
  resume: { readonly container: ContainerRecord };
  compileUpdate: CompiledUpdate;
  update: { readonly container: ContainerRecord };
  stats: CollectedStats;
  inspect: Inspected;
  checkpoint: { readonly container: ContainerRecord };
  /** `run`: the one that is to end; absent when none is there. */
  stop: { readonly container: ContainerRecord; readonly verb: 'stop' | 'kill' | 'restart'; readonly signal: number; readonly run?: string };
  exited: { readonly container: ContainerRecord; readonly exit: ExitRecord };
  postExitCleanup: { readonly container: ContainerRecord; readonly failures: readonly string[] };
  remove: { readonly container: ContainerRecord };
  event: EngineEvent;
  reconcile: { readonly undone: readonly string[] };
  shutdown: Record<string, never>;
}
/** Hooks whose taps get a {@link RunHookContext}. */
export type RunHook = 'configure' | 'prepareRootfs' | 'createNamespaces' | 'applyLimits' | 'attachNetwork' | 'beforeStart' | 'exec';
/** Hooks whose taps get a {@link RecordHookContext}. */
export type RecordHook = 'create' | 'exited' | 'postExitCleanup' | 'remove';
export type ContextOf<H extends HookName> = H extends RunHook ? RunHookContext : H extends RecordHook ? RecordHookContext : TapContext;
export type Tap<H extends HookName> = (context: ContextOf<H>, value: HookValues[H]) =>
  (typeof hookTable)[H]['kind'] extends 'waterfall' ? HookValues[H] | undefined | void | Promise<HookValues[H] | undefined | void> : void | Promise<void>;

export interface TapOptions<H extends HookName = HookName> {
  /** Unique per hook; default the plugin's name. */
  readonly name?: string;
  /** Run before the tap of this name; unknown names are an error. */
  readonly before?: string;
  /** Milliseconds until `signal` fires and the tap is reported; default 10000. */
  readonly deadline?: number;
  /** Is this tap concerned? Must only look, and at once: it gets what nobody has copied yet. When no tap is, the hook costs nothing. */
  when?(value: HookValues[H]): boolean;
}
export type TapFunction = <H extends HookName>(hook: H, tap: Tap<H>, options?: TapOptions<H>) => void;
