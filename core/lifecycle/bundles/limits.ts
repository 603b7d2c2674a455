import { type BundleRef, type BundleStats } from '../../api/index.ts';
import { fail } from '../../errors/index.ts';
import { type LinuxResources, type Spec } from '../../spec/index.ts';
import { type Core } from '../core.ts';
import { interfacesOf } from '../stats.ts';
import { recordFrom } from './compile.ts';
import { bundleDevices } from './devices.ts';
import { groupOf, isFrozen, membersOf, setFrozen } from './groups.ts';
import { initOf, notRunning, requireInit } from './status.ts';
import { find, readSpec, withLock, writeSpec } from './store.ts';

export async function pauseBundle(core: Core, { root, id }: BundleRef, pause: boolean): Promise<void> {
  const verb = pause ? 'pause' : 'resume';
  await core.request(`bundle ${verb}`, { root, id });
  await withLock(core, { root, id }, async (found) => {
    requireInit(core, found, verb);
    const frozen = await isFrozen(core, found);
    if (pause && frozen) throw fail('ERR_PAUSED', `cannot pause container ${id}: it is paused already`, { operation: verb, path: id, hint: '' });
    if (!pause && !frozen) throw fail('ERR_NOT_PAUSED', `cannot resume container ${id}: it is not paused`, { operation: verb, path: id });
    await core.parts.hooks.call(verb, { container: recordFrom(found, readSpec(found)) });
    await setFrozen(core, found, pause);
  });
}

const merged = (old: LinuxResources = {}, asked: LinuxResources): LinuxResources => {
  const both = [old, asked] as unknown as readonly Readonly<Record<string, unknown>>[];
  const isFields = (value: unknown): value is object => typeof value === 'object' && value !== null && !Array.isArray(value);
  const entries = Object.entries(both[1] ?? {}).map(([key, value]) => [key, isFields(value) && isFields(both[0]?.[key]) ? { ...(both[0][key] as object), ...value } : value]);
  return { ...old, ...(Object.fromEntries(entries) as LinuxResources) };
};

export async function updateBundle(core: Core, { root, id }: BundleRef, resources: LinuxResources): Promise<void> {
  await core.request('bundle update', { root, id, resources });
  await withLock(core, { root, id }, async (found) => {
    requireInit(core, found, 'update');
    const { cgroup: { driver, choice }, ref } = await groupOf(core, found);
    const old = readSpec(found);
    const { devices, ...limits } = resources;
    // containerd's CRI hands back all that the bundle had, devices too: those that stay as they are are no change
    const asked = devices && JSON.stringify(devices) !== JSON.stringify(old.linux?.resources?.devices) ? { ...limits, devices: bundleDevices(devices) } : limits;
    const spec: Spec = { ...old, linux: { ...old.linux, resources: merged(old.linux?.resources, resources) } };
    await core.parts.hooks.call('update', { container: recordFrom(found, spec) });
    if (!driver.update) throw fail('ERR_FEATURE_MISSING', `cgroup driver ${driver.name} cannot change limits of a running container`, { operation: 'update', path: id, plugin: choice.plugin });
    const effects = await driver.update(ref, asked);
    if (effects.length > 0) {
      await core.transact(`update container ${id}`, async (transaction) => {
        await transaction.effects(choice.plugin).run(effects);
        await transaction.commit(() => {});
      });
    }
    writeSpec(found, spec);
  });
}

export async function statsOf(core: Core, ref: BundleRef): Promise<BundleStats> {
  await core.request('bundle stats', { root: ref.root, id: ref.id });
  const found = find(core, ref);
  const init = requireInit(core, found, 'stats');
  const { cgroup, ref: group } = await groupOf(core, found);
  const [numbers, details] = [cgroup.driver.stats(group), cgroup.driver.details?.(group)];
  const interfaces = interfacesOf(init.pid, true) ?? [];
  return { group: numbers, ...(details && { details }), interfaces: initOf(core, found) ? interfaces : [] };
}

export async function processesOf(core: Core, ref: BundleRef): Promise<readonly number[]> {
  await core.request('bundle processes', { root: ref.root, id: ref.id });
  const found = find(core, ref);
  const init = requireInit(core, found, 'ps');
  const members = membersOf(found.folder);
  return members.length > 0 ? members : [init.pid];
}

/**
 * The number of kills so far, once it is above `since` (default: what it is now): what rose before the call is told at once. Undefined: the container has ended
 * with no more of them, the engine ends, or `signal` says so.
 */
export async function nextOom(core: Core, ref: BundleRef, signal?: AbortSignal, since?: number): Promise<number | undefined> {
  const found = find(core, ref);
  const init = initOf(core, found);
  // the kill that has ended it is told all the same
  if (!init && since === undefined) throw notRunning(ref.id, 'events');
  const { cgroup: { driver, choice }, ref: group } = await groupOf(core, found);
  const { watchKills } = driver;
  if (!watchKills) throw fail('ERR_FEATURE_MISSING', `cgroup driver ${driver.name} cannot tell of kills for want of memory`, { operation: 'events', plugin: choice.plugin });
  const count = (): number | undefined => driver.stats(group).oomKills;
  const first = since ?? count() ?? 0;
  const watches: { close(): void }[] = [];
  const { promise: told, resolve: tell } = Promise.withResolvers<number | undefined>();
  const stop = (): void => tell(undefined);
  const engine = { close: stop };
  const look = (last: boolean): void => {
    const now = count() ?? first;
    if (now > first) tell(now);
    else if (last) stop();
  };
  try {
    if (signal?.aborted || core.closing) return undefined;
    core.connections.add(engine);
    signal?.addEventListener('abort', stop, { once: true });
    watches.push(watchKills.call(driver, group, () => look(false)));
    if (init) watches.push(core.parts.native.watchEnd(init.pid, init.startTime, () => look(true)));
    // whatever came before somebody watched
    look(!init);
    return await told;
  } finally {
    for (const watch of watches) watch.close();
    signal?.removeEventListener('abort', stop);
    core.connections.delete(engine);
  }
}
