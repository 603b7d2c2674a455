import { randomInt } from 'node:crypto';
import { createPlanCollector, type RunBase } from '../hooks/index.ts';
import { fail, type ErrorCode } from '../errors/index.ts';
import { encodePlan, FRAME, op, orderSteps, type PlannedStep } from '../plan/index.ts';
import { type ContainerRecord, type ExecRequest, type Session } from '../api/index.ts';
import { type RunContext } from '../contracts/common/index.ts';
import { type Frame } from '../native/index.ts';
import { type Process, type Spec } from '../spec/index.ts';
import { markPrivileged } from './adapters.ts';
import { takeClient } from './clients.ts';
import { eventAttributes, type Core } from './core.ts';
import { errnoName } from '../state/files.ts';
import { readFailure } from '../state/helper.ts';
import { blame, warningText } from './frames.ts';
import { configureSpec, streamFlags } from './plan-run.ts';
import { answerOf, connect, notRunning, reasonOf, requireRun } from './running.ts';
import { ensureSecurity } from './security.ts';
import { createSession, windowPayload, type LiveSession } from './session.ts';
import { runContext } from './start.ts';

/** The container's own, with what was asked for; what the rest of the request means is for the plugins that tap `compileExec` to say. Errors: ERR_PLUGIN_MISSING. */
async function execProcess({ parts: { hooks } }: Core, own: Process, request: ExecRequest): Promise<Process> {
  if (hooks.taps('compileExec').length === 0) throw fail('ERR_PLUGIN_MISSING', 'no plugin turns sessions into processes of the OCI spec: none taps compileExec');
  if (request.args.length === 0) throw fail('ERR_INVALID_VALUE', 'no command specified');
  const { consoleSize: _, ...rest } = own;
  const process = { ...rest, args: request.args, terminal: request.terminal, ...(request.user ? { user: { username: request.user } } : {}) };
  return (await hooks.callWaterfall('compileExec', { own, request, process })).value.process;
}

async function planExec(core: Core, record: ContainerRecord, request: ExecRequest, run: RunContext, number: number): Promise<{ readonly bytes: Uint8Array; readonly spec: Spec }> {
  const { spec: own, asked } = await configureSpec(core, record, run);
  if (!own.process) throw fail('ERR_INVALID_VALUE', 'the spec has no process');
  const session: Spec = { ...own, process: await execProcess(core, own.process, request) };
  const spec = request.privileged ? markPrivileged(session) : session;
  const plan = createPlanCollector({ asked });
  return { bytes: await planSession(core, { container: record, run, spec, plan }, number, request.args, request.privileged), spec };
}
/** What the taps say of a session whose process is in `base.spec`, after what its plan has already. */
export async function planSession(core: Core, base: RunBase, session: number, args: readonly string[], privileged = false): Promise<Uint8Array> {
  const { plan } = base;
  await core.parts.hooks.call('exec', { session, args: [...args] }, base);
  plan.close();
  const steps = plan.steps();
  const joins = steps.some((s) => s.operation.name === 'joinContainer');
  const join: PlannedStep = { slot: 'exec.join', operation: op.joinContainer({ privileged: privileged ? 1 : 0 }), undo: [], origin: { plugin: 'core', hook: 'exec' } };
  return encodePlan({ steps: joins ? steps : orderSteps([join, ...steps]) });
}

const REFUSALS: Readonly<Record<number, ErrorCode>> = { 3: 'ERR_NOT_RUNNING', 16: 'ERR_PAUSED', 17: 'ERR_BUSY' };

/**
 * The shim didn't take the request: ESRCH, EBUSY, EEXIST, or a plan it cannot read. It says so as an error, or as a failure of the first
 * operation, which is the joining.
 */
function refusal(record: ContainerRecord, errno: number, text: string): Error {
  const code = REFUSALS[errno] ?? 'ERR_OPERATION_FAILED';
  // it has ended meanwhile: in the words for one that ended before
  if (code === 'ERR_NOT_RUNNING') return notRunning(record, 'exec');
  return fail(code, `cannot exec in container ${record.name}: ${text || errnoName(errno)}`, { operation: 'exec', path: record.name });
}

/** Errors: ERR_NOT_RUNNING, ERR_PAUSED, ERR_EXEC_NOT_FOUND, ERR_EXEC_FAILED. */
export async function execInContainer(core: Core, ref: string, request: ExecRequest): Promise<Session> {
  const { state, log } = core.parts;
  const record = state.containers.resolve(ref);
  await core.request('exec', { container: record.id, request });
  const view = await requireRun(core, record, 'exec');
  const number = randomInt(1, 0x10000);
  const { bytes, spec } = await planExec(core, record, request, runContext(core, record.id, view.record.run), number);
  await ensureSecurity(core, record, spec);
  const connection = await connect(core, view).catch(async (error: unknown) => { throw await reasonOf(core, view, record, 'exec', error); });
  const { promise, resolve, reject } = Promise.withResolvers<LiveSession>();
  promise.catch(() => {});
  let session: LiveSession | undefined;
  // a quick program's output may come before the shim has seen that it started
  const early: Frame[] = [];
  connection.onFrame((frame) => {
    if (frame.session !== number) return;
    if (frame.type === FRAME.warning) log.warn({ container: record.id }, warningText(bytes, frame.payload));
    else if (session) session.receive(frame);
    else if (frame.type === FRAME.started) {
      session = createSession({ connection, container: record.id, run: view.record.run, number, pid: frame.argument, startedAt: core.now().toISOString() });
      for (const waiting of early) session.receive(waiting);
      resolve(session);
    } else if (frame.type === FRAME.failed) {
      const { errno, detail } = readFailure(frame.payload);
      const error = blame(bytes, frame.payload);
      reject(error.operation === 'joinContainer' && errno in REFUSALS ? refusal(record, errno, detail) : error);
    } else if (frame.type === FRAME.error) reject(refusal(record, frame.argument, frame.payload.toString('utf8')));
    else early.push(frame);
  });
  connection.closed.then(() => reject(fail('ERR_SHIM_GONE', `the shim of container ${record.name} ended before the command was started`, { path: record.name })), reject);
  try {
    const none = { stdin: false, stdout: false, stderr: false };
    const client = takeClient(request);
    if (client !== undefined) connection.adopt(client);
    await connection.send(FRAME.exec, { session: number, argument: streamFlags(request, request.detached ? none : request.attach), payload: bytes });
    if (request.windowSize && request.terminal) await connection.send(FRAME.resize, { session: number, payload: windowPayload(request.windowSize) });
    const started = await answerOf(view, record, 'exec', promise);
    core.emit('container', 'exec_start', record.id, { ...eventAttributes(record), command: request.args.join(' ') });
    return started;
  } catch (error) {
    connection.close();
    throw await reasonOf(core, view, record, 'exec', error);
  }
}
