import * as fs from 'node:fs';
import { join } from 'node:path';
import { type CgroupDriver, type GroupRef } from '../../contracts/cgroup/index.ts';
import { fail } from '../../errors/index.ts';
import { decodePlan, RUN_FILES, type DecodedStep } from '../../plan/index.ts';
import { type Core } from '../core.ts';
import { ifLoaded } from '../drivers.ts';
import { type ResolvedDriver } from '../parts.ts';
import { type Found } from './store.ts';

/** Its group, with the driver that made it. Errors: ERR_PLUGIN_MISSING, ERR_DRIVER_UNAVAILABLE. */
export async function groupOf({ registry }: Core, { stored }: Found): Promise<{ readonly cgroup: ResolvedDriver<CgroupDriver>; readonly ref: GroupRef }> {
  const { cgroup } = stored.drivers;
  if (!cgroup) throw fail('ERR_DRIVER_UNAVAILABLE', `container ${stored.id} has no cgroup`, { path: stored.id });
  return { cgroup: await registry.resolveDriver('cgroup', cgroup.driver, cgroup), ref: { run: stored.run, ...(stored.group !== undefined && { path: stored.group, exact: true }) } };
}
/** One whose plugin is gone cannot be told from one that runs. */
export async function isFrozen(core: Core, found: Found): Promise<boolean> {
  const frozen = await ifLoaded(async () => {
    const { cgroup, ref } = await groupOf(core, found);
    return cgroup.driver.isFrozen?.(ref);
  }, () => {});
  return frozen ?? false;
}

/** Journalled: one whose engine dies before it is certain is undone. Errors: ERR_FEATURE_MISSING. */
export async function setFrozen(core: Core, found: Found, frozen: boolean): Promise<void> {
  const { cgroup: { driver, choice }, ref } = await groupOf(core, found);
  const verb = frozen ? 'pause' : 'resume';
  const effects = driver.freeze?.(ref, frozen);
  if (!effects) throw fail('ERR_FEATURE_MISSING', `cannot ${verb} container ${found.stored.id}: cgroup driver ${driver.name} cannot freeze on this machine`, { operation: verb, path: found.stored.id, plugin: choice.plugin, hint: 'see: engine doctor' });
  await core.transact(`${verb} container ${found.stored.id}`, async (transaction) => {
    await transaction.effects(choice.plugin).run(effects);
    await transaction.commit(() => {});
  });
}

/** What of the plan's undo ends all processes of a container, wherever they are. */
export function killSteps(folder: string): readonly DecodedStep[] {
  return decodePlan(fs.readFileSync(join(folder, RUN_FILES.plan))).steps.filter(({ part, operation }) => part === 'after' && operation.name === 'cgroupKill');
}

/** Everybody in its groups, on the host. Groups that are gone have nobody. */
export function membersOf(folder: string): readonly number[] {
  const found = new Set<number>();
  const walk = (group: string): void => {
    let text = '';
    try {
      text = fs.readFileSync(join(group, 'cgroup.procs'), 'latin1');
      for (const entry of fs.readdirSync(group, { withFileTypes: true })) if (entry.isDirectory()) walk(join(group, entry.name));
    } catch (error) {
      // ENODEV: it is just being removed; EOPNOTSUPP: threads are in it, which the group above it has told
      if (!['ENOENT', 'ENODEV', 'EOPNOTSUPP'].includes(String((error as NodeJS.ErrnoException).code))) throw error;
    }
    for (const pid of text.split('\n')) if (Number(pid) > 0) found.add(Number(pid));
  };
  for (const { operation } of killSteps(folder)) walk(String(operation.args['path']));
  return [...found].sort((a, b) => a - b);
}
