import { existsSync, readFileSync, readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { hostname, machine as architecture, release } from 'node:os';
import { dirname } from 'node:path';
import { readMounts, type Machine, type MachineMount } from '@engine/core/contracts/common';
import { capabilityNames } from './capabilities.ts';

/** For so long the list of mounts is taken as it was, ms: those who ask several times for one command. */
const MOUNTS_HOLD = 50;

/** The machine this process runs on. Cheap: what costs something is read when it is asked for. */
export function readMachine(folders: { readonly root: string; readonly runRoot: string }): Machine {
  const text = release();
  const [major = 0, minor = 0] = text.split(/[.-]/).map(Number);
  const lazy = <T>(make: () => T): (() => T) => {
    let made: { value: T } | undefined;
    return () => (made ??= { value: make() }).value;
  };
  const filesystems = lazy(() =>
    (readText('/proc/filesystems') ?? '')
      .split('\n')
      .map((line) => line.split('\t').at(-1) ?? '')
      .filter(Boolean),
  );
  // a process that stays sees mounts come and go
  let mounts: { readonly list: readonly MachineMount[]; readonly until: number } | undefined;
  const readAgain = (): readonly MachineMount[] => {
    if (!mounts || mounts.until < Date.now()) mounts = { list: readMounts(readText('/proc/self/mountinfo') ?? ''), until: Date.now() + MOUNTS_HOLD };
    return mounts.list;
  };
  const namespaces = lazy(() => readdirSync('/proc/self/ns').filter((name) => !name.endsWith('_for_children')));
  const capabilities = lazy(() =>
    capabilityNames(BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(readText('/proc/self/status') ?? '')?.[1] ?? '0'}`)),
  );
  return {
    kernel: [major, minor],
    release: text,
    architecture: architecture(),
    hostname: hostname(),
    uid: process.geteuid?.() ?? -1,
    get capabilities() {
      return capabilities();
    },
    get filesystems() {
      return filesystems();
    },
    get mounts() {
      return readAgain();
    },
    get namespaces() {
      return namespaces();
    },
    get idMaps() {
      return readIdMaps();
    },
    root: folders.root,
    runRoot: folders.runRoot,
    read: readText,
  };
}

function readText(path: string): string | undefined {
  try {
    // an exception costs more than another look, and much that is asked for is not there
    return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  } catch {
    return undefined;
  }
}

/** A process that ends meanwhile is none. */
function readIdMaps(): Machine['idMaps'] {
  const userNamespace = (pid: string): string | undefined => {
    try {
      return readlinkSync(`/proc/${pid}/ns/user`);
    } catch {
      return undefined;
    }
  };
  const own = userNamespace('self');
  const processes = new Map<string, string>();
  for (const pid of readdirSync('/proc')) {
    const namespace = /^\d/.test(pid) ? userNamespace(pid) : undefined;
    if (namespace !== undefined && namespace !== own) processes.set(namespace, pid);
  }
  return [...processes.values()].map((pid) => ({ uid: readText(`/proc/${pid}/uid_map`) ?? '', gid: readText(`/proc/${pid}/gid_map`) ?? '' }));
}

/** Type of the filesystem that `path`, or the nearest folder above it that exists, lies on. */
export function filesystemOf(path: string, mounts: readonly MachineMount[]): string {
  let folder = path;
  while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
  folder = realpathSync(folder);
  let best: MachineMount | undefined;
  for (const mount of mounts) {
    const covers = mount.target === '/' || folder === mount.target || folder.startsWith(`${mount.target}/`);
    // Of several mounts on one target the last one is on top.
    if (covers && mount.target.length >= (best?.target.length ?? 0)) best = mount;
  }
  return best?.type ?? 'unknown';
}

/** How the cgroup tree is mounted: `v2` alone, `v1` alone, or `hybrid`. */
export function cgroupMode(mounts: readonly MachineMount[]): 'v1' | 'v2' | 'hybrid' {
  const has = (type: string): boolean => mounts.some((mount) => mount.type === type && mount.target.startsWith('/sys/fs/cgroup'));
  return has('cgroup') ? (has('cgroup2') ? 'hybrid' : 'v1') : 'v2';
}
