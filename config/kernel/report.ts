import { type KernelFeatureReport, type KernelReport } from '@engine/core/api';
import { type Machine } from '@engine/core/contracts/common';
import { cgroupMode } from '../machine.ts';
import { kernelFeatures, type KernelFeature } from './features.ts';
import { isSince, OLDEST } from './versions.ts';
import { unifiedOf, viewOf, type KernelView } from './view.ts';

const dotted = (version: readonly [number, number]): string => version.join('.');

export function askFor({ name, since, users, use, without, probe, when = () => true }: KernelFeature, view: KernelView): KernelFeatureReport {
  let told: boolean | undefined;
  try {
    told = probe(view);
  } catch {
    // what can't be asked is told by the version
  }
  return { name, since: dotted(since), users, use, without, there: told ?? isSince(view.machine.kernel, since), byVersion: told === undefined, used: when(view) };
}

/** What this machine's kernel can do, and what is done where it can't. Cheap enough for a command, not for every run. */
export function kernelReport(machine: Machine, view: KernelView = viewOf(machine)): KernelReport {
  return { release: machine.release, oldest: dotted(OLDEST), facts: machineFacts(view), features: kernelFeatures.map((feature) => askFor(feature, view)) };
}

type Fact = KernelReport['facts'][number];

/** How the machine is set up, as far as drivers go by it. */
export function machineFacts(view: KernelView): readonly Fact[] {
  return [
    { name: 'cgroups', text: cgroups(view) },
    { name: 'init', text: init(view) },
    { name: 'AppArmor', text: apparmor(view) },
    ...selinux(view),
    { name: 'user namespaces', text: userNamespaces(view) },
    { name: 'memfd', text: memfd(view) },
    ...surroundings(view),
  ];
}

function cgroups(view: KernelView): string {
  const { machine } = view;
  const mode = cgroupMode(machine.mounts);
  const root = unifiedOf(view);
  if (root === undefined) return machine.mounts.some(({ type }) => type === 'cgroup') ? 'v1' : 'none is mounted';
  const words = (file: string): string => (machine.read(`${root}/${file}`) ?? '').trim() || 'none';
  const enabled = words('cgroup.subtree_control');
  return `${mode === 'hybrid' ? 'v1, and v2 beside it' : 'v2'} at ${root}: controllers ${words('cgroup.controllers')}${enabled === words('cgroup.controllers') ? '' : `; for groups: ${enabled} (others are enabled at need)`}`;
}

function init({ machine, exists }: KernelView): string {
  const name = machine.read('/proc/1/comm')?.trim() ?? 'unknown';
  if (!exists('/run/systemd/system')) return `${name}: no scopes of systemd`;
  return exists('/run/dbus/system_bus_socket') || exists('/run/systemd/private') ? 'systemd' : 'systemd, but its bus is not there: no scopes';
}

const PARSERS = ['/usr/sbin/apparmor_parser', '/sbin/apparmor_parser', '/usr/bin/apparmor_parser', '/usr/local/sbin/apparmor_parser'];
function apparmor({ machine, exists }: KernelView): string {
  const parser = PARSERS.find((path) => exists(path));
  const enabled = machine.read('/sys/module/apparmor/parameters/enabled')?.trim();
  if (enabled === undefined) return 'not in this kernel';
  if (enabled !== 'Y') return 'switched off at boot (apparmor=0 or another security module)';
  if (!exists('/sys/kernel/security/apparmor')) return 'on, but securityfs is not mounted: profiles cannot be loaded';
  return parser === undefined ? 'on, but apparmor_parser is not installed: the default profile cannot be loaded (package apparmor)' : `on; profiles are loaded by ${parser}`;
}

function selinux({ machine }: KernelView): readonly Fact[] {
  const enforcing = machine.read('/sys/fs/selinux/enforce')?.trim();
  if (enforcing === undefined) return [];
  return [{ name: 'SELinux', text: `${enforcing === '1' ? 'enforcing' : 'permissive'}: containers get no label of their own` }];
}

function userNamespaces({ machine }: KernelView): string {
  if (!machine.namespaces.includes('user')) return 'not in this kernel';
  const number = (path: string): number | undefined => {
    const text = machine.read(path)?.trim();
    return text ? Number(text) : undefined;
  };
  const most = number('/proc/sys/user/max_user_namespaces');
  if (most === 0) return 'switched off (user.max_user_namespaces=0)';
  const notes = [
    ...(number('/proc/sys/kernel/unprivileged_userns_clone') === 0 ? ['root only (kernel.unprivileged_userns_clone=0)'] : []),
    ...(number('/proc/sys/kernel/apparmor_restrict_unprivileged_userns') === 1 ? ['AppArmor restricts those of other users than root'] : []),
  ];
  return ['usable', ...notes].join('; ');
}

function memfd({ machine }: KernelView): string {
  const value = machine.read('/proc/sys/vm/memfd_noexec')?.trim();
  if (value === '2') return 'may not be executed (vm.memfd_noexec=2): the shim runs from a read-only mount of its file';
  return value === undefined || value === '0' ? 'may be executed' : 'may be executed when asked for (vm.memfd_noexec=1)';
}

/** The kernel's own pid namespace has a number of its own (PROC_PID_INIT_INO). */
const FIRST_PIDS = 'pid:[4026531836]';
function surroundings({ machine, exists, link }: KernelView): readonly Fact[] {
  const facts: Fact[] = [];
  if (/microsoft/i.test(machine.release)) facts.push({ name: 'machine', text: 'WSL 2' });
  // /.dockerenv alone says no more than where a root filesystem comes from
  if ((link('/proc/self/ns/pid') ?? FIRST_PIDS) !== FIRST_PIDS) {
    const maker = exists('/run/.containerenv') ? ' of podman' : exists('/.dockerenv') ? ' of Docker' : '';
    facts.push({ name: 'machine', text: `inside a container${maker}: what that may not do fails here too` });
  }
  return facts;
}
