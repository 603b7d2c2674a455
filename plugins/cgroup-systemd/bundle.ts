import { op, step, type Step } from '@engine/core/plan';
import { limitSteps, undoOf } from '@engine/native/cgroup2/group';
import { type UnifiedAbilities } from '@engine/native/cgroup2/limits';
import { ownNamespaceSteps } from '@engine/native/cgroups';
import { type GroupRequest } from '@engine/core/contracts/cgroup';
import { DEADLINE, HANDLER, type ScopeInput } from './scope.ts';

/** Sync point at which init waits to be put into its scope. */
const PLACED = 0x5c0;
const NAME = 'cgroup-systemd';
const O_RDONLY_DIRECTORY = 0o200000 | 0o2000000; // O_DIRECTORY | O_CLOEXEC

/**
 * A bundle's scope is the container's group itself, as its callers know it from runc, and lasts as long as the container: its shim, which leaves before the program starts, is
 * never in it. So init is moved there by systemd, while it waits before its first step, and limits are written before it goes on. `folder`: of the scope; `enable`: steps that let the slice give more controllers; `owned`: that give it to the container's user.
 */
export function bundleSteps(folder: string, input: ScopeInput, { resources, ownNamespace }: GroupRequest, abilities: UnifiedAbilities, enable: readonly Step[], owned: readonly Step[]): Step[] {
  const scope = `${NAME}.scope`;
  return [
    step('init.cgroup', op.reach({ point: PLACED })),
    step('shim.attach', op.awaitPoint({ point: PLACED })),
    step('shim.attach', op.barrier({ handler: HANDLER, input: Buffer.from(JSON.stringify(input)), deadline: DEADLINE })),
    step('shim.attach', op.open({ path: folder, flags: O_RDONLY_DIRECTORY, out: scope }), undoOf(folder)),
    step('shim.attach', op.close({ fd: scope })),
    ...enable.map((one) => ({ ...one, slot: 'shim.attach' as const })),
    ...[...limitSteps(folder, resources, abilities, NAME), ...owned].map((one) => ({ ...one, slot: 'shim.attach' as const })),
    step('shim.attach', op.release({ point: PLACED })),
    ...ownNamespaceSteps(ownNamespace),
  ];
}
