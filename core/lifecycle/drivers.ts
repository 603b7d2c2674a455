import { fail, isEngineError } from '../errors/index.ts';
import { type Contracts } from '../plugin/index.ts';
import { type ContainerRecord, type DriverChoice } from '../api/index.ts';
import { type PluginEntry, type Registry, type ResolvedDriver } from './parts.ts';

/** The drivers that made a container, loaded. */
export interface ContainerDrivers {
  readonly storage?: ResolvedDriver<Contracts['storage']>;
  readonly cgroup?: ResolvedDriver<Contracts['cgroup']>;
  readonly network?: ResolvedDriver<Contracts['network']>;
  readonly log?: ResolvedDriver<Contracts['log']>;
  readonly security: readonly ResolvedDriver<Contracts['security']>[];
}

/**
 * Those of a container; `only` these, so that a verb doesn't fail for want of a plugin that it doesn't need. Errors: ERR_PLUGIN_MISSING
 * names the plugin that made the container and isn't loaded any more.
 */
export async function driversOf(registry: Registry, record: ContainerRecord, only?: readonly (keyof ContainerDrivers)[]): Promise<ContainerDrivers> {
  const wanted = only ? { security: [], ...Object.fromEntries(only.map((contract) => [contract, record.drivers[contract]])) } : record.drivers;
  const { storage, cgroup, network, log, security } = wanted as ContainerRecord['drivers'];
  const find = async <C extends 'storage' | 'cgroup' | 'network' | 'log' | 'security'>(contract: C, choice: DriverChoice) => registry.resolveDriver(contract, choice.driver, choice);
  return {
    ...(storage && { storage: await find('storage', storage) }),
    ...(cgroup && { cgroup: await find('cgroup', cgroup) }),
    ...(network && { network: await find('network', network) }),
    ...(log && { log: await find('log', log) }),
    security: await Promise.all(security.map((choice) => find('security', choice))),
  };
}
export function entriesOf(drivers: ContainerDrivers): PluginEntry[] {
  const { storage, cgroup, network, log, security } = drivers;
  return [storage, cgroup, network, log, ...security].flatMap((d) => (d ? [d.entry] : []));
}

/** `work` with the driver, or undefined and a word of warning when its plugin is gone: kill and rm must still work. */
export async function ifLoaded<T>(work: () => Promise<T>, onMissing: (error: Error) => void): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!isEngineError(error, 'ERR_PLUGIN_MISSING') && !isEngineError(error, 'ERR_PLUGIN_INVALID') && !isEngineError(error, 'ERR_PLUGIN_FAILED')) throw error;
    onMissing(error);
    return undefined;
  }
}

export function need<T>(found: T | undefined, contract: string, record: ContainerRecord): T {
  if (found === undefined) throw fail('ERR_DRIVER_UNAVAILABLE', `container ${record.name} has no ${contract} driver`);
  return found;
}
