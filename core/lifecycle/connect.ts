import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fail, isEngineError } from '../errors/index.ts';
import { type ContainerRecord, type EndpointWish } from '../api/index.ts';
import { type ContainerNames, type DnsDriver } from '../contracts/dns/index.ts';
import { type Endpoint, type NetworkTarget } from '../contracts/network/index.ts';
import { decodePlan, encodePlan, forgiving, RUN_FILES, type Effect, type PlannedStep } from '../plan/index.ts';
import { eventAttributes, type Core } from './core.ts';
import { claimEndpoint, endEndpoints, ensureNetworks, namesOf, networksOf, openNetwork, type OpenNetwork } from './endpoints.ts';
import { settled } from './finish.ts';
import { changedFiles } from './network-files.ts';
import { notRunning, viewContainer } from './running.ts';
import { checkWish } from './wishes.ts';

type Group = { readonly plugin: string; readonly effects: readonly Effect[] };

type Running = { readonly id: string; readonly pid: number; readonly startTime: bigint; readonly folder: string };

/** What changes for those who ask for names, and for the container that asks. A run that began without names has them to undo from now on. */
async function renamed(core: Core, container: ContainerRecord, { id: run, folder }: Running, before: readonly Endpoint[], after: readonly Endpoint[]): Promise<Group[]> {
  const { folders: { instance }, runs } = core.parts.state;
  const [old = [], now = []] = await Promise.all([before, after].map(async (endpoints) => namesOf(container, endpoints, await networksOf(core, endpoints))));
  const nothing = { container: container.id, servers: [], endpoints: [] };
  const drivers = new Map([...old, ...now].map(({ dns }) => [dns.driver, dns.choice.plugin]));
  const of = (told: typeof now, driver: DnsDriver): ContainerNames | undefined => told.find(({ dns }) => dns.driver === driver)?.names;
  const undo = now.filter(({ dns }) => !of(old, dns.driver)).flatMap(({ dns: { driver, choice }, names }) =>
    driver.planNames(names, { container: container.id, run, instance, runFolder: folder, explain: false })
      .flatMap((step) => step.undo.map((operation): PlannedStep => ({ slot: 'after.undo', operation: forgiving(operation), undo: [], origin: { plugin: choice.plugin, hook: 'connect' } }))));
  if (undo.length > 0) {
    const { steps, registers } = decodePlan(readFileSync(path.join(folder, RUN_FILES.plan)));
    await runs.amend(container.id, encodePlan({ steps: [...steps, ...undo] }, registers));
  }
  const names = [...drivers].map(([driver, plugin]) => ({ plugin, effects: driver.change(of(now, driver) ?? nothing, of(old, driver) ?? nothing) }));
  return [...names, ...(await changedFiles(core, container, before, after))];
}

const targetOf = ({ id }: ContainerRecord, { id: run, pid, startTime }: Running): NetworkTarget => ({ container: id, run, pid, startTime });

/** The default route goes by this endpoint now. */
async function promotion(core: Core, endpoint: Endpoint, target: NetworkTarget): Promise<Group[]> {
  const [open] = await networksOf(core, [endpoint]);
  // by then it may have ended
  const effects = open?.managed.promote?.(endpoint, open.record, target).map((one): Effect => ({ ...one, operation: { ...one.operation, flags: { ...one.operation.flags, optional: true } } }));
  return open && effects ? [{ plugin: open.network.choice.plugin, effects }] : [];
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
  const wish: EndpointWish = { ...asked, network: found.id, ...(asked.mac !== undefined && { mac: asked.mac.toLowerCase() }) };
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
          await transaction.runAll([{ plugin: choice.plugin, effects: network.managed.connect(endpoint, found, targetOf(record, running)) }, ...(await renamed(core, record, running, before, [...before, endpoint]))]);
        }
        await transaction.commit((rows) => rows.updateContainer(after));
      });
    } catch (error) {
      if (endpoint) await endEndpoints(core, record.id, (e) => e.network === found.id);
      throw isEngineError(error) && error.operation === 'openNamespace' && error.errno === 'ESRCH' ? notRunning(record, 'connect it to a network') : error;
    }
    core.emit('network', 'connect', found.id, { ...eventAttributes(record), container: record.id, name: found.name });
  });
}

/** What the run has planned to undo for the published ports of this endpoint: now. */
function unpublish({ firewall, wall }: OpenNetwork, endpoint: Endpoint, runFolder: string, instance: string): Group[] {
  if (endpoint.ports.length === 0) return [];
  const steps = firewall.driver.planPorts(endpoint, wall, { container: endpoint.container, run: endpoint.run, instance, runFolder, explain: false });
  const undo = [...steps].reverse().flatMap((step) => step.undo.map((operation): Effect => ({ operation: forgiving(operation), undo: [], noUndo: 'the port goes with the network' })));
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
    const what = `disconnect container ${record.name} from network ${found.name}`;
    let gone: Group[] = [];
    let isDone = (): boolean => true;
    await core.transact(what, async (transaction) => {
      let next: Endpoint | undefined;
      if (running && endpoint) {
        const network = await openNetwork(core, found);
        const left = before.filter((e) => e !== endpoint);
        next = endpoint.isDefault ? left.find((e) => e.addresses.some((a) => a.gateway !== undefined)) : undefined;
        await transaction.runAll(await renamed(core, record, running, before, left));
        // what nothing brings back comes when it is certain
        gone = [...unpublish(network, endpoint, running.folder, state.folders.instance), { plugin: network.network.choice.plugin, effects: network.managed.disconnect(endpoint, found) }, ...(next ? await promotion(core, next, targetOf(record, running)) : [])];
        for (const { plugin, effects } of gone) transaction.effects(plugin).onCommit(effects);
        isDone = () => network.managed.isGone(endpoint);
      }
      await transaction.commit((rows) => {
        rows.updateContainer(after);
        if (next) rows.updateEndpoint({ ...next, isDefault: true });
      });
    });
    // once more, and this time it says why
    if (!isDone()) await core.transact(what, (transaction) => transaction.runAll(gone).then(() => transaction.commit(() => {})));
    // not before its link is gone
    await endEndpoints(core, record.id, (e) => e.network === found.id);
    core.emit('network', 'disconnect', found.id, { ...eventAttributes(record), container: record.id, name: found.name });
  });
}
