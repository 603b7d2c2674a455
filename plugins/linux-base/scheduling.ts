import { fail } from '@engine/core/errors';
import { op } from '@engine/core/plan';
import { type PlanWriter } from '@engine/core/hooks';
import { type Scheduler } from '@engine/core/spec';
import { SCHED, SCHED_FLAG } from './kernel.ts';

const REALTIME: ReadonlySet<string> = new Set(['SCHED_FIFO', 'SCHED_RR']);
function known(table: Readonly<Record<string, number>>, name: string, field: string): number {
  const value = table[name];
  if (value === undefined) throw fail('ERR_INVALID_VALUE', `${field}: unknown value ${name}`, { path: field, hint: `known are ${Object.keys(table).join(', ')}` });
  return value;
}

/** `process.scheduler` as sched_setattr(2) takes it. Errors: ERR_INVALID_VALUE: what the policy does not have. */
export function planScheduler(plan: PlanWriter, scheduler: Scheduler, part: 'init' | 'exec'): void {
  const { policy, nice = 0, priority = 0, flags = [], runtime = 0, deadline = 0, period = 0 } = scheduler;
  const field = 'process.scheduler';
  const number = known(SCHED, policy, `${field}.policy`);
  const bad = (name: string, why: string): Error => fail('ERR_INVALID_VALUE', `${field}.${name}: ${why}`, { path: `${field}.${name}` });
  if (nice < -20 || nice > 19) throw bad('nice', `${nice} is not in -20..19`);
  if (REALTIME.has(policy) ? priority < 1 || priority > 99 : priority !== 0) throw bad('priority', REALTIME.has(policy) ? `${priority} is not in 1..99` : `${policy} has none`);
  const times = { runtime, deadline, period };
  if (policy !== 'SCHED_DEADLINE') for (const [name, value] of Object.entries(times)) if (BigInt(value) !== 0n) throw bad(name, `${policy} has none`);
  const bits = flags.reduce((sum, flag) => sum | known(SCHED_FLAG, flag, `${field}.flags`), 0);
  plan.at('/process/scheduler').add(`${part}.limits`, op.setScheduler({ policy: number, flags: BigInt(bits), nice, priority, runtime: BigInt(runtime), deadline: BigInt(deadline), period: BigInt(period) }));
}

/** `0-3,7` as a bit mask, CPU n in bit n % 8 of byte n / 8; undefined for none. Errors: ERR_INVALID_VALUE. */
export function affinityMask(text: string | undefined, field: string): Uint8Array | undefined {
  if (!text) return undefined;
  const cpus = text.split(',').flatMap((range) => {
    const [, from = '', to = from] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(range.trim()) ?? [];
    const [low, high] = [Number(from), Number(to)];
    // more than Linux can be built for (NR_CPUS)
    if (from === '' || high < low || high > 8191) throw fail('ERR_INVALID_VALUE', `${field}: ${JSON.stringify(text)} is no list of CPUs`, { path: field, hint: 'write it like 0-3,7' });
    return Array.from({ length: high - low + 1 }, (_, i) => low + i);
  });
  const mask = new Uint8Array((Math.max(...cpus) >> 3) + 1);
  for (const cpu of cpus) mask[cpu >> 3] = (mask[cpu >> 3] as number) | (1 << (cpu & 7));
  return mask;
}
