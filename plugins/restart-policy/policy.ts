import { fail } from '@engine/core/errors';
import { type ContainerRequest, type ExitRecord } from '@engine/core/api';

export type Policy = NonNullable<ContainerRequest['restart']>;

/** Back-off between the end of a run and the next start, ms: doubles from the first to the longest, starts over after a run that went well for so long. */
export const FIRST_DELAY = 100;
export const LONGEST_DELAY = 60_000;
export const WELL = 10_000;

export function nextDelay(last: number, ranFor = 0): number {
  return last === 0 || ranFor >= WELL ? FIRST_DELAY : Math.min(last * 2, LONGEST_DELAY);
}

/** How long a run lasted, ms. */
export function ranFor({ startedAt, finishedAt }: ExitRecord): number {
  return startedAt === undefined ? 0 : Math.max(0, Date.parse(finishedAt) - Date.parse(startedAt));
}

/** Is a container to be started again that nobody has stopped? `count`: how often it was already, since somebody started it. */
export function wantsRestart({ policy, maximum }: Policy, failed: boolean, count: number): boolean {
  if (policy === 'on-failure') return failed && !isExhausted({ policy, maximum }, count);
  return policy !== 'no';
}

export const isExhausted = ({ policy, maximum }: Policy, count: number): boolean => policy === 'on-failure' && maximum > 0 && count >= maximum;

/** The policy must go with the rest of the request. Errors: ERR_INVALID_VALUE. */
export function checkPolicy({ restart, autoRemove }: Pick<ContainerRequest, 'restart' | 'autoRemove'>): void {
  if (!restart) return;
  const { policy, maximum } = restart;
  const wrong = (message: string): Error => fail('ERR_INVALID_VALUE', message, { operation: '--restart', path: policy });
  if (policy !== 'on-failure' && maximum !== 0) throw wrong(`maximum retry count cannot be used with restart policy '${policy}'`);
  if (maximum < 0) throw wrong('maximum retry count cannot be negative');
  if (autoRemove && policy !== 'no') throw wrong('conflicting options: --restart and --rm');
}
