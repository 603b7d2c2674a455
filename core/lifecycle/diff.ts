import { type ContainerRecord } from '../api/index.ts';
import { type Change } from '../contracts/storage/index.ts';
import { type Core } from './core.ts';
import { driversOf, need } from './drivers.ts';
import { snapshotsOf } from './rootfs.ts';

/** Mount points that a run made in the writable layer are the engine's, not the user's: without them, and folders that hold nothing else. */
function withoutMountPoints(changes: readonly Change[], targets: readonly string[]): Change[] {
  const within = (p: string, target: string): boolean => p === target || p.startsWith(`${target}/`);
  const left = changes.filter((c) => c.kind !== 'A' || !targets.some((t) => within(c.path, t)));
  const isParent = (p: string): boolean => targets.some((t) => t.startsWith(`${p}/`));
  return left.filter((c) => c.kind === 'D' || !isParent(c.path) || left.some((other) => other.path.startsWith(`${c.path}/`) && !isParent(other.path)));
}

/** What a container changed in its root, whether it runs or not. */
export async function diffContainer(core: Core, record: ContainerRecord): Promise<readonly Change[]> {
  const { driver } = need((await driversOf(core.registry, record, ['storage'])).storage, 'storage', record);
  const changes = await Promise.all(snapshotsOf(record, driver).map(async ({ target, request }) =>
    (await driver.diff(request)).map(({ kind, path }): Change => ({ kind, path: target === '/' ? path : `${target}${path}` }))));
  const shown = withoutMountPoints(changes.flat(), (record.spec.mounts ?? []).map((m) => m.destination));
  return shown.sort((a, b) => (a.path < b.path ? -1 : 1));
}
