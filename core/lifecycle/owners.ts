import { effect, op, type Effect } from '../plan/index.ts';
import { idmapObstacle, idMapText, type Machine, type RunContext } from '../contracts/common/index.ts';
import { type IdShift, type StorageDriver } from '../contracts/storage/index.ts';
import { type ContainerRecord } from '../api/index.ts';
import { type Spec } from '../spec/index.ts';
import { type Core } from './core.ts';
import { type Draft, type DraftVolume } from './draft.ts';
import { snapshotsOf } from './rootfs.ts';

/** The maps of the user namespace that a spec asks for; undefined: it has the host's. */
export function shiftOf({ linux: { uidMappings = [], gidMappings = [] } = {} }: Spec): IdShift | undefined {
  return uidMappings.length > 0 && gidMappings.length > 0 ? { uidMap: idMapText(uidMappings, 'uidMappings'), gidMap: idMapText(gidMappings, 'gidMappings') } : undefined;
}

/** What gives the files of its snapshots, just made, their owners on disk. `run`: as shiftSnapshot wants it. */
export async function shiftEffects(record: ContainerRecord, driver: StorageDriver, run: RunContext): Promise<readonly Effect[]> {
  const effects: Effect[] = [];
  for (const { request } of snapshotsOf(record, driver)) {
    const { shift } = request;
    if (shift && driver.shiftSnapshot) effects.push(...(await driver.shiftSnapshot({ ...request, shift }, run)));
  }
  return effects;
}

/** Does it lie below the engine's root, which no user of the host can enter? */
const isOurs = (machine: Pick<Machine, 'root'>, path: string): boolean => path.startsWith(`${machine.root}/`);
/**
 * Why the files of a volume at `path` are not shown with the owners of a user namespace; undefined: they are. A folder of the host is as with a plain bind:
 * what root of the container may leave there in the name of the host's root (set-id programs) others can reach. `asked`: `idmap` was said.
 */
export function volumeObstacle(machine: Machine, path: string, asked: boolean | undefined): string | undefined {
  return idmapObstacle(machine, path) ?? (asked || isOurs(machine, path) ? undefined : `${path} is a folder of the host; say idmap to have them shown as the container's`);
}

/** The folder of a volume, also of one that is still to be made. */
export const mountpointOf = (v: DraftVolume): string => v.source.driver.mountpoint(v.name, undefined, v.isNew ? v.options : undefined);

export interface VolumeOwners { readonly effects: readonly Effect[]; readonly warnings: readonly string[] }
/**
 * Volumes that no mount can show with the container's owners. One that holds nothing of anybody else's is given them on disk; others, and
 * folders of the user's own, keep what they have. `filled`: those that are about to get what the image has at their target.
 */
export function volumeOwners({ parts: { machine, state } }: Core, { record, volumes }: Draft, filled: readonly DraftVolume[]): VolumeOwners {
  const shift = shiftOf(record.spec);
  const effects: Effect[] = [];
  const warnings: string[] = [];
  const seen = new Set<string>();
  for (const v of shift ? volumes : []) {
    const path = mountpointOf(v);
    const obstacle = seen.has(v.name) ? undefined : volumeObstacle(machine, path, v.request?.idmap);
    seen.add(v.name);
    if (obstacle === undefined || !shift) continue;
    const options = v.isNew ? v.options : (state.volumes.get(v.name)?.options ?? {});
    const unused = v.isNew || (filled.includes(v) && state.volumes.users(v.name).length === 0);
    if (unused && Object.keys(options).length === 0 && isOurs(machine, path)) effects.push(effect(op.shiftTree({ path, ...shift }), { none: 'only what was put there just now' }));
    else warnings.push(`the files of volume ${v.name} keep their owners, who may be nobody in the container: ${obstacle}`);
  }
  return { effects, warnings };
}
