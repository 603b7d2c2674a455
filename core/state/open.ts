import * as fs from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type Logger } from 'pino';
import { type Native } from '../native/index.ts';
import { Database, type Compact } from './database.ts';
import { claimFolder, ensurePrivateFolder, removeRecords } from './files.ts';
import { beginTransaction, type StateContext } from './journal.ts';
import { createLocks } from './locks.ts';
import { ensureStateSchema } from './plugin-schema.ts';
import { idTable } from './ids.ts';
import { endpointTable, networkTable } from './networks.ts';
import { createPoints, type Checkpoint } from './points.ts';
import { createReconciler } from './reconcile.ts';
import { createRuns } from './runs.ts';
import { containerTable, pluginState, volumeTable } from './tables.ts';
import { type State } from './types.ts';

export interface StateOptions {
  /** What survives a restart of the machine; made when missing. */
  readonly root: string;
  /** What belongs to this boot. */
  readonly runRoot: string;
  readonly native: Native;
  readonly log: Logger;
  /** Called at every record point, see `checkpointNames`; for tests. */
  readonly checkpoint?: Checkpoint;
  /** For hosts that live on: how the database is checkpointed. Without it, SQLite does that itself within a commit. */
  readonly compact?: Compact;
  /** Likewise: how a folder in the trash is deleted, see removeRecords; what stays is found again at the next start. */
  readonly discard?: (folder: string) => unknown;
}

/** So long whoever deletes a folder is left alone with it, ms. */
const LEAVING = 1000;
/** In a root of {@link State.runsIn}. */
const [LEFTOVERS, TRASH] = ['.leftovers', '.trash'];
const RUN_FOLDERS = ['runs', 'leftovers', 'trash'];

/** `engine-` and 8 hex digits: the same for every path that leads to this root. */
export const instanceOf = (root: string): string => instanceOfReal(fs.realpathSync(root));
/** The same of a path without links. */
export const instanceOfReal = (root: string): string => `engine-${createHash('sha256').update(root).digest('hex').slice(0, 8)}`;

/** Open, or make, the state of an engine. Errors: ERR_STATE when a folder is not ours or the database is damaged or too new. */
export async function openState({ root, runRoot, native, log, checkpoint, compact, discard = removeRecords }: StateOptions): Promise<State> {
  // a crash may have come before the database was made; a filesystem of its own may have been mounted there
  claimFolder(root, (content) => content.includes('state.db') || content.every((name) => ['inflight', 'trash', 'locks', 'lost+found'].includes(name)));
  claimFolder(runRoot, (content) => RUN_FOLDERS.every((name) => content.includes(name)) || content.every((name) => RUN_FOLDERS.includes(name) || /^\.?engined[.-]/.test(name)));
  const [realRoot, realRunRoot] = [fs.realpathSync(root), fs.realpathSync(runRoot)];
  const inside = (folder: string, name: string): string => {
    const path = join(folder, name);
    ensurePrivateFolder(path);
    return path;
  };
  const inflight = inside(realRoot, 'inflight');
  const trash = inside(realRoot, 'trash');
  const lockFolder = inside(realRoot, 'locks');
  const folders = { runs: inside(realRunRoot, 'runs'), leftovers: inside(realRunRoot, 'leftovers'), trash: inside(realRunRoot, 'trash') };

  const db = await Database.open(join(realRoot, 'state.db'), compact);
  const points = createPoints(checkpoint);
  const leaving = new Set<string>();
  const discardFolder = (folder: string): unknown => {
    leaving.add(folder);
    setTimeout(() => leaving.delete(folder), LEAVING).unref();
    return discard(folder);
  };
  const context: StateContext = { native, log, db, points, inflight, trash, discard: discardFolder };
  const runs = createRuns(context, folders);
  const locks = createLocks(native, lockFolder, points);
  const instance = instanceOf(realRoot);
  const reconciler = createReconciler({ ...context, runs, folders, instance });

  return {
    folders: { root: realRoot, runRoot: realRunRoot, instance },
    containers: containerTable(db),
    volumes: volumeTable(db),
    networks: networkTable(db),
    endpoints: endpointTable(db),
    ids: idTable(db),
    runs,
    runsIn: (below) => ({ ...createRuns(context, { runs: below, leftovers: join(below, LEFTOVERS), trash: join(below, TRASH) }), isLeaving: (path) => leaving.has(path) }),
    pluginState: (plugin) => pluginState(db, plugin),
    ensureStateSchema: (plugin, schema) => ensureStateSchema(db, plugin, schema),
    begin: (what, trace) => beginTransaction(context, what, trace),
    lock: (kind, id, options) => locks.lock(kind, id, options),
    ...reconciler,
    nextEvent: () => nextEvent(db),
    removals: () => Number(db.get("SELECT value FROM counters WHERE name = 'removals'")?.['value'] ?? 0),
    close() {
      locks.close();
      db.close();
    },
  };
}

function nextEvent(db: Database): number {
  return Number(db.get("INSERT INTO counters VALUES ('event', 1) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value")?.['value']);
}
