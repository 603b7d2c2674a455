/** A warm engine process that is told on stdin what to do, and is killed while it does. */
import { createInterface } from 'node:readline';
import { openEngine } from '../../config/open.ts';
import { watched, type Order } from './halting.ts';
import { networkScenarios } from './network.ts';
import { scenarios } from './scenario.ts';

process.stdout.write('ready\n');
for await (const line of createInterface({ input: process.stdin })) {
  const { root, runRoot, folder, scenario, files, cut } = JSON.parse(line) as Order;
  const { engine } = await openEngine(watched(root, runRoot, { folder, cut }));
  await { ...scenarios, ...networkScenarios }[scenario]?.verb(engine, files);
  await engine.close();
  process.stdout.write('done\n');
}
