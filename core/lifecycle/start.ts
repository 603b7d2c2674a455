import path from 'node:path';
import { describeError, fail } from '../errors/index.ts';
import { breathe } from '../hooks/index.ts';
import { FRAME, RUN_FILES } from '../plan/index.ts';
import { type RunContext } from '../contracts/common/index.ts';
import { type ContainerRecord, type Session, type StartOptions } from '../api/index.ts';
import { type Frame, type ShimConnection } from '../native/index.ts';
import { answerBarrier } from './barrier.ts';
import { endWithEngine, eventAttributes, releaseProvisional, shortId, type Core } from './core.ts';
import { claimEndpoints, endEndpoints } from './endpoints.ts';
import { collectLocked, finishLocked, finishRun, settled } from './finish.ts';
import { blame, warningText } from './frames.ts';
import { isPausedRun } from './freezer.ts';
import { traceOperations } from '../state/helper.ts';
import { takeClient } from './clients.ts';
import { newRunId } from './names.ts';
import { type Prepared } from './prepared.ts';
import { type Made } from './shapes.ts';
import { type Endpoint } from '../contracts/network/index.ts';
import { whoTook } from './ports.ts';
import { planRun, type PlanOptions, type RunPlan } from './plan-run.ts';
import { removeLocked } from './remove.ts';
import { lateExit } from './running.ts';
import { ensureSecurity } from './security.ts';
import { createSession, type LiveSession } from './session.ts';

export function runContext(core: Core, id: string, run: string, explain = false): RunContext {
  const { folders } = core.parts.state;
  return { container: id, run, instance: folders.instance, runFolder: path.join(folders.runRoot, 'runs', id), explain };
}

interface Launch { readonly record: ContainerRecord; readonly run: string; readonly bytes: Uint8Array; readonly deadlines: ReadonlyMap<number, number> }

/** Frames until the program has been exec'd, or the plan has failed and is undone. */
function awaitStart(core: Core, connection: ShimConnection, launch: Launch, options: StartOptions): Promise<LiveSession> {
  const { promise, resolve, reject } = Promise.withResolvers<LiveSession>();
  const { record, run, bytes } = launch;
  const onWarning = options.onWarning ?? ((text: string) => core.parts.log.warn({ container: record.id }, text));
  let session: LiveSession | undefined;
  let failure: Error | undefined;
  let barrier: Promise<Error | undefined> | undefined;
  const early: Frame[] = [];
  endWithEngine(core, connection);
  connection.onFrame((frame) => {
    if (frame.type === FRAME.warning) return onWarning(warningText(bytes, frame.payload));
    if (frame.type === FRAME.trace) return core.trace && traceOperations(bytes, frame.payload, core.trace);
    if (frame.type === FRAME.exit && frame.session === 0) core.phase?.('undo', 'after');
    if (session) return session.receive(frame);
    switch (frame.type) {
      case FRAME.started:
        session = createSession({
          connection, container: record.id, run, number: 0, pid: frame.argument, startedAt: core.now().toISOString(),
          finish: () => finishRun(core, record.id, run), lateExit: () => lateExit(core, record.id, run),
        });
        core.phase?.('program', 'program');
        for (const waiting of early) session.receive(waiting);
        return resolve(session);
      case FRAME.failed:
        failure ??= blame(bytes, frame.payload, record.drivers.storage?.plugin);
        return undefined;
      case FRAME.barrier:
        barrier = answerBarrier(core, connection, frame, launch);
        return undefined;
      default:
        early.push(frame);
    }
  });
  connection.closed.then(async () => {
    if (session) return;
    const cause = await barrier;
    reject(cause ?? failure ?? connection.failure ?? fail('ERR_SHIM_GONE', `the shim of container ${record.name} ended before the program was started`, { path: record.id }));
  }, reject);
  return promise;
}

/** The plan of a container's next run, with the streams that `options` ask for. */
export function planStart(core: Core, record: ContainerRecord, run: string, options: StartOptions, more: Pick<PlanOptions, 'prepare' | 'endpoints'>): Promise<RunPlan> {
  const attach = options.attach ?? { stdin: false, stdout: false, stderr: false };
  return planRun(core, record, runContext(core, record.id, run), { attach, ...(options.windowSize && { windowSize: options.windowSize }), ...more });
}

/** Write the run down and hand it to a shim. With the container's lock held and no run left over. */
export async function launch(core: Core, record: ContainerRecord, run: string, { bytes, deadlines, group }: Pick<RunPlan, 'bytes' | 'deadlines' | 'group'>, options: StartOptions): Promise<LiveSession> {
  const { state, native, shimEnv, passing } = core.parts;
  await breathe();
  core.phase?.('run folder');
  const { folder, lock } = await state.runs.create({ run, container: record.id, instance: state.folders.instance, boot: native.bootId(), created: core.now().toISOString(), ...(group !== undefined && { group }) }, bytes);
  let started: Promise<LiveSession>;
  try {
    await breathe();
    core.phase?.('spawn the shim');
    const client = takeClient(options);
    const wake = core.parts.wake?.(record);
    const connection = native.spawnShim({ mode: 'run', plan: path.join(folder, RUN_FILES.plan), runFolder: folder, lock, ...(client !== undefined && { client }), ...(core.trace && { trace: true }), ...(wake && { wake, ...(passing && { wakeAlways: true }) }), ...(shimEnv && { env: shimEnv }) });
    core.phase?.('wait for the start', 'shim');
    started = awaitStart(core, connection, { record, run, bytes, deadlines }, options);
  } finally {
    lock.release();
  }
  return started;
}

/** Let a sandbox go on with this run's plan. */
export async function resume(core: Core, { connection }: Prepared, { record, run, plan: { bytes, deadlines } }: Made, options: StartOptions): Promise<LiveSession> {
  const client = takeClient(options);
  if (client !== undefined) connection.adopt(client);
  const started = awaitStart(core, connection, { record, run, bytes, deadlines }, options);
  await connection.send(FRAME.resume, { payload: bytes }).catch(() => {}); // its end says why
  return started;
}

/** The run that could not be started is undone; the first error is the one to tell. */
export async function undoStart(core: Core, record: ContainerRecord): Promise<void> {
  const { log } = core.parts;
  core.phase?.('collect');
  await collectLocked(core, record.id).catch((late: unknown) => log.error({ err: late }, `undo of container ${shortId(record.id)}: ${describeError(late)}`));
  if (record.request.autoRemove) await removeLocked(core, record, { volumes: true }).catch((late: unknown) => log.error({ err: late }, 'not removed'));
}

/** What a row says of the run that was started last. */
export function ofRun({ apparmorProfile: _, ...record }: ContainerRecord, { plugins, spec }: Pick<RunPlan, 'plugins' | 'spec'>): ContainerRecord {
  const profile = spec.process?.apparmorProfile;
  return { ...record, ...(plugins && { plugins }), ...(profile && { apparmorProfile: profile }), starts: record.starts + 1 };
}
function started({ provisional: _, ...record }: ContainerRecord, plan: RunPlan): ContainerRecord {
  return ofRun(record, plan);
}

/** Errors: ERR_ALREADY_RUNNING, and whatever the plan says; its undo is done when this rejects. */
export async function startContainer(core: Core, ref: string, options: StartOptions = {}): Promise<Session> {
  const { state } = core.parts;
  const { id } = await settled(core, ref);
  await core.request('start', { container: id, attach: options.attach ?? null });
  return core.locked([['container', id]], async () => {
    const record = state.containers.resolve(id);
    const view = state.runs.find(id);
    if (view?.alive && !view.exit && (await isPausedRun(core, record, view))) throw fail('ERR_PAUSED', `cannot start container ${record.name}: it is paused`, { path: record.name });
    if (view?.alive && !view.exit) throw fail('ERR_ALREADY_RUNNING', `container ${record.name} is running already`, { path: record.name });
    // it ended while the lock was waited for
    if (record.request.autoRemove && (view || record.starts > 0)) {
      await finishLocked(core, id, view !== undefined);
      throw fail('ERR_NO_SUCH_CONTAINER', `no such container: ${ref}`, { path: ref });
    }
    // without one there may still be what an engine has claimed for it that was killed then
    await (view ? collectLocked(core, id) : endEndpoints(core, id));
    let endpoints: readonly Endpoint[] = [];
    try {
      const run = newRunId();
      endpoints = await claimEndpoints(core, record, run);
      const plan = await planStart(core, record, run, options, { endpoints });
      await ensureSecurity(core, record, plan.spec);
      const session = await launch(core, record, run, plan, options);
      const now = started(state.containers.get(id) ?? record, plan);
      await core.transact(`start container ${record.name}`, (transaction) => transaction.commit((rows) => rows.updateContainer(now)));
      const { count } = core.registry.restarts(now, true) ?? {};
      core.emit('container', 'start', id, { ...eventAttributes(record), ...(count && { restartCount: String(count) }) });
      return session;
    } catch (error) {
      await undoStart(core, record);
      throw await whoTook(core, error, endpoints);
    } finally {
      releaseProvisional(core, id);
    }
  });
}
