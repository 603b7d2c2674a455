import { type ContainerRecord } from '../api/index.ts';
import { type Spec } from '../spec/index.ts';
import { type Core } from './core.ts';
import { driversOf } from './drivers.ts';

/** Longest wait for who prepares the same just now: a program that a driver runs for it may take a minute where processors are slow. ms */
const PATIENCE = 120_000;

/**
 * What the security drivers of a container need on this machine before a run or a session with this (configured) spec: after a reboot, or when somebody took
 * it away. Errors: those of the drivers.
 */
export async function ensureSecurity(core: Core, record: ContainerRecord, spec: Spec): Promise<void> {
  const { security } = await driversOf(core.registry, record, ['security']);
  for (const { driver, choice: { plugin } } of security) {
    if (!driver.ensure || (await driver.ensure(spec)).length === 0) continue;
    await core.locked([['security', driver.name]], async () => {
      const effects = await driver.ensure?.(spec) ?? [];
      if (effects.length === 0) return;
      await core.transact(`prepare security driver ${driver.name}`, async (transaction) => {
        await transaction.runAll([{ plugin, effects }]);
        await transaction.commit(() => {});
      });
      await driver.ensured?.(spec);
    }, PATIENCE);
  }
}
