import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { type Effect } from '@engine/core/plan';
import { type LinuxResources } from '@engine/core/spec';
import { limitEffect, refuseIdleShares } from '@engine/native/cgroup-fields';
import { hierarchyOf, type Hierarchy } from './hierarchies.ts';
import { compileLimits, type Limit } from './limits.ts';
import { readGroupFile } from './stats.ts';

/**
 * New limits for the group at `path` below each hierarchy, in an order that the kernel takes whatever is there now; the undo of each writes
 * what is there now. Lowering memory below what is in use is refused by the kernel (EBUSY), which kills nobody for it on v1.
 * Errors: as compileLimits; ERR_NOT_RUNNING without the group; ERR_NOT_SUPPORTED for devices.
 */
export function updateEffects(hierarchies: readonly Hierarchy[], path: string, resources: LinuxResources): readonly Effect[] {
  if (resources.devices?.length) throw fail('ERR_NOT_SUPPORTED', 'the devices of a running container cannot be changed', { path: 'devices' });
  const folder = (controller: string): string => posix.join(hierarchyOf(hierarchies, controller)?.target ?? '', path);
  const read = (controller: string, file: string): string | undefined => (hierarchyOf(hierarchies, controller) ? readGroupFile(posix.join(folder(controller), file)) : undefined);
  const number = (controller: string, file: string): number => Number(read(controller, file)?.trim());
  const present = hierarchies.some(({ version, target }) => version === 1 && readGroupFile(posix.join(target, path, 'tasks')) !== undefined);
  if (!present) throw fail('ERR_NOT_RUNNING', 'the container has no cgroup', { path });

  const cpuset = (['cpus', 'mems'] as const).some((name) => resources.cpu?.[name]) && {
    cpus: (read('cpuset', 'cpuset.cpus') ?? '').trim(),
    mems: (read('cpuset', 'cpuset.mems') ?? '').trim(),
  };
  const memoryLimit = number('memory', 'memory.limit_in_bytes');
  const { memory, cpu } = resources;
  const asked: LinuxResources = {
    ...resources,
    // memory and swap together are checked against the memory limit that is there
    ...(memory?.swap && !memory.limit && memoryLimit < 2 ** 62 ? { memory: { ...memory, limit: memoryLimit } } : {}),
    ...(cpu?.burst && !cpu.quota ? { cpu: { ...cpu, quota: number('cpu', 'cpu.cfs_quota_us') } } : {}),
  };
  const idle = number('cpu', 'cpu.idle') === 1;
  refuseIdleShares(idle, resources, 'cpu.shares');
  const hugetlb = hierarchyOf(hierarchies, 'hugetlb');
  const limits = compileLimits(asked, { ...(cpuset ? { cpuset } : {}), ...(hugetlb ? { hugetlb: hugetlb.version } : {}) }).filter(({ file }) => !(file === 'memory.limit_in_bytes' && !memory?.limit) && !(file === 'cpu.cfs_quota_us' && !cpu?.quota) && !(file === 'cpu.shares' && idle && cpu?.idle === 1));
  return ordered(limits, { memsw: number('memory', 'memory.memsw.limit_in_bytes'), quota: number('cpu', 'cpu.cfs_quota_us'), burst: number('cpu', 'cpu.cfs_burst_us') }).map(({ controller, file, value }) => {
    const before = previous(read(controller, file), file, value);
    const to = { folder: folder(controller), file, value };
    if (before === undefined) return limitEffect(to, { none: `${file} cannot be read` }, resources);
    if (file === 'cpu.shares' && idle) return limitEffect(to, { none: 'it is idle again then, without shares' }, resources);
    const shares = read('cpu', 'cpu.shares')?.trim();
    const forgotten = file === 'cpu.idle' && !idle && shares !== undefined ? [{ file: 'cpu.shares', value: shares }] : [];
    return limitEffect(to, [{ file, value: before }, ...forgotten], resources);
  });
}

/** memsw may never be below the limit, the burst never above the quota. */
function ordered(limits: readonly Limit[], now: { readonly memsw: number; readonly quota: number; readonly burst: number }): readonly Limit[] {
  const list = [...limits];
  const swap = (first: string, second: string): void => {
    const a = list.findIndex(({ file }) => file === first);
    const b = list.findIndex(({ file }) => file === second);
    if (a < 0 || b < 0 || b < a) return;
    list.splice(a, 0, ...list.splice(b, 1));
  };
  const value = (name: string): number => {
    const text = list.find(({ file }) => file === name)?.value;
    return text === '-1' ? Infinity : Number(text);
  };
  if (value('memory.limit_in_bytes') > now.memsw) swap('memory.limit_in_bytes', 'memory.memsw.limit_in_bytes');
  // what is idle takes no shares before it is so no more
  if (value('cpu.idle') === 0) swap('cpu.shares', 'cpu.idle');
  if (value('cpu.cfs_quota_us') < now.burst) swap('cpu.cfs_quota_us', 'cpu.cfs_burst_us');
  return list;
}

/** What must be written so that `file` says again what it says now. */
function previous(text: string | undefined, file: string, value: string): string | undefined {
  if (text === undefined) return undefined;
  if (file === 'memory.oom_control') return /^oom_kill_disable (\d)/m.exec(text)?.[1];
  const [key = ''] = value.split(' ');
  // files with a line per device or link: what has no line has no limit
  if (file.startsWith('blkio.throttle.') || file.endsWith('_device')) return `${key} ${new RegExp(`^${key} (\\S+)`, 'm').exec(text)?.[1] ?? '0'}`;
  if (file === 'net_prio.ifpriomap') return `${key} ${new RegExp(`^${key} (\\S+)`, 'm').exec(text)?.[1] ?? '0'}`;
  if (file === 'rdma.max') return text.split('\n').find((line) => line.startsWith(`${key} `)) ?? `${key} hca_handle=max hca_object=max`;
  return text.trim();
}
