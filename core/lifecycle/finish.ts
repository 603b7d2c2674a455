import { isEngineError } from '../errors/index.ts';
import { type ContainerRecord, type ExitRecord } from '../api/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { catchUpEndpoints, endEndpoints } from './endpoints.ts';
import { removeLocked } from './remove.ts';

/** Longest time that the undo of a run is waited for, ms. */
export const TEARDOWN = 30_000;

/** The last run of a container is over: collect it, tell everybody. Called with the container's lock held. */
export async function collectLocked(core: Core, id: string, record = core.parts.state.containers.get(id)): Promise<ExitRecord | undefined> {
  const { state, hooks } = core.parts;
  // one that goes with its run: its row too, right after this
  const collected = await state.runs.collect(id, { timeout: TEARDOWN, forget: record?.request.autoRemove ?? true });
  await endEndpoints(core, id);
  if (!collected || !record) return collected?.exit;
  const { exit, failures } = collected;
  await hooks.call('exited', { container: record, exit }, { trace: core.trace });
  await hooks.call('postExitCleanup', { container: record, failures }, { trace: core.trace });
  if (exit.oom?.killed) core.emit('container', 'oom', id, eventAttributes(record));
  core.emit('container', 'die', id, { ...eventAttributes(record), exitCode: String(exit.code) });
  return exit;
}

/** A run has ended: collect it, and remove a container that was started with `--rm`. Somebody else having done so is success. */
export async function finishRun(core: Core, id: string, run: string): Promise<void> {
  const { state } = core.parts;
  if (core.closing) return;
  await core.locked([['container', id]], async () => {
    core.phase?.('collect');
    const now = state.runs.current(id);
    if (now && now.run !== run) return;
    await finishLocked(core, id, now !== undefined);
  });
  core.phase?.();
}
/** The same with the container's lock held; `ran`: there is a run to collect. */
export async function finishLocked(core: Core, id: string, ran: boolean): Promise<void> {
  const record = core.parts.state.containers.get(id);
  if (ran) await collectLocked(core, id, record);
  if (record?.request.autoRemove) await removeLocked(core, record, { volumes: true });
}

/** Has its run with `--rm` ended? Then wait until it is gone; as long as `patience`, for who must not be held up by one that hangs. */
export async function isGoing(core: Core, record: ContainerRecord, patience?: () => Promise<false>): Promise<boolean> {
  if (!record.request.autoRemove) return false;
  const view = core.parts.state.runs.find(record.id);
  // a run that was collected is not there any more, and its container still is for a moment
  if (view ? !view.exit : record.starts === 0) return false;
  const gone = finishRun(core, record.id, view?.record.run ?? '').then(() => true);
  return patience ? Promise.race([gone.catch(() => false), patience()]) : gone;
}
/** Waits for those of these containers that are just going away: what they use is free then. */
export async function awaitGoing(core: Core, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    const record = core.parts.state.containers.get(id);
    if (record) await isGoing(core, record);
  }
}
/** The container `ref`, when it is not just going away. Errors: ERR_NO_SUCH_CONTAINER, ERR_AMBIGUOUS. */
export async function settled(core: Core, ref: string): Promise<ContainerRecord> {
  const { containers } = core.parts.state;
  const record = containers.resolve(ref);
  return (await isGoing(core, record)) ? containers.resolve(ref) : record;
}

/** Made by somebody who was to start it, and is gone. */
async function isAbandoned(core: Core, record: ContainerRecord): Promise<boolean> {
  if (!record.provisional || core.provisional.has(record.id)) return false;
  try {
    (await core.parts.state.lock('starting', record.id, { timeout: 0 })).release();
    return true;
  } catch (error) {
    if (isEngineError(error, 'ERR_BUSY')) return false;
    throw error;
  }
}

/** What crashed or ended while no engine was there. Returns what was done, in words. */
export async function catchUp(core: Core): Promise<readonly string[]> {
  const { state, log } = core.parts;
  const done: string[] = [];
  for (const record of state.containers.list()) {
    const view = state.runs.find(record.id);
    if (view?.alive || (!view && !(record.request.autoRemove && (record.starts > 0 || record.provisional)))) continue;
    try {
      await core.locked([['container', record.id]], async () => {
        const now = state.runs.find(record.id);
        if (now?.alive) return;
        if (now) {
          await collectLocked(core, record.id);
          done.push(`collected the last run of container ${record.name}`);
        }
        const current = state.containers.get(record.id);
        if (current?.request.autoRemove && (now || current.starts > 0 || (await isAbandoned(core, current)))) {
          await removeLocked(core, current, { volumes: true });
          done.push(`removed container ${record.name}`);
        }
      });
    } catch (error) {
      if (!isEngineError(error)) throw error;
      log.warn({ err: error, container: record.id }, 'left for a later start');
    }
  }
  return [...done, ...(await catchUpEndpoints(core))];
}
