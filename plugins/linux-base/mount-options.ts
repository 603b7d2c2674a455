import { fail } from '@engine/core/errors';
import { type Mount } from '@engine/core/spec';
import { MOUNT_ATTR, MS } from './kernel.ts';

/** The options of an OCI mount, sorted by what they act on. */
export interface MountOptions {
  /** MOUNT_ATTR_* to set on this mount, and to clear. */
  readonly set: number;
  readonly clear: number;
  /** The same for this mount and all below it (`rro` …, Linux 5.12). */
  readonly recursiveSet: number;
  readonly recursiveClear: number;
  /** MS_* or 0. */
  readonly propagation: number;
  readonly propagationRecursive: boolean;
  readonly bind: boolean;
  readonly recursive: boolean;
  /** tmpfs starts with what the image has there. */
  readonly copyUp: boolean;
  /** Show a bind's files with other owners, or those of all below it too. */
  readonly idmap: false | 'own' | 'recursive';
  /** What is mounted there gets these attributes; nothing new is mounted. */
  readonly remount: boolean;
  /** For the filesystem itself. */
  readonly data: readonly string[];
}

type Attribute = readonly [set: number, clear: number];
const ATIME = MOUNT_ATTR.atimeMask;
/** Options that are attributes of a mount: what they set and what they clear. */
const attributes: Readonly<Record<string, Attribute>> = {
  ro: [MOUNT_ATTR.rdonly, 0], rw: [0, MOUNT_ATTR.rdonly],
  nosuid: [MOUNT_ATTR.nosuid, 0], suid: [0, MOUNT_ATTR.nosuid],
  nodev: [MOUNT_ATTR.nodev, 0], dev: [0, MOUNT_ATTR.nodev],
  noexec: [MOUNT_ATTR.noexec, 0], exec: [0, MOUNT_ATTR.noexec],
  noatime: [MOUNT_ATTR.noatime, ATIME], atime: [0, ATIME], relatime: [0, ATIME], norelatime: [0, ATIME],
  strictatime: [MOUNT_ATTR.strictatime, ATIME], nostrictatime: [0, ATIME],
  nodiratime: [MOUNT_ATTR.nodiratime, 0], diratime: [0, MOUNT_ATTR.nodiratime],
  nosymfollow: [MOUNT_ATTR.nosymfollow, 0], symfollow: [0, MOUNT_ATTR.nosymfollow],
};
const propagations: Readonly<Record<string, number>> = { private: MS.private, slave: MS.slave, shared: MS.shared, unbindable: MS.unbindable };
/** What mount(8) knows and means nothing here. */
const ignored = new Set(['defaults', 'auto', 'noauto', 'user', 'nouser', 'users', '_netdev', 'nofail', 'loud', 'silent', 'iversion', 'noiversion', 'acl', 'noacl', 'notmpcopyup']);
/** Of a filesystem as a whole: a bind is one more view of it, and changes none of it. */
const superblock = new Set(['sync', 'async', 'dirsync', 'lazytime', 'nolazytime', 'mand', 'nomand']);
const idmaps: Readonly<Record<string, 'own' | 'recursive'>> = { idmap: 'own', ridmap: 'recursive' };

/** All that are understood; those that only a filesystem knows are not among them. */
export const mountOptionNames = (): string[] => {
  const recursive = Object.keys(attributes).map((name) => `r${name}`);
  return [...Object.keys(attributes), ...recursive, ...Object.keys(propagations).flatMap((name) => [name, `r${name}`]), ...ignored, ...superblock, ...Object.keys(idmaps), 'bind', 'rbind', 'remount', 'tmpcopyup'].sort((a, b) => (a < b ? -1 : 1));
};

/**
 * Read the options of a mount. Of contradicting options the last one wins. Errors: ERR_INVALID_VALUE (a filesystem option on a bind mount,
 * which has none; idmap on anything else).
 */
export function readMountOptions(mount: Mount): MountOptions {
  let set = 0;
  let clear = 0;
  let recursiveSet = 0;
  let recursiveClear = 0;
  let propagation = 0;
  let propagationRecursive = false;
  let bind = mount.type === 'bind' || mount.type === 'rbind';
  let recursive = mount.type === 'rbind';
  let copyUp = false;
  let remount = false;
  // with maps of its own it is meant, whether the option is there or not (config.md, Linux mount options)
  let idmap: MountOptions['idmap'] = mount.uidMappings?.length || mount.gidMappings?.length ? 'own' : false;
  const data: string[] = [];
  for (const option of mount.options ?? []) {
    const plain = attributes[option];
    const deep = option.startsWith('r') ? attributes[option.slice(1)] : undefined;
    const own = propagations[option];
    const below = option.startsWith('r') ? propagations[option.slice(1)] : undefined;
    if (plain) {
      set = (set & ~plain[1]) | plain[0];
      clear = (clear & ~plain[0]) | plain[1];
    } else if (deep) {
      recursiveSet = (recursiveSet & ~deep[1]) | deep[0];
      recursiveClear = (recursiveClear & ~deep[0]) | deep[1];
    } else if (own !== undefined || below !== undefined) {
      propagation = own ?? below ?? 0;
      propagationRecursive = own === undefined;
    } else if (option === 'bind' || option === 'rbind') {
      bind = true;
      recursive = option === 'rbind';
    } else if (option === 'remount') remount = true;
    else if (option === 'tmpcopyup') copyUp = true;
    else if (idmaps[option]) idmap = idmaps[option];
    else if (option !== '' && !ignored.has(option)) data.push(option);
  }
  const foreign = bind || remount ? data.find((option) => !superblock.has(option)) : undefined;
  if (foreign !== undefined) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: option ${foreign} means nothing for a ${bind ? 'bind mount' : 'remount'}`, { path: mount.destination });
  if (copyUp && (bind || remount || mount.type !== 'tmpfs')) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: tmpcopyup is for tmpfs only`, { path: mount.destination });
  if (idmap && !bind) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: idmap is for bind mounts only`, { path: mount.destination });
  return { set, clear, recursiveSet, recursiveClear, propagation, propagationRecursive, bind, recursive, copyUp, idmap, remount, data: bind || remount ? [] : data };
}

/** MS_* of `rootfsPropagation` (`rshared`, `slave` …); 0 when absent. Errors: ERR_INVALID_VALUE. */
export function readPropagation(text: string | undefined): { readonly flags: number; readonly recursive: boolean } {
  if (!text) return { flags: 0, recursive: false };
  const own = propagations[text];
  if (own !== undefined) return { flags: own, recursive: false };
  const below = text.startsWith('r') ? propagations[text.slice(1)] : undefined;
  if (below === undefined) throw fail('ERR_INVALID_VALUE', `rootfsPropagation: unknown value ${text}`);
  return { flags: below, recursive: true };
}
