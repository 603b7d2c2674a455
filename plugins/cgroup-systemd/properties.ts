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
  return [['Description', 's', description], ['Slice', 's', slice], ...SCOPE, ...sharedProperties(limits)];
}

/** The same as `systemctl set-property` takes them. */
export function assignments(properties: readonly Property[]): readonly string[] {
  return properties.flatMap(([name, signature, value]) => {
    if (signature !== 'a(st)') return [`${name}=${String(value)}`];
    const seconds = name === 'IODeviceLatencyTargetUSec' ? 'us' : '';
    return (value as readonly Device[]).map(([path, number]) => `${name.replace(/USec$/, 'Sec')}=${path} ${number}${seconds}`);
  });
}
