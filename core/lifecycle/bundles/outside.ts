import * as fs from 'node:fs';
import path from 'node:path';
import { readMounts, type MachineMount } from '../../contracts/common/index.ts';
import { type Spec } from '../../spec/index.ts';

/** Of the null device, which covers files that are hidden. */
const NULL = '/dev/null';
/** Kernel's own limit of links in a path (MAXSYMLINKS). */
const MAX_LINKS = 40;

/** Where `destination` leads below the folder `root`, links followed as inside of it; what is not there leads to itself. */
export function leadsTo(root: string, destination: string): string {
  let links = 0;
  const rest = destination.split('/').filter(Boolean);
  let at = '/';
  for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
    if (name === '.') continue;
    if (name === '..') {
      at = path.posix.dirname(at);
      continue;
    }
    const next = path.posix.join(at, name);
    const link = readlink(root + next);
    if (link === undefined || ++links > MAX_LINKS) {
      at = next;
      continue;
    }
    if (link.startsWith('/')) at = '/';
    rest.unshift(...link.split('/').filter(Boolean));
  }
  return at;
}
function readlink(file: string): string | undefined {
  try {
    return fs.readlinkSync(file);
  } catch {
    return undefined;
  }
}

const isBelow = (target: string, folder: string): boolean => target === folder || target.startsWith(`${folder}/`);

export interface Outside {
  /** Mount point inside. */
  readonly target: string;
  /** Which of them it is, whoever made the container. */
  readonly name: string;
  /** What of the host is mounted there. */
  readonly source: string;
}

/**
 * Mounts of a container whose content is not its own, and is neither written to an image nor brought back: binds of the host's files and all below them, device nodes, what hides files, groups of v1.
 * `mounts`: its own, `real`: where a destination leads inside, `groups`: host folder of its group in the hierarchy of that name.
 */
export function outsideMounts(spec: Spec, mounts: readonly MachineMount[], real: (destination: string) => string, groups: ReadonlyMap<string, string>): Outside[] {
  const binds = (spec.mounts ?? []).flatMap(({ destination, type, source, options = [] }) =>
    (type === 'bind' || options.includes('bind') || options.includes('rbind') ? [{ at: real(destination), source: source ?? '' }] : []));
  const masked = new Set((spec.linux?.maskedPaths ?? []).map(real));
  const whole = new Set(mounts.filter(({ root }) => root === '/').map(({ device }) => device));
  return mounts.flatMap(({ target, root, type, device }): Outside[] => {
    if (target === '/') return [];
    // of several binds the innermost
    const bind = binds.filter(({ at }) => isBelow(target, at)).sort((a, b) => b.at.length - a.at.length)[0];
    if (bind) return [{ target, name: target, source: path.posix.join(bind.source, path.posix.relative(bind.at, target)) }];
    if (type === 'cgroup') {
      const source = groups.get(path.posix.basename(target));
      return source === undefined ? [] : [{ target, name: target, source }];
    }
    // a piece of a file system whose whole the container does not have
    if (type === 'cgroup2' || root === '/' || whole.has(device)) return [];
    return [masked.has(target) ? { target, name: NULL, source: NULL } : { target, name: target, source: target }];
  });
}

/** Of the container whose first process is told of in the folder `proc`. */
export function outsideOf(spec: Spec, proc: string, hostMounts: readonly MachineMount[]): Outside[] {
  const mounts = readMounts(fs.readFileSync(`${proc}/mountinfo`, 'utf8'));
  const groups = new Map(groupsOf(proc).flatMap(({ controller, path: group }) => {
    const found = hostMounts.find(({ type, root, superOptions }) => type === 'cgroup' && root === '/' && controller.split(',').every((one) => superOptions.includes(one)));
    return found ? [[path.posix.basename(found.target), path.posix.join(found.target, group)] as const] : [];
  }));
  return outsideMounts(spec, mounts, (destination) => leadsTo(`${proc}/root`, destination), groups);
}

/** Lines of its file `cgroup`; controller '' is v2. */
export const groupsOf = (proc: string): { readonly controller: string; readonly path: string }[] =>
  fs.readFileSync(`${proc}/cgroup`, 'utf8').split('\n').filter(Boolean).map((line) => {
    const [, controller = '', ...rest] = line.split(':');
    return { controller, path: rest.join(':') };
  });
