import { type Logger } from 'pino';
import { fail, describeError } from '../errors/index.ts';
import { within, type Driver, type Machine, type Probe } from '../contracts/common/index.ts';
import { type ContractName, type Contracts, type PluginInstance } from '../plugin/index.ts';
import { type DriverChoice } from '../api/types.ts';
import { type ChosenContract, type DriverChoices, type PluginEntry, type Registry, type ResolvedDriver } from './parts.ts';

/** Longest time a plugin's start or stop may take, ms. */
const START_DEADLINE = 10_000;

const withDeadline = ({ manifest: { name } }: PluginEntry, what: 'start' | 'stop', work: Promise<void>): Promise<void> => within(work, START_DEADLINE, () => {
  throw fail('ERR_PLUGIN_TIMEOUT', `plugin ${name} did not ${what} within ${START_DEADLINE} ms`, { plugin: name });
});

interface Provided { readonly entry: PluginEntry; readonly at: number; readonly name: string }

/** Finds, loads and starts plugins; see {@link Registry}. */
export function createRegistry(parts: { plugins: readonly PluginEntry[]; choices: DriverChoices; machine: Machine; log: Logger }): Registry {
  const { plugins: entries, choices, machine, log } = parts;
  const loaded = new Map<PluginEntry, Promise<PluginInstance>>();
  const instances: PluginInstance[] = [];
  const probes = new Map<Driver, Promise<Probe>>();
  const picks = new Map<string, Promise<ResolvedDriver>>();
  /** Drivers whose plugins are loaded, by contract, plugin and name. */
  const opened = new Map<string, Driver>();

  function load(entry: PluginEntry): Promise<PluginInstance> {
    let instance = loaded.get(entry);
    if (!instance) {
      instance = (async () => {
        const made = await entry.load();
        if (made.start) await withDeadline(entry, 'start', made.start());
        instances.push(made);
        return made;
      })();
      loaded.set(entry, instance);
    }
    return instance;
  }
  const provided: Partial<Record<ContractName, readonly Provided[]>> = {};
  const providers = (contract: ContractName): readonly Provided[] =>
    (provided[contract] ??= entries.flatMap((entry) => (entry.manifest.provides ?? []).flatMap((p, at) => (p.contract === contract ? [{ entry, at, name: p.driver }] : []))));
  async function open<C extends ContractName>(contract: C, { entry, at, name }: Provided): Promise<ResolvedDriver<Contracts[C]>> {
    const { drivers } = await load(entry);
    const driver = drivers?.[at]?.name === name ? drivers[at] : drivers?.find((d) => d.name === name);
    const { name: plugin, version } = entry.manifest;
    if (!driver) throw fail('ERR_PLUGIN_INVALID', `plugin ${plugin} promises ${contract} driver ${name} but does not make it`, { plugin });
    opened.set(`${contract} ${plugin} ${name}`, driver);
    return { driver: driver as Contracts[C], entry, choice: { driver: name, plugin, version, options: entry.optionsDigest } };
  }
  function probe(driver: Driver): Promise<Probe> {
    let result = probes.get(driver);
    if (!result) {
      result = (async () => {
        try {
          return await driver.probe(machine);
        } catch (error) {
          return { available: false, score: 0, reasons: [`its probe failed: ${describeError(error)}`] };
        }
      })();
      probes.set(driver, result);
    }
    return result;
  }
  async function ensureAvailable<C extends ContractName>(contract: C, found: ResolvedDriver<Contracts[C]>): Promise<ResolvedDriver<Contracts[C]>> {
    const { available, reasons } = await probe(found.driver);
    // what it lacks may be there the next time
    if (!available) probes.delete(found.driver);
    if (!available) throw fail('ERR_DRIVER_UNAVAILABLE', `${contract} driver ${found.driver.name} is not available: ${reasons.join('; ') || 'no reason given'}`, { plugin: found.choice.plugin });
    return found;
  }

  async function resolveDriver<C extends ContractName>(contract: C, name: string, choice?: DriverChoice): Promise<ResolvedDriver<Contracts[C]>> {
    const all = providers(contract).filter((p) => p.name === name && (!choice || p.entry.manifest.name === choice.plugin));
    const found = all[0];
    if (found) return open(contract, found);
    if (choice) throw fail('ERR_PLUGIN_MISSING', `plugin ${choice.plugin}, whose ${contract} driver ${name} made this object, is not loaded`, { plugin: choice.plugin });
    const known = providers(contract).map((p) => p.name);
    throw fail('ERR_DRIVER_UNKNOWN', `there is no ${contract} driver ${name}${known.length ? ` (known: ${known.join(', ')})` : ''}`);
  }

  /** The best available driver; a broken plugin doesn't take part, and is named when nothing else is left. */
  async function best<C extends ContractName>(contract: C): Promise<ResolvedDriver<Contracts[C]>> {
    let pick: { found: ResolvedDriver<Contracts[C]>; score: number } | undefined;
    const reasons: string[] = [];
    for (const provided of providers(contract)) {
      try {
        const found = await open(contract, provided);
        const { available, score, reasons: why } = await probe(found.driver);
        if (available && score > (pick?.score ?? 0)) pick = { found, score };
        if (available) continue;
        probes.delete(found.driver);
        reasons.push(`${provided.name}: ${why.join('; ')}`);
      } catch (error) {
        log.warn({ plugin: provided.entry.manifest.name, err: error }, 'plugin left out');
        reasons.push(`${provided.name}: ${describeError(error)}`);
      }
    }
    if (!pick) throw fail('ERR_DRIVER_UNAVAILABLE', `no ${contract} driver is available here${reasons.length ? `: ${reasons.join('; ')}` : ''}`);
    return pick.found;
  }

  const chosen: Registry['chosen'] = async (contract, name = choices[contract]) => {
    const key = `${contract} ${name}`;
    let pick = picks.get(key);
    if (!pick) {
      pick = name === 'auto' ? best(contract) : resolveDriver(contract, name).then((found) => ensureAvailable(contract, found));
      picks.set(key, pick);
      pick.catch(() => picks.delete(key));
    }
    return (await pick) as never;
  };

  async function network(mode: string): Promise<ResolvedDriver<Contracts['network']>> {
    const kind = mode.split(':', 1)[0];
    const ranked = providers('network').toSorted((a, b) => Number(b.name === kind) - Number(a.name === kind));
    for (const provided of ranked) {
      let found: ResolvedDriver<Contracts['network']>;
      try {
        found = await open('network', provided);
      } catch (error) {
        if (provided.name === kind) throw error;
        log.warn({ plugin: provided.entry.manifest.name, err: error }, 'plugin left out');
        continue;
      }
      if (found.driver.serves(mode)) return ensureAvailable('network', found);
    }
    throw fail('ERR_NO_SUCH_NETWORK', `no such network: ${mode}`, { path: mode, hint: `there are ${ranked.map((provided) => (provided.name === 'container' ? 'container:NAME' : provided.name)).sort().join(', ')}` });
  }

  const networkMaker: Registry['networkMaker'] = async (name) => ensureAvailable('network', await resolveDriver('network', name));

  async function report(): ReturnType<Registry['report']> {
    const lines = [];
    const names = ['storage', 'cgroup', 'network', 'ipam', 'firewall', 'dns', 'security', 'log', 'volume', 'image', 'checkpoint', 'frontend'] as const;
    for (const contract of names) {
      const one = contract in choices && contract !== 'security';
      const pick = one ? await chosen(contract as ChosenContract).then((c) => c.choice.driver, () => undefined) : undefined;
      for (const provided of providers(contract)) {
        const plugin = provided.entry.manifest.name;
        const result = await open(contract, provided).then((d) => probe(d.driver as Driver)).catch((error: unknown): Probe => ({ available: false, score: 0, reasons: [describeError(error)] }));
        const isChosen = contract === 'security' ? (choices.security === 'auto' ? result.available : choices.security.includes(provided.name)) : one ? pick === provided.name : false;
        lines.push({ contract, driver: provided.name, plugin, probe: result, chosen: isChosen });
      }
    }
    return lines;
  }

  return {
    entries, instances, resolveDriver, loaded: (contract, { plugin, driver }) => opened.get(`${contract} ${plugin} ${driver}`) as never, chosen, network, networkMaker, report,
    restarts: (container, running) => ((container.request.restart?.policy ?? 'no') === 'no' ? undefined : instances.map((made) => made.restarts?.(container, running)).find((found) => found !== undefined)),
    async start() {
      for (const entry of entries) if (entry.eager) await load(entry);
    },
    async security() {
      if (choices.security !== 'auto') return Promise.all(choices.security.map((name) => resolveDriver('security', name).then((found) => ensureAvailable('security', found))));
      const all = await Promise.all(providers('security').map((provided) => open('security', provided)));
      const fit = await Promise.all(all.map(async (found) => {
        const { available, wanted = false } = await probe(found.driver);
        if (wanted) await ensureAvailable('security', found);
        return available;
      }));
      return all.filter((_, i) => fit[i]);
    },
    all: (contract) => Promise.all(providers(contract).map((provided) => open(contract, provided))),
    async handler(name) {
      const entry = entries.find((e) => e.manifest.handlers?.includes(name));
      const handler = entry && (await load(entry)).handlers?.[name];
      if (!entry || !handler) throw fail('ERR_PLUGIN_MISSING', `no plugin has the barrier handler ${name}`);
      return { plugin: entry.manifest.name, handler };
    },
    sections(used) {
      const owners = new Map<string, string>();
      for (const { manifest, eager } of entries) {
        if (!eager && !used.some((u) => u.manifest === manifest)) continue;
        for (const section of manifest.sections ?? []) {
          const other = owners.get(section);
          if (other && other !== manifest.name) throw fail('ERR_PLUGIN_INVALID', `plugins ${other} and ${manifest.name} both compile section ${section}`, { plugin: manifest.name });
          owners.set(section, manifest.name);
        }
      }
      return owners;
    },
    async stop() {
      for (const [entry, instance] of [...loaded].reverse()) {
        // One that could not be loaded has nothing to stop, and was reported then.
        const made = await instance.catch(() => undefined);
        try {
          if (made?.stop) await withDeadline(entry, 'stop', made.stop());
        } catch (error) {
          log.warn({ plugin: entry.manifest.name, err: error }, 'plugin did not stop');
        }
      }
    },
  };
}
