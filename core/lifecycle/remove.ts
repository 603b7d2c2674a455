import { existsSync } from 'node:fs';
import path from 'node:path';
import { removeByRename } from '../contracts/common/index.ts';
import { type ContainerRecord } from '../api/index.ts';
import { eventAttributes, releaseProvisional, type Core } from './core.ts';
import { ifLoaded, volumeDriver } from './drivers.ts';
import { snapshotsOf } from './rootfs.ts';

/**
 * Remove a container that doesn't run. Everything on disk goes with the commit: from then on it is repeated until it is gone. What a
 * missing plugin made stays, with a warning. Called with the container's lock held.
 */
export async function removeLocked(core: Core, record: ContainerRecord, options: { readonly volumes: boolean }): Promise<void> {
  const { state, hooks, log: logger } = core.parts;
  const { registry } = core;
  const missing = (error: Error): void => logger.warn(`container ${record.name}: ${error.message}: its data is left behind`);
  await hooks.call('remove', { container: record }, { trace: core.trace });
  const anonymous = options.volumes ? record.volumes.filter((v) => v.anonymous && state.volumes.users(v.name).every((id) => id === record.id)) : [];
  const removed: string[] = [];
  const folder = core.folderOf(record.id);
  // what its run has made last of all to be undone; after a reboot the run itself is lost, not what it made
  if (record.ephemeral && !existsSync(folder)) {
    await state.begin(`remove container ${record.name}`).commit((rows) => rows.deleteContainer(record.id));
    return core.emit('container', 'destroy', record.id, eventAttributes(record));
  }
  await core.transact(`remove container ${record.name}`, async (transaction) => {
    const { storage, log } = record.drivers;
    if (storage) {
      await ifLoaded(async () => {
        const { driver, choice } = await registry.resolveDriver('storage', storage.driver, storage);
        for (const { request } of snapshotsOf(record, driver)) transaction.effects(choice.plugin).onCommit(driver.removeSnapshot(request.key));
      }, missing);
    }
    if (log) {
      await ifLoaded(async () => {
        const { driver, choice } = await registry.resolveDriver('log', log.driver, log);
        transaction.effects(choice.plugin).onCommit(driver.remove({ container: record.id, folder: path.join(folder, 'log'), options: record.request.log.options }));
      }, missing);
    }
    for (const { name } of anonymous) {
      const volume = state.volumes.get(name);
      if (!volume || removed.includes(name)) continue;
      await ifLoaded(async () => {
        const { driver, choice } = await volumeDriver(registry, volume);
        transaction.effects(choice.plugin).onCommit(driver.remove(name));
        removed.push(name);
      }, missing);
    }
    transaction.effects('core').onCommit(removeByRename(folder, path.join(path.dirname(folder), '.trash')));
    await transaction.commit((rows) => {
      rows.deleteContainer(record.id);
      for (const name of removed) rows.deleteVolume(name);
    });
  });
  releaseProvisional(core, record.id);
  for (const name of removed) core.emit('volume', 'destroy', name);
  core.emit('container', 'destroy', record.id, eventAttributes(record));
}
