import { readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { type GroupStats, type Pressure } from '@engine/core/contracts/cgroup';

/** A file of a group as text; undefined: not there. */
export type ReadFile = (path: string) => string | undefined;

export const readFile: ReadFile = (path) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
};

/** Lines `key value`. */
export function parseFlat(text: string | undefined): Readonly<Record<string, number>> {
  return Object.fromEntries((text ?? '').split('\n').flatMap((line) => {
    const [key, value] = line.split(' ');
    return key && value !== undefined ? [[key, Number(value)]] : [];
  }));
}

/** Ranges as of CPUs: `0-3,8`. */
export function parseList(text: string | undefined): number[] {
  return (text ?? '').trim().split(',').filter(Boolean).flatMap((range) => {
    const [first = NaN, last = first] = range.split('-').map(Number);
    return Array.from({ length: Math.max(0, last - first + 1) || 0 }, (_, i) => first + i);
  });
}

/** A file of PSI: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`. */
export function parsePressure(text: string | undefined): { some?: Pressure; full?: Pressure } | undefined {
  const found: { some?: Pressure; full?: Pressure } = {};
  for (const line of (text ?? '').split('\n')) {
    const [kind, ...fields] = line.split(' ');
    if (kind !== 'some' && kind !== 'full') continue;
    const of = Object.fromEntries(fields.map((field) => field.split('='))) as Record<string, string>;
    found[kind] = { avg10: Number(of['avg10'] ?? 0), avg60: Number(of['avg60'] ?? 0), avg300: Number(of['avg300'] ?? 0), total: Number(of['total'] ?? 0) };
  }
  return found.some || found.full ? found : undefined;
}

/** io.stat: sums over all devices. */
export function parseIo(text: string | undefined): { rbytes: number; wbytes: number; rios: number; wios: number } | undefined {
  if (text === undefined) return undefined;
  const sum = { rbytes: 0, wbytes: 0, rios: 0, wios: 0 };
  for (const [, key, value] of text.matchAll(/\b(rbytes|wbytes|rios|wios)=(\d+)/g)) sum[key as 'rios'] += Number(value);
  return sum;
}

/** Numbers of the group in `folder`; what is not there is left out. */
export function readUnifiedStats(folder: string, read: ReadFile = readFile): GroupStats {
  const text = (file: string): string | undefined => read(posix.join(folder, file));
  const number = (file: string): number | undefined => {
    const value = Number(text(file)?.trim() || NaN); // "max" is no limit
    return Number.isNaN(value) ? undefined : value;
  };
  const times = (key: number | undefined, factor: number): number | undefined => (key === undefined ? undefined : key * factor);
  const cpu = parseFlat(text('cpu.stat'));
  const io = parseIo(text('io.stat'));
  const memoryBytes = number('memory.current');
  const pressures = (['cpu', 'memory', 'io'] as const).flatMap((name) => {
    const pressure = parsePressure(text(`${name}.pressure`));
    return pressure ? [[name, pressure] as const] : [];
  });
  const values: { [K in keyof GroupStats]: GroupStats[K] | undefined } = {
    cpuNanoseconds: times(cpu['usage_usec'], 1000),
    cpuUserNanoseconds: times(cpu['user_usec'], 1000),
    cpuSystemNanoseconds: times(cpu['system_usec'], 1000),
    periods: cpu['nr_periods'],
    throttledPeriods: cpu['nr_throttled'],
    throttledNanoseconds: times(cpu['throttled_usec'], 1000),
    memoryBytes,
    memoryInactiveFileBytes: memoryBytes === undefined ? undefined : parseFlat(text('memory.stat'))['inactive_file'],
    memoryPeakBytes: number('memory.peak'), // Linux 5.19
    memoryLimitBytes: number('memory.max'),
    swapBytes: number('memory.swap.current'),
    swapLimitBytes: number('memory.swap.max'),
    pids: number('pids.current'),
    pidsLimit: number('pids.max'),
    // hierarchical: a process in a group that the container made counts too
    oomKills: parseFlat(text('memory.events'))['oom_kill'],
    blockReadBytes: io?.rbytes,
    blockWriteBytes: io?.wbytes,
    blockReads: io?.rios,
    blockWrites: io?.wios,
    pressure: pressures.length > 0 ? Object.fromEntries(pressures) : undefined,
  };
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as GroupStats;
}
