/** Numbers of the Linux ABI that plugins use. Names are the kernel's. */

export const CLONE_NEWTIME = 0x80;
export const CLONE_NEWNS = 0x0002_0000;
export const CLONE_NEWCGROUP = 0x0200_0000;
export const CLONE_NEWUTS = 0x0400_0000;
export const CLONE_NEWIPC = 0x0800_0000;
export const CLONE_NEWUSER = 0x1000_0000;
export const CLONE_NEWPID = 0x2000_0000;
export const CLONE_NEWNET = 0x4000_0000;
/** By the names of the OCI runtime spec. */
export const namespaceFlags = {
  mount: CLONE_NEWNS, pid: CLONE_NEWPID, network: CLONE_NEWNET, ipc: CLONE_NEWIPC, uts: CLONE_NEWUTS, cgroup: CLONE_NEWCGROUP, user: CLONE_NEWUSER, time: CLONE_NEWTIME,
} as const;

export const MS = {
  RDONLY: 1, NOSUID: 2, NODEV: 4, NOEXEC: 8, SYNCHRONOUS: 16, REMOUNT: 32, MANDLOCK: 64, DIRSYNC: 128, NOSYMFOLLOW: 256, NOATIME: 1024, NODIRATIME: 2048,
  BIND: 4096, MOVE: 8192, REC: 16384, SILENT: 32768, UNBINDABLE: 1 << 17, PRIVATE: 1 << 18, SLAVE: 1 << 19, SHARED: 1 << 20, RELATIME: 1 << 21, STRICTATIME: 1 << 24, LAZYTIME: 1 << 25,
} as const;
export const MNT_DETACH = 2;
export const MOUNT_ATTR = {
  RDONLY: 1, NOSUID: 2, NODEV: 4, NOEXEC: 8, RELATIME: 0, NOATIME: 0x10, STRICTATIME: 0x20, _ATIME: 0x70, NODIRATIME: 0x80, IDMAP: 0x10_0000, NOSYMFOLLOW: 0x20_0000,
} as const;

/** x86-64 and arm64 differ in DIRECTORY, NOFOLLOW and DIRECT. */
const arm = process.arch === 'arm64';
export const O = {
  RDONLY: 0, WRONLY: 1, RDWR: 2, CREAT: 0o100, EXCL: 0o200, NOCTTY: 0o400, TRUNC: 0o1000, APPEND: 0o2000, NONBLOCK: 0o4000,
  DIRECTORY: arm ? 0o40000 : 0o200000, NOFOLLOW: arm ? 0o100000 : 0o400000, CLOEXEC: 0o2000000, PATH: 0o10000000, TMPFILE: 0o20000000 | (arm ? 0o40000 : 0o200000),
} as const;
export const S_IF = { FIFO: 0o010000, CHR: 0o020000, DIR: 0o040000, BLK: 0o060000, REG: 0o100000, LNK: 0o120000, SOCK: 0o140000 } as const;

/** statfs f_type, for the `magic` field of `open`. */
export const FS_MAGIC = {
  proc: 0x9fa0, sysfs: 0x6265_6572, devpts: 0x1cd1, tmpfs: 0x0102_1994, cgroup: 0x0027_e0eb, cgroup2: 0x6367_7270, nsfs: 0x6e73_6673, mqueue: 0x1980_0202,
  overlay: 0x794c_7630, btrfs: 0x9123_683e, ext: 0xef53, xfs: 0x5846_5342,
} as const;

/** By the names of the OCI runtime spec without `RLIMIT_`, lower case as Docker's --ulimit. */
export const RLIMIT = {
  cpu: 0, fsize: 1, data: 2, stack: 3, core: 4, rss: 5, nproc: 6, nofile: 7, memlock: 8, as: 9, locks: 10, sigpending: 11, msgqueue: 12, nice: 13, rtprio: 14, rttime: 15,
} as const;
export const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn;

/** Bit numbers of the capability sets. */
export const CAP = {
  CAP_CHOWN: 0, CAP_DAC_OVERRIDE: 1, CAP_DAC_READ_SEARCH: 2, CAP_FOWNER: 3, CAP_FSETID: 4, CAP_KILL: 5, CAP_SETGID: 6, CAP_SETUID: 7, CAP_SETPCAP: 8,
  CAP_LINUX_IMMUTABLE: 9, CAP_NET_BIND_SERVICE: 10, CAP_NET_BROADCAST: 11, CAP_NET_ADMIN: 12, CAP_NET_RAW: 13, CAP_IPC_LOCK: 14, CAP_IPC_OWNER: 15,
  CAP_SYS_MODULE: 16, CAP_SYS_RAWIO: 17, CAP_SYS_CHROOT: 18, CAP_SYS_PTRACE: 19, CAP_SYS_PACCT: 20, CAP_SYS_ADMIN: 21, CAP_SYS_BOOT: 22, CAP_SYS_NICE: 23,
  CAP_SYS_RESOURCE: 24, CAP_SYS_TIME: 25, CAP_SYS_TTY_CONFIG: 26, CAP_MKNOD: 27, CAP_LEASE: 28, CAP_AUDIT_WRITE: 29, CAP_AUDIT_CONTROL: 30, CAP_SETFCAP: 31,
  CAP_MAC_OVERRIDE: 32, CAP_MAC_ADMIN: 33, CAP_SYSLOG: 34, CAP_WAKE_ALARM: 35, CAP_BLOCK_SUSPEND: 36, CAP_AUDIT_READ: 37, CAP_PERFMON: 38, CAP_BPF: 39,
  CAP_CHECKPOINT_RESTORE: 40,
} as const;

export const SIGNAL = {
  SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGILL: 4, SIGTRAP: 5, SIGABRT: 6, SIGBUS: 7, SIGFPE: 8, SIGKILL: 9, SIGUSR1: 10, SIGSEGV: 11, SIGUSR2: 12, SIGPIPE: 13,
  SIGALRM: 14, SIGTERM: 15, SIGSTKFLT: 16, SIGCHLD: 17, SIGCONT: 18, SIGSTOP: 19, SIGTSTP: 20, SIGTTIN: 21, SIGTTOU: 22, SIGURG: 23, SIGXCPU: 24, SIGXFSZ: 25,
  SIGVTALRM: 26, SIGPROF: 27, SIGWINCH: 28, SIGIO: 29, SIGPWR: 30, SIGSYS: 31, SIGRTMIN: 34, SIGRTMAX: 64,
} as const;

export const IOPRIO = { realtime: 1, bestEffort: 2, idle: 3, shift: 13 } as const;
export const SECCOMP_FILTER_FLAG = { TSYNC: 1, LOG: 2, SPEC_ALLOW: 4, NEW_LISTENER: 8, WAIT_KILLABLE_RECV: 32 } as const;
export const PERSONALITY = { LINUX: 0, LINUX32: 8, ADDR_NO_RANDOMIZE: 0x0004_0000 } as const;
