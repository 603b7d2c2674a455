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

/** Between two looks, ms: neither kernel has an event for it that all drivers could pass on. */
const OOM_INTERVAL = 250;

/** The number of kills so far, when it has risen. */
export async function nextOom(core: Core, ref: BundleRef, signal?: AbortSignal): Promise<number | undefined> {
  const found = find(core, ref);
  if (!initOf(core, found)) throw notRunning(ref.id, 'events');
  const { cgroup: { driver, choice }, ref: group } = await groupOf(core, found);
  if (!driver.features.has('oom-events')) throw fail('ERR_FEATURE_MISSING', `cgroup driver ${driver.name} cannot tell of kills for want of memory`, { operation: 'events', plugin: choice.plugin });
  const first = driver.stats(group).oomKills ?? 0;
  while (!signal?.aborted && !core.closing) {
    const alive = initOf(core, found) !== undefined;
    const now = driver.stats(group).oomKills ?? first;
    if (now > first) return now;
    if (!alive) return undefined;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, OOM_INTERVAL);
      signal?.addEventListener('abort', done, { once: true });
    });
  }
  return undefined;
}
