import { createHash } from 'node:crypto';

/** Of the profile that containers have when nothing else is said. */
export const DEFAULT_NAME = 'engine-default';

/**
 * What the kernel knows it by. Another template (of another release, of an engine that runs under a profile itself) has a name with a digest, so that engines
 * of one machine do not replace each other's at each start. The digest is that of the first template; who changes the text leaves it as it is.
 */
const FIRST = 'e538f590';
export interface NamedProfile { readonly name: string; readonly text: string }
export function namedProfile(facts: Omit<TemplateFacts, 'name'>): NamedProfile {
  const digest = createHash('sha256').update(profileText({ ...facts, name: DEFAULT_NAME })).digest('hex').slice(0, 8);
  const name = digest === FIRST ? DEFAULT_NAME : `${DEFAULT_NAME}-${digest}`;
  return { name, text: profileText({ ...facts, name }) };
}

export interface TemplateFacts {
  readonly name: string;
  /** A profile in unconfined mode that the engine itself runs under: its signals come from there. */
  readonly engine?: string | undefined;
  /** Is the file of that ABI there, so that later parsers mediate nothing that this template does not know? */
  readonly pinned: boolean;
}

/** Folders of /sys below which nothing is written: all but /sys/fs/cgroup, in which a container with a cgroup namespace and the right may have groups of its own. */
const SYS_CLOSED = ['/sys/[^f]**', '/sys/f[^s]**', '/sys/fs/[^c]**', '/sys/fs/c[^g]**', '/sys/fs/cg[^r]**', '/sys/fs/cgr[^o]**'];
const deny = (paths: readonly string[], how: string): string => paths.map((path) => `  deny ${path} ${how},`).join('\n');

/**
 * The text of the default profile: everything, but what would reach the machine or other containers when capabilities, seccomp and read-only mounts do not
 * stand in the way. It includes nothing, so that it is the same on every machine; it parses with apparmor_parser 2.13 and later.
 * `attach_disconnected`: files of a detached or lazily unmounted tree have no path; `mediate_deleted`: a deleted file keeps its rules.
 */
export function profileText({ name, engine, pinned }: TemplateFacts): string {
  return `${pinned ? 'abi <abi/3.0>,\n' : ''}
profile "${name}" flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  unix,

  # The filter of system calls refuses it too: a way into the kernel that containers have no need for (CVE-2026-31431).
  deny network alg,

  # Policies of the machine.
  deny capability mac_admin,
  deny capability mac_override,
  deny /proc/[0-9]*/attr/** w,
  deny /proc/[0-9]*/task/[0-9]*/attr/** w,

  # What masks and read-only mounts protect can't be uncovered, nor anything be mounted beside it.
  deny mount,
  deny remount,
  deny umount,
  deny pivot_root,

  # Within the container, and from the machine; that ps and top may look at their neighbours.
  # A session may come from an engine with another template.
  signal (send,receive) peer="${DEFAULT_NAME}{,-*}",
  signal (receive) peer=unconfined,${engine === undefined ? '' : `\n  signal (receive) peer="${engine}",`}
  ptrace (trace,read,tracedby,readby) peer="${DEFAULT_NAME}{,-*}",

  # Parameters of the kernel (a container's own are set by --sysctl, before the program starts), and its other switches: all but files of processes.
  # self and thread-self are links: what is opened through them has another path.
  deny /proc/* w,
  deny /proc/[^0-9]*/** w,
  deny /{,**/}proc/sysrq-trigger rwklx,
  deny /{,**/}proc/sys/kernel/{core_pattern,modprobe,hotplug,usermodehelper/**,poweroff_cmd} w,
  deny /{,**/}proc/sys/fs/binfmt_misc/** w,

  # The machine's memory.
  deny /{,**/}proc/{kcore,kmem,mem,vmcore,kpagecgroup,kpagecount,kpageflags} rwklx,

  # Devices, modules, firmware, tracing, security of the machine.
${deny(SYS_CLOSED, 'wklx')}
  deny /{,**/}sys/firmware/** rwklx,
  deny /{,**/}sys/kernel/security/** rwklx,
  deny /{,**/}sys/devices/virtual/powercap/** rwklx,
  deny /{,**/}sys/kernel/uevent_helper w,

  # A program of the container, run by the machine (CVE-2022-0492).
  deny /sys/fs/cgroup/{,**/}release_agent wklx,
}
`;
}
