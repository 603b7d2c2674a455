import { expect, it } from 'vitest';
import { soakStarts } from '../soak/starts.ts';

// The short form of `npm run soak`: 300 starts say nothing about memory, but a file, row, fd or cgroup that each start leaves shows.
it('300 starts in a row leave nothing behind, nor in the resident engine', async () => {
  const told: string[] = [];
  const { wrong } = await soakStarts({ starts: 300, step: 20, pooled: true, say: (line) => told.push(line) });
  expect(wrong, told.join('\n')).toEqual([]);
});
