export { checkProcess, checkSpec, SCHEDULER_FLAGS, SCHEDULER_POLICIES } from './check.ts';
export { ownsNamespace } from './namespaces.ts';
export { splitState, type OciState } from './state.ts';
/**
 * The OCI runtime spec 1.3 (https://github.com/opencontainers/runtime-spec), the sections that a Linux container has. Plain data.
 * Numbers of 64 bits are bigint where a double cannot hold them.
 */
export interface Spec {
  ociVersion: string;
  process?: Process;
  root?: { path: string; readonly?: boolean };
  hostname?: string;
  domainname?: string;
  mounts?: Mount[];
  hooks?: Hooks;
  annotations?: Record<string, string>;
  linux?: Linux;
}
/** Programs of the caller at six points of a container's life, see runtime.md of the spec. */
export type Hooks = { [K in 'prestart' | 'createRuntime' | 'createContainer' | 'startContainer' | 'poststart' | 'poststop']?: Hook[] };
export interface Hook {
  path: string;
  /** With argv[0]. */
  args?: string[];
  env?: string[];
  /** Seconds. */
  timeout?: number;
}
export interface Process {
  terminal?: boolean;
  consoleSize?: { height: number; width: number };
  cwd: string;
  env?: string[];
  args?: string[];
  rlimits?: { type: string; hard: number; soft: number }[];
  apparmorProfile?: string;
  selinuxLabel?: string;
  capabilities?: Partial<Record<'bounding' | 'effective' | 'permitted' | 'inheritable' | 'ambient', string[]>>;
  noNewPrivileges?: boolean;
  oomScoreAdj?: number;
  scheduler?: Scheduler;
  ioPriority?: { class: string; priority: number };
  /** CPUs (`0-3,7`) of a session's process before and after it is in the container's cgroup. */
  execCPUAffinity?: { initial?: string; final?: string };
  user: { uid?: number; gid?: number; umask?: number; additionalGids?: number[]; /** `user[:group]` by name, resolved inside the rootfs. */ username?: string };
}
/** sched_setattr(2); runtime, deadline and period in ns. */
export interface Scheduler { policy: string; nice?: number; priority?: number; flags?: string[]; runtime?: number | bigint; deadline?: number | bigint; period?: number | bigint }
export interface Mount {
  destination: string;
  type?: string;
  source?: string;
  options?: string[];
  /** With option `idmap` or `ridmap`; absent: those of the container's user namespace. */
  uidMappings?: IdMapping[];
  gidMappings?: IdMapping[];
}
export interface Linux {
  namespaces?: { type: 'pid' | 'network' | 'mount' | 'ipc' | 'uts' | 'user' | 'cgroup' | 'time'; path?: string }[];
  uidMappings?: IdMapping[];
  gidMappings?: IdMapping[];
  timeOffsets?: Record<string, { secs?: number; nanosecs?: number }>;
  devices?: Device[];
  /** Links of the host that the container gets, by their names there. */
  netDevices?: Record<string, { name?: string }>;
  cgroupsPath?: string;
  resources?: LinuxResources;
  rootfsPropagation?: string;
  seccomp?: Seccomp;
  sysctl?: Record<string, string>;
  maskedPaths?: string[];
  readonlyPaths?: string[];
  mountLabel?: string;
  personality?: { domain: string; flags?: string[] };
  intelRdt?: { closID?: string; schemata?: string[]; l3CacheSchema?: string; memBwSchema?: string; enableMonitoring?: boolean; enableCMT?: boolean; enableMBM?: boolean };
  memoryPolicy?: { mode: string; nodes?: string; flags?: string[] };
}
export interface IdMapping { containerID: number; hostID: number; size: number }
export interface Device { type: 'c' | 'b' | 'u' | 'p'; path: string; major?: number; minor?: number; fileMode?: number; uid?: number; gid?: number }
export interface DeviceRule { allow: boolean; type?: 'a' | 'b' | 'c'; major?: number; minor?: number; access?: string }
export interface LinuxResources {
  devices?: DeviceRule[];
  memory?: { limit?: number; reservation?: number; swap?: number; kernel?: number; kernelTCP?: number; swappiness?: number; disableOOMKiller?: boolean; useHierarchy?: boolean; checkBeforeUpdate?: boolean };
  cpu?: { shares?: number; quota?: number; burst?: number; period?: number; realtimeRuntime?: number; realtimePeriod?: number; cpus?: string; mems?: string; idle?: number };
  pids?: { limit: number };
  blockIO?: {
    weight?: number; leafWeight?: number;
    weightDevice?: { major: number; minor: number; weight?: number; leafWeight?: number }[];
    throttleReadBpsDevice?: ThrottleDevice[]; throttleWriteBpsDevice?: ThrottleDevice[];
    throttleReadIOPSDevice?: ThrottleDevice[]; throttleWriteIOPSDevice?: ThrottleDevice[];
  };
  hugepageLimits?: { pageSize: string; limit: number }[];
  network?: { classID?: number; priorities?: { name: string; priority: number }[] };
  rdma?: Record<string, { hcaHandles?: number; hcaObjects?: number }>;
  unified?: Record<string, string>;
}
export interface ThrottleDevice { major: number; minor: number; rate: number }
export interface Seccomp {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures?: string[];
  flags?: string[];
  listenerPath?: string;
  listenerMetadata?: string;
  syscalls?: SeccompRule[];
}
export interface SeccompRule {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: { index: number; value: number | bigint; valueTwo?: number | bigint; op: string }[];
}
