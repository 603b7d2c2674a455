import { readdirSync } from 'node:fs';
import { posix } from 'node:path';
import { type BlockCount, type GroupDetails, type ResourceCounter } from '@engine/core/contracts/cgroup';
import { parseFlat, parseList } from '@engine/native/cgroup2/stats';
import { hierarchyOf, type Hierarchy } from './hierarchies.ts';
import { readGroupFile } from './stats.ts';

const CPUSET_FLAGS = ['cpu_exclusive', 'mem_hardwall', 'mem_exclusive', 'memory_migrate', 'memory_spread_page', 'memory_spread_slab', 'memory_pressure', 'sched_load_balance', 'sched_relax_domain_level'];
/** Who counts block I/O: the scheduler bfq, CFQ before Linux 5.0, or else throttling, which counts the first two alone. */
const BLOCK_SOURCES = ['blkio.bfq.', 'blkio.', 'blkio.throttle.'];
const BLOCK_KINDS = ['io_service_bytes', 'io_serviced', 'io_queued', 'io_service_time', 'io_wait_time', 'io_merged', 'time', 'sectors'];

/** Lines `8:0 Read 4096` or `8:0 4096`; the sum over all devices is left out. */
export function parseBlock(text: string | undefined): readonly BlockCount[] {
  return [...(text ?? '').matchAll(/^(\d+):(\d+)(?: (\w+))? (\d+)$/gm)].map(([, major, minor, operation, value]) => ({ major: Number(major), minor: Number(minor), ...(operation !== undefined && { operation }), value: Number(value) }));
}

/** What {@link GroupDetails} says of the group at `path` below each hierarchy. */
export function readDetails(hierarchies: readonly Hierarchy[], path: string): GroupDetails {
  const folderOf = (controller: string): string | undefined => {
    const target = hierarchyOf(hierarchies, controller)?.target;
    return target === undefined ? undefined : posix.join(target, path);
  };
  const read = (controller: string, file: string): string | undefined => {
    const folder = folderOf(controller);
    return folder === undefined ? undefined : readGroupFile(posix.join(folder, file));
  };
  const counter = (controller: string, prefix: string): ResourceCounter | undefined => {
    const files = { limit: 'limit_in_bytes', usage: 'usage_in_bytes', peak: 'max_usage_in_bytes', failures: 'failcnt' };
    const entries = Object.entries(files).flatMap(([key, file]) => {
      const text = read(controller, `${prefix}.${file}`);
      return text === undefined ? [] : [[key, Number(text)] as const];
    });
    return entries.length > 0 ? Object.fromEntries(entries) : undefined;
  };
  const some = <T>(entries: readonly (readonly [string, T | undefined])[]): Record<string, T> | undefined => {
    const found = entries.filter((entry): entry is [string, T] => entry[1] !== undefined);
    return found.length > 0 ? Object.fromEntries(found) : undefined;
  };
  const numbers = (text: string | undefined): number[] | undefined => text?.trim().split(/\s+/).map(Number);

  const total = numbers(read('cpuacct', 'cpuacct.usage_percpu'));
  // a head line, then `cpu user system`
  const byCpu = read('cpuacct', 'cpuacct.usage_all')?.trim().split('\n').slice(1).map((line) => line.split(' ').map(Number));
  const cpus = read('cpuset', 'cpuset.cpus');
  const stat = read('memory', 'memory.stat');
  const source = BLOCK_SOURCES.find((prefix) => parseBlock(read('blkio', `${prefix}io_serviced_recursive`)).length > 0);
  const blkio = source === undefined ? undefined : some(BLOCK_KINDS.map((kind) => {
    const counts = parseBlock(read('blkio', `${source}${kind}_recursive`));
    return [kind, counts.length > 0 ? counts : undefined] as const;
  }));
  const pages = folderOf('hugetlb');
  const sizes = pages === undefined ? [] : filesOf(pages).flatMap((name) => /^hugetlb\.(\w+)\.usage_in_bytes$/.exec(name)?.[1] ?? []).filter((size) => !size.endsWith('rsvd'));
  const values: { [K in keyof GroupDetails]: GroupDetails[K] | undefined } = {
    perCpu: total && { total, ...(byCpu && { kernel: byCpu.map((line) => line[2] ?? 0), user: byCpu.map((line) => line[1] ?? 0) }) },
    cpuset: cpus === undefined ? undefined : { cpus: parseList(cpus), mems: parseList(read('cpuset', 'cpuset.mems')), flags: some(CPUSET_FLAGS.map((name) => { const text = read('cpuset', `cpuset.${name}`); return [name, text === undefined ? undefined : Number(text)] as const; })) ?? {} },
    memory: stat === undefined ? undefined : parseFlat(stat),
    counters: some([['memory', counter('memory', 'memory')], ['swap', counter('memory', 'memory.memsw')], ['kernel', counter('memory', 'memory.kmem')], ['kernelTcp', counter('memory', 'memory.kmem.tcp')]]),
    hugetlb: some(sizes.map((size) => [size, counter('hugetlb', `hugetlb.${size}`)] as const)),
    block: blkio,
  };
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as GroupDetails;
}

function filesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it has just gone
  }
}
