import { type Machine, type MachineMount } from '@engine/core/contracts/common';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { cgroupSuite } from '@engine/core/contracts/cgroup/suite';
import { type GroupRequest } from '@engine/core/contracts/cgroup';
import { type Step } from '@engine/core/plan';
import { describe, expect, it } from 'vitest';
import { deviceRules, formatDeviceRule } from './devices.ts';
import { parentOf } from '@engine/native/cgroups';
import { createCgroupV1 } from './driver.ts';
import { findHierarchies } from './hierarchies.ts';

let id = 100;
const mount = (type: 'cgroup' | 'cgroup2', target: string, superOptions: string[], more: Partial<MachineMount> = {}): MachineMount => ({
  id: id++, parent: 1, device: `0:${id}`, root: '/', target, options: ['rw', 'relatime'], propagation: [], type, source: 'cgroup', superOptions: ['rw', ...superOptions], ...more,
});
const files: Record<string, string> = {
  '/sys/fs/cgroup/cpuset/cpuset.cpus': '0-3\n', '/sys/fs/cgroup/cpuset/cpuset.mems': '0\n', '/sys/fs/cgroup/cpuset/there/cpuset.cpus': '2-3\n', '/sys/fs/cgroup/cpuset/there/cpuset.mems': '0\n',
  '/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes': '1', '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '-1', '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_burst_us': '0', '/sys/fs/cgroup/cpu,cpuacct/cpu.idle': '0',
  '/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device': '', '/sys/fs/cgroup/blkio/blkio.bfq.io_service_bytes': '',
  '/sys/fs/cgroup/unified/cgroup.controllers': 'hugetlb\n', '/sys/fs/cgroup/unified/cgroup.subtree_control': 'hugetlb\n',
};
const hybrid: Partial<Machine> = {
  mounts: [
    ...['cpuset', 'memory', 'devices', 'freezer', 'blkio', 'pids'].map((name) => mount('cgroup', `/sys/fs/cgroup/${name}`, [name])),
    mount('cgroup', '/sys/fs/cgroup/cpu,cpuacct', ['cpu', 'cpuacct']), mount('cgroup', '/sys/fs/cgroup/systemd', ['xattr', 'name=systemd']), mount('cgroup2', '/sys/fs/cgroup/unified', ['nsdelegate']),
  ],
  read: (path) => files[path],
};
const run = { container: 'c', run: 'r1', instance: 'engine-0a', runFolder: '/run/x', explain: false };
const driver = (machine: Partial<Machine> = hybrid) => createCgroupV1({ machine: fakeMachine({ root: '/r', runRoot: '/rr' }, machine), instance: 'engine-0a' });
const plan = async (request: Partial<GroupRequest> = {}, machine?: Partial<Machine>): Promise<readonly Step[]> => driver(machine).planGroup({ resources: {}, ownNamespace: true, ...request }, run);
/** What is written where: `memory/memory.limit_in_bytes=…`. */
const written = (steps: readonly Step[]): string[] => steps.filter(({ operation }) => operation.name === 'writeFile').map(({ operation: { args } }) => `${String(args['path']).replace('/sys/fs/cgroup/', '').replace('/engine-0a-r1', '')}=${Buffer.from(args['data'] as Uint8Array).toString()}`);

describeSuite('v1 on a fake hybrid machine', cgroupSuite, { bench: () => fakeBench({ machine: hybrid }), create: createCgroupV1 });
describeSuite('v1 on a machine without v1', cgroupSuite, { bench: () => fakeBench(), create: createCgroupV1 });
const alone = { mounts: [mount('cgroup', '/cg/devices', ['devices'])], read: () => undefined };
describeSuite('v1 with one controller, mounted elsewhere', cgroupSuite, { bench: () => fakeBench({ machine: alone }), create: createCgroupV1 });

describe('hierarchies', () => {
  it('are found once each, wherever they are mounted', () => {
    const twice = mount('cgroup', '/a', ['memory']);
    const found = findHierarchies({ ...fakeMachine({ root: '', runRoot: '' }), mounts: [{ ...twice, root: '/docker/x', target: '/part' }, twice, { ...twice, target: '/b' }, mount('cgroup', '/sys/fs/cgroup/cpu,cpuacct', ['cpu', 'cpuacct'])] });
    expect(found.map(({ target, controllers }) => [target, controllers])).toEqual([['/a', ['memory']], ['/sys/fs/cgroup/cpu,cpuacct', ['cpu', 'cpuacct']]]);
  });
  it('read-only ones are of no use', async () => {
    expect(await driver({ mounts: [mount('cgroup', '/a', ['pids'], { options: ['ro'] })], read: () => undefined }).probe(fakeMachine({ root: '', runRoot: '' }, { mounts: [mount('cgroup', '/a', ['pids'], { options: ['ro'] })] }))).toMatchObject({ available: false });
  });
  it('joins the unified one only for what it must limit there', async () => {
    const folders = (steps: readonly Step[]) => steps.filter(({ operation }) => operation.name === 'mkdir').map(({ operation }) => String(operation.args['path']));
    expect(folders(await plan()).some((path) => path.includes('unified'))).toBe(false);
    const huge = await plan({ resources: { hugepageLimits: [{ pageSize: '2MB', limit: 2 << 20 }] } });
    expect(folders(huge)[0]).toContain('/unified/');
    expect(written(huge)).toContain('unified/hugetlb.2MB.max=2097152');
    await expect(plan({ resources: { hugepageLimits: [{ pageSize: '2MB', limit: 0 }] } }, { ...hybrid, read: (path) => (path.endsWith('subtree_control') ? '' : files[path]) })).rejects.toMatchObject({ code: 'ERR_FEATURE_MISSING', hint: expect.stringContaining('subtree_control') as string });
  });
});

describe('limits', () => {
  it('are written in the order the kernel wants', async () => {
    const lines = written(await plan({ resources: {
      memory: { limit: 64 << 20, swap: 128 << 20, reservation: 32 << 20, swappiness: 10, disableOOMKiller: true }, cpu: { shares: 512, period: 50_000, quota: 25_000, burst: 5_000, cpus: '1', idle: 0 },
      pids: { limit: 100 }, blockIO: { weight: 300, throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1000 }] },
    } }));
    const expected = [
      'cpuset/cpuset.cpus=1', 'cpuset/cpuset.mems=0', 'cpu,cpuacct/cpu.shares=512', 'cpu,cpuacct/cpu.cfs_period_us=50000', 'cpu,cpuacct/cpu.cfs_quota_us=25000', 'cpu,cpuacct/cpu.cfs_burst_us=5000', 'cpu,cpuacct/cpu.idle=0',
      'memory/memory.limit_in_bytes=67108864', 'memory/memory.memsw.limit_in_bytes=134217728', 'memory/memory.soft_limit_in_bytes=33554432', 'memory/memory.swappiness=10', 'memory/memory.oom_control=1',
      'blkio/blkio.bfq.weight=300', 'blkio/blkio.throttle.read_bps_device=8:0 1000', 'pids/pids.max=100',
    ];
    expect(lines).toEqual(expected);
  });
  it('copies CPUs and memory nodes of the parent into a new cpuset, and into parents that are made', async () => {
    expect(written(await plan())).toEqual(['cpuset/cpuset.cpus=0-3', 'cpuset/cpuset.mems=0']);
    expect(written(await plan({ path: 'there' }))).toEqual(['cpuset/there/cpuset.cpus=2-3', 'cpuset/there/cpuset.mems=0']);
    expect(written(await plan({ path: '/there/new' }))).toEqual(['cpuset/there/new/cpuset.cpus=2-3', 'cpuset/there/new/cpuset.mems=0', 'cpuset/there/new/cpuset.cpus=2-3', 'cpuset/there/new/cpuset.mems=0']);
  });
  it('a memory limit too small for init says so', async () => {
    await expect(plan({ resources: { memory: { limit: 4 << 20 } } })).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', message: expect.stringContaining('too few for a process') as string, hint: expect.stringContaining('6 MiB') as string });
  });
  it('refuses by field what this machine lacks', async () => {
    for (const [resources, field] of [[{ network: { classID: 1 } }, 'network.classID'], [{ cpu: { realtimeRuntime: 1 } }, 'cpu.realtimeRuntime'], [{ memory: { kernel: 1 << 24 } }, 'memory.kernel'], [{ unified: { 'memory.max': '1' } }, 'unified']] as const) {
      await expect(plan({ resources: resources as GroupRequest['resources'] })).rejects.toMatchObject({ code: 'ERR_FEATURE_MISSING', path: field });
    }
  });
  it('spells device rules', () => {
    expect(formatDeviceRule({ allow: false, access: 'rwm' })).toBe('a *:* rwm');
    expect(formatDeviceRule({ allow: true, type: 'c', major: 136, access: 'rw' })).toBe('c 136:* rw');
    expect(formatDeviceRule({ allow: true, type: 'b', major: -1, minor: 3 })).toBe('b *:3 rwm');
    expect(() => formatDeviceRule({ allow: true, type: 'c', access: 'x' })).toThrow(/access/);
    expect(() => formatDeviceRule({ allow: true, type: 'c', major: -2 })).toThrow();
  });
});

describe('device lists', () => {
  const lines = (...rules: Parameters<typeof deviceRules>[0]) => deviceRules(rules).map((rule) => `${rule.allow ? '+' : '-'}${formatDeviceRule(rule)}`);
  it('begin with everything denied', () => {
    expect(lines()).toEqual([]);
    expect(lines({ allow: true, type: 'c', major: 1, minor: 3 })).toEqual(['-a *:* rwm', '+c 1:3 rwm']);
    expect(lines({ allow: true })).toEqual(['+a *:* rwm']);
  });
  it('that the kernel cannot keep are refused', () => {
    const wide = { allow: true, type: 'c', major: 1 } as const;
    expect(() => lines(wide, { allow: false, type: 'c', major: 1, minor: 5 })).toThrow(expect.objectContaining({ code: 'ERR_FEATURE_MISSING', path: 'devices' }) as Error);
    expect(() => lines({ allow: true }, { allow: false, type: 'c' }, { allow: true, type: 'c', major: 1 })).toThrow(/a part of/);
    // exactly the same devices, another kind, or accesses that do not meet
    expect(lines(wide, { ...wide, allow: false, access: 'w' }, { allow: false, type: 'b', major: 1, minor: 5 })).toHaveLength(4);
    expect(lines({ ...wide, access: 'r' }, { allow: false, type: 'c', major: 1, minor: 5, access: 'w' })).toHaveLength(3);
  });
});

describe('order and names', () => {
  it('kills through the freezer first and joins it first', async () => {
    const steps = await plan();
    expect(steps.filter(({ operation }) => operation.name === 'mkdir').at(-1)?.operation.args['path']).toBe('/sys/fs/cgroup/freezer/engine-0a-r1');
    const first = steps.find(({ slot }) => slot === 'init.cgroup')?.operation.args['fd'];
    expect(steps.find(({ operation }) => operation.args['out'] === first)?.operation.args['path']).toBe('/sys/fs/cgroup/freezer/engine-0a-r1/tasks');
  });
  it('reads the OOM counters before the group goes', async () => {
    const memory = (await plan()).find(({ operation }) => String(operation.args['path']).startsWith('/sys/fs/cgroup/memory/') && operation.name === 'mkdir');
    expect(memory?.undo.map(({ name }) => name)).toEqual(['memoryEvents', 'cgroupRemove']);
  });
  it('cleans parents', () => {
    expect([parentOf(undefined), parentOf('/'), parentOf('/a//b/'), parentOf('a')]).toEqual(['', '', 'a/b', 'a']);
    expect(() => parentOf('system.slice:docker:x')).toThrow(/systemd/);
  });
  it('shows co-mounted controllers under their own name', () => {
    const mounts = driver().mounts({ resources: {}, ownNamespace: true });
    expect(mounts.find(({ destination }) => destination.endsWith('/cpu,cpuacct'))?.options).toEqual(expect.arrayContaining(['ro', 'cpu', 'cpuacct']));
    expect(mounts.find(({ destination }) => destination.endsWith('/systemd'))?.options).toContain('name=systemd');
    expect(mounts.some(({ destination }) => destination.endsWith('/unified'))).toBe(false);
  });
});
