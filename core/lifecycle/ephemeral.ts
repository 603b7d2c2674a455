import { isEngineError } from '../errors/index.ts';
import { type ContainerRequest, type Session, type StartOptions } from '../api/index.ts';
import { createRecords } from '../hooks/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { namesDrawn } from '../contracts/common/index.ts';
import { createDrafted, folderEffects, newName, refuseTaken, requestCreation, sourceEffects, wantsCopyUp } from './create.ts';
import { draftContainer, type Draft } from './draft.ts';
import { ensureUnpacked, findImage, imageLock, type FoundImage } from './images.ts';
import { newId, newRunId } from './names.ts';
import { type PlanOptions } from './plan-run.ts';
import { snapshotsOf } from './rootfs.ts';
import { rowText, wholeRow, type Made } from './shapes.ts';
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

/** Compile all of it: hooks, drivers, plan. */
async function make(core: Core, draft: Draft, options: RunOptions): Promise<Made> {
  const { value, names } = await namesDrawn(async () => {
    const records = createRecords(draft.record, { writable: true });
    await core.parts.hooks.call('create', { container: draft.record }, { records, trace: core.trace });
    const run = newRunId();
    const kept = records.changed();
    const plan = await planStart(core, kept ? { ...draft.record, plugins: kept } : draft.record, run, options, await prepared(core, draft));
    const plugins = plan.plugins ?? kept;
    return { record: { ...draft.record, ...(plugins && { plugins }), starts: 1, ephemeral: true }, run, plan };
  });
  return { ...value, names, text: rowText(value.record) };
}

/**
 * A container and its run. When nothing of it outlives the run, its creation is part of the run's plan: no journal, no helper. A crash at any
 * point leaves a run to undo, or a row without a run, which says the same. Errors: those of create and start; with `autoRemove` nothing is left.
 */
export async function runContainer(core: Core, asked: ContainerRequest, options: RunOptions = {}): Promise<Session> {
  const request = await requestCreation(core, asked);
  const image = request.bundle === undefined && request.rootfs === undefined ? await findImage(core, request.image) : undefined;
  const key = core.shapes.key(request, image, options);
  const name = request.name ?? newName(core);
  const known = key === undefined ? undefined : core.shapes.take(key, name);
  if (known) return launchMade(core, known, image, options);
  core.phase?.('draft');
  const draft = await draftContainer(core, request, newId(), name);
  if (isEphemeral(draft)) {
    return launchMade(core, () => make(core, draft, options).then((made) => { if (key !== undefined) core.shapes.learn(key, made, draft.drivers); return made; }), image, options, draft.record.id);
  }
  const { id } = await createDrafted(core, draft, { thenStart: true, ...(options.onWarning && { onWarning: options.onWarning }) });
  options.onCreated?.(id);
  return startContainer(core, id, options);
}

async function launchMade(core: Core, make: Made | (() => Promise<Made>), image: FoundImage | undefined, options: RunOptions, id = (make as Made).record.id): Promise<Session> {
  core.phase?.('request');
  await core.request('start', { container: id, attach: options.attach ?? null });
  const locks: [string, string, shared?: boolean][] = [['container', id]];
  if (image?.image.rootfs.kind === 'layers') locks.push([...imageLock(image.image.id), true]);
  core.phase?.('lock');
  return core.locked(locks, async () => {
    core.phase?.('unpack');
    if (image) await ensureUnpacked(core, image, (await core.registry.chosen('storage')).driver);
    core.phase?.('create');
    const made = typeof make === 'function' ? await make() : make;
    const { record } = made;
    core.phase?.('database');
    await insert(core, made);
    try {
      options.onCreated?.(record.id);
      core.emit('container', 'create', record.id, eventAttributes(record));
      const session = await launch(core, record, made.run, made.plan, options);
      core.emit('container', 'start', record.id, eventAttributes(record));
      return session;
    } catch (error) {
      await undoStart(core, record);
      throw error;
    }
  });
}

/** The row alone: it is the run that has something to undo. */
async function insert(core: Core, made: Made): Promise<void> {
  const { name } = made.record;
  const commit = (): Promise<void> => core.parts.state.begin(`run container ${name}`).commit((rows) => rows.insertContainer(made.record, wholeRow(made)));
  try {
    await commit();
  } catch (error) {
    if (!isEngineError(error, 'ERR_NAME_TAKEN')) throw error;
    await refuseTaken(core, name);
    await commit();
  }
}
