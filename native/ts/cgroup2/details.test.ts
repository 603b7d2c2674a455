import { expect, it } from 'vitest';
import { readUnifiedDetails } from './details.ts';
import { parseList } from './stats.ts';

const files: Readonly<Record<string, string>> = {
  'memory.current': '1048576\n', 'memory.max': 'max\n', 'memory.peak': '2097152\n', 'memory.swap.current': '4096\n', 'memory.swap.max': '8192\n',
  'memory.events': 'low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n', 'memory.swap.events': 'high 0\nmax 0\nfail 3\n', 'memory.stat': 'anon 100\nfile 200\n',
  'cpuset.cpus.effective': '0-2,5\n', 'cpuset.mems.effective': '0\n',
  'io.stat': '8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:0 \n253:0 rbytes=10 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n',
  'hugetlb.2MB.current': '0\n', 'hugetlb.2MB.max': '4194304\n', 'hugetlb.2MB.events': 'max 9\n', 'hugetlb.2MB.rsvd.current': '0\n',
};
const read = (path: string): string | undefined => files[path.replace('/g/', '')];

it('reads what the kernel counts of a group on v2', () => {
  expect(readUnifiedDetails('/g', read, () => Object.keys(files))).toEqual({
    cpuset: { cpus: [0, 1, 2, 5], mems: [0], flags: {} },
    memory: { anon: 100, file: 200 },
    counters: { memory: { usage: 1 << 20, peak: 2 << 20, failures: 7 }, swap: { usage: (1 << 20) + 4096, failures: 3 } },
    hugetlb: { '2MB': { limit: 4 << 20, usage: 0, failures: 9 } },
    block: {
      io_service_bytes: [{ major: 8, minor: 16, operation: 'Read', value: 1 }, { major: 8, minor: 16, operation: 'Write', value: 2 }, { major: 8, minor: 16, operation: 'Discard', value: 5 }, { major: 253, minor: 0, operation: 'Read', value: 10 }, { major: 253, minor: 0, operation: 'Write', value: 0 }, { major: 253, minor: 0, operation: 'Discard', value: 0 }],
      io_serviced: [{ major: 8, minor: 16, operation: 'Read', value: 3 }, { major: 8, minor: 16, operation: 'Write', value: 4 }, { major: 8, minor: 16, operation: 'Discard', value: 6 }, { major: 253, minor: 0, operation: 'Read', value: 1 }, { major: 253, minor: 0, operation: 'Write', value: 0 }, { major: 253, minor: 0, operation: 'Discard', value: 0 }],
    },
  });
});
it('leaves out what is not there', () => expect(readUnifiedDetails('/g', () => undefined, () => [])).toEqual({}));
it('reads ranges', () => expect(['', '\n', '3', '0-1,7-7'].map(parseList)).toEqual([[], [], [3], [0, 1, 7]]));
