import { fail } from '@engine/core/errors';

/** Where the scope of a run lies. */
export interface Place {
  /** A unit, e.g. `a-b.slice`; `-.slice` is the root. */
  readonly slice: string;
  /** Name of the scope's unit where it was given (OCI `slice:prefix:name`). */
  readonly scope?: string;
}

/** systemd's limit for the name of a unit. */
const MAX_NAME = 255;
const isName = (text: string): boolean => /^[A-Za-z0-9:_.\\@-]+$/.test(text);

/** As systemd-escape(1) does it, without the rule for paths: what a unit's name can't have becomes `\xNN`. */
export function escapeUnit(text: string): string {
  return [...Buffer.from(text)].map((byte, i) => {
    const letter = String.fromCharCode(byte);
    return /[A-Za-z0-9:_.-]/.test(letter) && !(i === 0 && letter === '.') ? letter : `\\x${byte.toString(16).padStart(2, '0')}`;
  }).join('');
}

/** The path of a unit's object on the bus has letters and digits only. */
export function objectPath(unit: string): string {
  const escaped = [...Buffer.from(unit)].map((byte) => (/[A-Za-z0-9]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `_${byte.toString(16).padStart(2, '0')}`));
  return `/org/freedesktop/systemd1/unit/${escaped.join('')}`;
}

/** Files that the kernel has in a cgroup folder begin with these. */
const CONTROLLERS = /^(?:cgroup|cpu|cpuacct|cpuset|io|blkio|memory|devices|pids|hugetlb|rdma|misc|freezer|perf_event|net_cls|net_prio)\./;
/** The folder of a unit: its name, with `_` in front where the kernel could take it for a file of its own (systemd's cg_escape). */
export function folderOfUnit(unit: string): string {
  return /^[_.]/.test(unit) || /^(?:notify_on_release|release_agent|tasks)$/.test(unit) || CONTROLLERS.test(unit) ? `_${unit}` : unit;
}

/** The unit whose folder that is. */
export const unitOfFolder = (folder: string): string => (folder.startsWith('_') ? folder.slice(1) : folder);

/** Is it the name of a slice? `a-b.slice` lies in `a.slice`, so that no part may be empty. */
export function isSlice(name: string): boolean {
  if (name === '-.slice') return true;
  return name.length <= MAX_NAME && name.endsWith('.slice') && isName(name) && name.slice(0, -'.slice'.length).split('-').every((part) => part !== '');
}

/** The folder of a slice below the root of the hierarchy: `a-b.slice` is `a.slice/a-b.slice`. */
export function folderOfSlice(slice: string): string {
  if (slice === '-.slice') return '';
  const parts = slice.slice(0, -'.slice'.length).split('-');
  return parts.map((_, i) => folderOfUnit(`${parts.slice(0, i + 1).join('-')}.slice`)).join('/');
}

const HINT = 'with systemd a parent is a slice, e.g. --cgroup-parent mine.slice (a-b.slice lies in a.slice)';
const invalid = (path: string, why: string): Error => fail('ERR_INVALID_VALUE', `cgroup parent ${path}: ${why}`, { path, hint: HINT });

function parseTriple(path: string, fallback: string): Place {
  const parts = path.split(':');
  const [slice = '', prefix = '', name = ''] = parts;
  if (parts.length !== 3 || !name) throw fail('ERR_INVALID_VALUE', `cgroupsPath ${path}: not of the form slice:prefix:name`, { path, hint: 'e.g. system.slice:engine:web' });
  if (slice && !isSlice(slice)) throw invalid(path, `${JSON.stringify(slice)} is not the name of a slice`);
  if (name.endsWith('.slice')) throw fail('ERR_NOT_SUPPORTED', `cgroupsPath ${path}: a container's group is a scope, not a slice`, { path });
  const scope = `${escapeUnit(prefix ? `${prefix}-${name}` : name)}.scope`;
  if (scope.length > MAX_NAME) throw invalid(path, `the name of its scope would have ${scope.length} bytes, more than ${MAX_NAME}`);
  return { slice: slice || fallback, scope };
}

/** Where the group of a bundle is: its callers' `slice:prefix:name`, nothing else. Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED. */
export function parseGroup(path: string, fallback: string): Required<Place> {
  // in the words that callers know from runc
  if (path.split(':').length !== 3) throw fail('ERR_INVALID_VALUE', `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got ${JSON.stringify(path)} instead`, { path: 'linux.cgroupsPath', hint: 'leave out --systemd-cgroup for a path' });
  const { slice, scope = '' } = parseTriple(path, fallback);
  return { slice, scope };
}

/**
 * What `--cgroup-parent` or `cgroupsPath` says: nothing (then `fallback`), a slice by its name or by its whole path, or the OCI runtimes' `slice:prefix:name`.
 * Errors: ERR_INVALID_VALUE, ERR_NOT_SUPPORTED.
 */
export function parsePlace(path: string | undefined, fallback: string): Place {
  if (!path) return { slice: fallback };
  if (path.includes(':')) return parseTriple(path, fallback);
  if (!path.includes('/')) {
    if (isSlice(path)) return { slice: path };
    throw invalid(path, path.endsWith('.slice') ? 'not the name of a slice' : 'not a slice');
  }
  const parts = path.split('/').filter(Boolean);
  const last = parts.at(-1) ?? '-.slice';
  if (isSlice(last) && parts.every((part) => part !== '..') && folderOfSlice(last) === parts.join('/')) return { slice: last };
  throw invalid(path, 'a path that is not that of a slice');
}
