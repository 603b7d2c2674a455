import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type GroupRequest } from '@engine/core/contracts/cgroup';
import { cgroupSuite } from '@engine/core/contracts/cgroup/suite';
import { type Machine, type MachineMount } from '@engine/core/contracts/common';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { type Step } from '@engine/core/plan';
import { afterAll, describe, expect, it } from 'vitest';
import { createCgroupSystemd, type SystemdOptions } from './driver.ts';
import { assignments, sharedProperties } from './properties.ts';
import { type ScopeInput } from './scope.ts';

const top = '/sys/fs/cgroup';
const mount = (changes: Partial<MachineMount> = {}): MachineMount => ({ id: 2, parent: 1, device: '0:30', root: '/', target: top, options: ['rw'], propagation: [], type: 'cgroup2', source: 'cgroup', superOptions: ['rw', 'nsdelegate'], ...changes });
const files: Record<string, string> = {
  [`${top}/cgroup.controllers`]: 'cpuset cpu io memory hugetlb pids misc\n', [`${top}/cgroup.subtree_control`]: 'cpuset cpu io memory pids\n', [`${top}/system.slice/cgroup.subtree_control`]: 'cpu io memory pids\n',
  '/proc/1/comm': 'systemd\n', '/proc/swaps': 'Filename\n', [`${top}/io.cost.qos`]: '',
};
const machine = (more: Record<string, string | undefined> = {}, changes: Partial<Machine> = {}): Machine => fakeMachine({ root: '', runRoot: '' }, { mounts: [mount()], read: (path) => (path in more ? more[path] : files[path]), ...changes });
const booted = (path: string): boolean => ['/run/systemd/system', '/run/systemd/private'].includes(path);
const driver = (options: SystemdOptions = {}, on = machine(), exists = booted) => createCgroupSystemd({ machine: on, instance: 'engine-0a' }, options, exists);
const run = { container: 'c'.repeat(64), run: 'r1', instance: 'engine-0a', runFolder: '/run/x', explain: false };
const plan = async (request: Partial<GroupRequest> = {}, options: SystemdOptions = {}): Promise<readonly Step[]> => driver(options).planGroup({ resources: {}, ownNamespace: true, ...request }, run);
const lines = (steps: readonly Step[]): string[] => steps.map(({ operation: { name, args } }) => `${name} ${String(args['path'] ?? '').replace(`${top}/`, '')}${args['data'] ? `=${String(args['data'])}` : ''}`.trim());
const inputOf = (steps: readonly Step[]): ScopeInput => JSON.parse(String(steps.find(({ operation }) => operation.name === 'barrier')?.operation.args['input'])) as ScopeInput;
const properties = (steps: readonly Step[]): Record<string, unknown> => Object.fromEntries(inputOf(steps).properties.map(([name, , value]) => [name, value]));

describeSuite('cgroup systemd on a fake machine', cgroupSuite, { bench: async () => fakeBench({ machine: machine() }), create: (deps) => createCgroupSystemd(deps, {}, booted) });
describeSuite('cgroup systemd on a machine without it', cgroupSuite, { bench: async () => fakeBench({}), create: (deps) => createCgroupSystemd(deps, {}, () => false) });

const SCOPE = 'system.slice/container-engine-0a-r1.scope';

describe('the plan', () => {
  it('asks for a scope first, makes the shim leave room in it, and limits the group inside', async () => {
    const steps = await plan({ resources: { memory: { limit: 64 << 20 }, pids: { limit: 9 } } });
    expect(lines(steps)).toEqual([
      'barrier', `enterGroup ${SCOPE}/shim`, `writeFile ${SCOPE}/cgroup.subtree_control=+cpu +io +memory +pids`, `mkdir ${SCOPE}/engine-0a-r1`,
      `writeFile ${SCOPE}/engine-0a-r1/memory.max=${64 << 20}`, `writeFile ${SCOPE}/engine-0a-r1/pids.max=9`, `open ${SCOPE}/engine-0a-r1`, 'cloneInto', 'unshare',
    ]);
    expect(inputOf(steps)).toMatchObject({ unit: 'container-engine-0a-r1.scope', folder: SCOPE });
  });
  it('enables what systemd does not know on the whole way', async () => {
    expect(lines(await plan({ resources: { hugepageLimits: [{ pageSize: '2MB', limit: 2 << 20 }] } })).filter((line) => line.includes('subtree_control'))).toEqual([
      'writeFile cgroup.subtree_control=+hugetlb', 'writeFile system.slice/cgroup.subtree_control=+hugetlb', `writeFile ${SCOPE}/cgroup.subtree_control=+cpu +io +memory +hugetlb +pids`,
    ]);
  });
  it('a scope is delegated, never left behind, and limited by nothing that nobody asked for', async () => {
    expect(properties(await plan({ resources: { memory: { limit: 64 << 20 } } }))).toEqual({
      Description: `container ${'c'.repeat(12)} of engine-0a`, Slice: 'system.slice', Delegate: true, CollectMode: 'inactive-or-failed', CPUAccounting: true, MemoryAccounting: true, IOAccounting: true, TasksAccounting: true, TasksMax: 'infinity',
      After: ['local-fs.target', 'remote-fs.target', 'network.target'], TimeoutStopUSec: '10000000',
    });
  });
  it('knows slices, paths of slices, and what OCI runtimes are told', async () => {
    const folder = async (path?: string, options?: SystemdOptions): Promise<string> => inputOf(await plan(path === undefined ? {} : { path }, options)).folder;
    expect(await folder()).toBe(SCOPE);
    expect(await folder(undefined, { slice: 'machine.slice' })).toBe('machine.slice/container-engine-0a-r1.scope');
    expect(await folder('a-b.slice')).toBe('a.slice/a-b.slice/container-engine-0a-r1.scope');
    expect(await folder('system.slice:docker:web')).toBe('system.slice/docker-web.scope');
    expect(await folder('-.slice')).toBe('container-engine-0a-r1.scope');
    expect(() => driver({ slice: 'machine' })).toThrow(/options.cgroup-systemd.slice.*not the name of a slice/);
  });
});

describe('what is the scope\'s own', () => {
  it('counts among neighbours, or protects', async () => {
    expect(properties(await plan({ resources: { cpu: { shares: 1024 }, memory: { limit: 64 << 20, reservation: 32 << 20 }, blockIO: { weight: 500 } } }))).toMatchObject({ CPUWeight: '39', MemoryLow: String(32 << 20), IOWeight: '4950' });
    const all = sharedProperties([
      { file: 'cpu.idle', value: '1' }, { file: 'memory.min', value: 'max' }, { file: 'memory.max', value: '5' }, { file: 'io.weight', value: '8:0 200' }, { file: 'io.weight', value: '8:16 300' }, { file: 'io.weight', value: '8:0 250' }, { file: 'io.latency', value: '8:0 target=75000' },
    ]);
    expect(all).toEqual([['CPUWeight', 't', '1'], ['MemoryMin', 't', 'infinity'], ['IODeviceWeight', 'a(st)', [['/dev/block/8:16', '300'], ['/dev/block/8:0', '250']]], ['IODeviceLatencyTargetUSec', 'a(st)', [['/dev/block/8:0', '75000']]]]);
    expect(assignments(all)).toEqual(['CPUWeight=1', 'MemoryMin=infinity', 'IODeviceWeight=/dev/block/8:16 300', 'IODeviceWeight=/dev/block/8:0 250', 'IODeviceLatencyTargetSec=/dev/block/8:0 75000us']);
    expect(sharedProperties([{ file: 'io.bfq.weight', value: '50' }])).toEqual([['IOWeight', 't', '50']]);
    expect(sharedProperties([{ file: 'io.bfq.weight', value: '1000' }])).toEqual([['IOWeight', 't', '10000']]);
  });
});

describe('a group that is there', () => {
  const folder = mkdtempSync(join(tmpdir(), 'engine-systemd-'));
  const scope = join(folder, 'old.slice/container-engine-0a-r1.scope');
  const inside = join(scope, 'engine-0a-r1');
  mkdirSync(inside, { recursive: true });
  for (const [name, text] of Object.entries({ 'cgroup.procs': '1\n', 'cpu.weight': '100\n', 'memory.max': 'max\n', 'memory.low': '0\n' })) for (const at of [scope, inside]) writeFileSync(join(at, name), text);
  afterAll(() => rmSync(folder, { recursive: true }));
  const on = fakeMachine({ root: '', runRoot: '' }, { mounts: [mount({ target: folder })], read: (path) => (path === join(folder, 'cgroup.controllers') ? 'cpu io memory pids\n' : undefined) });

  it('is found though the default slice was another one then', () => {
    expect(driver({}, on).list()).toEqual(['r1']);
    expect(driver({}, on).removeGroup('r1').map(({ operation }) => operation.args['path'])).toEqual([inside, inside]);
    expect(driver({}, on).freeze?.({ run: 'r1' }, true).map(({ operation }) => operation.args['path'])).toEqual([inside]);
  });
  it('is changed by its files, and the scope\'s own by systemd, which can take it back', async () => {
    const effects = (await driver({}, on).update?.({ run: 'r1' }, { cpu: { shares: 2048 }, memory: { limit: 64 << 20, reservation: 32 << 20 } })) ?? [];
    const commands = effects.flatMap(({ operation, undo }) => [operation, ...undo]).filter(({ name }) => name === 'execHost').map(({ args }) => (args['argv'] as string[]).slice(1));
    expect(effects.filter(({ operation }) => operation.name === 'writeFile').map(({ operation: { args } }) => `${String(args['path']).slice(inside.length + 1)}=${String(args['data'])}`)).toEqual(['cpu.weight=79', `memory.max=${64 << 20}`, `memory.low=${32 << 20}`]);
    expect(commands).toEqual([
      ['set-property', '--runtime', '--', 'container-engine-0a-r1.scope', 'CPUWeight=79', `MemoryLow=${32 << 20}`],
      ['set-property', '--runtime', '--', 'container-engine-0a-r1.scope', 'CPUWeight=100', 'MemoryLow=0'],
    ]);
    const limit = (await driver({}, on).update?.({ run: 'r1' }, { memory: { limit: 64 << 20 } })) ?? [];
    expect(limit.map(({ operation }) => operation.name)).toEqual(['writeFile']);
  });
});

describe('probe', () => {
  const probe = async (on = machine(), exists = booted) => driver({}, on, exists).probe(on);
  it('goes before v2 where systemd rules', async () => {
    expect(await probe()).toEqual({ available: true, score: 60, reasons: ['systemd is pid 1', 'controllers cpuset cpu io memory hugetlb pids misc'] });
  });
  it.each<[string, Machine, ((path: string) => boolean)?]>([
    ['systemd is not pid 1', machine({ '/proc/1/comm': 'init\n' })],
    ['systemd is not pid 1', machine(), () => false],
    ['not root', machine({}, { uid: 1000 })],
    ['take the driver v1', machine({}, { mounts: [mount({ type: 'cgroup', superOptions: ['rw', 'memory'] })] })],
    ['hybrid', machine({}, { mounts: [mount({ target: `${top}/unified` }), mount({ type: 'cgroup', target: `${top}/memory`, superOptions: ['rw', 'memory'] })] })],
    ['read-only', machine({}, { mounts: [mount({ options: ['ro'] })] })],
    ['memory, pids are not there', machine({ [`${top}/cgroup.controllers`]: 'cpu\n' })],
    ['to ask systemd by', machine(), (path) => path === '/run/systemd/system'],
  ])('says %s', async (reason, on, exists) => {
    const result = await probe(on, exists);
    expect([result.available, result.reasons.join()]).toEqual([false, expect.stringContaining(reason)]);
  });
});
