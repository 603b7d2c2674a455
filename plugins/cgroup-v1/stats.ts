import { readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { type GroupStats } from '@engine/core/contracts/cgroup';
import { hierarchyOf, type Hierarchy } from './hierarchies.ts';

/** PAGE_COUNTER_MAX, rounded down to a page, is "no limit". */
const NO_LIMIT = 2 ** 62;

export function readGroupFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** Is the group in freezer folder `folder` stopped, or about to be? */
export const isFrozenState = (folder: string): boolean => /^(FROZEN|FREEZING)/.test(readGroupFile(posix.join(folder, 'freezer.state')) ?? '');

/** Numbers of the group at `path` below each hierarchy; what can't be read is left out. */
export function readStats(hierarchies: readonly Hierarchy[], path: string): GroupStats {
  const read = (controller: string, file: string): string | undefined => {
    const hierarchy = hierarchyOf(hierarchies, controller);
    return hierarchy ? readGroupFile(posix.join(hierarchy.target, path, file)) : undefined;
  };
  const number = (text: string | undefined): number | undefined => {
    const value = text === undefined ? NaN : Number(text.trim());
    return Number.isNaN(value) ? undefined : value;
  };
  const field = (text: string | undefined, name: string): number | undefined => number(text?.match(new RegExp(`^${name} (\\d+)$`, 'm'))?.[1]);
  const limited = (value: number | undefined): number | undefined => (value === undefined || value >= NO_LIMIT ? undefined : value);
  const less = (whole: number | undefined, part: number | undefined): number | undefined => (whole === undefined || part === undefined ? undefined : Math.max(0, whole - part));
  /** Lines `8:0 Read 4096`, with a sum for all devices last. */
  const sum = (text: string | undefined, kind: string): number | undefined => (text === undefined ? undefined : [...text.matchAll(new RegExp(`^\\d+:\\d+ ${kind} (\\d+)$`, 'gm'))].reduce((all, [, value]) => all + Number(value), 0));
  const cpu = read('cpu', 'cpu.stat');
  const memory = read('memory', 'memory.usage_in_bytes');
  const limit = limited(number(read('memory', 'memory.limit_in_bytes')));
  const bytes = read('blkio', 'blkio.throttle.io_service_bytes_recursive');
  const operations = read('blkio', 'blkio.throttle.io_serviced_recursive');
  const values: { [K in keyof GroupStats]: GroupStats[K] | undefined } = {
    cpuNanoseconds: number(read('cpuacct', 'cpuacct.usage')),
    cpuUserNanoseconds: number(read('cpuacct', 'cpuacct.usage_user')),
    cpuSystemNanoseconds: number(read('cpuacct', 'cpuacct.usage_sys')),
    periods: field(cpu, 'nr_periods'),
    throttledPeriods: field(cpu, 'nr_throttled'),
    throttledNanoseconds: field(cpu, 'throttled_time'),
    memoryBytes: number(memory),
    memoryInactiveFileBytes: memory === undefined ? undefined : field(read('memory', 'memory.stat'), 'total_inactive_file'),
    memoryPeakBytes: number(read('memory', 'memory.max_usage_in_bytes')),
    memoryLimitBytes: limit,
    swapBytes: less(number(read('memory', 'memory.memsw.usage_in_bytes')), number(memory)),
    swapLimitBytes: less(limited(number(read('memory', 'memory.memsw.limit_in_bytes'))), limit),
    pids: number(read('pids', 'pids.current')),
    pidsLimit: number(read('pids', 'pids.max')),
    oomKills: field(read('memory', 'memory.oom_control'), 'oom_kill'),
    blockReadBytes: sum(bytes, 'Read'),
    blockWriteBytes: sum(bytes, 'Write'),
    blockReads: sum(operations, 'Read'),
    blockWrites: sum(operations, 'Write'),
  };
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as GroupStats;
}
