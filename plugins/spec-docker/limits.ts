import { defaultDeviceRules } from '@engine/core/contracts/cgroup';
import { fail } from '@engine/core/errors';
import { type ContainerRequest } from '@engine/core/api';
import { type CompiledUpdate } from '@engine/core/hooks';
import { type DeviceRule, type LinuxResources } from '@engine/core/spec';
import { type HostView } from './host-view.ts';

const MiB = 1 << 20;
const CPU_PERIOD = 100_000;

const invalid = (what: string, message: string): Error => fail('ERR_INVALID_VALUE', message, { operation: what });

/**
 * Memory as Docker computes it: `swap` is memory plus swap; unset it is twice the memory (where the driver can limit it), -1 is unlimited.
 */
function memory(limits: ContainerRequest['limits'], canSwap: boolean): LinuxResources['memory'] {
  const { memory: limit = 0, memorySwap = 0, memoryReservation = 0, memorySwappiness, oomKillDisable } = limits;
  if (limit < 0 || (limit > 0 && limit < 6 * MiB)) throw invalid('memory', 'minimum memory limit allowed is 6MB');
  if (memorySwap > 0 && limit === 0) throw invalid('memory-swap', 'the memory limit must be set when the memory-swap limit is used');
  if (memorySwap > 0 && memorySwap < limit) throw invalid('memory-swap', 'minimum memoryswap limit should be larger than memory limit');
  if (memorySwap < -1) throw invalid('memory-swap', `invalid memory-swap limit: ${memorySwap}`);
  if (memoryReservation < 0 || (memoryReservation > 0 && memoryReservation < 6 * MiB)) throw invalid('memory-reservation', 'minimum memory reservation allowed is 6MB');
  if (limit > 0 && memoryReservation > limit) throw invalid('memory-reservation', 'minimum memory limit can not be less than memory reservation limit');
  if (memorySwappiness !== undefined && memorySwappiness !== -1 && (memorySwappiness < 0 || memorySwappiness > 100)) throw invalid('memory-swappiness', `invalid value: ${memorySwappiness}, valid memory swappiness range is 0-100`);
  const result: NonNullable<LinuxResources['memory']> = {};
  if (limit > 0) result.limit = limit;
  if (memorySwap !== 0) result.swap = memorySwap;
  else if (limit > 0 && canSwap) result.swap = limit * 2;
  if (memoryReservation > 0) result.reservation = memoryReservation;
  if (memorySwappiness !== undefined && memorySwappiness !== -1) result.swappiness = memorySwappiness;
  if (oomKillDisable) result.disableOOMKiller = true;
  return Object.keys(result).length > 0 ? result : undefined;
}

const cpuList = /^\d+(-\d+)?(,\d+(-\d+)?)*$/;

/** The numbers of `0-3,7`. */
function numbersOf(list: string): ReadonlySet<number> {
  return new Set(list.trim().split(',').flatMap((part) => {
    const [from = NaN, to = from] = part.split('-').map(Number);
    return from <= to && to - from < 1 << 16 ? Array.from({ length: to - from + 1 }, (_, i) => from + i) : [];
  }));
}

function cpu(limits: ContainerRequest['limits'], { cpus, online }: LimitsMachine): LinuxResources['cpu'] {
  const { nanoCpus = 0, cpuPeriod = 0, cpuQuota = 0, cpuShares = 0, cpuRealtimePeriod = 0, cpuRealtimeRuntime = 0, cpusetCpus, cpusetMems } = limits;
  if (nanoCpus !== 0 && (cpuPeriod !== 0 || cpuQuota !== 0)) throw invalid('cpus', 'conflicting options: --cpus and --cpu-period or --cpu-quota cannot both be set');
  if (nanoCpus < 0 || (nanoCpus > 0 && nanoCpus < 1e7) || nanoCpus > cpus * 1e9) throw invalid('cpus', `range of CPUs is from 0.01 to ${cpus}.00, as there are only ${cpus} CPUs available`);
  if (cpuPeriod !== 0 && (cpuPeriod < 1000 || cpuPeriod > 1_000_000)) throw invalid('cpu-period', 'CPU cfs period must be between 1ms and 1s');
  if (cpuQuota > 0 && cpuQuota < 1000) throw invalid('cpu-quota', 'CPU cfs quota cannot be less than 1ms');
  if (cpuRealtimePeriod < 0 || cpuRealtimeRuntime < 0) throw invalid('cpu-rt-period', 'cpu real-time period and runtime cannot be negative');
  if (cpuRealtimePeriod !== 0 && cpuRealtimeRuntime > cpuRealtimePeriod) throw invalid('cpu-rt-runtime', 'cpu real-time runtime cannot be higher than cpu real-time period');
  if (cpuShares < 0) throw invalid('cpu-shares', `invalid CPU shares (${cpuShares}): value must be a positive integer`);
  for (const [flag, list, what, kind] of [['cpuset-cpus', cpusetCpus, 'CPUs', 'cpu'], ['cpuset-mems', cpusetMems, 'memory nodes', 'node']] as const) {
    if (!list) continue;
    if (!cpuList.test(list)) throw invalid(flag, `invalid value ${list} for ${flag}`);
    const there = online?.(kind)?.trim();
    const known = there ? numbersOf(there) : undefined;
    const asked = numbersOf(list);
    if (known && (asked.size === 0 || [...asked].some((one) => !known.has(one)))) throw invalid(flag, `requested ${what} are not available - requested ${list}, available: ${there}`);
  }
  const result: NonNullable<LinuxResources['cpu']> = {};
  if (cpuShares > 0) result.shares = cpuShares;
  if (nanoCpus > 0) Object.assign(result, { period: CPU_PERIOD, quota: Math.round((nanoCpus * CPU_PERIOD) / 1e9) });
  if (cpuPeriod > 0) result.period = cpuPeriod;
  if (cpuQuota !== 0) result.quota = cpuQuota;
  if (cpuRealtimePeriod > 0) result.realtimePeriod = cpuRealtimePeriod;
  if (cpuRealtimeRuntime > 0) result.realtimeRuntime = cpuRealtimeRuntime;
  if (cpusetCpus) result.cpus = cpusetCpus;
  if (cpusetMems) result.mems = cpusetMems;
  return Object.keys(result).length > 0 ? result : undefined;
}

/** `--device-cgroup-rule`: `c 1:3 rwm`. Errors: ERR_INVALID_VALUE. */
export function parseDeviceRule(text: string): DeviceRule {
  const match = /^([acb]) (\d{1,7}|\*):(\d{1,7}|\*) ([rwm]{1,3})$/.exec(text);
  if (!match) throw invalid('device-cgroup-rule', `invalid device cgroup format: '${text}'`);
  const [, type, major, minor, access] = match as unknown as [string, 'a' | 'b' | 'c', string, string, string];
  return { allow: true, type, ...(major === '*' ? {} : { major: Number(major) }), ...(minor === '*' ? {} : { minor: Number(minor) }), access };
}

/** What compiling limits reads of this machine. `cpus`: how many it has; `honours`: what the cgroup driver can limit; `device`: of the host, by path. */
export interface LimitsMachine {
  readonly cpus: number;
  honours(field: string): boolean;
  device?: HostView['device'];
  /** The list of CPUs or memory nodes that are there. */
  online?(kind: 'cpu' | 'node'): string | undefined;
}
export const limitsMachine = (host: Pick<HostView, 'cpus' | 'device' | 'read'>, fields: readonly string[]): LimitsMachine => ({
  cpus: host.cpus, honours: (field) => fields.includes(field) || fields.includes(field.split('.')[0] ?? ''), device: (path) => host.device(path), online: (kind) => host.read(`/sys/devices/system/${kind}/online`),
});

type Limits = ContainerRequest['limits'];
const RATES = [
  ['deviceReadBps', 'throttleReadBpsDevice', 'device-read-bps'], ['deviceWriteBps', 'throttleWriteBpsDevice', 'device-write-bps'],
  ['deviceReadIops', 'throttleReadIOPSDevice', 'device-read-iops'], ['deviceWriteIops', 'throttleWriteIOPSDevice', 'device-write-iops'],
] as const;

function blockIO({ blkioWeight = 0, ...limits }: Limits, machine: LimitsMachine): LinuxResources['blockIO'] {
  if (blkioWeight !== 0 && (blkioWeight < 10 || blkioWeight > 1000)) throw invalid('blkio-weight', 'range of blkio weight is from 10 to 1000');
  const numbers = (flag: string, path: string): { major: number; minor: number } => {
    const device = machine.device?.(path);
    if (!device) throw invalid(flag, `no such device: ${path}`);
    if (device.type !== 'b') throw invalid(flag, `${path} is not a block device`);
    return { major: device.major, minor: device.minor };
  };
  const result: NonNullable<LinuxResources['blockIO']> = blkioWeight > 0 ? { weight: blkioWeight } : {};
  if (limits.blkioWeightDevice?.length) {
    result.weightDevice = limits.blkioWeightDevice.map(({ path, weight }) => {
      if (weight !== 0 && (weight < 10 || weight > 1000)) throw invalid('blkio-weight-device', `invalid weight for device: ${path}:${weight}: range of blkio weight is from 10 to 1000`);
      return { ...numbers('blkio-weight-device', path), weight };
    });
  }
  for (const [name, field, flag] of RATES) {
    if (!limits[name]?.length) continue;
    result[field] = limits[name].map(({ path, rate }) => {
      if (!Number.isSafeInteger(rate) || rate < 0) throw invalid(flag, `invalid rate for device: ${path}:${rate}`);
      return { ...numbers(flag, path), rate };
    });
  }
  return Object.keys(result).length > 0 ? result : undefined;
}

/** `--cgroup-conf`: a file of the group's own folder. */
function unified(conf: Limits['unified'] = {}): LinuxResources['unified'] {
  for (const name of Object.keys(conf)) if (!/^[a-z0-9_]+(\.[A-Za-z0-9_]+)+$/.test(name)) throw invalid('cgroup-conf', `invalid --cgroup-conf ${name}: a file of cgroup v2 such as memory.high is expected`);
  return Object.keys(conf).length > 0 ? conf : undefined;
}

/** All of the spec's resources that limits speak of. Errors: ERR_INVALID_VALUE, in Docker's words. */
function compileLimits(limits: Limits, machine: LimitsMachine): Pick<LinuxResources, 'memory' | 'cpu' | 'pids' | 'blockIO' | 'unified'> {
  if (limits.pids !== undefined && limits.pids < -1) throw invalid('pids-limit', `invalid pids limit: ${limits.pids}`);
  const all = {
    memory: memory(limits, machine.honours('memory.swap')), cpu: cpu(limits, machine), pids: limits.pids !== undefined && limits.pids > 0 ? { limit: limits.pids } : undefined,
    blockIO: blockIO(limits, machine), unified: unified(limits.unified),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** The spec's resources from the user's limits. */
export function compileResources(request: ContainerRequest, machine: LimitsMachine, devices: readonly DeviceRule[]): LinuxResources {
  return {
    devices: request.privileged ? [{ allow: true, access: 'rwm' }] : [...defaultDeviceRules, ...devices, ...request.deviceCgroupRules.map(parseDeviceRule)],
    ...compileLimits(request.limits, machine),
  };
}

/** Later over earlier, device by device. */
function byPath<T extends { readonly path: string }>(before: readonly T[] = [], after: readonly T[] = []): T[] {
  return [...new Map([...before, ...after].map((one) => [one.path, one])).values()];
}
/** Nothing was said: Docker's zero values. */
const isSaid = ([name, value]: [string, unknown]): boolean => value !== undefined && value !== '' && (value !== 0 || name === 'pids') && !(Array.isArray(value) && value.length === 0);

/** What a container's limits become with these changes, by Docker's rules. Errors: ERR_INVALID_VALUE. */
export function mergeLimits(old: Limits, swap: number | undefined, changes: Limits): Limits {
  const said = Object.fromEntries(Object.entries(changes).filter(isSaid)) as Limits;
  const conflict = (flag: string, text: string): never => { throw invalid(flag, `conflicting options: ${text} has already been set`); };
  if (said.nanoCpus && old.cpuPeriod) conflict('cpus', 'nano CPUs cannot be updated as CPU period');
  if (said.nanoCpus && old.cpuQuota) conflict('cpus', 'nano CPUs cannot be updated as CPU quota');
  if (said.cpuPeriod && old.nanoCpus) conflict('cpu-period', 'CPU period cannot be updated as nano CPUs');
  if (said.cpuQuota && old.nanoCpus) conflict('cpu-quota', 'CPU quota cannot be updated as nano CPUs');
  const merged: Limits = { ...old, ...said };
  if (said.memory && said.memorySwap === undefined && old.memory && swap !== undefined) {
    // what was chosen when it was made stays
    if (swap !== -1 && said.memory > swap) throw invalid('memory', 'memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time');
    merged.memorySwap = swap;
  }
  if (said.blkioWeightDevice) merged.blkioWeightDevice = byPath(old.blkioWeightDevice, said.blkioWeightDevice);
  for (const [name] of RATES) if (said[name]) merged[name] = byPath(old[name], said[name]);
  if (said.unified) merged.unified = { ...old.unified, ...said.unified };
  return merged;
}

/** `engine update`: what others have put beside the limits of this plugin stays. Errors: ERR_INVALID_VALUE, as for a new container. */
export function compileUpdate(value: CompiledUpdate, host: Pick<HostView, 'cpus' | 'device' | 'read'>): CompiledUpdate {
  const { container: { request }, changes, honoured, resources } = value;
  const machine = limitsMachine(host, honoured);
  const limits = mergeLimits(request.limits, resources.memory?.swap, changes);
  const now = compileLimits(limits, machine);
  const before: Readonly<Record<string, object | undefined>> = compileLimits(request.limits, machine);
  const result: Record<string, unknown> = { ...resources };
  for (const name of ['memory', 'cpu', 'pids', 'blockIO', 'unified'] as const) {
    const others = Object.entries(resources[name] ?? {}).filter(([field]) => !(field in (before[name] ?? {})));
    const section = { ...Object.fromEntries(others), ...now[name] };
    if (Object.keys(section).length > 0) result[name] = section;
    else delete result[name];
  }
  return { ...value, limits, resources: result };
}
