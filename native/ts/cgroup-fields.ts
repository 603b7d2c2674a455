import { posix } from 'node:path';
import { effect, op, type Effect } from '@engine/core/plan';
import { fail } from '@engine/core/errors';
import { type LinuxResources } from './cgroup2/types.ts';

/** Which field of `linux.resources` a file of a group, of either version, stands for. */
const FIELDS: readonly (readonly [file: RegExp, field: string])[] = [
  [/^cpuset\.(cpus|mems)$/, 'cpu.$1'], [/^cpu\.(shares|weight)$/, 'cpu.shares'], [/^cpu\.(cfs_quota_us|max)$/, 'cpu.quota'], [/^cpu\.cfs_period_us$/, 'cpu.period'], [/^cpu\.(cfs_burst_us|max\.burst)$/, 'cpu.burst'],
  [/^cpu\.rt_period_us$/, 'cpu.realtimePeriod'], [/^cpu\.rt_runtime_us$/, 'cpu.realtimeRuntime'], [/^cpu\.idle$/, 'cpu.idle'],
  [/^memory\.(limit_in_bytes|max)$/, 'memory.limit'], [/^memory\.(memsw\.limit_in_bytes|swap\.max)$/, 'memory.swap'], [/^memory\.(soft_limit_in_bytes|low)$/, 'memory.reservation'],
  [/^memory\.kmem\.limit_in_bytes$/, 'memory.kernel'], [/^memory\.kmem\.tcp\.limit_in_bytes$/, 'memory.kernelTCP'], [/^memory\.swappiness$/, 'memory.swappiness'], [/^memory\.oom_control$/, 'memory.disableOOMKiller'],
  [/^pids\.max$/, 'pids.limit'], [/^blkio\.bfq\.weight_device$/, 'blockIO.weightDevice'], [/^(blkio|io)\.(bfq\.)?weight$/, 'blockIO.weight'], [/^(blkio\.throttle\..*|io\.max)$/, 'blockIO'],
  [/^hugetlb\./, 'hugepageLimits'], [/^net_cls\./, 'network.classID'], [/^net_prio\./, 'network.priorities'], [/^rdma\./, 'rdma'],
];
/** The field that `file` is written for: `cpu.cpus`, `unified.memory.high`. */
export function fieldOfFile(file: string, resources: LinuxResources): string {
  if (resources.unified?.[file] !== undefined) return `unified.${file}`;
  for (const [pattern, field] of FIELDS) if (pattern.test(file)) return file.replace(pattern, field);
  return file;
}

export interface LimitWrite { readonly folder: string; readonly file: string; readonly value: string }
/**
 * Another value for a limit of a group in use. `before`: the values that make it what it is now, in the order in which they are to be written. One that cannot be put back is no work
 * for the next start: it would meet another group then, or limits that were set since.
 */
export function limitEffect({ folder, file, value }: LimitWrite, before: readonly Pick<LimitWrite, 'file' | 'value'>[] | { readonly none: string }, resources: LinuxResources): Effect {
  const write = (to: string, text: string, optional: boolean) => op.writeFile({ path: posix.join(folder, to), data: Buffer.from(text) }, ...(optional ? [{ optional }] : []));
  const undo = 'none' in before ? before : before.map((one) => write(one.file, one.value, true));
  return { ...effect(write(file, value, false), undo), asked: fieldOfFile(file, resources) };
}

/** Is a group idle, and what is asked for beside that? The kernel takes no weight for an idle group (EINVAL, Linux 5.15), and forgets the one it had. */
export function refuseIdleShares(idle: boolean, { cpu = {}, unified = {} }: LinuxResources, weight: string): void {
  const named = cpu.shares && cpu.idle !== 1 ? 'cpu.shares' : unified[weight] === undefined ? undefined : `unified.${weight}`;
  if (!idle || cpu.idle === 0 || unified['cpu.idle'] === '0' || named === undefined) return;
  throw fail('ERR_INVALID_VALUE', `${named}: the container is idle (cpu.idle 1) and has no weight that could be set`, { path: named, hint: 'set cpu.idle to 0 with it' });
}
