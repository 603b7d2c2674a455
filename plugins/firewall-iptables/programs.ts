import { accessSync, constants, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';

/** iptables speaks to one of two kernels' worth of tables: those of nf_tables, or its own old ones. They don't see each other. */
export type Variant = 'nft' | 'legacy';
export interface Programs {
  readonly variant: Variant;
  /** Absolute paths of the restore programs. */
  readonly restore4: string;
  /** Absent: IPv6 networks can't be had with this driver. */
  readonly restore6?: string;
}

const FOLDERS = ['/usr/sbin', '/sbin', '/usr/local/sbin', '/usr/bin', '/bin'];

/** Path of a program of the host; undefined: not installed. */
export function findProgram(name: string): string | undefined {
  return FOLDERS.map((folder) => join(folder, name)).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
/** `iptables` is a link to one program for all names: that one's name says which tables it speaks to (before 1.8 there were only the old ones). */
function variantOf(path: string): Variant {
  const name = basename(realpathSync(path));
  return name.includes('legacy') || name === 'xtables-multi' || name === 'iptables-restore' ? 'legacy' : 'nft';
}

/** Undefined: not installed. */
export function findPrograms(wanted: 'auto' | Variant): Programs | undefined {
  const infix = wanted === 'auto' ? '' : `-${wanted}`;
  const restore4 = findProgram(`iptables${infix}-restore`);
  if (restore4 === undefined) return undefined;
  const variant = wanted === 'auto' ? variantOf(restore4) : wanted;
  // both families by the same one, even where the links differ
  const restore6 = findProgram(`ip6tables-${variant}-restore`) ?? findProgram('ip6tables-restore');
  return { variant, restore4, ...(restore6 !== undefined && { restore6 }) };
}
