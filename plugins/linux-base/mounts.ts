import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { BITS, op } from '@engine/core/plan';
import { REGISTER } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Mount, type Spec } from '@engine/core/spec';
import { MOUNT_ATTR, MS, O } from './kernel.ts';
import { readMountOptions, type MountOptions } from './mount-options.ts';
import { hostPropagation, readNamespaces } from './namespaces.ts';

/** Mount points that must be themselves, not links of the image (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2026-41579). */
const guarded = ['/proc', '/sys', '/dev', '/sys/fs/cgroup'];
const isGuarded = (destination: string): boolean =>
  guarded.includes(destination) || destination.startsWith('/dev/') || destination.startsWith('/sys/fs/cgroup/');

/** What lxcfs and the like may put over files of /proc. */
const procFiles = new Set([
  '/proc/cpuinfo', '/proc/diskstats', '/proc/meminfo', '/proc/stat', '/proc/swaps', '/proc/uptime', '/proc/loadavg', '/proc/slabinfo', '/proc/net/dev', '/proc/sys/kernel/ns_last_pid',
]);

/** Where a mount goes, cleaned. Errors: ERR_INVALID_VALUE: relative, `/`, or something hiding /proc (CVE-2019-16884). */
export function mountTarget(mount: Mount): string {
  const { destination } = mount;
  if (!posix.isAbsolute(destination)) throw fail('ERR_INVALID_VALUE', `mount destination ${JSON.stringify(destination)} is not absolute`, { path: destination });
  const target = posix.normalize(destination).replace(/(.)\/+$/, '$1');
  if (target === '/') throw fail('ERR_INVALID_VALUE', 'a mount cannot replace the root itself', { path: destination });
  if (target === '/proc' || target.startsWith('/proc/')) {
    const bind = readMountOptions(mount).bind;
    const fine = target === '/proc' ? mount.type === 'proc' || (bind && mount.source === '/proc') : bind && procFiles.has(target);
    if (!fine) throw fail('ERR_INVALID_VALUE', `mount ${destination}: nothing may hide /proc`, { path: destination });
  }
  return target;
}

const registerOf = (index: number): string => `linux-base.mount.${index}`;
const refuseOf = (target: string): number => (isGuarded(target) ? BITS.REFUSE.symlink : 0);

/** A detached clone of a bind mount's source, with its attributes. */
function openSource(plan: PlanWriter, mount: Mount, options: MountOptions, index: number, slot: 'init.namespaces' | 'init.mounts'): void {
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
function setBindAttributes(plan: PlanWriter, options: MountOptions, index: number): void {
  const mount = registerOf(index);
  // `rw` is what a bind is anyway; clearing read-only would undo what the host's mount says
  const clear = options.clear & ~MOUNT_ATTR.rdonly;
  if (options.set || clear) plan.add('init.mounts', op.setMountAttributes({ mount, set: options.set, clear }));
  const recursiveClear = options.recursiveClear & ~MOUNT_ATTR.rdonly;
  if (options.recursiveSet || recursiveClear) plan.add('init.mounts', op.setMountAttributes({ mount, set: options.recursiveSet, clear: recursiveClear, recursive: 1 }));
}

/** Propagation can be set once the mount has a place: a detached mount is private. */
function setPropagation(plan: PlanWriter, options: MountOptions, index: number, fallback: number): void {
  const propagation = options.propagation || fallback;
  if (!propagation) return;
  const recursive = options.propagation === 0 || options.propagationRecursive ? 1 : 0;
  plan.add('init.mounts', op.setMountAttributes({ mount: registerOf(index), propagation, recursive }));
}

/** A new filesystem of the mount's type in its register. */
function makeFilesystem(plan: PlanWriter, mount: Mount, options: MountOptions, late: boolean, out: string): void {
  const type = mount.type ?? '';
  if (!/^[a-z0-9_.-]+$/i.test(type)) throw fail('ERR_INVALID_VALUE', `mount ${mount.destination}: bad filesystem type ${JSON.stringify(type)}`, { path: mount.destination });
  const data = options.data.filter((option) => type !== 'devpts' || option !== 'newinstance');
  const attributes = (late ? options.set & ~MOUNT_ATTR.rdonly : options.set) | options.recursiveSet;
  plan.add('init.mounts', op.mountFs({ type, source: mount.source ?? type, options: data, attributes, out }));
}

/** sysfs shows the network namespace it was mounted in, and a user namespace may mount it only over a net namespace that it owns. */
function needsHostSysfs(spec: Spec): boolean {
  const { own } = readNamespaces(spec);
  return own.has('user') && !own.has('network');
}

function planMount(plan: PlanWriter, spec: Spec, mount: Mount, index: number): string | undefined {
  const target = mountTarget(mount);
  const options = readMountOptions(mount);
  const root = REGISTER.rootfs;
  if (options.bind) {
    if (options.propagation !== MS.shared) openSource(plan, mount, options, index, 'init.mounts');
    setBindAttributes(plan, options, index);
    plan.add('init.mounts', op.moveMount({ mount: registerOf(index), root, target, refuse: refuseOf(target) }));
    // private is the default for binds; what is cloned from a private tree is that already
    const isPrivate = options.propagation === 0 || options.propagation === MS.private;
    if (options.propagation !== MS.shared && !(isPrivate && hostPropagation(spec) === MS.private)) setPropagation(plan, options, index, MS.private);
    return undefined;
  }
  if (mount.type === 'sysfs' && needsHostSysfs(spec)) {
    plan.add('init.mounts', op.openTree({ source: '/sys', recursive: 1, out: registerOf(index) }));
    plan.add('init.mounts', op.setMountAttributes({ mount: registerOf(index), set: MOUNT_ATTR.rdonly | MOUNT_ATTR.nosuid | MOUNT_ATTR.nodev | MOUNT_ATTR.noexec, recursive: 1 }));
    plan.add('init.mounts', op.moveMount({ mount: registerOf(index), root, target, refuse: refuseOf(target) }));
    return undefined;
  }
  const out = mount.type === 'devpts' && target === '/dev/pts' ? REGISTER.devpts : registerOf(index);
  // mount points are still to be made inside a tmpfs, so it becomes read-only last
  const late = mount.type === 'tmpfs' && (options.set & MOUNT_ATTR.rdonly) !== 0;
  makeFilesystem(plan, mount, options, late, out);
  if (options.copyUp) plan.add('init.mounts', op.copyTree({ fromRoot: root, from: target, toRoot: out, to: '.' }, { okMissing: true }));
  plan.add('init.mounts', op.moveMount({ mount: out, root, target, refuse: refuseOf(target) }));
  if (options.propagation) plan.add('init.mounts', op.setMountAttributes({ mount: out, propagation: options.propagation, recursive: options.propagationRecursive ? 1 : 0 }));
  return late ? out : undefined;
}

/**
 * All mounts of the spec, in its order, into the tree below `rootfs`; registers `proc` and `devpts` are set here. Slot `init.mounts`,
 * and the read-only last step of tmpfs in `init.mask`.
 */
export function planMounts(plan: PlanWriter, spec: Spec): void {
  plan.add('init.mounts', op.procHandle({ out: REGISTER.proc }));
  (spec.mounts ?? []).forEach((mount, index) => {
    const writer = plan.at(`/mounts/${index}`);
    const late = planMount(writer, spec, mount, index);
    if (late) writer.add('init.mask', op.setMountAttributes({ mount: late, set: MOUNT_ATTR.rdonly }));
  });
  const own = (spec.mounts ?? []).some((mount) => mount.type === 'devpts' && mountTarget(mount) === '/dev/pts');
  // a bind of another devpts (OCI bundles): the terminal is still made through what is there
  if (spec.process?.terminal && !own) plan.add('init.devices', op.open({ root: REGISTER.rootfs, path: '/dev/pts', flags: O.path | O.directory | O.cloexec, out: REGISTER.devpts }));
}

/** Masks, read-only paths, then the root itself. Slots `init.mask` and `init.pivot`. */
export function planRoot(plan: PlanWriter, spec: Spec, propagation: { readonly flags: number; readonly recursive: boolean }): void {
  const linux = spec.linux ?? {};
  (linux.readonlyPaths ?? []).forEach((path, index) => plan.at(`/linux/readonlyPaths/${index}`).add('init.mask', op.readonly({ root: REGISTER.rootfs, path })));
  (linux.maskedPaths ?? []).forEach((path, index) => plan.at(`/linux/maskedPaths/${index}`).add('init.mask', op.mask({ root: REGISTER.rootfs, path, empty: 'linux-base.empty' })));
  plan.at('/root').add('init.pivot', op.pivotRoot({ root: REGISTER.rootfs }));
  if (propagation.flags) plan.at('/linux/rootfsPropagation').add('init.pivot', op.setPropagation({ path: '/', flags: propagation.flags | (propagation.recursive ? MS.rec : 0) }));
  if (spec.root?.readonly) plan.at('/root/readonly').add('init.pivot', op.setMountAttributes({ mount: REGISTER.rootfs, set: MOUNT_ATTR.rdonly }));
}
