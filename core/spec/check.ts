import { absolute, between, fields, flag, int32, int64, invalid, isAbsent, list, map, oneOf, refused, some, text, uint16, uint32, uint64, type Check } from './values.ts';
import { type Process, type Spec } from './index.ts';

/** Words that more than one plugin must know, as config.md and config-linux.md have them. */
const RLIMITS = ['AS', 'CORE', 'CPU', 'DATA', 'FSIZE', 'LOCKS', 'MEMLOCK', 'MSGQUEUE', 'NICE', 'NOFILE', 'NPROC', 'RSS', 'RTPRIO', 'RTTIME', 'SIGPENDING', 'STACK'].map((name) => `RLIMIT_${name}`);
export const SCHEDULER_POLICIES = ['SCHED_OTHER', 'SCHED_FIFO', 'SCHED_RR', 'SCHED_BATCH', 'SCHED_ISO', 'SCHED_IDLE', 'SCHED_DEADLINE'] as const;
export const SCHEDULER_FLAGS = ['SCHED_FLAG_RESET_ON_FORK', 'SCHED_FLAG_RECLAIM', 'SCHED_FLAG_DL_OVERRUN', 'SCHED_FLAG_KEEP_POLICY', 'SCHED_FLAG_KEEP_PARAMS', 'SCHED_FLAG_UTIL_CLAMP_MIN', 'SCHED_FLAG_UTIL_CLAMP_MAX'] as const;
const ACTIONS = ['KILL', 'KILL_PROCESS', 'KILL_THREAD', 'TRAP', 'ERRNO', 'TRACE', 'ALLOW', 'LOG', 'NOTIFY'].map((name) => `SCMP_ACT_${name}`);
const OPERATORS = ['NE', 'LT', 'LE', 'EQ', 'GE', 'GT', 'MASKED_EQ'].map((name) => `SCMP_CMP_${name}`);
const ARCHITECTURES = [
  'X86', 'X86_64', 'X32', 'ARM', 'AARCH64', 'LOONGARCH64', 'M68K', 'MIPS', 'MIPS64', 'MIPS64N32', 'MIPSEL', 'MIPSEL64', 'MIPSEL64N32', 'PPC', 'PPC64', 'PPC64LE', 'S390', 'S390X', 'PARISC', 'PARISC64', 'RISCV64', 'SH', 'SHEB',
].map((name) => `SCMP_ARCH_${name}`);
const FILTER_FLAGS = ['TSYNC', 'LOG', 'SPEC_ALLOW', 'WAIT_KILLABLE_RECV'].map((name) => `SECCOMP_FILTER_FLAG_${name}`);
const PROPAGATIONS = ['private', 'slave', 'shared', 'unbindable'].flatMap((name) => [name, `r${name}`]);

const mappings = list(fields({ containerID: uint32, hostID: uint32, size: uint32 }, 'containerID', 'hostID', 'size'));
const names = list(text);
/** 2^32-1 means "no change" to the kernel (CVE-2024-40635, CVE-2026-47262). */
const id = between(0, 0xffff_fffe);
const cpus: Check = (value, at) => {
  text(value, at);
  if (!/^(\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*)?$/.test(value as string)) throw invalid(at, `${JSON.stringify(value)} is no list of CPUs`, 'write it like 0-3,7');
};
const environment: Check = (value, at) => {
  text(value, at);
  if (!/^[^=]+=/.test(value as string)) throw invalid(at, `${JSON.stringify(value)} is not NAME=VALUE`);
};

const processFields: Check = fields({
  terminal: flag,
  consoleSize: fields({ height: uint16, width: uint16 }, 'height', 'width'),
  cwd: absolute, env: list(environment), args: names,
  rlimits: list(fields({ type: oneOf(...RLIMITS), hard: uint64, soft: uint64 }, 'type', 'hard', 'soft')),
  apparmorProfile: text, selinuxLabel: text, noNewPrivileges: flag, oomScoreAdj: between(-1000, 1000),
  capabilities: fields({ bounding: names, effective: names, permitted: names, inheritable: names, ambient: names }),
  scheduler: fields({ policy: oneOf(...SCHEDULER_POLICIES), nice: int32, priority: int32, flags: list(oneOf(...SCHEDULER_FLAGS)), runtime: uint64, deadline: uint64, period: uint64 }, 'policy'),
  ioPriority: fields({ class: oneOf('IOPRIO_CLASS_RT', 'IOPRIO_CLASS_BE', 'IOPRIO_CLASS_IDLE'), priority: between(0, 7) }, 'class'),
  execCPUAffinity: fields({ initial: cpus, final: cpus }),
  user: fields({ uid: id, gid: id, umask: between(0, 0o777), additionalGids: list(id), username: text }),
}, 'cwd');

const hooks = list(fields({ path: absolute, args: names, env: list(environment), timeout: (value, at) => {
  int32(value, at);
  if ((value as number) <= 0) throw invalid(at, `${String(value)} is not above 0`);
} }, 'path'));
const rates = list(fields({ major: int64, minor: int64, rate: uint64 }, 'major', 'minor', 'rate'));
const resources = fields({
  devices: list(fields({ allow: flag, type: oneOf('', 'a', 'b', 'c'), major: int64, minor: int64, access: (value, at) => {
    text(value, at);
    if (!/^[rwm]*$/.test(value as string)) throw invalid(at, `${JSON.stringify(value)} is not made of r, w and m`);
  } }, 'allow')),
  memory: fields({ limit: int64, reservation: int64, swap: int64, kernel: int64, kernelTCP: int64, swappiness: uint64, disableOOMKiller: flag, useHierarchy: flag, checkBeforeUpdate: flag }),
  cpu: fields({ shares: uint64, quota: int64, burst: uint64, period: uint64, realtimeRuntime: int64, realtimePeriod: uint64, cpus, mems: cpus, idle: int64 }),
  pids: fields({ limit: int64 }, 'limit'),
  blockIO: fields({
    weight: uint16, leafWeight: uint16, weightDevice: list(fields({ major: int64, minor: int64, weight: uint16, leafWeight: uint16 }, 'major', 'minor')),
    throttleReadBpsDevice: rates, throttleWriteBpsDevice: rates, throttleReadIOPSDevice: rates, throttleWriteIOPSDevice: rates,
  }),
  hugepageLimits: list(fields({ pageSize: some, limit: uint64 }, 'pageSize', 'limit')),
  network: fields({ classID: uint32, priorities: list(fields({ name: some, priority: uint32 }, 'name', 'priority')) }),
  rdma: map(fields({ hcaHandles: uint32, hcaObjects: uint32 })),
  unified: map(text),
});

const seccomp = fields({
  defaultAction: oneOf(...ACTIONS), defaultErrnoRet: uint32, architectures: list(oneOf(...ARCHITECTURES)), flags: list(oneOf(...FILTER_FLAGS)), listenerPath: text, listenerMetadata: text,
  syscalls: list(fields({
    names: list(some), action: oneOf(...ACTIONS), errnoRet: uint32,
    args: list(fields({ index: between(0, 5), value: uint64, valueTwo: uint64, op: oneOf(...OPERATORS) }, 'index', 'value', 'op')),
  }, 'names', 'action')),
}, 'defaultAction');

const device = fields({ type: oneOf('c', 'b', 'u', 'p'), path: absolute, major: int64, minor: int64, fileMode: between(0, 0xffff_ffff), uid: id, gid: id }, 'type', 'path');
const linux = fields({
  namespaces: list(fields({ type: oneOf('pid', 'network', 'mount', 'ipc', 'uts', 'user', 'cgroup', 'time'), path: (value, at) => (value === '' ? undefined : absolute(value, at)) }, 'type')),
  uidMappings: mappings, gidMappings: mappings,
  timeOffsets: (value, at) => fields({ monotonic: offset, boottime: offset })(onlyClocks(value, at), at),
  devices: list(device),
  netDevices: map(fields({ name: text })),
  cgroupsPath: text, resources, rootfsPropagation: oneOf('', ...PROPAGATIONS), seccomp, sysctl: map(text),
  maskedPaths: list(absolute), readonlyPaths: list(absolute), mountLabel: text,
  personality: fields({ domain: oneOf('LINUX', 'LINUX32'), flags: refused('this engine sets no flags of personality(2)') }, 'domain'),
  intelRdt: refused('this engine has no driver for Intel RDT'),
  memoryPolicy: refused('this engine sets no NUMA memory policy'),
});
const offset = fields({ secs: int64, nanosecs: between(0, 999_999_999) });
function onlyClocks(value: unknown, at: string): unknown {
  for (const clock of Object.keys(typeof value === 'object' && value !== null ? value : {})) if (clock !== 'monotonic' && clock !== 'boottime') throw invalid(`${at}.${clock}`, 'unknown clock', 'known are monotonic, boottime');
  return value;
}

const other = (what: string): Check => refused(`a section for ${what}, and this is an engine for Linux`);
const whole = fields({
  ociVersion: text, root: fields({ path: some, readonly: flag }, 'path'), hostname: text, domainname: text, annotations: map(text),
  mounts: list(fields({ destination: some, type: text, source: text, options: names, uidMappings: mappings, gidMappings: mappings }, 'destination')),
  hooks: fields({ prestart: hooks, createRuntime: hooks, createContainer: hooks, startContainer: hooks, poststart: hooks, poststop: hooks }),
  process: processFields, linux,
  vm: other('virtual machines'), solaris: other('Solaris'), windows: other('Windows'), zos: other('z/OS'),
}, 'ociVersion');

/**
 * The spec of a bundle, as it comes from outside: types, ranges and words, by the name of the field. What it means (may it be done here, does it fit together) is
 * said by whoever compiles it. Fields that the spec does not have are not looked at (config.md, Extensibility), null is what is not there.
 * Errors: ERR_INVALID_VALUE; ERR_NOT_SUPPORTED for what no plugin can do. `path` of both is the field.
 */
export function checkSpec(spec: unknown): asserts spec is Spec {
  whole(spec, '');
}
/** The same for the process of a session (`exec --process`). */
export function checkProcess(process: unknown, at = 'process'): asserts process is Process {
  if (isAbsent(process)) throw invalid(at, 'it is not set');
  processFields(process, at);
}
