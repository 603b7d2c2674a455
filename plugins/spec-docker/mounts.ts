import { fail } from '@engine/core/errors';
import { cleanTarget, type ContainerRequest, type MountRequest } from '@engine/core/api';
import { type CompileFacts } from '@engine/core/hooks';
import { type ImageRootfs } from '@engine/core/contracts/image';
import { type Mount } from '@engine/core/spec';

const propagations = new Set(['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared']);

function bindOptions(m: Pick<MountRequest, 'readonly' | 'propagation' | 'nonRecursive' | 'target'>): string[] {
  const propagation = m.propagation || 'rprivate';
  if (!propagations.has(propagation)) throw fail('ERR_INVALID_VALUE', `invalid propagation mode: ${propagation}`, { operation: 'mount', path: m.target });
  // `ro` alone would leave what is mounted below writable (mount_setattr, Linux 5.12)
  const readonly = m.readonly ? (m.nonRecursive ? ['ro'] : ['ro', 'rro']) : [];
  return [m.nonRecursive ? 'bind' : 'rbind', propagation, ...readonly];
}

const opposites: readonly (readonly [string, string])[] = [['ro', 'rw'], ['nosuid', 'suid'], ['nodev', 'dev'], ['noexec', 'exec']];
const tmpfsKeys = /^(size|mode|uid|gid|nr_inodes|nr_blocks|mpol|huge)=[A-Za-z0-9%:,._-]+$/;
const tmpfsFlags = new Set(['ro', 'rw', 'suid', 'nosuid', 'dev', 'nodev', 'exec', 'noexec', 'sync', 'async', 'noatime', 'relatime', 'strictatime', 'nodiratime', 'tmpcopyup', 'notmpcopyup', 'rprivate', 'private']);

/** Later options win over earlier ones and their opposites. Errors: ERR_INVALID_VALUE names the option. */
export function mergeTmpfsOptions(options: readonly string[], target: string): string[] {
  const result = new Map<string, string>();
  for (const option of options) {
    if (option === '') continue;
    if (!tmpfsFlags.has(option) && !tmpfsKeys.test(option)) throw fail('ERR_INVALID_VALUE', `invalid tmpfs option: ${option}`, { operation: 'tmpfs', path: target });
    const pair = opposites.find((p) => p.includes(option));
    const key = pair ? pair[0] : (option.split('=', 1)[0] as string);
    result.delete(key);
    result.set(key, option);
  }
  return [...result.values()];
}

/** The mounts that the user and the image ask for. */
export function userMounts(request: ContainerRequest, volumes: CompileFacts['volumes']): Mount[] {
  const mounts: Mount[] = volumes.map((v) => ({
    destination: v.target, type: 'bind', source: v.source, options: [...bindOptions(v), ...(v.idmap ? ['idmap'] : [])],
  }));
  for (const m of request.mounts) {
    if (m.type === 'bind') mounts.push({ destination: cleanTarget(m.target), type: 'bind', source: m.source ?? '', options: [...bindOptions(m), ...(m.idmap ? ['idmap'] : [])] });
    if (m.type === 'tmpfs') {
      const own = [...(m.tmpfsSize === undefined ? [] : [`size=${m.tmpfsSize}`]), `mode=${(m.tmpfsMode ?? 0o1777).toString(8)}`, ...(m.readonly ? ['ro'] : [])];
      mounts.push({ destination: cleanTarget(m.target), type: 'tmpfs', source: 'tmpfs', options: mergeTmpfsOptions(['nosuid', 'nodev', 'noexec', ...own], m.target) });
    }
  }
  for (const { target, options } of request.tmpfs) {
    mounts.push({ destination: cleanTarget(target), type: 'tmpfs', source: 'tmpfs', options: mergeTmpfsOptions(['nosuid', 'nodev', 'noexec', ...options], target) });
  }
  return mounts;
}

/** What every container has, `/` and cgroups aside, in the order of mounting. */
export function defaultMounts(request: ContainerRequest, shmSize: number, cgroup: readonly Mount[]): Mount[] {
  const ro = request.privileged ? [] : ['ro'];
  const shm: Mount[] = request.ipc === 'host' ? [{ destination: '/dev/shm', type: 'bind', source: '/dev/shm', options: ['bind', 'rprivate'] }]
    : request.ipc === 'none' ? []
    : [{ destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${shmSize}`] }];
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
    { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'] },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', ...ro] },
    ...cgroup.map((m) => ({ ...m, options: [...(m.options ?? []).filter((o) => o !== 'ro' && o !== 'rw'), ...ro] })),
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    ...shm,
  ];
}

/** Folders that a container of this machine's own root has fresh. */
export function hostImageMounts(rootfs: ImageRootfs): Mount[] {
  if (rootfs.kind !== 'host') return [];
  return [
    { destination: '/run', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'mode=755'] },
    { destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'mode=1777'] },
  ];
}

const depth = (mount: Mount): number => mount.destination.split('/').length;

/** All mounts in order: a user's mount takes the place of a default one (and of all below /dev), then parents before children. */
export function mergeMounts(defaults: readonly Mount[], own: readonly Mount[], readonlyRootfs: boolean): Mount[] {
  const taken = new Set(own.map((m) => m.destination));
  const kept = defaults.filter((m) => !taken.has(m.destination) && !(taken.has('/dev') && m.destination.startsWith('/dev/')));
  const writable = new Set(['/proc', '/dev', '/dev/pts', '/dev/shm', '/dev/mqueue']);
  const base = kept.map((m) => (readonlyRootfs && !writable.has(m.destination) && m.type !== 'tmpfs' && !m.options?.includes('ro') ? { ...m, options: [...(m.options ?? []), 'ro'] } : m));
  return [...base, ...[...own].sort((a, b) => depth(a) - depth(b))];
}
