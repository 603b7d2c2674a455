import { join } from 'node:path';
import { createRecords } from '../../hooks/index.ts';
import { describeError, fail, isEngineError } from '../../errors/index.ts';
import { type BundleRequest, type BundleState, type CallerStreams } from '../../api/index.ts';
import { type CallerFds, type Lock } from '../../native/index.ts';
import { RUN_FILES } from '../../plan/index.ts';
import { lockFolder } from '../../state/files.ts';
import { type Spec } from '../../spec/index.ts';
import { type Core } from '../core.ts';
import { newRunId } from '../names.ts';
import { planRun, type PlanOptions } from '../plan-run.ts';
import { ensureSecurity } from '../security.ts';
import { chooseDrivers, choicesOf, completed, contextOf, recordOf, rootfsOf } from './compile.ts';
import { readConfig } from './config.ts';
import { awaitHandOver } from './frames.ts';
import { stateOf } from './status.ts';
import { checkId, contentOf, ensureAside, isFolder, openStore, VERSION, type Found, type Store, type Stored } from './store.ts';

export const taken = (id: string): Error => fail('ERR_NAME_TAKEN', `container with id exists: ${id}`, { path: id, hint: 'delete it, or choose another id' });

/** What of the caller's the program gets. Errors: ERR_INVALID_VALUE. */
export function callerFds({ consoleSocket, preserveFds, detached }: CallerStreams, terminal: boolean): CallerFds {
  // in the words that callers know from runc
  if (consoleSocket !== undefined && !terminal) throw fail('ERR_INVALID_VALUE', 'cannot use console socket if the runtime will not detach or allocate tty', { operation: 'console-socket', path: consoleSocket, hint: 'set process.terminal' });
  if (consoleSocket === undefined && terminal && detached) throw fail('ERR_INVALID_VALUE', 'cannot allocate tty if the runtime will detach without setting console socket', { operation: 'console-socket', hint: '' });
  return { preserve: preserveFds, ...(terminal && { console: consoleSocket === undefined ? 'relay' as const : { socket: consoleSocket } }) };
}

/** The run could not be made ready: what the shim has not undone itself is undone, and the id is free. */
async function forget(core: Core, store: Store, folder: string): Promise<void> {
  const { native, log } = core.parts;
  try {
    const lock = lockFolder(native, folder, { create: true });
    const failures = lock ? await store.runs.clear(folder, lock) : [];
    if (failures.length > 0) log.error({ folder, failures }, 'not undone');
  } catch (late) {
    log.error({ err: late }, `undo of ${folder}: ${describeError(late)}`);
  }
}

const nameOf = (uid: number): string => (uid === 0 ? 'root' : String(uid));

/** A container that waits for its start, with its lock held. */
export interface Made extends Found {
  readonly pid: number;
  readonly spec: Spec;
  onWarning(text: string): void;
}
/** What becomes of a container that has been made, and is undone with it when it fails. */
export interface Sequel {
  readonly verb: string;
  /** What is planned for now; the spec itself is kept. */
  planned(spec: Spec): Spec;
  /** Before all else in its plan. */
  prepare(folder: string, rootfs: string): NonNullable<PlanOptions['prepare']>;
  /** Files beside the others in its folder. */
  readonly content: Readonly<Record<string, string>>;
  finish(made: Made): Promise<BundleState>;
}

export async function createBundle(core: Core, request: BundleRequest, sequel?: Sequel): Promise<BundleState> {
  const { root, id, bundle } = request;
  const { native, hooks, log } = core.parts;
  const onWarning = request.onWarning ?? ((text: string) => log.warn({ container: id }, text));
  checkId(id);
  if (!bundle.startsWith('/')) throw fail('ERR_INVALID_VALUE', `bundle is not an absolute path: ${bundle}`, { operation: 'bundle', path: bundle });
  const config = await readConfig(bundle, request.config, onWarning);
  const fds = callerFds(request, config.process?.terminal ?? false);
  const store = openStore(core, root, true) as Store;
  const folder = join(store.root, id);
  if (isFolder(folder)) throw taken(id);
  const drivers = await chooseDrivers(core, config, request.cgroupDriver);
  const spec = hooks.frozen(completed(config, request, store, drivers));
  const { env: _env, spawner: _spawner, onWarning: _tell, ...asked } = request;
  await core.request(sequel?.verb ?? 'bundle create', { ...asked, spec });
  const created = core.now().toISOString();
  const rootfs = rootfsOf(bundle, spec);
  const record = hooks.frozen(recordOf(id, bundle, spec, { rootfs, created, drivers: choicesOf(drivers) }));
  const records = createRecords(record, { writable: true });
  await hooks.call('create', { container: record }, { records, trace: core.trace });
  const kept = records.changed();
  const run = newRunId();
  const context = contextOf({ store, folder }, id, run, request);
  const { consoleSize } = spec.process ?? {};
  const planned = kept || sequel ? { ...record, ...(kept && { plugins: kept }), ...(sequel && { spec: hooks.frozen(sequel.planned(spec)) }) } : record;
  const plan = await planRun(core, planned, context, {
    attach: { stdin: false, stdout: false, stderr: false }, handOver: true, ...(sequel && { prepare: sequel.prepare(folder, rootfs) }), ...(consoleSize && { windowSize: { rows: consoleSize.height, cols: consoleSize.width } }),
  }).catch((error: unknown) => {
    // whoever was quicker with this id is already in the group
    throw isFolder(folder) ? taken(id) : error;
  });
  await ensureSecurity(core, record, plan.spec);
  const plugins = plan.plugins ?? kept;
  const { uid } = core.parts.caller?.() ?? { uid: process.getuid?.() ?? 0 };
  const group = plan.group !== undefined && { group: plan.group };
  const stored: Stored = {
    version: VERSION, run, boot: store.boot, ...group,
    ociVersion: spec.ociVersion, id, bundle, rootfs, created, owner: nameOf(uid), annotations: spec.annotations ?? {}, process: spec.process as NonNullable<typeof spec.process>, drivers: record.drivers, noNewKeyring: request.noNewKeyring, hooks: Object.keys(spec.hooks ?? {}), ...(plugins && { plugins }),
  };
  return core.locked([], async () => {
    ensureAside(store);
    let lock: Lock | undefined;
    try {
      ({ lock } = await store.runs.create({ run, container: id, instance: store.instance, boot: store.boot, created, handed: true, ...group }, plan.bytes, { ...contentOf(stored, spec), ...sequel?.content }));
    } catch (error) {
      throw isEngineError(error, 'ERR_ALREADY_RUNNING') ? taken(id) : error;
    }
    try {
      const connection = native.spawnShim({ mode: 'run', plan: join(folder, RUN_FILES.plan), runFolder: folder, lock, by: request.spawner, handOver: sequel ? { preserve: 0 } : fds, ...(core.parts.shimEnv && { env: core.parts.shimEnv }) });
      const pid = await awaitHandOver(core, connection, plan, onWarning);
      const state = await sequel?.finish({ store, folder, pid, spec, onWarning, stored });
      lock.release();
      return state ?? stateOf(root, stored, 'created', pid);
    } catch (error) {
      lock.release();
      await forget(core, store, folder);
      throw error;
    }
  });
}
