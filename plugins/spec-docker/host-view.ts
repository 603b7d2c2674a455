import { lstatSync, readdirSync, readFileSync, statSync, type Stats } from 'node:fs';
import { availableParallelism } from 'node:os';

export interface HostDevice { readonly type: 'c' | 'b'; readonly major: number; readonly minor: number; readonly mode: number; readonly uid: number; readonly gid: number }

/** What compiling a request reads of the host. Reads only; tests hand in another one. */
export interface HostView {
  readonly cpus: number;
  /** Small text file, undefined when it can't be read. */
  read(path: string): string | undefined;
  kind(path: string): 'folder' | 'file' | 'device' | 'other' | undefined;
  device(path: string): HostDevice | undefined;
  list(path: string): readonly string[];
}

function stat(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** glibc's gnu_dev_major and gnu_dev_minor. */
export function splitDevice(rdev: number): { major: number; minor: number } {
  const n = BigInt(rdev);
  return { major: Number(((n >> 8n) & 0xfffn) | ((n >> 32n) & ~0xfffn)), minor: Number((n & 0xffn) | ((n >> 12n) & ~0xffn)) };
}

export const realHost: HostView = {
  cpus: availableParallelism(),
  read(path) {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return undefined;
    }
  },
  kind(path) {
    try {
      const found = stat(path);
      if (!found) return undefined;
      return found.isDirectory() ? 'folder' : found.isFile() ? 'file' : found.isCharacterDevice() || found.isBlockDevice() ? 'device' : 'other';
    } catch {
      return undefined;
    }
  },
  device(path) {
    try {
      const found = lstatSync(path).isSymbolicLink() ? stat(path) : lstatSync(path);
      if (!found || (!found.isCharacterDevice() && !found.isBlockDevice())) return undefined;
      return { type: found.isBlockDevice() ? 'b' : 'c', ...splitDevice(found.rdev), mode: found.mode & 0o7777, uid: found.uid, gid: found.gid };
    } catch {
      return undefined;
    }
  },
  list(path) {
    try {
      return readdirSync(path).sort();
    } catch {
      return [];
    }
  },
};
