import { growthPerThousand } from '../soak/flat.ts';
import { type Outcome, type Row } from './outcome.ts';

export interface Goal {
  readonly text: string;
  /** Undefined: not measured in this run. */
  readonly met: boolean | undefined;
  /** What was measured, in words. */
  readonly found: string;
}

const names = { pooled: 'engine, pooled', unpooled: 'engine', cold: 'engine, cold' } as const;

/** A comparison `value <= limit`; unmeasured when either is missing. */
function atMost(text: string, value: number | undefined, limit: number, digits = 2): Goal {
  if (value === undefined || Number.isNaN(value)) return { text, met: undefined, found: 'not measured' };
  return { text, met: value <= limit, found: value.toFixed(digits) };
}
function atLeast(text: string, value: number | undefined, limit: number, digits = 0): Goal {
  if (value === undefined || Number.isNaN(value)) return { text, met: undefined, found: 'not measured' };
  return { text, met: value >= limit, found: value.toFixed(digits) };
}
const ratio = (a: number | undefined, b: number | undefined): number | undefined => (a === undefined || b === undefined ? undefined : a / b);

/** The goals for one run on one machine: network none, idle, median until answered, if nothing else is said. */
export function goals(outcomes: readonly Outcome[]): Goal[] {
  const row = (scenario: string, name: string): Row | undefined => outcomes.find((one) => one.scenario === scenario)?.rows.find((one) => one.name === name);
  const idle = (name: string): number | undefined => row('idle-none', name)?.answered?.p50;
  const tail = (name: string): number | undefined => ratio(row('idle-none', name)?.answered?.p99, idle(name));
  const gone = (name: string): number | undefined => ratio(row('idle-none', name)?.gone?.p50, row('idle-none', 'crun')?.gone?.p50);
  const rate = (name: string): number | undefined => ratio(row('eight', name)?.rate, row('eight', 'docker')?.rate);
  const many = row('many', names.unpooled);
  const memory = outcomes.find(({ scenario }) => scenario === 'memory');
  const shims = memory?.rows.filter((one) => one.own && one.name.includes('shim')).flatMap(({ memory: kb }) => (kb === undefined ? [] : [kb])) ?? [];
  const growth = memory?.growth ?? [];
  const bridged = (name: string): Row | undefined => row('idle-bridge', name);
  const extra = (name: string): number | undefined => {
    const { answered, plain } = bridged(name) ?? {};
    return answered && plain !== undefined ? answered.p50 - plain : undefined;
  };
  const faster = (name: string): number | undefined => ratio(bridged('docker')?.answered?.p50, bridged(name)?.answered?.p50);
  const share = (name: string): number | undefined => row('throughput', name)?.share;
  const ports = (name: string): number | undefined => {
    const by = row('ports', name)?.by;
    return ratio(by?.at(-1)?.[1], by?.[0]?.[1]);
  };
  const cycle = (name: string): number | undefined => row('oci-cycle', name)?.answered?.p50;
  const below = (name: string): number | undefined => row('oci-docker', name)?.answered?.p50;
  const saved = (): number | undefined => {
    const [runc, ours, cost] = [below('runc'), below('engine-oci'), cycle('runc')];
    return runc === undefined || ours === undefined || cost === undefined ? undefined : (runc - ours) / cost;
  };
  return [
    atMost('unpooled takes at most 0.6 of `crun run` on a bare bundle', ratio(idle(names.unpooled), idle('crun')), 0.6),
    atMost('pooled takes at most 0.35 of it', ratio(idle(names.pooled), idle('crun')), 0.35),
    atLeast('docker takes at least 40 times as long as unpooled', ratio(idle('docker'), idle(names.unpooled)), 40, 1),
    atLeast('docker takes at least 40 times as long as pooled', ratio(idle('docker'), idle(names.pooled)), 40, 1),
    atMost('unpooled: p99 is at most 3 times the median', tail(names.unpooled), 3),
    atMost('pooled: p99 is at most 3 times the median', tail(names.pooled), 3),
    atMost('unpooled: everything is gone in at most 1.5 times crun\'s time', gone(names.unpooled), 1.5),
    atMost('pooled: everything is gone in at most 1.5 times crun\'s time', gone(names.pooled), 1.5),
    atLeast("8 clients, fully gone: at least 40 times docker's rate, unpooled", rate(names.unpooled), 40, 1),
    atLeast("8 clients, fully gone: at least 40 times docker's rate, pooled", rate(names.pooled), 40, 1),
    atMost("the 500th starts in at most 1.2 times the first's time", many && many.runs === 500 ? ratio(many.last, many.first) : undefined, 1.2),
    atMost('a shim takes at most 100 KB (PSS)', shims.length > 0 ? Math.max(...shims) : undefined, 100, 0),
    atMost('engined takes at most 80 MB (RSS) while it starts containers, after 10,000 of them', growth.at(-1)?.[0] === 10_000 ? (growth.at(-1)?.[1] ?? NaN) / 1024 : undefined, 80, 1),
    atMost('the same when it has been quiet for five seconds', growth.at(-1)?.[0] === 10_000 && memory?.settled !== undefined ? memory.settled / 1024 : undefined, 80, 1),
    atMost('engined grows by less than 1 MB per 1,000 of 10,000 starts', growth.at(-1)?.[0] === 10_000 ? growthPerThousand(growth.map(([starts, kb]) => [starts, kb / 1024])) : undefined, 1),
    atMost('cold, `--no-daemon`: at most 4 times crun', ratio(idle(names.cold), idle('crun')), 4),
    atMost('bridge: at most 1.5 ms more than none, unpooled', extra(names.unpooled), 1.5),
    atMost('bridge: at most 1.5 ms more than none, pooled', extra(names.pooled), 1.5),
    atLeast("bridge: docker's takes at least 50 times as long as unpooled", faster(names.unpooled), 50, 1),
    atLeast("bridge: docker's takes at least 50 times as long as pooled", faster(names.pooled), 50, 1),
    atLeast("bridge, 8 clients, fully gone: at least 30 times docker's rate, unpooled", ratio(row('eight-bridge', names.unpooled)?.rate, row('eight-bridge', 'docker')?.rate), 30, 1),
    atLeast("bridge, 8 clients, fully gone: at least 30 times docker's rate, pooled", ratio(row('eight-bridge', names.pooled)?.rate, row('eight-bridge', 'docker')?.rate), 30, 1),
    atLeast('a published port, from this host: at least 0.95 of the throughput of a bare veth pair', share('published port, from this host'), 0.95, 3),
    atLeast('container to container: at least 0.95 of it', share('container to container'), 0.95, 3),
    atLeast('a published port, from another host: at least 0.95 of two bare pairs that this host routes between', row('throughput', 'published port, from another host')?.shareRouted, 0.95, 3),
    atMost('with a port, unpooled: beside 500 published ports at most 1.1 times as long as beside one', ports(names.unpooled), 1.1),
    atMost('with a port, pooled: the same', ports(names.pooled), 1.1),
    atMost('the rules of 400 containers are back in less than 1,000 ms', row('restore', 'engine, 400 containers with a published port')?.took, 1000, 0),
    atMost('engine-oci, resident: create, start and delete take at most 0.6 of crun\'s time', ratio(cycle('engine-oci'), cycle('crun')), 0.6),
    atMost('and at most 0.2 of runc\'s', ratio(cycle('engine-oci'), cycle('runc')), 0.2),
    atLeast('`docker run` with engine-oci below it is faster than with runc by at least 0.8 of what runc takes for the three', saved(), 0.8, 2),
  ];
}

export const formatGoal = ({ text, met, found }: Goal): string => `${met === undefined ? 'not measured' : met ? 'met' : 'not met'} | ${text} | ${found}`;
