import { op } from '@engine/core/plan';
import { REGISTER, type RunContext } from '@engine/core/contracts/common';
import { type PlanWriter } from '@engine/core/hooks';
import { splitState, type Hook, type OciState, type Spec } from '@engine/core/spec';

/** Sync point at which init waits, its mounts and links there and the root not yet changed, for the hooks that run outside. */
const HOOKS = 3;
/** Programs, in a run that is a bundle's: their environment is what the spec says, and nothing of the engine's (CVE-2025-23267). */
const hookOf = ({ path, args, env, timeout }: Hook, state: ReturnType<typeof splitState>, where: { readonly cwd?: string; readonly pid?: string }) =>
  op.hook({ path, argv: args?.length ? args : [path], env: env ?? [], timeout: (timeout ?? 0) * 1000, ...state, ...where });

export type HookRun = Pick<RunContext, 'bundle' | 'container' | 'runFolder'>;

/**
 * `hooks` of the spec, those up to the program's start; the others are the core's. prestart and createRuntime in the runtime's namespaces (slot `shim.started`), then
 * createContainer in the container's, before the pivot (slot `init.mask`), and startContainer last of all before the exec (slot `init.exec`).
 */
export function planHooks(plan: PlanWriter, spec: Spec, { bundle, container, runFolder }: HookRun): void {
  const { hooks } = spec;
  if (!hooks || !bundle) return;
  const state = (status: OciState['status']) => splitState({ ociVersion: spec.ociVersion, id: container, status, bundle: bundle.path, ...(spec.annotations && { annotations: spec.annotations }) });
  const outside = (['prestart', 'createRuntime'] as const).flatMap((kind) => (hooks[kind] ?? []).map((hook, i) => [`/hooks/${kind}/${i}`, hook] as const));
  if (outside.length > 0) {
    plan.at('/hooks').add('init.mask', op.reach({ point: HOOKS }));
    plan.at('/hooks').add('shim.started', op.awaitPoint({ point: HOOKS }));
    for (const [pointer, hook] of outside) plan.at(pointer).add('shim.started', hookOf(hook, state('creating'), { cwd: bundle.path, pid: REGISTER.init }));
    plan.at('/hooks').add('shim.started', op.release({ point: HOOKS }));
  }
  (hooks.createContainer ?? []).forEach((hook, i) => plan.at(`/hooks/createContainer/${i}`).add('init.mask', hookOf(hook, state('creating'), { cwd: `${runFolder}/rootfs` })));
}

/** Before the exec, as the container's user and with its filter. */
export function planStartHooks(plan: PlanWriter, spec: Spec, { bundle, container }: HookRun): void {
  if (!bundle) return;
  const state = splitState({ ociVersion: spec.ociVersion, id: container, status: 'created', bundle: bundle.path, ...(spec.annotations && { annotations: spec.annotations }) });
  (spec.hooks?.startContainer ?? []).forEach((hook, i) => plan.at(`/hooks/startContainer/${i}`).add('init.exec', hookOf(hook, state, {})));
}
