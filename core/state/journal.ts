import * as fs from 'node:fs';
import { join } from 'node:path';
import { type Logger } from 'pino';
import { type Span } from '../api/engine.ts';
import { fail } from '../errors/index.ts';
import { type Effects, type EffectsOptions } from '../contracts/common/index.ts';
import { type Lock, type Native } from '../native/index.ts';
import { forgiving } from '../plan/build.ts';
import { encodePlan } from '../plan/encode.ts';
import { type Effect, type Origin, type PlannedStep } from '../plan/types.ts';
import { type Database } from './database.ts';
import { errnoName, ifPresent, lockFolder, moveToTrash, names, randomName, sleep, writeDurable } from './files.ts';
import { describeFailure, hasAfter, operationFailed, runShim, stepsOf, type HelperResult } from './helper.ts';
import { type Points } from './points.ts';
import { rowChanges, stateJson } from './tables.ts';
import { type Rows, type Transaction } from './types.ts';

/** What the parts of the state share. */
export interface StateContext {
  readonly native: Native;
  readonly log: Logger;
  readonly db: Database;
  readonly points: Points;
  readonly inflight: string;
  readonly trash: string;
  /** Deletes a folder from the trash. */
  readonly discard: (folder: string) => unknown;
  /** Told what the processes of a transaction take. */
  readonly trace?: ((span: Span) => void) | undefined;
}
/** record.json of an in-flight folder; pid and startTime only tell how long waiting for its lock makes sense. */
export interface InflightRecord { readonly what: string; readonly created: string; readonly pid: number; readonly startTime: string }

/** `effects-NNN`: a plan whose helper part is one call of `run` and whose after part undoes it. */
export const EFFECTS = 'effects-';
/** A plan whose after part is what was put off to the commit. */
export const REDO = 'redo';
const CREATING = new Set(['mkdir', 'mknod', 'symlink', 'link', 'writeFile', 'rename', 'writeStream']);

interface Blamed extends Effect { readonly plugin: string }
const originOf = (plugin: string): Origin => ({ plugin, hook: 'effects' });

function encodeEffects(effects: readonly Blamed[], run: boolean): Uint8Array {
  const steps: PlannedStep[] = run ? effects.map(({ operation, plugin }) => ({ slot: 'helper.main', operation, undo: [], origin: originOf(plugin) })) : [];
  for (const { undo, plugin } of effects.toReversed()) {
    for (const operation of undo) steps.push({ slot: 'after.undo', operation: forgiving(operation), undo: [], origin: originOf(plugin) });
  }
  return encodePlan({ steps });
}
function encodeRedo(effects: readonly Blamed[]): Uint8Array {
  return encodePlan({ steps: effects.map(({ operation, plugin }) => ({ slot: 'after.undo', operation: forgiving(operation), undo: [], origin: originOf(plugin) })) });
}

/** Run the after part of a plan in a transaction's folder; the failures in words. The shim shares the lock, so nobody else starts meanwhile. */
async function runAfter(context: StateContext, folder: string, file: string, lock: Lock): Promise<string[]> {
  const plan = join(folder, file);
  if (!hasAfter(plan)) return [];
  const result = await runShim(context.native, { mode: 'undo', plan, runFolder: folder, lock }, { trace: context.trace });
  if (result.ended === 'ok' && result.failures.length === 0) return [];
  const steps = stepsOf(plan);
  // the power went before all of it was on the disk, so none of its effects had begun
  if (steps.size === 0) return [];
  const failures = result.failures.map((failure) => describeFailure(failure, steps.get(failure.index)));
  if (result.ended !== 'ok' && failures.length === 0) failures.push(result.ended === 'gone' ? 'the helper ended unexpectedly' : `the helper failed: ${result.message}`);
  return failures;
}

/** Undo the calls of a folder, newest first. What is undone is forgotten, what is not stays for the next start. */
export async function undoFolder(context: StateContext, folder: string, lock: Lock): Promise<string[]> {
  const failures: string[] = [];
  for (const file of names(folder).filter((name) => name.startsWith(EFFECTS) && !name.includes('.tmp-')).sort().reverse()) {
    const failed = await context.points.aroundAsync('transaction.undo', () => runAfter(context, folder, file, lock));
    if (failed.length === 0) ifPresent(() => fs.unlinkSync(join(folder, file)));
    failures.push(...failed);
  }
  return failures;
}
/** Do what was put off to the commit. */
export async function finishFolder(context: StateContext, folder: string, lock: Lock): Promise<string[]> {
  if (!fs.existsSync(join(folder, REDO))) return [];
  return context.points.aroundAsync('transaction.finish', () => runAfter(context, folder, REDO, lock));
}
/** The folder leaves the journal in one step; only then the row that says it was committed. */
export async function forgetFolder(context: StateContext, folder: string, id: string, committed: boolean): Promise<void> {
  const moved = context.points.around('transaction.forget', () => moveToTrash(folder, context.trash));
  if (committed) await context.db.write(() => context.db.run('DELETE FROM committed WHERE id = ?', id));
  if (moved) context.discard(moved);
}
export const isCommitted = (db: Database, id: string): boolean => db.get('SELECT 1 FROM committed WHERE id = ?', id) !== undefined;

export function beginTransaction(shared: StateContext, what: string, trace?: StateContext['trace']): Transaction {
  const context = trace ? { ...shared, trace } : shared;
  const { native, db, points, inflight, log } = context;
  const id = `${Date.now().toString(36)}-${randomName()}`;
  const folder = join(inflight, id);
  const deferred: Blamed[] = [];
  const state: { plugin: string; key: string; json: string | undefined }[] = [];
  const busy = new Set<Promise<unknown>>();
  let opening: Promise<Lock> | undefined;
  let calls = 0;
  let ended: 'committed' | 'rolled back' | undefined;

  /** Made by the first effect: a transaction of rows alone needs no journal. */
  const open = async (): Promise<Lock> => {
    for (let attempt = 0; attempt < 20; attempt++) {
      const temporary = join(inflight, `.tmp-${id}-${attempt}`);
      fs.mkdirSync(temporary, { mode: 0o700 });
      // a reconciler may take a folder that has no lock yet for a left-over: then the next name
      const lock = lockFolder(native, temporary, { create: true });
      if (!lock) {
        await sleep(attempt);
        continue;
      }
      const record: InflightRecord = { what, created: new Date().toISOString(), pid: process.pid, startTime: String(native.processStartTime(process.pid) ?? '') };
      fs.writeFileSync(join(temporary, 'record.json'), JSON.stringify(record), { mode: 0o600 });
      points.around('transaction.open', () => fs.renameSync(temporary, folder));
      return lock;
    }
    throw fail('ERR_STATE', 'cannot make a folder for a transaction', { path: inflight, operation: what });
  };
  const refuseEnded = (): void => {
    if (ended) throw fail('ERR_INTERNAL', `the transaction '${what}' was ${ended} already`);
  };

  /** A call failed: undo what it did, then tell. */
  const undoCall = async (file: string, effects: readonly Blamed[], result: HelperResult, lock: Lock, signal: AbortSignal | undefined): Promise<never> => {
    const [failure] = result.failures;
    const step = failure && stepsOf(join(folder, file)).get(failure.index);
    const error = failure
      ? operationFailed(failure, step, effects[failure.index]?.asked)
      : fail(result.ended === 'gone' ? 'ERR_SHIM_GONE' : 'ERR_OPERATION_FAILED', `${what}: the helper ${result.ended === 'gone' ? 'ended unexpectedly' : `failed: ${result.message}`}`, { operation: what, ...(effects[0] && { plugin: effects[0].plugin }) });
    let done = effects;
    if (failure && failure.index < effects.length) {
      // what exists already is somebody else's, and the failed operation did not touch it
      const foreign = errnoName(failure.errno) === 'EEXIST' && CREATING.has(effects[failure.index]?.operation.name ?? '');
      done = effects.slice(0, failure.index + (foreign ? 0 : 1));
      await points.aroundAsync('transaction.amend', () => writeDurable(join(folder, file), encodeEffects(done, false)));
    }
    const failures = done.length === 0 ? [] : await points.aroundAsync('transaction.undo', () => runAfter(context, folder, file, lock));
    if (failures.length > 0) throw fail('ERR_UNDO_FAILED', `${error.message}, and then undoing it failed too: ${failures.join('; ')}`, { cause: error, operation: what });
    ifPresent(() => fs.unlinkSync(join(folder, file)));
    if (!failure && signal?.aborted) throw signal.reason;
    throw error;
  };

  const runEffects = async (effects: readonly Blamed[], options: EffectsOptions): Promise<void> => {
    options.signal?.throwIfAborted();
    // encoded first: a malformed operation must not leave a folder
    const plan = encodeEffects(effects, true);
    const file = `${EFFECTS}${String(calls++).padStart(4, '0')}`;
    const lock = await (opening ??= open());
    await points.aroundAsync('transaction.journal', () => writeDurable(join(folder, file), plan));
    const result = await points.aroundAsync('transaction.run', () =>
      runShim(native, { mode: 'helper', plan: join(folder, file), lock, ...(options.streams && { streams: options.streams }) }, {
        onWarning: (warning) => (options.onWarning ?? ((text) => log.warn({ what }, text)))(describeFailure(warning, stepsOf(join(folder, file)).get(warning.index))),
        trace, ...(options.signal && { signal: options.signal }),
      }));
    if (result.ended === 'ok' && result.failures.length === 0) return;
    await undoCall(file, effects, result, lock, options.signal);
  };

  const runBlamed = async (list: readonly Blamed[], options: EffectsOptions): Promise<void> => {
    refuseEnded();
    if (list.length === 0) return;
    const call = runEffects(list, options);
    busy.add(call);
    try {
      await call;
    } finally {
      busy.delete(call);
    }
  };
  const effects = (plugin: string): Effects => ({
    run: (list, options = {}) => runBlamed(list.map((effect) => ({ ...effect, plugin })), options),
    onCommit(list) {
      refuseEnded();
      deferred.push(...list.map((effect) => ({ ...effect, plugin })));
    },
    setState(key, value) {
      refuseEnded();
      state.push({ plugin, key, json: value === undefined ? undefined : stateJson(plugin, key, value) });
    },
  });

  const commit = async (change: (rows: Rows) => void): Promise<void> => {
    refuseEnded();
    await Promise.allSettled(busy);
    const lock = deferred.length > 0 ? await (opening ??= open()) : await opening;
    if (deferred.length > 0) await points.aroundAsync('transaction.redo', () => writeDurable(join(folder, REDO), encodeRedo(deferred)));
    await points.aroundAsync('transaction.commit', () => db.write(() => {
      const { rows, check } = rowChanges(db);
      change(rows);
      for (const { plugin, key, json } of state) {
        if (json === undefined) db.run('DELETE FROM plugin_state WHERE plugin = ? AND key = ?', plugin, key);
        else db.run('INSERT INTO plugin_state VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value', plugin, key, json);
      }
      check();
      if (lock) db.run('INSERT INTO committed VALUES (?)', id);
    }));
    ended = 'committed';
    // without effects there is no journal that could be deleted before the rows are on the disk
    if (!lock) return;
    try {
      await db.sync();
      const failures = await finishFolder(context, folder, lock);
      // final all the same: the next start repeats it, doctor shows it
      if (failures.length > 0) log.warn({ what, failures }, `${what}: not everything could be removed yet: ${failures.join('; ')}`);
      else await forgetFolder(context, folder, id, true);
    } finally {
      lock.release();
    }
  };

  const rollback = async (): Promise<void> => {
    if (ended === 'rolled back') return;
    refuseEnded();
    ended = 'rolled back';
    await Promise.allSettled(busy);
    const lock = await opening?.catch(() => undefined);
    if (!lock) return;
    try {
      const failures = await undoFolder(context, folder, lock);
      if (failures.length > 0) throw fail('ERR_UNDO_FAILED', `${what}: ${failures.join('; ')}`, { operation: what, path: folder });
      await forgetFolder(context, folder, id, false);
    } finally {
      lock.release();
    }
  };
  const runAll: Transaction['runAll'] = (groups, options = {}) => runBlamed(groups.flatMap((group) => group.effects.map((effect) => ({ ...effect, plugin: group.plugin }))), options);
  return { id, effects, runAll, commit, rollback };
}
