import { isEngineError } from '../errors/index.ts';
import { type ContainerRequest, type Session, type StartOptions } from '../api/index.ts';
import { breathe, createRecords } from '../hooks/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { namesDrawn } from '../contracts/common/index.ts';
import { createDrafted, folderEffects, newName, refuseTaken, requestCreation, sourceEffects, wantsCopyUp } from './create.ts';
import { draftContainer, type Draft } from './draft.ts';
import { ensureUnpacked, findImage, imageLock, type FoundImage } from './images.ts';
import { newId, newRunId } from './names.ts';
import { type PlanOptions } from './plan-run.ts';
import { looseKey, type Prepared } from './prepared.ts';
import { snapshotsOf } from './rootfs.ts';
import { rowText, wholeRow, type Made } from './shapes.ts';
import { launch, resume, planStart, startContainer, undoStart } from './start.ts';

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
async function make(core: Core, draft: Draft, run: string, options: RunOptions): Promise<Made> {
  const { value, names } = await namesDrawn(async () => {
    core.phase?.('create');
    const records = createRecords(draft.record, { writable: true });
    await core.parts.hooks.call('create', { container: draft.record }, { records, trace: core.trace });
    const kept = records.changed();
    const plan = await planStart(core, kept ? { ...draft.record, plugins: kept } : draft.record, run, options, await prepared(core, draft));
    const plugins = plan.plugins ?? kept;
    return { record: { ...draft.record, ...(plugins && { plugins }), starts: 1, ephemeral: true }, run, plan };
  });
  return { ...value, names, text: rowText(value.record) };
}

/** What is known of a request before anything is made. */
interface Asked { readonly request: ContainerRequest; readonly name: string; readonly image: FoundImage | undefined; readonly key: string | undefined; readonly loose: string }
async function ask(core: Core, asked: ContainerRequest, options: RunOptions): Promise<Asked> {
  const request = await requestCreation(core, asked);
  const image = request.bundle === undefined && request.rootfs === undefined ? await findImage(core, request.image) : undefined;
  return { request, image, name: request.name ?? newName(core), key: core.shapes.key(request, image, options), loose: looseKey(request, image?.image.id ?? '') };
}

/** Its layers are there, and stay until its row says that it is used. */
async function holdingImage<T>(core: Core, id: string, image: FoundImage | undefined, work: () => Promise<T>): Promise<T> {
  const locks: [string, string, shared?: boolean][] = [['container', id]];
  if (image?.image.rootfs.kind === 'layers') locks.push([...imageLock(image.image.id), true]);
  return core.locked(locks, async () => {
    core.phase?.('unpack');
    if (image) await ensureUnpacked(core, image, (await core.registry.chosen('storage')).driver);
    return work();
  });
}

/** The plan of such a request, from memory or in full. Undefined: not all of the container goes with its run. */
async function makeAsked(core: Core, { request, name, image, key }: Asked, options: RunOptions, id: string, run = newRunId()): Promise<Made | undefined> {
  const draft = await draftContainer(core, request, id, name);
  if (!isEphemeral(draft)) return undefined;
  const made = await holdingImage(core, id, image, () => make(core, draft, run, options));
  if (key !== undefined) core.shapes.learn(key, made, draft.drivers);
  return made;
}

/**
 * A container and its run. When nothing of it outlives the run, its creation is part of the run's plan: no journal, no helper. A crash at any
 * point leaves a run to undo, or a row without a run, which says the same. Errors: those of create and start; with `autoRemove` nothing is left.
 */
export async function runContainer(core: Core, wanted: ContainerRequest, options: RunOptions = {}): Promise<Session> {
  const asked = await ask(core, wanted, options);
  const { request, name, image, key, loose } = asked;
  const ready = key === undefined ? undefined : await core.sandboxes.take(key, loose, name, (id, run) => makeAsked(core, asked, options, id, run));
  if (ready) return begin(core, ready.made, image, options, ready.sandbox);
  const made = (key === undefined ? undefined : core.shapes.take(key, name)) ?? (request.autoRemove ? await makeAsked(core, asked, options, newId()) : undefined);
  if (made) return begin(core, made, image, options);
  const { id } = await createDrafted(core, await draftContainer(core, request, newId(), name), { thenStart: true, ...(options.onWarning && { onWarning: options.onWarning }) });
  options.onCreated?.(id);
  return startContainer(core, id, options);
}

/** Write it down, and let it run. */
async function begin(core: Core, made: Made, image: FoundImage | undefined, options: RunOptions, sandbox?: Prepared): Promise<Session> {
  const { record } = made;
  try {
    await core.request('start', { container: record.id, attach: options.attach ?? null });
    return await holdingImage(core, record.id, image, async () => {
      core.phase?.('database');
      await insert(core, made);
      try {
        options.onCreated?.(record.id);
        core.emit('container', 'create', record.id, eventAttributes(record));
        if (sandbox && sandbox.made.plan.bytes !== made.plan.bytes) await core.parts.state.runs.amend(record.id, made.plan.bytes);
        const session = await (sandbox ? resume(core, sandbox, made, options) : launch(core, record, made.run, made.plan, options));
        core.emit('container', 'start', record.id, eventAttributes(record));
        return session;
      } catch (error) {
        sandbox?.connection.close();
        await undoStart(core, record);
        throw error;
      }
    });
  } catch (error) {
    if (sandbox) await core.sandboxes.drop(sandbox);
    throw error;
  }
}

/** A sandbox for such a run to come; false when there can be none. */
export async function prepareContainer(core: Core, wanted: ContainerRequest, options: RunOptions & { readonly tag?: string } = {}): Promise<boolean> {
  const asked = await ask(core, wanted, options);
  const { key, loose, image } = asked;
  if (key === undefined) return false;
  const made = core.shapes.take(key, asked.name) ?? (await makeAsked(core, asked, options, newId()));
  if (!made || made.plan.deadlines.size > 0) return false;
  await holdingImage(core, made.record.id, image, () => core.sandboxes.add(made, key, loose, options.tag));
  return true;
}

/** The row alone: it is the run that has something to undo. */
async function insert(core: Core, made: Made): Promise<void> {
  const { name } = made.record;
  await breathe();
  const commit = (): Promise<void> => core.parts.state.begin(`run container ${name}`).commit((rows) => rows.insertContainer(made.record, wholeRow(made)));
  try {
    await commit();
  } catch (error) {
    if (!isEngineError(error, 'ERR_NAME_TAKEN')) throw error;
    await refuseTaken(core, name);
    await commit();
  }
}
