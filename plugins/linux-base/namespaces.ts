import { fail } from '@engine/core/errors';
import { op } from '@engine/core/plan';
import { idMapText, REGISTER } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Spec } from '@engine/core/spec';
import { CLONE, MOUNT_ATTR, MS, NAMESPACE_FILE, type NamespaceType } from './kernel.ts';
import { readMountOptions, readPropagation } from './mount-options.ts';
import { sharedSource } from './mounts.ts';

/** What the spec's namespaces come to. */
export interface NamespacePlan {
  /** CLONE_* that init is cloned with. */
  readonly flags: number;
  /** Namespaces of its own, however they are made. */
  readonly own: ReadonlySet<NamespaceType>;
  readonly joined: readonly { readonly type: NamespaceType; readonly path: string }[];
  /** Does a stage stand between shim and init? */
  readonly stage: boolean;
  /** In a user namespace, its own or a joined one: what only the host's root can do is done by the stage. */
  readonly user: boolean;
}

/** Read `linux.namespaces`. Errors: ERR_INVALID_VALUE (twice the same type, offsets without a namespace), ERR_NOT_SUPPORTED (a mount namespace to join). */
export function readNamespaces(spec: Spec): NamespacePlan {
  const own = new Set<NamespaceType>();
  const joined: { type: NamespaceType; path: string }[] = [];
  const seen = new Set<string>();
  for (const { type, path } of spec.linux?.namespaces ?? []) {
    if (!(type in CLONE)) throw fail('ERR_INVALID_VALUE', `linux.namespaces: unknown type ${String(type)}`);
    if (seen.has(type)) throw fail('ERR_INVALID_VALUE', `linux.namespaces: ${type} is named twice`);
    seen.add(type);
    if (!path) own.add(type);
    else if (type === 'mount') throw fail('ERR_NOT_SUPPORTED', 'linux.namespaces: an existing mount namespace cannot be joined, a container makes its own mounts', { path });
    else joined.push({ type, path });
  }
  if (!own.has('mount')) throw fail('ERR_INVALID_VALUE', 'linux.namespaces: a container needs a mount namespace of its own');
  const maps = (spec.linux?.uidMappings?.length ?? 0) + (spec.linux?.gidMappings?.length ?? 0);
  if (maps > 0 && !own.has('user')) throw fail('ERR_INVALID_VALUE', 'linux.uidMappings and linux.gidMappings need a user namespace');
  const offsets = Object.keys(spec.linux?.timeOffsets ?? {}).length > 0;
  if (offsets && !own.has('time')) throw fail('ERR_INVALID_VALUE', 'linux.timeOffsets needs a time namespace');
  const user = own.has('user') || joined.some(({ type }) => type === 'user');
  const stage = user || offsets;
  let flags = 0;
  // cgroup: unshared by the cgroup driver, after joining. time with offsets: unshared by the stage (clone3 + offsets is EACCES)
  for (const type of own) if (type !== 'cgroup' && !(type === 'time' && offsets)) flags |= CLONE[type];
  return { flags, own, joined, stage, user };
}

/** Lines of timens_offsets. Errors: ERR_INVALID_VALUE for an unknown clock or a number out of range. */
export function formatTimeOffsets(offsets: NonNullable<NonNullable<Spec['linux']>['timeOffsets']>): string {
  return Object.entries(offsets).map(([clock, { secs = 0, nanosecs = 0 }]) => {
    if (clock !== 'monotonic' && clock !== 'boottime') throw fail('ERR_INVALID_VALUE', `linux.timeOffsets: unknown clock ${clock}`);
    if (!Number.isSafeInteger(secs)) throw fail('ERR_INVALID_VALUE', `linux.timeOffsets.${clock}.secs: not an integer`);
    if (!Number.isInteger(nanosecs) || nanosecs < 0 || nanosecs > 999_999_999) throw fail('ERR_INVALID_VALUE', `linux.timeOffsets.${clock}.nanosecs: not in 0..999999999`);
    return `${clock} ${secs} ${nanosecs}\n`;
  }).join('');
}

/**
 * Propagation of everything that init's copy of the mount tree holds. Slaves must still receive what the host mounts later; nothing else
 * needs to, and with `private` no unmount on the host can be held up.
 */
export function hostPropagation(spec: Spec): number {
  const wanted = readPropagation(spec.linux?.rootfsPropagation).flags;
  const follows = (flags: number): boolean => flags === MS.slave || flags === MS.shared;
  return follows(wanted) || (spec.mounts ?? []).some((mount) => follows(readMountOptions(mount).propagation)) ? MS.slave : MS.private;
}

/** Slots `shim.namespaces`, `shim.spawn`, `shim.started`, `stage.*`, `init.namespaces`. */
export function planNamespaces(plan: PlanWriter, spec: Spec, runFolder: string): void {
  const namespaces = readNamespaces(spec);
  const list = plan.at('/linux/namespaces');
  for (const { type, path } of namespaces.joined) {
    const out = `linux-base.ns.${type}`;
    list.add('shim.namespaces', op.openNamespace({ type: NAMESPACE_FILE[type], path, out }));
    // a pid namespace is entered by being born into it; a user namespace owns what is made after it was entered, and nobody in it may enter those of the host
    const slot = type === 'pid' ? 'shim.namespaces' : type === 'user' ? 'stage.mounts' : namespaces.user ? 'stage.namespaces' : 'init.namespaces';
    list.add(slot, op.joinNamespace({ fd: out, flags: CLONE[type] }));
  }
  list.add('shim.spawn', op.spawn({ flags: BigInt(namespaces.flags), pid: REGISTER.init, pidfd: REGISTER.initPidfd }));
  list.add('shim.started', op.keepNamespaces({ pid: REGISTER.init }));
  const offsets = spec.linux?.timeOffsets;
  if (offsets && Object.keys(offsets).length > 0) {
    const time = plan.at('/linux/timeOffsets');
    time.add('stage.namespaces', op.unshare({ flags: BigInt(CLONE.time) }));
    time.add('stage.namespaces', op.timeOffsets({ offsets: formatTimeOffsets(offsets) }));
  }
  if (namespaces.user) {
    list.add('stage.namespaces', op.unshare({ flags: BigInt(CLONE.mount) }));
    list.add('stage.namespaces', op.setPropagation({ path: '/', flags: hostPropagation(spec) | MS.rec }));
  }
  const maps = [['uidMappings', 0], ['gidMappings', 1]] as const;
  for (const [name, kind] of maps) {
    const mappings = spec.linux?.[name];
    if (mappings?.length) plan.at(`/linux/${name}`).add('stage.maps', op.writeIdMap({ pid: REGISTER.init, kind, map: idMapText(mappings, name) }));
  }
  // clones of shared sources first: they stay peers of the host's mounts, which the copy of the tree must not be
  (spec.mounts ?? []).forEach((mount, index) => {
    const options = readMountOptions(mount);
    if (!options.bind || options.propagation !== MS.shared) return;
    if (namespaces.user) throw fail('ERR_NOT_SUPPORTED', `mount ${mount.destination}: a container in a user namespace cannot mount into the host's tree`, { path: mount.destination, hint: 'use propagation slave, or --userns=host' });
    sharedSource(plan.at(`/mounts/${index}`), mount, options, index);
  });
  list.add('init.namespaces', op.setPropagation({ path: '/', flags: hostPropagation(spec) | MS.rec }));
  // the empty folder that hides masked folders lies where the rootfs will cover it: open_tree clones attached mounts only, before 6.15
  const masked = plan.at('/linux/maskedPaths');
  masked.add('init.namespaces', op.mountFs({ type: 'tmpfs', source: 'empty', options: ['size=4k', 'nr_inodes=2', 'mode=0755', ...(namespaces.user ? ['uid=0', 'gid=0'] : [])], attributes: MOUNT_ATTR.rdonly | MOUNT_ATTR.nosuid | MOUNT_ATTR.nodev | MOUNT_ATTR.noexec, out: 'linux-base.empty' }));
  masked.add('init.namespaces', op.moveMount({ mount: 'linux-base.empty', target: `${runFolder}/rootfs` }));
}
