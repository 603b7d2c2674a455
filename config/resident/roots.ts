import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger } from 'pino';
import { type Engine } from '@engine/core/api';
import { type Instances } from './instances.ts';
import { type Ambience, type Resolved } from './resolve.ts';

/** Beside the socket: for which roots, with whose configuration, this engined has worked. */
const FILE = 'engined.roots';
const MOST = 32;

interface Entry {
  readonly root: string;
  readonly runRoot: string;
  readonly ambience: Ambience;
}

/** Looks after what runs in roots that were served, by whoever lives then: this engined, the next one, or one that a shim has woken. */
export interface Roots {
  /** An engine was opened: remember where, and watch its runs. */
  opened(resolved: Resolved, engine: Engine): void;
  /** Open those of the list again and watch what runs there. */
  reopen(): Promise<void>;
  /** A shim has ended without an engine there. */
  wake(root: string, runRoot: string): Promise<void>;
}

export function createRoots(folder: string, instances: () => Instances, log: Logger): Roots {
  const file = join(folder, FILE);
  let entries: readonly Entry[] = read(file);
  const supervise = async (engine: Engine, root: string): Promise<void> => {
    try {
      for (const line of await engine.system.supervise()) log.info({ root }, line);
    } catch (err) {
      log.warn({ err, root }, 'what runs there is not watched');
    }
  };
  const reopen = async ({ root, ambience }: Entry): Promise<void> => {
    try {
      const lease = await instances().acquire(await instances().resolve(ambience));
      await supervise(lease.engine, root);
      lease.release();
    } catch (err) {
      log.warn({ err, root }, 'cannot be opened again');
    }
  };
  return {
    opened({ config, ambience }, engine) {
      const { root, runRoot } = config.value;
      void supervise(engine, root);
      const same = (entry: Entry): boolean => entry.root === root && entry.runRoot === runRoot;
      if (same(entries[0] ?? { root: '', runRoot: '', ambience })) return;
      entries = [{ root, runRoot, ambience }, ...entries.filter((entry) => !same(entry))].slice(0, MOST);
      try {
        writeFileSync(`${file}.new`, JSON.stringify(entries), { mode: 0o600 });
        renameSync(`${file}.new`, file);
      } catch (err) {
        log.warn({ err }, `cannot write ${file}`);
      }
    },
    async reopen() {
      for (const entry of entries) await reopen(entry);
      // after a reboot there is no list, but what is to be started again
      const own: Ambience = { cwd: '/', env: {}, flags: {} };
      const settings = await instances().resolve(own).then(({ config }) => config.value, () => undefined);
      if (!settings || settings.runRoot !== folder || entries.some(({ root }) => root === settings.root) || !existsSync(join(settings.root, 'state.db'))) return;
      await reopen({ root: settings.root, runRoot: settings.runRoot, ambience: own });
    },
    async wake(root, runRoot) {
      const open = instances().open().find(({ instance: { resolved: { config: { value } } } }) => value.root === root && value.runRoot === runRoot);
      if (open) return supervise(open.engine, root);
      const known = entries.find((entry) => entry.root === root && entry.runRoot === runRoot);
      return reopen(known ?? { root, runRoot, ambience: { cwd: '/', env: {}, flags: { root, runRoot } } });
    },
  };
}

function read(file: string): readonly Entry[] {
  try {
    const data: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return Array.isArray(data) ? (data as Entry[]).filter(({ root, runRoot, ambience }) => typeof root === 'string' && typeof runRoot === 'string' && typeof ambience?.cwd === 'string') : [];
  } catch {
    return []; // none yet, or half of one: those who come again are remembered again
  }
}
