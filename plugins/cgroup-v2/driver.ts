import { posix } from 'node:path';
import { op, step, type Effect, type Step } from '@engine/core/plan';
import { type CgroupDriver, type GroupRef, type GroupRequest } from '@engine/core/contracts/cgroup';
import { type DriverDeps, type Machine, type Probe } from '@engine/core/contracts/common';
import { findGroups, freezeEffects, LIST_DEPTH, ownNamespaceSteps, placeOf, refusePeopled, removeEffects, type GroupPlace } from '@engine/native/cgroups';
import { bornInside, COUNTED, enableSteps, isFrozen, limitSteps, ownerSteps, undoOf, unifiedMounts, updateEffects } from '@engine/native/cgroup2/group';
import { abilitiesOf, findUnified, hierarchyObstacle, NO_HIERARCHY } from '@engine/native/cgroup2/hierarchy';
import { compileUnified, controllersOf, honouredUnified, type UnifiedAbilities } from '@engine/native/cgroup2/limits';
import { watchUnifiedKills } from '@engine/native/cgroup2/kills';
import { readUnifiedDetails } from '@engine/native/cgroup2/details';
import { readUnifiedStats } from '@engine/native/cgroup2/stats';
import { parseUnifiedExecGroup } from '@engine/native/exec-groups';

const NAME = 'cgroup-v2';

/** Probe: root and a writable unified hierarchy with controllers. `machine.mounts` is read once, when the driver is made. */
export function createCgroupV2(deps: Pick<DriverDeps, 'machine' | 'instance'>): CgroupDriver {
  const { machine, instance } = deps;
  const unified = findUnified(machine) ?? NO_HIERARCHY;
  const abilities: UnifiedAbilities = abilitiesOf(machine, unified);
  const nameOf = (run: string): string => `${instance}-${run}`;
  const folderAt = ({ parent, name }: GroupPlace): string => posix.join(unified.target, parent, name);
  const folderOf = ({ run, ...group }: GroupRef): string => folderAt(placeOf(group, nameOf(run)));

  /** Parents that are missing, and in each the controllers that the group needs. They may serve others too, so that they stay. */
  function parentSteps(parent: string, needed: ReadonlySet<string>): Step[] {
    const stays = { none: 'a parent that was named belongs to whoever named it' };
    const steps: Step[] = [];
    const enable = (folder: string): void => void steps.push(...enableSteps(machine, unified, folder, needed, COUNTED));
    let folder = unified.target;
    enable(folder);
    for (const part of parent.split('/').filter(Boolean)) {
      folder = posix.join(folder, part);
      steps.push(step('shim.cgroup', op.mkdir({ path: folder, mode: 0o755 }, { okExists: true }), stays));
      enable(folder);
    }
    return steps;
  }

  /** Folders of this instance's groups by run. Scopes are systemd's, and what is in them another driver's. */
  const groups = (): ReadonlyMap<string, string> => (findUnified(machine) ? findGroups(unified.target, { prefix: nameOf(''), depth: LIST_DEPTH, enters: (_, name) => !name.endsWith('.scope') }) : new Map());

  return {
    name: 'v2',
    ociFeatures: (enabled) => ({ linux: { cgroup: { v2: enabled, rdma: false } } }),
    features: new Set(['freeze', 'oom-events', 'devices', 'update', 'pressure', 'exec-groups']),
    get resources() {
      return honouredUnified(abilities);
    },

    probe: (on: Machine): Probe => probe(on),

    planGroup(request: GroupRequest, run) {
      const place = placeOf(request, nameOf(run.run));
      const folder = folderAt(place);
      if (request.exact) refusePeopled(machine.read, folder);
      const needed = controllersOf(compileUnified(request.resources, abilities));
      return [
        ...parentSteps(place.parent, needed),
        step('shim.cgroup', op.mkdir({ path: folder, mode: 0o755 }, { okExists: request.exact ?? false }), undoOf(folder)),
        ...limitSteps(folder, request.resources, abilities, NAME),
        ...ownerSteps(machine, folder, request.owner),
        ...bornInside(folder, NAME),
        ...ownNamespaceSteps(request.ownNamespace),
      ];
    },

    planExec: ({ execGroups, ...request }, { run }) => (execGroups ? bornInside(parseUnifiedExecGroup(execGroups, folderOf({ ...request, run })), NAME) : []),

    mounts: ({ ownNamespace }) => unifiedMounts(unified.target, ownNamespace),
    stats: (group) => readUnifiedStats(folderOf(group)),
    details: (group) => readUnifiedDetails(folderOf(group)),
    watchKills: (group, told) => watchUnifiedKills(folderOf(group), told),
    freeze: (group, frozen) => freezeEffects(folderOf(group), frozen),
    isFrozen: (group) => isFrozen(folderOf(group)),
    update: (group, changes) => updateEffects(folderOf(group), changes, abilities),
    list: () => [...groups().keys()].sort(),

    removeGroup(run, path): readonly Effect[] {
      const folder = path === undefined ? (groups().get(run) ?? folderOf({ run })) : folderOf({ run, path });
      return removeEffects([folder]);
    },
  };
}

function probe(machine: Machine): Probe {
  const no = (reason: string): Probe => ({ available: false, score: 0, reasons: [reason] });
  const unified = findUnified(machine);
  if (machine.uid !== 0) return no('not root: cgroup folders cannot be made');
  if (!unified) return no('the unified hierarchy (cgroup v2) is not mounted');
  const obstacle = hierarchyObstacle(machine, unified, ['cpu', 'memory', 'pids', 'devices']);
  if (obstacle !== undefined) return no(obstacle);
  return {
    available: true,
    score: 50,
    reasons: [
      `controllers ${unified.controllers.join(' ')}`,
      ...(unified.isRoot ? [] : [`${unified.target} is a part of the hierarchy that was given to this machine's container or session`]),
    ],
  };
}
