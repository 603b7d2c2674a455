import { type Machine, type MachineMount } from '@engine/core/contracts/common';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { cgroupSuite } from '@engine/core/contracts/cgroup/suite';
import { type GroupRequest } from '@engine/core/contracts/cgroup';
import { type Step } from '@engine/core/plan';
import { describe, expect, it } from 'vitest';
import { parentOf } from '@engine/native/cgroups';
import { createCgroupV2 } from './driver.ts';

const top = '/sys/fs/cgroup';
const mount = (changes: Partial<MachineMount> = {}): MachineMount => ({ id: 2, parent: 1, device: '0:30', root: '/', target: top, options: ['rw'], propagation: [], type: 'cgroup2', source: 'cgroup', superOptions: ['rw'], ...changes });
const files: Record<string, string> = {
  [`${top}/cgroup.controllers`]: 'cpuset cpu io memory hugetlb pids rdma misc\n', [`${top}/cgroup.subtree_control`]: 'memory pids\n', [`${top}/cgroup.procs`]: '1\n2\n', '/proc/self/cgroup': '0::/\n', '/proc/swaps': 'Filename\n', [`${top}/io.cost.qos`]: '',
};
const machine = (more: Record<string, string | undefined> = {}, changes: Partial<Machine> = {}): Machine => fakeMachine({ root: '', runRoot: '' }, { mounts: [mount()], read: (path) => (path in more ? more[path] : files[path]), ...changes });
const noRdma = machine({ [`${top}/cgroup.controllers`]: 'cpuset cpu io memory pids\n' });
const run = { container: 'c', run: 'r1', instance: 'engine-0a', runFolder: '/run/x', explain: false };
const driver = (on = machine()) => createCgroupV2({ machine: on, instance: 'engine-0a' });
const plan = async (request: Partial<GroupRequest> = {}, on = machine()): Promise<readonly Step[]> => driver(on).planGroup({ resources: {}, ownNamespace: true, ...request }, run);
const lines = (steps: readonly Step[]): string[] => steps.map(({ operation: { name, args } }) => `${name} ${String(args['path'] ?? '').replace(`${top}/`, '')}${args['data'] ? `=${String(args['data'])}` : ''}`.trim());

const enabled = (folder: string, ...names: readonly string[]): string[] => names.map((name) => `writeFile ${folder}cgroup.subtree_control=+${name}`);

describeSuite('cgroup v2 on a fake machine', cgroupSuite, { bench: async () => fakeBench({ machine: machine() }), create: createCgroupV2 });
describeSuite('cgroup v2 without rdma', cgroupSuite, { bench: async () => fakeBench({ machine: noRdma }), create: createCgroupV2 });
describeSuite('cgroup v2 on a machine without it', cgroupSuite, { bench: async () => fakeBench({}), create: createCgroupV2 });

describe('the group', () => {
  it('is made with what it needs, limited, and init is born in it', async () => {
    expect(lines(await plan({ resources: { memory: { limit: 64 << 20 }, cpu: { cpus: '0' }, devices: [{ allow: false, access: 'rwm' }] } }))).toEqual([
      ...enabled('', 'cpuset', 'cpu', 'io'), 'mkdir engine-0a-r1', 'writeFile engine-0a-r1/cpuset.cpus=0', `writeFile engine-0a-r1/memory.max=${64 << 20}`,
      'bpfProgram', 'open engine-0a-r1', 'bpfAttach', 'close', 'close', 'open engine-0a-r1', 'cloneInto', 'unshare',
    ]);
  });
  it('below a parent that was named, controllers are enabled all the way down', async () => {
    expect(lines(await plan({ path: '/a/b', ownNamespace: false }))).toEqual([
      ...enabled('', 'cpu', 'io'), 'mkdir a', ...enabled('a/', 'cpu', 'io', 'memory', 'pids'), 'mkdir a/b', ...enabled('a/b/', 'cpu', 'io', 'memory', 'pids'), 'mkdir a/b/engine-0a-r1', 'open a/b/engine-0a-r1', 'cloneInto',
    ]);
  });
  it('in a part of the hierarchy that the engine sits in, its processes make room', async () => {
    const part = machine({ [`${top}/cgroup.events`]: 'populated 1\n', [`${top}/cgroup.subtree_control`]: '' });
    expect(lines(await plan({}, part)).slice(0, 5)).toEqual([`cgroupEvacuate ${top}`, ...enabled('', 'cpu', 'io', 'memory', 'pids')]);
    await expect(plan({ path: 'theirs' }, machine({ [`${top}/theirs/cgroup.procs`]: '77\n' }))).rejects.toMatchObject({ code: 'ERR_MACHINE', hint: expect.stringContaining('--cgroup-parent') as string });
  });
  it('goes as a whole: killed, its OOM counters kept, removed', async () => {
    const made = (await plan()).find(({ operation }) => operation.name === 'mkdir');
    expect(made?.undo.map(({ name }) => name)).toEqual(['cgroupKill', 'memoryEvents', 'cgroupRemove']);
  });
  it('a path is clean, and no slice', () => {
    expect([parentOf(undefined), parentOf('/'), parentOf('/a//b/')]).toEqual(['', '', 'a/b']);
    expect(() => parentOf('system.slice:docker:x')).toThrow(/systemd/);
  });
  it('is shown as the whole of /sys/fs/cgroup', () => {
    expect(driver().mounts({ resources: {}, ownNamespace: true })).toEqual([{ destination: top, type: 'cgroup2', source: 'cgroup', options: ['ro', 'nosuid', 'noexec', 'nodev', 'relatime'] }]);
    expect(driver().mounts({ resources: {}, ownNamespace: false })).toEqual([{ destination: top, type: 'bind', source: top, options: ['bind', 'ro', 'nosuid', 'noexec', 'nodev'] }]);
  });
});

describe('probe', () => {
  const probe = (on: Machine) => driver(on).probe(on);
  it('takes a machine with v2 alone, and says which part of it is ours', async () => {
    expect(await probe(machine())).toMatchObject({ available: true, score: 50 });
    expect((await probe(machine({ [`${top}/cgroup.events`]: '' }))).reasons.join()).toContain('given');
  });
  it('leaves hybrid ones to v1, and what can\'t be written', async () => {
    const v1 = mount({ type: 'cgroup', target: `${top}/memory`, superOptions: ['rw', 'memory'] });
    for (const [on, word] of [
      [machine({}, { mounts: [v1, mount({ target: `${top}/unified` })] }), 'hybrid'], [machine({}, { mounts: [mount({ options: ['ro'] })] }), 'read-only'], [machine({ [`${top}/cgroup.controllers`]: 'cpu' }), 'memory'], [machine({}, { uid: 1 }), 'not root'], [machine({}, { mounts: [] }), 'not mounted'],
    ] as const) expect(await probe(on)).toMatchObject({ available: false, score: 0, reasons: [expect.stringContaining(word)] });
    // a named v1 hierarchy (systemd's own) is no reason
    expect(await probe(machine({}, { mounts: [mount(), mount({ type: 'cgroup', target: '/x', superOptions: ['rw', 'name=systemd'] })] }))).toMatchObject({ available: true });
  });
});
