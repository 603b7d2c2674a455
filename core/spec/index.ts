/** The OCI runtime spec 1.2 (https://github.com/opencontainers/runtime-spec), the sections that a Linux container has. Plain data. */
export interface Spec {
  ociVersion: string;
  process?: Process;
  root?: { path: string; readonly?: boolean };
  hostname?: string;
  domainname?: string;
  mounts?: Mount[];
  hooks?: Record<string, readonly unknown[]>;
  annotations?: Record<string, string>;
  linux?: Linux;
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
  scheduler?: { policy: string; nice?: number; priority?: number };
  ioPriority?: { class: string; priority: number };
  user: { uid?: number; gid?: number; umask?: number; additionalGids?: number[]; /** `user[:group]` by name, resolved inside the rootfs. */ username?: string };
}
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
  cgroupsPath?: string;
  resources?: LinuxResources;
  rootfsPropagation?: string;
  seccomp?: Seccomp;
  sysctl?: Record<string, string>;
  maskedPaths?: string[];
  readonlyPaths?: string[];
  mountLabel?: string;
  personality?: { domain: string };
}
export interface IdMapping { containerID: number; hostID: number; size: number }
export interface Device { type: 'c' | 'b' | 'u' | 'p'; path: string; major?: number; minor?: number; fileMode?: number; uid?: number; gid?: number }
export interface DeviceRule { allow: boolean; type?: 'a' | 'b' | 'c'; major?: number; minor?: number; access?: string }
export interface LinuxResources {
  devices?: DeviceRule[];
  memory?: { limit?: number; reservation?: number; swap?: number; kernel?: number; kernelTCP?: number; swappiness?: number; disableOOMKiller?: boolean; useHierarchy?: boolean };
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
