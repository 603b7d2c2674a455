import { type Machine, type RunContext } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { type Spec } from '@engine/core/spec';
import { planDevices } from './devices.ts';
import { readPropagation } from './mount-options.ts';
import { planMounts, planRoot } from './mounts.ts';
import { planNamespaces, readNamespaces } from './namespaces.ts';
import { planJoin, planProcess } from './process.ts';
import { planHostname } from './uts.ts';

/** The sections of the OCI spec that every Linux container has, compiled into steps. */
export interface LinuxBase {
  /** Mounts, devices, masks, the pivot. */
  planRootfs(plan: PlanWriter, spec: Spec): void;
  /** Namespaces to make and join, and what is set inside them. */
  planNamespaces(plan: PlanWriter, spec: Spec, run: Pick<RunContext, 'runFolder'>): void;
  /** The first process, up to its exec. */
  planProcess(plan: PlanWriter, spec: Spec, run: Pick<RunContext, 'container'>): void;
  /** A session in a running container; `spec.process` is the session's. */
  planExec(plan: PlanWriter, spec: Spec, run: Pick<RunContext, 'container'>): void;
}

/** `machine.capabilities` decides whether a refused rise of an rlimit is a warning. */
export function createLinuxBase(deps: { readonly machine: Machine }): LinuxBase {
  return {
    planRootfs(plan, spec) {
      planMounts(plan, spec);
      planDevices(plan, spec, deps.machine);
      planRoot(plan, spec, readPropagation(spec.linux?.rootfsPropagation));
    },
    planNamespaces(plan, spec, run) {
      planNamespaces(plan, spec, run.runFolder);
      planHostname(plan, spec, readNamespaces(spec));
    },
    planProcess: (plan, spec, run) => planProcess(plan, spec, 'init', run.container, deps.machine),
    planExec(plan, spec, run) {
      planJoin(plan, spec);
      planProcess(plan, spec, 'exec', run.container, deps.machine);
    },
  };
}
