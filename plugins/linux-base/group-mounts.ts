import { posix } from 'node:path';
import { op } from '@engine/core/plan';
import { REGISTER, type Machine, type MachineMount } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Spec } from '@engine/core/spec';
import { CLONE, MOUNT_ATTR, NAMESPACE_FILE } from './kernel.ts';
import { type MountOptions } from './mount-options.ts';
import { readNamespaces } from './namespaces.ts';

const HOST = 'linux-base.cgroupns';
/** What a v1 hierarchy says of itself that does not choose it. */
const settings = /^(rw|ro|xattr|clone_children|cpuset_v2_mode|noprefix|favordynmods|release_agent=.*)$/;
const always = MOUNT_ATTR.nosuid | MOUNT_ATTR.nodev | MOUNT_ATTR.noexec;

/** The v1 hierarchies of the machine, by the name of their folder; of one that is mounted twice the first. */
export function hierarchiesOf({ mounts }: Pick<Machine, 'mounts'>): readonly { readonly name: string; readonly options: readonly string[] }[] {
  const found = new Map<string, MachineMount>();
  for (const mount of mounts) if (mount.type === 'cgroup' && posix.dirname(mount.target) === '/sys/fs/cgroup' && !found.has(mount.target)) found.set(mount.target, mount);
  return [...found.values()].map(({ target, superOptions }) => ({ name: posix.basename(target), options: superOptions.filter((option) => !settings.test(option)) }));
}

/**
 * A mount of type `cgroup`. With v2 alone it is that filesystem; with v1 a tmpfs with a folder for each hierarchy of the host, in which the container sees its own group
 * as the root, whatever cgroup namespace it has. Resolves to the mount that is to become read-only in the end.
 */
export function planGroups(plan: PlanWriter, spec: Spec, options: MountOptions, to: { readonly target: string; readonly register: string; readonly refuse: number }, machine: Pick<Machine, 'mounts'>): string | undefined {
  const root = REGISTER.rootfs;
  const { target, register, refuse } = to;
  const { own, user } = readNamespaces(spec);
  const slot = user && !own.has('cgroup') ? 'stage.mounts' : 'init.mounts';
  const attributes = options.set | options.recursiveSet | always;
  const setPropagation = (): void => {
    if (options.propagation) plan.add('init.mounts', op.setMountAttributes({ mount: register, propagation: options.propagation, recursive: options.propagationRecursive ? 1 : 0 }));
  };
  const hierarchies = hierarchiesOf(machine);
  if (hierarchies.length === 0) {
    plan.add(slot, op.mountFs({ type: 'cgroup2', source: 'cgroup', attributes: attributes, out: register }));
    plan.add('init.mounts', op.moveMount({ mount: register, root, target, refuse }));
    setPropagation();
    return undefined;
  }
  plan.add('init.mounts', op.mountFs({ type: 'tmpfs', source: 'tmpfs', options: ['mode=755'], attributes: attributes & ~MOUNT_ATTR.rdonly, out: register }));
  // a hierarchy is shown from the group of the cgroup namespace that it is mounted in: one that lives for these mounts alone
  if (!own.has('cgroup')) {
    plan.add(slot, op.openNamespace({ type: NAMESPACE_FILE.cgroup, path: '/proc/self/ns/cgroup', out: HOST }));
    plan.add(slot, op.unshare({ flags: BigInt(CLONE.cgroup) }));
  }
  const each = hierarchies.map(({ name, options: chosen }, i) => ({ name, chosen, out: `${register}.${i}` }));
  for (const { chosen, out } of each) plan.add(slot, op.mountFs({ type: 'cgroup', source: 'cgroup', options: chosen, attributes, out }));
  if (!own.has('cgroup')) plan.add(slot, op.joinNamespace({ fd: HOST, flags: CLONE.cgroup }));
  plan.add('init.mounts', op.moveMount({ mount: register, root, target, refuse }));
  for (const { name, out } of each) plan.add('init.mounts', op.moveMount({ mount: out, root, target: `${target}/${name}`, refuse }));
  for (const { name } of each) {
    for (const part of name.includes(',') ? name.split(',') : []) plan.add('init.mounts', op.symlink({ root, path: `${target}/${part}`, target: name }, { okExists: true }));
  }
  setPropagation();
  return options.set & MOUNT_ATTR.rdonly ? register : undefined;
}
