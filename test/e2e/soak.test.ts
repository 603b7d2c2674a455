import { expect, it } from 'vitest';
import { missingPeers } from '../helpers/peers.ts';
import { soakOci } from '../soak/oci.ts';
import { soakStarts } from '../soak/starts.ts';

// The short form of `npm run soak`: 300 starts say nothing about memory, but a file, row, fd or cgroup that each start leaves shows.
it('300 starts in a row leave nothing behind, nor in the resident engine', async () => {
  const told: string[] = [];
  const { wrong } = await soakStarts({ starts: 300, step: 20, pooled: true, say: (line) => told.push(line) });
  expect(wrong, told.join('\n')).toEqual([]);
});

it('60 cycles of a bundle by engine-oci leave nothing behind', async ({ skip }) => {
  const missing = missingPeers('runc', 'gcc');
  if (missing.length > 0) skip(`missing: ${missing.join(', ')}`);
  const told: string[] = [];
  expect(await soakOci({ cycles: 60, step: 30, say: (line) => told.push(line) }), told.join('\n')).toEqual([]);
});
