import { fail, isEngineError } from '../errors/index.ts';
import { type ContainerRequest, type NetworkInfo, type NetworkRequest, type Networks } from '../api/index.ts';
import { type NetworkRecord } from '../contracts/network/index.ts';
import { shortId, type Core } from './core.ts';
import { connectContainer, disconnectContainer } from './connect.ts';
import { catchUpEndpoints, missingOf, openNetwork, publisher, type OpenNetwork } from './endpoints.ts';
import { awaitGoing } from './finish.ts';
import { showNetwork } from './inspect.ts';
import { checkName, newId } from './names.ts';
import { findNetwork } from './wishes.ts';

/** How often a subnet is chosen anew, when another engine had the same one in mind. */
const TRIES = 10;

/** Network drivers whose networks have records. */
const makers = (core: Core): readonly string[] => core.registry.entries.flatMap(({ manifest }) => (manifest.provides ?? []).filter((p) => p.contract === 'network' && p.features?.includes('networks')).map((p) => p.driver));

/** A network that is not kept yet. Reads only. Errors: ERR_INVALID_VALUE, ERR_SUBNET_TAKEN, ERR_NO_ADDRESS, ERR_DRIVER_*. */
async function designNetwork(core: Core, request: NetworkRequest, predefined: boolean): Promise<OpenNetwork> {
  const { registry, parts: { state } } = core;
  const { name, internal, ipv6, labels, options } = request;
  const network = await registry.networkMaker(request.driver ?? 'bridge');
  const [ipam, firewall] = [await registry.chosen('ipam'), await registry.chosen('firewall')];
  const dns = predefined ? undefined : await registry.chosen('dns');
  const { managed } = network.driver;
  if (!managed) throw fail('ERR_INVALID_VALUE', `network driver ${network.choice.driver} makes no networks`, { operation: 'network create', path: name });
  const id = newId();
  const settings = managed.design({ id, name, predefined, internal, ipv6, options });
  const taken = state.networks.list().flatMap((other) => other.pools.map(({ subnet }) => ({ subnet, network: other.name })));
  const record: NetworkRecord = {
    id, name, created: core.now().toISOString(), labels, internal, ipv6, predefined, options, settings,
    pools: [...ipam.driver.choosePools({ pools: request.pools, ipv6, taken, instance: state.folders.instance, network: id })],
    drivers: { network: network.choice, ipam: ipam.choice, firewall: firewall.choice, ...(dns && { dns: dns.choice }) },
  };
  return openNetwork(core, record);
}

/** Made and kept, or nothing of it is. */
async function makeNetwork(core: Core, request: NetworkRequest, predefined: boolean): Promise<NetworkRecord> {
  const { state } = core.parts;
  for (let tries = 1; ; tries++) {
    const network = await designNetwork(core, request, predefined);
    const { record, ipam, wall } = network;
    let conflict: string | undefined;
    try {
      await core.transact(`create network ${record.name}`, async (transaction) => {
        if (state.networks.byName(record.name)) throw fail('ERR_NAME_TAKEN', `network with name ${record.name} already exists`, { path: record.name, hint: '' });
        await transaction.runAll(await missingOf(network));
        conflict = ipam.driver.conflict(record.pools, wall.link);
        if (conflict !== undefined) throw fail('ERR_SUBNET_TAKEN', `${record.pools.map((p) => p.subnet).join(', ')}: ${conflict}`, { operation: 'network create', path: record.name });
        await transaction.commit((rows) => rows.insertNetwork(record));
      });
    } catch (error) {
      if (conflict !== undefined && tries < TRIES && request.pools.every((pool) => pool.subnet === undefined)) continue;
      throw error;
    }
    void core.parts.keep?.();
    core.emit('network', 'create', record.id, { name: record.name, type: record.drivers.network.driver });
    return record;
  }
}
/** One at a time, so that two do not choose one subnet. */
const lockedNetworks = <T>(core: Core, work: () => Promise<T>): Promise<T> => core.locked([['network', 'all']], work);

/**
 * `--network X` means the network X of driver X where there is none of that name: the engine's own, made when it is first used. `explain`: only designed.
 */
export async function ensurePredefined(core: Core, { network, endpoints }: Pick<ContainerRequest, 'network'> & Partial<ContainerRequest>, { explain = false } = {}): Promise<void> {
  for (const name of new Set([network, ...(endpoints ?? []).map((wish) => wish.network)])) {
    if (findNetwork(core, name) || !makers(core).includes(name)) continue;
    const request: NetworkRequest = { name, driver: name, pools: [], internal: false, ipv6: false, labels: {}, options: {} };
    if (explain) {
      const { record } = await designNetwork(core, request, true);
      core.designed.set(record.id, record);
    } else await lockedNetworks(core, async () => void (findNetwork(core, name) ?? (await makeNetwork(core, request, true))));
  }
}

async function removeNetwork(core: Core, record: NetworkRecord): Promise<void> {
  const { state } = core.parts;
  await Promise.all([core.sandboxes.release(({ made }) => made.endpoints.some(({ network }) => network === record.id)), catchUpEndpoints(core)]);
  await core.locked([['network', 'all'], ['network', record.id]], async () => {
    state.networks.resolve(record.id); // somebody else may have been faster
    const users = state.networks.users(record.id);
    if (users.length > 0) throw fail('ERR_IN_USE', `network ${record.name} has containers: ${users.map((id) => state.containers.get(id)?.name ?? shortId(id)).join(', ')}`, { path: record.name, hint: 'remove the containers, or take them off it: engine network disconnect' });
    const { managed, network, firewall, dns, wall } = await openNetwork(core, record);
    await core.transact(`remove network ${record.name}`, async (transaction) => {
      if (dns) transaction.effects(dns.choice.plugin).onCommit(dns.driver.remove(record));
      transaction.effects(firewall.choice.plugin).onCommit(await firewall.driver.remove(wall));
      transaction.effects(network.choice.plugin).onCommit(await managed.remove(record));
      await transaction.commit((rows) => rows.deleteNetwork(record));
    });
    core.emit('network', 'destroy', record.id, { name: record.name, type: record.drivers.network.driver });
  });
}

export function createNetworks(core: Core): Networks {
  const { state, native } = core.parts;
  const info = (record: NetworkRecord): NetworkInfo => ({
    record,
    containers: state.networks.users(record.id).map((id) => {
      const endpoint = state.endpoints.of(id).find((e) => e.network === record.id);
      return { id, name: state.containers.get(id)?.name ?? shortId(id), ...(endpoint && { endpoint }) };
    }),
  });
  return {
    async create(request) {
      await core.request('network create', { ...request });
      checkName('network', request.name);
      if (['default', 'none', 'host', 'container', ...makers(core)].includes(request.name)) throw fail('ERR_INVALID_VALUE', `operation is not permitted on predefined ${request.name} network`, { operation: 'network create', path: request.name, hint: 'choose another name' });
      return info(await lockedNetworks(core, () => makeNetwork(core, request, false)));
    },
    async list() {
      await core.request('network list', {});
      return state.networks.list().map(info);
    },
    async resolve(ref) {
      await core.request('network inspect', { network: ref });
      return info(state.networks.resolve(ref));
    },
    async inspect(ref) {
      await core.request('network inspect', { network: ref });
      return showNetwork(core, info(state.networks.resolve(ref)));
    },
    async remove(ref) {
      const record = state.networks.resolve(ref);
      await core.request('network remove', { network: record.id });
      if (record.predefined) throw fail('ERR_INVALID_VALUE', `${record.name} is a pre-defined network and cannot be removed`, { operation: 'network rm', path: record.name, hint: 'without containers on it, engine network prune --all takes it away' });
      await awaitGoing(core, state.networks.users(record.id));
      await removeNetwork(core, record);
      return record;
    },
    async prune({ filter = () => true, predefined = false }) {
      await core.request('network prune', {});
      const removed: string[] = [];
      for (const record of state.networks.list()) {
        if ((record.predefined && !predefined) || !filter(record) || state.networks.users(record.id).length > 0) continue;
        await removeNetwork(core, record).then(() => removed.push(record.name), (error: unknown) => {
          // somebody came to it, or has removed it
          if (!isEngineError(error, 'ERR_IN_USE') && !isEngineError(error, 'ERR_NO_SUCH_NETWORK')) throw error;
        });
      }
      return removed;
    },
    async connect(ref, container, wish) {
      await ensurePredefined(core, { network: ref });
      return connectContainer(core, ref, container, wish);
    },
    disconnect: (ref, container, options) => disconnectContainer(core, ref, container, options),
    async why(port, protocol = 'tcp') {
      await core.request('network why', { port, protocol });
      const found = await publisher(core, { protocol, hostPort: port });
      if (!found) {
        const holder = native.portHolder(protocol, '0.0.0.0', port) ?? native.portHolder(protocol, '::', port);
        throw fail('ERR_NO_SUCH_PORT', `port ${port}/${protocol} is published by no container${holder ? `: ${holder} has it` : ''}`, { path: String(port) });
      }
      const { endpoint, name } = found;
      const { firewall, wall } = await openNetwork(core, state.networks.resolve(endpoint.network));
      const lines = [];
      for (const binding of endpoint.ports.filter((p) => p.hostPort === port && p.protocol === protocol)) {
        lines.push(`${binding.hostAddress.includes(':') ? `[${binding.hostAddress}]` : binding.hostAddress}:${port}/${protocol} is port ${binding.containerPort} of container ${name} on network ${wall.name}`);
        lines.push(...(await firewall.driver.why(binding, endpoint, wall)));
      }
      return lines;
    },
  };
}
