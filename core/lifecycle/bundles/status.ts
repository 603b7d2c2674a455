import * as fs from 'node:fs';
import { join } from 'node:path';
import { type BundleRef, type BundleState, type BundleStatus } from '../../api/index.ts';
import { fail, isEngineError } from '../../errors/index.ts';
import { breathe } from '../../hooks/index.ts';
import { RUN_FILES } from '../../plan/index.ts';
import { errorCode } from '../../state/files.ts';
import { readStarted } from '../../state/run-files.ts';
import { type Core } from '../core.ts';
import { isFrozen } from './groups.ts';
import { FILES, find, idsIn, isHeld, openStore, type Found, type Stored } from './store.ts';

export interface Init { readonly pid: number; readonly startTime: bigint }

export const isAlive = ({ parts: { native } }: Core, { pid, startTime }: Init): boolean => native.processStartTime(pid, true) === startTime;

/** Init, when it is there and is the one that was started. */
export function initOf(core: Core, { folder, stored, store }: Found): Init | undefined {
  if (stored.boot !== store.boot) return undefined;
  const started = readStarted(folder);
  return started && isAlive(core, started) ? started : undefined;
}

/** The fifo that init waits at, open for its start; undefined when nobody waits there: it has been started, or has ended. */
export function openGo(folder: string): number | undefined {
  try {
    return fs.openSync(join(folder, RUN_FILES.go), fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    if (errorCode(error) === 'ENXIO' || errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

export async function statusOf(core: Core, found: Found): Promise<{ readonly status: BundleStatus; readonly init?: Init }> {
  const { folder, stored, store } = found;
  if (stored.boot !== store.boot) return { status: 'stopped' };
  let started = readStarted(folder);
  if (!started) {
    if (isHeld(core, folder)) return { status: 'creating' };
    // who was making it has gone; what a shim wrote before it ended is complete now
    started = readStarted(folder);
  }
  if (!started) return { status: 'stopped' };
  if (!isAlive(core, started)) return { status: 'stopped' };
  const go = openGo(folder);
  if (go !== undefined) fs.closeSync(go);
  // one that waits for no start: a stand-in
  if (go !== undefined && fs.existsSync(join(folder, FILES.restoring))) return { status: isHeld(core, folder) ? 'creating' : 'stopped' };
  if (await isFrozen(core, found)) return { status: 'paused', init: started };
  return { status: go === undefined ? 'running' : 'created', init: started };
}

export function stateOf(root: string, stored: Omit<Stored, 'version' | 'run' | 'boot'>, status: BundleStatus, pid: number): BundleState {
  const { id, ociVersion, bundle, rootfs, created, annotations, owner, process } = stored;
  return { root, id, ociVersion, status, pid, bundle, rootfs, created, annotations, owner, process };
}
export async function stateNow(core: Core, root: string, found: Found): Promise<BundleState> {
  const { status, init } = await statusOf(core, found);
  return stateOf(root, found.stored, status, init?.pid ?? 0);
}

export async function readState(core: Core, ref: BundleRef): Promise<BundleState> {
  await core.request('bundle state', { root: ref.root, id: ref.id });
  return stateNow(core, ref.root, find(core, ref));
}

/** What cannot be read is told and left out; what goes meanwhile is not there. */
export async function listBundles(core: Core, root: string, onWarning: (text: string) => void = () => {}): Promise<readonly BundleState[]> {
  await core.request('bundle list', { root });
  const store = openStore(core, root);
  const states: BundleState[] = [];
  for (const [i, id] of (store ? idsIn(store) : []).entries()) {
    if (i % 32 === 31) await breathe();
    try {
      states.push(await stateNow(core, root, find(core, { root, id }, store)));
    } catch (error) {
      if (!isEngineError(error)) throw error;
      if (error.code !== 'ERR_NO_SUCH_CONTAINER') onWarning(error.message);
    }
  }
  return states;
}

export const notRunning = (id: string, what: string): Error => fail('ERR_NOT_RUNNING', `cannot ${what}: container ${id} is not running`, { operation: what, path: id, hint: '' });
/** Init of one that has not ended. Errors: ERR_NOT_RUNNING. */
export function requireInit(core: Core, found: Found, what: string): Init {
  const init = initOf(core, found);
  if (!init) throw notRunning(found.stored.id, what);
  return init;
}
