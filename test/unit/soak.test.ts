import { expect, it } from 'vitest';
import { growthPerThousand, notFlat, type Sample } from '../soak/flat.ts';

const samples = (change: (i: number) => Partial<Sample>): Sample[] => Array.from({ length: 20 }, (_, i) => ({ starts: (i + 1) * 500, rss: 60, fds: 30, threads: 11, rootFiles: 40, runFiles: 5, rows: 3, cgroups: 0, shims: 0, ...change(i) }));

it('growth is that of the line through the samples, warming up aside', () => {
  expect(growthPerThousand(Array.from({ length: 10 }, (_, i) => [i * 1000, i < 4 ? 0 : 50 + i * 2] as const))).toBeCloseTo(2);
  expect(growthPerThousand([])).toBeNaN();
});
it('what goes up and down is flat, what only grows is not', () => {
  expect(notFlat(samples((i) => ({ rss: 60 + (i % 4), fds: 30 + (i % 3), runFiles: 5 + (i % 5) })))).toEqual([]);
  expect(notFlat(samples((i) => ({ rss: 50 + i })))).toEqual([expect.stringContaining('rss grows by 2.00 MB')]);
  expect(notFlat(samples((i) => ({ fds: 30 + i })))).toEqual([expect.stringContaining('fds went from')]);
  expect(notFlat(samples((i) => ({ rows: i > 12 ? 6 : 3 })))).toEqual([expect.stringContaining('rows went from at most 3 to at least 6')]);
});
it('a few starts say nothing about memory, and too few nothing at all', () => {
  expect(notFlat(samples((i) => ({ starts: i * 15, rss: 50 + i })))).toEqual([]);
  expect(notFlat(samples(() => ({})).slice(0, 3))).toEqual([expect.stringContaining('too few')]);
});
