import * as fs from 'node:fs';
import { basename, join } from 'node:path';
import { fail, isEngineError } from '../errors/index.ts';
import { type ExitRecord } from '../api/types.ts';
import { type Lock } from '../native/index.ts';
import { decodePlan } from '../plan/decode.ts';
import { RUN_FILES } from '../plan/protocol.ts';
import { type OperationName } from '../plan/types.ts';
import { clock, errorCode, ifPresent, lockFolder, moveToTrash, names, once, randomName, readJson, removeRecords, sleep, writeAtomic } from './files.ts';
import { describeFailure, hasAfter, runShim, stepsOf, type Failure } from './helper.ts';
import { type StateContext } from './journal.ts';
import { exitOf, forgetProcess, readExit, readFailed, readRecord, readStarted, writeExit } from './run-files.ts';
import { type RunRecord, type Runs, type RunsBelow, type RunView } from './types.ts';

export interface RunFolders {
  /** One folder per container that runs, or ran and was not collected. */
  readonly runs: string;
  /** Runs that are over but whose undo failed: tried again at every start. */
  readonly leftovers: string;
  readonly trash: string;
}
/** What the state needs of runs besides the interface. */
export interface RunsInside extends Runs, Omit<RunsBelow, 'isLeaving'> {
  viewOf(folder: string): RunView | undefined;
}

const TIMEOUT = 10_000;
/** Operations of an undo that find nothing to do in a group without processes, but for its removal. */
const GROUPS_ONLY: ReadonlySet<OperationName> = new Set(['cgroupKill', 'memoryEvents', 'cgroupRemove']);

/**
 * Everything in runRoot is lost with the boot it belongs to, and so are processes, mounts and cgroups: its files are renamed into
 * place but not fsynced.
 */
export function createRuns(context: StateContext, folders: RunFolders): RunsInside {
  const { native, db, points } = context;
  const boot = native.bootId();
  const folderOf = (container: string): string => join(folders.runs, container);

  const isHeld = (folder: string): boolean => {
    const lock = native.tryLock(join(folder, RUN_FILES.lock), { create: false, shared: true });
    lock?.release();
    return lock === undefined && fs.existsSync(join(folder, RUN_FILES.lock));
  };
  /** `locked`: by the caller, so that nobody else is alive in it. */
  const viewOf = (folder: string, locked = false): RunView | undefined => {
    const record = readRecord(folder);
    if (!record) return undefined;
    const stale = record.boot !== boot;
    // asked first: what a shim wrote before it ended is then complete
    const alive = !stale && !locked && isHeld(folder);
    const started = readStarted(folder);
    const exit = readExit(folder, record.run, started?.startedAt);
    const failed = readFailed(folder);
    return { record, folder, alive, stale, undone: fs.existsSync(join(folder, RUN_FILES.undone)), ...(started && { started }), ...(exit && { exit }), ...(failed && { failed }) };
  };

  const readUndone = (folder: string): readonly Failure[] => {
    const undone = readJson(join(folder, RUN_FILES.undone)) as { failures?: Failure[] } | undefined;
    return Array.isArray(undone?.failures) ? undone.failures : [];
  };
  /** Is all that is to be undone groups that nobody is in any more? These need no process: all are gone when this returns true. */
  const removeGroups = (plan: string): boolean => {
    let steps;
    try {
      ({ steps } = decodePlan(fs.readFileSync(plan), 'after'));
    } catch {
      return false; // the shim says what is wrong with it
    }
    return steps.every(({ operation: { name } }) => GROUPS_ONLY.has(name)) && steps.every(({ operation: { name, args } }) => name !== 'cgroupRemove' || native.removeGroup(String(args['path'])));
  };
  /** The undo, unless it has been done; what could not be undone, in words. `told`: nobody asks any more how the run ended, so that what its groups know may be lost. */
  const undo = async (folder: string, lock: Lock, told = false): Promise<string[]> => {
    const plan = join(folder, RUN_FILES.plan);
    const file = join(folder, RUN_FILES.undone);
    const words = (failures: readonly Failure[]): string[] => {
      const steps = failures.length > 0 ? stepsOf(plan) : new Map<number, never>();
      return failures.map((failure) => describeFailure(failure, steps.get(failure.index)));
    };
    const before = fs.existsSync(file) ? readUndone(folder) : undefined;
    if (before?.length === 0) return [];
    if (!hasAfter(plan)) return [];
    return points.aroundAsync('run.undo', async () => {
      if (told && !before && removeGroups(plan)) return [];
      // a second try of what the shim could not undo: EBUSY is often over by now
      if (before) ifPresent(() => fs.unlinkSync(file));
      const result = await runShim(native, { mode: 'undo', plan, runFolder: folder, lock });
      if (fs.existsSync(file)) return words(readUndone(folder));
      if (result.ended === 'gone') return ['the helper that undoes the run ended unexpectedly'];
      if (result.ended === 'error' && result.failures.length === 0) return stepsOf(plan).size === 0 ? [] : [`the undo failed: ${result.message}`];
      if (result.failures.length === 0) writeAtomic(file, JSON.stringify({ failures: [] }));
      return words(result.failures);
    });
  };

  /** Into the trash, or among the leftovers when something is still to be undone. Frees the container for its next run. */
  const remove = (folder: string, lock: Lock, keep: boolean): void => {
    const moved = points.around('run.remove', () => {
      if (!keep) return moveToTrash(folder, folders.trash);
      if (folder.startsWith(`${folders.leftovers}/`)) return undefined;
      ifPresent(() => fs.renameSync(folder, join(folders.leftovers, `${basename(folder)}-${randomName()}`)));
      return undefined;
    });
    lock.release();
    if (moved) context.discard(moved);
  };

  const recordExit = async (container: string, exit: ExitRecord): Promise<void> => {
    await db.write(() => {
      const row = db.get("SELECT json_extract(record, '$.lastExit.run') AS run FROM containers WHERE id = ?", container);
      if (row && row['run'] !== exit.run) db.run("UPDATE containers SET record = json_set(record, '$.lastExit', json(?)) WHERE id = ?", JSON.stringify(exit), container);
    });
  };
  const lastExit = (container: string, run: string): ExitRecord | undefined => {
    const row = db.get("SELECT json_extract(record, '$.lastExit') AS exit FROM containers WHERE id = ?", container);
    const exit = typeof row?.['exit'] === 'string' ? (JSON.parse(row['exit']) as ExitRecord) : undefined;
    return exit?.run === run ? exit : undefined;
  };

  const collectLocked = async (view: RunView, lock: Lock, forget: boolean): Promise<{ exit: ExitRecord; failures: readonly string[] }> => {
    const { folder, record } = view;
    try {
      const { exit, ran } = exitOf(view);
      // written down before anything else, so that a collector that dies here is followed by one that says the same
      if (ran && !view.exit) points.around('run.exit', () => writeExit(folder, exit));
      if (view.stale) forgetProcess(folder);
      const failures = await undo(folder, lock);
      // the undo may have learned of an OOM kill
      const final = (ran && !forget && readExit(folder, record.run, exit.startedAt)) || exit;
      if (ran && !forget) await points.aroundAsync('run.record', () => recordExit(record.container, final));
      remove(folder, lock, failures.length > 0);
      return { exit: final, failures };
    } finally {
      lock.release();
    }
  };

  /** Aside, so that the container can be started again; doctor shows it. */
  const setAside = (folder: string): void => {
    const lock = lockFolder(native, folder, { create: true });
    if (!lock) return;
    ifPresent(() => fs.renameSync(folder, join(folders.leftovers, `${basename(folder)}-${randomName()}`)));
    lock.release();
  };

  return {
    viewOf,
    async create(record: RunRecord, plan, files = {}) {
      const target = folderOf(record.container);
      for (let attempt = 0; attempt < 20; attempt++) {
        const temporary = join(folders.runs, `.tmp-${record.run}-${attempt}`);
        fs.mkdirSync(temporary, { mode: 0o700 });
        const lock = lockFolder(native, temporary, { create: true });
        if (!lock) {
          await sleep(attempt);
          continue;
        }
        try {
          points.around('run.write', () => {
            fs.mkdirSync(join(temporary, RUN_FILES.rootfs), { mode: 0o755 });
            fs.writeFileSync(join(temporary, RUN_FILES.plan), plan, { mode: 0o600 });
            fs.writeFileSync(join(temporary, RUN_FILES.record), JSON.stringify(record), { mode: 0o600 });
            for (const [name, content] of Object.entries(files)) fs.writeFileSync(join(temporary, name), content, { mode: 0o600 });
          });
          points.around('run.create', () => fs.renameSync(temporary, target));
          return { folder: target, lock: once(lock, join(target, RUN_FILES.lock)) };
        } catch (error) {
          const code = errorCode(error);
          if (code === undefined) throw error;
          removeRecords(temporary);
          lock.release();
          if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw fail('ERR_STATE', `cannot write the run of container ${record.container}`, { path: target, errno: code, cause: error });
          if (attempt === 0 && !readRecord(target)) setAside(target);
          else throw fail('ERR_ALREADY_RUNNING', `container ${record.container.slice(0, 12)} is running already`, { path: record.container });
        }
      }
      throw fail('ERR_STATE', 'cannot make a folder for a run', { path: folders.runs });
    },
    current: (container) => readRecord(folderOf(container)),
    find: (container) => viewOf(folderOf(container)),
    list: () => names(folders.runs).filter((name) => !name.startsWith('.')).flatMap((name) => viewOf(join(folders.runs, name)) ?? []),
    async amend(container, plan) {
      try {
        points.around('run.amend', () => writeAtomic(join(folderOf(container), RUN_FILES.plan), plan));
      } catch (error) {
        if (isEngineError(error) && error.errno === 'ENOENT') throw fail('ERR_NOT_RUNNING', `container ${container.slice(0, 12)} is not running`, { path: container });
        throw error;
      }
    },
    async collect(container, { timeout = TIMEOUT, forget = false } = {}) {
      const folder = folderOf(container);
      const first = readRecord(folder);
      if (!first) return undefined;
      const end = clock() + timeout;
      for (let round = 0; ; round++) {
        const lock = lockFolder(native, folder, { create: true });
        if (lock) {
          // read under the lock: it may be another run by now, which is then over as well
          const view = viewOf(folder, true);
          if (view) return collectLocked(view, lock, forget);
          lock.release();
        }
        if (readRecord(folder)?.run !== first.run) {
          // somebody else was faster
          const exit = lastExit(container, first.run);
          return exit && { exit, failures: [] };
        }
        if (clock() >= end) throw fail('ERR_BUSY', `the last run of container ${container.slice(0, 12)} has not ended after ${timeout} ms`, { operation: 'collect', path: container });
        await sleep(round < 4 ? 0 : Math.min(25, 2 ** (round - 4)));
      }
    },
    async clear(folder, lock, last) {
      try {
        const failures = await undo(folder, lock, true);
        await last?.();
        remove(folder, lock, failures.length > 0);
        return failures;
      } finally {
        lock.release();
      }
    },
  };
}
