import { type UnifiedLimit } from '@engine/native/cgroup2/limits';
import { type Property } from './systemd.ts';

/**
 * What a scope is besides a folder. The rules of delegation (systemd's CGROUP_DELEGATION.md): what lies below the scope is ours, its own files are
 * systemd's. So limits stand in the group inside, which systemd never touches; only what counts among its neighbours is the scope's.
 */
const SCOPE: readonly Property[] = [
  ['Delegate', 'b', true],
  // neither a success nor a failure leaves a unit behind
  ['CollectMode', 's', 'inactive-or-failed'],
  ['CPUAccounting', 'b', true],
  ['MemoryAccounting', 'b', true],
  ['IOAccounting', 'b', true],
  ['TasksAccounting', 'b', true],
  // DefaultTasksMax would be a limit that nobody asked for
  ['TasksMax', 't', 'infinity'],
];
const OWN: readonly Property[] = [
  // at shutdown it ends before its volumes' file systems and the network do, and within docker stop's ten seconds
  ['After', 'as', ['local-fs.target', 'remote-fs.target', 'network.target']],
  ['TimeoutStopUSec', 't', '10000000'],
];

const bytes = (value: string): string => (value === 'max' ? 'infinity' : value);
/** io.bfq.weight is made of IOWeight by systemd: 1..100 as it is, 100..10000 on 100..1000. */
const fromBfq = (weight: number): number => (weight <= 100 ? weight : 100 + (weight - 100) * 11);

type Device = readonly [path: string, value: string];
const deviceOf = (text: string): Device | undefined => {
  const [, device, value] = /^(\d+:\d+) (?:target=)?(\d+)$/.exec(text) ?? [];
  return device && value ? [`/dev/block/${device}`, value] : undefined;
};

/**
 * Of a group's limits those that are about its neighbours (weights) or that reach no further than its parent's (protection of memory): the
 * scope must have them too. `cpu.idle` is the least weight.
 */
export function sharedProperties(limits: readonly UnifiedLimit[]): readonly Property[] {
  const found = new Map<string, Property>();
  const set = (name: string, value: string): void => void found.set(name, [name, 't', value]);
  const add = (name: string, device: Device): void => {
    const before = (found.get(name)?.[2] ?? []) as readonly Device[];
    found.set(name, [name, 'a(st)', [...before.filter(([path]) => path !== device[0]), device]]);
  };
  for (const { file, value } of limits) {
    const device = deviceOf(value);
    if (file === 'cpu.weight') set('CPUWeight', value);
    else if (file === 'cpu.idle' && value === '1') set('CPUWeight', '1');
    else if (file === 'memory.low') set('MemoryLow', bytes(value));
    else if (file === 'memory.min') set('MemoryMin', bytes(value));
    else if (file === 'io.latency' && device) add('IODeviceLatencyTargetUSec', device);
    else if (file === 'io.weight' && device) add('IODeviceWeight', device);
    else if (file === 'io.weight') set('IOWeight', value.replace(/^default /, ''));
    else if (file === 'io.bfq.weight' && device) add('IODeviceWeight', [device[0], String(fromBfq(Number(device[1])))]);
    else if (file === 'io.bfq.weight') set('IOWeight', String(fromBfq(Number(value))));
  }
  return [...found.values()];
}

/** All properties of a scope but its first process. */
export function scopeProperties(slice: string, description: string, limits: readonly UnifiedLimit[]): readonly Property[] {
  return [['Description', 's', description], ['Slice', 's', slice], ...SCOPE, ...OWN, ...sharedProperties(limits)];
}

/** systemd keeps a quota in whole percents of a processor (`CPUQuota=`): rounded up, as runc does, so that it is no less than was asked for. */
const PERCENT_US = 10_000;
const DEFAULT_PERIOD = '100000';
function quotaProperties(value: string): readonly Property[] {
  const [quota = 'max', period = DEFAULT_PERIOD] = value.split(' ');
  const perSecond = quota === 'max' ? 'infinity' : String(Math.ceil((Number(quota) * 1e6) / Number(period) / PERCENT_US) * PERCENT_US);
  return [['CPUQuotaPerSecUSec', 't', perSecond], ['CPUQuotaPeriodUSec', 't', period]];
}

/** A list of cpuset(7) as systemd's mask: bit 0 of the first byte is number 0. */
function maskOf(list: string): readonly number[] {
  const mask: number[] = [];
  for (const range of list.trim().split(',').filter(Boolean)) {
    const [first = 0, last = first] = range.split('-').map(Number);
    for (let n = first; n <= last; n++) mask[n >> 3] = (mask[n >> 3] ?? 0) | (1 << (n & 7));
  }
  return Array.from(mask, (byte) => byte ?? 0);
}
const numbersIn = (mask: readonly number[]): readonly number[] => mask.flatMap((byte, i) => Array.from({ length: 8 }, (_, bit) => i * 8 + bit).filter((n) => byte & (1 << (n & 7))));

const THROTTLES: Readonly<Record<string, string>> = { rbps: 'IOReadBandwidthMax', wbps: 'IOWriteBandwidthMax', riops: 'IOReadIOPSMax', wiops: 'IOWriteIOPSMax' };
const SIZES: Readonly<Record<string, string>> = { 'memory.max': 'MemoryMax', 'memory.high': 'MemoryHigh', 'memory.swap.max': 'MemorySwapMax', 'pids.max': 'TasksMax' };

/**
 * All of a group's limits that systemd has a property for. Where the scope is the container's group, systemd must know what stands in its files: loading units
 * anew, it writes them from its properties.
 */
export function limitProperties(limits: readonly UnifiedLimit[]): readonly Property[] {
  const found = new Map<string, Property>();
  const set = (...properties: readonly Property[]): void => properties.forEach((property) => found.set(property[0], property));
  for (const { file, value } of limits) {
    const size = SIZES[file];
    if (size) set([size, 't', bytes(value)]);
    else if (file === 'cpu.max') set(...quotaProperties(value));
    else if (file === 'cpuset.cpus') set(['AllowedCPUs', 'ay', maskOf(value)]);
    else if (file === 'cpuset.mems') set(['AllowedMemoryNodes', 'ay', maskOf(value)]);
    else if (file === 'io.max') {
      const [device = '', ...keys] = value.split(' ');
      for (const [key = '', number = ''] of keys.map((one) => one.split('='))) {
        const name = THROTTLES[key];
        const path = `/dev/block/${device}`;
        if (name) set([name, 'a(st)', [...((found.get(name)?.[2] ?? []) as readonly Device[]).filter(([other]) => other !== path), [path, bytes(number)]]]);
      }
    }
  }
  return [...found.values(), ...sharedProperties(limits)];
}

/**
 * Properties of the scope that is a bundle's group. As runc has it, nothing at shutdown ends it before its caller does (DefaultDependencies). `asked`: by the bundle, before all.
 */
export function bundleProperties(slice: string, description: string, limits: readonly UnifiedLimit[], asked: readonly Property[]): readonly Property[] {
  const all: readonly Property[] = [['Description', 's', description], ['Slice', 's', slice], ...SCOPE, ['DefaultDependencies', 'b', false], ...limitProperties(limits), ...asked];
  // systemd before 242 has no word for the period, and none is needed for its default
  return [...new Map(all.map((property) => [property[0], property])).values()].filter(([name, , value]) => name !== 'CPUQuotaPeriodUSec' || value !== DEFAULT_PERIOD);
}

/** The same as `systemctl set-property` takes them. */
export function assignments(properties: readonly Property[]): readonly string[] {
  return properties.flatMap(([name, signature, value]) => {
    if (signature === 'ay') return [`${name}=${numbersIn(value as readonly number[]).join(' ')}`];
    if (name === 'CPUQuotaPerSecUSec') return [`CPUQuota=${value === 'infinity' ? '' : `${Number(value) / PERCENT_US}%`}`];
    if (name === 'CPUQuotaPeriodUSec') return [`CPUQuotaPeriodSec=${String(value)}us`];
    if (signature !== 'a(st)') return [`${name}=${String(value)}`];
    const seconds = name === 'IODeviceLatencyTargetUSec' ? 'us' : '';
    return (value as readonly Device[]).map(([path, number]) => `${name.replace(/USec$/, 'Sec')}=${path} ${number}${seconds}`);
  });
}
