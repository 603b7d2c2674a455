import { afterAll, beforeAll, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { randomRound, seeded } from './random.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine({ folder: '/dev/shm' });
  await importBusybox(engine);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

const seed = Number(process.env['CRASH_SEED'] ?? Date.now() % 1_000_000);
it(`survives commands that run at once and are killed at random times (CRASH_SEED=${seed})`, { timeout: 300_000 }, async () => {
  const random = seeded(seed);
  for (let round = 0; round < 12; round++) expect(await randomRound(engine, random), `round ${round}`).toEqual([]);
});
