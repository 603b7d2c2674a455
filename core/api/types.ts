import { type Spec } from '../spec/index.ts';
import { type Endpoint, type EndpointWish, type PortMapping } from '../contracts/network/index.ts';
import { type DriverChoice } from '../contracts/network/records.ts';
import { type ImageConfig } from '../contracts/image/index.ts';

/** What a user asks for with `create`/`run`, normalised: units in bytes, nanoseconds, names resolved to nothing yet. Plain data. */
export interface ContainerRequest {
  image: string;
  name?: string;
  command?: string[];
  entrypoint?: string[];
  env: string[];
  labels: Record<string, string>;
  user?: string;
  workdir?: string;
  hostname?: string;
  domainname?: string;
  addHosts: string[];
  dns?: string[]; dnsSearch?: string[]; dnsOptions?: string[];
  terminal: boolean;
  openStdin: boolean;
  stdinOnce: boolean;
  /** Which streams the starter attaches. */
  attach: { stdin: boolean; stdout: boolean; stderr: boolean };
  detached: boolean;
  autoRemove: boolean;
  /** `none`, `host`, `container:ID`, or the first network (its name); empty or `default`: what the configuration says. */
  network: string;
  /** With networks: all of them, the first is `network`. Absent: `network` without further wishes. */
  endpoints?: EndpointWish[];
  ports: PortMapping[];
  /** `--expose`, as `80/tcp`. */
  expose?: string[];
  /** `-P`: every port that is exposed, by request or image, on a random port. */
  publishAll?: boolean;
  mounts: MountRequest[];
  tmpfs: { target: string; options: string[] }[];
  readonlyRootfs: boolean;
  init: boolean;
  privileged: boolean;
  capAdd: string[];
  capDrop: string[];
  securityOptions: string[];
  devices: { source: string; target: string; access: string }[];
  deviceCgroupRules: string[];
  rlimits: { name: string; soft: number; hard: number }[];
  sysctls: Record<string, string>;
  shmSize?: number;
  stopSignal?: string;
  stopTimeout?: number;
  /** `no` when absent. `maximum`: for on-failure; 0 is for ever. */
  restart?: { policy: 'no' | 'always' | 'unless-stopped' | 'on-failure'; maximum: number };
  ipc?: string; pid?: string; uts?: string; cgroupns?: string;
  /** `host`, `auto[:size=N,…]`, or maps `CONTAINER:HOST:SIZE[,…]`; absent: what the configuration says. */
  userns?: string;
  /** Only for uids, or gids, where these differ: `CONTAINER:HOST:SIZE` each. */
  uidMaps?: string[]; gidMaps?: string[];
  /** By clock, `monotonic` or `boottime`: how far it is from the host's. */
  timeOffsets?: Record<string, { secs: number; nanosecs: number }>;
  cgroupParent?: string;
  groupAdd: string[];
  oomScoreAdj?: number;
  log: { driver?: string; options: Record<string, string> };
  storageOptions: Record<string, string>;
  limits: { memory?: number; memorySwap?: number; memoryReservation?: number; nanoCpus?: number; cpuShares?: number; cpuPeriod?: number; cpuQuota?: number; cpusetCpus?: string; cpusetMems?: string; pids?: number; oomKillDisable?: boolean; memorySwappiness?: number; blkioWeight?: number;
    cpuRealtimePeriod?: number; cpuRealtimeRuntime?: number;
    /** Of devices of the host, by path. */
    blkioWeightDevice?: { path: string; weight: number }[]; deviceReadBps?: DeviceRate[]; deviceWriteBps?: DeviceRate[]; deviceReadIops?: DeviceRate[]; deviceWriteIops?: DeviceRate[];
    /** `--cgroup-conf`: files of cgroup v2 and what is written to them. */
    unified?: Record<string, string> };
  windowSize?: { rows: number; cols: number };
  /** A prepared OCI bundle instead of an image: its folder. */
  bundle?: string;
  rootfs?: string;
}
export interface DeviceRate { path: string; rate: number }
export interface MountRequest {
  type: 'bind' | 'volume' | 'tmpfs';
  source?: string;
  target: string;
  readonly: boolean;
  propagation?: string;
  /** `-v` makes a missing source, `--mount` refuses it. */
  createSource: boolean;
  noCopy: boolean;
  /** In a user namespace: show the owners as the container's own ids (`idmap`). Volumes below the engine's root are always shown so. */
  idmap?: boolean;
  nonRecursive?: boolean;
  tmpfsSize?: number;
  tmpfsMode?: number;
  volumeDriver?: string;
  volumeOptions?: Record<string, string>;
}

export type { DriverChoice, EndpointWish };

/** A container, as kept. Never says "running": the run's folder alone does. */
export interface ContainerRecord {
  id: string;
  name: string;
  created: string;
  request: ContainerRequest;
  image: { id: string; name: string; source: string };
  /** The image's config at creation. */
  imageConfig: ImageConfig;
  /** Topmost chainID, or the host's filesystems; undefined for a bundle. */
  rootfs: { chainID?: string; filesystems?: { target: string; type: string }[]; hide?: string[]; path?: string; /** Its files have the owners of its user namespace on disk, where no mount can show them so. */ shift?: { uidMap: string; gidMap: string } };
  /** As compiled at creation, before `configure`. */
  spec: Spec;
  drivers: { storage?: DriverChoice; cgroup?: DriverChoice; network?: DriverChoice; log?: DriverChoice; security: DriverChoice[] };
  volumes: { name: string; target: string; driver: string; anonymous: boolean; readonly: boolean; copyUp: boolean }[];
  /** Ranges of the host's ids that `--userns=auto` chose for it, and for it alone; all its maps are in the spec. */
  ids?: { kind: 'uid' | 'gid'; first: number; size: number }[];
  /** Networks that it is on (ids), in the order of its interfaces; empty with a mode such as `none` and `host`. */
  networks: EndpointWish[];
  lastExit?: ExitRecord;
  /** What plugins keep with it, by the plugin's name; see PluginRecord. */
  plugins?: Readonly<Record<string, unknown>>;
  /** `process.apparmorProfile` of the run that was started last, when it had one. */
  apparmorProfile?: string;
  /** How often it has been started. */
  starts: number;
  /** Made by a `run --rm` that has not started it yet: when its maker dies, it goes. */
  provisional?: boolean;
  /** All it has on disk was made by its one run, and goes with it. */
  ephemeral?: boolean;
}

export interface ExitRecord {
  run: string;
  code: number;
  signal?: number;
  coreDumped?: boolean;
  oom?: { killed: boolean; limit?: string; limitBytes?: number; peakBytes?: number };
  error?: string;
  startedAt?: string;
  finishedAt: string;
  droppedLogBytes?: number;
}

/** How often a container was started again by itself; `next`: when it will be tried again, while it doesn't run; `error`: why the last try failed. */
export interface RestartView { readonly count: number; readonly next?: string; readonly error?: string }
export type ContainerState = 'creating' | 'created' | 'running' | 'paused' | 'stopped';
export interface ContainerView {
  readonly record: ContainerRecord;
  readonly state: ContainerState;
  /** By the plugin that starts containers again; absent without one, or without a policy. */
  readonly restarts?: RestartView;
  readonly run?: { readonly id: string; readonly pid: number; readonly startTime: bigint; readonly startedAt: string; readonly folder: string };
  /** Of the current run. */
  readonly endpoints?: readonly Endpoint[];
}

/** What `request` taps see: the verb and its normalised arguments, as they will be executed. */
export interface VerbRequest {
  readonly verb: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly caller: { readonly uid: number; readonly pid: number };
  /** Sources the configuration came from. */
  readonly config: readonly string[];
}

export interface EngineEvent {
  readonly sequence: number;
  readonly time: string;
  readonly type: 'container' | 'image' | 'network' | 'volume';
  readonly action: string;
  readonly id: string;
  readonly attributes: Readonly<Record<string, string>>;
}
