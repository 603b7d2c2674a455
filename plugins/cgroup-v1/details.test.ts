import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseBlock, readDetails } from './details.ts';
import { type Hierarchy } from './hierarchies.ts';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'cgroup-v1-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A hierarchy whose group `/g` has these files. */
function hierarchy(controllers: readonly string[], files: Readonly<Record<string, string>>): Hierarchy {
  const name = controllers.join(',');
  mkdirSync(join(folder, name, 'g'), { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, name, 'g', file), text);
  return { target: join(folder, name), controllers, version: 1, folder: name, writable: true };
}

it('reads what the kernel counts of a group', () => {
  const hierarchies = [
    hierarchy(['cpu', 'cpuacct'], { 'cpuacct.usage_percpu': '10 20 \n', 'cpuacct.usage_all': 'cpu user system\n0 1 9\n1 2 18\n' }),
    hierarchy(['cpuset'], { 'cpuset.cpus': '0-1\n', 'cpuset.mems': '0\n', 'cpuset.sched_load_balance': '1\n', 'cpuset.sched_relax_domain_level': '-1\n' }),
    hierarchy(['memory'], { 'memory.stat': 'cache 5\nrss 6\n', 'memory.limit_in_bytes': '9223372036854771712\n', 'memory.usage_in_bytes': '7\n', 'memory.max_usage_in_bytes': '8\n', 'memory.failcnt': '1\n', 'memory.kmem.usage_in_bytes': '3\n' }),
    hierarchy(['hugetlb'], { 'hugetlb.2MB.usage_in_bytes': '2097152\n', 'hugetlb.2MB.failcnt': '4\n', 'hugetlb.2MB.rsvd.usage_in_bytes': '0\n' }),
    hierarchy(['blkio'], { 'blkio.throttle.io_serviced_recursive': '8:0 Read 2\n8:0 Total 2\nTotal 2\n', 'blkio.throttle.io_service_bytes_recursive': '8:0 Read 4096\nTotal 4096\n', 'blkio.bfq.io_serviced_recursive': 'Total 0\n' }),
  ];
  expect(readDetails(hierarchies, '/g')).toEqual({
    perCpu: { total: [10, 20], kernel: [9, 18], user: [1, 2] },
    cpuset: { cpus: [0, 1], mems: [0], flags: { sched_load_balance: 1, sched_relax_domain_level: -1 } },
    memory: { cache: 5, rss: 6 },
    counters: { memory: { limit: 9223372036854771712, usage: 7, peak: 8, failures: 1 }, kernel: { usage: 3 } },
    hugetlb: { '2MB': { usage: 2 << 20, failures: 4 } },
    block: { io_service_bytes: [{ major: 8, minor: 0, operation: 'Read', value: 4096 }], io_serviced: [{ major: 8, minor: 0, operation: 'Read', value: 2 }, { major: 8, minor: 0, operation: 'Total', value: 2 }] },
  });
});
it('leaves out what is not there', () => {
  expect(readDetails([], '/g')).toEqual({});
  expect(readDetails([hierarchy(['memory'], {})], '/gone')).toEqual({});
});
it('reads counts of block devices', () => expect(parseBlock('8:0 4096\n253:1 Write 3\nTotal 3\n')).toEqual([{ major: 8, minor: 0, value: 4096 }, { major: 253, minor: 1, operation: 'Write', value: 3 }]));
