import { type ContainerRecord, type ContainerRequest } from '@engine/core/api';
import { type LinuxResources } from '@engine/core/spec';
import { describe, expect, it } from 'vitest';
import { type HostDevice } from './host-view.ts';
import { compileResources, compileUpdate, mergeLimits } from './limits.ts';

type Limits = ContainerRequest['limits'];
const MiB = 1 << 20;
const disk: HostDevice = { type: 'b', major: 8, minor: 16, mode: 0o660, uid: 0, gid: 6 };
const device = (path: string): HostDevice | undefined => (path === '/dev/sdb' ? disk : path === '/dev/null' ? { ...disk, type: 'c', major: 1, minor: 3 } : undefined);
const asked = (limits: Limits): ContainerRequest => ({ limits, privileged: true, deviceCgroupRules: [] }) as unknown as ContainerRequest;
const resources = (limits: Limits): LinuxResources => {
  const { devices: _, ...rest } = compileResources(asked(limits), { cpus: 2, honours: () => true, device }, []);
  return rest;
};
const refused = (code: string, message: string): object => expect.objectContaining({ code, message }) as object;
const thrown = (work: () => unknown): unknown => {
  try {
    return work();
  } catch (error) {
    return error;
  }
};

describe('limits of devices', () => {
  it('name them by number', () => {
    expect(resources({ blkioWeight: 300, blkioWeightDevice: [{ path: '/dev/sdb', weight: 500 }], deviceReadBps: [{ path: '/dev/sdb', rate: MiB }], deviceWriteBps: [{ path: '/dev/sdb', rate: 0 }], deviceReadIops: [{ path: '/dev/sdb', rate: 10 }], deviceWriteIops: [{ path: '/dev/sdb', rate: 20 }] })).toEqual({
      blockIO: {
        weight: 300, weightDevice: [{ major: 8, minor: 16, weight: 500 }], throttleReadBpsDevice: [{ major: 8, minor: 16, rate: MiB }], throttleWriteBpsDevice: [{ major: 8, minor: 16, rate: 0 }],
        throttleReadIOPSDevice: [{ major: 8, minor: 16, rate: 10 }], throttleWriteIOPSDevice: [{ major: 8, minor: 16, rate: 20 }],
      },
    });
  });
  it.each<[Limits, string]>([
    [{ deviceReadBps: [{ path: '/dev/nope', rate: 1 }] }, 'no such device: /dev/nope'], [{ deviceReadIops: [{ path: '/dev/null', rate: 1 }] }, '/dev/null is not a block device'],
    [{ blkioWeightDevice: [{ path: '/dev/sdb', weight: 5 }] }, 'invalid weight for device: /dev/sdb:5: range of blkio weight is from 10 to 1000'], [{ deviceWriteBps: [{ path: '/dev/sdb', rate: -1 }] }, 'invalid rate for device: /dev/sdb:-1'],
    [{ blkioWeight: 5 }, 'range of blkio weight is from 10 to 1000'],
  ])('refuse %j', (limits, text) => expect(thrown(() => resources(limits))).toEqual(refused('ERR_INVALID_VALUE', text)));
});

describe('other limits', () => {
  it('take real-time and files of cgroup v2', () => {
    expect(resources({ cpuRealtimePeriod: 1000, cpuRealtimeRuntime: 900, unified: { 'memory.high': '64M' } })).toEqual({ cpu: { realtimePeriod: 1000, realtimeRuntime: 900 }, unified: { 'memory.high': '64M' } });
  });
  it.each<[Limits, string]>([
    [{ cpuRealtimePeriod: 10, cpuRealtimeRuntime: 11 }, 'cpu real-time runtime cannot be higher than cpu real-time period'], [{ cpuRealtimeRuntime: -1 }, 'cpu real-time period and runtime cannot be negative'],
    [{ unified: { '../x': '1' } }, 'invalid --cgroup-conf ../x: a file of cgroup v2 such as memory.high is expected'], [{ unified: { 'a/memory.max': '1' } }, 'invalid --cgroup-conf a/memory.max: a file of cgroup v2 such as memory.high is expected'],
  ])('refuse %j', (limits, text) => expect(thrown(() => resources(limits))).toEqual(refused('ERR_INVALID_VALUE', text)));
});

describe('changes', () => {
  it('leave what they do not name, and what zeros name', () => {
    expect(mergeLimits({ memory: 64 * MiB, cpuShares: 5, cpusetCpus: '0' }, 128 * MiB, { cpuShares: 0, cpusetCpus: '', pids: 3 })).toEqual({ memory: 64 * MiB, cpuShares: 5, cpusetCpus: '0', pids: 3 });
  });
  it('keep the swap that was chosen, and lift the limit on processes', () => {
    expect(mergeLimits({ memory: 64 * MiB }, 128 * MiB, { memory: 100 * MiB })).toEqual({ memory: 100 * MiB, memorySwap: 128 * MiB });
    expect(mergeLimits({}, undefined, { memory: 100 * MiB })).toEqual({ memory: 100 * MiB });
    expect(mergeLimits({ memory: 64 * MiB, memorySwap: -1 }, -1, { memory: 100 * MiB })).toEqual({ memory: 100 * MiB, memorySwap: -1 });
    expect(mergeLimits({ pids: 5 }, undefined, { pids: 0 })).toEqual({ pids: 0 });
  });
  it('go device by device and file by file', () => {
    expect(mergeLimits({ deviceReadBps: [{ path: '/dev/a', rate: 1 }, { path: '/dev/b', rate: 2 }], unified: { 'memory.high': '1' } }, undefined, { deviceReadBps: [{ path: '/dev/b', rate: 0 }], unified: { 'memory.low': '2' } })).toEqual({
      deviceReadBps: [{ path: '/dev/a', rate: 1 }, { path: '/dev/b', rate: 0 }], unified: { 'memory.high': '1', 'memory.low': '2' },
    });
  });
  it.each<[Limits, number | undefined, Limits, string]>([
    [{ memory: 64 * MiB }, 128 * MiB, { memory: 200 * MiB }, 'memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time'],
    [{ cpuPeriod: 1000 }, undefined, { nanoCpus: 1e9 }, 'conflicting options: nano CPUs cannot be updated as CPU period has already been set'], [{ cpuQuota: 1000 }, undefined, { nanoCpus: 1e9 }, 'conflicting options: nano CPUs cannot be updated as CPU quota has already been set'],
    [{ nanoCpus: 1e9 }, undefined, { cpuPeriod: 1000 }, 'conflicting options: CPU period cannot be updated as nano CPUs has already been set'], [{ nanoCpus: 1e9 }, undefined, { cpuQuota: 1000 }, 'conflicting options: CPU quota cannot be updated as nano CPUs has already been set'],
  ])('of %j (swap %j) by %j are refused', (old, swap, changes, text) => expect(thrown(() => mergeLimits(old, swap, changes))).toEqual(refused('ERR_INVALID_VALUE', text)));

  const update = (limits: Limits, old: LinuxResources, changes: Limits) =>
    compileUpdate({ container: { request: asked(limits) } as ContainerRecord, changes, honoured: ['memory', 'cpu', 'pids', 'blockIO'], limits, resources: old }, { cpus: 2, device, read: (path) => (path === '/sys/devices/system/cpu/online' ? '0-1\n' : undefined) });
  it('are compiled as for a new container, beside what others have put there', () => {
    const old: LinuxResources = { devices: [{ allow: true }], memory: { limit: 64 * MiB, swap: 128 * MiB, kernelTCP: 5 }, pids: { limit: 5 }, hugepageLimits: [{ pageSize: '2MB', limit: 0 }] };
    const { limits, resources: now } = update({ memory: 64 * MiB, pids: 5 }, old, { memory: 100 * MiB, pids: -1, cpuShares: 512 });
    expect(limits).toEqual({ memory: 100 * MiB, memorySwap: 128 * MiB, pids: -1, cpuShares: 512 });
    expect(now).toEqual({ devices: [{ allow: true }], memory: { limit: 100 * MiB, swap: 128 * MiB, kernelTCP: 5 }, cpu: { shares: 512 }, hugepageLimits: [{ pageSize: '2MB', limit: 0 }] });
  });
  it('of a container without limits give what a new one would have', () => {
    expect(update({}, { devices: [] }, { memory: 64 * MiB }).resources).toEqual({ devices: [], memory: { limit: 64 * MiB, swap: 128 * MiB } });
  });
  it('name only CPUs that are there', () => {
    expect(update({}, {}, { cpusetCpus: '0,1', cpusetMems: '7' }).resources.cpu).toEqual({ cpus: '0,1', mems: '7' });
    expect(thrown(() => update({}, {}, { cpusetCpus: '0-2' }))).toEqual(refused('ERR_INVALID_VALUE', 'requested CPUs are not available - requested 0-2, available: 0-1'));
    expect(thrown(() => update({}, {}, { cpusetCpus: '1-0' }))).toMatchObject({ code: 'ERR_INVALID_VALUE' });
  });
  it('are refused in the same words', () => {
    for (const changes of [{ memory: MiB }, { memorySwap: 32 * MiB }, { cpuPeriod: 1 }, { nanoCpus: 3e9 }, { cpusetCpus: 'x' }, { pids: -2 }]) {
      const wrong = thrown(() => update({ memory: 64 * MiB }, { memory: { limit: 64 * MiB, swap: 128 * MiB } }, changes));
      expect(wrong).toMatchObject({ code: 'ERR_INVALID_VALUE' });
    }
  });
});
