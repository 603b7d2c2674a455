import { fail } from '../errors/index.ts';
import { type ContainerRecord } from '../api/index.ts';
import { type CgroupDriver, type GroupRef } from '../contracts/cgroup/index.ts';
import { type RunView } from '../state/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { driversOf, ifLoaded, need } from './drivers.ts';
import { type ResolvedDriver } from './parts.ts';

/** The group of a run, with the driver that made it. */
export interface Group { readonly cgroup: ResolvedDriver<CgroupDriver>; readonly ref: GroupRef }

const refOf = ({ record: { run, group } }: RunView): GroupRef => ({ run, ...(group !== undefined && { path: group }) });

/** Errors: ERR_PLUGIN_MISSING; ERR_DRIVER_UNAVAILABLE for a container without a group. */
export async function groupOf({ registry }: Core, record: ContainerRecord, view: RunView): Promise<Group> {
  return { cgroup: need((await driversOf(registry, record, ['cgroup'])).cgroup, 'cgroup', record), ref: refOf(view) };
}

/** Is all of a run frozen? Undefined: the plugin that could tell is not loaded, see {@link isPausedRun}. */
export function isFrozen({ registry }: Core, { drivers: { cgroup } }: ContainerRecord, view: RunView): boolean | undefined {
  const driver = cgroup && registry.loaded('cgroup', cgroup);
  return cgroup && !driver ? undefined : (driver?.isFrozen?.(refOf(view)) ?? false);
}
/** One whose plugin is gone can't be told from one that runs. */
export async function isPausedRun(core: Core, record: ContainerRecord, view: RunView): Promise<boolean> {
  const known = isFrozen(core, record, view);
  return known ?? (await ifLoaded(async () => (await groupOf(core, record, view)) && isFrozen(core, record, view), () => {})) ?? false;
}

/** Journalled: a freeze whose engine dies before it is certain is undone. Errors: ERR_FEATURE_MISSING. */
export async function setFrozen(core: Core, record: ContainerRecord, view: RunView, frozen: boolean): Promise<void> {
  const { cgroup: { driver, choice }, ref } = await groupOf(core, record, view);
  const verb = frozen ? 'pause' : 'unpause';
  const effects = driver.freeze?.(ref, frozen);
  if (!effects) throw fail('ERR_FEATURE_MISSING', `cannot ${verb} container ${record.name}: cgroup driver ${driver.name} cannot freeze on this machine`, { operation: verb, path: record.name, plugin: choice.plugin, hint: 'see: engine doctor' });
  await core.transact(`${verb} container ${record.name}`, async (transaction) => {
    await transaction.effects(choice.plugin).run(effects);
    await transaction.commit(() => {});
  });
  core.emit('container', verb, record.id, eventAttributes(record));
}

/** Somebody wants it to end: it must be able to. */
export async function letGo(core: Core, record: ContainerRecord, view: RunView): Promise<void> {
  if (!(await isPausedRun(core, record, view))) return;
  // it may end just now, which takes its group away
  await setFrozen(core, record, view, false).catch((error: unknown) => { if (isFrozen(core, record, view)) throw error; });
}
