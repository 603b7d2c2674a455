import { type DriverDeps, type Driver, type StateSchema } from '../contracts/common/index.ts';
import { type StorageDriver } from '../contracts/storage/index.ts';
import { type CgroupDriver } from '../contracts/cgroup/index.ts';
import { type NetworkDriver } from '../contracts/network/index.ts';
import { type IpamDriver } from '../contracts/ipam/index.ts';
import { type FirewallDriver } from '../contracts/firewall/index.ts';
import { type DnsDriver } from '../contracts/dns/index.ts';
import { type SecurityDriver } from '../contracts/security/index.ts';
import { type LogDriver } from '../contracts/log/index.ts';
import { type VolumeDriver } from '../contracts/volume/index.ts';
import { type CheckpointDriver } from '../contracts/checkpoint/index.ts';
import { type ImageSource } from '../contracts/image/index.ts';
import { type Frontend } from '../contracts/frontend/index.ts';
import { type HookName, type TapFunction } from '../hooks/declare.ts';
import { type Engine } from '../api/engine.ts';
import { type ContainerRecord, type RestartView } from '../api/types.ts';

/** Contracts and what implements them. */
export interface Contracts {
  storage: StorageDriver; cgroup: CgroupDriver; network: NetworkDriver; security: SecurityDriver;
  ipam: IpamDriver; firewall: FirewallDriver; dns: DnsDriver;
  log: LogDriver; volume: VolumeDriver; image: ImageSource; checkpoint: CheckpointDriver; frontend: Frontend;
}
export type ContractName = keyof Contracts;
/** `one`: exactly one per container; `many`: several loaded, chosen by name; `stacked`: all chosen take part. */
export const contractKinds = {
  storage: 'one', cgroup: 'one', network: 'many', ipam: 'one', firewall: 'one', dns: 'one', security: 'stacked', log: 'many', volume: 'many', image: 'many', checkpoint: 'one', frontend: 'many',
} as const satisfies Record<ContractName, 'one' | 'many' | 'stacked'>;

/** The `engine` block of a plugin's package.json: data, checked before any of its code is loaded. */
export interface PluginManifest {
  readonly name: string;
  readonly version: string;
  /** Entry, relative to package.json; its default export is a {@link PluginDefinition}. */
  readonly main: string;
  readonly provides?: readonly { readonly contract: ContractName; readonly driver: string; readonly features?: readonly string[] }[];
  /** Things it needs handed in besides the basics. */
  readonly requires?: readonly ('machine' | 'state' | 'engine')[];
  /** Sections of the OCI spec that it compiles, as dotted paths (`linux.seccomp`, `mounts`, `process.capabilities`). */
  readonly sections?: readonly string[];
  /** Hooks that it taps besides providing drivers: it is then created with the engine, not when a driver of its is first needed. */
  readonly taps?: readonly HookName[];
  /** Barrier handlers it has. */
  readonly handlers?: readonly string[];
  /** Module, relative to package.json, whose default export is a {@link ServiceDefinition}: what must be there while no engine is (names, rules that vanish). */
  readonly service?: string;
  /**
   * Its drivers, its taps on the hooks of creation and run and its barrier handlers answer by what they are given, their options and the machine alone, and only by operations:
   * the plan of a request that comes again within a second is then not asked for again, and a barrier may be answered before anybody has asked for the container.
   */
  readonly repeatable?: boolean;
  /** JSON Schema of `options.<name>` in .enginerc. */
  readonly options?: object;
  /** Semver range of @engine/core it works with (peerDependencies). */
  readonly core?: string;
}

/** What `create` gets. */
export interface PluginContext<Options = unknown> extends DriverDeps {
  readonly manifest: PluginManifest;
  /** Validated against the manifest's schema, defaults filled in. */
  readonly options: Options;
  readonly tap: TapFunction;
  /** With `requires: ["engine"]`: the engine, once every plugin is ready. */
  readonly engine?: () => Promise<Engine>;
}

/** Runs in the engine while the shim waits at a barrier; may return operations for slot `init.netns`. `pid`: of init; of the shim itself when the barrier stands before init's birth. */
export type BarrierHandler = (request: { readonly input: unknown; readonly pid: number; readonly signal: AbortSignal }) => Promise<readonly import('../plan/types.ts').Step[] | void>;

/** What a plugin is once created. */
export interface PluginInstance {
  /** The drivers, one per `provides` entry, each with that entry's name. */
  readonly drivers?: readonly Driver[];
  readonly handlers?: Readonly<Record<string, BarrierHandler>>;
  /** Why an engine must stay, see System.needed. Asked often: answers from memory. */
  needed?(): readonly string[];
  /** For the plugin that starts containers again: what is to be shown of one. Synchronous; asked for containers with a restart policy. */
  restarts?(container: ContainerRecord, running: boolean): RestartView | undefined;
  /** As Driver.ociFeatures, for what is no driver's. */
  ociFeatures?(): Readonly<Record<string, unknown>>;
  /** Asynchronous work belongs here, not in create. */
  start?(): Promise<void>;
  stop?(): Promise<void>;
}
export interface PluginDefinition<Options = unknown> {
  /** The shape of `context.state`, for plugins that ever changed it. State written by a newer version of the plugin keeps it from loading. */
  readonly state?: StateSchema;
  /** Synchronous and without effects. */
  create(context: PluginContext<Options>): PluginInstance;
}
/**
 * A plugin's part of the keeper: one small process per runRoot that outlives engines, starts with the first network that needs it, and ends when nothing runs any more. It may
 * end at any time and be started again: all it knows it reads from its folder, which operations write.
 */
export interface ServiceDefinition<Options = unknown> {
  /**
   * Resolves when it serves. Another one of the same plugin may still be at work: when the program is replaced, the new one begins before the old one stops. A throw, here or later,
   * has it started again. `needed`: why the keeper must stay although nothing runs; asked often.
   */
  start(context: ServiceContext<Options>): Promise<{ stop(): Promise<void>; needed?(): readonly string[] }>;
}
export interface ServiceContext<Options = unknown> extends Pick<DriverDeps, 'log' | 'instance' | 'serviceFolder'> {
  readonly options: Options;
  /** The engine's own, for a service that has to know what else runs. */
  readonly runRoot: string;
  /** To be called when sockets that wait for anybody were opened or closed: they are held for the next keeper, should this one be killed. */
  socketsChanged?(): void;
}
export function defineService<Options = unknown>(definition: ServiceDefinition<Options>): ServiceDefinition<Options> {
  return definition;
}
/** Types `create`; returns its argument. */
export function definePlugin<Options = unknown>(definition: PluginDefinition<Options>): PluginDefinition<Options> {
  return definition;
}
