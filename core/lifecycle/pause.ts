import { fail } from '../errors/index.ts';
import { type ContainerRecord } from '../api/index.ts';
import { type RunView } from '../state/index.ts';
import { type Core } from './core.ts';
import { settled } from './finish.ts';
import { isPausedRun, setFrozen } from './freezer.ts';
import { isOver, notRunning, requireRun } from './running.ts';

/** Runs `change` with a container that runs, its lock held. What ends under it is told as such. */
async function withRun(core: Core, ref: string, verb: 'pause' | 'unpause', change: (record: ContainerRecord, view: RunView) => Promise<void>): Promise<void> {
  const { state } = core.parts;
  const { id } = await settled(core, ref);
  await core.request(verb, { container: id });
  const view = await requireRun(core, state.containers.resolve(id), verb);
  await core.locked([['container', id]], async () => {
    const record = state.containers.resolve(id);
    const now = state.runs.find(id);
    if (!now || isOver(now) || now.record.run !== view.record.run) throw notRunning(record, verb);
    try {
      await change(record, now);
    } catch (error) {
      throw isOver(state.runs.find(id)) ? notRunning(record, verb) : error;
    }
  });
}

/** Errors: ERR_NOT_RUNNING, ERR_PAUSED, ERR_FEATURE_MISSING; ERR_OPERATION_FAILED when a process hangs in the kernel: all go on then. */
export function pauseContainer(core: Core, ref: string): Promise<void> {
  return withRun(core, ref, 'pause', async (record, view) => {
    if (await isPausedRun(core, record, view)) throw fail('ERR_PAUSED', `cannot pause: container ${record.name} is already paused`, { operation: 'pause', path: record.name, hint: '' });
    await core.parts.hooks.call('pause', { container: record });
    await setFrozen(core, record, view, true);
  });
}

/** Errors: ERR_NOT_RUNNING, ERR_NOT_PAUSED. */
export function unpauseContainer(core: Core, ref: string): Promise<void> {
  return withRun(core, ref, 'unpause', async (record, view) => {
    if (!(await isPausedRun(core, record, view))) throw fail('ERR_NOT_PAUSED', `cannot unpause: container ${record.name} is not paused`, { operation: 'unpause', path: record.name });
    await core.parts.hooks.call('resume', { container: record });
    await setFrozen(core, record, view, false);
  });
}
