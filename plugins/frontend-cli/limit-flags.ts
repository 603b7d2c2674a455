import { availableParallelism } from 'node:os';
import { isAbsolute, normalize } from 'node:path';
import { type ContainerRequest, type DeviceRate } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { type Flags, type Values } from './parse.ts';
import { invalid, parseBytes, parseCpus, parseInteger, splitOnce } from './units.ts';

/** What `run`, `create` and `update` have in common. Names and meaning are Docker's; `cgroup-conf` is podman's. */
export const limitFlags = {
  'blkio-weight': { type: 'string', value: 'N', help: 'block IO weight, 10 to 1000' },
  'blkio-weight-device': { type: 'list', value: 'DEVICE:N', help: 'block IO weight on a device' },
  'cgroup-conf': { type: 'list', value: 'FILE=VALUE', help: 'write a file of its cgroup (v2), e.g. memory.high=64M' },
  'cpu-period': { type: 'string', value: 'US', help: 'length of a CFS period in µs' },
  'cpu-quota': { type: 'string', value: 'US', help: 'CPU time per period in µs; -1 for unlimited' },
  'cpu-rt-period': { type: 'string', value: 'US', help: 'length of a real-time period in µs' },
  'cpu-rt-runtime': { type: 'string', value: 'US', help: 'real-time CPU time per period in µs' },
  'cpu-shares': { type: 'string', short: 'c', value: 'N', help: 'relative CPU weight (1024 is usual)' },
  cpus: { type: 'string', value: 'N', help: 'number of CPUs, e.g. 0.5' },
  'cpuset-cpus': { type: 'string', value: 'LIST', help: 'CPUs to run on, e.g. 0-3,7' },
  'cpuset-mems': { type: 'string', value: 'LIST', help: 'memory nodes to use' },
  'device-read-bps': { type: 'list', value: 'DEVICE:RATE', help: 'bytes read from a device per second, e.g. /dev/sda:1mb' },
  'device-read-iops': { type: 'list', value: 'DEVICE:N', help: 'reads from a device per second' },
  'device-write-bps': { type: 'list', value: 'DEVICE:RATE', help: 'bytes written to a device per second' },
  'device-write-iops': { type: 'list', value: 'DEVICE:N', help: 'writes to a device per second' },
  'kernel-memory': { type: 'string', value: 'SIZE', help: 'accepted and discarded: kernels since 5.16 have no such limit' },
  memory: { type: 'string', short: 'm', value: 'SIZE', help: 'memory limit' },
  'memory-reservation': { type: 'string', value: 'SIZE', help: 'soft memory limit' },
  'memory-swap': { type: 'string', value: 'SIZE', help: 'memory and swap together; -1 for unlimited swap' },
  'memory-swappiness': { type: 'string', value: 'N', help: '0 to 100' },
  'oom-kill-disable': { type: 'boolean', help: 'let processes wait instead of being killed' },
  'pids-limit': { type: 'string', value: 'N', help: 'most processes; -1 for unlimited' },
} as const satisfies Flags;
type LimitValues = Partial<Values<typeof limitFlags>>;

/** `DEVICE:VALUE`. */
function ofDevice(flag: string, text: string): { path: string; value: string } {
  const parts = text.split(':');
  const [path = '', value = ''] = parts;
  if (parts.length !== 2 || value === '') throw invalid(flag, text, 'DEVICE:VALUE is expected');
  if (!isAbsolute(path) || !normalize(path).startsWith('/dev/')) throw invalid(flag, text, 'the path of a device below /dev is expected');
  return { path: normalize(path), value };
}
function weights(items: readonly string[] | undefined): { path: string; weight: number }[] | undefined {
  const flag = '--blkio-weight-device';
  return items?.map((text) => {
    const { path, value } = ofDevice(flag, text);
    const weight = parseInteger(flag, value, 0, 1000);
    if (weight > 0 && weight < 10) throw invalid(flag, text, 'a weight from 10 to 1000 is expected');
    return { path, weight };
  });
}
const rates = (flag: string, items: readonly string[] | undefined, parse: typeof parseBytes | typeof parseInteger): DeviceRate[] | undefined => items?.map((text) => {
  const { path, value } = ofDevice(flag, text);
  return { path, rate: parse(flag, value) };
});
function conf(items: readonly string[] | undefined): Record<string, string> | undefined {
  return items && Object.fromEntries(items.map((text) => {
    const [name, value] = splitOnce(text, '=');
    if (name === '' || value === undefined) throw invalid('--cgroup-conf', text, 'FILE=VALUE is expected');
    return [name, value];
  }));
}

/** What the flags say of limits, and only that. `cpus`: of this machine. Errors: ERR_INVALID_VALUE, ERR_USAGE. */
export function parseLimits(flags: LimitValues, cpus = availableParallelism()): ContainerRequest['limits'] {
  const bytes = (flag: 'memory' | 'memory-reservation' | 'kernel-memory'): number | undefined => (flags[flag] === undefined ? undefined : parseBytes(`--${flag}`, flags[flag]));
  const integer = (flag: 'cpu-shares' | 'cpu-period' | 'cpu-quota' | 'cpu-rt-period' | 'cpu-rt-runtime' | 'memory-swappiness' | 'blkio-weight' | 'pids-limit', least: number, most?: number): number | undefined =>
    flags[flag] === undefined ? undefined : parseInteger(`--${flag}`, flags[flag], least, most);
  const swap = flags['memory-swap'];
  const nanoCpus = flags.cpus === undefined ? undefined : parseCpus(flags.cpus, cpus);
  if (nanoCpus && (flags['cpu-quota'] ?? flags['cpu-period'])) throw fail('ERR_USAGE', '--cpus excludes --cpu-period and --cpu-quota', { hint: 'use one way to say it' });
  for (const flag of ['cpuset-cpus', 'cpuset-mems'] as const) {
    const text = flags[flag];
    if (text && !/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(text)) throw invalid(`--${flag}`, text, 'a list such as 0-3,7 is expected');
  }
  bytes('kernel-memory');
  const all = {
    memory: bytes('memory'), memoryReservation: bytes('memory-reservation'), memorySwap: swap === undefined ? undefined : swap === '-1' ? -1 : parseBytes('--memory-swap', swap),
    nanoCpus: nanoCpus || undefined, cpuShares: integer('cpu-shares', 0, 262144), cpuPeriod: integer('cpu-period', 0, 1_000_000), cpuQuota: integer('cpu-quota', -1),
    cpuRealtimePeriod: integer('cpu-rt-period', 0), cpuRealtimeRuntime: integer('cpu-rt-runtime', 0),
    cpusetCpus: flags['cpuset-cpus'], cpusetMems: flags['cpuset-mems'], pids: integer('pids-limit', -1), memorySwappiness: integer('memory-swappiness', -1, 100),
    blkioWeight: integer('blkio-weight', 0, 1000), blkioWeightDevice: weights(flags['blkio-weight-device']), oomKillDisable: flags['oom-kill-disable'] ? true : undefined,
    deviceReadBps: rates('--device-read-bps', flags['device-read-bps'], parseBytes), deviceWriteBps: rates('--device-write-bps', flags['device-write-bps'], parseBytes),
    deviceReadIops: rates('--device-read-iops', flags['device-read-iops'], parseInteger), deviceWriteIops: rates('--device-write-iops', flags['device-write-iops'], parseInteger),
    unified: conf(flags['cgroup-conf']),
  };
  const isSaid = (value: unknown): boolean => value !== undefined && !(typeof value === 'object' && value !== null && Object.keys(value).length === 0);
  return Object.fromEntries(Object.entries(all).filter(([, value]) => isSaid(value))) as ContainerRequest['limits'];
}

/** What is to be said about flags that do nothing. */
export function discarded(flags: LimitValues): readonly string[] {
  return flags['kernel-memory'] === undefined ? [] : ['--kernel-memory is deprecated and discarded: kernels since 5.16 have no such limit, use --memory'];
}
