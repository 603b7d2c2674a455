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
