/** Constants of the kernel's interface, from its uapi headers. */

/** <linux/sched.h> */
export const CLONE = {
  time: 0x80, mount: 0x20000, cgroup: 0x2000000, uts: 0x4000000, ipc: 0x8000000, user: 0x10000000, pid: 0x20000000, network: 0x40000000,
} as const;
export type NamespaceType = keyof typeof CLONE;
/** Names of the links in /proc/PID/ns. */
export const NAMESPACE_FILE: Readonly<Record<NamespaceType, string>> = {
  time: 'time', mount: 'mnt', cgroup: 'cgroup', uts: 'uts', ipc: 'ipc', user: 'user', pid: 'pid', network: 'net',
};

/** <linux/mount.h>, MOUNT_ATTR_* */
export const MOUNT_ATTR = {
  rdonly: 0x1, nosuid: 0x2, nodev: 0x4, noexec: 0x8, atimeMask: 0x70, noatime: 0x10, strictatime: 0x20, nodiratime: 0x80, nosymfollow: 0x200000,
} as const;

/** <linux/mount.h>, propagation bits of mount(2) and mount_setattr(2) */
export const MS = { rec: 0x4000, unbindable: 1 << 17, private: 1 << 18, slave: 1 << 19, shared: 1 << 20 } as const;

/** <fcntl.h> */
export const O = { path: 0o10000000, directory: 0o200000, nofollow: 0o400000, cloexec: 0o2000000 } as const;

/** <sys/stat.h> */
export const S_IF = { character: 0o020000, block: 0o060000, fifo: 0o010000 } as const;

/** statfs types, <linux/magic.h> */
export const MAGIC = { devpts: 0x1cd1, proc: 0x9fa0 } as const;

/** <asm-generic/resource.h> */
export const RLIMIT: Readonly<Record<string, number>> = {
  RLIMIT_CPU: 0, RLIMIT_FSIZE: 1, RLIMIT_DATA: 2, RLIMIT_STACK: 3, RLIMIT_CORE: 4, RLIMIT_RSS: 5, RLIMIT_NPROC: 6, RLIMIT_NOFILE: 7,
  RLIMIT_MEMLOCK: 8, RLIMIT_AS: 9, RLIMIT_LOCKS: 10, RLIMIT_SIGPENDING: 11, RLIMIT_MSGQUEUE: 12, RLIMIT_NICE: 13, RLIMIT_RTPRIO: 14, RLIMIT_RTTIME: 15,
};
export const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn;

/** <linux/sched.h> */
export const SCHED: Readonly<Record<string, number>> = { SCHED_OTHER: 0, SCHED_FIFO: 1, SCHED_RR: 2, SCHED_BATCH: 3, SCHED_ISO: 4, SCHED_IDLE: 5, SCHED_DEADLINE: 6 };
/** <linux/sched.h>, flags of sched_setattr(2) */
export const SCHED_FLAG: Readonly<Record<string, number>> = {
  SCHED_FLAG_RESET_ON_FORK: 0x1, SCHED_FLAG_RECLAIM: 0x2, SCHED_FLAG_DL_OVERRUN: 0x4, SCHED_FLAG_KEEP_POLICY: 0x8, SCHED_FLAG_KEEP_PARAMS: 0x10, SCHED_FLAG_UTIL_CLAMP_MIN: 0x20, SCHED_FLAG_UTIL_CLAMP_MAX: 0x40,
};
/** <linux/ioprio.h> */
export const IOPRIO_CLASS: Readonly<Record<string, number>> = { IOPRIO_CLASS_RT: 1, IOPRIO_CLASS_BE: 2, IOPRIO_CLASS_IDLE: 3 };
export const IOPRIO_CLASS_SHIFT = 13;
/** <linux/personality.h> */
export const PERSONALITY: Readonly<Record<string, number>> = { LINUX: 0, LINUX32: 8 };
