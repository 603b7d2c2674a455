import { statSync, watch, type FSWatcher } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { loadedFiles } from '../running-core.ts';

/** Least time between two looks at our own program, ms. */
const INTERVAL = 1000;

const mark = (path: string): string => {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
  } catch {
    return '-';
  }
};

/** Code that runs here and has changed on disk since. */
export interface Freshness {
  /** A file of a plugin from outside that was loaded and is another one now. A stat per file. */
  changedPlugin(): string | undefined;
  /** Look, when it is time, whether our own program is another one; `onChange` is called when it is. Returns at once. */
  glance(): void;
  close(): void;
}

export interface FreshnessOptions {
  /** Files of our own program. */
  readonly program: readonly string[];
  /** Folders of sources that the program is built from, in a checkout. */
  readonly sources?: readonly string[];
  onChange(path: string): void;
  /** A source has changed: the program is to be built anew. */
  onStale?(): void;
  readonly now?: () => number;
}

export function createFreshness({ program, sources = [], onChange, onStale, now = Date.now }: FreshnessOptions): Freshness {
  const plugins = new Map<string, string>();
  const own = new Map(program.map((path) => [path, mark(path)]));
  const watchers: FSWatcher[] = [];
  let stale = false;
  let last = now();
  for (const folder of sources) {
    try {
      watchers.push(
        watch(folder, { persistent: false }, (_event, name) => {
          if (name === null || (/\.[cm]?ts$|\.json$/.test(name) && !name.endsWith('.test.ts'))) stale = true;
        }).on('error', () => {}),
      );
    } catch {
      // gone meanwhile, or no inotify left: whoever changes sources restarts it then
    }
  }
  return {
    changedPlugin() {
      for (const path of loadedFiles()) {
        const before = plugins.get(path);
        const current = mark(path);
        if (before === undefined) plugins.set(path, current);
        else if (before !== current) return path;
      }
      return undefined;
    },
    glance() {
      if (now() - last < INTERVAL) return;
      last = now();
      if (stale) {
        stale = false;
        onStale?.();
      }
      for (const [path, before] of own) {
        void stat(path, { bigint: true }).then(
          ({ dev, ino, size, mtimeNs, ctimeNs }) => {
            if (before !== `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`) onChange(path);
          },
          () => {}, // just being replaced: the next look sees the new one
        );
      }
    },
    close() {
      for (const watcher of watchers) watcher.close();
    },
  };
}

/** What this process was started from: the script and, in the bundle, what lies beside it. */
export function programFiles(script: string): string[] {
  const folder = dirname(script);
  return [script, join(folder, '.stamp'), join(folder, 'bin/engine-shim'), join(folder, 'bin/libengine.so')].filter((path) => mark(path) !== '-');
}
