import { isEngineError } from '../errors/index.ts';
import { type ContainerRecord, type ContainerRequest, type Session, type StartOptions } from '../api/index.ts';
import { createRecords } from '../hooks/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { createDrafted, folderEffects, refuseTaken, requestCreation, sourceEffects, wantsCopyUp } from './create.ts';
import { type Draft } from './draft.ts';
import { ensureUnpacked, imageLock } from './images.ts';
import { newRunId } from './names.ts';
import { type PlanOptions } from './plan-run.ts';
import { snapshotsOf } from './rootfs.ts';
import { launch, planStart, startContainer, undoStart } from './start.ts';

export interface RunOptions extends StartOptions { onCreated?(id: string): void }

/** Does nothing outlive its run, so that the run's own plan can make and undo all of it? */
const isEphemeral = (draft: Draft): boolean =>
  draft.record.request.autoRemove && draft.volumes.every((v) => !v.isNew) && wantsCopyUp(draft).length === 0 && sourceEffects(draft.record.request).length === 0;

/** What a creation makes on disk. */
async function prepared(core: Core, draft: Draft): Promise<NonNullable<PlanOptions['prepare']>> {
  const { storage } = draft.drivers;
  const groups = [{ plugin: 'core', effects: folderEffects(core, draft) }];
  if (storage) for (const { request } of snapshotsOf(draft.record, storage.driver)) groups.push({ plugin: storage.choice.plugin, effects: [...(await storage.driver.createSnapshot(request))] });
  return groups;
}

/**
 * A container and its run. When nothing of it outlives the run, its creation is part of the run's plan: no journal, no helper. A crash at any
 * point leaves a run to undo, or a row without a run, which says the same. Errors: those of create and start; with `autoRemove` nothing is left.
 */
export async function runContainer(core: Core, asked: ContainerRequest, options: RunOptions = {}): Promise<Session> {
  const { hooks } = core.parts;
  const draft = await requestCreation(core, asked);
  const { record, image } = draft;
  if (!isEphemeral(draft)) {
    await createDrafted(core, draft, { thenStart: true, ...(options.onWarning && { onWarning: options.onWarning }) });
    options.onCreated?.(record.id);
    return startContainer(core, record.id, options);
  }
  await core.request('start', { container: record.id, attach: options.attach ?? null });
  const storage = draft.drivers.storage?.driver;
  const locks: [string, string, shared?: boolean][] = [['container', record.id]];
  if (image?.image.rootfs.kind === 'layers') locks.push([...imageLock(image.image.id), true]);
  return core.locked(locks, async () => {
    if (image && storage) await ensureUnpacked(core, image, storage);
    const records = createRecords(record, { writable: true });
    await hooks.call('create', { container: record }, { records });
    const run = newRunId();
    const kept = records.changed();
    const plan = await planStart(core, kept ? { ...record, plugins: kept } : record, run, options, await prepared(core, draft));
    const plugins = plan.plugins ?? kept;
    const row: ContainerRecord = { ...record, ...(plugins && { plugins }), starts: 1, ephemeral: true };
    await insert(core, row);
    try {
      options.onCreated?.(row.id);
      core.emit('container', 'create', row.id, eventAttributes(row));
      const session = await launch(core, row, run, plan, options);
      core.emit('container', 'start', row.id, eventAttributes(row));
      return session;
    } catch (error) {
      await undoStart(core, row);
      throw error;
    }
  });
}

/** The row alone: it is the run that has something to undo. */
async function insert(core: Core, row: ContainerRecord): Promise<void> {
  const { state } = core.parts;
  const commit = (): Promise<void> => state.begin(`run container ${row.name}`).commit((rows) => rows.insertContainer(row));
  try {
    await commit();
  } catch (error) {
    if (!isEngineError(error, 'ERR_NAME_TAKEN')) throw error;
    await refuseTaken(core, row.name);
    await commit();
  }
}
