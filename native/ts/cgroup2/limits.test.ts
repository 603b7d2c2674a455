import { describe, expect, it } from 'vitest';
import { type LinuxResources } from './types.ts';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { type MachineMount } from '@engine/core/contracts/common';
import { enableSteps, ownerSteps, updateEffects } from './group.ts';
import { abilitiesOf, findUnified } from './hierarchy.ts';
import { compileUnified, controllersOf, honouredUnified, swapOf, weightOfBlockIO, weightOfShares, type UnifiedAbilities } from './limits.ts';
import { parseIo, parsePressure, readUnifiedStats } from './stats.ts';

const all: UnifiedAbilities = { controllers: new Set(['cpu', 'cpuset', 'io', 'memory', 'pids', 'hugetlb', 'rdma', 'misc']), has: (file) => file !== 'io.bfq.weight' };
const compile = (resources: LinuxResources, abilities = all): string[] => compileUnified(resources, abilities).map(({ file, value }) => `${file}=${value}`);
const code = (action: () => unknown): string => {
  try {
    action();
    return 'none';
  } catch (error) {
    return (error as { code: string }).code;
  }
};

describe('limits of the unified hierarchy', () => {
  it('are written in an order that the kernel takes', () => {
    expect(compile({
      cpu: { shares: 1024, quota: 50_000, period: 100_000, burst: 10_000, cpus: '0-1', mems: '0', idle: 0 },
      memory: { limit: 64 << 20, swap: 128 << 20, reservation: 32 << 20 },
      blockIO: { weight: 500, weightDevice: [{ major: 8, minor: 0, weight: 10 }], throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1000 }], throttleWriteIOPSDevice: [{ major: 8, minor: 0, rate: 5 }] },
      pids: { limit: 10 }, hugepageLimits: [{ pageSize: '2MB', limit: 0 }], rdma: { mlx5_0: { hcaHandles: 3 } }, unified: { 'memory.high': '50000000', 'io.max': '8:0 rbps=1\n8:16 rbps=2' },
    })).toEqual([
      'cpuset.cpus=0-1', 'cpuset.mems=0', 'cpu.idle=0', 'cpu.weight=39', 'cpu.max=50000 100000', 'cpu.max.burst=10000', 'memory.max=67108864', 'memory.swap.max=67108864', 'memory.low=33554432',
      'io.weight=4950', 'io.weight=8:0 1', 'io.max=8:0 rbps=1000', 'io.max=8:0 wiops=5', 'pids.max=10', 'hugetlb.2MB.max=0', 'hugetlb.2MB.rsvd.max=0', 'rdma.max=mlx5_0 hca_handle=3',
      'memory.high=50000000', 'io.max=8:0 rbps=1', 'io.max=8:16 rbps=2',
    ]);
    expect([...controllersOf(compileUnified({ pids: { limit: 1 }, cpu: { cpus: '0' } }, all))]).toEqual(['cpuset', 'pids']);
  });
  it('are converted from v1 as the OCI runtimes do', () => {
    expect([2, 100, 512, 1024, 2048, 262144].map(weightOfShares)).toEqual([1, 4, 20, 39, 79, 10000]);
    expect([10, 100, 500, 1000].map(weightOfBlockIO)).toEqual([1, 910, 4950, 10000]);
    expect([swapOf(100, 150), swapOf(100, 100), swapOf(100, -1), swapOf(-1, undefined), swapOf(100, 0), swapOf(undefined, undefined)]).toEqual(['50', '0', 'max', 'max', undefined, undefined]);
  });
  it('no limit is said in the word of each file', () => {
    expect(compile({ memory: { limit: -1 } })).toEqual(['memory.max=max', 'memory.swap.max=max']);
    expect(compile({ cpu: { period: 50_000 } })).toEqual(['cpu.max=max 50000']);
    expect(compile({ cpu: { quota: -1 } })).toEqual(['cpu.max=max 100000']);
    expect(compile({ pids: { limit: -1 } })).toEqual(['pids.max=max']);
    expect(compile({ blockIO: { throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 0 }] } })).toEqual(['io.max=8:0 rbps=max']);
    expect(compile({ memory: {}, cpu: { shares: 0 }, pids: { limit: 0 } })).toEqual([]);
  });
  it('BFQ keeps its own scale', () => {
    expect(compile({ blockIO: { weight: 500 } }, { ...all, has: () => true })).toEqual(['io.bfq.weight=500']);
  });
  it('out of range are refused by field', () => {
    for (const [resources, path] of [
      [{ memory: { limit: 1024 } }, 'memory.limit'], [{ memory: { limit: 1.5 * 2 ** 23 + 0.5 } }, 'memory.limit'], [{ memory: { swap: 1 << 24 } }, 'memory.swap'], [{ memory: { limit: 1 << 25, swap: 1 << 24 } }, 'memory.swap'],
      [{ cpu: { shares: 1 } }, 'cpu.shares'], [{ cpu: { shares: 300_000 } }, 'cpu.shares'], [{ cpu: { quota: 10 } }, 'cpu.quota'], [{ cpu: { period: 10 } }, 'cpu.period'], [{ cpu: { quota: 2000, burst: 3000 } }, 'cpu.burst'],
      [{ cpu: { cpus: '0-;rm' } }, 'cpu.cpus'], [{ blockIO: { weight: 5 } }, 'blockIO.weight'], [{ hugepageLimits: [{ pageSize: '../x', limit: 1 }] }, 'hugepageLimits'],
    ] as const) expect(() => compile(resources as unknown as LinuxResources)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE', path }) as Error);
  });
  it('what v2 does not have is refused by field, with a word on why', () => {
    for (const [resources, path] of [
      [{ memory: { swappiness: 10 } }, 'memory.swappiness'], [{ memory: { disableOOMKiller: true } }, 'memory.disableOOMKiller'], [{ memory: { kernel: 1 } }, 'memory.kernel'],
      [{ cpu: { realtimeRuntime: 1 } }, 'cpu.realtimeRuntime'], [{ network: { classID: 1 } }, 'network.classID'], [{ blockIO: { leafWeight: 10 } }, 'blockIO.leafWeight'],
    ] as const) expect(() => compile(resources)).toThrow(expect.objectContaining({ code: 'ERR_FEATURE_MISSING', path, hint: expect.stringMatching(/v2/) as string }) as Error);
    expect(compile({ memory: { disableOOMKiller: false } })).toEqual([]);
    expect([...honouredUnified({ controllers: new Set(['pids']), has: () => true })].sort()).toEqual(['devices', 'pids.limit', 'unified']);
  });
  it('unified takes files of controllers that are there, and nothing that leads elsewhere', () => {
    for (const file of ['../memory.max', 'memory/max', 'memory', '.max', 'cgroup.procs', 'cgroup.freeze', 'memory.current', 'memory.events', 'cpu.pressure', 'Memory.max', 'memory.max\n']) {
      expect([file, code(() => compile({ unified: { [file]: '1' } }))]).toEqual([file, 'ERR_INVALID_VALUE']);
    }
    expect(code(() => compile({ unified: { 'foo.max': '1' } }))).toBe('ERR_FEATURE_MISSING');
    expect(() => compile({ unified: { 'io.bfq.weight': '5' } })).toThrow(expect.objectContaining({ code: 'ERR_FEATURE_MISSING', path: 'unified.io.bfq.weight' }) as Error);
    for (const value of ['', 'x\0y', 'x'.repeat(5000)]) expect(code(() => compile({ unified: { 'memory.high': value } }))).toBe('ERR_INVALID_VALUE');
    for (const [file, value] of [['memory.high', 'zz'], ['memory.min', '4MB'], ['memory.low', '-1'], ['hugetlb.2MB.max', 'some'], ['pids.max', 'nope'], ['cpu.weight', 'much'], ['io.weight', '8:0']] as const) {
      expect(() => compile({ unified: { [file]: value } }), file).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE', path: `unified.${file}`, message: expect.stringContaining(value) as string, hint: expect.stringContaining('give') as string }) as Error);
    }
    expect(compile({ unified: { 'memory.min': '4M', 'memory.low': '1g', 'memory.high': 'max', 'pids.max': '7', 'io.weight': 'default 100' } })).toEqual(['memory.min=4194304', 'memory.low=1073741824', 'memory.high=max', 'pids.max=7', 'io.weight=default 100']);
    expect(compile({ unified: { 'hugetlb.2MB.rsvd.max': '0', 'io.latency': '8:0 target=1000', 'misc.max': 'sev 1', 'memory.oom.group': '1' } })).toHaveLength(4);
  });
});

describe('the hierarchy', () => {
  const mount = (changes: Partial<MachineMount> = {}): MachineMount => ({ id: 2, parent: 1, device: '0:30', root: '/', target: '/sys/fs/cgroup', options: ['rw'], propagation: [], type: 'cgroup2', source: 'cgroup', superOptions: ['rw', 'nsdelegate'], ...changes });
  const machine = (files: Record<string, string>, mounts = [mount()]) => fakeMachine({ root: '', runRoot: '' }, { mounts, read: (path) => files[path] });
  const top = '/sys/fs/cgroup';

  it('is the root of the kernel, or a part that was given to us', () => {
    expect(findUnified(machine({ [`${top}/cgroup.controllers`]: 'cpu memory\n', '/proc/self/cgroup': '0::/user.slice/x\n' }))).toEqual({ target: top, writable: true, isRoot: true, controllers: ['cpu', 'memory'], own: 'user.slice/x' });
    expect(findUnified(machine({ [`${top}/cgroup.controllers`]: '', [`${top}/cgroup.events`]: '', '/proc/self/cgroup': '1:name=x:/\n0::/\n' }))).toMatchObject({ isRoot: false, own: '' });
    expect(findUnified(machine({ '/proc/self/cgroup': '0::/docker/1/x' }, [mount({ root: '/docker/1', options: ['ro'] })]))).toMatchObject({ writable: false, own: 'x' });
    expect(findUnified(machine({ '/proc/self/cgroup': '0::/../y' }))?.own).toBeUndefined();
    expect(findUnified(machine({}, [mount({ type: 'cgroup' })]))).toBeUndefined();
  });
  it('the files of a group are seen in the part that is ours', () => {
    const part = machine({ [`${top}/cgroup.controllers`]: 'io memory cpu', [`${top}/cgroup.events`]: '', [`${top}/io.bfq.weight`]: '', [`${top}/cpu.idle`]: '0' });
    const unified = findUnified(part);
    const { has } = abilitiesOf(part, unified ?? expect.fail());
    expect([has('io.bfq.weight'), has('io.weight'), has('cpu.idle'), has('memory.swap.max'), has('pids.max')]).toEqual([true, false, true, false, false]);
  });
  it('a process that stays sees controllers and files that come later', () => {
    const files: Record<string, string> = { [`${top}/cgroup.controllers`]: 'io memory', [`${top}/cgroup.events`]: '' };
    const part = machine(files);
    let time = 5;
    const abilities = abilitiesOf(part, findUnified(part) ?? expect.fail(), () => time);
    const resources: LinuxResources = { blockIO: { weight: 500 }, pids: { limit: 5 } };
    expect(() => compileUnified(resources, abilities)).toThrow(/blockIO\.weight/);
    files[`${top}/io.bfq.weight`] = '';
    time += 1000;
    expect(() => compileUnified(resources, abilities)).toThrow(/pids\.limit/);
    files[`${top}/cgroup.controllers`] = 'io memory pids';
    time += 1000;
    expect(compileUnified(resources, abilities)).toEqual([{ file: 'io.bfq.weight', value: '500' }, { file: 'pids.max', value: '5' }]);
    expect([...abilities.controllers]).toEqual(['io', 'memory', 'pids']);
    // the hierarchy that was found first does not have it
    const steps = enableSteps(part, { target: top, writable: true, isRoot: true, controllers: ['io', 'memory'] }, top, new Set(['io', 'pids']), ['memory']);
    expect(steps.map(({ operation: { args } }) => String(args['data']))).toEqual(expect.arrayContaining([expect.stringContaining('+pids') as string]));
  });
  it('controllers are enabled where they are not, and never in a group that has somebody else\'s processes', () => {
    const names = (files: Record<string, string>, folder = top, own = '/') => {
      const on = machine({ [`${top}/cgroup.controllers`]: 'cpu memory', '/proc/self/cgroup': `0::${own}`, ...files });
      return enableSteps(on, findUnified(on) ?? expect.fail(), folder, new Set(['memory']), ['cpu', 'memory', 'io']).map(({ operation: { name, args, flags } }) => (name === 'writeFile' ? `${String(args['data'])}${flags?.optional ? '?' : ''}` : name));
    };
    expect(names({ [`${top}/cgroup.subtree_control`]: 'memory cpu\n' })).toEqual([]);
    expect(names({ [`${top}/cgroup.subtree_control`]: 'memory\n', [`${top}/cgroup.procs`]: '1\n' })).toEqual(['+cpu?']);
    expect(names({ [`${top}/cgroup.events`]: '' })).toEqual(['+cpu?', '+memory']);
    expect(names({ [`${top}/cgroup.events`]: '', [`${top}/cgroup.procs`]: '1\n7\n' })).toEqual(['cgroupEvacuate', '+cpu?', '+memory']);
    expect(() => names({ [`${top}/cgroup.events`]: '', [`${top}/cgroup.procs`]: '1\n' }, top, '/below')).toThrow(expect.objectContaining({ code: 'ERR_MACHINE' }) as Error);
    expect(() => names({ [`${top}/theirs/cgroup.procs`]: '9\n' }, `${top}/theirs`)).toThrow(/processes of its own/);
  });
});

describe('numbers', () => {
  const files: Record<string, string> = {
    'cpu.stat': 'usage_usec 10\nuser_usec 7\nsystem_usec 3\nnr_periods 5\nnr_throttled 2\nthrottled_usec 9\n', 'memory.current': '100\n', 'memory.max': 'max\n', 'memory.swap.max': '64\n', 'memory.peak': '200\n',
    'memory.stat': 'anon 1\ninactive_file 40\n', 'memory.events': 'low 0\noom 1\noom_kill 3\n', 'pids.current': '4\n', 'pids.max': '10\n',
    'io.stat': '8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n253:0 \n', 'cpu.pressure': 'some avg10=1.50 avg60=0.00 avg300=0.10 total=77\n',
  };
  it('are read from the files that are there', () => {
    expect(readUnifiedStats('/g', (path) => files[path.slice(3)])).toEqual({
      cpuNanoseconds: 10_000, cpuUserNanoseconds: 7000, cpuSystemNanoseconds: 3000, periods: 5, throttledPeriods: 2, throttledNanoseconds: 9000, memoryBytes: 100, memoryInactiveFileBytes: 40, memoryPeakBytes: 200, swapLimitBytes: 64,
      pids: 4, pidsLimit: 10, oomKills: 3, blockReadBytes: 15, blockWriteBytes: 20, blockReads: 2, blockWrites: 2, pressure: { cpu: { some: { avg10: 1.5, avg60: 0, avg300: 0.1, total: 77 } } },
    });
    expect(readUnifiedStats('/g', () => undefined)).toEqual({});
    expect([parseIo(undefined), parsePressure(''), parsePressure(undefined)]).toEqual([undefined, undefined, undefined]);
  });
  it('new limits: the undo writes what is there, line by line', () => {
    const there: Record<string, string> = { ...files, 'cgroup.procs': '1\n', 'cpu.max': 'max 100000\n', 'cpu.max.burst': '0\n', 'io.max': '8:0 rbps=5 wbps=max riops=max wiops=max\n', 'io.weight': 'default 100\n8:0 50\n', 'cpuset.cpus': '\n' };
    const effects = (resources: LinuxResources) => updateEffects('/g', resources, all, (path) => there[path.slice(3)]).map(({ operation, undo }) => [operation.args['path'], String(operation.args['data']), undo.map(({ args }) => String(args['data']))]);
    expect(effects({ cpu: { quota: 20_000, cpus: '0' }, blockIO: { weight: 10, throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 9 }], throttleWriteBpsDevice: [{ major: 8, minor: 16, rate: 9 }] } })).toEqual([
      ['/g/cpuset.cpus', '0', ['\n']], ['/g/cpu.max', '20000 100000', ['max 100000']], ['/g/io.weight', '1', ['100']], ['/g/io.max', '8:0 rbps=9', ['8:0 rbps=5']], ['/g/io.max', '8:16 wbps=9', ['8:16 wbps=max']],
    ]);
  });
  it('a group that its user may change: the folder and what may be delegated, no link and no path', () => {
    const steps = (delegate: string | undefined, owner?: number) => ownerSteps({ read: () => delegate }, '/g', owner).map(({ operation: { args, flags } }) => [args['path'], args['uid'], args['gid'], flags?.okMissing]);
    expect(steps('cgroup.procs\nmemory.reclaim\n../x\n', 7)).toEqual([['/g', 7, 0, false], ['/g/cgroup.procs', 7, 0, true], ['/g/memory.reclaim', 7, 0, true]]);
    expect(steps(undefined, 7).map(([path]) => path)).toEqual(['/g', '/g/cgroup.procs', '/g/cgroup.subtree_control', '/g/cgroup.threads']);
    expect(steps('cgroup.procs\n')).toEqual([]);
  });
  it('new limits: what is idle takes no weight, and being idle forgets it', () => {
    const there = (idle: string, weight: string): Record<string, string> => ({ 'cgroup.procs': '1\n', 'cpu.idle': `${idle}\n`, 'cpu.weight': `${weight}\n` });
    const update = (files_: Record<string, string>, resources: LinuxResources) => updateEffects('/g', resources, all, (path) => files_[path.slice(3)]).map(({ operation, undo, asked }) => [operation, ...undo].map(({ args, flags }) => `${String(args['path']).slice(3)}=${String(args['data'])}${flags?.optional ? '?' : ''}`).concat(asked ?? ''));
    expect(() => update(there('1', '0'), { cpu: { shares: 1024 } })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE', path: 'cpu.shares' }));
    expect(() => update(there('1', '0'), { unified: { 'cpu.weight': '7' } })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE', path: 'unified.cpu.weight' }));
    expect(update(there('1', '0'), { cpu: { shares: 1024, idle: 0 } })).toEqual([['cpu.idle=0', 'cpu.idle=1?', 'cpu.idle'], ['cpu.weight=39', 'cpu.shares']]);
    expect(update(there('1', '0'), { cpu: { shares: 1024, idle: 1 } })).toEqual([['cpu.idle=1', 'cpu.idle=1?', 'cpu.idle']]);
    expect(update(there('0', '500'), { cpu: { idle: 1 } })).toEqual([['cpu.idle=1', 'cpu.idle=0?', 'cpu.weight=500?', 'cpu.idle']]);
    expect(update(there('0', '500'), { unified: { 'cpu.weight': '7' } })).toEqual([['cpu.weight=7', 'cpu.weight=500?', 'unified.cpu.weight']]);
  });
  it('new limits: quota and period are one file, and the one that is not given stays', () => {
    const there: Record<string, string> = { 'cgroup.procs': '1\n', 'cpu.max': '30000 60000\n', 'cpu.max.burst': '20000\n' };
    const update = (cpu: NonNullable<LinuxResources['cpu']>) => updateEffects('/g', { cpu }, all, (path) => there[path.slice(3)]).map(({ operation: { args } }) => `${String(args['path']).slice(3)}=${String(args['data'])}`);
    expect(update({ period: 50_000 })).toEqual(['cpu.max=30000 50000']);
    expect(update({ quota: 10_000 })).toEqual(['cpu.max=10000 60000']);
    expect(update({ quota: -1 })).toEqual(['cpu.max=max 60000']);
    expect(update({ burst: 5000 })).toEqual(['cpu.max=30000 60000', 'cpu.max.burst=5000']);
    expect(update({ quota: 10_000, burst: 5000 })).toEqual(['cpu.max.burst=5000', 'cpu.max=10000 60000']);
    expect(update({ shares: 1024 })).toEqual(['cpu.weight=39']);
  });
  it('new limits: one that the kernel would kill for is refused, one that file pages make room for is not', () => {
    const there = (current: number, inactive: number): Record<string, string> => ({ 'cgroup.procs': '1\n', 'memory.current': `${current << 20}\n`, 'memory.max': 'max\n', 'memory.swap.max': 'max\n', 'memory.swap.current': '0\n', 'memory.stat': `anon ${(current - inactive) << 20}\ninactive_file ${inactive << 20}\n` });
    const update = (files_: Record<string, string>, resources: LinuxResources) => updateEffects('/g', resources, all, (path) => files_[path.slice(3)]).map(({ operation: { args } }) => `${String(args['path']).slice(3)}=${String(args['data'])}`);
    expect(code(() => update(there(100, 10), { memory: { limit: 50 << 20 } }))).toBe('ERR_INVALID_VALUE');
    expect(update(there(100, 80), { memory: { limit: 50 << 20 } })).toEqual([`memory.max=${50 << 20}`]);
    expect(update({ ...there(20, 0), 'memory.max': `${64 << 20}\n` }, { memory: { swap: 100 << 20 } })).toEqual([`memory.max=${64 << 20}`, `memory.swap.max=${36 << 20}`]);
    expect(code(() => update(there(20, 0), { memory: { swap: 100 << 20 } }))).toBe('ERR_INVALID_VALUE');
    expect(code(() => update({}, { pids: { limit: 5 } }))).toBe('ERR_NOT_RUNNING');
    expect(code(() => update(there(1, 0), { devices: [{ allow: true }] }))).toBe('ERR_NOT_SUPPORTED');
  });
});
