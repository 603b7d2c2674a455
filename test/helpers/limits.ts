import { readFileSync } from 'node:fs';
import { unified } from './cgroup.ts';
import { type TestEngine } from './engine.ts';

/** What the kernel holds of a container's group, as the container sees it: a file of v1 (with its folder), or of v2. */
export const limitOf = (engine: TestEngine, name: string, v1: string, v2: string): Promise<string> => engine.ok('exec', name, 'cat', `/sys/fs/cgroup/${unified ? v2 : v1}`);

/** Bytes of memory that a container may use. */
export async function memoryLimit(engine: TestEngine, name: string): Promise<number> {
  return Number(await limitOf(engine, name, 'memory/memory.limit_in_bytes', 'memory.max'));
}
/** CPUs that a container may use, 0 for all. */
export async function cpuLimit(engine: TestEngine, name: string): Promise<number> {
  const [quota, period] = unified ? (await limitOf(engine, name, '', 'cpu.max')).split(' ') : [await limitOf(engine, name, 'cpu/cpu.cfs_quota_us', ''), await limitOf(engine, name, 'cpu/cpu.cfs_period_us', '')];
  return quota === 'max' || quota === '-1' ? 0 : Number(quota) / Number(period);
}

/** Time that a process has had, in ticks, by /proc. */
export function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ').map(Number);
  return (fields[11] ?? 0) + (fields[12] ?? 0);
}
