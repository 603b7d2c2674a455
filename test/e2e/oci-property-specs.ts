/** Random config.json files that runc 1.1 and we both can run, and some that are chosen; everything from one seed. */

export type Random = () => number;
/** mulberry32: the same numbers for the same seed, everywhere. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
const chance = (r: Random, p: number): boolean => r() < p;
const pick = <T>(r: Random, of: readonly T[]): T => of[Math.floor(r() * of.length)] as T;
const some = <T>(r: Random, of: readonly T[], p = 0.5): T[] => of.filter(() => chance(r, p));
const integer = (r: Random, low: number, high: number): number => low + Math.floor(r() * (high - low + 1));

interface Mount { destination: string; type?: string; source?: string; options?: string[] }
export interface Config { ociVersion: string; hostname?: string | undefined; process: Record<string, unknown>; root: Record<string, unknown>; mounts: Mount[]; linux: Record<string, unknown>; annotations?: Record<string, string> }

const CAPS = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP', 'NET_BIND_SERVICE', 'NET_ADMIN', 'NET_RAW', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_ADMIN', 'SYS_NICE', 'MKNOD', 'AUDIT_WRITE', 'SETFCAP', 'IPC_LOCK'].map((name) => `CAP_${name}`);
/** Paths that the probe looks at in every container. */
export const LOOKED_AT = ['/', '/data', '/data/seed', '/full', '/full/seed', '/link', '/missing', '/file', '/proc/kcore', '/proc/sys/kernel/hostname', '/proc/sysrq-trigger', '/sys', '/sys/firmware', '/proc/timer_list', '/tmp', '/work/deep', '/dev/shm', '/dev/mqueue', '/bound', '/bound/sub', '/bound/sub/seed'];
const ids = [0, 0, 1, 1000, 65534, 100000];
/** One address range, far from what a machine's own users have. */
const maps = [{ containerID: 0, hostID: 1_500_000, size: 65536 }];

/** The smallest that both runtimes take. */
export function baseConfig(): Config {
  return {
    ociVersion: '1.0.2', hostname: 'probe',
    process: { terminal: false, user: { uid: 0, gid: 0 }, args: ['/probe', ...LOOKED_AT], env: ['PATH=/bin', 'TERM=xterm'], cwd: '/', noNewPrivileges: false, capabilities: Object.fromEntries(['bounding', 'effective', 'permitted'].map((set) => [set, ['CAP_KILL', 'CAP_AUDIT_WRITE', 'CAP_CHOWN']])) },
    root: { path: 'rootfs', readonly: false },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
      { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'] },
      { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'] },
      { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
    ],
    linux: { namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })) },
  };
}

function processOf(r: Random): Record<string, unknown> {
  const bounding = some(r, CAPS, 0.6);
  const permitted = some(r, bounding, 0.8);
  const inheritable = chance(r, 0.3) ? some(r, permitted, 0.6) : [];
  const uid = pick(r, ids);
  return {
    user: { uid, gid: pick(r, ids), ...(chance(r, 0.4) && { umask: pick(r, [0, 0o22, 0o27, 0o77]) }), ...(chance(r, 0.5) && { additionalGids: some(r, [0, 4, 27, 1000, 2000], 0.5) }) },
    args: ['/probe', ...LOOKED_AT], cwd: pick(r, ['/', '/', '/tmp', '/work/deep', '/data']),
    env: ['PATH=/bin', ...some(r, ['A=1', 'EMPTY=', 'SPACE=a b', 'EQUALS=a=b', 'HOME=/elsewhere', 'UTF=åäö', 'A=2'], 0.4)],
    noNewPrivileges: chance(r, 0.5), capabilities: { bounding, permitted, effective: some(r, permitted, 0.8), inheritable, ambient: chance(r, 0.5) ? some(r, inheritable, 0.6) : [] },
    ...(chance(r, 0.4) && { rlimits: some(r, [['RLIMIT_NOFILE', 512, 1024], ['RLIMIT_CORE', 0, 0], ['RLIMIT_NPROC', 500, 600], ['RLIMIT_FSIZE', 1 << 20, 1 << 30], ['RLIMIT_STACK', 1 << 20, 1 << 23]] as const).map(([type, soft, hard]) => ({ type, soft, hard })) }),
    ...(chance(r, 0.4) && { oomScoreAdj: integer(r, 0, 1000) }),
  };
}

function mountsOf(r: Random, base: readonly Mount[], source: string): Mount[] {
  const flags = (): string[] => some(r, ['nosuid', 'nodev', 'noexec', 'relatime'], 0.4);
  const extra: Mount[] = [
    { destination: '/data', type: 'bind', source: `${source}/folder`, options: ['rbind', pick(r, ['rprivate', 'private', 'rslave', 'slave']), ...some(r, ['ro'], 0.5), ...flags()] },
    { destination: '/file', type: 'bind', source: `${source}/file`, options: ['bind', 'private', ...some(r, ['ro'], 0.5)] },
    { destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: [...flags(), ...some(r, ['size=1m', 'mode=1777', 'ro', 'nr_inodes=100'], 0.4)] },
    { destination: '/full', type: 'tmpfs', source: 'tmpfs', options: ['tmpcopyup', ...flags()] },
    { destination: '/made/on/the/way', type: 'tmpfs', source: 'tmpfs', options: ['size=64k', 'mode=700'] },
    { destination: '/link/below', type: 'tmpfs', source: 'tmpfs', options: ['size=64k'] },
    { destination: '/bound', type: 'bind', source: `${source}/tree`, options: ['rbind', 'rprivate', ...some(r, ['rro', 'rnosuid', 'rnodev', 'rnoexec', 'ro'], 0.4)] },
    { destination: 'relative', type: 'tmpfs', source: 'tmpfs', options: ['size=64k'] },
    ...(chance(r, 0.5) ? [{ destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'noexec', 'nodev', 'relatime', ...some(r, ['ro'], 0.7)] }] : []),
  ];
  return [...base, ...some(r, extra, 0.4)];
}

const filters = (r: Random): unknown => {
  const allow = chance(r, 0.6);
  const names = ['mkdirat', 'chmod', 'fchmodat', 'symlink', 'symlinkat', 'keyctl', 'add_key', 'bpf', 'ptrace', 'userfaultfd', 'io_uring_setup', 'sethostname', 'settimeofday', 'reboot'];
  if (!allow) return undefined;
  return {
    defaultAction: pick(r, ['SCMP_ACT_ALLOW', 'SCMP_ACT_LOG']), architectures: chance(r, 0.5) ? ['SCMP_ARCH_X86_64'] : ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
    syscalls: [
      { names: some(r, names, 0.4).concat('rename'), action: 'SCMP_ACT_ERRNO', ...(chance(r, 0.5) && { errnoRet: pick(r, [1, 5, 13, 38]) }) },
      ...(chance(r, 0.5) ? [{ names: ['socket'], action: 'SCMP_ACT_ERRNO', errnoRet: 97, args: [{ index: 0, value: pick(r, [16, 38, 40]), op: 'SCMP_CMP_EQ' }] }] : []),
    ],
  };
};

/** `source`: a folder of the host with `folder`, `file` and `tree` (with a mount at `tree/sub`). */
export function randomConfig(r: Random, source: string): Config {
  const base = baseConfig();
  const user = chance(r, 0.25);
  const process = processOf(r);
  if (user) {
    const { user: who } = process as { user: { uid: number; gid: number } };
    if (who.uid > 65535) who.uid = 1000;
    if (who.gid > 65535) who.gid = 1000;
  }
  const network = user || chance(r, 0.8);
  const types = ['pid', 'mount', ...(network ? ['network'] : []), ...some(r, ['cgroup'], 0.5), ...(user || chance(r, 0.8) ? ['ipc'] : []), ...(user || chance(r, 0.8) ? ['uts'] : []), ...(user ? ['user'] : [])];
  const mounts = mountsOf(r, base.mounts, source);
  const seccomp = filters(r);
  const isOwn = (type: string): boolean => types.includes(type);
  const sysctl = { ...(network && chance(r, 0.4) && { 'net.ipv4.ip_forward': '1', 'net.core.somaxconn': '99' }), ...(isOwn('ipc') && chance(r, 0.4) && { 'kernel.msgmax': '4096', 'fs.mqueue.msg_max': '20' }) };
  return {
    ...base, process: { ...base.process, ...process }, root: { path: 'rootfs', readonly: chance(r, 0.4) },
    mounts: isOwn('ipc') ? mounts : mounts.filter(({ type }) => type !== 'mqueue'),
    ...(isOwn('uts') ? { hostname: pick(r, ['probe', 'a.b.example', 'x'.repeat(64)]) } : { hostname: undefined }),
    linux: {
      namespaces: types.map((type) => ({ type })), ...(user && { uidMappings: maps, gidMappings: maps }), ...(Object.keys(sysctl).length > 0 && { sysctl }),
      maskedPaths: some(r, ['/proc/kcore', '/proc/timer_list', '/sys/firmware', '/proc/no-such', '/full', '/file'], 0.6), readonlyPaths: some(r, ['/proc/sys', '/proc/sysrq-trigger', '/data', '/tmp', '/no/such'], 0.6),
      ...(chance(r, 0.4) && !user && { devices: some(r, [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o600, uid: 1000, gid: 5 }, { path: '/dev/sub/zero2', type: 'c', major: 1, minor: 5 }, { path: '/dev/pipe', type: 'p', fileMode: 0o644 }, { path: '/other/null', type: 'c', major: 1, minor: 3, fileMode: 0o600 }], 0.5) }),
      ...(chance(r, 0.3) && { rootfsPropagation: pick(r, ['private', 'rprivate', 'slave', 'rslave']) }),
      ...(seccomp !== undefined && { seccomp }),
      resources: {
        devices: [{ allow: false, access: 'rwm' }, ...some(r, [{ allow: true, type: 'c', major: 10, minor: 229, access: 'rw' }, { allow: true, type: 'b', access: 'm' }], 0.5)],
        ...(chance(r, 0.4) && { memory: { limit: 128 << 20, ...(chance(r, 0.5) && { reservation: 64 << 20 }) } }), ...(chance(r, 0.4) && { pids: { limit: integer(r, 50, 500) } }), ...(chance(r, 0.4) && { cpu: { shares: integer(r, 2, 2048), ...(chance(r, 0.5) && { quota: 50_000, period: 100_000 }) } }),
      },
    },
  };
}

/** Chosen ones: each has something that a random one rarely has alone. */
export function chosenConfigs(source: string): Record<string, Config> {
  const change = (edit: (config: Config) => void): Config => {
    const config = baseConfig();
    edit(config);
    return config;
  };
  return {
    'as it is': baseConfig(),
    'cgroups, own namespace': change((c) => { (c.linux['namespaces'] as unknown[]).push({ type: 'cgroup' }); c.mounts.push({ destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro', 'nosuid', 'noexec', 'nodev'] }); }),
    'cgroups, the host\'s namespace': change((c) => c.mounts.push({ destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'noexec', 'nodev'] })),
    'no /dev of its own': change((c) => { c.mounts = c.mounts.filter(({ destination }) => !destination.startsWith('/dev')); }),
    'the host\'s network': change((c) => { c.linux['namespaces'] = ['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })); }),
    'no pid namespace': change((c) => { c.linux['namespaces'] = ['network', 'ipc', 'uts', 'mount'].map((type) => ({ type })); }),
    'a user namespace': change((c) => { (c.linux['namespaces'] as unknown[]).push({ type: 'user' }); Object.assign(c.linux, { uidMappings: maps, gidMappings: maps }); }),
    'ambient capabilities of a user': change((c) => { c.process['user'] = { uid: 1000, gid: 1000, additionalGids: [5] }; c.process['capabilities'] = Object.fromEntries(['bounding', 'effective', 'permitted', 'inheritable', 'ambient'].map((set) => [set, ['CAP_NET_RAW', 'CAP_KILL']])); }),
    'no capability at all': change((c) => { delete c.process['capabilities']; c.process['noNewPrivileges'] = true; }),
    'a 32-bit personality': change((c) => { c.linux['personality'] = { domain: 'LINUX32' }; }),
    'read-only and all below it': change((c) => c.mounts.push({ destination: '/bound', type: 'bind', source: `${source}/tree`, options: ['rbind', 'rprivate', 'rro', 'rnosuid'] })),
    'read-only, not below it': change((c) => c.mounts.push({ destination: '/bound', type: 'bind', source: `${source}/tree`, options: ['rbind', 'rprivate', 'ro'] })),
    'a tmpfs with what the image has': change((c) => c.mounts.push({ destination: '/full', type: 'tmpfs', source: 'tmpfs', options: ['tmpcopyup', 'ro'] })),
    'the host\'s network and ipc by their paths': change((c) => { c.linux['namespaces'] = [...['pid', 'uts', 'mount'].map((type) => ({ type })), { type: 'network', path: '/proc/1/ns/net' }, { type: 'ipc', path: '/proc/1/ns/ipc' }]; }),
    'a read-only root': change((c) => { c.root['readonly'] = true; }),
  };
}
