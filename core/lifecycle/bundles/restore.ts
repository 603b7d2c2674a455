import * as fs from 'node:fs';
import path from 'node:path';
import { type BundleRestore, type BundleState } from '../../api/index.ts';
import { PROGRAM_FDS, type CheckpointDriver, type RestoreRequest } from '../../contracts/checkpoint/index.ts';
import { fail } from '../../errors/index.ts';
import { encodePlan, op, type Effect } from '../../plan/index.ts';
import { type Spec } from '../../spec/index.ts';
import { readStarted, writeStarted } from '../../state/run-files.ts';
import { runShim } from '../../state/helper.ts';
import { type Core } from '../core.ts';
import { type ResolvedDriver } from '../parts.ts';
import { FOREIGN, networkIsMade, STREAMS_FILE } from './checkpoint.ts';
import { converse, openFolders, type OpenFolders } from './converse.ts';
import { callerFds, createBundle, type Made } from './create.ts';
import { killInit } from './end.ts';
import { runHooks, withPlan } from './hooks.ts';
import { groupsOf, outsideOf } from './outside.ts';
import { stateOf } from './status.ts';
import { FILES } from './store.ts';

const MNT_DETACH = 2;
const MS_PRIVATE = 1 << 18;

/** The root file system as a mount of its own, which the program asks for. */
function mountRoot(folder: string, rootfs: string): Effect[] {
  const at = path.join(folder, FILES.root);
  const mount = 'restore.root';
  return [
    { operation: op.openTree({ source: rootfs, recursive: 1, out: mount }), undo: [] },
    { operation: op.setMountAttributes({ mount, propagation: MS_PRIVATE, recursive: 1 }), undo: [] },
    { operation: op.moveMount({ mount, target: at }), undo: [op.unmount({ path: at, flags: MNT_DETACH })] },
  ];
}
/** It has a root of its own by now. The undo of its plan, which says the same, finds nothing then. */
async function unmountRoot(core: Core, folder: string): Promise<void> {
  const steps = mountRoot(folder, '').flatMap(({ undo }) => undo).map((operation) => ({ slot: 'helper.main' as const, operation, undo: [], origin: { plugin: 'core', hook: 'create' } }));
  const { ended, message } = await withPlan(folder, encodePlan({ steps }), (plan) => runShim(core.parts.native, { mode: 'host', plan }));
  if (ended !== 'ok') core.parts.log.warn({ folder, message }, 'a mount stays until the container is deleted');
}

/** What holds its place until its processes are there: the same, without a terminal and without hooks. */
const placeholderOf = ({ hooks: _hooks, ...spec }: Spec): Spec => ({ ...spec, ...(spec.process && { process: { ...spec.process, terminal: false } }) });

/** Names of the streams of the first process when it was written. */
function readStreams(images: string): string[] {
  const file = path.join(images, STREAMS_FILE);
  try {
    const names: unknown = JSON.parse(fs.readFileSync(file, 'utf8'));
    if (Array.isArray(names)) return names.map(String).slice(0, 3);
    throw new TypeError('it is no list');
  } catch (cause) {
    throw fail('ERR_INVALID_VALUE', `${file} does not tell what the streams of the container were`, { operation: 'image-path', path: file, cause, hint: 'name a folder that checkpoint has written' });
  }
}

/** Namespaces by path: what the program joins itself, and what it gets as open files, which are the caller's to close. Errors: ERR_NOT_SUPPORTED, ERR_INVALID_VALUE. */
function namespacesOf(spec: Spec): Pick<RestoreRequest, 'join' | 'namespaces'> & { readonly fds: readonly number[] } {
  const fds: number[] = [];
  const join: { type: string; path: string }[] = [];
  const namespaces: { name: string; fd: number }[] = [];
  try {
    for (const { type, path: joined } of spec.linux?.namespaces ?? []) {
      if (!joined) continue;
      if (type === 'cgroup') throw fail('ERR_NOT_SUPPORTED', 'a container cannot be restored into a cgroup namespace of somebody else', { operation: 'linux.namespaces', path: joined });
      const name = FOREIGN[type];
      if (!name) {
        join.push({ type, path: joined });
        continue;
      }
      namespaces.push({ name, fd: PROGRAM_FDS.first + fds.length });
      fds.push(fs.openSync(joined, 'r'));
    }
  } catch (error) {
    for (const fd of fds) fs.closeSync(fd);
    throw error;
  }
  return { join, namespaces, fds };
}

/** The placeholder goes, and the process that was brought back is the container's first from now on. */
async function takeOver(core: Core, made: Made, pid: number): Promise<void> {
  const { folder, pid: placeholder } = made;
  const before = readStarted(folder);
  const startTime = core.parts.native.processStartTime(pid, true);
  if (!before || before.pid !== placeholder || startTime === undefined) throw fail('ERR_OPERATION_FAILED', 'what was restored has ended', { operation: 'restore' });
  writeStarted(folder, { pid, startTime });
  // as long as it is there it waits for a start
  await killInit(core, made, before, 'restore');
  fs.rmSync(path.join(folder, FILES.restoring));
}

interface Image {
  readonly driver: ResolvedDriver<CheckpointDriver>;
  readonly folders: Omit<OpenFolders, 'close'>;
  /** What its standard streams were. */
  readonly streams: readonly string[];
}
async function bringBack(core: Core, made: Made, request: BundleRestore, { driver, folders, streams }: Image): Promise<number> {
  const { spec, folder, pid: placeholder, onWarning } = made;
  const { images, work, spawner, consoleSocket: _socket, preserveFds: _fds, detached: _detached, ...options } = request;
  const { fds, ...namespaces } = namespacesOf(spec);
  const proc = core.parts.native.processFolder(placeholder);
  let restored: number | undefined;
  try {
    const talk = driver.driver.restore({
      ...options, ...namespaces, emptyNetwork: options.emptyNetwork || networkIsMade(spec), ...folders, root: path.join(folder, FILES.root), annotations: spec.annotations ?? {},
      mounts: Object.fromEntries(outsideOf(spec, proc, core.parts.machine.mounts).map(({ name, source }) => [name, source])),
      streams: streams.flatMap((name, fd) => (name.startsWith('pipe:') ? [{ name, fd }] : [])), groups: groupsOf(proc),
    });
    await converse(core, {
      what: 'restore', driver, talk, spawner, folders: { images, ...(work !== undefined && { work }) }, fds, callerFds: { ...callerFds(request, spec.process?.terminal ?? false), preserve: 0 },
      async on(occasion, { pid, fd, connection }) {
        if (occasion === 'namespaces') for (const kind of ['prestart', 'createRuntime'] as const) await runHooks(core, made, spec, kind, pid, onWarning);
        if (occasion === 'terminal' && fd !== undefined) connection.sendTerminal(fd);
        if (occasion === 'restored') await takeOver(core, made, (restored = pid));
      },
    });
  } finally {
    for (const fd of fds) fs.closeSync(fd);
  }
  if (restored === undefined) throw fail('ERR_OPERATION_FAILED', `${driver.choice.driver} has not told which process it restored`, { operation: 'restore', plugin: driver.choice.plugin });
  return restored;
}

/** By way of a container that waits for its start: limits, hosts' side and mount points are then as of any other. Its first process gives way to the one that is brought back. */
export async function restoreBundle(core: Core, request: BundleRestore): Promise<BundleState> {
  const { close, ...folders } = openFolders(request, false);
  try {
    // who cannot do it is told before anything is made
    const image = { folders, streams: readStreams(request.images), driver: await core.registry.chosen('checkpoint') };
    return await createBundle(core, request, {
      verb: 'bundle restore', content: { [FILES.restoring]: '' }, planned: placeholderOf, prepare: (folder, rootfs) => [{ plugin: 'core', effects: mountRoot(folder, rootfs) }],
      async finish(made) {
        const pid = await bringBack(core, made, request, image);
        await unmountRoot(core, made.folder);
        return stateOf(request.root, made.stored, 'running', pid);
      },
    });
  } finally {
    close();
  }
}
