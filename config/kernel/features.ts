import { filesystemOf } from '../machine.ts';
import { byCall, byController, byFile, byFilesystem, byGroupFile, byNamespace, byVersion, isUnified, type KernelView, type Probe } from './view.ts';

/** One thing that a kernel may lack, or have later than others. docs/kernels.md is made from this table. */
export interface KernelFeature {
  readonly name: string;
  /** First release of mainline that has it. Distributions have some of it earlier. */
  readonly since: readonly [number, number];
  /** Plugins and parts of the engine (`shim`, `launcher`, `core`) that use it. */
  readonly users: readonly string[];
  readonly use: string;
  /** What is done instead, or what is refused. */
  readonly without: string;
  /** Undefined as an answer: the version tells. */
  readonly probe: Probe;
  /** How the probe asks, for the docs. */
  readonly asked: 'call' | 'file' | 'version';
  /** Does anything use it on such a machine? Default: yes. */
  readonly when?: (view: KernelView) => boolean;
  /** Where the other way was taken in a test. `old`: with the feature made to fail (test/e2e/old-kernel.test.ts). */
  readonly tested: 'always there' | 'old' | '6.1' | 'unit' | 'v1' | 'machine' | 'reasoned';
}

const call = (probe: Parameters<typeof byCall>[0]) => ({ probe: byCall(probe), asked: 'call' }) as const;
const file = (probe: Probe) => ({ probe, asked: 'file' }) as const;
const version = { probe: byVersion, asked: 'version' } as const;
const v2 = { users: ['cgroup-v2', 'cgroup-systemd'], when: isUnified } as const;
const apparmor = ({ exists }: KernelView): boolean => exists('/sys/kernel/security/apparmor');
const rootOn = (type: string) => ({ machine }: KernelView): boolean => filesystemOf(machine.root, machine.mounts) === type;
const REFUSED = 'containers are refused';

/** In the order of the docs: what every run needs, then what has another way, by area. */
export const kernelFeatures: readonly KernelFeature[] = [
  // processes
  { name: 'pidfd_open, pidfd_send_signal', since: [5, 3], users: ['shim'], use: 'processes are meant by a descriptor, never by a number that may be given anew', without: REFUSED, ...call('pidfdOpen'), tested: 'always there' },
  { name: 'clone3', since: [5, 3], users: ['shim'], use: 'the first process with all its namespaces and a pidfd', without: REFUSED, ...call('clone3'), tested: 'always there' },
  { name: 'pidfd_getfd', since: [5, 6], users: ['launcher'], use: 'the sockets of the name server are held while the keeper is started again', without: 'who asks just then is refused', ...call('pidfdGetfd'), tested: 'reasoned' },
  { name: 'close_range(CLOEXEC)', since: [5, 11], users: ['shim'], use: 'nothing of the host is open in a container', without: REFUSED, ...call('closeRangeCloexec'), tested: 'always there' },
  { name: 'faccessat2', since: [5, 8], users: ['shim'], use: 'a program that may not be executed is told before exec', without: 'the mode of the file decides', ...call('faccessat2'), tested: 'reasoned' },
  { name: 'memfd_create(MFD_EXEC)', since: [6, 3], users: ['shim'], use: 'the shim runs from a sealed memfd also under vm.memfd_noexec=1', without: 'a memfd without the flag: before, all are executable', ...call('memfdExec'), tested: 'old' },
  { name: 'RWF_NOWAIT on pipes', since: [6, 5], users: ['launcher'], use: 'the caller\'s pipes never make it wait', without: 'poll, then a page at a time', ...call('pipeNowait'), tested: 'old' },
  // files and mounts
  { name: 'openat2(RESOLVE_IN_ROOT)', since: [5, 6], users: ['shim'], use: 'paths inside a container\'s root cannot lead out', without: REFUSED, ...call('openat2'), tested: 'always there' },
  { name: 'mounts by fd: open_tree, move_mount, fsopen', since: [5, 2], users: ['shim', 'linux-base', 'storage-overlay', 'storage-btrfs'], use: 'mounts are made detached and attached by descriptor', without: REFUSED, ...call('mountApi'), tested: 'always there' },
  { name: 'mount_setattr', since: [5, 12], users: ['shim', 'linux-base'], use: 'read-only with all below (`ro`), propagation, attributes of a bind', without: REFUSED, ...call('mountSetattr'), tested: 'always there' },
  { name: 'fchmodat2', since: [6, 6], users: ['shim'], use: 'the mode of a file that is no link', without: 'by the magic link of an O_PATH descriptor', ...call('fchmodat2'), tested: 'old' },
  { name: 'copy_file_range across filesystems', since: [5, 3], users: ['shim'], use: 'files are copied without passing the process', without: 'splice, or read and write', ...version, tested: 'always there' },
  { name: 'overlay: layers one by one (lowerdir+)', since: [6, 8], users: ['storage-overlay'], use: 'up to 500 layers, any path', without: 'mount(2) with short links in a private mount namespace: layers whose links fill a page; a lower folder with comma or colon is refused', ...call('overlayLayers'), tested: 'old' },
  { name: 'overlay: folders by fd', since: [6, 13], users: ['storage-overlay'], use: 'paths of any length', without: 'by path: a root folder whose layers have paths above 255 bytes is refused', ...call('overlayFolders'), tested: 'old' },
  { name: 'overlay', since: [3, 18], users: ['storage-overlay'], use: 'layers that containers share', without: 'storage-btrfs on btrfs, else storage-vfs copies', ...file(byFilesystem('overlay')), tested: 'unit' },
  { name: 'overlay: volatile', since: [5, 10], users: ['storage-overlay'], use: '`--rm` syncs nothing', without: REFUSED, ...version, tested: 'always there' },
  { name: 'idmapped mounts of ext4, xfs, fat', since: [5, 12], users: ['shim', 'linux-base', 'storage-overlay', 'storage-vfs', 'volume-local'], use: 'user namespaces without changing owners on disk', without: 'a container\'s files get its owners on disk, with a warning', ...version, tested: 'always there' },
  { name: 'idmapped mounts of btrfs', since: [5, 15], users: ['storage-btrfs', 'volume-local'], when: rootOn('btrfs'), use: 'the same on btrfs', without: 'a container\'s files get its owners on disk, as new volumes do; what is in others belongs to nobody inside; with a warning', ...version, tested: 'old' },
  { name: 'overlay on idmapped layers', since: [5, 19], users: ['storage-overlay'], use: 'the layers of an image are shared by containers with other ids', without: 'a container\'s files get its owners on disk, copied up where files cannot share blocks, with a warning', ...version, tested: 'old' },
  { name: 'btrfs: qgroups go with their subvolume', since: [6, 10], users: ['storage-btrfs'], when: rootOn('btrfs'), use: 'nothing is left of a container that had a size', without: 'its empty qgroup stays', ...version, tested: '6.1' },
  { name: 'idmapped mounts of tmpfs', since: [6, 3], users: ['volume-local'], when: rootOn('tmpfs'), use: 'roots on a tmpfs', without: 'a container\'s files get its owners on disk, as new volumes do; what is in others belongs to nobody inside; with a warning', ...version, tested: '6.1' },
  // terminals
  { name: 'TIOCGPTPEER', since: [4, 13], users: ['shim'], use: 'the terminal\'s other end without a path in the container', without: REFUSED, ...version, tested: 'always there' },
  // namespaces
  { name: 'user namespaces', since: [3, 8], users: ['core', 'linux-base'], use: '`--userns`', without: '`--userns` is refused', ...file(byNamespace('user')), tested: 'reasoned' },
  { name: 'cgroup namespaces', since: [4, 6], users: ['cgroup-v1', 'cgroup-v2', 'cgroup-systemd'], use: 'a container sees its own group as the top', without: '`--cgroupns private`, which is the default, is refused', ...file(byNamespace('cgroup')), tested: 'reasoned' },
  { name: 'time namespaces', since: [5, 6], users: ['linux-base'], use: 'clocks of a container with offsets (OCI timeOffsets)', without: 'a spec that asks for one is refused', ...file(byNamespace('time')), tested: 'reasoned' },
  // cgroups
  { name: 'cgroup v2', since: [4, 5], users: ['cgroup-v2', 'cgroup-systemd'], when: (view) => isUnified(view) || !view.machine.mounts.some(({ type }) => type === 'cgroup'), use: 'one hierarchy of limits', without: 'cgroup-v1', ...file(({ machine }) => machine.mounts.some(({ type }) => type === 'cgroup2')), tested: 'v1' },
  { name: 'CLONE_INTO_CGROUP', since: [5, 7], users: ['cgroup-v2'], when: isUnified, use: 'the first process is born in its group: joining one takes milliseconds', without: REFUSED, ...version, tested: 'always there' },
  { name: 'cgroup.freeze', since: [5, 2], ...v2, use: '`pause`', without: 'v1: freezer.state; else `pause` is refused', ...file(byGroupFile('cgroup.freeze')), tested: 'v1' },
  { name: 'cgroup.kill', since: [5, 14], users: ['shim'], use: 'all of a container ends at once, whatever it forks', without: 'v1: frozen, then signalled in rounds until none is left', ...file(byGroupFile('cgroup.kill')), tested: 'v1' },
  { name: 'BPF device filter', since: [4, 15], ...v2, use: 'which devices a container may open', without: 'containers on cgroup v2 are refused', ...call('bpf'), tested: 'always there' },
  { name: 'pressure (PSI)', since: [4, 20], ...v2, use: 'pressure in `stats`', without: 'left out (also with psi=0, the default of RHEL 9)', ...file(byFile('/proc/pressure/memory')), tested: 'unit' },
  { name: 'controller cpuset (v2)', since: [5, 0], ...v2, use: '`--cpuset-cpus`, `--cpuset-mems`', without: 'these flags are refused', ...file(byController('cpuset')), tested: 'machine' },
  { name: 'cpu.max.burst', since: [5, 14], ...v2, use: 'OCI cpu.burst', without: 'refused by its name', ...file(byGroupFile('cpu.max.burst', 'cpu.max')), tested: 'unit' },
  { name: 'cpu.idle', since: [5, 15], ...v2, use: 'OCI cpu.idle', without: 'refused by its name', ...file(byGroupFile('cpu.idle', 'cpu.weight')), tested: 'unit' },
  { name: 'memory.oom.group', since: [4, 19], ...v2, use: 'set as `unified` asks', without: 'refused by its name', ...file(byGroupFile('memory.oom.group', 'memory.max')), tested: 'unit' },
  { name: 'memory.swap.max', since: [4, 5], ...v2, use: '`--memory-swap`', without: 'refused (swapaccount=0 before 5.18, or no swap in the kernel)', ...file(byGroupFile('memory.swap.max', 'memory.max')), tested: 'unit' },
  { name: 'memory.peak', since: [5, 19], ...v2, users: ['cgroup-v2', 'cgroup-systemd', 'shim'], use: 'the highest use, in `stats` and in the words about an OOM', without: 'left out', ...file(byGroupFile('memory.peak', 'memory.max')), tested: 'unit' },
  { name: 'io.latency', since: [4, 19], ...v2, use: 'set as `unified` asks', without: 'refused by its name (a kernel may be built without)', ...file(byGroupFile('io.latency', 'io.max')), tested: 'machine' },
  { name: 'io.weight or io.bfq.weight', since: [5, 4], ...v2, use: '`--blkio-weight`', without: 'refused', ...file((view) => byGroupFile('io.weight', 'io.max')(view) || byGroupFile('io.bfq.weight', 'io.max')(view)), tested: 'machine' },
  { name: 'controller hugetlb (v2)', since: [5, 6], ...v2, use: 'OCI hugepageLimits', without: 'refused', ...file(byController('hugetlb')), tested: 'machine' },
  { name: 'controller rdma', since: [4, 11], ...v2, use: 'OCI rdma', without: 'refused', ...file(byController('rdma')), tested: 'machine' },
  { name: 'controller misc', since: [5, 13], ...v2, use: 'misc.max as `unified` asks', without: 'refused', ...file(byController('misc')), tested: 'machine' },
  // security
  { name: 'seccomp filters', since: [3, 17], users: ['security-seccomp'], use: 'system calls that a container may not make', without: 'containers are refused unless `--security-opt seccomp=unconfined`', ...file(byFile('/proc/sys/kernel/seccomp/actions_avail')), tested: 'unit' },
  { name: 'AppArmor', since: [2, 6], users: ['security-apparmor'], use: 'the default profile, `--security-opt apparmor=`', without: 'none is in force; one that is asked for by name is refused', ...file(byFile('/sys/kernel/security/apparmor/profiles')), tested: 'machine' },
  { name: 'attr/apparmor/exec', since: [5, 8], users: ['security-apparmor', 'shim'], when: apparmor, use: 'the transition with several security modules', without: 'attr/exec, which belongs to the first module', ...file(byFile('/proc/self/attr/apparmor/exec')), tested: 'reasoned' },
  { name: 'AppArmor: mounts attached by fd', since: [6, 8], users: ['security-apparmor'], when: apparmor, use: 'the profile forbids move_mount as it does mount', without: 'the default seccomp profile refuses the call without CAP_SYS_ADMIN', ...file(byFile('/sys/kernel/security/apparmor/features/mount/move_mount')), tested: '6.1' },
  // networks
  { name: 'nftables: NAT in tables inet', since: [5, 2], users: ['firewall-nftables'], use: 'published ports and masquerading', without: 'firewall-iptables', ...version, tested: 'always there' },
  { name: 'nftables: interface of a packet that leaves, in NAT', since: [5, 7], users: ['firewall-nftables'], use: 'masquerading by network', without: 'firewall-iptables', ...version, tested: 'unit' },
  { name: 'nftables: tables with an owner', since: [5, 12], users: ['firewall-nftables'], use: '`nft flush ruleset` spares a table of ours, so that it is seen at once what is missing', without: 'rules are put back when they are seen to be gone', ...version, tested: 'always there' },
  { name: 'nftables: destroy', since: [6, 3], users: ['firewall-nftables'], use: 'undo in one message', without: 'a message per element, each of which may find nothing', ...version, tested: 'old' },
];
