import { fail, isEngineError } from '../errors/index.ts';
import { type Contracts } from '../plugin/index.ts';
import { type ContainerRecord, type DriverChoice } from '../api/index.ts';
import { type VolumeRecord } from '../state/index.ts';
import { type PluginEntry, type Registry, type ResolvedDriver } from './parts.ts';

/** Contracts of which a container has one driver each. */
const ONE = ['storage', 'cgroup', 'network', 'log'] as const;
type One = (typeof ONE)[number];
/** The drivers that made a container, loaded. */
export type ContainerDrivers = { readonly [C in One]?: ResolvedDriver<Contracts[C]> } & { readonly security: readonly ResolvedDriver<Contracts['security']>[] };

/**
 * Those of a container; `only` these, so that a verb doesn't fail for want of a plugin that it doesn't need. Errors: ERR_PLUGIN_MISSING
 * names the plugin that made the container and isn't loaded any more.
 */
export async function driversOf(registry: Registry, { drivers }: ContainerRecord, only: readonly (keyof ContainerDrivers)[] = [...ONE, 'security']): Promise<ContainerDrivers> {
  const find = <C extends One | 'security'>(contract: C, choice: DriverChoice) => registry.resolveDriver(contract, choice.driver, choice);
  const found: Partial<Record<One, ResolvedDriver>> = {};
  for (const contract of ONE) {
    const choice = drivers[contract];
    if (choice && only.includes(contract)) found[contract] = await find(contract, choice);
  }
  return { ...(found as Omit<ContainerDrivers, 'security'>), security: only.includes('security') ? await Promise.all(drivers.security.map((choice) => find('security', choice))) : [] };
}
const resolved = (drivers: ContainerDrivers): [One, ResolvedDriver][] => ONE.flatMap((contract) => (drivers[contract] ? [[contract, drivers[contract]]] : []));
export function entriesOf(drivers: ContainerDrivers): PluginEntry[] {
  return [...resolved(drivers).map(([, { entry }]) => entry), ...drivers.security.map(({ entry }) => entry)];
}
/** For the record. */
export function choicesOf(drivers: ContainerDrivers): ContainerRecord['drivers'] {
  return { ...Object.fromEntries(resolved(drivers).map(([contract, { choice }]) => [contract, choice])), security: drivers.security.map(({ choice }) => choice) };
}
/** That of a volume which exists already. Errors: ERR_PLUGIN_MISSING. */
export function volumeDriver(registry: Registry, { driver, plugin, version }: Pick<VolumeRecord, 'driver' | 'plugin' | 'version'>): Promise<ResolvedDriver<Contracts['volume']>> {
  return registry.resolveDriver('volume', driver, { driver, plugin, version, options: '' });
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
