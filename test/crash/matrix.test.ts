import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTar } from '../helpers/busybox.ts';
import { makeArchive } from '../bench/archive.ts';
import { buildVictim, cutAll, Matrix, type Case } from './matrix.ts';
import { scenarios } from './scenario.ts';

/**
 * All of it takes some minutes; `CRASH_SAMPLE=n` takes every nth case (the guests of test/vm), another nth each time unless `CRASH_SEED` says which.
 */
const every = Number(process.env['CRASH_SAMPLE'] ?? 1);
const seed = Number(process.env['CRASH_SEED'] ?? Math.floor(Math.random() * every));
/** A run in a user namespace at every record, and at every operation that is there for it; of the others, which `run` cuts one by one, every tenth. */
const ofUserNamespaces = ({ name }: Case, i: number): boolean => i % 10 === 0 || name.startsWith('engine at ') || / (before|after) stage /.test(name) || /\d (makeUserNamespace|idmapMount|fileIds|shiftTree|becomeRoot|spawn|moveMount) of shim/.test(name);
/** Engines with roots of their own, which work at the same time: one per processor. */
const lanes: Matrix[] = [];
let folder: string;
beforeAll(async () => {
  buildVictim();
  // on a tmpfs: what a SIGKILL leaves is the same, and nothing waits for a disk
  folder = mkdtempSync('/dev/shm/engine-crash-');
  const archive = join(folder, 'image.tar');
  makeArchive(archive, { layers: 2, bytes: 4 << 20, small: 3, name: 'loaded:latest', passwd: true });
  for (let i = 0; i < availableParallelism(); i++) {
    mkdirSync(join(folder, String(i)));
    const matrix = new Matrix(join(folder, String(i)), { archive, port: 8080 + i });
    lanes.push(matrix);
    await matrix.using(async (engine) => {
      await engine.images.import({ path: busyboxTar(), reference: 'base', changes: ['CMD ["true"]'] });
      await engine.images.import({ path: busyboxTar(), reference: 'vol', changes: ['CMD ["true"]', 'VOLUME /var/data'] });
    });
  }
});
afterAll(async () => {
  for (const lane of lanes) await lane.close();
  rmSync(folder, { recursive: true, force: true });
});

describe.each(Object.keys(scenarios))('killed at any instant of %s', (scenario) => {
  it('leaves the state before or the state after', { timeout: 900_000 }, async () => {
    const found = (await lanes[0]?.enumerate(scenario)) ?? [];
    const all = scenario === 'userns' ? found.filter(ofUserNamespaces) : found;
    const cases = all.filter((_, i) => (i + seed) % Math.min(every, all.length) === 0);
    expect(cases.length).toBeGreaterThan(0);
    console.log(`${scenario}: ${cases.length} cases${every > 1 ? ` (CRASH_SAMPLE=${every} CRASH_SEED=${seed})` : ''}`);
    expect(await cutAll(lanes, scenario, cases)).toEqual([]);
  });
});
