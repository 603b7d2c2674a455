import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fail, isEngineError } from '../errors/index.ts';
import { FRAME, RUN_FILES } from '../plan/protocol.ts';
import { parseSignal, type AttachStreams, type ContainerRecord, type ContainerState, type ContainerView, type ExitRecord, type Session } from '../api/index.ts';
import { within } from '../contracts/common/index.ts';
import { type ShimConnection } from '../native/index.ts';
import { type RunView } from '../state/index.ts';
import { takeClient } from './clients.ts';
import { endWithEngine, eventAttributes, type Core } from './core.ts';
import { collectLocked, finishRun } from './finish.ts';
import { readExitFrame } from './frames.ts';
import { isFrozen, isPausedRun, letGo } from './freezer.ts';
import { streamFlags } from './plan-run.ts';
import { removeLocked } from './remove.ts';
import { createSession } from './session.ts';

const SIGKILL = 9;
const DEFAULT_STOP_TIMEOUT = 10;

type Running = RunView & { readonly started: NonNullable<RunView['started']> };
/** It is not there, or has ended. */
export const isOver = (view: RunView | undefined): boolean => !isRunning(view);
const isRunning = (view: RunView | undefined): view is Running => view !== undefined && view.alive && !view.exit && view.started !== undefined;

/** The current run; one that is just being started is waited for. */
async function currentRun(core: Core, id: string): Promise<Running | undefined> {
  const { runs } = core.parts.state;
  let view = runs.find(id);
  if (view?.alive && !view.exit && !view.started) {
    await core.locked([['container', id]], async () => {});
    view = runs.find(id);
  }
  return isRunning(view) ? view : undefined;
}

export const notRunning = (record: ContainerRecord, what: string): Error => fail('ERR_NOT_RUNNING', `cannot ${what}: container ${record.name} is not running`, { path: record.name });
/** Errors: ERR_NOT_RUNNING. */
export async function requireRun(core: Core, record: ContainerRecord, what: string): Promise<Running> {
  const view = await currentRun(core, record.id);
  if (!view) throw notRunning(record, what);
  return view;
}
export async function connect(core: Core, view: RunView): Promise<ShimConnection> {
  return endWithEngine(core, await core.parts.native.connectShim(path.join(view.folder, RUN_FILES.socket)));
}

/** Tell who cares that somebody wants a container to end, before it does. */
function announceStop(core: Core, container: ContainerRecord, verb: 'stop' | 'kill' | 'restart', signal: number): Promise<unknown> {
  const run = core.parts.state.runs.find(container.id)?.record.run;
  return core.parts.hooks.call('stop', { container, verb, signal, ...(run !== undefined && { run }) });
}

/** A client of a run that only waits. Undefined when the shim is gone. */
export async function watch(core: Core, view: RunView): Promise<{ connection: ShimConnection; exit: Promise<ExitRecord | undefined> } | undefined> {
  let connection: ShimConnection;
  try {
    connection = await connect(core, view);
  } catch (error) {
    if (isEngineError(error, 'ERR_SHIM_GONE')) return undefined;
    throw error;
  }
  const { promise, resolve } = Promise.withResolvers<ExitRecord | undefined>();
  connection.onFrame((frame) => {
    if (frame.type === FRAME.exit && frame.session === 0) resolve(readExitFrame(frame, view.record.run, view.started?.startedAt));
  });
  connection.closed.then(() => resolve(undefined), () => resolve(undefined));
  await connection.send(FRAME.wait, { session: 0 }).catch(() => {});
  return { connection, exit: promise };
}

/** Resolves false after `seconds`; negative waits for ever. */
async function isDone(work: Promise<unknown>, seconds: number): Promise<boolean> {
  const done = work.then(() => true);
  return seconds < 0 ? done : within(done, seconds * 1000, () => false);
}

/** A session fails in odd ways when its container ends under it: then it is that which is to be told. */
export async function reasonOf(core: Core, view: RunView, record: ContainerRecord, what: string, error: unknown): Promise<unknown> {
  const isOdd = isEngineError(error) && (error.operation === 'joinContainer' || error.code === 'ERR_SHIM_GONE');
  return isOdd && (await endsWithin(core, view, 1)) ? notRunning(record, what) : error;
}
/** Is this run over, or is it within `seconds`? */
async function endsWithin(core: Core, view: RunView, seconds: number): Promise<boolean> {
  const watched = await watch(core, view);
  const ended = !watched || (await isDone(watched.exit, seconds));
  watched?.connection.close();
  return ended;
}

/** The shim above an init, and its state letter in /proc/PID/stat. */
function shimOf(init: number): { readonly pid: number; readonly state: string } | undefined {
  const fields = (pid: number): string[] => readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ');
  try {
    const pid = Number(fields(init)[1]);
    return readFileSync(`/proc/${pid}/comm`, 'latin1') === 'engine-shim\n' ? { pid, state: fields(pid)[0] ?? '' } : undefined;
  } catch {
    return undefined; // one of them has ended meanwhile
  }
}
/** One that has just ended needs no signal. */
function signalProcess(pid: number, signal: number | NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
/** A shim that somebody has stopped (root of a container with the host's pids can) would keep its container from being killed for ever. */
function wakeShim(init: number): void {
  const shim = shimOf(init);
  if (shim?.state === 'T') signalProcess(shim.pid, 'SIGCONT');
}
/** Seconds until it is asked whether a shim that does not answer can. */
const SHIM_PATIENCE = 10;

/** The answer of a shim. Errors: its own; ERR_TIMEOUT when the shim is stopped, or hangs in the kernel: it may never answer. */
export async function answerOf<T>(view: Running, record: ContainerRecord, what: string, answer: Promise<T>): Promise<T> {
  while (!(await isDone(answer, SHIM_PATIENCE))) {
    const shim = shimOf(view.started.pid);
    if (shim && /[TtD]/.test(shim.state)) throw fail('ERR_TIMEOUT', `cannot ${what}: the shim of container ${record.name} does not answer`, { operation: what, path: record.name, hint: shim.state === 'D' ? `process ${shim.pid} hangs in the kernel` : `somebody has stopped it; let it go on: kill -CONT ${shim.pid}` });
  }
  return answer;
}

/** To init, by its shim; without one, by pid, when that is still the same process. */
async function signalRun(core: Core, view: Running, connection: ShimConnection | undefined, signal: number): Promise<void> {
  const { pid, startTime } = view.started;
  if (signal === SIGKILL) wakeShim(pid);
  try {
    if (connection) return await connection.send(FRAME.signal, { session: 0, argument: signal });
  } catch (error) {
    // it ends just now, or was killed: its init may be there for a moment longer
    if (!isEngineError(error, 'ERR_SHIM_GONE')) throw error;
  }
  if (core.parts.native.processStartTime(pid) === startTime) signalProcess(pid, signal);
}

/** Kill what runs and wait for the end of its undo, up to collecting. With the container's lock held. */
async function killLocked(core: Core, id: string): Promise<void> {
  const view = core.parts.state.runs.find(id);
  if (isRunning(view)) {
    const watched = await watch(core, view);
    await signalRun(core, view, watched?.connection, SIGKILL);
    await watched?.connection.closed;
  }
  if (view) await collectLocked(core, id);
}

export interface StopOptions { timeout?: number; signal?: string }
export async function stopContainer(core: Core, ref: string, options: StopOptions = {}): Promise<void> {
  const record = core.parts.state.containers.resolve(ref);
  await core.request('stop', { container: record.id, ...options });
  await endRun(core, record, 'stop', options);
}

/** The signal that asks, then the one that doesn't; returns when the run's undo is done. */
export async function endRun(core: Core, record: ContainerRecord, verb: 'stop' | 'restart', options: StopOptions): Promise<void> {
  const { defaults } = core.parts;
  const signal = parseSignal(options.signal ?? record.request.stopSignal ?? record.imageConfig.StopSignal ?? 'TERM');
  await announceStop(core, record, verb, signal);
  const view = await currentRun(core, record.id);
  if (!view) return;
  const watched = await watch(core, view);
  if (watched) {
    await signalRun(core, view, watched.connection, signal).catch(() => {});
    const timeout = options.timeout ?? record.request.stopTimeout ?? defaults.stopTimeout ?? DEFAULT_STOP_TIMEOUT;
    await letGo(core, record, view).catch((error: unknown) => core.parts.log.warn({ err: error, container: record.id }, 'it may still be paused'));
    if (!(await isDone(watched.exit, timeout))) await signalRun(core, view, watched.connection, SIGKILL).catch(() => {});
    await ended(core, record, view, watched.connection.closed);
  }
  await finishRun(core, record.id, view.record.run);
  core.emit('container', 'stop', record.id, eventAttributes(record));
}

export async function killContainer(core: Core, ref: string, signalName: string): Promise<void> {
  const record = core.parts.state.containers.resolve(ref);
  const signal = parseSignal(signalName);
  await core.request('kill', { container: record.id, signal });
  await announceStop(core, record, 'kill', signal);
  // as Docker: one that is about to be started again is not, and that is what was wanted
  if (viewContainer(core, record).restarts?.next !== undefined) return;
  const view = await requireRun(core, record, 'kill');
  const watched = await watch(core, view);
  await signalRun(core, view, watched?.connection, signal);
  if (signal === SIGKILL || wakes(record, signal)) await letGo(core, record, view);
  core.emit('container', 'kill', record.id, { ...eventAttributes(record), signal: String(signal) });
  if (signal !== SIGKILL) {
    watched?.connection.close();
    return;
  }
  if (watched) await ended(core, record, view, watched.connection.closed);
  await finishRun(core, record.id, view.record.run);
}
/** As Docker: any signal wakes one that is paused, unless it has a stop signal of its own; then only that. */
function wakes({ request, imageConfig }: ContainerRecord, signal: number): boolean {
  const own = request.stopSignal ?? imageConfig.StopSignal;
  return own === undefined || parseSignal(own) === signal;
}
/** The end of one that was killed, also when somebody pauses it in between: frozen, it would not die. */
async function ended(core: Core, record: ContainerRecord, view: RunView, end: Promise<unknown>): Promise<void> {
  while (!(await isDone(end, 1))) await letGo(core, record, view).catch(() => {});
}

export async function removeContainer(core: Core, ref: string, options: { force: boolean; volumes: boolean }): Promise<void> {
  const { state } = core.parts;
  const { id } = state.containers.resolve(ref);
  await core.request('remove', { container: id, ...options });
  await core.locked([['container', id]], async () => {
    const record = state.containers.get(id);
    // the end of its run with --rm came first
    if (!record) return;
    const view = state.runs.find(id);
    if (isRunning(view) && !options.force) {
      const paused = await isPausedRun(core, record, view);
      throw fail('ERR_IN_USE', `cannot remove container ${record.name}: it is ${paused ? 'paused' : 'running'}`, { path: record.name, hint: `${paused ? 'unpause and stop' : 'stop'} it first, or use --force` });
    }
    await killLocked(core, id);
    await removeLocked(core, record, { volumes: options.volumes });
  });
}

/** For a session that lost its connection (cut off, as it did not read): the exit of its run, from the shim or from what it wrote. */
export async function lateExit(core: Core, id: string, run: string): Promise<ExitRecord | undefined> {
  const view = core.parts.state.runs.find(id);
  if (view?.record.run !== run) return undefined;
  const watched = view.alive && !view.exit ? await watch(core, view) : undefined;
  const exit = await watched?.exit;
  watched?.connection.close();
  return exit ?? core.parts.state.runs.find(id)?.exit;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

export async function waitContainer(core: Core, ref: string, condition: 'not-running' | 'next-exit' | 'removed' = 'not-running', signal?: AbortSignal): Promise<ExitRecord> {
  const { state } = core.parts;
  const record = state.containers.resolve(ref);
  await core.request('wait', { container: record.id, condition });
  const none: ExitRecord = { run: '', code: 0, finishedAt: '0001-01-01T00:00:00Z' };
  let view = await currentRun(core, record.id);
  for (const before = record.lastExit?.run; condition === 'next-exit' && !view && !signal?.aborted; await sleep(20)) {
    const now = state.containers.get(record.id);
    if (!now || (now.lastExit && now.lastExit.run !== before)) return now?.lastExit ?? none;
    view = await currentRun(core, record.id);
  }
  let exit: ExitRecord | undefined;
  if (view) {
    const watched = await watch(core, view);
    signal?.addEventListener('abort', () => watched?.connection.close());
    exit = await watched?.exit;
    if (signal?.aborted) return exit ?? none;
    // whoever started it may be gone
    if (!exit || record.request.autoRemove || condition === 'removed') {
      await watched?.connection.closed;
      await finishRun(core, record.id, view.record.run);
    } else watched?.connection.close();
  } else {
    const over = state.runs.find(record.id);
    if (over) await finishRun(core, record.id, over.record.run);
  }
  exit ??= state.containers.get(record.id)?.lastExit ?? record.lastExit ?? none;
  while (condition === 'removed' && !signal?.aborted && state.containers.get(record.id)) await sleep(20);
  return exit;
}

export async function attachContainer(core: Core, ref: string, streams: AttachStreams, options: { readonly client?: number } = {}): Promise<Session> {
  const record = core.parts.state.containers.resolve(ref);
  await core.request('attach', { container: record.id, streams });
  const view = await requireRun(core, record, 'attach');
  if (await isPausedRun(core, record, view)) throw fail('ERR_PAUSED', `cannot attach to container ${record.name}: it is paused`, { operation: 'attach', path: record.name });
  try {
    return await attachTo(core, record, view, streams, options);
  } catch (error) {
    throw await reasonOf(core, view, record, 'attach', error);
  }
}
async function attachTo(core: Core, record: ContainerRecord, view: Running, streams: AttachStreams, options: { readonly client?: number }): Promise<Session> {
  const connection = await connect(core, view);
  const session = createSession({
    connection, container: record.id, run: view.record.run, number: 0, pid: view.started.pid, startedAt: view.started.startedAt,
    finish: () => finishRun(core, record.id, view.record.run), lateExit: () => lateExit(core, record.id, view.record.run),
  });
  connection.onFrame((frame) => session.receive(frame));
  const client = takeClient(options);
  if (client !== undefined) connection.adopt(client);
  await connection.send(FRAME.attach, { session: 0, argument: streamFlags({ terminal: false, openStdin: false }, streams) });
  await connection.send(FRAME.wait, { session: 0 });
  core.emit('container', 'attach', record.id, eventAttributes(record));
  return session;
}

/** As {@link viewContainer}, with what tells those that are paused loaded first. */
export async function viewNow(core: Core, record: ContainerRecord): Promise<ContainerView> {
  const view = core.parts.state.runs.find(record.id);
  return viewOf(core, record, view, isRunning(view) && (await isPausedRun(core, record, view)));
}

/** What a container is doing, by its run's folder; who must know whether it is paused asks {@link viewNow}. */
export function viewContainer(core: Core, record: ContainerRecord): ContainerView {
  const view = core.parts.state.runs.find(record.id);
  return viewOf(core, record, view, isRunning(view) && isFrozen(core, record, view) === true);
}
function viewOf(core: Core, record: ContainerRecord, view: RunView | undefined, frozen: boolean): ContainerView {
  const over: ContainerState = view?.exit || view?.started || record.starts > 0 || record.lastExit ? 'stopped' : 'created';
  const state: ContainerState = isRunning(view) ? (frozen ? 'paused' : 'running') : view?.alive && !view.exit ? 'creating' : over;
  // an exit that was not collected yet is known all the same
  const shown = view?.exit && record.lastExit?.run !== view.exit.run ? { ...record, lastExit: view.exit } : record;
  const restarts = core.registry.restarts(shown, view?.alive === true && !view.exit);
  const known = { record: shown, ...(restarts && { restarts }) };
  if (!isRunning(view)) return { ...known, state };
  const endpoints = record.networks.length > 0 ? core.parts.state.endpoints.of(record.id) : [];
  const { pid, startTime, startedAt } = view.started;
  return { ...known, state, endpoints, run: { id: view.record.run, pid, startTime, startedAt, folder: view.folder } };
}
