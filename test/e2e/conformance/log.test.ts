import { afterEach, describe } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { logSuite, type ShimRun } from '@engine/core/contracts/log/suite';
import { type LogDriver } from '@engine/core/contracts/log';
import { FRAME, op, step } from '@engine/core/plan';
import { createNative } from '@engine/native';
import { Bench, bytesOf, unable as noShim } from '@engine/native/testing';
import { createCriLog } from '../../../plugins/log-cri/driver.ts';
import { createNoneLog } from '../../../plugins/log-none/driver.ts';
import { realBench, unable } from './bench.ts';

const benches: Bench[] = [];
afterEach(async () => {
  for (const bench of benches.splice(0)) await bench.close();
});

/** Run a busybox applet in a small container with the log that the driver planned. */
async function shim(plan: ReturnType<LogDriver['planLog']>, argv: readonly string[]): Promise<ShimRun> {
  const bench = new Bench(createNative());
  benches.push(bench);
  const [, ...rest] = bench.steps({ argv });
  const talk = bench.startPlan(bytesOf([step('shim.stdio', op.stdio({ flags: 0, ...plan })), ...rest]));
  let ended = false;
  const done = talk.until((frame) => frame.type === FRAME.exit, 'exit').then(() => {
    ended = true;
  });
  await talk.frame('started');
  return { ended: () => ended, done };
}

describe.skipIf(unable ?? noShim)('real shim', () => {
  describeSuite('cri', logSuite, { bench: () => realBench(), create: createCriLog, shim });
  describeSuite('cri, non-blocking', logSuite, { bench: () => realBench(), create: createCriLog, options: { mode: 'non-blocking' }, shim });
  describeSuite('none', logSuite, { bench: () => realBench(), create: createNoneLog, shim });
});
