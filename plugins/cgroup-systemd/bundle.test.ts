import { type GroupRequest } from '@engine/core/contracts/cgroup';
import { type MachineMount } from '@engine/core/contracts/common';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { type Step } from '@engine/core/plan';
import { describe, expect, it } from 'vitest';
import { annotatedProperties } from './annotations.ts';
import { createCgroupSystemd } from './driver.ts';
import { assignments, bundleProperties, limitProperties } from './properties.ts';
import { type ScopeInput } from './scope.ts';
import { parseVariant } from './variant.ts';

const top = '/sys/fs/cgroup';
const mount: MachineMount = { id: 2, parent: 1, device: '0:30', root: '/', target: top, options: ['rw'], propagation: [], type: 'cgroup2', source: 'cgroup', superOptions: ['rw', 'nsdelegate'] };
const files: Record<string, string> = { [`${top}/cgroup.controllers`]: 'cpuset cpu io memory hugetlb pids\n', [`${top}/cgroup.subtree_control`]: 'cpuset cpu io memory pids\n', [`${top}/a.slice/cgroup.subtree_control`]: 'cpu io memory pids\n', '/proc/1/comm': 'systemd\n', '/proc/swaps': 'Filename\n' };
const driver = (more: Record<string, string> = {}) => createCgroupSystemd({ machine: fakeMachine({ root: '', runRoot: '' }, { mounts: [mount], read: (path) => ({ ...files, ...more })[path] }), instance: 'engine-0a' }, {}, () => true);
const run = { container: 'web', run: 'r1', instance: 'engine-0a', runFolder: '/run/x', explain: false };
const plan = async (request: Partial<GroupRequest> = {}, more: Record<string, string> = {}): Promise<readonly Step[]> => driver(more).planGroup({ resources: {}, ownNamespace: true, exact: true, path: 'a.slice:p:web', ...request }, run);
const inputOf = (steps: readonly Step[]): ScopeInput => JSON.parse(String(steps.find(({ operation }) => operation.name === 'barrier')?.operation.args['input'])) as ScopeInput;
const scope = 'a.slice/p-web.scope';

describe('the scope of a bundle', () => {
  it('is made around init, which waits; limits are written before it goes on, and what is undone begins with a kill', async () => {
    const steps = await plan({ resources: { memory: { limit: 64 << 20 }, pids: { limit: 1 }, hugepageLimits: [{ pageSize: '2MB', limit: 2 << 20 }] } });
    expect(steps.map(({ slot, operation: { name, args } }) => [slot, name, String(args['path'] ?? '').replace(`${top}/`, '') + (args['data'] ? `=${String(args['data'])}` : '')].join(' ').trim())).toEqual([
      'init.cgroup reach', 'shim.attach awaitPoint', 'shim.attach barrier', `shim.attach open ${scope}`, 'shim.attach close',
      'shim.attach writeFile cgroup.subtree_control=+hugetlb', 'shim.attach writeFile a.slice/cgroup.subtree_control=+hugetlb',
      `shim.attach writeFile ${scope}/memory.max=${64 << 20}`, `shim.attach writeFile ${scope}/pids.max=1`, `shim.attach writeFile ${scope}/hugetlb.2MB.max=${2 << 20}`, `shim.attach writeFile ${scope}/hugetlb.2MB.rsvd.max=${2 << 20}`,
      'shim.attach release', 'init.namespaces unshare',
    ]);
    expect(inputOf(steps)).toMatchObject({ unit: 'p-web.scope', folder: scope });
    expect(steps.flatMap(({ undo }) => undo.map(({ name, args }) => [name, args['path']]))).toEqual([['cgroupKill', `${top}/${scope}`], ['memoryEvents', `${top}/${scope}`], ['cgroupRemove', `${top}/${scope}`]]);
  });
  it('tells systemd all limits that it has a word for, and what the bundle asks for', async () => {
    const { properties } = inputOf(await plan({ resources: { memory: { limit: 64 << 20 }, cpu: { quota: 50_500, period: 100_000 } }, annotations: { 'org.systemd.property.CollectMode': '\'inactive\'', 'org.systemd.property.TimeoutStopSec': '1.5', other: 'x' } }));
    expect(Object.fromEntries(properties.map(([name, , value]) => [name, value]))).toEqual({
      Description: 'container web', Slice: 'a.slice', Delegate: true, CollectMode: 'inactive', CPUAccounting: true, MemoryAccounting: true, IOAccounting: true, TasksAccounting: true, TasksMax: 'infinity', DefaultDependencies: false,
      MemoryMax: String(64 << 20), CPUQuotaPerSecUSec: '510000', TimeoutStopUSec: '1500000',
    });
  });
  it('is found again by its name, whole', async () => {
    const group = { run: 'r1', path: 'a.slice:p:web', exact: true };
    expect(driver().freeze?.(group, true).map(({ operation }) => operation.args['path'])).toEqual([`${top}/${scope}`]);
    expect(driver().stats(group)).toEqual({});
  });
  it.each([['/a/b', 'ERR_INVALID_VALUE', 'slice:prefix:name'], ['a.slice', 'ERR_INVALID_VALUE', 'slice:prefix:name'], ['a.slice:p:../../b', '', 'p-..\\x2f..\\x2fb.scope'], ['../a.slice:p:b', 'ERR_INVALID_VALUE', 'not the name of a slice'], ['a.slice:p:b.slice', 'ERR_NOT_SUPPORTED', 'a scope, not a slice']])('has no way out of its slice: %s', async (path, code, words) => {
    if (code) await expect(plan({ path })).rejects.toMatchObject({ code, message: expect.stringContaining(words) as string });
    else expect(inputOf(await plan({ path })).unit).toBe(words);
  });
  it('is refused while others live in it', async () => {
    await expect(plan({}, { [`${top}/${scope}/cgroup.procs`]: '42\n' })).rejects.toMatchObject({ code: 'ERR_IN_USE' });
  });
});

describe('limits as properties', () => {
  const limits = [
    { file: 'memory.max', value: 'max' }, { file: 'memory.high', value: '7' }, { file: 'memory.swap.max', value: '0' }, { file: 'cpu.max', value: 'max 50000' }, { file: 'cpuset.cpus', value: '0-1,9' }, { file: 'cpuset.mems', value: '0' }, { file: 'io.max', value: '8:0 rbps=5' },
    { file: 'io.max', value: '8:16 rbps=6 wiops=max' }, { file: 'io.max', value: '8:0 rbps=9' }, { file: 'memory.low', value: '3' }, { file: 'hugetlb.2MB.max', value: '1' },
  ];
  it('are the words of systemd, on the bus and for systemctl', () => {
    const found = limitProperties(limits);
    expect(found).toEqual([
      ['MemoryMax', 't', 'infinity'], ['MemoryHigh', 't', '7'], ['MemorySwapMax', 't', '0'], ['CPUQuotaPerSecUSec', 't', 'infinity'], ['CPUQuotaPeriodUSec', 't', '50000'], ['AllowedCPUs', 'ay', [3, 2]], ['AllowedMemoryNodes', 'ay', [1]],
      ['IOReadBandwidthMax', 'a(st)', [['/dev/block/8:16', '6'], ['/dev/block/8:0', '9']]], ['IOWriteIOPSMax', 'a(st)', [['/dev/block/8:16', 'infinity']]], ['MemoryLow', 't', '3'],
    ]);
    expect(assignments([...found, ['CPUQuotaPerSecUSec', 't', '510000']])).toEqual([
      'MemoryMax=infinity', 'MemoryHigh=7', 'MemorySwapMax=0', 'CPUQuota=', 'CPUQuotaPeriodSec=50000us', 'AllowedCPUs=0 1 9', 'AllowedMemoryNodes=0', 'IOReadBandwidthMax=/dev/block/8:16 6', 'IOReadBandwidthMax=/dev/block/8:0 9', 'IOWriteIOPSMax=/dev/block/8:16 infinity', 'MemoryLow=3', 'CPUQuota=51%',
    ]);
  });
  it('give way to what the bundle asks for', () => {
    expect(bundleProperties('a.slice', 'x', [{ file: 'pids.max', value: '5' }], [['TasksMax', 't', '6']]).filter(([name]) => name === 'TasksMax')).toEqual([['TasksMax', 't', '6']]);
    expect(bundleProperties('a.slice', 'x', [{ file: 'cpu.max', value: '5000 50000' }], []).slice(-2)).toEqual([['CPUQuotaPerSecUSec', 't', '100000'], ['CPUQuotaPeriodUSec', 't', '50000']]);
  });
});

describe('annotations', () => {
  const one = (name: string, text: string): unknown => annotatedProperties({ [`org.systemd.property.${name}`]: text });
  it('are GVariant text', () => {
    expect([
      'true', '5', '-5', '0x1f', 'uint64 18446744073709551615', 'int64 -1', '@t 7', 'byte 255', '1.5', '\'it\\\'s \\u00e4\'', '"two"', '[\'a\', "b"]', '@as []', '(\'a\', uint32 5)', '[(\'a\', true)]', '@a(st) [(\'x\', 7)]', '[uint32 1, 2]', 'objectpath \'/a\'', ' [1,] ',
    ].map(parseVariant).map(({ signature, value }) => [signature, value])).toEqual([
      ['b', true], ['i', 5], ['i', -5], ['i', 31], ['t', '18446744073709551615'], ['x', '-1'], ['t', '7'], ['y', 255], ['d', 1.5], ['s', 'it\'s ä'], ['s', 'two'], ['as', ['a', 'b']], ['as', []], ['(su)', ['a', 5]], ['a(sb)', [['a', true]]], ['a(st)', [['x', '7']]], ['au', [1, 2]], ['o', '/a'], ['ai', [1]],
    ]);
  });
  it.each(['', 'yes', '\'open', '[', '[1', '[1 2]', '[]', '[1, \'a\']', '()', '(1', '@as [1]', '@zz 1', '@a 1', 'byte 256', 'uint32 -1', '5000000000', 'uint32 1.5', 'true false', '@(s) (1)', '@b 1', '@s [1]', '{}', '['.repeat(20)])('refuse %s by the name', (text) => {
    expect(() => one('Good', text)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE', path: 'org.systemd.property.Good' }) as Error);
  });
  it('say times in seconds, and have the names of properties', () => {
    expect([one('RuntimeMaxSec', '@t 3'), one('TimeoutStopUSec', 'uint64 3')]).toEqual([[['RuntimeMaxUSec', 't', '3000000']], [['TimeoutStopUSec', 't', '3']]]);
    for (const [name, text] of [['TimeoutStopSec', '\'1\''], ['TimeoutStopSec', '-1'], ['', 'true'], ['Xy', 'true'], ['A b', 'true']] as const) expect(() => one(name, text)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE' }) as Error);
    for (const name of ['Slice', 'Delegate', 'PIDs']) expect(() => one(name, 'true')).toThrow(expect.objectContaining({ code: 'ERR_NOT_SUPPORTED', message: expect.stringContaining(name) as string }) as Error);
    expect(annotatedProperties(undefined)).toEqual([]);
  });
});
