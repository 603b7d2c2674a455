import { fail } from '@engine/core/errors';
import { type ContainerRequest } from '@engine/core/api';
import { type DeviceRule, type LinuxResources } from '@engine/core/spec';

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

function cpu(limits: ContainerRequest['limits'], cpus: number): LinuxResources['cpu'] {
  const { nanoCpus = 0, cpuPeriod = 0, cpuQuota = 0, cpuShares = 0, cpusetCpus, cpusetMems } = limits;
  if (nanoCpus !== 0 && (cpuPeriod !== 0 || cpuQuota !== 0)) throw invalid('cpus', 'conflicting options: --cpus and --cpu-period or --cpu-quota cannot both be set');
  if (nanoCpus < 0 || (nanoCpus > 0 && nanoCpus < 1e7) || nanoCpus > cpus * 1e9) throw invalid('cpus', `range of CPUs is from 0.01 to ${cpus}.00, as there are only ${cpus} CPUs available`);
  if (cpuPeriod !== 0 && (cpuPeriod < 1000 || cpuPeriod > 1_000_000)) throw invalid('cpu-period', 'CPU cfs period must be between 1ms and 1s');
  if (cpuQuota > 0 && cpuQuota < 1000) throw invalid('cpu-quota', 'CPU cfs quota cannot be less than 1ms');
  if (cpuShares < 0) throw invalid('cpu-shares', `invalid CPU shares (${cpuShares}): value must be a positive integer`);
  for (const [flag, list] of [['cpuset-cpus', cpusetCpus], ['cpuset-mems', cpusetMems]] as const) {
    if (list && !cpuList.test(list)) throw invalid(flag, `invalid value ${list} for ${flag}`);
  }
  const result: NonNullable<LinuxResources['cpu']> = {};
  if (cpuShares > 0) result.shares = cpuShares;
  if (nanoCpus > 0) Object.assign(result, { period: CPU_PERIOD, quota: Math.round((nanoCpus * CPU_PERIOD) / 1e9) });
  if (cpuPeriod > 0) result.period = cpuPeriod;
  if (cpuQuota !== 0) result.quota = cpuQuota;
  if (cpusetCpus) result.cpus = cpusetCpus;
  if (cpusetMems) result.mems = cpusetMems;
  return Object.keys(result).length > 0 ? result : undefined;
}

/** What every container may do with devices: make any node, use the harmless ones and its own terminals. */
export const defaultDeviceRules: readonly DeviceRule[] = [
  { allow: false, access: 'rwm' },
  { allow: true, type: 'c', access: 'm' },
  { allow: true, type: 'b', access: 'm' },
  ...[[1, 3], [1, 5], [1, 7], [1, 8], [1, 9], [5, 0], [5, 2]].map(([major, minor]): DeviceRule => ({ allow: true, type: 'c', major: major as number, minor: minor as number, access: 'rwm' })),
  { allow: true, type: 'c', major: 136, access: 'rwm' },
];

/** `--device-cgroup-rule`: `c 1:3 rwm`. Errors: ERR_INVALID_VALUE. */
export function parseDeviceRule(text: string): DeviceRule {
  const match = /^([acb]) (\d{1,7}|\*):(\d{1,7}|\*) ([rwm]{1,3})$/.exec(text);
  if (!match) throw invalid('device-cgroup-rule', `invalid device cgroup format: '${text}'`);
  const [, type, major, minor, access] = match as unknown as [string, 'a' | 'b' | 'c', string, string, string];
  return { allow: true, type, ...(major === '*' ? {} : { major: Number(major) }), ...(minor === '*' ? {} : { minor: Number(minor) }), access };
}

/** The spec's resources from the user's limits. `cpus`: how many this machine has; `honours`: what the cgroup driver can limit. */
export function compileResources(request: ContainerRequest, machine: { readonly cpus: number; honours(field: string): boolean }, devices: readonly DeviceRule[]): LinuxResources {
  const { limits } = request;
  const result: LinuxResources = {
    devices: request.privileged ? [{ allow: true, access: 'rwm' }] : [...defaultDeviceRules, ...devices, ...request.deviceCgroupRules.map(parseDeviceRule)],
  };
  const mem = memory(limits, machine.honours('memory.swap'));
  const cpuPart = cpu(limits, machine.cpus);
  if (mem) result.memory = mem;
  if (cpuPart) result.cpu = cpuPart;
  if (limits.pids !== undefined && limits.pids < -1) throw invalid('pids-limit', `invalid pids limit: ${limits.pids}`);
  if (limits.pids !== undefined && limits.pids > 0) result.pids = { limit: limits.pids };
  if (limits.blkioWeight) {
    if (limits.blkioWeight < 10 || limits.blkioWeight > 1000) throw invalid('blkio-weight', 'range of blkio weight is from 10 to 1000');
    result.blockIO = { weight: limits.blkioWeight };
  }
  return result;
}
