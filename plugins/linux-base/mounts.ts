import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { BITS, op } from '@engine/core/plan';
import { idMapText, REGISTER, type Machine, type RunContext } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type IdMapping, type Mount, type Spec } from '@engine/core/spec';
import { planGroups } from './group-mounts.ts';
import { MOUNT_ATTR, MS, O, type NamespaceType } from './kernel.ts';
import { readMountOptions, type MountOptions } from './mount-options.ts';
import { hostPropagation, readNamespaces, type NamespacePlan } from './namespaces.ts';

/** Mount points that must be themselves, not links of the image (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2026-41579). */
const guarded = ['/proc', '/sys', '/dev', '/sys/fs/cgroup'];
const isGuarded = (destination: string): boolean =>
  guarded.includes(destination) || destination.startsWith('/dev/') || destination.startsWith('/sys/fs/cgroup/');

/** What lxcfs and the like may put over files of /proc. */
const procFiles = new Set([
  '/proc/cpuinfo', '/proc/diskstats', '/proc/meminfo', '/proc/stat', '/proc/swaps', '/proc/uptime', '/proc/loadavg', '/proc/slabinfo', '/proc/net/dev', '/proc/sys/kernel/ns_last_pid',
]);

/** Where a mount goes, cleaned; a relative one is taken from the root (config.md, mounts). Errors: ERR_INVALID_VALUE: `/`, or something hiding /proc (CVE-2019-16884). */
export function mountTarget(mount: Mount): string {
  const { destination } = mount;
  const target = posix.normalize(`/${destination}`).replace(/(.)\/+$/, '$1');
  if (target === '/') throw fail('ERR_INVALID_VALUE', 'a mount cannot replace the root itself', { path: destination });
  if (target === '/proc' || target.startsWith('/proc/')) {
    const bind = readMountOptions(mount).bind;
    const fine = target === '/proc' ? mount.type === 'proc' || (bind && mount.source === '/proc') : bind && procFiles.has(target);
    if (!fine) throw fail('ERR_INVALID_VALUE', `mount ${destination}: nothing may hide /proc`, { path: destination });
  }
  return target;
}

/** Where mounts are made: by init, or, while the host's root can still do it, by the stage. */
type MakingSlot = 'init.mounts' | 'stage.mounts';
const registerOf = (index: number): string => `linux-base.mount.${index}`;
const refuseOf = (target: string): number => (isGuarded(target) ? BITS.REFUSE.symlink : 0);

/** A detached clone of a bind mount's source, with its attributes. */
function openSource(plan: PlanWriter, mount: Mount, options: MountOptions, index: number, slot: 'init.namespaces' | MakingSlot): void {
  if (!mount.source) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: a bind mount needs a source`, { path: mount.destination });
  if (!posix.isAbsolute(mount.source)) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: source ${mount.source} is not absolute`, { path: mount.source });
  const out = registerOf(index);
  plan.add(slot, op.openTree({ source: mount.source, recursive: options.recursive ? 1 : 0, out }));
}

/** For a source that stays shared with the host: cloned before init's copy of the mount tree stops being a peer. */
export function sharedSource(plan: PlanWriter, mount: Mount, options: MountOptions, index: number): void {
  openSource(plan, mount, options, index, 'init.namespaces');
}

/** Attributes and propagation of a detached bind, before anybody can see it. */
function setBindAttributes(plan: PlanWriter, options: MountOptions, index: number, slot: MakingSlot): void {
  const mount = registerOf(index);
  // `rw` is what a bind is anyway; clearing read-only would undo what the host's mount says
  const clear = options.clear & ~MOUNT_ATTR.rdonly;
  if (options.set || clear) plan.add(slot, op.setMountAttributes({ mount, set: options.set, clear }));
  const { recursiveSet, recursiveClear } = options;
  if (recursiveSet || recursiveClear) plan.add(slot, op.setMountAttributes({ mount, set: recursiveSet, clear: recursiveClear, recursive: 1 }));
}

/** Propagation can be set once the mount has a place: a detached mount is private. */
function setPropagation(plan: PlanWriter, options: MountOptions, index: number, fallback: number): void {
  const propagation = options.propagation || fallback;
  if (!propagation) return;
  const recursive = options.propagation === 0 || options.propagationRecursive ? 1 : 0;
  plan.add('init.mounts', op.setMountAttributes({ mount: registerOf(index), propagation, recursive }));
}

/** A new filesystem of the mount's type in its register. */
function makeFilesystem(plan: PlanWriter, spec: Spec, mount: Mount, options: MountOptions, late: boolean, out: string): void {
  const type = mount.type ?? '';
  if (!/^[a-z0-9_.-]+$/i.test(type)) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: bad filesystem type ${JSON.stringify(type)}`, { path: mount.destination });
  const namespaces = readNamespaces(spec);
  const slot = isHosts(type, namespaces) ? 'stage.mounts' : 'init.mounts';
  const data = [...ownedOptions(spec, mount, options.data.filter((option) => type !== 'devpts' || option !== 'newinstance')), ...labelOption(spec, type, options.data)];
  const asked = type === 'sysfs' && slot === 'stage.mounts' ? options.set | MOUNT_ATTR.rdonly | MOUNT_ATTR.nosuid | MOUNT_ATTR.nodev | MOUNT_ATTR.noexec : options.set;
  const attributes = (late ? asked & ~MOUNT_ATTR.rdonly : asked) | options.recursiveSet;
  plan.add(slot, op.mountFs({ type, source: mount.source ?? type, options: data, attributes, out }));
}

/** The namespace that a filesystem of this type shows: it can be mounted only by whom that belongs to, and shows that of its mounter. */
const shows: Readonly<Record<string, NamespaceType>> = { sysfs: 'network', mqueue: 'ipc', proc: 'pid', cgroup: 'cgroup', cgroup2: 'cgroup' };
/** In a user namespace: does this show a namespace that it does not own, so that only the stage can mount it? */
function isHosts(type: string, { user, own }: NamespacePlan): boolean {
  const shown = shows[type];
  return user && shown !== undefined && !own.has(shown);
}

/** Files of these get the SELinux context of `linux.mountLabel`. */
const labelled = new Set(['tmpfs', 'devpts', 'ramfs']);
const labelOption = ({ linux }: Spec, type: string, data: readonly string[]): string[] => (linux?.mountLabel && labelled.has(type) && !data.some((option) => option.startsWith('context=')) ? [`context=${linux.mountLabel}`] : []);

/** Is this id one of the container's? */
function isMapped(mappings: readonly IdMapping[] | undefined, id: number): boolean {
  return mappings === undefined || mappings.some(({ containerID, size }) => id >= containerID && id < containerID + size);
}

/** Options that name an owner: the terminals' group is left away when it does not exist inside. Errors: ERR_INVALID_VALUE for others. */
function ownedOptions({ linux = {} }: Spec, mount: Mount, data: readonly string[]): readonly string[] {
  return data.filter((option) => {
    const [, kind, id] = /^(uid|gid)=(\d+)$/.exec(option) ?? [];
    if (kind === undefined || isMapped(kind === 'uid' ? linux.uidMappings : linux.gidMappings, Number(id))) return true;
    if (mount.type === 'devpts') return false;
    throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: ${option} is no id of the container's user namespace`, { path: mount.destination });
  });
}

/** Show the files of a detached bind with other owners. Errors: ERR_INVALID_VALUE when nobody says with which. */
function mapOwners(plan: PlanWriter, spec: Spec, mount: Mount, options: MountOptions, index: number, slot: MakingSlot): void {
  const { uidMappings, gidMappings } = mount;
  const { own, user } = readNamespaces(spec);
  let userns: string = own.has('user') ? REGISTER.userns : 'linux-base.ns.user';
  if (!uidMappings?.length !== !gidMappings?.length) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: uidMappings and gidMappings belong together`, { path: mount.destination });
  if (uidMappings?.length && gidMappings?.length) {
    userns = `linux-base.idmap.${index}`;
    plan.add(slot, op.makeUserNamespace({ uidMap: idMapText(uidMappings, 'uidMappings'), gidMap: idMapText(gidMappings, 'gidMappings'), out: userns }));
  } else if (!user) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: idmap needs a user namespace, or maps of its own`, { path: mount.destination, hint: 'give the container one with --userns=auto' });
  plan.add(slot, op.idmapMount({ mount: registerOf(index), userns, recursive: options.idmap === 'recursive' ? 1 : 0 }));
}

/** Attributes of what is mounted there already. */
function planRemount(plan: PlanWriter, options: MountOptions, target: string, index: number): void {
  const out = registerOf(index);
  plan.add('init.mounts', op.open({ root: REGISTER.rootfs, path: target, flags: O.path | O.nofollow | O.cloexec, out }));
  const { set, clear, recursiveSet, recursiveClear, propagation, propagationRecursive } = options;
  if (set || clear) plan.add('init.mounts', op.setMountAttributes({ mount: out, set, clear }));
  if (recursiveSet || recursiveClear) plan.add('init.mounts', op.setMountAttributes({ mount: out, set: recursiveSet, clear: recursiveClear, recursive: 1 }));
  if (propagation) plan.add('init.mounts', op.setMountAttributes({ mount: out, propagation, recursive: propagationRecursive ? 1 : 0 }));
}

/** What of a run matters to its mounts. */
export type MountRun = Pick<RunContext, 'bundle'>;

function planMount(plan: PlanWriter, spec: Spec, mount: Mount, index: number, run: MountRun, machine: Pick<Machine, 'mounts'>): string | undefined {
  const target = mountTarget(mount);
  const options = readMountOptions(mount);
  const root = REGISTER.rootfs;
  if (options.remount) {
    planRemount(plan, options, target, index);
    return undefined;
  }
  // one hierarchy of v1 is named by its options
  if (mount.type === 'cgroup' && options.data.length === 0) return planGroups(plan, spec, options, { target, register: registerOf(index), refuse: refuseOf(target) }, machine);
  if (options.bind) {
    const slot = readNamespaces(spec).user ? 'stage.mounts' : 'init.mounts';
    if (options.propagation !== MS.shared) openSource(plan, mount, options, index, slot);
    setBindAttributes(plan, options, index, slot);
    if (options.idmap) mapOwners(plan, spec, mount, options, index, slot);
    plan.add('init.mounts', op.moveMount({ mount: registerOf(index), root, target, refuse: refuseOf(target) }));
    // private is the default for binds; what is cloned from a private tree is that already
    const isPrivate = options.propagation === 0 || options.propagation === MS.private;
    if (options.propagation !== MS.shared && !(isPrivate && hostPropagation(spec) === MS.private)) setPropagation(plan, options, index, MS.private);
    return undefined;
  }
  const out = mount.type === 'devpts' && target === '/dev/pts' ? REGISTER.devpts : registerOf(index);
  // mount points are still to be made inside a tmpfs, so it becomes read-only last
  const late = mount.type === 'tmpfs' && (options.set & MOUNT_ATTR.rdonly) !== 0;
  makeFilesystem(plan, spec, mount, options, late, out);
  // as every runtime does: a tmpfs without a mode takes over that of the folder which it covers
  if (run.bundle && mount.type === 'tmpfs' && !options.data.some((option) => option.startsWith('mode='))) plan.add('init.mounts', op.copyMode({ root, path: target, to: out }));
  if (options.copyUp) plan.add('init.mounts', op.copyTree({ fromRoot: root, from: target, toRoot: out, to: '.' }, { okMissing: true }));
  plan.add('init.mounts', op.moveMount({ mount: out, root, target, refuse: refuseOf(target) }));
  if (options.propagation) plan.add('init.mounts', op.setMountAttributes({ mount: out, propagation: options.propagation, recursive: options.propagationRecursive ? 1 : 0 }));
  return late ? out : undefined;
}

/**
 * All mounts of the spec, in its order, into the tree below `rootfs`; registers `proc` and `devpts` are set here. Slot `init.mounts`,
 * and the read-only last step of tmpfs in `init.mask`.
 */
export function planMounts(plan: PlanWriter, given: Spec, run: MountRun, machine: Pick<Machine, 'mounts'>): void {
  const spec = withSources(given, run);
  const namespaces = readNamespaces(spec);
  // the root is attached at a path of the host: from here on nothing of the host is looked up any more
  if (namespaces.user) plan.add('init.mounts', op.becomeRoot({}));
  plan.add(isHosts('proc', namespaces) ? 'stage.mounts' : 'init.mounts', op.procHandle({ out: REGISTER.proc }));
  (spec.mounts ?? []).forEach((mount, index) => {
    const writer = plan.at(`/mounts/${index}`);
    const late = planMount(writer, spec, mount, index, run, machine);
    if (late) writer.add('init.mask', op.setMountAttributes({ mount: late, set: MOUNT_ATTR.rdonly }));
  });
  const own = (spec.mounts ?? []).some((mount) => mount.type === 'devpts' && mountTarget(mount) === '/dev/pts');
  // a bind of another devpts (OCI bundles): the terminal is still made through what is there
  if (spec.process?.terminal && !own) plan.add('init.devices', op.open({ root: REGISTER.rootfs, path: '/dev/pts', flags: O.path | O.directory | O.cloexec, out: REGISTER.devpts }));
}

/** Relative sources of binds lie in the bundle. */
export function withSources(spec: Spec, { bundle }: MountRun): Spec {
  if (!bundle || !spec.mounts) return spec;
  return { ...spec, mounts: spec.mounts.map((mount) => (mount.source && readMountOptions(mount).bind ? { ...mount, source: posix.resolve(bundle.path, mount.source) } : mount)) };
}

/** Masks, read-only paths, then the root itself. Slots `init.mask` and `init.pivot`. */
export function planRoot(plan: PlanWriter, spec: Spec, propagation: { readonly flags: number; readonly recursive: boolean }, { bundle }: MountRun): void {
  const linux = spec.linux ?? {};
  (linux.readonlyPaths ?? []).forEach((path, index) => plan.at(`/linux/readonlyPaths/${index}`).add('init.mask', op.readonly({ root: REGISTER.rootfs, path })));
  (linux.maskedPaths ?? []).forEach((path, index) => plan.at(`/linux/maskedPaths/${index}`).add('init.mask', op.mask({ root: REGISTER.rootfs, path, empty: 'linux-base.empty' })));
  plan.at('/root').add('init.pivot', bundle?.noPivot ? op.moveRoot({ root: REGISTER.rootfs }) : op.pivotRoot({ root: REGISTER.rootfs }));
  if (propagation.flags) plan.at('/linux/rootfsPropagation').add('init.pivot', op.setPropagation({ path: '/', flags: propagation.flags | (propagation.recursive ? MS.rec : 0) }));
  if (spec.root?.readonly) plan.at('/root/readonly').add('init.pivot', op.setMountAttributes({ mount: REGISTER.rootfs, set: MOUNT_ATTR.rdonly }));
}
