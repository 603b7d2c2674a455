import path from 'node:path';
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { fail } from '../errors/index.ts';
import { BITS, effect, op, type Effect } from '../plan/index.ts';
import { ensureFolder, REGISTER, type RunContext } from '../contracts/common/index.ts';
import { type ContainerRecord, type ContainerRequest } from '../api/index.ts';
import { type Transaction } from '../state/index.ts';
import { createRecords } from '../hooks/index.ts';
import { eventAttributes, releaseProvisional, shortId, type Core } from './core.ts';
import { draftContainer, normalised, type Draft, type DraftVolume } from './draft.ts';
import { isGoing } from './finish.ts';
import { overlapWarnings, withIds } from './ids.ts';
import { ensureUnpacked, findImage, imageLock } from './images.ts';
import { ensurePredefined } from './networks.ts';
import { checkName, newId, randomName } from './names.ts';
import { mountpointOf, shiftEffects, volumeOwners } from './owners.ts';
import { attachRootfs, rootfsSteps, snapshotEffects } from './rootfs.ts';
import { bindSources } from './requested.ts';

const withContainer = { none: 'goes with the folder it lies in' } as const;
/** BITS.WRITE: create, exclusive. */
const CREATE_NEW = BITS.WRITE.create | BITS.WRITE.exclusive;

/** FS_TOPDIR_FL: ext4 spreads the folders in such a one. Else all lie in one group of inodes, and each new one looks past those that were removed lately. */
const TOPDIR = 0x20000;
function spread({ machine: { mounts, root } }: Core['parts'], path: string): Effect[] {
  const [mount] = mounts.filter(({ target }) => target === '/' || `${root}/`.startsWith(`${target}/`)).sort((a, b) => b.target.length - a.target.length);
  return mount?.type === 'ext4' ? [effect(op.setFileFlags({ path, set: TOPDIR }, { optional: true }), { none: 'a mark on a folder that is kept' })] : [];
}

/** Folder of the container, its log, and the files that are bound over those of the image. */
export function folderEffects(core: Core, draft: Draft): Effect[] {
  const { record, files } = draft;
  // what writes them later keeps their owner: who is root inside
  const root = (kind: 'uidMappings' | 'gidMappings'): number => record.spec.linux?.[kind]?.find(({ containerID }) => containerID === 0)?.hostID ?? 0;
  const owner = { uid: root('uidMappings'), gid: root('gidMappings') };
  const folder = core.folderOf(record.id);
  return [
    ensureFolder(path.dirname(folder)),
    ...(existsSync(path.dirname(folder)) ? [] : spread(core.parts, path.dirname(folder))),
    effect(op.mkdir({ path: folder, mode: 0o700 }), op.removeTree({ path: folder })),
    effect(op.mkdir({ path: path.join(folder, 'log'), mode: 0o700 }), withContainer),
    ...(wantsCopyUp(draft).length > 0 || record.rootfs.shift ? [effect(op.mkdir({ path: path.join(folder, 'rootfs'), mode: 0o700 }), withContainer)] : []),
    ...Object.entries(files).map(([name, content]) => effect(op.writeFile({ path: path.join(folder, path.basename(name)), data: Buffer.from(content), mode: 0o644, how: CREATE_NEW, ...owner }), withContainer)),
  ];
}

/** A dangling link is there too: it must not be made into a folder. */
function exists(file: string): boolean {
  try {
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false; // ENOTDIR: making it says so, with the path
  }
}

/** `-v` makes a missing source, folder by folder, so that exactly these are undone. */
export function sourceEffects(request: ContainerRequest): Effect[] {
  const made = new Set<string>();
  return bindSources(request).flatMap(({ source, create }) => {
    if (exists(source)) return [];
    if (!create) throw fail('ERR_INVALID_VALUE', `invalid mount config for type "bind": bind source path does not exist: ${source}`, { operation: 'mount', path: source });
    const missing: string[] = [];
    for (let at = path.resolve(source); !exists(at) && at !== '/' && !made.has(at); at = path.dirname(at)) missing.unshift(at);
    return missing.map((at) => {
      made.add(at);
      return effect(op.mkdir({ path: at, mode: 0o755 }, { okExists: true }), op.rmdir({ path: at }, { okMissing: true, optional: true }));
    });
  });
}

function isEmptyFolder(folder: string): boolean {
  try {
    return readdirSync(folder).length === 0;
  } catch {
    return false;
  }
}

/** Volumes that are to start with what the image has at their target. */
export const wantsCopyUp = ({ volumes }: Draft): DraftVolume[] => volumes.filter((v) => v.copyUp && (v.isNew || isEmptyFolder(v.source.driver.mountpoint(v.name))));

/** For helpers that mount a container's root: its folder has a `rootfs` then. */
const helperRun = (core: Core, { id }: ContainerRecord): RunContext => ({ container: id, run: id.slice(0, 16), instance: core.parts.state.folders.instance, runFolder: core.folderOf(id), explain: false });

/**
 * Docker's copy-up: an empty volume starts with what the image has at its target. In one helper, which sees the container's root in a
 * mount namespace of its own. The undo empties a volume only when nobody else can have written to it: it was made here, or nobody uses it.
 */
async function copyUpEffects(core: Core, draft: Draft): Promise<Effect[]> {
  const { record, drivers } = draft;
  const { state } = core.parts;
  const wanted = wantsCopyUp(draft);
  if (wanted.length === 0 || (record.rootfs.path === undefined && !drivers.storage)) return [];
  const folder = core.folderOf(record.id);
  const run = helperRun(core, record);
  const mounts = [...(drivers.storage && record.rootfs.path === undefined ? await rootfsSteps(record, drivers.storage.driver, run, true) : []), ...attachRootfs(record, path.join(folder, 'rootfs'))];
  const copies = wanted.map((v) => {
    const { driver } = v.source;
    const to = mountpointOf(v);
    // a folder of the user's own is not emptied
    const unused = !v.isNew && state.volumes.users(v.name).length === 0 && Object.keys(state.volumes.get(v.name)?.options ?? {}).length === 0;
    const undo = v.isNew ? { none: 'the volume is removed' } : unused ? [...driver.remove(v.name), ...driver.create(v.name, {})].map((e) => e.operation) : { none: 'others use the volume, or it is a folder of theirs' };
    return effect(op.copyUp({ fromRoot: REGISTER.rootfs, from: v.target, to }), undo);
  });
  return [...mounts.map(({ operation, undo, noUndo }): Effect => ({ operation, undo, ...(noUndo === undefined && undo.length > 0 ? {} : { noUndo: noUndo ?? 'goes with the helper' }) })), ...copies];
}

/** Each volume that is to be made, once. */
const newVolumes = (volumes: readonly DraftVolume[]): DraftVolume[] => volumes.filter((v, i) => v.isNew && volumes.findIndex((other) => other.name === v.name) === i);

/** The journalled part: everything on disk, then the row. */
async function make(core: Core, draft: Draft, transaction: Transaction, onWarning: ((text: string) => void) | undefined): Promise<void> {
  const { record, drivers, volumes } = draft;
  const { state } = core.parts;
  const options = onWarning ? { onWarning } : {};
  const groups = [{ plugin: 'core', effects: [...sourceEffects(record.request), ...folderEffects(core, draft)] }];
  if (drivers.storage) {
    const { driver, choice } = drivers.storage;
    groups.push({ plugin: choice.plugin, effects: [...(await snapshotEffects(record, driver))] });
    if (draft.obstacle !== undefined) onWarning?.(`the files of container ${record.name} get its owners on disk, which takes longer: ${draft.obstacle}`);
  }
  for (const { name, source, options: own } of newVolumes(volumes)) groups.push({ plugin: source.choice.plugin, effects: [...source.driver.create(name, own)] });
  groups.push({ plugin: 'core', effects: await copyUpEffects(core, draft) });
  // after the copies, which have the owners that the image says
  if (drivers.storage) groups.push({ plugin: drivers.storage.choice.plugin, effects: [...(await shiftEffects(record, drivers.storage.driver, helperRun(core, record)))] });
  const owners = volumeOwners(core, draft, wantsCopyUp(draft));
  for (const text of [...owners.warnings, ...overlapWarnings(state, record)]) onWarning?.(text);
  groups.push({ plugin: 'core', effects: [...owners.effects] });
  // one helper for all of it: a process and an fsync each would be most of the time that a create takes
  await transaction.runAll(groups, options);
  const created = record.created;
  await transaction.commit((rows) => {
    for (const v of newVolumes(volumes)) {
      const { driver, plugin, version } = v.source.choice;
      rows.insertVolume({ name: v.name, driver, plugin, version, created, labels: {}, options: { ...v.options }, anonymous: v.anonymous });
    }
    rows.insertContainer(record);
  });
}

/** Errors: ERR_NAME_TAKEN names who has it. A container that is just going away is waited for. */
export async function refuseTaken(core: Core, name: string): Promise<void> {
  const holder = core.parts.state.containers.byName(name);
  if (holder && !(await isGoing(core, holder))) throw fail('ERR_NAME_TAKEN', `the container name "${name}" is already in use by container ${shortId(holder.id)}`, { path: name });
}

export interface CreateOptions { onWarning?(text: string): void; readonly thenStart?: boolean }

/** What was asked for, as it will be executed, after the policies. */
export async function requestCreation(core: Core, asked: ContainerRequest): Promise<ContainerRequest> {
  const request = normalised(core, asked);
  await core.request('create', { request });
  await ensurePredefined(core, request);
  if (request.name !== undefined) checkName('container', request.name);
  core.phase?.('draft');
  return request;
}
export function newName(core: Core, length?: number): string {
  const name = randomName(length, (n) => core.recentNames.has(n) || core.parts.state.containers.byName(n) !== undefined);
  core.recentNames.add(name);
  for (const old of core.recentNames) if (core.recentNames.size > 500) core.recentNames.delete(old);
  return name;
}

/** A container comes into being. Errors: ERR_NAME_TAKEN names who has it, those of {@link draftContainer}. */
export async function createContainer(core: Core, asked: ContainerRequest, options: CreateOptions = {}): Promise<ContainerRecord> {
  const request = await requestCreation(core, asked);
  return withIds(async () => createDrafted(core, await draftContainer(core, request, newId(), request.name ?? newName(core)), options));
}

export async function createDrafted(core: Core, first: Draft, { onWarning, thenStart = false }: CreateOptions): Promise<ContainerRecord> {
  const { state, hooks } = core.parts;
  const { name, request } = first.record;
  core.phase?.('unpack');
  if (first.image && first.drivers.storage) await ensureUnpacked(core, first.image, first.drivers.storage.driver);
  const named = [...new Set(first.volumes.filter((v) => !v.anonymous).map((v) => v.name))].sort();
  const locks = [...(first.image?.image.rootfs.kind === 'layers' ? [imageLock(first.image.image.id)] : []), ['name', name], ...named.map((n) => ['volume', n])] as [string, string][];
  return core.locked(locks, async () => {
    await refuseTaken(core, name);
    // the world may have changed until the locks were held: volumes made, the image removed
    const stands = named.length === 0 && (!first.image || (await findImage(core, request.image)).image.id === first.image.image.id);
    const draft = stands ? first : await draftContainer(core, request, first.record.id, name);
    if (draft.image && draft.drivers.storage) await ensureUnpacked(core, draft.image, draft.drivers.storage.driver);
    const records = createRecords(draft.record, { writable: true });
    core.phase?.('create');
    await hooks.call('create', { container: draft.record }, { records, trace: core.trace });
    const plugins = records.changed();
    if (plugins) draft.record.plugins = plugins;
    if (thenStart && request.autoRemove) {
      draft.record.provisional = true;
      core.provisional.set(draft.record.id, await state.lock('starting', draft.record.id));
    }
    try {
      await core.transact(`create container ${name}`, (transaction) => make(core, draft, transaction, onWarning));
    } catch (error) {
      releaseProvisional(core, draft.record.id);
      throw error;
    }
    for (const v of draft.volumes) if (v.isNew) core.emit('volume', 'create', v.name, { driver: v.source.choice.driver });
    core.emit('container', 'create', draft.record.id, eventAttributes(draft.record));
    return draft.record;
  });
}
