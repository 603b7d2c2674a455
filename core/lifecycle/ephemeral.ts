import { isEngineError } from '../errors/index.ts';
import { type ContainerRequest, type Session, type StartOptions } from '../api/index.ts';
import { type Endpoint } from '../contracts/network/index.ts';
import { breathe, createRecords } from '../hooks/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { namesDrawn } from '../contracts/common/index.ts';
import { createDrafted, folderEffects, newName, refuseTaken, requestCreation, sourceEffects, wantsCopyUp } from './create.ts';
import { draftContainer, type Draft } from './draft.ts';
import { claimEndpoints, endEndpoints, networksOf } from './endpoints.ts';
import { collectLocked } from './finish.ts';
import { overlapWarnings, withIds } from './ids.ts';
import { ensureUnpacked, findImage, imageLock, type FoundImage } from './images.ts';
import { newId, newRunId } from './names.ts';
import { type PlanOptions } from './plan-run.ts';
import { choosePorts, whoTook } from './ports.ts';
import { looseKey, type Prepared } from './prepared.ts';
import { snapshotsOf } from './rootfs.ts';
import { ensureSecurity } from './security.ts';
import { placesOf, rowText, wholeRow, type Made } from './shapes.ts';
import { findNetwork } from './wishes.ts';
import { launch, ofRun, planStart, resume, startContainer, undoStart } from './start.ts';

export interface RunOptions extends StartOptions { onCreated?(id: string): void }

/** Does nothing outlive its run, so that the run's own plan can make and undo all of it? */
const isEphemeral = (draft: Draft): boolean =>
  draft.record.request.autoRemove && !draft.record.rootfs.shift && draft.volumes.every((v) => !v.isNew) && wantsCopyUp(draft).length === 0 && sourceEffects(draft.record.request).length === 0;

/** What a creation makes on disk. */
async function prepared(core: Core, draft: Draft): Promise<NonNullable<PlanOptions['prepare']>> {
  const { storage } = draft.drivers;
  const groups = [{ plugin: 'core', effects: folderEffects(core, draft) }];
  if (storage) for (const { request } of snapshotsOf(draft.record, storage.driver)) groups.push({ plugin: storage.choice.plugin, effects: [...(await storage.driver.createSnapshot(request))] });
  return groups;
}

/** Compile all of it: hooks, drivers, plan. */
async function make(core: Core, draft: Draft, run: string, endpoints: readonly Endpoint[], options: RunOptions): Promise<Made> {
  const { value, names } = await namesDrawn(async () => {
    core.phase?.('create');
    const records = createRecords(draft.record, { writable: true });
    await core.parts.hooks.call('create', { container: draft.record }, { records, trace: core.trace });
    const kept = records.changed();
    const plan = await planStart(core, kept ? { ...draft.record, plugins: kept } : draft.record, run, options, { prepare: await prepared(core, draft), endpoints });
    const plugins = plan.plugins ?? kept;
    return { record: { ...ofRun(draft.record, { spec: plan.spec, ...(plugins && { plugins }) }), ephemeral: true }, run, plan };
  });
  return { ...value, names, endpoints, places: await placesOn(core, endpoints, draft.record.name), text: rowText(value.record) };
}
const placesOn = async (core: Core, endpoints: readonly Endpoint[], name: string): Promise<Made['places']> => placesOf(endpoints, await networksOf(core, endpoints), name);

/** What is known of a request before anything is made. */
interface Asked { readonly request: ContainerRequest; readonly name: string; readonly image: FoundImage | undefined; readonly key: string | undefined; readonly loose: string }
async function ask(core: Core, asked: ContainerRequest, options: RunOptions): Promise<Asked> {
  const request = await requestCreation(core, asked);
  const image = request.bundle === undefined && request.rootfs === undefined ? await findImage(core, request.image) : undefined;
  const key = core.shapes.key(request, image, options);
  // as long as that of the one whose plan may serve again
  return { request, image, name: request.name ?? newName(core, key === undefined ? undefined : core.shapes.find(key)?.record.name.length), key, loose: looseKey(request, image?.image.id ?? '') };
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

/** The plan of such a request in full. `endpoints`: those that it has already. Undefined: not all of the container goes with its run. */
async function makeAsked(core: Core, { request, name, key }: Asked, options: RunOptions, own: { readonly id: string; readonly run: string; readonly endpoints?: readonly Endpoint[] | undefined }): Promise<Made | undefined> {
  const draft = await draftContainer(core, request, own.id, name);
  if (!isEphemeral(draft)) return undefined;
  const made = await make(core, draft, own.run, own.endpoints ?? (await claimEndpoints(core, draft.record, own.run)), options);
  if (key !== undefined) core.shapes.learn(key, made, draft.drivers);
  return made;
}

/** The same, from memory where such a one has been made a moment ago. With the container's lock held, until its run is there. */
async function makeOrRecall(core: Core, asked: Asked, options: RunOptions, id: string): Promise<Made | undefined> {
  const { key, name } = asked;
  const run = newRunId();
  const shape = key === undefined ? undefined : core.shapes.find(key);
  try {
    const endpoints = shape && (await claimEndpoints(core, { ...shape.record, id, name }, run));
    const recalled = shape && endpoints && core.shapes.take(shape, { id, run, name, endpoints, places: await placesOn(core, endpoints, name) });
    return recalled ?? (await makeAsked(core, asked, options, { id, run, endpoints }));
  } catch (error) {
    await endEndpoints(core, id);
    throw error;
  }
}

/**
 * A container and its run. When nothing of it outlives the run, its creation is part of the run's plan: no journal, no helper. A crash at any
 * point leaves a run to undo, or a row without a run, which says the same. Errors: those of create and start; with `autoRemove` nothing is left.
 */
export async function runContainer(core: Core, wanted: ContainerRequest, options: RunOptions = {}): Promise<Session> {
  const asked = await ask(core, wanted, options);
  const { image, key, loose, name } = asked;
  const ready = key === undefined ? undefined : await core.sandboxes.take(key, loose, name, ({ record: { id }, run, endpoints }) => holdingImage(core, id, image, () => makeAsked(core, asked, options, { id, run, endpoints })));
  if (ready) {
    const { made, sandbox } = ready;
    return holdingImage(core, made.record.id, image, () => begin(core, made, options, sandbox)).catch(async (error: unknown) => {
      await core.sandboxes.drop(sandbox);
      throw error;
    });
  }
  return withIds(() => runAsked(core, asked, options));
}

async function runAsked(core: Core, asked: Asked, options: RunOptions): Promise<Session> {
  const { request, name, image } = asked;
  if (request.autoRemove) {
    const id = newId();
    const session = await holdingImage(core, id, image, async () => {
      const made = await makeOrRecall(core, asked, options, id);
      if (made) for (const text of overlapWarnings(core.parts.state, made.record)) options.onWarning?.(text);
      return made && begin(core, made, options);
    });
    if (session) return session;
  }
  const draft = await draftContainer(core, request, newId(), name);
  // before anything is made
  if (draft.record.networks.length > 0) await choosePorts(core, draft.record);
  const { id } = await createDrafted(core, draft, { thenStart: true, ...(options.onWarning && { onWarning: options.onWarning }) });
  options.onCreated?.(id);
  return startContainer(core, id, options);
}

/** Write it down, and let it run. With the locks of {@link holdingImage}. */
async function begin(core: Core, made: Made, options: RunOptions, sandbox?: Prepared): Promise<Session> {
  const { record } = made;
  try {
    await core.request('start', { container: record.id, attach: options.attach ?? null });
    await ensureSecurity(core, record, made.plan.spec);
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
      throw await whoTook(core, error, made.endpoints);
    }
  } catch (error) {
    if (!sandbox) await endEndpoints(core, record.id);
    throw error;
  }
}

/** A sandbox for such a run to come; false when there can be none. */
export async function prepareContainer(core: Core, wanted: ContainerRequest, options: RunOptions & { readonly tag?: string } = {}): Promise<boolean> {
  const asked = await ask(core, wanted, options);
  const { key, loose, image } = asked;
  // one that waits would hold its ports against everybody, and its names are not known yet
  if (key === undefined || asked.request.ports.length > 0 || findNetwork(core, asked.request.network)?.predefined === false) return false;
  const id = newId();
  return holdingImage(core, id, image, async () => {
    const made = await makeOrRecall(core, asked, options, id);
    if (!made || !core.shapes.canRepeat(made)) {
      await endEndpoints(core, id);
      return false;
    }
    try {
      await core.sandboxes.add(made, key, loose, options.tag);
    } catch (error) {
      await collectLocked(core, id);
      throw error;
    }
    return true;
  });
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
