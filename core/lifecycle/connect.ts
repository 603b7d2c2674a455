import { fail } from '../errors/index.ts';
import { type ContainerRecord, type EndpointWish } from '../api/index.ts';
import { type ContainerNames, type DnsDriver } from '../contracts/dns/index.ts';
import { type Endpoint, type NetworkTarget } from '../contracts/network/index.ts';
import { type Effect } from '../plan/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { claimEndpoint, endEndpoints, ensureNetworks, namesOf, networksOf, openNetwork, type OpenNetwork } from './endpoints.ts';
import { settled } from './finish.ts';
import { changedFiles } from './network-files.ts';
import { viewContainer } from './running.ts';
import { checkWish } from './wishes.ts';

type Group = { readonly plugin: string; readonly effects: readonly Effect[] };

/** What changes for those who ask for names, and for the container that asks. */
async function renamed(core: Core, container: ContainerRecord, before: readonly Endpoint[], after: readonly Endpoint[]): Promise<Group[]> {
  const [old, now] = await Promise.all([before, after].map(async (endpoints) => namesOf(container, endpoints, await networksOf(core, endpoints.map(({ network }) => ({ network, aliases: [] }))))));
  const nothing = { container: container.id, servers: [], endpoints: [] };
  const drivers = new Map([...(old ?? []), ...(now ?? [])].map(({ dns }) => [dns.driver, dns.choice.plugin]));
  const of = (told: typeof now, driver: DnsDriver): ContainerNames => told?.find(({ dns }) => dns.driver === driver)?.names ?? nothing;
  const names = [...drivers].map(([driver, plugin]) => ({ plugin, effects: driver.change(of(now, driver), of(old, driver)) }));
  return [...names, ...(await changedFiles(core, container, before, after))];
}

type Running = { readonly id: string; readonly pid: number; readonly startTime: bigint };
const targetOf = ({ id }: ContainerRecord, { id: run, pid, startTime }: Running): NetworkTarget => ({ container: id, run, pid, startTime });

/** The default route goes by this endpoint now. */
async function promotion(core: Core, endpoint: Endpoint, target: NetworkTarget): Promise<Group[]> {
  const [open] = await networksOf(core, [{ network: endpoint.network, aliases: [] }]);
  return open?.managed.promote ? [{ plugin: open.network.choice.plugin, effects: open.managed.promote(endpoint, open.record, target) }] : [];
}

/** Runs `change` with the container, its lock held; `running`: the run it is in. */
async function changing(core: Core, ref: string, change: (record: ContainerRecord, running: Running | undefined) => Promise<void>): Promise<void> {
  const { id } = await settled(core, ref);
  await core.locked([['container', id]], async () => {
    const record = core.parts.state.containers.resolve(id);
    await change(record, viewContainer(core, record).run);
  });
}

export async function connectContainer(core: Core, ref: string, container: string, asked: Omit<EndpointWish, 'network'>): Promise<void> {
  const { state } = core.parts;
  const found = state.networks.resolve(ref);
  const wish: EndpointWish = { ...asked, network: found.id };
  await changing(core, container, async (record, running) => {
    await core.request('network connect', { container: record.id, ...wish });
    checkWish(wish, found);
    if (record.networks.some(({ network }) => network === found.id)) throw fail('ERR_NAME_TAKEN', `container ${record.name} is already on network ${found.name}`, { operation: 'network connect', path: record.name, hint: '' });
    if (record.networks.length === 0 && record.drivers.network && !(await core.registry.resolveDriver('network', record.drivers.network.driver, record.drivers.network)).driver.managed) {
      throw fail('ERR_INVALID_VALUE', `container ${record.name} cannot be connected to a network: it has network ${record.request.network.split(':', 1)[0]}`, { operation: 'network connect', path: record.name, hint: 'make it with a network' });
    }
    const after: ContainerRecord = { ...record, networks: [...record.networks, wish] };
    const network = await openNetwork(core, found);
    await ensureNetworks(core, [network]);
    const before = state.endpoints.of(record.id);
    const endpoint = running && (await claimEndpoint(core, record, running.id, network, wish));
    try {
      await core.transact(`connect container ${record.name} to network ${found.name}`, async (transaction) => {
        if (running && endpoint) {
          const { choice } = network.network;
          await transaction.runAll([{ plugin: choice.plugin, effects: network.managed.connect(endpoint, found, targetOf(record, running)) }, ...(await renamed(core, record, before, [...before, endpoint]))]);
        }
        await transaction.commit((rows) => rows.updateContainer(after));
      });
    } catch (error) {
      if (endpoint) await endEndpoints(core, record.id, (e) => e.network === found.id);
      throw error;
    }
    core.emit('network', 'connect', found.id, { ...eventAttributes(record), container: record.id, name: found.name });
  });
}

/** What the run has planned to undo for the published ports of this endpoint: now. */
function unpublish({ firewall, wall }: OpenNetwork, endpoint: Endpoint, runFolder: string, instance: string): Group[] {
  if (endpoint.ports.length === 0) return [];
  const steps = firewall.driver.planPorts(endpoint, wall, { container: endpoint.container, run: endpoint.run, instance, runFolder, explain: false });
  const undo = [...steps].reverse().flatMap((step) => step.undo.map((operation): Effect => ({ operation: { ...operation, flags: { ...operation.flags, okMissing: true } }, undo: [], noUndo: 'the port goes with the network' })));
  return [{ plugin: firewall.choice.plugin, effects: undo }];
}

export async function disconnectContainer(core: Core, ref: string, container: string, { force }: { readonly force: boolean }): Promise<void> {
  const { state } = core.parts;
  const found = state.networks.resolve(ref);
  await changing(core, container, async (record, running) => {
    await core.request('network disconnect', { container: record.id, network: found.id, force });
    if (!record.networks.some(({ network }) => network === found.id)) throw fail('ERR_INVALID_VALUE', `container ${record.name} is not connected to network ${found.name}`, { operation: 'network disconnect', path: record.name });
    const after: ContainerRecord = { ...record, networks: record.networks.filter(({ network }) => network !== found.id) };
    const before = state.endpoints.of(record.id);
    const endpoint = running && before.find((e) => e.network === found.id);
    await core.transact(`disconnect container ${record.name} from network ${found.name}`, async (transaction) => {
      let next: Endpoint | undefined;
      if (running && endpoint) {
        const network = await openNetwork(core, found);
        const { folders } = state;
        const left = before.filter((e) => e !== endpoint);
        next = endpoint.isDefault ? left.find((e) => e.addresses.some((a) => a.gateway !== undefined)) : undefined;
        await transaction.runAll([
          ...(await renamed(core, record, before, left)), ...unpublish(network, endpoint, `${folders.runRoot}/runs/${record.id}`, folders.instance),
          { plugin: network.network.choice.plugin, effects: network.managed.disconnect(endpoint, found) }, ...(next ? await promotion(core, next, targetOf(record, running)) : []),
        ]);
      }
      await transaction.commit((rows) => {
        rows.updateContainer(after);
        if (endpoint) rows.deleteEndpoint(endpoint);
        if (next) rows.updateEndpoint({ ...next, isDefault: true });
      });
    });
    core.emit('network', 'disconnect', found.id, { ...eventAttributes(record), container: record.id, name: found.name });
  });
}
