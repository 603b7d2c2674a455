import { fail, isEngineError } from '../errors/index.ts';
import { type VolumeInfo, type Volumes } from '../api/index.ts';
import { type VolumeRecord } from '../state/index.ts';
import { shortId, type Core } from './core.ts';
import { volumeDriver } from './drivers.ts';
import { awaitGoing } from './finish.ts';
import { checkName, newId } from './names.ts';

export function createVolumes(core: Core): Volumes {
  const { registry } = core;
  const { state } = core.parts;
  async function info(v: VolumeRecord): Promise<VolumeInfo> {
    const { name, driver, created, labels, options, anonymous } = v;
    const mountpoint = await volumeDriver(registry, v).then((d) => d.driver.mountpoint(name), (error: unknown) => {
      // still listed, so that it can be seen and its plugin brought back
      if (isEngineError(error, 'ERR_PLUGIN_MISSING')) return '';
      throw error;
    });
    return { name, driver, mountpoint, created, labels, options, anonymous };
  }
  const find = (name: string): VolumeRecord => {
    const found = state.volumes.get(name);
    if (!found) throw fail('ERR_NO_SUCH_VOLUME', `no such volume: ${name}`, { path: name });
    return found;
  };
  return {
    async create(request) {
      await core.request('volume create', { ...request });
      if (request.name !== undefined) checkName('volume', request.name);
      const name = request.name ?? newId();
      return core.locked([['volume', name]], async () => {
        const existing = state.volumes.get(name);
        if (existing) {
          if (request.driver && request.driver !== existing.driver) throw fail('ERR_NAME_TAKEN', `a volume named ${name} already exists with the ${existing.driver} driver`, { path: name, hint: 'choose a different volume name' });
          return info(existing);
        }
        const { driver, choice } = await registry.chosen('volume', request.driver);
        const record: VolumeRecord = {
          name, driver: choice.driver, plugin: choice.plugin, version: choice.version, created: core.now().toISOString(), labels: request.labels, options: request.options, anonymous: request.name === undefined,
        };
        await core.transact(`create volume ${name}`, async (transaction) => {
          await transaction.effects(choice.plugin).run(driver.create(name, request.options));
          await transaction.commit((rows) => rows.insertVolume(record));
        });
        core.emit('volume', 'create', name, { driver: choice.driver });
        return info(record);
      });
    },
    async list() {
      await core.request('volume list', {});
      return Promise.all(state.volumes.list().map(info));
    },
    async inspect(name) {
      await core.request('volume inspect', { name });
      return info(find(name));
    },
    async remove(name, { force }) {
      await core.request('volume remove', { name, force });
      if (!state.volumes.get(name) && force) return;
      find(name);
      await awaitGoing(core, state.volumes.users(name));
      await core.locked([['volume', name]], async () => {
        const record = find(name);
        const users = state.volumes.users(name);
        if (users.length > 0) throw fail('ERR_IN_USE', `volume ${name} is in use by container ${users.map(shortId).join(', ')}`, { path: name, hint: 'remove the containers first' });
        const { driver, choice } = await volumeDriver(registry, record);
        await core.transact(`remove volume ${name}`, async (transaction) => {
          transaction.effects(choice.plugin).onCommit(driver.remove(name));
          await transaction.commit((rows) => rows.deleteVolume(name));
        });
        core.emit('volume', 'destroy', name, { driver: record.driver });
      });
    },
  };
}
