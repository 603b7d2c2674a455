import { type Machine, type RunContext } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Spec } from '@engine/core/spec';
import { type Rtnetlink } from '@engine/native/rtnetlink';
import { planDevices } from './devices.ts';
import { planHooks } from './hooks.ts';
import { readPropagation } from './mount-options.ts';
import { planMounts, planRoot, withSources } from './mounts.ts';
import { planNamespaces, readNamespaces } from './namespaces.ts';
import { planNetDevices } from './net-devices.ts';
import { checkLabels, planJoin, planProcess } from './process.ts';
import { planHostname } from './uts.ts';

/** The sections of the OCI spec that every Linux container has, compiled into steps. */
export interface LinuxBase {
  /** Mounts, devices, masks, the pivot. */
  planRootfs(plan: PlanWriter, spec: Spec, run?: BaseRun): void;
  /** Namespaces to make and join, and what is set inside them. */
  planNamespaces(plan: PlanWriter, spec: Spec, run: Pick<RunContext, 'runFolder' | 'bundle'>): void;
  /** The first process, up to its exec. */
  planProcess(plan: PlanWriter, spec: Spec, run: BaseRun): void;
  /** A session in a running container; `spec.process` is the session's. */
  planExec(plan: PlanWriter, spec: Spec, run: BaseRun): void;
}

type BaseRun = Pick<RunContext, 'container' | 'runFolder' | 'bundle'>;

/** `machine.capabilities` decides whether a refused rise of an rlimit is a warning. `rtnetlink` is asked for the links that a bundle takes from the host. */
export function createLinuxBase(deps: { readonly machine: Machine; readonly rtnetlink?: () => Rtnetlink }): LinuxBase {
  return {
    planRootfs(plan, spec, run = { container: '', runFolder: '' }) {
      planHooks(plan, spec, run);
      planMounts(plan, spec, run, deps.machine);
      planDevices(plan, spec, deps.machine);
      planRoot(plan, spec, readPropagation(spec.linux?.rootfsPropagation), run);
    },
    planNamespaces(plan, given, run) {
      const spec = withSources(given, run);
      planNamespaces(plan, spec, run.runFolder);
      planHostname(plan, spec, readNamespaces(spec));
      if (spec.linux?.netDevices && deps.rtnetlink) planNetDevices(plan, spec, deps.rtnetlink());
    },
    planProcess(plan, spec, run) {
      checkLabels(spec, deps.machine);
      planProcess(plan, spec, 'init', run, deps.machine);
    },
    planExec(plan, spec, run) {
      checkLabels(spec, deps.machine);
      planJoin(plan, spec);
      planProcess(plan, spec, 'exec', run, deps.machine);
    },
  };
}
