import { join } from 'node:path';
import { type BundleRef } from '../../api/index.ts';
import { describeError, fail, isEngineError } from '../../errors/index.ts';
import { encodePlan, type PlannedStep } from '../../plan/index.ts';
import { clock, sleep } from '../../state/files.ts';
import { runShim } from '../../state/helper.ts';
import { forgetProcess, readStarted } from '../../state/run-files.ts';
import { type Core } from '../core.ts';
import { recordFrom } from './compile.ts';
import { isFrozen, killSteps, membersOf, setFrozen } from './groups.ts';
import { mayHaveHooks, runHooks, withPlan } from './hooks.ts';
import { initOf, isAlive, notRunning, statusOf, type Init } from './status.ts';
import { checkId, ensureAside, find, findAgain, isFolder, isOurs, noSuch, notReadable, openStore, readSpec, takeLock, tidy, type Found, type Store } from './store.ts';

const SIGKILL = 9;
/** Longest wait for the end of what was killed, ms. */
const DEADLINE = 10_000;

async function signalAll(core: Core, { folder }: Found, signal: number): Promise<void> {
  const { native } = core.parts;
  if (signal === SIGKILL) {
    // by the kernel, or frozen meanwhile: nobody escapes who is just being born
    const steps = killSteps(folder).map(({ operation }): PlannedStep => ({ slot: 'after.undo', operation, undo: [], origin: { plugin: 'core', hook: 'stop' } }));
    const { failures } = steps.length > 0 ? await withPlan(folder, encodePlan({ steps }), (plan) => runShim(native, { mode: 'undo', plan })) : { failures: [] };
    if (failures[0]) throw fail('ERR_OPERATION_FAILED', `cannot kill all processes: ${failures[0].detail || failures[0].errno}`, { operation: 'kill' });
    return;
  }
  for (const pid of membersOf(folder)) {
    const startTime = native.processStartTime(pid);
    if (startTime !== undefined) native.signalProcess(pid, startTime, signal);
  }
}

export async function killBundle(core: Core, ref: BundleRef, signal: number, all = false): Promise<void> {
  const { root, id } = ref;
  if (!Number.isInteger(signal) || signal < 0 || signal > 64) throw fail('ERR_INVALID_VALUE', `invalid signal: ${signal}`, { operation: 'signal' });
  await core.request('bundle kill', { root, id, signal, all });
  const found = find(core, ref);
  const init = initOf(core, found);
  // those of a container without a pid namespace may be there still
  if (!init && !all) throw notRunning(id, 'kill');
  await core.parts.hooks.call('stop', { container: recordFrom(found, readSpec(found)), verb: 'kill', signal, run: found.stored.run });
  if (all) await signalAll(core, found, signal);
  else if (!init || !core.parts.native.signalProcess(init.pid, init.startTime, signal)) throw notRunning(id, 'kill');
  // frozen, it would not die
  if (signal === SIGKILL && init && (await isFrozen(core, found))) await setFrozen(core, found, false).catch((error: unknown) => { if (isAlive(core, init)) throw error; });
}

/** Until a process that was killed is gone. Errors: ERR_TIMEOUT. */
export async function awaitEnd(core: Core, id: string, init: Init, operation: string, patience = DEADLINE): Promise<void> {
  const end = clock() + patience;
  for (let round = 0; isAlive(core, init); round++) {
    if (clock() >= end) throw fail('ERR_TIMEOUT', `container ${id} was killed, and has not ended after ${patience} ms`, { operation, path: id, hint: `process ${init.pid} may hang in the kernel` });
    await sleep(round < 8 ? 0 : Math.min(20, round - 7));
  }
}

/** Its first process ends, and with it all others of its pid namespace. Errors: ERR_TIMEOUT. */
export async function killInit(core: Core, found: Found, init: Init, operation = 'delete'): Promise<void> {
  core.parts.native.signalProcess(init.pid, init.startTime, SIGKILL);
  if (await isFrozen(core, found)) await setFrozen(core, found, false).catch((error: unknown) => { if (isAlive(core, init)) throw error; });
  await awaitEnd(core, found.stored.id, init, operation);
}

export interface DeleteOptions { readonly force?: boolean; onWarning?(text: string): void }

/** Whether it may go as it is: its init, while it is there; `over`: nothing of it can come back. Errors: ERR_ALREADY_RUNNING. */
async function mayGo(core: Core, found: Found, force: boolean): Promise<{ readonly init?: Init; readonly over: boolean }> {
  const { status, init } = await statusOf(core, found);
  if (!force && (status === 'running' || status === 'paused')) {
    throw fail('ERR_ALREADY_RUNNING', `cannot delete container ${found.stored.id} that is not stopped: ${status}`, { operation: 'delete', path: found.stored.id, hint: 'kill it first, or use --force' });
  }
  return { ...(init && { init }), over: status === 'stopped' };
}

/** What of it can be known, when it can be: without that only its plan's undo is run. */
function lookAt(core: Core, ref: BundleRef, force: boolean, store: Store, before?: Found): Found | undefined {
  try {
    return before ? findAgain(core, ref, before) : find(core, ref, store);
  } catch (error) {
    if (force && isEngineError(error, 'ERR_STATE')) return undefined;
    throw error;
  }
}

export async function deleteBundle(core: Core, ref: BundleRef, { force = false, onWarning = (text) => core.parts.log.warn({ container: ref.id }, text) }: DeleteOptions = {}): Promise<void> {
  const { root, id } = ref;
  checkId(id);
  await core.request('bundle delete', { root, id, force });
  const store = openStore(core, root);
  const folder = store && join(store.root, id);
  if (!folder || !isFolder(folder)) {
    if (force) return store && tidy(core, store);
    throw noSuch(id);
  }
  await core.locked([], async () => {
    const before = lookAt(core, ref, force, store);
    // whoever waits for its start has the lock, and lets go of it then
    const { init: running, over } = before ? await mayGo(core, before, force) : { over: false };
    if (before && running) await killInit(core, before, running);
    let lock;
    try {
      lock = await takeLock(core, folder, id);
    } catch (error) {
      if (force && isEngineError(error, 'ERR_NO_SUCH_CONTAINER')) return;
      throw error;
    }
    try {
      const found = lookAt(core, ref, force, store, before);
      // of one that was over before there is nothing new
      const { init } = found && !(over && found === before) ? await mayGo(core, found, force) : {};
      if (found && init) await killInit(core, found, init);
      if (!found && !isOurs(folder)) throw fail('ERR_STATE', `folder ${folder} was not made by the engine`, { operation: 'delete', path: folder, hint: 'it may belong to another runtime, which can remove it' });
      if (!found) {
        onWarning(`${notReadable(folder).message}; what its plan says is undone`);
        const started = readStarted(folder);
        if (started && isAlive(core, started)) core.parts.native.signalProcess(started.pid, started.startTime, SIGKILL);
      }
      // a process of this boot that has its pid is another one
      if (found && found.stored.boot !== store.boot) forgetProcess(folder);
      ensureAside(store);
      const isAsked = core.parts.hooks.taps('postExitCleanup').length > 0;
      const container = found && (isAsked || mayHaveHooks(found, 'poststop')) ? recordFrom(found, readSpecIfAny(found)) : undefined;
      const failures = await store.runs.clear(folder, lock, async () => {
        if (found && container) await runHooks(core, found, container.spec, 'poststop', undefined, onWarning).catch((error: unknown) => onWarning(describeError(error)));
      });
      if (container) await core.parts.hooks.call('postExitCleanup', { container, failures }, { trace: core.trace });
      const text = `container ${id} is deleted, but not all of it could be undone: ${failures.join('; ')}`;
      if (failures.length > 0 && force) onWarning(text);
      else if (failures.length > 0) throw fail('ERR_UNDO_FAILED', text, { operation: 'delete', path: id, hint: 'it is tried again when other containers of this root are deleted' });
    } finally {
      lock.release();
    }
    await tidy(core, store);
  });
}
function readSpecIfAny(found: Found): ReturnType<typeof readSpec> {
  try {
    return readSpec(found);
  } catch {
    return { ociVersion: found.stored.ociVersion, process: found.stored.process };
  }
}
