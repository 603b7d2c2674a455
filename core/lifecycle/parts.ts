import { type Logger } from 'pino';
import { type Hooks } from '../hooks/index.ts';
import { type Native } from '../native/index.ts';
import { type State } from '../state/index.ts';
import { type Driver, type Machine, type Probe } from '../contracts/common/index.ts';
import { type BarrierHandler, type ContractName, type Contracts, type PluginInstance, type PluginManifest } from '../plugin/index.ts';
import { type ContainerRecord, type DriverChoice, type RestartView } from '../api/types.ts';

/** A plugin whose manifest was read; its code may not be loaded yet. */
export interface PluginEntry {
  readonly manifest: PluginManifest;
  readonly builtin: boolean;
  /** The package or file that it comes from, for messages. */
  readonly source: string;
  /** Digest of its validated options, kept with every container it makes. */
  readonly optionsDigest: string;
  /** Load and create it when the engine is made: plugins that tap hooks. Drivers alone are loaded when they are first needed. */
  readonly eager: boolean;
  /** Import, `create`. Called at most once. Errors: ERR_PLUGIN_INVALID, ERR_PLUGIN_FAILED. */
  load(): Promise<PluginInstance>;
}

/** Which drivers serve new objects. Later verbs use what an object's record says. */
export interface DriverChoices {
  /** A driver's name, or `auto`: the available one with the highest score. */
  readonly storage: string;
  readonly cgroup: string;
  readonly log: string;
  readonly volume: string;
  readonly ipam: string;
  readonly firewall: string;
  readonly dns: string;
  readonly checkpoint: string;
  /** Names, in the order in which they configure and compile; `auto`: all that are available. */
  readonly security: 'auto' | readonly string[];
}

export interface EngineDefaults {
  /** What `--network default` (or none given) means: a mode such as `none`, `host`, a network's name. */
  readonly network: string;
  readonly logOptions: Readonly<Record<string, string>>;
  /** `--userns` of who says nothing; host when absent. */
  readonly userns?: string;
  /** Bytes of /dev/shm; 64 MiB when absent. */
  readonly shmSize?: number;
  /** Seconds between stopSignal and SIGKILL; 10 when absent. */
  readonly stopTimeout?: number;
}

/** What the composition root hands to {@link createEngine}. */
export interface EngineParts {
  readonly state: State;
  /** Not sealed yet: createEngine taps for the contracts, then calls `pluginsReady` and seals. */
  readonly hooks: Hooks;
  readonly native: Native;
  readonly machine: Machine;
  readonly log: Logger;
  /** Every known plugin, in the order of the configuration. */
  readonly plugins: readonly PluginEntry[];
  readonly choices: DriverChoices;
  readonly defaults: EngineDefaults;
  readonly config: {
    /** Sources the configuration came from. */
    readonly sources: readonly string[];
    /** The result, as plain data, for `configResolved` and info. */
    readonly result: unknown;
  };
  /** On whose behalf the running verb acts; default: this process. */
  caller?(): { readonly uid: number; readonly pid: number };
  /** What a shim is to start when it ends with no engine at its control connection, so that its run is collected. */
  wake?(container: ContainerRecord): readonly string[] | undefined;
  /** Without root nothing can be undone: runs are explained, as root would run them, and what an earlier engine left is for root to end. */
  readonly explainOnly?: boolean;
  /** This process serves one command: what is due after the end of a run is for the one whom the shim wakes. */
  readonly passing?: boolean;
  /** Have the services of plugins run (PluginManifest.service). Asked at every start on a network: microseconds when they do; else resolves when they do. Never throws. */
  keep?(): void | Promise<void>;
  /** Version of the product, for info. */
  readonly version: string;
  /** Barrier handlers and drivers see this as "now"; tests set it. Default: the clock. */
  now?(): Date;
  /** Extra environment of shims; tests only. */
  readonly shimEnv?: Readonly<Record<string, string>>;
}

/** A loaded driver with what is recorded of it. */
export interface ResolvedDriver<D extends Driver = Driver> {
  readonly driver: D;
  readonly choice: DriverChoice;
  readonly entry: PluginEntry;
}

/** Contracts of which the configuration chooses one. */
export type ChosenContract = 'storage' | 'cgroup' | 'log' | 'volume' | 'ipam' | 'firewall' | 'dns' | 'checkpoint';

/** Finds and loads drivers, by name or by choice. */
export interface Registry {
  readonly entries: readonly PluginEntry[];
  /** Load the eager plugins and start them. */
  start(): Promise<void>;
  /** The driver `name`. Errors: ERR_DRIVER_UNKNOWN; with `choice` (from a record) ERR_PLUGIN_MISSING names plugin and driver. */
  resolveDriver<C extends ContractName>(contract: C, name: string, choice?: DriverChoice): Promise<ResolvedDriver<Contracts[C]>>;
  /** The driver of a record, when somebody has resolved it already. */
  loaded<C extends ContractName>(contract: C, choice: DriverChoice): Contracts[C] | undefined;
  /** The configured one for contracts with one driver; `auto` by probe. Errors: ERR_DRIVER_UNAVAILABLE with the reasons. */
  chosen<C extends ChosenContract>(contract: C, name?: string): Promise<ResolvedDriver<Contracts[C]>>;
  /** The stacked ones, in order. */
  security(): Promise<readonly ResolvedDriver<Contracts['security']>[]>;
  /** Who serves the mode `--network mode` (`none`, `host`, `container:ID`). Errors: ERR_NO_SUCH_NETWORK. */
  network(mode: string): Promise<ResolvedDriver<Contracts['network']>>;
  /** The driver that makes networks, by its name. Errors: ERR_DRIVER_UNKNOWN, ERR_DRIVER_UNAVAILABLE. */
  networkMaker(name: string): Promise<ResolvedDriver<Contracts['network']>>;
  /** Every driver of a contract, loaded. */
  all<C extends ContractName>(contract: C): Promise<readonly ResolvedDriver<Contracts[C]>[]>;
  /** Every driver there is with its probe; one that can't be loaded is unavailable, with its error as the reason. */
  report(): Promise<readonly { readonly contract: ContractName; readonly driver: string; readonly plugin: string; readonly probe: Probe; readonly chosen: boolean }[]>;
  /** The plugins that are loaded. */
  readonly instances: readonly PluginInstance[];
  /** What the plugin that starts containers again says of this one. */
  restarts(container: ContainerRecord, running: boolean): RestartView | undefined;
  handler(name: string): Promise<{ readonly plugin: string; readonly handler: BarrierHandler }>;
  /**
   * Which plugin compiles which section of the spec, when the drivers of `used` take part: theirs and those of the eager plugins.
   * Errors: ERR_PLUGIN_INVALID when two claim the same.
   */
  sections(used: readonly PluginEntry[]): ReadonlyMap<string, string>;
  stop(): Promise<void>;
}
