import { lstatSync, readlinkSync, type Stats } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fail } from '@engine/core/errors';

/** What the checks read; tests hand in another one. */
export interface OwnershipView {
  lstat(path: string): Pick<Stats, 'uid' | 'mode' | 'isSymbolicLink' | 'isDirectory'>;
  readlink(path: string): string;
  readonly uid: number;
}
const real: OwnershipView = { lstat: lstatSync, readlink: (path) => readlinkSync(path), uid: process.geteuid?.() ?? 0 };

/**
 * Why nobody but root and the caller could have written `path` or put it there; undefined means all is well.
 *
 * Every component is looked at, those that symlinks lead through too. A folder that others may write is accepted only when it is sticky and
 * what follows in it is a folder of ours: nobody can replace that one. A file may have been hard-linked there by anybody.
 */
export function whyUntrusted(path: string, view: OwnershipView = real): string | undefined {
  const owned = (stat: { uid: number }): boolean => stat.uid === 0 || stat.uid === view.uid;
  const queue = resolve(path).split('/').filter(Boolean);
  let at = '/';
  let links = 0;
  let stat = view.lstat(at);
  let open: string | undefined;
  const others = (folder: string): string => `${folder} can be written by others (mode ${(view.lstat(folder).mode & 0o7777).toString(8)})`;
  for (;;) {
    if (open !== undefined && !stat.isDirectory()) return others(open);
    open = undefined;
    if (!owned(stat)) return `${at} belongs to uid ${stat.uid}`;
    if (stat.isSymbolicLink()) {
      if (++links > 40) return `${path} has too many symbolic links`;
      queue.unshift(...view.readlink(at).split('/').filter(Boolean));
      at = view.readlink(at).startsWith('/') ? '/' : dirname(at);
    } else if ((stat.mode & 0o022) !== 0) {
      const sticky = stat.isDirectory() && (stat.mode & 0o1000) !== 0;
      if (!sticky || queue.length === 0) return others(at);
      open = at;
    }
    const next = queue.shift();
    if (next === undefined) return undefined;
    if (next !== '.') at = next === '..' ? dirname(at) : `${at === '/' ? '' : at}/${next}`;
    stat = view.lstat(at);
  }
}

/** Throws ERR_CONFIG_UNTRUSTED when somebody other than root or the caller could have written `path`. */
export function checkOwnership(path: string, what: string, view?: OwnershipView): void {
  let why: string | undefined;
  try {
    why = whyUntrusted(path, view);
  } catch (cause) {
    throw fail('ERR_CONFIG_UNTRUSTED', `cannot check who owns ${what} ${path}`, { operation: 'trust', path, cause });
  }
  if (why === undefined) return;
  throw fail('ERR_CONFIG_UNTRUSTED', `${what} ${path} is not used: ${why}`, {
    operation: 'trust',
    path,
    hint: 'it and its folders must belong to root or to you, and be writable by nobody else',
  });
}
