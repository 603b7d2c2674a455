import { fail } from '@engine/core/errors';
import { type LinuxResources, type ThrottleDevice } from './types.ts';

/** One write(2) of `value` to a file of the group. */
export interface UnifiedLimit { readonly file: string; readonly value: string }

/** What a group of the unified hierarchy can be given here. */
export interface UnifiedAbilities {
  /** Controllers that can be enabled for the group. */
  readonly controllers: Pick<ReadonlySet<string>, 'has'> & Iterable<string>;
  /** Is there a file of that name in a group other than the root? */
  has(file: string): boolean;
}

const MiB = 1 << 20;
/** Docker's: less than this and not even init gets started. */
export const MINIMUM_MEMORY = 6 * MiB;

/** Fields of `linux.resources` that can be honoured, as dotted paths. `devices` is always among them: the filter is a program, not a file. */
export function honouredUnified({ controllers, has }: UnifiedAbilities): ReadonlySet<string> {
  const set = new Set<string>(['devices']);
  const add = (condition: boolean, ...names: string[]): void => {
    if (condition) for (const name of names) set.add(name);
  };
  add(controllers.has('memory'), 'memory.limit', 'memory.reservation');
  add(controllers.has('memory') && has('memory.swap.max'), 'memory.swap');
  // there is one hierarchy, so that `useHierarchy` is always so; kernel memory is part of the whole and has no limit of its own
  add(controllers.has('memory'), 'memory.useHierarchy');
  add(controllers.has('cpu'), 'cpu.shares');
  add(controllers.has('cpu') && has('cpu.max'), 'cpu.quota', 'cpu.period');
  add(controllers.has('cpu') && has('cpu.max.burst'), 'cpu.burst');
  add(controllers.has('cpu') && has('cpu.idle'), 'cpu.idle');
  add(controllers.has('cpuset'), 'cpu.cpus', 'cpu.mems');
  add(controllers.has('pids'), 'pids.limit');
  add(controllers.has('io') && (has('io.bfq.weight') || has('io.weight')), 'blockIO.weight');
  add(controllers.has('io') && (has('io.bfq.weight') || has('io.weight')), 'blockIO.weightDevice');
  add(controllers.has('io') && has('io.max'), 'blockIO.throttleReadBpsDevice', 'blockIO.throttleWriteBpsDevice', 'blockIO.throttleReadIOPSDevice', 'blockIO.throttleWriteIOPSDevice');
  add(controllers.has('hugetlb'), 'hugepageLimits');
  add(controllers.has('rdma'), 'rdma');
  add([...controllers].length > 0, 'unified');
  return set;
}

/** Dotted names of everything that is set in `resources`; `false` asks for nothing. */
export function fieldsOf(resources: LinuxResources): string[] {
  const names: string[] = [];
  const isSet = (value: unknown): boolean => value !== undefined && value !== null && value !== false && value !== '' && !(Array.isArray(value) && value.length === 0);
  for (const [section, value] of Object.entries(resources) as [string, unknown][]) {
    if (!isSet(value)) continue;
    if (Array.isArray(value)) names.push(section);
    else if (section === 'rdma' || section === 'unified') {
      if (Object.keys(value as object).length > 0) names.push(section);
    } else for (const [name, inner] of Object.entries(value as object)) if (isSet(inner)) names.push(`${section}.${name}`);
  }
  return names;
}

/** Why the unified hierarchy has no such thing, where it never has. */
const never: Readonly<Record<string, string>> = {
  'memory.swappiness': 'cgroup v2 has no swappiness per group; leave it out, or limit swap with --memory-swap',
  'memory.disableOOMKiller': 'cgroup v2 cannot switch the OOM killer off for a group; leave it out',
  'memory.kernel': 'cgroup v2 counts kernel memory with the rest; leave it out',
  'memory.kernelTCP': 'cgroup v2 counts socket memory with the rest; leave it out',
  'cpu.realtimeRuntime': 'cgroup v2 has no real-time budget; leave it out',
  'cpu.realtimePeriod': 'cgroup v2 has no real-time budget; leave it out',
  'blockIO.leafWeight': 'cgroup v2 has no leaf weight: a group with children has no processes',
  'network.classID': 'cgroup v2 has no net_cls; match on the cgroup itself in nftables (socket cgroupv2)',
  'network.priorities': 'cgroup v2 has no net_prio; leave it out',
};

/** Errors: ERR_FEATURE_MISSING names the first field that can't be honoured. */
export function refuseUnhonoured(resources: LinuxResources, can: ReadonlySet<string>): void {
  for (const name of fieldsOf(resources)) {
    if (can.has(name)) continue;
    throw fail('ERR_FEATURE_MISSING', `the unified cgroup hierarchy of this machine cannot honour linux.resources.${name}`, { path: name, hint: never[name] ?? 'leave this limit out, or give the engine the controller it needs (cgroup.controllers of the parent group)' });
  }
}

function whole(value: number, name: string, low: number, high = Number.MAX_SAFE_INTEGER): string {
  if (!Number.isSafeInteger(value) || value < low || value > high) throw fail('ERR_INVALID_VALUE', `${name}: ${value} is not in ${low}..${high === Number.MAX_SAFE_INTEGER ? '' : high}`, { path: name });
  return String(value);
}

/** Bytes, or -1 for no limit. */
function bytes(value: number, name: string): string {
  if (value === -1) return 'max';
  if (value < MINIMUM_MEMORY) throw fail('ERR_INVALID_VALUE', `${name}: ${value} bytes are too few for a process to live in`, { path: name, hint: `the minimum is ${MINIMUM_MEMORY} bytes (6 MiB)` });
  return whole(value, name, MINIMUM_MEMORY);
}

/** v1's 2..262144 on v2's 1..10000, as the OCI runtimes do it (runc up to 1.1, crun up to 1.20): 1024 is 39, not 100. */
export function weightOfShares(shares: number): number {
  return 1 + Math.floor(((shares - 2) * 9999) / 262142);
}
/** v1's 10..1000 on io.weight's 1..10000, as the OCI runtimes do it. */
export function weightOfBlockIO(weight: number): number {
  return 1 + Math.floor(((weight - 10) * 9999) / 990);
}

/** memory.swap.max from `memory.swap`, which is memory and swap together; undefined: nothing is asked for. Errors: ERR_INVALID_VALUE. */
export function swapOf(limit: number | undefined, swap: number | undefined): string | undefined {
  // "no limit" for memory has always meant swap too
  if (!swap) return limit === -1 ? 'max' : undefined;
  if (swap === -1) return 'max';
  if (!limit || limit === -1) throw fail('ERR_INVALID_VALUE', 'memory.swap needs memory.limit too', { path: 'memory.swap' });
  if (swap < limit) throw fail('ERR_INVALID_VALUE', `memory.swap: ${swap} is memory and swap together and may not be below memory.limit ${limit}`, { path: 'memory.swap' });
  return whole(swap - limit, 'memory.swap', 0);
}

function memoryLimits({ memory = {} }: LinuxResources, { has }: UnifiedAbilities): UnifiedLimit[] {
  const limits: UnifiedLimit[] = [];
  const { limit, reservation, swap } = memory;
  const more = swapOf(limit, swap);
  if (limit) limits.push({ file: 'memory.max', value: bytes(limit, 'memory.limit') });
  if (more !== undefined && (swap || has('memory.swap.max'))) limits.push({ file: 'memory.swap.max', value: more });
  if (reservation) limits.push({ file: 'memory.low', value: reservation === -1 ? 'max' : whole(reservation, 'memory.reservation', 1) });
  return limits;
}

const DEFAULT_PERIOD = 100_000;

function cpuLimits({ cpu = {} }: LinuxResources): UnifiedLimit[] {
  const limits: UnifiedLimit[] = [];
  const { shares, quota, period, burst, idle } = cpu;
  // a group that is idle takes no weight (EINVAL), so that one that is to be idle no more gets it back first
  if (idle !== undefined) limits.push({ file: 'cpu.idle', value: whole(idle, 'cpu.idle', 0, 1) });
  if (shares && !(idle === 1)) limits.push({ file: 'cpu.weight', value: String(weightOfShares(Number(whole(shares, 'cpu.shares', 2, 262144)))) });
  if (quota || period) {
    const length = whole(period || DEFAULT_PERIOD, 'cpu.period', 1000, 1_000_000);
    limits.push({ file: 'cpu.max', value: `${!quota || quota === -1 ? 'max' : whole(quota, 'cpu.quota', 1000)} ${length}` });
  }
  if (burst) {
    if (!quota || quota < 0 || burst > quota) throw fail('ERR_INVALID_VALUE', `cpu.burst: ${burst} is above cpu.quota`, { path: 'cpu.burst' });
    limits.push({ file: 'cpu.max.burst', value: whole(burst, 'cpu.burst', 0) });
  }
  return limits;
}

const list = /^\d+(-\d+)?(,\d+(-\d+)?)*$/;
/** What is not asked for stays empty and follows the parent's. */
function cpusetLimits({ cpu = {} }: LinuxResources): UnifiedLimit[] {
  return (['cpus', 'mems'] as const).flatMap((name) => {
    const value = cpu[name];
    if (!value) return [];
    if (!list.test(value)) throw fail('ERR_INVALID_VALUE', `cpu.${name}: ${JSON.stringify(value)} is not a list like 0-3,7`, { path: `cpu.${name}` });
    return [{ file: `cpuset.${name}`, value }];
  });
}

function blockLimits({ blockIO = {} }: LinuxResources, { has }: UnifiedAbilities): UnifiedLimit[] {
  const limits: UnifiedLimit[] = [];
  const bfq = has('io.bfq.weight');
  const weight = (value: number, name: string): string => (bfq ? whole(value, name, 1, 1000) : String(weightOfBlockIO(Number(whole(value, name, 10, 1000)))));
  const file = bfq ? 'io.bfq.weight' : 'io.weight';
  if (blockIO.weight) limits.push({ file, value: weight(blockIO.weight, 'blockIO.weight') });
  for (const device of blockIO.weightDevice ?? []) if (device.weight) limits.push({ file, value: `${device.major}:${device.minor} ${weight(device.weight, 'blockIO.weightDevice')}` });
  const throttle = (key: string, name: string, devices: readonly ThrottleDevice[] = []): void => {
    // 0 is v1's word for no limit
    for (const { major, minor, rate } of devices) limits.push({ file: 'io.max', value: `${whole(major, name, 0)}:${whole(minor, name, 0)} ${key}=${rate === 0 ? 'max' : whole(rate, name, 1)}` });
  };
  throttle('rbps', 'blockIO.throttleReadBpsDevice', blockIO.throttleReadBpsDevice);
  throttle('wbps', 'blockIO.throttleWriteBpsDevice', blockIO.throttleWriteBpsDevice);
  throttle('riops', 'blockIO.throttleReadIOPSDevice', blockIO.throttleReadIOPSDevice);
  throttle('wiops', 'blockIO.throttleWriteIOPSDevice', blockIO.throttleWriteIOPSDevice);
  return limits;
}

function otherLimits({ pids, hugepageLimits = [], rdma = {} }: LinuxResources): UnifiedLimit[] {
  const limits: UnifiedLimit[] = [];
  // 0 and -1 are Docker's words for no limit; a fresh group has none
  if (pids && pids.limit !== 0) limits.push({ file: 'pids.max', value: pids.limit < 0 ? 'max' : whole(pids.limit, 'pids.limit', 1) });
  for (const { pageSize, limit } of hugepageLimits) {
    if (!/^\d+[KMG]B$/.test(pageSize)) throw fail('ERR_INVALID_VALUE', `hugepageLimits: page size ${JSON.stringify(pageSize)} is not like 2MB`, { path: 'hugepageLimits' });
    const value = whole(limit, 'hugepageLimits', 0);
    // without a limit for reservations mmap succeeds, and the first touch is a SIGBUS (Linux 5.7)
    limits.push({ file: `hugetlb.${pageSize}.max`, value }, { file: `hugetlb.${pageSize}.rsvd.max`, value });
  }
  for (const [device, { hcaHandles, hcaObjects }] of Object.entries(rdma)) {
    const parts = [hcaHandles === undefined ? '' : `hca_handle=${whole(hcaHandles, 'rdma', 0)}`, hcaObjects === undefined ? '' : `hca_object=${whole(hcaObjects, 'rdma', 0)}`].filter(Boolean);
    if (parts.length > 0) limits.push({ file: 'rdma.max', value: `${device} ${parts.join(' ')}` });
  }
  return limits;
}

/** Files whose values are checked before anything is made: of others the kernel says whether it takes them. `many`: a value may have several lines. */
const GRAMMAR: readonly { readonly file: RegExp; readonly value: RegExp; readonly many?: true; readonly size?: true; readonly hint: string }[] = [
  { file: /^(memory\.(max|high|low|min|swap\.max|swap\.high|zswap\.max)|hugetlb\.\w+\.(rsvd\.)?max)$/, value: /^(max|\d{1,19}[KMGTPkmgtp]?)$/, many: true, size: true, hint: 'give bytes, with K, M, G or T after the number if you like, or max' },
  { file: /^pids\.max$/, value: /^(max|\d{1,19})$/, hint: 'give a number, or max' },
  { file: /^cpu\.weight$/, value: /^\d{1,5}$/, hint: 'give a number from 1 to 10000' },
  { file: /^io\.(bfq\.)?weight$/, value: /^((default|\d+:\d+) )?(\d{1,5}|default)$/, many: true, hint: 'give a number from 1 to 10000, with default or MAJOR:MINOR before it if you like' },
];
/** A size as the kernel takes it (memparse) as plain bytes, which is what systemd takes. */
function inBytes(text: string): string {
  const unit = ' KMGTP'.indexOf(text.slice(-1).toUpperCase());
  return unit < 1 ? text : String(BigInt(text.slice(0, -1)) << BigInt(10 * unit));
}

/** `linux.resources.unified`: written as it is, after everything else. A value of several lines is several writes, as io.max and rdma.max want. */
function unifiedLimits({ unified = {} }: LinuxResources, { controllers, has }: UnifiedAbilities): UnifiedLimit[] {
  return Object.entries(unified).flatMap(([file, value]) => {
    const wrong = (why: string, hint?: string): Error => fail('ERR_INVALID_VALUE', `unified: ${JSON.stringify(file)} ${why}`, { path: `unified.${file}`, ...(hint ? { hint } : {}) });
    if (!/^[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+$/.test(file)) throw wrong('is not the name of a file of a cgroup', 'names are like memory.high');
    const controller = file.slice(0, file.indexOf('.'));
    if (controller === 'cgroup') throw wrong('belongs to the engine');
    if (/\.(?:pressure|stat|current|peak|events|events\.local|numa_stat)$/.test(file)) throw wrong('is not a limit');
    if (!controllers.has(controller)) throw fail('ERR_FEATURE_MISSING', `unified: controller ${controller} of ${file} is not there`, { path: `unified.${file}`, hint: `there are ${[...controllers].join(' ') || 'none'}` });
    if (!has(file)) throw fail('ERR_FEATURE_MISSING', `unified: the kernel has no ${file}`, { path: `unified.${file}`, hint: 'it needs a newer kernel, or one built with it; leave it out' });
    if (typeof value !== 'string' || value.length === 0 || value.length > 4096 || value.includes('\0')) throw wrong('has no value that could be written');
    const lines = value.split('\n').map((line) => line.trim()).filter(Boolean);
    const grammar = GRAMMAR.find((one) => one.file.test(file));
    const wrongLine = grammar && (grammar.many ? lines : [value.trim()]).find((line) => !grammar.value.test(line));
    if (wrongLine !== undefined) throw wrong(`does not take ${JSON.stringify(wrongLine)}`, grammar?.hint);
    return lines.map((line) => ({ file, value: grammar?.size ? inBytes(line) : line }));
  });
}

/** Controllers that these limits need. */
export function controllersOf(limits: readonly UnifiedLimit[]): ReadonlySet<string> {
  return new Set(limits.map(({ file }) => file.slice(0, file.indexOf('.'))));
}

/** Everything but device rules, in the order in which it must be written to a fresh group. Errors: ERR_INVALID_VALUE names the field, ERR_FEATURE_MISSING. */
export function compileUnified(resources: LinuxResources, abilities: UnifiedAbilities): readonly UnifiedLimit[] {
  refuseUnhonoured(resources, honouredUnified(abilities));
  return [
    ...cpusetLimits(resources),
    ...cpuLimits(resources),
    ...memoryLimits(resources, abilities),
    ...blockLimits(resources, abilities),
    ...otherLimits(resources),
    ...unifiedLimits(resources, abilities),
  ];
}
