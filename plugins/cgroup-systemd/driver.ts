import { existsSync } from 'node:fs';
import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { effect, op, step, type Effect, type Operation, type Step } from '@engine/core/plan';
import { type CgroupDriver, type GroupRef } from '@engine/core/contracts/cgroup';
import { type DriverDeps, type Machine, type Probe } from '@engine/core/contracts/common';
import { findGroups, freezeEffects, ownNamespaceSteps, refusePeopled, removeEffects } from '@engine/native/cgroups';
import { bornInside, changedLimits, COUNTED, isFrozen, limitSteps, ownerSteps, undoOf, unifiedMounts, updateEffects } from '@engine/native/cgroup2/group';
import { abilitiesOf, enabledAt, findUnified, hierarchyObstacle, NO_HIERARCHY } from '@engine/native/cgroup2/hierarchy';
import { compileUnified, controllersOf, honouredUnified, type UnifiedAbilities, type UnifiedLimit } from '@engine/native/cgroup2/limits';
import { watchUnifiedKills } from '@engine/native/cgroup2/kills';
import { readUnifiedDetails } from '@engine/native/cgroup2/details';
import { readFile, readUnifiedStats } from '@engine/native/cgroup2/stats';
import { parseUnifiedExecGroup } from '@engine/native/exec-groups';
import { annotatedProperties } from './annotations.ts';
import { bundleSteps } from './bundle.ts';
import { ADDRESSES } from './bus.ts';
import { assignments, bundleProperties, limitProperties, scopeProperties, sharedProperties } from './properties.ts';
import { DEADLINE, HANDLER, type ScopeInput } from './scope.ts';
import { folderOfSlice, folderOfUnit, isSlice, parseGroup, parsePlace, unitOfFolder } from './slices.ts';
import { type Property } from './systemd.ts';

export interface SystemdOptions {
  /** For containers without a parent of their own; default `system.slice`. */
  readonly slice?: string;
}

const NAME = 'cgroup-systemd';
/** Where Docker and runc put containers; unlike a slice of our own it is there whether we are or not. */
const DEFAULT_SLICE = 'system.slice';
/** Controllers that systemd enables on the way to what it delegates; others it leaves alone. */
const MANAGED: readonly string[] = ['cpu', 'cpuset', 'io', 'memory', 'pids'];
/** How deep `list` looks: slices, the scope, the group in it. */
const LIST_DEPTH = 8;
/** Above cgroup-v2's: two masters of one hierarchy are one too many. */
const SCORE = 60;
/** How long `systemctl set-property` may take: ms. */
const SET_DEADLINE = 30_000;

const gone = { none: 'goes with the scope, and that with its last process' };
const stays = { none: 'a controller that is enabled limits nobody' };

/** Probe: root, systemd as pid 1, and the unified hierarchy alone. `machine.mounts` is read once, when the driver is made. */
export function createCgroupSystemd({ machine, instance }: Pick<DriverDeps, 'machine' | 'instance'>, { slice: fallback = DEFAULT_SLICE }: SystemdOptions = {}, exists: (path: string) => boolean = existsSync): CgroupDriver {
  if (!isSlice(fallback)) throw fail('ERR_CONFIG_INVALID', `options.${NAME}.slice: ${JSON.stringify(fallback)} is not the name of a slice`, { path: fallback, hint: 'e.g. machine.slice' });
  const unified = findUnified(machine) ?? NO_HIERARCHY;
  const abilities: UnifiedAbilities = abilitiesOf(machine, unified);
  const nameOf = (run: string): string => `${instance}-${run}`;

  /** Unit, slice and folder of the scope of a run. */
  function scopeOf({ run, path, exact }: GroupRef): { readonly unit: string; readonly slice: string; readonly folder: string } {
    const { slice, scope } = exact && path ? parseGroup(path, fallback) : parsePlace(path, fallback);
    // not just the group's name: whoever looks for groups by that finds the one inside
    const unit = scope ?? `container-${nameOf(run)}.scope`;
    return { unit, slice, folder: posix.join(folderOfSlice(slice), folderOfUnit(unit)) };
  }
  /** A bundle's group is its scope; those of others have one inside. */
  const plannedFolder = (group: GroupRef): string => posix.join(unified.target, scopeOf(group).folder, ...(group.exact ? [] : [nameOf(group.run)]));

  const isScope = (name: string): boolean => name.endsWith('.scope');
  /** Groups of this instance in scopes: run id to folder. */
  const groups = (): ReadonlyMap<string, string> => (findUnified(machine) ? findGroups(unified.target, { prefix: nameOf(''), depth: LIST_DEPTH, holds: isScope, enters: (folder, name) => !isScope(folder) && /\.(?:slice|scope)$/.test(name) }) : new Map());
  /** Where the group of a run is. The default slice may have been another one when it was made. */
  function folderOf(group: GroupRef): string {
    const planned = plannedFolder(group);
    return group.path !== undefined || existsSync(planned) ? planned : (groups().get(group.run) ?? planned);
  }

  const enable = (at: string, controllers: readonly string[]): Step[] => (controllers.length === 0 ? []
    : [step('shim.cgroup', op.writeFile({ path: posix.join(at, 'cgroup.subtree_control'), data: Buffer.from(controllers.map((name) => `+${name}`).join(' ')) }), stays)]);
  /** What systemd enables by itself is there; what else is needed, on the whole way to the scope. */
  function parentSteps(folder: string, needed: ReadonlySet<string>): Step[] {
    const others = [...needed].filter((name) => !MANAGED.includes(name));
    const parents = ['', ...posix.dirname(folder).split('/').filter((part) => part !== '.')].map((_, i, all) => posix.join(unified.target, ...all.slice(1, i + 1)));
    return parents.flatMap((at) => enable(at, others.filter((name) => !enabledAt(machine, at).includes(name))));
  }
  /** The shim makes room: a group with controllers for its children may have no process of its own. */
  function roomSteps(folder: string, needed: ReadonlySet<string>): Step[] {
    const scope = posix.join(unified.target, folder);
    const wanted = [...new Set([...unified.controllers, ...needed])].filter((name) => needed.has(name) || COUNTED.includes(name));
    return [
      ...parentSteps(folder, needed),
      step('shim.cgroup', op.enterGroup({ path: posix.join(scope, 'shim') }), gone),
      ...enable(scope, wanted),
    ];
  }

  return {
    name: 'systemd',
    ociFeatures: (enabled) => ({ linux: { cgroup: { systemd: enabled, systemdUser: false } } }),
    features: new Set(['freeze', 'oom-events', 'devices', 'update', 'pressure', 'exec-groups', 'slices']),
    get resources() {
      return honouredUnified(abilities);
    },

    probe: (on: Machine): Probe => probe(on, exists),

    planGroup(request, { run, container }) {
      const { resources, path, exact = false, ownNamespace } = request;
      const { unit, slice, folder } = scopeOf({ run, exact, ...(path !== undefined && { path }) });
      const limits = compileUnified(resources, abilities);
      if (exact && path) {
        const scope = posix.join(unified.target, folder);
        const properties = bundleProperties(slice, `container ${container}`, limits, annotatedProperties(request.annotations));
        refusePeopled(machine.read, scope);
        return bundleSteps(scope, { unit, folder, properties }, request, abilities, parentSteps(folder, controllersOf(limits)), ownerSteps(machine, scope, request.owner));
      }
      const input: ScopeInput = { unit, folder, properties: scopeProperties(slice, `container ${container.slice(0, 12)} of ${instance}`, limits) };
      const inside = posix.join(unified.target, folder, nameOf(run));
      return [
        step('shim.cgroup', op.barrier({ handler: HANDLER, input: Buffer.from(JSON.stringify(input)), deadline: DEADLINE })),
        ...roomSteps(folder, controllersOf(limits)),
        step('shim.cgroup', op.mkdir({ path: inside, mode: 0o755 }), undoOf(inside)),
        ...limitSteps(inside, resources, abilities, NAME),
        ...ownerSteps(machine, inside, request.owner),
        ...bornInside(inside, NAME),
        ...ownNamespaceSteps(ownNamespace),
      ];
    },

    planExec: ({ execGroups, ...request }, { run }) => (execGroups ? bornInside(parseUnifiedExecGroup(execGroups, folderOf({ ...request, run })), NAME) : []),

    mounts: ({ ownNamespace }) => unifiedMounts(unified.target, ownNamespace),
    stats: (group) => readUnifiedStats(folderOf(group)),
    details: (group) => readUnifiedDetails(folderOf(group)),
    watchKills: (group, told) => watchUnifiedKills(folderOf(group), told),
    freeze: (group, frozen) => freezeEffects(folderOf(group), frozen),
    isFrozen: (group) => isFrozen(folderOf(group)),

    update(group, changes) {
      const folder = folderOf(group);
      const effects = updateEffects(folder, changes, abilities);
      const limits = changedLimits(folder, changes, abilities);
      return [...effects, ...(group.exact ? scopeEffects(folder, limits, limitProperties) : scopeEffects(posix.dirname(folder), limits, sharedProperties))];
    },

    list: () => [...groups().keys()].sort(),

    removeGroup(run, path): readonly Effect[] {
      const folder = groups().get(run) ?? plannedFolder({ run, ...(path !== undefined && { path }) });
      return removeEffects([folder]);
    },
  };
}

/**
 * What is the scope's own is changed by whom it belongs to, so that loading units anew does not take it back. For the life of the scope only: systemd keeps it in
 * /run/systemd/transient and forgets it with the unit.
 */
function scopeEffects(folder: string, limits: readonly UnifiedLimit[], propertiesOf: (limits: readonly UnifiedLimit[]) => readonly Property[]): readonly Effect[] {
  const shared = propertiesOf(limits);
  if (shared.length === 0) return [];
  const unit = unitOfFolder(posix.basename(folder));
  const set = (properties: readonly Property[]): Operation<'execHost'> => op.execHost({ argv: [systemctl(), 'set-property', '--runtime', '--', unit, ...assignments(properties)], deadline: SET_DEADLINE });
  const before = propertiesOf(limits.flatMap(({ file, value }) => previousLimit(folder, file, value)));
  return [effect(set(shared), before.length > 0 ? set(before) : { none: 'there was nothing before' })];
}
const PROGRAMS = ['/usr/bin/systemctl', '/bin/systemctl', '/run/current-system/sw/bin/systemctl'];
const systemctl = (): string => PROGRAMS.find((path) => existsSync(path)) ?? '/usr/bin/systemctl';

/** What the scope has of it now. Of a file with a line per device: that device's. */
function previousLimit(folder: string, file: string, value: string): readonly UnifiedLimit[] {
  const text = readFile(posix.join(folder, file));
  if (text === undefined) return [];
  const device = /^\d+:\d+/.exec(value)?.[0];
  const line = device ? text.split('\n').find((one) => one.startsWith(`${device} `)) : file.endsWith('weight') ? (/^default (\d+)/m.exec(text)?.[1] ?? text.trim()) : text.trim();
  return line ? [{ file, value: line }] : [];
}

/** As sd_booted(3) asks, and: is it the one that we see? */
function probe(machine: Machine, exists: (path: string) => boolean): Probe {
  const no = (reason: string): Probe => ({ available: false, score: 0, reasons: [reason] });
  if (machine.read('/proc/1/comm')?.trim() !== 'systemd' || !exists('/run/systemd/system')) return no('systemd is not pid 1 here');
  if (machine.uid !== 0) return no('not root: systemd would make no scope for it');
  const unified = findUnified(machine);
  if (!unified) return no('the unified hierarchy (cgroup v2) is not mounted: with cgroup v1 take the driver v1');
  const obstacle = hierarchyObstacle(machine, unified, [...MANAGED, 'devices']);
  if (obstacle !== undefined) return no(obstacle);
  if (!ADDRESSES.some(({ socket }) => exists(socket))) return no(`there is neither ${ADDRESSES.map(({ socket }) => socket).join(' nor ')} to ask systemd by`);
  return { available: true, score: SCORE, reasons: ['systemd is pid 1', `controllers ${unified.controllers.join(' ')}`] };
}
