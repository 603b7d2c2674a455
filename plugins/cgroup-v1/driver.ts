import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { op, step, type Effect, type Operation, type Step } from '@engine/core/plan';
import { type CgroupDriver, type GroupRef, type GroupRequest, type GroupStats } from '@engine/core/contracts/cgroup';
import { type DriverDeps, type Machine, type Probe, type RunContext } from '@engine/core/contracts/common';
import { findGroups, freezeEffects, KILL_DEADLINE, LIST_DEPTH, ownNamespaceSteps, placeOf, refusePeopled, removeEffects, REMOVE_DEADLINE } from '@engine/native/cgroups';
import { watchMemoryKills } from '@engine/native/cgroup1-kills';
import { parseExecGroups } from '@engine/native/exec-groups';
import { findHierarchies, hierarchyOf, type Hierarchy } from './hierarchies.ts';
import { deviceRules, formatDeviceRule } from './devices.ts';
import { compileLimits, honoured, refuseUnhonoured } from './limits.ts';
import { readDetails } from './details.ts';
import { isFrozenState, readStats } from './stats.ts';
import { updateEffects } from './update.ts';

const O_WRONLY = 1;
const O_CLOEXEC = 0o2000000;
/** The parent of a group, '' at the top. */
const above = (group: string): string => (posix.dirname(group) === '.' ? '' : posix.dirname(group));

/**
 * Probe: root and the devices controller on a writable v1 hierarchy. `machine.mounts` is read once, when the driver is made.
 */
export function createCgroupV1(deps: Pick<DriverDeps, 'machine' | 'instance'>): CgroupDriver {
  const { machine, instance } = deps;
  const hierarchies = findHierarchies(machine);
  const v1 = hierarchies.filter(({ version, writable }) => version === 1 && writable);
  const resources = honoured(machine, hierarchies);
  // the one whose undo runs first and kills: the freezer keeps a fork bomb still meanwhile
  const killer = hierarchyOf(v1, 'freezer') ?? hierarchyOf(v1, 'pids') ?? v1[0];
  const nameOf = (run: string): string => `${instance}-${run}`;
  /** The group of a run, below a hierarchy: the path itself, or one of our own in it. */
  const groupOf = ({ run, ...group }: GroupRef): string => {
    const { parent, name } = placeOf(group, nameOf(run));
    return posix.join(parent, name);
  };
  const folderOf = (hierarchy: Hierarchy, group: string): string => posix.join(hierarchy.target, group);

  /**
   * Hierarchies that a group has a folder in, the killing one last. The unified one only when it must limit something: joining it costs
   * 6-10 ms (a grace period), a v1 `tasks` file 0.03.
   */
  function chosen(request: GroupRequest): readonly Hierarchy[] {
    const unified = request.resources.hugepageLimits?.length && hierarchyOf(hierarchies, 'hugetlb')?.version === 2 ? hierarchies.filter(({ version }) => version === 2) : [];
    return [...unified, ...v1.filter((hierarchy) => hierarchy !== killer), ...(killer ? [killer] : [])];
  }

  const kill = (path: string): Operation => op.cgroupKill({ path, deadline: KILL_DEADLINE });
  const remove = (path: string): Operation => op.cgroupRemove({ path, deadline: REMOVE_DEADLINE });

  function undoOf(hierarchy: Hierarchy, path: string): Operation[] {
    return [
      ...(hierarchy === killer ? [kill(path)] : []),
      ...(hierarchy.controllers.includes('memory') ? [op.memoryEvents({ path, version: 1 }, { okMissing: true })] : []),
      remove(path),
    ];
  }

  /** CPUs and memory nodes of the parent; those of the nearest ancestor that has any, when it is still to be made. */
  function inheritedCpuset(target: string, parent: string): { cpus: string; mems: string } {
    const read = (folder: string, name: string): string => (machine.read(posix.join(target, folder, `cpuset.${name}`)) ?? '').trim();
    const find = (name: string): string => {
      for (let folder = parent; ; folder = posix.dirname(folder)) {
        const value = read(folder, name);
        if (value || folder === '' || folder === '.') return value || '0';
      }
    };
    return { cpus: find('cpus'), mems: find('mems') };
  }

  /** Folders of a parent that the user named. They may serve others too, so that they stay. */
  function parentSteps(hierarchy: Hierarchy, parent: string): Step[] {
    const steps: Step[] = [];
    let folder = hierarchy.target;
    for (const part of parent.split('/').filter(Boolean)) {
      folder = posix.join(folder, part);
      steps.push(step('shim.cgroup', op.mkdir({ path: folder, mode: 0o755 }, { okExists: true }), { none: 'a parent that was named belongs to whoever named it' }));
      if (!hierarchy.controllers.includes('cpuset')) continue;
      const inherited = inheritedCpuset(hierarchy.target, parent);
      for (const name of ['cpus', 'mems'] as const) {
        if ((machine.read(posix.join(folder, `cpuset.${name}`)) ?? '').trim()) continue;
        steps.push(step('shim.cgroup', op.writeFile({ path: posix.join(folder, `cpuset.${name}`), data: Buffer.from(inherited[name]) }), { none: 'the folder stays' }));
      }
    }
    return steps;
  }

  function limitSteps(request: GroupRequest, group: string): Step[] {
    const cpuset = hierarchyOf(v1, 'cpuset');
    const hugetlb = hierarchyOf(hierarchies, 'hugetlb');
    const limits = compileLimits(request.resources, {
      ...(cpuset ? { cpuset: inheritedCpuset(cpuset.target, above(group)) } : {}),
      ...(hugetlb ? { hugetlb: hugetlb.version } : {}),
    });
    const gone = { none: 'goes with its group' };
    const steps = limits.map(({ controller, file, value }): Step => {
      const hierarchy = hierarchyOf(hierarchies, controller);
      if (!hierarchy) throw fail('ERR_FEATURE_MISSING', `cgroup controller ${controller} is not mounted`, { path: controller });
      return step('shim.limits', op.writeFile({ path: posix.join(folderOf(hierarchy, group), file), data: Buffer.from(value) }), gone);
    });
    return [...steps, ...deviceSteps(request, group)];
  }

  /** Rules in their order; a run of the same kind goes through one open file. */
  function deviceSteps(request: GroupRequest, group: string): Step[] {
    const hierarchy = hierarchyOf(v1, 'devices');
    if (!hierarchy) return [];
    const steps: Step[] = [];
    let open = '';
    const close = (): void => {
      if (open) steps.push(step('shim.limits', op.close({ fd: open })));
      open = '';
    };
    for (const rule of deviceRules(request.resources.devices ?? [])) {
      const name = rule.allow ? 'allow' : 'deny';
      const register = `cgroup-v1.devices.${name}`;
      if (open !== register) {
        close();
        steps.push(step('shim.limits', op.open({ path: posix.join(folderOf(hierarchy, group), `devices.${name}`), flags: O_WRONLY | O_CLOEXEC, out: register })));
        open = register;
      }
      steps.push(step('shim.limits', op.writeFd({ fd: register, data: Buffer.from(formatDeviceRule(rule)) })));
    }
    close();
    return steps;
  }

  /** Opened by the shim, written by init itself: attaching another process costs a grace period, oneself nothing. */
  function joinSteps(request: GroupRequest, group: string): Step[] {
    const slot = request.join === 'stage' ? 'stage.cgroup' : 'init.cgroup';
    // the killing hierarchy first: whoever is in any of them is in that one
    const order = [...chosen(request)].reverse();
    const name = (hierarchy: Hierarchy): string => `cgroup-v1.tasks.${hierarchies.indexOf(hierarchy)}`;
    const file = (hierarchy: Hierarchy): string => posix.join(folderOf(hierarchy, group), hierarchy.version === 1 ? 'tasks' : 'cgroup.procs');
    return [
      ...order.map((hierarchy) => step('shim.limits', op.open({ path: file(hierarchy), flags: O_WRONLY | O_CLOEXEC, out: name(hierarchy) }))),
      ...order.map((hierarchy) => step(slot, op.writeFd({ fd: name(hierarchy), data: Buffer.from('0') }))),
      ...ownNamespaceSteps(request.ownNamespace),
    ];
  }

  /** After the session has joined the container's own: it writes itself, see joinSteps. Errors: ERR_INVALID_VALUE, ERR_FEATURE_MISSING. */
  function execSteps(asked: readonly string[], group: string): Step[] {
    const places = new Map<Hierarchy, string>();
    for (const [controller, path] of parseExecGroups(asked, group)) {
      const named = hierarchyOf(v1, controller);
      if (!named && controller !== '') throw fail('ERR_FEATURE_MISSING', `cgroup controller ${controller} is not mounted`, { operation: 'exec', path: controller });
      for (const hierarchy of named ? [named] : v1) places.set(hierarchy, path);
    }
    return [...places].flatMap(([hierarchy, path]) => {
      const fd = `cgroup-v1.exec.${hierarchies.indexOf(hierarchy)}`;
      return [step('shim.limits', op.open({ path: posix.join(folderOf(hierarchy, path), 'tasks'), flags: O_WRONLY | O_CLOEXEC, out: fd })), step('exec.join', op.writeFd({ fd, data: Buffer.from('0') }))];
    });
  }

  /** Folders of this instance's groups in one hierarchy: run id to folder. */
  const groupsIn = (hierarchy: Hierarchy): ReadonlyMap<string, string> => findGroups(hierarchy.target, { prefix: nameOf(''), depth: LIST_DEPTH });

  const freezer = hierarchyOf(v1, 'freezer');
  const memory = hierarchyOf(v1, 'memory');

  return {
    name: 'v1',
    ociFeatures: (enabled) => ({ linux: { cgroup: { v1: enabled, rdma: false } } }),
    features: new Set(['update', 'exec-groups', ...(memory ? ['oom-events'] : []), ...(hierarchyOf(v1, 'devices') ? ['devices'] : []), ...(freezer ? ['freeze'] : [])]),
    resources,

    probe: (on: Machine): Probe => probe(on),

    planGroup(request: GroupRequest, run: RunContext) {
      refuseUnhonoured(request.resources, resources);
      const { path, exact = false } = request;
      const group = groupOf({ run: run.run, exact, ...(path === undefined ? {} : { path }) });
      const folders = chosen(request).flatMap((hierarchy) => {
        const folder = folderOf(hierarchy, group);
        // whoever names the group itself may have made it, but nobody else may live in it: the undo kills
        if (exact) refusePeopled(machine.read, folder);
        return [...parentSteps(hierarchy, above(group)), step('shim.cgroup', op.mkdir({ path: folder, mode: 0o755 }, { okExists: exact }), undoOf(hierarchy, folder))];
      });
      return [...folders, ...limitSteps(request, group), ...joinSteps(request, group)];
    },

    planExec: ({ execGroups, ...request }, { run }) => (execGroups ? execSteps(execGroups, groupOf({ ...request, run })) : []),

    mounts(request) {
      const flags = ['nosuid', 'noexec', 'nodev', 'relatime'];
      const top = { destination: '/sys/fs/cgroup', type: 'tmpfs', source: 'tmpfs', options: [...flags, 'ro', 'mode=755', 'size=64k'] };
      const own = (hierarchy: Hierarchy) => ({ type: hierarchy.version === 1 ? 'cgroup' : 'cgroup2', source: 'cgroup', options: ['ro', ...flags, ...(hierarchy.version === 1 ? hierarchy.controllers : [])] });
      const bound = (hierarchy: Hierarchy) => ({ type: 'bind', source: hierarchy.target, options: ['bind', 'ro', ...flags.filter((flag) => flag !== 'relatime')] });
      const shown = [...chosen(request)].sort((a, b) => (a.folder < b.folder ? -1 : 1));
      return [top, ...shown.map((hierarchy) => ({ destination: `/sys/fs/cgroup/${hierarchy.folder}`, ...(request.ownNamespace ? own(hierarchy) : bound(hierarchy)) }))];
    },

    stats: (group): GroupStats => readStats(v1, groupOf(group)),
    details: (group) => readDetails(v1, groupOf(group)),
    ...(memory ? { watchKills: (group: GroupRef, told: () => void) => watchMemoryKills(folderOf(memory, groupOf(group)), told) } : {}),
    ...(freezer ? { freeze: (group: GroupRef, frozen: boolean) => freezeEffects(posix.join(freezer.target, groupOf(group)), frozen), isFrozen: (group: GroupRef) => isFrozenState(posix.join(freezer.target, groupOf(group))) } : {}),
    update: (group, changes) => {
      refuseUnhonoured(changes, resources);
      return updateEffects(hierarchies, groupOf(group), changes);
    },

    list: () => [...new Set(v1.flatMap((hierarchy) => [...groupsIn(hierarchy).keys()]))].sort(),

    removeGroup(run, path): readonly Effect[] {
      const ordered = [...v1].sort((a, b) => Number(b === killer) - Number(a === killer));
      const all = [...ordered, ...hierarchies.filter(({ version, writable }) => version === 2 && writable)];
      const found = all.map((hierarchy) => (path === undefined ? (groupsIn(hierarchy).get(run) ?? folderOf(hierarchy, nameOf(run))) : folderOf(hierarchy, groupOf({ run, path }))));
      return removeEffects(found);
    },
  };
}

function probe(machine: Machine): Probe {
  const all = findHierarchies(machine);
  const usable = all.filter(({ version, writable }) => version === 1 && writable);
  const no = (reason: string): Probe => ({ available: false, score: 0, reasons: [reason] });
  if (machine.uid !== 0) return no('not root: cgroup folders cannot be made');
  if (usable.length === 0) return no(all.some(({ version }) => version === 2) ? 'only the unified hierarchy (v2) is mounted' : 'no cgroup v1 hierarchy is mounted writable');
  if (!hierarchyOf(usable, 'devices')) return no('the devices controller is not mounted: which devices a container uses could not be limited');
  const controllers = usable.flatMap(({ controllers }) => controllers);
  const missing = ['cpu', 'memory', 'pids', 'freezer'].filter((controller) => !controllers.includes(controller));
  const unified = all.find(({ version }) => version === 2);
  return {
    available: true,
    score: missing.length > 0 ? 40 : 50,
    reasons: [
      `controllers ${controllers.join(' ')}`,
      ...(missing.length > 0 ? [`without ${missing.join(', ')}: their limits are refused`] : []),
      ...(unified ? [`hybrid: the unified hierarchy has ${unified.controllers.join(' ') || 'no controller'}`] : []),
    ],
  };
}
