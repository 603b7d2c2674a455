import * as fs from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../errors/index.ts';
import { type BundleRef } from '../../api/index.ts';
import { type Lock } from '../../native/index.ts';
import { RUN_FILES } from '../../plan/index.ts';
import { instanceOfReal, type RunsBelow } from '../../state/index.ts';
import { clock, errorCode, ifPresent, lockFolder, names, readJson, removeRecords, sleep, writeAtomic } from '../../state/files.ts';
import { readRecord } from '../../state/run-files.ts';
import { type ContainerRecord } from '../../api/index.ts';
import { type Process, type Spec } from '../../spec/index.ts';
import { type Core } from '../core.ts';
import { exactJson, parseExact } from './config.ts';

/** What lies beside a run's own files: what is told of a container, and its spec in a file of its own, which lists need not read. */
export const FILES = {
  container: 'container.json', spec: 'spec.json',
  /** While a container is restored: its first process is a stand-in, which nobody may start. */
  restoring: 'restoring',
  /** The root file system once more, until then. */
  root: 'restore-root',
} as const;
/** Of container.json; a change that older ones could not read gets another. */
export const VERSION = 1;

/** container.json: all that later verbs go by, whatever the configuration says by then. */
export interface Stored {
  readonly version: number;
  readonly ociVersion: string;
  readonly id: string;
  readonly bundle: string;
  readonly rootfs: string;
  readonly created: string;
  readonly owner: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly process: Process;
  readonly drivers: ContainerRecord['drivers'];
  readonly plugins?: NonNullable<ContainerRecord['plugins']>;
  readonly noNewKeyring: boolean;
  /** Kinds of hooks that its spec has: who has none of a kind need not read it. Absent: not known. */
  readonly hooks?: readonly string[];
  readonly run: string;
  readonly boot: string;
  /** `path` of its GroupRef. */
  readonly group?: string;
}
export interface Found { readonly store: Store; readonly folder: string; readonly stored: Stored }

/** A root of containers, which lives by its folders alone. */
export interface Store {
  readonly root: string;
  /** `engine-` and 8 hex digits of its path: in the names of what its containers have on the host. */
  readonly instance: string;
  readonly runs: RunsBelow;
  /** Of this machine now. */
  readonly boot: string;
}

/** As runc takes them. Errors: ERR_INVALID_VALUE. */
export function checkId(id: string): void {
  if (!/^[\w+\-.]+$/.test(id) || id === '.' || id === '..' || id.startsWith('.')) throw fail('ERR_INVALID_VALUE', `invalid id: ${JSON.stringify(id)}`, { operation: 'id', path: id, hint: 'letters, digits and _ + - . are allowed, without a dot in front' });
  // with what a removal appends it must still be a name
  if (id.length > 240) throw fail('ERR_INVALID_VALUE', 'invalid id: longer than 240 characters', { operation: 'id', path: id });
}

/** Whoever can write to it could have us undo what he likes. */
function checkRoot(root: string, { uid, mode }: fs.Stats): void {
  if (uid !== (process.geteuid?.() ?? 0) || (mode & 0o022) !== 0) throw fail('ERR_STATE', `folder ${root} can be written by others`, { operation: 'root', path: root, hint: `chown and chmod 700 it, or name another --root` });
}

/** The root `root`; undefined when it is not there, unless it is to be made. Errors: ERR_STATE. */
export function openStore(core: Core, root: string, make = false): Store | undefined {
  if (!root.startsWith('/')) throw fail('ERR_INVALID_VALUE', `root is not an absolute path: ${root}`, { operation: 'root', path: root });
  try {
    let there = fs.statSync(root, { throwIfNoEntry: false });
    if (!there && !make) return undefined;
    if (!there) {
      fs.mkdirSync(root, { recursive: true, mode: 0o700 });
      there = fs.statSync(root);
    }
    checkRoot(root, there);
    const real = fs.realpathSync.native(root);
    let runs: RunsBelow | undefined;
    let instance: string | undefined;
    return { root: real, boot: core.parts.native.bootId(), get instance() { return (instance ??= instanceOfReal(real)); }, get runs() { return (runs ??= core.parts.state.runsIn(real)); } };
  } catch (error) {
    const code = errorCode(error);
    if (code === undefined || code.startsWith('ERR_')) throw error;
    if (!make && code === 'ENOENT') return undefined;
    throw fail('ERR_STATE', `cannot use folder ${root}`, { operation: 'root', path: root, errno: code, cause: error });
  }
}

export const noSuch = (id: string): Error => fail('ERR_NO_SUCH_CONTAINER', `container "${id}" does not exist`, { path: id, hint: '' });
export const notReadable = (folder: string, cause?: unknown): Error => fail('ERR_STATE', `the state of the container in ${folder} cannot be read`, { operation: 'state', path: folder, hint: 'delete it with --force', ...(cause !== undefined && { cause }) });

function readStored(folder: string): Stored | undefined {
  const value = readJson(join(folder, FILES.container)) as Partial<Stored> | undefined;
  if (typeof value !== 'object' || value === null || typeof value.version !== 'number' || value.version > VERSION) return undefined;
  const { id, bundle, rootfs, ociVersion, created, process, drivers } = value;
  const texts = [id, bundle, rootfs, ociVersion, created].every((text) => typeof text === 'string');
  if (!texts || typeof process !== 'object' || !Array.isArray(drivers?.security)) return undefined;
  // of an older engine these are in the run's record alone
  const record = value.run === undefined ? readRecord(folder) : undefined;
  if (value.run === undefined && !record) return undefined;
  return { ...(value as Stored), owner: value.owner ?? '', annotations: value.annotations ?? {}, noNewKeyring: value.noNewKeyring ?? false, ...(record && { run: record.run, boot: record.boot, ...(record.group !== undefined && { group: record.group }) }) };
}

/** Errors: ERR_NO_SUCH_CONTAINER, ERR_STATE, ERR_INVALID_VALUE. */
export function find(core: Core, { root, id }: BundleRef, store = openStore(core, root)): Found {
  checkId(id);
  const folder = store && join(store.root, id);
  if (!folder) throw noSuch(id);
  const stored = readStored(folder);
  if (!stored) throw isFolder(folder) ? notReadable(folder) : noSuch(id);
  return { store, folder, stored };
}
export const isFolder = (folder: string): boolean => fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true;

/** Ids below a root, whatever lies there under them. */
export const idsIn = ({ root }: Store): string[] => names(root).filter((name) => !name.startsWith('.')).sort();

/** What `create` writes. */
export const contentOf = (stored: Stored, spec: Spec): Readonly<Record<string, string>> => ({ [FILES.container]: JSON.stringify(stored), [FILES.spec]: exactJson(spec) });

/** Its spec as it was compiled. Errors: ERR_STATE. */
export function readSpec({ folder }: Found): Spec {
  try {
    return parseExact(fs.readFileSync(join(folder, FILES.spec), 'utf8')) as Spec;
  } catch (cause) {
    throw notReadable(folder, cause);
  }
}
export const writeSpec = ({ folder }: Found, spec: Spec): void => writeAtomic(join(folder, FILES.spec), exactJson(spec));

/** Longest wait for another verb on the same container, ms. */
export const PATIENCE = 30_000;

/** Its lock, which a shim has until the hand-over and every verb that changes something. Errors: ERR_BUSY, ERR_NO_SUCH_CONTAINER when it goes meanwhile. */
export async function takeLock(core: Core, folder: string, id: string, patience = PATIENCE): Promise<Lock> {
  const end = clock() + patience;
  for (let round = 0; ; round++) {
    const lock = lockFolder(core.parts.native, folder, { create: true });
    if (lock) return lock;
    if (!isFolder(folder)) throw noSuch(id);
    if (clock() >= end) throw fail('ERR_BUSY', `another operation on container ${id} takes longer than ${patience} ms`, { operation: 'lock', path: id });
    await sleep(round < 4 ? 0 : Math.min(25, 2 ** (round - 4)));
  }
}
/** As it was before its lock was taken, unless it is another one by now: of the same run nothing that is found is ever written again. Errors: those of {@link find}. */
export const findAgain = (core: Core, ref: BundleRef, found: Found): Found => (readRecord(found.folder)?.run === found.stored.run ? found : find(core, ref, found.store));
/** `work` on a container that nobody else changes meanwhile. */
export async function withLock<T>(core: Core, ref: BundleRef, work: (found: Found) => Promise<T>): Promise<T> {
  const found = find(core, ref);
  return core.locked([], async () => {
    const lock = await takeLock(core, found.folder, ref.id);
    try {
      return await work(findAgain(core, ref, found));
    } finally {
      lock.release();
    }
  });
}

/** Does somebody hold the lock: a shim before its hand-over, or a verb? */
export function isHeld(core: Core, folder: string): boolean {
  const path = join(folder, RUN_FILES.lock);
  const lock = core.parts.native.tryLock(path, { create: false, shared: true });
  lock?.release();
  return lock === undefined && fs.existsSync(path);
}

const OWN = new Set<string>([...Object.values(RUN_FILES), ...Object.values(FILES), 'started.stale']);
/** Did we make what lies there? Another runtime's containers in the same root are not ours to remove. */
export const isOurs = (folder: string): boolean => readRecord(folder) !== undefined || names(folder).every((name) => OWN.has(name) || /\.tmp(-|$)/.test(name) || name.startsWith('plan-'));

/**
 * What crashes have left in a root: folders that were never renamed into place, what was to be deleted, one thing that could not be undone (a try costs
 * a process). Whatever somebody else is at is left to him.
 */
export async function tidy(core: Core, { root, runs }: Store): Promise<void> {
  const { native, log } = core.parts;
  const trash = join(root, '.trash');
  for (const name of names(root)) {
    const folder = join(root, name);
    if (!name.startsWith('.tmp-')) continue;
    const lock = lockFolder(native, folder, { create: true });
    if (lock) removeRecords(folder);
    lock?.release();
  }
  for (const name of names(trash)) if (!runs.isLeaving(join(trash, name))) removeRecords(join(trash, name));
  const left = names(join(root, '.leftovers'));
  const [name] = left.slice(Math.floor(Math.random() * left.length));
  const folder = name === undefined ? undefined : join(root, '.leftovers', name);
  const lock = folder && lockFolder(native, folder, { create: true });
  if (!folder || !lock) return;
  const failures = await runs.clear(folder, lock);
  if (failures.length > 0) log.warn({ folder, failures }, 'still not undone');
}

/** A folder for what is moved aside. */
export function ensureAside({ root }: Store): void {
  for (const name of ['.trash', '.leftovers']) ifPresent(() => fs.mkdirSync(join(root, name), { mode: 0o700, recursive: true }));
}
