import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { BITS, op, step, type Effect, type Operation, type Step } from '@engine/core/plan';
import { type DeviceRule, type LinuxResources } from './types.ts';
import { type Machine } from '@engine/core/contracts/common';
import { limitEffect, refuseIdleShares } from '../cgroup-fields.ts';
import { KILL_DEADLINE, REMOVE_DEADLINE } from '../cgroups.ts';
import { BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI, BPF_PROG_TYPE_CGROUP_DEVICE, deviceFilter } from './devices.ts';
import { enabledAt, type Unified } from './hierarchy.ts';
import { compileUnified, honouredUnified, refuseUnhonoured, type UnifiedAbilities, type UnifiedLimit } from './limits.ts';
import { parseFlat, readFile, type ReadFile } from './stats.ts';

const O_RDONLY_DIRECTORY = 0o200000 | 0o2000000; // O_DIRECTORY | O_CLOEXEC

/** Controllers that every group is to have: numbers for `stats`, and the truth about OOM. */
export const COUNTED: readonly string[] = ['cpu', 'memory', 'pids', 'io'];

const gone = { none: 'goes with its group' };
const write = (folder: string, file: string, value: string): Operation<'writeFile'> => op.writeFile({ path: posix.join(folder, file), data: Buffer.from(value) });

/** Steps in shim.limits that give the group `folder` its limits and its device filter; `prefix` of the registers: the plugin's name. */
export function limitSteps(folder: string, resources: LinuxResources, abilities: UnifiedAbilities, prefix: string): Step[] {
  const limits = compileUnified(resources, abilities).map(({ file, value }) => step('shim.limits', write(folder, file, value), gone));
  return [...limits, ...deviceSteps(folder, resources.devices ?? [], prefix)];
}

function deviceSteps(folder: string, rules: readonly DeviceRule[], prefix: string): Step[] {
  if (rules.length === 0) return [];
  const program = `${prefix}.devices`;
  const cgroup = `${prefix}.filtered`;
  return [
    step('shim.limits', op.bpfProgram({ type: BPF_PROG_TYPE_CGROUP_DEVICE, attachType: BPF_CGROUP_DEVICE, instructions: deviceFilter(rules), out: program })),
    step('shim.limits', op.open({ path: folder, flags: O_RDONLY_DIRECTORY, out: cgroup })),
    step('shim.limits', op.bpfAttach({ cgroup, program, type: BPF_CGROUP_DEVICE, flags: BPF_F_ALLOW_MULTI }), gone),
    step('shim.limits', op.close({ fd: program })),
    step('shim.limits', op.close({ fd: cgroup })),
  ];
}

/** The first process is born in the group `folder` (Linux 5.7): joining a group later costs a grace period of milliseconds. */
export function bornInside(folder: string, prefix: string): Step[] {
  const cgroup = `${prefix}.group`;
  return [
    step('shim.limits', op.open({ path: folder, flags: O_RDONLY_DIRECTORY, out: cgroup })),
    step('shim.limits', op.cloneInto({ cgroup })),
  ];
}

/** What undoes the making of a group: kill all in it and below, keep the OOM counters, remove it and what the container made in it. */
export function undoOf(folder: string): Operation[] {
  return [
    op.cgroupKill({ path: folder, deadline: KILL_DEADLINE }),
    op.memoryEvents({ path: folder, version: 2 }, { okMissing: true }),
    op.cgroupRemove({ path: folder, deadline: REMOVE_DEADLINE }),
  ];
}

/** What a container's user may have of its group (cgroups(7), delegation) on kernels that do not say it themselves, before 4.15. */
const DELEGATED = 'cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n';
/** Give the group `folder` to `owner`: it and what the kernel says may be given, as far as it is there. A file of a controller is there where that is enabled. */
export function ownerSteps(machine: Pick<Machine, 'read'>, folder: string, owner: number | undefined): Step[] {
  if (owner === undefined) return [];
  const files = (machine.read('/sys/kernel/cgroup/delegate') ?? DELEGATED).split('\n').filter((name) => /^[\w.]+$/.test(name));
  return ['', ...files].map((name) => step('shim.limits', op.setAttributes({ path: posix.join(folder, name), what: BITS.ATTR.owner, uid: owner, gid: 0 }, { okMissing: name !== '' }), gone));
}

/** Where the processes go that sit in the group that is to have groups with controllers below it. */
export const LEAF = 'init';
const EVACUATE_DEADLINE = 5_000;

/**
 * Steps in shim.cgroup that enable controllers for the children of `folder`, as far as they are not; [] when all are. What is `needed` must be
 * enabled, what is only `wanted` for its numbers is a warning otherwise (a threaded parent, real-time processes). A group with
 * processes may not do that, but for the kernel's root: when this process is one of them, all move into a leaf below, as in any container that
 * runs containers; another's processes stay where they are. Errors: ERR_MACHINE.
 */
export function enableSteps(machine: Machine, unified: Unified, folder: string, needed: ReadonlySet<string>, wanted: readonly string[]): Step[] {
  const there = enabledAt(machine, folder);
  // what is needed may have come after the hierarchy was looked at
  const missing = [...new Set([...unified.controllers, ...needed])].filter((controller) => (needed.has(controller) || wanted.includes(controller)) && !there.includes(controller));
  if (missing.length === 0) return [];
  const enable = missing.map((controller) => step('shim.cgroup', { ...write(folder, 'cgroup.subtree_control', `+${controller}`), ...(needed.has(controller) ? {} : { flags: { optional: true } }) }, { none: 'a controller that is enabled limits nobody' }));
  const isTop = folder === unified.target;
  if ((isTop && unified.isRoot) || !(machine.read(posix.join(folder, 'cgroup.procs')) ?? '').trim()) return enable;
  if (unified.own === undefined || posix.join(unified.target, unified.own) !== folder) {
    throw fail('ERR_MACHINE', `the cgroup ${folder} has processes of its own, so that no group with limits can be made below it`, { path: folder, hint: 'move them into a group below it (no internal processes, cgroups(7)), or take another --cgroup-parent' });
  }
  return [step('shim.cgroup', op.cgroupEvacuate({ path: folder, leaf: LEAF, deadline: EVACUATE_DEADLINE }), { none: 'the processes are as well off in the group below' }), ...enable];
}

/** The mount at /sys/fs/cgroup: the container's own part of the hierarchy, or with the host's namespace all of it, both read-only. */
export function unifiedMounts(target: string, ownNamespace: boolean): readonly { destination: string; type: string; source: string; options: readonly string[] }[] {
  const flags = ['nosuid', 'noexec', 'nodev'];
  const destination = '/sys/fs/cgroup';
  return ownNamespace
    ? [{ destination, type: 'cgroup2', source: 'cgroup', options: ['ro', ...flags, 'relatime'] }]
    : [{ destination, type: 'bind', source: target, options: ['bind', 'ro', ...flags] }];
}

export const isFrozen = (folder: string, read: ReadFile = readFile): boolean => read(posix.join(folder, 'cgroup.freeze'))?.trim() === '1';

/**
 * New limits for a group in use; the undo of each writes what is there now. Errors: as compileUnified; ERR_NOT_RUNNING without the group;
 * ERR_NOT_SUPPORTED for devices; ERR_INVALID_VALUE when memory in use, less what can be given up, is more than the new limit.
 */
export function updateEffects(folder: string, resources: LinuxResources, abilities: UnifiedAbilities, read: ReadFile = readFile): readonly Effect[] {
  refuseUnhonoured(resources, honouredUnified(abilities));
  if (read(posix.join(folder, 'cgroup.procs')) === undefined) throw fail('ERR_NOT_RUNNING', 'the container has no cgroup', { path: folder });
  if (resources.devices?.length) throw fail('ERR_NOT_SUPPORTED', 'the devices of a running container cannot be changed', { path: 'devices' });
  const number = (file: string): number => Number(read(posix.join(folder, file))?.trim());
  const limits = changedLimits(folder, resources, abilities, read);
  refuseDeadlyLimit(folder, limits.find(({ file }) => file === 'memory.max')?.value, read);
  const idle = number('cpu.idle') === 1;
  refuseIdleShares(idle, resources, 'cpu.weight');
  const steps = limits.map(({ file, value }) => {
    const before = previousValue(read(posix.join(folder, file)), file, value);
    if (before === undefined) return limitEffect({ folder, file, value }, { none: `${file} cannot be read` }, resources);
    if (file === 'cpu.weight' && idle) return limitEffect({ folder, file, value }, { none: 'it is idle again then, without a weight' }, resources);
    const weight = read(posix.join(folder, 'cpu.weight'))?.trim();
    const forgotten = file === 'cpu.idle' && !idle && weight !== undefined ? [{ file: 'cpu.weight', value: weight }] : [];
    return limitEffect({ folder, file, value }, [{ file, value: before }, ...forgotten], resources);
  });
  // cpu.max.burst may not be above the quota of the moment: the burst goes first when the quota falls
  const burst = limits.findIndex(({ file }) => file === 'cpu.max.burst');
  const quota = limits.find(({ file }) => file === 'cpu.max');
  if (burst >= 0 && quota && Number(quota.value.split(' ')[0]) < number('cpu.max.burst')) steps.unshift(...steps.splice(burst, 1));
  return steps;
}

/** What a change comes to beside what the group at `folder` has already. Errors: ERR_INVALID_VALUE. */
export function changedLimits(folder: string, resources: LinuxResources, abilities: UnifiedAbilities, read: ReadFile = readFile): readonly UnifiedLimit[] {
  const limit = Number(read(posix.join(folder, 'memory.max'))?.trim());
  return compileUnified(cpuAsThere(memoryInUnified(resources, limit), read(posix.join(folder, 'cpu.max'))), abilities);
}

/** `swap` alone is together with the memory limit that is there. */
function memoryInUnified(resources: LinuxResources, limit: number): LinuxResources {
  const { memory } = resources;
  if (!memory?.swap || memory.swap < 0 || memory.limit || !Number.isFinite(limit)) return resources;
  const { limit: _none, ...rest } = memory;
  return { ...resources, memory: { ...rest, limit } };
}

/** Quota and period are one file: the one that is not given stays as it is. */
function cpuAsThere(resources: LinuxResources, text: string | undefined): LinuxResources {
  const { cpu } = resources;
  const [quota = 'max', period = ''] = (text ?? '').trim().split(' ');
  if (!cpu || text === undefined || !(cpu.quota || cpu.period || cpu.burst)) return resources;
  const there = quota === 'max' ? undefined : Number(quota);
  return { ...resources, cpu: { ...cpu, ...(!cpu.quota && there ? { quota: there } : {}), ...(!cpu.period && Number(period) > 0 ? { period: Number(period) } : {}) } };
}

function refuseDeadlyLimit(folder: string, value: string | undefined, read: ReadFile): void {
  const limit = Number(value);
  if (!Number.isFinite(limit)) return;
  const current = Number(read(posix.join(folder, 'memory.current'))?.trim());
  const stat = parseFlat(read(posix.join(folder, 'memory.stat')));
  const of = (name: string): number => stat[name] ?? 0;
  const swapMax = Number(read(posix.join(folder, 'memory.swap.max'))?.trim());
  const swapped = Number(read(posix.join(folder, 'memory.swap.current'))?.trim()) || 0;
  const swapFree = /^[^\n]*\n\S/.test(read('/proc/swaps') ?? '') ? (Number.isNaN(swapMax) ? Infinity : Math.max(0, swapMax - swapped)) : 0;
  // file pages and reclaimable slab are given up; shmem is counted as file and is not
  const givenUp = of('active_file') + of('inactive_file') + of('slab_reclaimable') + Math.min(swapFree, of('anon') + of('shmem'));
  if (!(current - givenUp > limit)) return;
  throw fail('ERR_INVALID_VALUE', `memory.limit: ${limit} is below what the container uses now (${current} bytes, of which ${givenUp} can be given up): the kernel would kill for it`, { path: 'memory.limit', hint: 'free memory in the container first, or take a higher limit' });
}

/** What must be written to `file` so that it says again what it says now. Of a file with a line per device: that device's line. */
function previousValue(text: string | undefined, file: string, value: string): string | undefined {
  if (text === undefined) return undefined;
  const device = /^(\d+:\d+|[^\s=]+) \S*=?/.exec(value)?.[1];
  if (file === 'io.max' && device) {
    const line = text.split('\n').find((one) => one.startsWith(`${device} `)) ?? '';
    const key = /\b(rbps|wbps|riops|wiops)=/.exec(value)?.[1] ?? '';
    return `${device} ${key}=${new RegExp(`\\b${key}=(\\S+)`).exec(line)?.[1] ?? 'max'}`;
  }
  if ((file === 'io.weight' || file === 'io.bfq.weight') && !value.includes(':')) return /^default (\d+)/m.exec(text)?.[1] ?? text.trim();
  if (file === 'io.weight' || file === 'io.bfq.weight') return `${device} ${new RegExp(`^${device} (\\S+)`, 'm').exec(text)?.[1] ?? 'default'}`;
  if (file === 'rdma.max' || file === 'misc.max' || file === 'io.latency') return text.split('\n').find((line) => line.startsWith(`${device} `)) ?? (file === 'rdma.max' ? `${device} hca_handle=max hca_object=max` : file === 'io.latency' ? `${device} target=0` : `${device} max`);
  // cpuset: empty is "as the parent", written as a newline
  return text.trim() === '' ? '\n' : text.trim();
}
