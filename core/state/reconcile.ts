import { join } from 'node:path';
import { type Orphan } from '../api/engine.ts';
import { describeError, isEngineError } from '../errors/index.ts';
import { type Lock } from '../native/index.ts';
import { clock, lockFolder, moveToTrash, names, readJson, removeRecords, sleep } from './files.ts';
import { finishFolder, forgetFolder, isCommitted, undoFolder, type InflightRecord, type StateContext } from './journal.ts';
import { readRecord } from './run-files.ts';
import { type RunFolders, type RunsInside } from './runs.ts';
import { type State } from './types.ts';

export type Reconciler = Pick<State, 'reconcile' | 'orphans' | 'inFlight'>;
export interface ReconcileContext extends StateContext {
  readonly runs: RunsInside;
  readonly folders: RunFolders;
  /** Of this root. Engines with different roots may share a runRoot: whose run it is, its record says. */
  readonly instance: string;
}

const TEMPORARY = '.tmp-';
/** How long the helper of a dead engine is waited for, ms: it holds the lock until it has ended. */
const HELPER_PATIENCE = 10_000;

function readInflight(folder: string): InflightRecord | undefined {
  const record = readJson(join(folder, 'record.json')) as InflightRecord | undefined;
  return typeof record?.what === 'string' ? record : undefined;
}

/** Undo or finish what dead engines left. Only what can be locked is touched, so any number of engines may do this at once. */
export function createReconciler(context: ReconcileContext): Reconciler {
  const { native, db, log, inflight, trash, runs, folders, instance } = context;

  const ownerDied = (record: InflightRecord | undefined): boolean =>
    record !== undefined && Number.isInteger(record.pid) && String(native.processStartTime(record.pid) ?? '') !== record.startTime;

  /** A lock that is only being asked about, or that a dead engine's helper still holds, is soon free. */
  const patientLock = async (folder: string): Promise<Lock | undefined> => {
    // a folder without a lock file is damaged, but its undo may still be readable
    const lock = lockFolder(native, folder, { create: true });
    if (lock) return lock;
    const patience = ownerDied(readInflight(folder)) ? HELPER_PATIENCE : 2;
    for (const end = clock() + patience; clock() < end; ) {
      await sleep(1);
      const late = lockFolder(native, folder);
      if (late) return late;
      if (!readInflight(folder)) return undefined;
    }
    return undefined;
  };
  const held = (folder: string): boolean => {
    const lock = native.tryLock(join(folder, 'lock'), { create: false, shared: true });
    lock?.release();
    return lock === undefined;
  };
  const removeTemporary = (folder: string, bin: string): boolean => {
    // with `create`, so that its maker, should it be alive and not have made its lock yet, sees that it was taken away
    const lock = lockFolder(native, folder, { create: true });
    const moved = lock && moveToTrash(folder, bin);
    lock?.release();
    if (moved) removeRecords(moved);
    return moved !== undefined;
  };

  const settleTransaction = async (id: string): Promise<string | undefined> => {
    const folder = join(inflight, id);
    const lock = await patientLock(folder);
    if (!lock) return undefined;
    try {
      const what = readInflight(folder)?.what ?? `a transaction without a readable record (${id})`;
      const committed = isCommitted(db, id);
      const failures = await (committed ? finishFolder : undoFolder)(context, folder, lock);
      if (failures.length > 0) return `could not ${committed ? 'finish' : 'undo'} ${what}: ${failures.join('; ')}`;
      await forgetFolder(context, folder, id, committed);
      return `${committed ? 'finished' : 'undone'}: ${what}`;
    } finally {
      lock.release();
    }
  };
  /** Rows of transactions whose folder has left the journal. */
  const forgetCommitted = async (): Promise<undefined> => {
    const ids = db.all('SELECT id FROM committed').map((row) => String(row['id']));
    if (ids.length === 0) return undefined;
    const there = new Set(names(inflight));
    for (const id of ids) if (!there.has(id)) await db.write(() => db.run('DELETE FROM committed WHERE id = ?', id));
    return undefined;
  };

  const settleRun = async (name: string, fix: boolean): Promise<string | undefined> => {
    const folder = join(folders.runs, name);
    const view = runs.viewOf(folder);
    // another root's: its exit belongs into that database
    if (view?.alive || (view && view.record.instance !== instance)) return undefined;
    if (view && view.record.container === name) {
      const collected = await runs.collect(name, { timeout: view.stale ? 1000 : 5 });
      if (!collected) return undefined;
      const { exit, failures } = collected;
      return `collected the run of container ${name.slice(0, 12)}: exit code ${exit.code}${exit.error ? `, ${exit.error}` : ''}${failures.length > 0 ? `; not undone: ${failures.join('; ')}` : ''}`;
    }
    return fix ? clear(folder, `a run without a readable record (${name})`) : `left alone: ${folder} is not a readable run`;
  };
  const clear = async (folder: string, what: string): Promise<string | undefined> => {
    const lock = lockFolder(native, folder, { create: true });
    if (!lock) return undefined;
    const failures = await runs.clear(folder, lock);
    return failures.length > 0 ? `could not undo ${what}: ${failures.join('; ')}` : `undone: ${what}`;
  };

  /** One thing that cannot be settled must not keep the engine from starting. */
  const attempt = async (what: string, settle: () => Promise<string | undefined>): Promise<string[]> => {
    try {
      const text = await settle();
      return text === undefined ? [] : [text];
    } catch (error) {
      // another engine is at it
      if (isEngineError(error, 'ERR_BUSY')) return [];
      log.warn({ err: error, what }, 'reconciling failed');
      return [`could not reconcile ${what}: ${describeError(error)}`];
    }
  };

  return {
    async reconcile({ fix = false } = {}) {
      const done: string[] = [];
      for (const [folder, bin] of [[inflight, trash], [folders.runs, folders.trash]] as const) {
        for (const name of names(folder)) if (name.startsWith(TEMPORARY) && removeTemporary(join(folder, name), bin)) done.push(`removed: ${join(folder, name)}`);
      }
      // newest first: a later change may stand on an earlier one
      for (const id of names(inflight).filter((name) => !name.startsWith('.')).sort().reverse()) done.push(...await attempt(`transaction ${id}`, () => settleTransaction(id)));
      done.push(...await attempt('committed transactions', forgetCommitted));
      for (const name of names(folders.runs)) if (!name.startsWith('.')) done.push(...await attempt(`run ${name}`, () => settleRun(name, fix)));
      for (const name of names(folders.leftovers)) done.push(...await attempt(`leftover ${name}`, () => clear(join(folders.leftovers, name), `a run of container ${name.slice(0, 12)}`)));
      for (const bin of [trash, folders.trash]) for (const name of names(bin)) removeRecords(join(bin, name));
      return done;
    },

    inFlight: () => names(inflight).some((name) => held(join(inflight, name))),
    async orphans() {
      const found: Omit<Orphan, 'fixed'>[] = [];
      for (const name of names(inflight)) {
        const folder = join(inflight, name);
        if (!held(folder) || readInflight(folder) === undefined) found.push({ kind: 'transaction', path: folder, owner: readInflight(folder)?.what ?? 'unknown' });
      }
      for (const name of names(folders.runs)) {
        const folder = join(folders.runs, name);
        const view = runs.viewOf(folder);
        if (view && view.record.instance !== instance) continue;
        if (name.startsWith(TEMPORARY)) found.push({ kind: 'temporary', path: folder, owner: 'unknown' });
        else if (!view) found.push({ kind: 'run', path: folder, owner: `unknown: ${readRecord(folder) ? 'gone' : 'its record is not readable'}` });
        else if (view.record.container !== name) found.push({ kind: 'run', path: folder, owner: `unknown: its record names container ${view.record.container}` });
        else if (!view.alive) found.push({ kind: 'run', path: folder, owner: `container ${name.slice(0, 12)}` });
      }
      for (const name of names(folders.leftovers)) found.push({ kind: 'undo', path: join(folders.leftovers, name), owner: `container ${name.slice(0, 12)}` });
      for (const bin of [trash, folders.trash]) for (const name of names(bin)) found.push({ kind: 'trash', path: join(bin, name), owner: 'engine' });
      return found;
    },
  };
}
