import * as fs from 'node:fs';
import path from 'node:path';
import { type BundleCheckpoint, type BundleRef } from '../../api/index.ts';
import { type DumpRequest } from '../../contracts/checkpoint/index.ts';
import { ownsNamespace, type Spec } from '../../spec/index.ts';
import { writeAtomic } from '../../state/files.ts';
import { type Core } from '../core.ts';
import { recordFrom } from './compile.ts';
import { converse, openFolders } from './converse.ts';
import { awaitEnd } from './end.ts';
import { killSteps } from './groups.ts';
import { outsideOf } from './outside.ts';
import { notRunning, statusOf, type Init } from './status.ts';
import { PATIENCE, readSpec, withLock, type Found } from './store.ts';

/** Where runc has them too: what fds 0 to 2 of the first process were. */
export const STREAMS_FILE = 'descriptors.json';
/** Kinds of namespaces that a program can leave to others, with the names that these have in an image, as runc gives them. */
export const FOREIGN: Readonly<Record<string, string>> = { network: 'extRootNetNS', pid: 'extRootPidNS' };

/** A group that all its processes are in, and that can be frozen. */
function freezerOf(folder: string): string | undefined {
  const groups = killSteps(folder).map(({ operation }) => String(operation.args['path']));
  return groups.find((group) => ['cgroup.freeze', 'freezer.state'].some((file) => fs.existsSync(path.join(group, file))));
}

const foreignOf = (spec: Spec): DumpRequest['namespaces'] => (spec.linux?.namespaces ?? []).flatMap(({ type, path: joined }) => {
  const name = FOREIGN[type];
  return name && joined ? [{ type, inode: fs.statSync(joined).ino, name }] : [];
});

/** Is what is in its net namespace made by hooks? They make it again, and an image with it would be in their way. */
export const networkIsMade = (spec: Spec): boolean => ownsNamespace(spec, 'network') && [spec.hooks?.prestart, spec.hooks?.createRuntime].some((hooks) => hooks?.length);

/** `pipe:[123]`, a path: what its standard streams are. */
const streamsOf = (proc: string): string[] => [0, 1, 2].map((fd) => {
  try {
    return fs.readlinkSync(`${proc}/fd/${fd}`);
  } catch {
    return '/dev/null'; // it has closed it
  }
});

async function dump(core: Core, found: Found, init: Init, request: BundleCheckpoint): Promise<void> {
  const { spawner, images, work: _work, onReady, ...options } = request;
  const driver = await core.registry.chosen('checkpoint');
  const spec = readSpec(found);
  await core.parts.hooks.call('checkpoint', { container: recordFrom(found, spec) }, { trace: core.trace });
  const { close, ...folders } = openFolders(request, true);
  try {
    const proc = core.parts.native.processFolder(init.pid);
    const freezer = freezerOf(found.folder);
    const talk = driver.driver.dump({
      ...options, emptyNetwork: options.emptyNetwork || networkIsMade(spec), ...folders, root: found.stored.rootfs, annotations: found.stored.annotations, pid: init.pid,
      mounts: Object.fromEntries(outsideOf(spec, proc, core.parts.machine.mounts).map(({ target, name }) => [target, name])), namespaces: foreignOf(spec), ...(freezer !== undefined && { freezer }),
    });
    if (!request.preDump) writeAtomic(path.join(images, STREAMS_FILE), JSON.stringify(streamsOf(proc)));
    await converse(core, { what: 'checkpoint', driver, talk, spawner, folders: request, on: (occasion) => (occasion === 'ready' ? onReady?.() : undefined) });
  } finally {
    close();
  }
  if (request.leaveRunning || request.preDump) return;
  // killed by who has written it; its state is told next
  await awaitEnd(core, found.stored.id, init, 'checkpoint', PATIENCE);
}

export async function checkpointBundle(core: Core, ref: BundleRef, request: BundleCheckpoint): Promise<void> {
  const { root, id } = ref;
  const { spawner: _spawner, onReady: _ready, ...asked } = request;
  await core.request('bundle checkpoint', { root, id, ...asked });
  await withLock(core, ref, async (found) => {
    const { status, init } = await statusOf(core, found);
    if (!init || (status !== 'running' && status !== 'paused')) throw notRunning(id, 'checkpoint');
    await dump(core, found, init, request);
  });
}
