import { readFileSync } from 'node:fs';
import { hostname, machine, release } from 'node:os';
import { readMounts } from '@engine/core/contracts/common';
import { type HostBlock } from './schema.ts';
import { cgroupMode, filesystemOf } from './machine.ts';

/** What a `match:` is held against. */
export interface HostFacts {
  readonly hostname: string;
  readonly fs: string;
  readonly kernel: string;
  readonly arch: string;
  readonly cgroup: string;
}

export function readHostFacts(root: string): HostFacts {
  const mounts = readMounts(readFileSync('/proc/self/mountinfo', 'utf8'));
  return { hostname: hostname(), fs: filesystemOf(root, mounts), kernel: release(), arch: machine(), cgroup: cgroupMode(mounts) };
}

/** Do all conditions hold? An empty match holds everywhere. */
export function hostMatches(match: NonNullable<HostBlock['match']>, facts: HostFacts): boolean {
  return (
    (match.hostname === undefined || glob(match.hostname).test(facts.hostname)) &&
    (match.fs === undefined || match.fs === facts.fs) &&
    (match.arch === undefined || match.arch === facts.arch) &&
    (match.cgroup === undefined || match.cgroup === facts.cgroup) &&
    (match.kernel === undefined || compareKernel(match.kernel, facts.kernel))
  );
}

/** `*` and `?` as in file names, the rest literal; hostnames don't care about case. */
function glob(pattern: string): RegExp {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 'i');
}

function compareKernel(condition: string, kernel: string): boolean {
  const [, sign = '=', text = ''] = /^(>=|>|<=|<|=)?\s*([\d.]+)$/.exec(condition) ?? [];
  const wanted = text.split('.').map(Number);
  const have = kernel.split(/[.-]/, 2).map(Number);
  const order = (have[0] ?? 0) - (wanted[0] ?? 0) || (wanted.length > 1 ? (have[1] ?? 0) - (wanted[1] ?? 0) : 0);
  return { '>=': order >= 0, '>': order > 0, '<=': order <= 0, '<': order < 0, '=': order === 0 }[sign] ?? false;
}
