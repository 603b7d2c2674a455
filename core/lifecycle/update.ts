import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { fail, isEngineError } from '../errors/index.ts';
import { type Containers, type ContainerRecord, type ContainerRequest } from '../api/index.ts';
import { type RunView } from '../state/index.ts';
import { type LinuxResources, type Spec } from '../spec/index.ts';
import { groupRequest } from './adapters.ts';
import { eventAttributes, type Core } from './core.ts';
import { driversOf } from './drivers.ts';
import { settled } from './finish.ts';
import { groupOf, type Group } from './freezer.ts';
import { configureSpec } from './plan-run.ts';
import { isOver, notRunning } from './running.ts';
import { runContext } from './start.ts';

/** What a change of limits means as resources is for the plugins that tap `compileUpdate` to say; it is tried on the driver that is to honour it. Errors: theirs. */
async function withLimits(core: Core, record: ContainerRecord, changes: ContainerRequest['limits']): Promise<ContainerRecord> {
  const { hooks } = core.parts;
  if (hooks.taps('compileUpdate').length === 0) throw fail('ERR_PLUGIN_MISSING', 'no plugin turns limits into resources of the OCI spec: none taps compileUpdate');
  const { cgroup } = await driversOf(core.registry, record, ['cgroup']);
  const old = record.spec.linux?.resources ?? {};
  const { value } = await hooks.callWaterfall('compileUpdate', { container: record, changes, honoured: [...(cgroup?.driver.resources ?? [])], limits: { ...record.request.limits, ...changes }, resources: old });
  const spec: Spec = { ...record.spec, linux: { ...record.spec.linux, resources: value.resources } };
  const after: ContainerRecord = { ...record, request: { ...record.request, limits: value.limits }, spec };
  const run = runContext(core, record.id, 'next', true);
  await cgroup?.driver.planGroup(groupRequest(after, (await configureSpec(core, after, run)).spec), run);
  return after;
}

/** The sections that differ, each in full: fields of one are converted together. A limit on processes that is not there any more is lifted by saying so. */
function difference(before: LinuxResources, after: LinuxResources): LinuxResources {
  const sections = (Object.keys({ ...before, ...after }) as (keyof LinuxResources)[]).filter((name) => name !== 'devices' && !isDeepStrictEqual(before[name], after[name]));
  return { ...Object.fromEntries(sections.flatMap((name) => (after[name] ? [[name, after[name]]] : []))), ...(sections.includes('pids') && !after.pids && { pids: { limit: -1 } }) };
}

/** For its group, what the next run would have besides. */
async function effectsOf(core: Core, before: ContainerRecord, after: ContainerRecord, { record: { run } }: RunView, { cgroup: { driver, choice }, ref }: Group) {
  const [old, now] = await Promise.all([before, after].map(async (record) => (await configureSpec(core, record, runContext(core, record.id, run))).spec.linux?.resources ?? {}));
  const changed = difference(old ?? {}, now ?? {});
  if (Object.keys(changed).length === 0) return [];
  if (!driver.update) throw fail('ERR_FEATURE_MISSING', `cgroup driver ${driver.name} cannot change limits of a running container`, { operation: 'update', plugin: choice.plugin, hint: 'stop it first' });
  return driver.update(ref, changed);
}

/** All or nothing: row and group in one transaction. */
export async function updateContainer(core: Core, ref: string, changes: Parameters<Containers['update']>[1]): Promise<void> {
  const { state, hooks } = core.parts;
  const { id } = await settled(core, ref);
  await core.request('update', { container: id, ...changes });
  await core.locked([['container', id]], async () => {
    const old = state.containers.resolve(id);
    const { restart, limits } = changes;
    if (restart && restart.policy !== 'no' && old.request.autoRemove) throw fail('ERR_INVALID_VALUE', `cannot update container ${old.name}: restart policy cannot be updated because AutoRemove is enabled for the container`, { operation: 'update', path: old.name, exitCode: 1 });
    const limited = limits && Object.keys(limits).length > 0 ? await withLimits(core, old, limits) : old;
    const record: ContainerRecord = restart ? { ...limited, request: { ...limited.request, restart } } : limited;
    await hooks.call('update', { container: record });
    const view = state.runs.find(id);
    try {
      await core.transact(`update container ${old.name}`, async (transaction) => {
        if (view && !isOver(view) && limited !== old) {
          const group = await groupOf(core, old, view);
          await transaction.effects(group.cgroup.choice.plugin).run(await effectsOf(core, old, limited, view, group));
        }
        await transaction.commit((rows) => rows.updateContainer(record));
      });
    } catch (error) {
      if (view && !isOver(view) && isOver(state.runs.find(id))) throw notRunning(old, 'update');
      // other files are busy for other reasons: CPUs that a group below has
      if (!isEngineError(error) || error.errno !== 'EBUSY' || !path.basename(error.path ?? '').startsWith('memory.') || !view) throw error;
      const { cgroup, ref: group } = await groupOf(core, old, view);
      throw fail('ERR_INVALID_VALUE', `cannot update container ${old.name}: the limit is below what is in use now (memory: ${cgroup.driver.stats(group).memoryBytes ?? 'unknown'} bytes)`, { operation: 'update', path: old.name, errno: 'EBUSY', cause: error });
    }
    core.emit('container', 'update', id, eventAttributes(record));
  });
}
