import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { reach, reachOwn, REACH_PATIENCE } from './reach.ts';

beforeEach(() => { vi.useFakeTimers(); });
afterEach(() => { vi.useRealTimers(); });

it('gives up on what never answers, with the path, and asks the same only once', async () => {
  const answer = Promise.withResolvers<number>();
  const read = vi.fn(() => answer.promise);
  const both = Promise.allSettled([reach('stat', '/dead', read), reach('stat', '/dead', read)]);
  await vi.advanceTimersByTimeAsync(REACH_PATIENCE);
  for (const result of await both) expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ERR_TIMEOUT', path: '/dead', operation: 'stat' } });
  expect(read).toHaveBeenCalledTimes(1);
  // it came back to life: those who ask now get its late answer
  const late = reach('stat', '/dead', read);
  answer.resolve(7);
  expect(await late).toBe(7);
  expect(await reach('stat', '/dead', async () => 8)).toBe(8);
});

it('leaves half of the threads to others when many paths hang', async () => {
  const answer = Promise.withResolvers<number>();
  let hanging = 0;
  const all = Array.from({ length: 50 }, (_, i) => reach('stat', `/dead/${i}`, () => (hanging++, answer.promise)));
  const settled = Promise.allSettled(all);
  await vi.advanceTimersByTimeAsync(REACH_PATIENCE);
  expect(hanging).toBeLessThanOrEqual(Math.max(1, Math.floor((Number(process.env['UV_THREADPOOL_SIZE']) || 4) / 2)));
  for (const result of await settled) expect(result.status).toBe('rejected');
  answer.resolve(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(await reach('stat', '/alive', async () => 2)).toBe(2);
});

it('passes errors on', async () => {
  await expect(reach('stat', '/x', () => Promise.reject(new Error('ENOENT')))).rejects.toThrow('ENOENT');
});

it('shares no open file: each asker has its own, and one that comes too late is given back', async () => {
  let next = 0;
  const open = async (): Promise<number> => next++;
  expect(await Promise.all([reachOwn('open', '/x', open, () => {}), reachOwn('open', '/x', open, () => {})])).toEqual([0, 1]);
  const answer = Promise.withResolvers<number>();
  const giveBack = vi.fn();
  const late = Promise.allSettled([reachOwn('open', '/dead', () => answer.promise, giveBack)]);
  await vi.advanceTimersByTimeAsync(REACH_PATIENCE);
  expect(await late).toMatchObject([{ status: 'rejected', reason: { code: 'ERR_TIMEOUT', path: '/dead' } }]);
  answer.resolve(7);
  await vi.advanceTimersByTimeAsync(0);
  expect(giveBack).toHaveBeenCalledWith(7);
});
