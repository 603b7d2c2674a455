import { type ContainerRecord, type NetworkInfo } from '../api/index.ts';
import { type ImageInfo } from '../contracts/image/index.ts';
import { type InspectFacts } from '../hooks/index.ts';
import { type Core } from './core.ts';
import { driversOf, ifLoaded } from './drivers.ts';
import { snapshotsOf } from './rootfs.ts';
import { viewNow } from './running.ts';

/** What is known, in the words of those who tap `inspect`; `own` is shown in any case. */
async function show(core: Core, facts: InspectFacts, own: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
  return (await core.parts.hooks.callWaterfall('inspect', { facts, json: { Engine: own } })).value.json;
}

/** Bytes of what a container has written; undefined when its storage plugin is gone. */
async function writtenBytes(core: Core, record: ContainerRecord): Promise<number | undefined> {
  return ifLoaded(async () => {
    const { storage } = await driversOf(core.registry, record, ['storage']);
    if (!storage) return undefined;
    const usages = await Promise.all(snapshotsOf(record, storage.driver).map(({ request }) => storage.driver.usage(request.key)));
    return usages.reduce((sum, { bytes }) => sum + bytes, 0);
  }, () => {});
}

export async function inspectContainer(core: Core, record: ContainerRecord, options: { size?: boolean } = {}): Promise<Record<string, unknown>> {
  const size = options.size ? await writtenBytes(core, record) : undefined;
  const view = await viewNow(core, record);
  const { drivers, rootfs, image, starts, spec, lastExit = null } = view.record;
  const run = view.run ? { id: view.run.id, folder: view.run.folder } : null;
  return show(core, { kind: 'container', view, networks: record.networks.flatMap(({ network }) => core.parts.state.networks.get(network) ?? []), folder: core.folderOf(record.id), ...(size !== undefined && { size }) }, { drivers, rootfs, source: image.source, starts, run, lastExit, ids: view.record.ids ?? [], spec });
}

/** A network, with the containers on it. */
export function showNetwork(core: Core, info: NetworkInfo): Promise<Record<string, unknown>> {
  const { drivers, settings, pools } = info.record;
  return show(core, { kind: 'network', info }, { drivers, settings, pools });
}

export function inspectImage(core: Core, image: ImageInfo): Promise<Record<string, unknown>> {
  return show(core, { kind: 'image', image, architecture: core.parts.machine.architecture }, { source: image.source, rootfs: image.rootfs });
}
