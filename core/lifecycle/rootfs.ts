import { fail } from '../errors/index.ts';
import { op, type Effect, type Step } from '../plan/index.ts';
import { idmapObstacle, REGISTER, type Machine, type RunContext } from '../contracts/common/index.ts';
import { type SnapshotRequest, type StorageDriver } from '../contracts/storage/index.ts';
import { type ContainerRecord } from '../api/index.ts';

/** Snapshots of a container: one, or one per filesystem of this machine's own root. `/` first. */
export function snapshotsOf(record: ContainerRecord, driver: StorageDriver): readonly { readonly target: string; readonly request: SnapshotRequest }[] {
  const { id, request, rootfs } = record;
  if (rootfs.path !== undefined) return [];
  // Docker's `--rm` promises nothing after a power failure either
  const volatile = request.autoRemove && driver.features.has('volatile') ? { volatile: 'true' } : {};
  const { shift } = rootfs;
  const all = { options: { ...volatile, ...request.storageOptions }, ...(shift && { shift }) };
  if (rootfs.filesystems) {
    return rootfs.filesystems.map(({ target }, i) => ({ target, request: { key: i === 0 ? id : `${id}-${i}`, lower: { folder: target }, ...all } }));
  }
  return [{ target: '/', request: { key: id, lower: rootfs.chainID === undefined ? {} : { chainID: rootfs.chainID }, ...all } }];
}

/** Why its snapshots cannot be shown with the ids of its user namespace, and must have these on disk. Errors: ERR_FEATURE_MISSING when they cannot be given them either. */
export function idmapRefusal(machine: Machine, record: ContainerRecord, driver: StorageDriver): string | undefined {
  if (!record.spec.linux?.uidMappings?.length || record.rootfs.path !== undefined) return undefined;
  const obstacle = snapshotsOf(record, driver).map(({ request }) => (driver.idmapObstacle ? driver.idmapObstacle(request) : idmapObstacle(machine, machine.root))).find((why) => why !== undefined);
  if (obstacle !== undefined && !driver.shiftSnapshot) throw fail('ERR_FEATURE_MISSING', `no user namespaces with storage driver ${driver.name}: ${obstacle}`, { operation: 'userns', hint: 'choose another with drivers.storage' });
  return obstacle;
}

/** What makes them. */
export async function snapshotEffects(record: ContainerRecord, driver: StorageDriver): Promise<readonly Effect[]> {
  const effects: Effect[] = [];
  for (const { request } of snapshotsOf(record, driver)) effects.push(...(await driver.createSnapshot(request)));
  return effects;
}

const mountRegister = (i: number): string => (i === 0 ? 'core.root' : `core.root.${i}`);

/**
 * What the storage driver has to say about a container's root: detached mounts in the registers that {@link attachRootfs} uses. With `idmap` (a register) by
 * the stage, as the host's root, and shown with the ids of that user namespace.
 */
export async function rootfsSteps(record: ContainerRecord, driver: StorageDriver, run: RunContext, readonly: boolean, idmap?: string): Promise<readonly Step[]> {
  const steps: Step[] = [];
  for (const [i, { request }] of snapshotsOf(record, driver).entries()) {
    const out = mountRegister(i);
    const shown = idmap !== undefined && !request.shift;
    const own = await driver.planRootfs({ ...request, out, readonly, ...(shown && { idmap }) }, run);
    if (idmap === undefined) steps.push(...own);
    else {
      steps.push(...own.map((s): Step => (s.slot === 'init.rootfs' ? { ...s, slot: 'stage.mounts' } : s)));
      if (shown && !driver.features.has('idmap')) steps.push({ slot: 'stage.mounts', operation: op.idmapMount({ mount: out, userns: idmap }), undo: [] });
    }
  }
  return steps;
}

/** Attach them on folder `at` (in a mount namespace of its own), and `rootfs` is set. A bundle's or user's own folder is bound; `staged`: by the stage. */
export function attachRootfs(record: ContainerRecord, at: string, staged = false): readonly Step[] {
  const none = { undo: [] } as const;
  const slot = 'init.rootfs' as const;
  const { filesystems = [], path } = record.rootfs;
  return [
    ...(path === undefined ? [] : [{ slot: staged ? 'stage.mounts' as const : slot, operation: op.openTree({ source: path, recursive: 1, out: mountRegister(0) }), ...none }]),
    { slot, operation: op.reopenRoot({ mount: mountRegister(0), at, out: REGISTER.rootfs }), ...none },
    ...filesystems.slice(1).map(({ target }, i) => ({ slot, operation: op.moveMount({ mount: mountRegister(i + 1), root: REGISTER.rootfs, target }), ...none })),
  ];
}
