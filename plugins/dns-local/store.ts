import { readdirSync, readFileSync, statSync, watch, type FSWatcher } from 'node:fs';
import { join } from 'node:path';
import { FOLDERS, parseContainer, parseNetwork } from './files.ts';
import { type Zone } from './zone.ts';

/** The kernel's clock for files goes in steps of up to this, ms: what is changed within one of them has the time of before. */
const TICK = 20;
/** Between two looks at everything, whatever the times say, ms. */
const INTERVAL = 5000;

/** Keeps a zone as the files of the service's folder have it. */
export interface Store {
  /** Look again. Without `all` only where the folders say that something was added or taken away: a stat per folder. */
  refresh(all?: boolean): void;
  close(): void;
}

interface Folder {
  readonly path: string;
  /** mark per file of what was read; undefined: half of it was there. */
  readonly seen: Map<string, string | undefined>;
  /** Time of the folder when it was read; undefined: it is to be read again in any case. */
  time: number | undefined;
  set(text: string): string | undefined;
  remove(key: string): void;
}

export function createStore(folder: string, zone: Zone, onNetworks: () => void): Store {
  /** Ids by file, of what was taken in. */
  const taken = new Map<string, string>();
  const make = (name: string, set: Folder['set'], remove: Folder['remove']): Folder => ({ path: join(folder, name), seen: new Map(), time: undefined, set, remove });
  const networks = make(
    FOLDERS.networks,
    (text) => {
      const file = parseNetwork(text);
      if (file) zone.setNetwork(file);
      return file?.id;
    },
    (id) => zone.removeNetwork(id),
  );
  const containers = make(
    FOLDERS.containers,
    (text) => {
      const file = parseContainer(text);
      if (file) zone.setContainer(file);
      return file?.container;
    },
    (id) => zone.removeContainer(id),
  );

  /** Returns whether anything was another. */
  const scan = (of: Folder, all: boolean): boolean => {
    let time: number;
    let names: readonly string[];
    try {
      const from = Date.now();
      time = statSync(of.path).mtimeMs;
      if (!all && time === of.time) return false;
      names = readdirSync(of.path);
      of.time = from - time > TICK ? time : undefined;
    } catch {
      of.time = undefined;
      names = [];
    }
    let changed = false;
    const there = new Set(names.filter((name) => name.endsWith('.json') && !name.startsWith('.')));
    for (const name of of.seen.keys()) {
      if (there.has(name)) continue;
      of.seen.delete(name);
      drop(of, name);
      changed = true;
    }
    for (const name of there) changed = readOne(of, name) || changed;
    return changed;
  };
  const readOne = (of: Folder, name: string): boolean => {
    const path = join(of.path, name);
    let mark: string | undefined;
    let key: string | undefined;
    try {
      const { ino, mtimeMs, size } = statSync(path);
      mark = `${ino}:${mtimeMs}:${size}`;
      if (of.seen.get(name) === mark) return false;
      key = of.set(readFileSync(path, 'utf8'));
      if (statSync(path).mtimeMs !== mtimeMs) mark = undefined;
    } catch {
      mark = undefined; // gone just now
    }
    const before = taken.get(path);
    if (before !== undefined && before !== key) of.remove(before);
    if (key === undefined) {
      // half of it: it is read again with the next question
      taken.delete(path);
      of.time = undefined;
      mark = undefined;
    } else taken.set(path, key);
    of.seen.set(name, mark);
    return true;
  };
  const drop = (of: Folder, name: string): void => {
    const path = join(of.path, name);
    const key = taken.get(path);
    taken.delete(path);
    if (key !== undefined) of.remove(key);
  };

  const refresh = (all = false): void => {
    scan(containers, all);
    if (scan(networks, all)) onNetworks();
  };
  // questions look for themselves: only a new network has to be noticed before anybody asks
  const watchers = new Map<string, FSWatcher>();
  const follow = (path: string): void => {
    if (watchers.has(path)) return;
    try {
      const forget = (): void => {
        watchers.get(path)?.close();
        watchers.delete(path);
      };
      watchers.set(
        path,
        watch(path, { persistent: false }, () => {
          if (path === folder) follow(networks.path);
          networks.time = undefined;
          if (scan(networks, false)) onNetworks();
        }).on('error', forget),
      );
    } catch {
      // not there yet, or no inotify left: the timer looks
    }
  };
  const look = (): void => {
    // one that was removed and made again is another
    if (!exists(networks.path)) {
      watchers.get(networks.path)?.close();
      watchers.delete(networks.path);
    }
    follow(folder);
    follow(networks.path);
    refresh(true);
  };
  look();
  const timer = setInterval(look, INTERVAL);
  return {
    refresh,
    close() {
      clearInterval(timer);
      for (const watcher of watchers.values()) watcher.close();
    },
  };
}
function exists(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch {
    return false;
  }
}
