import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { unified } from './cgroup.ts';
import { join } from 'node:path';

/** What a test could leave on the machine. Names only, so that two snapshots can be compared. */
export interface Snapshot {
  readonly mounts: readonly string[];
  readonly cgroups: readonly string[];
  readonly links: readonly string[];
  readonly tables: readonly string[];
  readonly loops: readonly string[];
  readonly namespaces: readonly string[];
  readonly processes: readonly string[];
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // not there, or gone in the meantime
  }
}

/** Folders of any engine in any hierarchy. */
export function cgroups(): string[] {
  const found: string[] = [];
  const walk = (path: string, depth: number): void => {
    for (const name of list(path)) {
      const child = join(path, name);
      if (/engine/.test(name)) found.push(child);
      if (depth > 0 && list(child).includes('cgroup.procs')) walk(child, depth - 1);
    }
  };
  if (unified) walk('/sys/fs/cgroup', 3);
  else for (const hierarchy of list('/sys/fs/cgroup')) walk(join('/sys/fs/cgroup', hierarchy), 2);
  return found;
}

/** Where something is mounted, in this process's mount namespace. */
export const mounts = (): string[] => readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter(Boolean).map((line) => line.split(' ')[4] ?? '');

function processes(): string[] {
  return list('/proc').filter((name) => /^\d+$/.test(name)).flatMap((pid) => {
    try {
      const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
      // the resident one is a node with a word of ours
      return /^engine/.test(name) || /\0engined\0/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8')) ? [`${name} ${pid}`] : [];
    } catch {
      return [];
    }
  });
}

function tables(): string[] {
  try {
    return execFileSync('nft', ['list', 'tables'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split('\n').filter(Boolean);
  } catch {
    return []; // no nft on this machine: nothing of ours can be in it
  }
}

/** One engine among several on this machine: only what is its own counts. */
export interface Owner {
  readonly instance: string;
  /** Holds its root and its run root. */
  readonly folder: string;
}

/** `engine-` and 8 hex digits, as the engine itself makes it from its root. */
export const instanceOf = (root: string): string => `engine-${createHash('sha256').update(realpathSync(root)).digest('hex').slice(0, 8)}`;

/** Everything of the machine that this engine made, as it is now. */
export function owned({ instance, folder }: Owner): Snapshot {
  const all = snapshot();
  const named = (name: string): boolean => name.includes(instance) || name.includes(instance.slice('engine-'.length));
  return {
    mounts: all.mounts.filter((path) => path.startsWith(`${folder}/`)),
    cgroups: all.cgroups.filter(named),
    links: all.links.filter(named),
    tables: all.tables.filter(named),
    loops: all.loops.filter((name) => backing(name).startsWith(`${folder}/`)),
    namespaces: all.namespaces.filter(named),
    // a shim holds its lock and its run's folder open
    processes: all.processes.filter((line) => openFiles(line.split(' ').at(-1) ?? '').some((file) => file.startsWith(`${folder}/`))),
  };
}

function backing(loop: string): string {
  try {
    return readFileSync(`/sys/block/${loop}/loop/backing_file`, 'utf8').trim();
  } catch {
    return '';
  }
}

/** Everything of the machine that any engine could have made, as it is now. */
function snapshot(): Snapshot {
  return {
    mounts: mounts(),
    cgroups: cgroups(),
    links: list('/sys/class/net'),
    tables: tables(),
    loops: list('/sys/block').filter((name) => /^loop/.test(name) && list(`/sys/block/${name}`).includes('loop')),
    namespaces: list('/run/netns'),
    processes: processes(),
  };
}

/** What is there now and was not there before, one line each. */
export function leaks(before: Snapshot, after: Snapshot = snapshot()): string[] {
  return (Object.keys(before) as (keyof Snapshot)[]).flatMap((kind) => {
    const known = new Map<string, number>();
    for (const name of before[kind]) known.set(name, (known.get(name) ?? 0) + 1);
    return after[kind].flatMap((name) => {
      const left = known.get(name) ?? 0;
      known.set(name, left - 1);
      return left > 0 ? [] : [`${kind}: ${name}`];
    });
  });
}

/** What a process has open at this moment, one text each; nothing of one that is gone. */
export function openFiles(pid: number | string = 'self'): string[] {
  return list(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return []; // closed in the meantime
    }
  });
}
