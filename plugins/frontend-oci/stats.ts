import { type BundleStats } from '@engine/core/api';

type Details = NonNullable<BundleStats['details']>;
type Counter = NonNullable<NonNullable<Details['counters']>['memory']>;

/** What v2 calls "max" is this in runc's answers. */
const NO_LIMIT = 2n ** 64n - 1n;
/** Fields of cpuset as runc has them: 0 where the kernel has no such flag (v2). */
const CPUSET_FLAGS = ['cpu_exclusive', 'mem_hardwall', 'mem_exclusive', 'memory_migrate', 'memory_spread_page', 'memory_spread_slab', 'memory_pressure', 'sched_load_balance', 'sched_relax_domain_level'];
const BLOCK: Readonly<Record<string, string>> = {
  io_service_bytes: 'ioServiceBytesRecursive', io_serviced: 'ioServicedRecursive', io_queued: 'ioQueueRecursive', io_service_time: 'ioServiceTimeRecursive',
  io_wait_time: 'ioWaitTimeRecursive', io_merged: 'ioMergedRecursive', time: 'ioTimeRecursive', sectors: 'sectorsRecursive',
};

/** What Go leaves out when it is 0, '' or empty. */
const some = (fields: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== 0 && value !== '' && !(Array.isArray(value) && value.length === 0)));

function entry(counter: Counter | undefined): unknown {
  if (!counter) return { limit: 0, failcnt: 0 };
  return { limit: counter.limit ?? NO_LIMIT, ...some({ usage: counter.usage, max: counter.peak }), failcnt: counter.failures ?? 0 };
}

/** Data of an event `stats`, field by field as runc prints it. Numbers of over 2^53 are bigints or doubles that hold them exactly. */
export function statsJson({ group, details = {}, interfaces }: BundleStats): unknown {
  const { perCpu, cpuset, memory, counters, hugetlb = {}, block = {} } = details;
  const whole = group.memoryBytes === undefined ? undefined : { limit: group.memoryLimitBytes ?? 0, usage: group.memoryBytes, ...(group.memoryPeakBytes !== undefined && { peak: group.memoryPeakBytes }) };
  return {
    cpu: {
      usage: { ...some({ total: group.cpuNanoseconds, percpu: perCpu?.total, percpu_kernel: perCpu?.kernel, percpu_user: perCpu?.user }), kernel: group.cpuSystemNanoseconds ?? 0, user: group.cpuUserNanoseconds ?? 0 },
      throttling: some({ periods: group.periods, throttledPeriods: group.throttledPeriods, throttledTime: group.throttledNanoseconds }),
    },
    cpuset: { ...some({ cpus: cpuset?.cpus, mems: cpuset?.mems }), ...Object.fromEntries(CPUSET_FLAGS.map((name) => [name, cpuset?.flags[name] ?? 0])) },
    memory: {
      ...some({ cache: memory?.['cache'] ?? memory?.['file'] }), usage: entry(counters?.memory ?? whole), swap: entry(counters?.swap), kernel: entry(counters?.kernel), kernelTCP: entry(counters?.kernelTcp), ...(memory && { raw: memory }),
    },
    pids: some({ current: group.pids, limit: group.pidsLimit }),
    blkio: some(Object.fromEntries(Object.entries(block).flatMap(([kind, counts]) => {
      const name = BLOCK[kind];
      return name === undefined ? [] : [[name, counts.map(({ major, minor, operation, value }) => some({ major, minor, op: operation, value }))]];
    }))),
    hugetlb: Object.fromEntries(Object.entries(hugetlb).map(([size, { usage, peak, failures }]) => [size, { ...some({ usage, max: peak }), failcnt: failures ?? 0 }])),
    intel_rdt: {},
    // without names of their own in runc's JSON, they are Go's
    network_interfaces: interfaces.length === 0 ? null : interfaces.map((one) => ({ Name: one.name, RxBytes: one.rxBytes, RxPackets: one.rxPackets, RxErrors: one.rxErrors, RxDropped: one.rxDropped, TxBytes: one.txBytes, TxPackets: one.txPackets, TxErrors: one.txErrors, TxDropped: one.txDropped })),
  };
}

/** JSON whose whole numbers are written digit by digit, as Go does: a double's shortest form has other digits from 2^53 on. */
export function exactNumbers(value: unknown): string {
  const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
  return JSON.stringify(value, (_key, item: unknown) => {
    if (typeof item === 'bigint') return rawJSON(String(item));
    return typeof item === 'number' && Number.isInteger(item) && !Number.isSafeInteger(item) ? rawJSON(String(BigInt(item))) : item;
  });
}
