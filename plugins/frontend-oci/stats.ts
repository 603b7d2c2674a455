import { type BundleStats } from '@engine/core/api';

/** Data of an event `stats`, field by field as runc prints it: what Go leaves out when it is 0 is left out. */
export function statsJson({ group, interfaces }: BundleStats): unknown {
  const some = (fields: Readonly<Record<string, unknown>>): Record<string, unknown> => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== 0));
  const entry = (limit = 0, usage?: number, max?: number, failcnt = 0): unknown => ({ limit, ...some({ usage, max }), failcnt });
  return {
    cpu: {
      usage: { ...some({ total: group.cpuNanoseconds }), kernel: group.cpuSystemNanoseconds ?? 0, user: group.cpuUserNanoseconds ?? 0 },
      throttling: some({ periods: group.periods, throttledPeriods: group.throttledPeriods, throttledTime: group.throttledNanoseconds }),
    },
    memory: { usage: entry(group.memoryLimitBytes, group.memoryBytes, group.memoryPeakBytes), swap: entry(group.swapLimitBytes, group.swapBytes) },
    pids: some({ current: group.pids, limit: group.pidsLimit }),
    // without names of their own in runc's JSON, they are Go's
    network_interfaces: interfaces.length === 0 ? null : interfaces.map((one) => ({ Name: one.name, RxBytes: one.rxBytes, RxPackets: one.rxPackets, RxErrors: one.rxErrors, RxDropped: one.rxDropped, TxBytes: one.txBytes, TxPackets: one.txPackets, TxErrors: one.txErrors, TxDropped: one.txDropped })),
  };
}
