import { idMapText } from '@engine/core/contracts/common';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { createPlanCollector } from '@engine/core/hooks';
import { BITS, encodePlan, type PlannedStep } from '@engine/core/plan';
import { type Mount, type Spec } from '@engine/core/spec';
import { describe, expect, it } from 'vitest';
import { createLinuxBase } from './driver.ts';
import { CLONE, MOUNT_ATTR, MS } from './kernel.ts';
import { readMountOptions, readPropagation } from './mount-options.ts';
import { formatTimeOffsets, readNamespaces } from './namespaces.ts';
import { userOf } from './process.ts';
import { checkSysctl } from './uts.ts';
import manifest from './package.json' with { type: 'json' };

const base = createLinuxBase({ machine: fakeMachine({ root: '/r', runRoot: '/rr' }) });
const run = { container: 'c0ffee', runFolder: '/rr/runs/c0ffee' };
type Changes = Omit<Partial<Spec>, 'process' | 'linux'> & { process?: Partial<NonNullable<Spec['process']>>; linux?: Partial<NonNullable<Spec['linux']>> };
const maps = { uidMappings: [{ containerID: 0, hostID: 100000, size: 65536 }], gidMappings: [{ containerID: 0, hostID: 100000, size: 65536 }] };
const own = (...types: ('mount' | 'pid' | 'uts' | 'user' | 'time' | 'network' | 'ipc' | 'cgroup')[]) => types.map((type) => ({ type }));
function specOf({ process, linux, ...rest }: Changes = {}): Spec {
  return { ociVersion: '1.2.0', ...rest, process: { cwd: '/', args: ['true'], env: [], user: { username: '0' }, ...process }, linux: { namespaces: own('mount', 'pid', 'uts', 'ipc', 'network'), ...linux } };
}
function plan(changes: Changes = {}): readonly PlannedStep[] {
  const collector = createPlanCollector();
  const writer = collector.writer('linux-base', 'test');
  const spec = specOf(changes);
  base.planRootfs(writer, spec);
  base.planNamespaces(writer, spec, run);
  base.planProcess(writer, spec, run);
  const steps = collector.steps();
  encodePlan({ steps }); // every argument is one the table knows
  return steps;
}
const named = (steps: readonly PlannedStep[], ...names: string[]) => steps.filter(({ operation }) => names.includes(operation.name));
const args = (steps: readonly PlannedStep[], name: string) => named(steps, name).map(({ operation }) => operation.args);
const mount = (destination: string, type: string, options: string[] = [], source = '/src'): Mount => ({ destination, type, source, options });

describe('mount options', () => {
  const read = (...options: string[]) => readMountOptions(mount('/x', 'tmpfs', options));
  it('become attributes, of which the last one wins', () => {
    expect(read('ro', 'nosuid', 'nodev', 'noexec')).toMatchObject({ set: 15, clear: 0, data: [] });
    expect(read('ro', 'rw')).toMatchObject({ set: 0, clear: MOUNT_ATTR.rdonly });
    expect(read('noatime', 'relatime')).toMatchObject({ set: 0, clear: MOUNT_ATTR.atimeMask });
    expect(read('strictatime')).toMatchObject({ set: MOUNT_ATTR.strictatime, clear: MOUNT_ATTR.atimeMask });
    expect(read('rro', 'rnosuid')).toMatchObject({ set: 0, recursiveSet: 3 });
    expect(read('size=1m', 'mode=755', 'defaults', '')).toMatchObject({ data: ['size=1m', 'mode=755'] });
  });
  it('become propagation', () => {
    expect(read('rslave')).toMatchObject({ propagation: MS.slave, propagationRecursive: true });
    expect(read('shared')).toMatchObject({ propagation: MS.shared, propagationRecursive: false });
    expect(readPropagation('runbindable')).toEqual({ flags: MS.unbindable, recursive: true });
    expect(() => readPropagation('sideways')).toThrow(/sideways/);
  });
  it('that mean nothing are refused', () => {
    expect(() => readMountOptions(mount('/x', 'bind', ['size=1']))).toThrow(/nothing for a bind/);
    expect(() => readMountOptions(mount('/x', 'tmpfs', ['idmap']))).toThrow(/bind mounts only/);
  });
});

describe('mounts', () => {
  it('refuse links at the mount points that matter, and only there', () => {
    const moves = args(plan({ mounts: ['/proc', '/sys', '/dev', '/dev/pts', '/dev/shm', '/dev/mqueue'].map((destination) => mount(destination, destination === '/proc' ? 'proc' : 'tmpfs')).concat(mount('/data', 'tmpfs')) }), 'moveMount');
    const refuse = Object.fromEntries(moves.map(({ target, refuse: bits }) => [target, bits]));
    expect(refuse).toMatchObject({ '/proc': BITS.REFUSE.symlink, '/sys': 1, '/dev': 1, '/dev/pts': 1, '/dev/shm': 1, '/dev/mqueue': 1, '/data': 0 });
  });
  it('CVE-2019-16884: nothing hides /proc', () => {
    for (const bad of [mount('/proc', 'tmpfs'), mount('/proc/self', 'bind'), mount('/x/../proc/sys', 'bind'), mount('/proc/1/attr', 'tmpfs')]) expect(() => plan({ mounts: [bad] }), bad.destination).toThrow(/nothing may hide/);
    expect(() => plan({ mounts: [mount('/proc/cpuinfo', 'bind'), mount('/proc', 'bind', ['rbind'], '/proc')] })).not.toThrow();
    for (const bad of ['/', '/..']) expect(() => plan({ mounts: [mount(bad, 'tmpfs')] }), bad).toThrow();
  });
  it('are cloned before the host\'s tree is left when they stay shared with it', () => {
    const steps = plan({ mounts: [mount('/s', 'bind', ['rbind', 'rshared']), mount('/m', 'bind', ['rbind', 'rslave']), mount('/p', 'bind', ['rbind'])] });
    const early = steps.filter(({ slot }) => slot === 'init.namespaces').map(({ operation }) => operation.name);
    expect(early.slice(0, 2)).toEqual(['openTree', 'setPropagation']);
    expect(args(steps, 'setPropagation')[0]).toMatchObject({ path: '/', flags: MS.slave | MS.rec });
    expect(args(plan({ mounts: [mount('/p', 'bind')] }), 'setPropagation')[0]).toMatchObject({ flags: MS.private | MS.rec });
  });
  it('of a bind keep what the host\'s mount says', () => {
    const set = args(plan({ mounts: [mount('/w', 'bind', ['rw', 'suid'])] }), 'setMountAttributes')[0];
    expect(set).toMatchObject({ set: 0, clear: MOUNT_ATTR.nosuid });
  });
  it('of tmpfs become read-only when all is in its place', () => {
    const steps = plan({ mounts: [mount('/t', 'tmpfs', ['ro']), mount('/t/below', 'bind')] });
    expect(args(steps, 'mountFs').find(({ source }) => source === '/src')).toMatchObject({ attributes: 0 });
    expect(steps.find(({ slot, operation }) => slot === 'init.mask' && operation.name === 'setMountAttributes')?.operation.args).toMatchObject({ set: MOUNT_ATTR.rdonly });
  });
  it('that show a namespace which a user namespace does not own are made by the stage, sysfs read-only', () => {
    const mounts = [mount('/proc', 'proc'), mount('/sys', 'sysfs'), mount('/dev/mqueue', 'mqueue'), mount('/sys/fs/cgroup', 'cgroup2'), mount('/t', 'tmpfs')];
    const slotsOf = (...types: Parameters<typeof own>): Record<string, string> => {
      const steps = plan({ mounts, linux: { namespaces: own('mount', 'user', ...types), ...maps } });
      return Object.fromEntries(steps.filter(({ operation, slot }) => operation.name === 'mountFs' && slot !== 'init.namespaces').map(({ operation, slot }) => [String(operation.args['type']), slot]));
    };
    expect(slotsOf()).toEqual({ proc: 'stage.mounts', sysfs: 'stage.mounts', mqueue: 'stage.mounts', cgroup2: 'stage.mounts', tmpfs: 'init.mounts' });
    expect(new Set(Object.values(slotsOf('pid', 'network', 'ipc', 'cgroup')))).toEqual(new Set(['init.mounts']));
    const sysfs = args(plan({ mounts: [mount('/sys', 'sysfs')], linux: { namespaces: own('mount', 'user'), ...maps } }), 'mountFs').find(({ type }) => type === 'sysfs');
    expect(Number(sysfs?.['attributes']) & MOUNT_ATTR.rdonly).toBe(MOUNT_ATTR.rdonly);
  });
  it('of the host are looked up by the stage in a user namespace, and init is root before it makes anything', () => {
    const steps = plan({ mounts: [mount('/b', 'bind', ['rbind', 'ro'])], linux: { namespaces: own('mount', 'user', 'pid'), ...maps } });
    expect(named(steps, 'openTree', 'moveMount', 'becomeRoot').filter(({ slot }) => slot !== 'init.namespaces').map(({ slot, operation }) => `${slot} ${operation.name}`)).toEqual(['stage.mounts openTree', 'init.mounts becomeRoot', 'init.mounts moveMount']);
    expect(() => plan({ mounts: [mount('/b', 'bind', ['rbind', 'rshared'])], linux: { namespaces: own('mount', 'user', 'pid'), ...maps } })).toThrow(/cannot mount into the host/);
  });
  it('with idmap show the ids of the container, or those that they say', () => {
    const user = { linux: { namespaces: own('mount', 'user', 'pid'), ...maps } };
    expect(args(plan({ mounts: [mount('/b', 'bind', ['rbind', 'idmap'])], ...user }), 'idmapMount')).toEqual([{ mount: 'linux-base.mount.0', userns: 'userns', recursive: 0 }]);
    expect(args(plan({ mounts: [mount('/b', 'bind', ['rbind', 'ridmap'])], ...user }), 'idmapMount')[0]).toMatchObject({ recursive: 1 });
    const steps = plan({ mounts: [{ ...mount('/b', 'bind', ['idmap']), uidMappings: [{ containerID: 0, hostID: 5, size: 1 }], gidMappings: [{ containerID: 0, hostID: 6, size: 1 }] }] });
    expect(named(steps, 'makeUserNamespace', 'idmapMount').map(({ slot, operation }) => `${slot} ${operation.name}`)).toEqual(['init.mounts makeUserNamespace', 'init.mounts idmapMount']);
    expect(args(steps, 'makeUserNamespace')[0]).toMatchObject({ uidMap: '0 5 1\n', gidMap: '0 6 1\n' });
    expect(() => plan({ mounts: [mount('/b', 'bind', ['idmap'])] })).toThrow(/idmap needs a user namespace/);
  });
  it('name owners that exist inside only', () => {
    const linux = { namespaces: own('mount', 'user', 'pid'), ...maps };
    const small = { ...linux, gidMappings: [{ containerID: 0, hostID: 100000, size: 3 }] };
    expect(args(plan({ mounts: [mount('/dev/pts', 'devpts', ['gid=5'])], linux }), 'mountFs').find(({ type }) => type === 'devpts')).toMatchObject({ options: ['gid=5'] });
    expect(args(plan({ mounts: [mount('/dev/pts', 'devpts', ['gid=5'])], linux: small }), 'mountFs').find(({ type }) => type === 'devpts')).toMatchObject({ options: [] });
    expect(() => plan({ mounts: [mount('/t', 'tmpfs', ['uid=70000'])], linux })).toThrow(/uid=70000 is no id of the container/);
  });
  it('stand before devices, masks and the pivot, and the root turns read-only last', () => {
    const steps = plan({ root: { path: 'x', readonly: true }, mounts: [mount('/dev', 'tmpfs')], linux: { namespaces: own('mount'), maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'] } });
    const names = steps.map(({ operation }) => operation.name);
    const order = ['procHandle', 'mountFs', 'mknod', 'readonly', 'mask', 'pivotRoot'].map((name) => names.lastIndexOf(name as never));
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(steps.filter(({ slot }) => slot === 'init.pivot').map(({ operation }) => operation.name)).toEqual(['pivotRoot', 'setMountAttributes']);
  });
});

describe('limits in a user namespace', () => {
  const rlimits = [{ type: 'RLIMIT_NOFILE', soft: 10, hard: 5000 }, { type: 'RLIMIT_CORE', soft: 0, hard: 0 }];
  const limits = 'Limit                     Soft Limit           Hard Limit           Units     \nMax core file size        0                    unlimited            bytes     \nMax open files            1024                 4096                 files     \n';
  const machine = (capabilities: readonly string[]) => fakeMachine({ root: '/r', runRoot: '/rr' }, { capabilities, read: (path) => (path === '/proc/self/limits' ? limits : undefined) });
  const stage = (capabilities: readonly string[]): unknown[] => {
    const collector = createPlanCollector();
    createLinuxBase({ machine: machine(capabilities) }).planProcess(collector.writer('linux-base', 'applyLimits'), specOf({ process: { rlimits, oomScoreAdj: -5 }, linux: { namespaces: own('mount', 'user', 'pid'), ...maps } }), run);
    collector.close();
    return collector.steps().filter(({ slot }) => slot === 'stage.mounts').map(({ operation }) => [operation.name, operation.args]);
  };
  it('that are above the engine\'s own are raised by the stage, as is the score; init lowers its own', () => {
    expect(stage(['CAP_SYS_RESOURCE'])).toEqual([['rlimit', { resource: 7, soft: 5000n, hard: 5000n }], ['processAttributes', { what: BITS.PROCESS.oomScoreAdj, oomScoreAdj: -5 }]]);
    // who may not raise them need not try
    expect(stage([])).toEqual([['processAttributes', expect.anything()]]);
  });
  it('devices are those of the host with the same numbers', () => {
    const collector = createPlanCollector();
    const found = fakeMachine({ root: '/r', runRoot: '/rr' }, { read: (path) => (path === '/sys/dev/block/8:0/uevent' ? 'MAJOR=8\nMINOR=0\nDEVNAME=sda\n' : undefined) });
    createLinuxBase({ machine: found }).planRootfs(collector.writer('linux-base', 'prepareRootfs'), specOf({ linux: { namespaces: own('mount', 'user', 'pid'), ...maps, devices: [{ type: 'b', path: '/dev/xvda', major: 8, minor: 0 }] } }));
    collector.close();
    expect(args(collector.steps(), 'mknod').find(({ path }) => path === '/dev/xvda')).toMatchObject({ bind: '/dev/sda' });
  });
});

describe('devices', () => {
  it('are the default ones, replaced by path', () => {
    const nodes = args(plan({ linux: { namespaces: own('mount'), devices: [{ type: 'c', path: '/dev/null', major: 1, minor: 3, fileMode: 0o600, uid: 5 }, { type: 'b', path: '/dev/a/b', major: 8, minor: 1 }, { type: 'p', path: '/dev/pipe' }] } }), 'mknod');
    expect(nodes.filter(({ path }) => path === '/dev/null')).toEqual([expect.objectContaining({ mode: 0o020600, uid: 5 })]);
    expect(nodes.map(({ path }) => path)).toEqual(expect.arrayContaining(['/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', '/dev/tty', '/dev/a/b']));
    expect(nodes.find(({ path }) => path === '/dev/a/b')).toMatchObject({ mode: 0o060666, bind: '/dev/a/b' });
    expect(nodes.find(({ path }) => path === '/dev/pipe')).toMatchObject({ mode: 0o010666 });
  });
  it('get a /dev when nothing is mounted there', () => {
    const folders = (mounts: Mount[]): unknown[] => args(plan({ mounts }), 'mkdir').map(({ path }) => path).filter((path) => path === '/dev');
    expect(folders([])).toEqual(['/dev']);
    expect(folders([mount('dev/', 'tmpfs')])).toEqual([]);
  });
  it('are left alone in a /dev of somebody else', () => {
    expect(named(plan({ mounts: [mount('/dev', 'bind', ['rbind'], '/dev')] }), 'mknod', 'symlink')).toEqual([]);
  });
  it('have absolute paths and known types', () => {
    expect(() => plan({ linux: { namespaces: own('mount'), devices: [{ type: 'c', path: 'dev/x' }] } })).toThrow(/absolute/);
    expect(() => plan({ linux: { namespaces: own('mount'), devices: [{ type: 'x' as 'c', path: '/dev/x' }] } })).toThrow(/unknown type/);
  });
});

describe('namespaces', () => {
  it('are flags of clone, but for those that come later', () => {
    expect(readNamespaces(specOf({ linux: { namespaces: own('mount', 'cgroup', 'time') } })).flags).toBe(CLONE.mount | CLONE.time);
    expect(readNamespaces(specOf({ linux: { namespaces: own('mount', 'time'), timeOffsets: { boottime: { secs: 1 } } } }))).toMatchObject({ flags: CLONE.mount, stage: true });
  });
  it('are refused when they make no sense', () => {
    const wrong: [NonNullable<Spec['linux']>, RegExp][] = [
      [{ namespaces: own('pid') }, /mount namespace of its own/], [{ namespaces: own('mount', 'mount') }, /twice/], [{ namespaces: [{ type: 'mount', path: '/x' }] }, /cannot be joined/],
      [{ namespaces: own('mount'), uidMappings: [{ containerID: 0, hostID: 0, size: 1 }] }, /user namespace/], [{ namespaces: own('mount'), timeOffsets: { boottime: { secs: 1 } } }, /time namespace/],
    ];
    for (const [linux, message] of wrong) expect(() => plan({ linux })).toThrow(message);
  });
  it('with maps and offsets have a stage: namespaces before init is born, maps after', () => {
    const steps = plan({ linux: { namespaces: own('mount', 'user', 'time'), uidMappings: [{ containerID: 0, hostID: 100000, size: 65536 }], gidMappings: [{ containerID: 0, hostID: 200000, size: 10 }], timeOffsets: { monotonic: { secs: -5, nanosecs: 7 } } } });
    expect(steps.filter(({ slot }) => slot.startsWith('stage.')).map(({ slot, operation }) => `${slot} ${operation.name}`)).toEqual(['stage.namespaces unshare', 'stage.namespaces timeOffsets', 'stage.namespaces unshare', 'stage.namespaces setPropagation', 'stage.maps writeIdMap', 'stage.maps writeIdMap', 'stage.mounts procHandle']);
    expect(args(steps, 'timeOffsets')[0]).toEqual({ offsets: 'monotonic -5 7\n' });
    expect(args(steps, 'writeIdMap').map(({ kind, map }) => [kind, map])).toEqual([[0, '0 100000 65536\n'], [1, '0 200000 10\n']]);
  });
  it('by path are opened by the shim and joined where they count', () => {
    const steps = plan({ linux: { namespaces: [{ type: 'mount' }, { type: 'network', path: '/n' }, { type: 'pid', path: '/p' }] } });
    expect(named(steps, 'openNamespace', 'joinNamespace').map(({ slot, operation }) => `${slot} ${operation.name}`)).toEqual(['shim.namespaces openNamespace', 'shim.namespaces openNamespace', 'shim.namespaces joinNamespace', 'init.namespaces joinNamespace']);
  });
  it('CVE-2024-40635: ids beyond 32 bits are refused', () => {
    for (const hostID of [2 ** 32, -1, 1.5, 0xffffffff]) expect(() => idMapText([{ containerID: 0, hostID, size: 1 }], 'uidMappings')).toThrow(/not an id/);
    expect(() => formatTimeOffsets({ realtime: { secs: 1 } })).toThrow(/unknown clock/);
  });
});

describe('sysctls', () => {
  const namespaces = readNamespaces(specOf());
  it('keep the meaning of dots and slashes', () => {
    expect(checkSysctl('net.ipv4.conf.eth0/1.forwarding', '1', namespaces)).toBe('net/ipv4/conf/eth0.1/forwarding');
    expect(checkSysctl('net/ipv4/conf/eth0.1/forwarding', '1', namespaces)).toBe('net/ipv4/conf/eth0.1/forwarding');
    expect(checkSysctl('kernel.shm_rmid_forced', '1', namespaces)).toBe('kernel/shm_rmid_forced');
  });
  it('CVE-2022-0811: nothing of the host, by no grammar', () => {
    for (const key of ['kernel.core_pattern', 'vm.swappiness', 'kernel.msgmax/../core_pattern', 'net/../kernel/core_pattern', 'net.ipv4....kernel', 'fs.file-max']) expect(() => checkSysctl(key, '1', namespaces), key).toThrow();
    for (const value of ['a+kernel.core_pattern=|/x', '1\n2', '$(x)', 'a=b']) expect(() => checkSysctl('net.core.somaxconn', value, namespaces), value).toThrow();
  });
  it('need the namespace they belong to', () => {
    expect(() => checkSysctl('net.core.somaxconn', '1', readNamespaces(specOf({ linux: { namespaces: own('mount') } })))).toThrow(/network namespace/);
  });
});

describe('process', () => {
  it('is told who it is by name, or by numbers within their range', () => {
    const user = (fields: NonNullable<Spec['process']>['user'], annotations?: Record<string, string>) => userOf({ cwd: '/', user: fields }, annotations);
    expect(user({ username: 'bob:staff' })).toEqual({ user: 'bob:staff', extra: [] });
    expect(user({ uid: 5, gid: 6, additionalGids: [7] }, { 'engine.internal/group-add': '["video"]' })).toEqual({ user: '5:6', extra: ['7', 'video'] });
    for (const uid of [-1, 0xffffffff, 2 ** 32, 1.5, Number.NaN]) expect(() => user({ uid }), String(uid)).toThrow(/not in 0/);
  });
  it('has its limits, of which a rise that is refused is a warning where the engine lacks the right to it', () => {
    const [limit] = named(plan({ process: { rlimits: [{ type: 'RLIMIT_NOFILE', soft: -1, hard: 2 ** 64 }] } }), 'rlimit');
    expect(limit?.operation).toMatchObject({ args: { resource: 7, soft: 0xffff_ffff_ffff_ffffn, hard: 0xffff_ffff_ffff_ffffn }, flags: { optional: true } });
    for (const rlimits of [[{ type: 'RLIMIT_X', soft: 1, hard: 1 }], [{ type: 'RLIMIT_CPU', soft: 2, hard: 1 }], [{ type: 'RLIMIT_CPU', soft: 1, hard: 1 }, { type: 'RLIMIT_CPU', soft: 1, hard: 1 }], [{ type: 'RLIMIT_CPU', soft: 1.5, hard: 2 }]]) {
      expect(() => plan({ process: { rlimits } }), JSON.stringify(rlimits)).toThrow(/rlimit/);
    }
  });
  it('has scheduler, priority and personality as numbers', () => {
    const steps = plan({ process: { oomScoreAdj: -5, scheduler: { policy: 'SCHED_IDLE', nice: 3 }, ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 4 } }, linux: { namespaces: own('mount'), personality: { domain: 'LINUX32' } } });
    expect(args(steps, 'setScheduler')).toEqual([{ policy: 5, flags: 0n, nice: 3, priority: 0, runtime: 0n, deadline: 0n, period: 0n }]);
    expect(args(steps, 'processAttributes')[0]).toMatchObject({ what: 43, umask: 0o22, oomScoreAdj: -5, proc: 'proc', ioPriority: (2 << 13) | 4, personality: 8 });
    for (const process of [{ oomScoreAdj: 1001 }, { scheduler: { policy: 'SCHED_X' } }, { ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 8 } }]) expect(() => plan({ process })).toThrow();
  });
  it('makes its working directory as root, enters it as its user, and closes what it does not need first', () => {
    const steps = plan({ process: { cwd: '/srv/app' } });
    const slots = Object.fromEntries(named(steps, 'ensureWorkdir', 'chdir', 'closeFds', 'resolveExec', 'exec').map(({ slot, operation }) => [operation.name, slot]));
    expect(slots).toEqual({ ensureWorkdir: 'init.devices', closeFds: 'init.bounds', chdir: 'init.workdir', resolveExec: 'init.workdir', exec: 'init.exec' });
    expect(steps.at(-1)?.operation.name).toBe('exec');
  });
  it('needs a command, an absolute folder and a well-formed environment', () => {
    expect(() => plan({ process: { args: [] } })).toThrow(/no command/);
    expect(() => plan({ process: { cwd: 'x' } })).toThrow(/not absolute/);
    expect(() => plan({ process: { env: ['=x'] } })).toThrow(/NAME=VALUE/);
  });
  it('leaves the identity to whoever compiles its capabilities', () => {
    expect(named(plan(), 'identity').length).toBe(1);
    expect(named(plan({ process: { capabilities: { bounding: [] } } }), 'identity')).toEqual([]);
  });
  it('gets a reaper for --init, a keyring of its own, a terminal or pipes', () => {
    expect(named(plan({ annotations: { 'engine.internal/init': '1' } }), 'reaper').length).toBe(1);
    expect(named(plan({ annotations: { 'engine.internal/init': '0' } }), 'reaper').length).toBe(0);
    const armed = (apparmorProfile: string): string[] => plan({ annotations: { 'engine.internal/init': '1' }, process: { apparmorProfile } }).filter(({ slot }) => slot === 'init.reaper').map(({ operation }) => operation.name);
    expect([armed('some'), armed('unconfined')]).toEqual([['reaperArmor', 'reaper'], ['reaper']]);
    expect(args(plan(), 'sessionKeyring')).toEqual([{ name: '_ses.c0ffee' }]);
    expect(named(plan({ process: { terminal: true } }), 'terminal', 'pipes').map(({ operation }) => operation.name)).toEqual(['terminal']);
    expect(named(plan(), 'terminal', 'pipes').map(({ operation }) => operation.name)).toEqual(['pipes']);
  });
});

describe('sessions', () => {
  it('find root and terminals again, and end in exec', () => {
    const collector = createPlanCollector();
    base.planExec(collector.writer('linux-base', 'exec'), specOf({ process: { terminal: true, oomScoreAdj: 1 } }), run);
    const steps = collector.steps();
    encodePlan({ steps });
    expect(steps.every(({ slot }) => slot.startsWith('exec.'))).toBe(true);
    expect(args(steps, 'open').map(({ path, out }) => [path, out])).toEqual([['/', 'rootfs'], ['/dev/pts', 'devpts']]);
    expect(named(steps, 'ensureWorkdir', 'reaper')).toEqual([]);
    expect(steps.at(-1)?.operation.name).toBe('exec');
  });
});

it('every section that is compiled has its pointer, and is declared', () => {
  const steps = plan({
    hostname: 'h', domainname: 'd', root: { path: 'x', readonly: true }, mounts: [mount('/m', 'tmpfs')], process: { cwd: '/w', rlimits: [{ type: 'RLIMIT_CPU', soft: 1, hard: 1 }], terminal: true },
    linux: { namespaces: own('mount', 'uts', 'network'), sysctl: { 'net.core.somaxconn': '1' }, rootfsPropagation: 'rshared', maskedPaths: ['/a'], readonlyPaths: ['/b'], devices: [{ type: 'c', path: '/dev/x', major: 1, minor: 1 }] },
  });
  const known = manifest.engine.sections.map((section) => `/${section.replaceAll('.', '/')}`);
  for (const { origin, operation } of steps) {
    if (origin.pointer === undefined || origin.pointer === '/process') continue;
    expect(known.some((section) => origin.pointer === section || origin.pointer?.startsWith(`${section}/`)), `${operation.name} ${origin.pointer}`).toBe(true);
  }
});
