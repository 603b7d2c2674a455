import { fail } from '@engine/core/errors';
import { type Machine } from '@engine/core/contracts/common';
import { type LinuxResources, type ThrottleDevice } from '@engine/core/spec';
import { hierarchyOf, type Hierarchy } from './hierarchies.ts';

/** One value for one file of the group. */
export interface Limit { readonly controller: string; readonly file: string; readonly value: string }

const MiB = 1 << 20;
/** Docker's: less than this and not even init gets started. */
export const MINIMUM_MEMORY = 6 * MiB;

/** Fields of `linux.resources` that can be honoured on this machine, as dotted paths. */
export function honoured(machine: Machine, hierarchies: readonly Hierarchy[]): ReadonlySet<string> {
  const set = new Set<string>();
  const v1 = (controller: string): Hierarchy | undefined => {
    const hierarchy = hierarchyOf(hierarchies, controller);
    return hierarchy?.version === 1 ? hierarchy : undefined;
  };
  const has = (controller: string, file: string): boolean => {
    const hierarchy = v1(controller);
    return hierarchy !== undefined && machine.read(`${hierarchy.target}/${file}`) !== undefined;
  };
  const add = (condition: boolean, ...names: string[]): void => {
    if (condition) for (const name of names) set.add(name);
  };
  add(v1('devices') !== undefined, 'devices');
  add(v1('memory') !== undefined, 'memory.limit', 'memory.reservation', 'memory.swappiness', 'memory.disableOOMKiller', 'memory.useHierarchy', 'memory.kernelTCP');
  // without swapaccount=1 the files are not there
  add(has('memory', 'memory.memsw.limit_in_bytes'), 'memory.swap');
  // writing memory.kmem.limit_in_bytes is ENOTSUPP since Linux 5.16
  const [major, minor] = machine.kernel;
  add(v1('memory') !== undefined && (major < 5 || (major === 5 && minor < 16)), 'memory.kernel');
  add(v1('cpu') !== undefined, 'cpu.shares');
  add(has('cpu', 'cpu.cfs_quota_us'), 'cpu.quota', 'cpu.period');
  add(has('cpu', 'cpu.cfs_burst_us'), 'cpu.burst');
  add(has('cpu', 'cpu.idle'), 'cpu.idle');
  add(has('cpu', 'cpu.rt_runtime_us'), 'cpu.realtimeRuntime', 'cpu.realtimePeriod');
  add(v1('cpuset') !== undefined, 'cpu.cpus', 'cpu.mems');
  add(v1('pids') !== undefined, 'pids.limit');
  // weights belong to the BFQ scheduler since Linux 5.0; its file is not in the root group, but this one is
  add(has('blkio', 'blkio.bfq.io_service_bytes'), 'blockIO.weight', 'blockIO.weightDevice');
  add(has('blkio', 'blkio.throttle.read_bps_device'), 'blockIO.throttleReadBpsDevice', 'blockIO.throttleWriteBpsDevice', 'blockIO.throttleReadIOPSDevice', 'blockIO.throttleWriteIOPSDevice');
  add(v1('net_cls') !== undefined, 'network.classID');
  add(v1('net_prio') !== undefined, 'network.priorities');
  add(v1('rdma') !== undefined, 'rdma');
  const huge = hierarchyOf(hierarchies, 'hugetlb');
  // enabling a controller for the children of the host's root group is the administrator's business
  add(huge !== undefined && (huge.version === 1 || (machine.read(`${huge.target}/cgroup.subtree_control`) ?? '').split(/\s+/).includes('hugetlb')), 'hugepageLimits');
  return set;
}

/** Dotted names of everything that is set in `resources`. */
function fieldsOf(resources: LinuxResources): string[] {
  const names: string[] = [];
  for (const [section, value] of Object.entries(resources) as [string, unknown][]) {
    if (value === undefined || value === null) continue;
    const empty = Array.isArray(value) ? value.length === 0 : Object.keys(value).length === 0;
    if (empty) continue;
    if (Array.isArray(value) || section === 'rdma' || section === 'unified') names.push(section);
    else for (const [name, inner] of Object.entries(value)) if (inner !== undefined && inner !== null && !(Array.isArray(inner) && inner.length === 0)) names.push(`${section}.${name}`);
  }
  return names;
}

const hints: Readonly<Record<string, string>> = {
  hugepageLimits: 'mount the hugetlb controller, or enable it with +hugetlb in cgroup.subtree_control of the unified hierarchy',
  unified: 'leave out --cgroup-conf: it names files of cgroup v2, and the controllers of this machine are on v1 hierarchies',
};
/** Errors: ERR_FEATURE_MISSING names the first field that can't be honoured. */
export function refuseUnhonoured(resources: LinuxResources, can: ReadonlySet<string>): void {
  for (const name of fieldsOf(resources)) {
    if (can.has(name)) continue;
    const hint = hints[name] ?? 'leave this limit out, or mount the controller it needs';
    throw fail('ERR_FEATURE_MISSING', `the cgroup hierarchies of this machine cannot honour linux.resources.${name}`, { path: name, hint });
  }
}

export function whole(value: number, name: string, low: number, high = Number.MAX_SAFE_INTEGER): string {
  if (!Number.isSafeInteger(value) || value < low || value > high) throw fail('ERR_INVALID_VALUE', `${name}: ${value} is not in ${low}..${high === Number.MAX_SAFE_INTEGER ? '' : high}`, { path: name });
  return String(value);
}
/** Bytes, or -1 for no limit. */
function bytes(value: number, name: string): string {
  if (value === -1) return '-1';
  if (value < MINIMUM_MEMORY) {
    throw fail('ERR_INVALID_VALUE', `${name}: ${value} bytes are too few for a process to live in`, { path: name, hint: `the minimum is ${MINIMUM_MEMORY} bytes (6 MiB)` });
  }
  return whole(value, name, MINIMUM_MEMORY);
}

function memoryLimits({ memory = {} }: LinuxResources): Limit[] {
  const limits: Limit[] = [];
  const add = (file: string, value: string): void => void limits.push({ controller: 'memory', file: `memory.${file}`, value });
  const { limit, reservation, swap, swappiness, kernel, kernelTCP } = memory;
  // the limit goes before memory plus swap: a fresh group has no limits, and memsw may never be below limit
  if (limit) add('limit_in_bytes', bytes(limit, 'memory.limit'));
  if (swap) {
    if (swap > 0 && !limit) throw fail('ERR_INVALID_VALUE', 'memory.swap needs memory.limit too', { path: 'memory.swap' });
    if (swap > 0 && limit && limit > swap) throw fail('ERR_INVALID_VALUE', `memory.swap: ${swap} is memory and swap together and may not be below memory.limit ${limit}`, { path: 'memory.swap' });
    add('memsw.limit_in_bytes', bytes(swap, 'memory.swap'));
  }
  if (reservation) add('soft_limit_in_bytes', reservation === -1 ? '-1' : whole(reservation, 'memory.reservation', 1));
  if (kernel) add('kmem.limit_in_bytes', kernel === -1 ? '-1' : whole(kernel, 'memory.kernel', 1));
  if (kernelTCP) add('kmem.tcp.limit_in_bytes', kernelTCP === -1 ? '-1' : whole(kernelTCP, 'memory.kernelTCP', 1));
  if (swappiness !== undefined) add('swappiness', whole(swappiness, 'memory.swappiness', 0, 100));
  if (memory.disableOOMKiller) add('oom_control', '1');
  return limits;
}

function cpuLimits({ cpu = {} }: LinuxResources): Limit[] {
  const limits: Limit[] = [];
  const add = (file: string, value: string): void => void limits.push({ controller: 'cpu', file: `cpu.${file}`, value });
  if (cpu.shares) add('shares', whole(cpu.shares, 'cpu.shares', 2, 262144));
  // the period first: a quota is checked against it; the burst last: it may not exceed the quota
  if (cpu.period) add('cfs_period_us', whole(cpu.period, 'cpu.period', 1000, 1_000_000));
  if (cpu.quota) add('cfs_quota_us', cpu.quota === -1 ? '-1' : whole(cpu.quota, 'cpu.quota', 1000));
  if (cpu.burst) {
    if (!cpu.quota || cpu.quota < 0 || cpu.burst > cpu.quota) throw fail('ERR_INVALID_VALUE', `cpu.burst: ${cpu.burst} is above cpu.quota`, { path: 'cpu.burst' });
    add('cfs_burst_us', whole(cpu.burst, 'cpu.burst', 0));
  }
  if (cpu.realtimePeriod) add('rt_period_us', whole(cpu.realtimePeriod, 'cpu.realtimePeriod', 1));
  if (cpu.realtimeRuntime) add('rt_runtime_us', whole(cpu.realtimeRuntime, 'cpu.realtimeRuntime', 0));
  if (cpu.idle !== undefined) add('idle', whole(cpu.idle, 'cpu.idle', 0, 1));
  return limits;
}

const list = /^\d+(-\d+)?(,\d+(-\d+)?)*$/;
/** A new cpuset is empty and nothing can join it: what isn't asked for is `inherited` from the parent. */
function cpusetLimits({ cpu = {} }: LinuxResources, inherited: { readonly cpus: string; readonly mems: string }): Limit[] {
  return (['cpus', 'mems'] as const).map((name) => {
    const value = cpu[name] || inherited[name];
    if (!list.test(value)) throw fail('ERR_INVALID_VALUE', `cpu.${name}: ${JSON.stringify(value)} is not a list like 0-3,7`, { path: `cpu.${name}` });
    return { controller: 'cpuset', file: `cpuset.${name}`, value };
  });
}

function blockLimits({ blockIO = {} }: LinuxResources): Limit[] {
  const limits: Limit[] = [];
  const add = (file: string, value: string): void => void limits.push({ controller: 'blkio', file: `blkio.${file}`, value });
  if (blockIO.weight) add('bfq.weight', whole(blockIO.weight, 'blockIO.weight', 1, 1000));
  for (const { major, minor, weight } of blockIO.weightDevice ?? []) if (weight) add('bfq.weight_device', `${major}:${minor} ${whole(weight, 'blockIO.weightDevice', 1, 1000)}`);
  const throttle = (file: string, name: string, devices: readonly ThrottleDevice[] = []): void => {
    for (const { major, minor, rate } of devices) add(`throttle.${file}`, `${major}:${minor} ${whole(rate, name, 0)}`);
  };
  throttle('read_bps_device', 'blockIO.throttleReadBpsDevice', blockIO.throttleReadBpsDevice);
  throttle('write_bps_device', 'blockIO.throttleWriteBpsDevice', blockIO.throttleWriteBpsDevice);
  throttle('read_iops_device', 'blockIO.throttleReadIOPSDevice', blockIO.throttleReadIOPSDevice);
  throttle('write_iops_device', 'blockIO.throttleWriteIOPSDevice', blockIO.throttleWriteIOPSDevice);
  return limits;
}

function otherLimits(resources: LinuxResources, hugetlbVersion: 1 | 2): Limit[] {
  const limits: Limit[] = [];
  const { pids, hugepageLimits = [], network = {}, rdma = {} } = resources;
  if (pids && pids.limit !== 0) limits.push({ controller: 'pids', file: 'pids.max', value: pids.limit < 0 ? 'max' : whole(pids.limit, 'pids.limit', 1) });
  for (const { pageSize, limit } of hugepageLimits) {
    if (!/^\d+[KMG]B$/.test(pageSize)) throw fail('ERR_INVALID_VALUE', `hugepageLimits: page size ${JSON.stringify(pageSize)} is not like 2MB`, { path: 'hugepageLimits' });
    limits.push({ controller: 'hugetlb', file: `hugetlb.${pageSize}.${hugetlbVersion === 1 ? 'limit_in_bytes' : 'max'}`, value: whole(limit, 'hugepageLimits', 0) });
  }
  if (network.classID) limits.push({ controller: 'net_cls', file: 'net_cls.classid', value: whole(network.classID, 'network.classID', 0, 0xffffffff) });
  for (const { name, priority } of network.priorities ?? []) limits.push({ controller: 'net_prio', file: 'net_prio.ifpriomap', value: `${name} ${whole(priority, 'network.priorities', 0, 0xffffffff)}` });
  for (const [device, { hcaHandles, hcaObjects }] of Object.entries(rdma)) {
    const parts = [hcaHandles === undefined ? '' : `hca_handle=${hcaHandles}`, hcaObjects === undefined ? '' : `hca_object=${hcaObjects}`].filter(Boolean);
    limits.push({ controller: 'rdma', file: 'rdma.max', value: `${device} ${parts.join(' ')}` });
  }
  return limits;
}

/** Everything but device rules, in the order in which it must be written. Errors: ERR_INVALID_VALUE names the field. */
export function compileLimits(resources: LinuxResources, context: { readonly cpuset?: { readonly cpus: string; readonly mems: string }; readonly hugetlb?: 1 | 2 }): readonly Limit[] {
  return [
    ...(context.cpuset ? cpusetLimits(resources, context.cpuset) : []),
    ...cpuLimits(resources),
    ...memoryLimits(resources),
    ...blockLimits(resources),
    ...otherLimits(resources, context.hugetlb ?? 1),
  ];
}
