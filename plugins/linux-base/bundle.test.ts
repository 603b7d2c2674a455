/** What only the config.json of somebody else's engine asks for, as steps. */
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { createPlanCollector } from '@engine/core/hooks';
import { encodePlan, type PlannedStep } from '@engine/core/plan';
import { type Mount, type Spec } from '@engine/core/spec';
import { createFakeRtnetlink } from '@engine/native/rtnetlink';
import { describe, expect, it } from 'vitest';
import { createLinuxBase } from './driver.ts';
import { hierarchiesOf } from './group-mounts.ts';
import { CLONE, MOUNT_ATTR } from './kernel.ts';
import { readMountOptions } from './mount-options.ts';
import { affinityMask } from './scheduling.ts';

const group = (target: string, superOptions: string[], type = 'cgroup') => ({ id: 1, parent: 0, device: '0:1', root: '/', target, options: ['rw'], propagation: [], type, source: 'cgroup', superOptions });
const v1 = [group('/sys/fs/cgroup/cpu,cpuacct', ['rw', 'cpu', 'cpuacct']), group('/sys/fs/cgroup/systemd', ['rw', 'xattr', 'name=systemd', 'release_agent=/x']), group('/elsewhere/memory', ['rw', 'memory'])];
const links = { links: [{ index: 7, name: 'eth7', up: true, mtu: 1500 }], addresses: [
  { index: 7, family: 4 as const, address: '192.0.2.7', prefix: 24, scope: 0, permanent: true }, { index: 7, family: 6 as const, address: 'fe80::7', prefix: 64, scope: 253, permanent: true }, { index: 7, family: 4 as const, address: '192.0.2.8', prefix: 24, scope: 0, permanent: false },
] };
const bundle = { path: '/b', noNewKeyring: false, noPivot: false };
const run = { container: 'c1', runFolder: '/s/c1', bundle };
const types = (...names: string[]): NonNullable<NonNullable<Spec['linux']>['namespaces']> => names.map((type) => ({ type: type as 'pid' }));

function plan(changes: Partial<Spec> = {}, options: { readonly run?: typeof run; readonly mounts?: ReturnType<typeof group>[]; readonly selinux?: boolean; readonly exec?: boolean } = {}): readonly PlannedStep[] {
  const machine = { ...fakeMachine({ root: '/r', runRoot: '/rr' }), mounts: options.mounts ?? [], read: (path: string) => (options.selinux && path === '/sys/fs/selinux/enforce' ? '1' : undefined) };
  const base = createLinuxBase({ machine, rtnetlink: () => createFakeRtnetlink(links) });
  const collector = createPlanCollector();
  const writer = collector.writer('linux-base', 'test');
  const spec: Spec = { ociVersion: '1.2.0', process: { cwd: '/', args: ['true'], user: {} }, linux: { namespaces: types('mount', 'pid', 'network') }, ...changes };
  const context = options.run ?? run;
  if (options.exec) base.planExec(writer, spec, context);
  else {
    base.planRootfs(writer, spec, context);
    base.planNamespaces(writer, spec, context);
    base.planProcess(writer, spec, context);
  }
  const steps = collector.steps();
  encodePlan({ steps });
  return steps;
}
const of = (steps: readonly PlannedStep[], name: string) => steps.filter(({ operation }) => operation.name === name);
const args = (steps: readonly PlannedStep[], name: string) => of(steps, name).map(({ operation }) => operation.args);

describe('hooks', () => {
  const hooks = { prestart: [{ path: '/p' }], createRuntime: [{ path: '/r', args: ['r', 'x'], env: ['A=1'], timeout: 2 }], createContainer: [{ path: '/c' }], startContainer: [{ path: '/s' }], poststop: [{ path: '/z' }] };
  it('run at their points, with their state and nothing of ours', () => {
    const steps = plan({ hooks, annotations: { a: 'b' } });
    const found = of(steps, 'hook').map(({ slot, operation }) => [slot, operation.args['path'], operation.args['cwd'], operation.args['pid']]);
    expect(found).toEqual([['shim.started', '/p', '/b', 'init'], ['shim.started', '/r', '/b', 'init'], ['init.mask', '/c', '/s/c1/rootfs', undefined], ['init.exec', '/s', undefined, undefined]]);
    expect(args(steps, 'hook')[1]).toMatchObject({ argv: ['r', 'x'], env: ['A=1'], timeout: 2000 });
    expect(args(steps, 'hook')[0]).toMatchObject({ argv: ['/p'], env: [], timeout: 0 });
    const { stateHead, stateTail } = args(steps, 'hook')[3] as { stateHead: string; stateTail: string };
    expect(JSON.parse(`${stateHead}7${stateTail}`)).toEqual({ ociVersion: '1.2.0', id: 'c1', status: 'created', bundle: '/b', annotations: { a: 'b' }, pid: 7 });
  });
  it('outside have the container wait, its mounts made and its root not changed', () => {
    const steps = plan({ hooks });
    const names = steps.map(({ slot, operation }) => `${slot} ${operation.name}`);
    expect(names.filter((name) => /awaitPoint|release|shim.started hook/.test(name))).toEqual(['shim.started awaitPoint', 'shim.started hook', 'shim.started hook', 'shim.started release']);
    expect(names.indexOf('init.mask reach')).toBeLessThan(names.indexOf('init.mask hook'));
    expect(names.indexOf('init.mask hook')).toBeLessThan(names.indexOf('init.pivot pivotRoot'));
    expect(of(plan(), 'reach')).toEqual([]);
  });
});

describe('mounts of a bundle', () => {
  const cgroup: Mount = { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro'] };
  it('of cgroups show the own group of every hierarchy, in a namespace that lives for that alone', () => {
    const steps = plan({ mounts: [cgroup] }, { mounts: v1 });
    expect(hierarchiesOf({ mounts: v1 })).toEqual([{ name: 'cpu,cpuacct', options: ['cpu', 'cpuacct'] }, { name: 'systemd', options: ['name=systemd'] }]);
    const names = steps.filter(({ slot }) => slot === 'init.mounts').map(({ operation }) => operation.name);
    expect(names.slice(names.indexOf('openNamespace'), names.indexOf('joinNamespace') + 1)).toEqual(['openNamespace', 'unshare', 'mountFs', 'mountFs', 'joinNamespace']);
    expect(args(steps, 'unshare')).toEqual([{ flags: BigInt(CLONE.cgroup) }]);
    expect(args(steps, 'mountFs').filter(({ type }) => type === 'cgroup').every(({ attributes }) => ((attributes as number) & 15) === 15)).toBe(true);
    expect(args(steps, 'symlink').filter(({ target }) => target === 'cpu,cpuacct').map(({ path }) => path)).toEqual(['/sys/fs/cgroup/cpu', '/sys/fs/cgroup/cpuacct']);
    // its folders are made first
    expect(of(steps, 'setMountAttributes').map(({ slot }) => slot)).toContain('init.mask');
    expect(args(plan({ mounts: [cgroup], linux: { namespaces: types('mount', 'cgroup') } }, { mounts: v1 }), 'unshare')).toEqual([]);
    expect(args(plan({ mounts: [cgroup] }), 'mountFs').map(({ type }) => type)).toContain('cgroup2');
  });
  it('take relative places, the bundle\'s files and the mode of what a tmpfs covers', () => {
    const steps = plan({ mounts: [{ destination: 'here', type: 'bind', source: 'files', options: ['bind'] }, { destination: '/t', type: 'tmpfs' }, { destination: '/u', type: 'tmpfs', options: ['mode=700'] }] });
    expect(args(steps, 'openTree')[0]).toMatchObject({ source: '/b/files' });
    expect(args(steps, 'moveMount').map(({ target }) => target)).toContain('/here');
    expect(args(steps, 'copyMode').map(({ path }) => path)).toEqual(['/t']);
  });
  it('are changed where they are, cleared below, and refused by name', () => {
    const read = (...options: string[]) => readMountOptions({ destination: '/x', type: 'bind', options });
    expect(args(plan({ mounts: [{ destination: '/dev', options: ['remount', 'ro'] }] }), 'setMountAttributes')).toContainEqual({ mount: 'linux-base.mount.0', set: MOUNT_ATTR.rdonly, clear: 0 });
    expect(args(plan({ mounts: [{ destination: '/x', type: 'bind', source: '/y', options: ['rbind', 'rrw'] }] }), 'setMountAttributes')).toContainEqual(expect.objectContaining({ recursive: 1, clear: MOUNT_ATTR.rdonly }));
    expect(read('sync', 'dirsync', 'lazytime', 'acl').data).toEqual([]);
    expect(readMountOptions({ destination: '/x', type: 'ext4', options: ['sync', 'noacl'] }).data).toEqual(['sync']);
    expect(() => read('tmpcopyup')).toThrow(/tmpfs only/);
    expect(() => readMountOptions({ destination: '/x', options: ['remount', 'size=1'] })).toThrow(/remount/);
    expect(() => plan({ mounts: [{ destination: '/x', type: 'bind', source: '/y', options: ['bind'], uidMappings: [{ containerID: 0, hostID: 1, size: 1 }] }] })).toThrow(/belong together/);
    expect(args(plan({ mounts: [{ destination: '/x', type: 'bind', source: '/y', uidMappings: [{ containerID: 0, hostID: 1, size: 1 }], gidMappings: [{ containerID: 0, hostID: 1, size: 1 }] }] }), 'idmapMount')).toHaveLength(1);
  });
  it('are left in place without a pivot', () => {
    const steps = plan({}, { run: { ...run, bundle: { ...bundle, noPivot: true } } });
    expect([of(steps, 'moveRoot').length, of(steps, 'pivotRoot').length]).toEqual([1, 0]);
  });
});

it('a sysctl of a namespace that is the host\'s by its path is refused', () => {
  const linux = (path: string) => ({ linux: { namespaces: [...types('mount'), { type: 'network' as const, path }], sysctl: { 'net.ipv4.ip_forward': '1' } } });
  expect(() => plan(linux('/proc/self/ns/net'))).toThrow(/shares the host's network/);
  expect(args(plan(linux('/proc/self/ns/ipc')), 'sysctl')).toHaveLength(1);
});

describe('netDevices', () => {
  const devices = (netDevices: Record<string, { name?: string }>, namespaces = types('mount', 'network')) => plan({ linux: { namespaces, netDevices } });
  it('go with their lasting addresses, under their new name, and are up', () => {
    const steps = devices({ eth7: { name: 'net0' } });
    expect(of(steps, 'netlinkWith').map(({ slot }) => slot)).toEqual(['shim.attach', 'init.netns']);
    expect(args(steps, 'linkIndex')).toMatchObject([{ name: 'net0' }]);
    const inside = Buffer.from(args(steps, 'netlinkWith')[1]?.['messages'] as Uint8Array);
    expect(inside.includes(Buffer.from([192, 0, 2, 7]))).toBe(true);
    expect(inside.includes(Buffer.from([192, 0, 2, 8]))).toBe(false);
    expect(of(steps, 'netlinkWith')[0]?.noUndo).toMatch(/kernel/);
  });
  it('are refused by name', () => {
    for (const name of ['..', 'a/b', 'a b', 'x'.repeat(16), 'eth%d', 'a:b', '']) expect(() => devices({ [name]: {} }), name).toThrow(/no name of a network device/);
    expect(() => devices({ eth7: { name: '../x' } })).toThrow(/eth7\.name/);
    expect(() => devices({ gone: {} })).toThrow(/no such network device/);
    expect(() => devices({ eth7: {} }, types('mount'))).toThrow(/shares the host's network/);
  });
});

describe('the process of a bundle', () => {
  it('has no capability and no group that it does not name, and its rlimits as they are', () => {
    const steps = plan({ process: { cwd: '/', args: ['true'], env: ['A=1', 'B=2', 'A=3'], user: { uid: 5, username: 'root', additionalGids: [7] }, rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1, hard: 2 }] } });
    expect(args(steps, 'resolveUser')[0]).toMatchObject({ user: '5:0' });
    expect(args(steps, 'idList')).toEqual([{ ids: Uint8Array.of(7, 0, 0, 0), out: 'groups' }]);
    expect(args(steps, 'identity')).toEqual([expect.objectContaining({ effective: 0n, permitted: 0n })]);
    expect(args(steps, 'capabilityBounds')).toEqual([{ bounding: 0n }]);
    expect(of(steps, 'rlimit')[0]?.operation.flags).toBeUndefined();
    expect(args(steps, 'exec')[0]).toMatchObject({ env: ['A=3', 'B=2'] });
  });
  it('may keep the caller\'s keyring', () => {
    expect(of(plan(), 'sessionKeyring')).toHaveLength(1);
    expect(of(plan({}, { run: { ...run, bundle: { ...bundle, noNewKeyring: true } } }), 'sessionKeyring')).toEqual([]);
  });
  it('is scheduled as it says, or refused by the field', () => {
    const scheduled = (scheduler: NonNullable<NonNullable<Spec['process']>['scheduler']>) => args(plan({ process: { cwd: '/', args: ['true'], user: {}, scheduler } }), 'setScheduler');
    expect(scheduled({ policy: 'SCHED_DEADLINE', runtime: 10, deadline: 20n, period: 30, flags: ['SCHED_FLAG_RESET_ON_FORK', 'SCHED_FLAG_DL_OVERRUN'] })).toEqual([{ policy: 6, flags: 5n, nice: 0, priority: 0, runtime: 10n, deadline: 20n, period: 30n }]);
    for (const bad of [{ policy: 'SCHED_FIFO' }, { policy: 'SCHED_FIFO', priority: 100 }, { policy: 'SCHED_OTHER', priority: 1 }, { policy: 'SCHED_OTHER', runtime: 1 }, { policy: 'SCHED_OTHER', nice: 20 }]) expect(() => scheduled(bad), JSON.stringify(bad)).toThrow(/process\.scheduler/);
  });
  it('of a session may be kept to CPUs, before its group and after', () => {
    const steps = plan({ process: { cwd: '/', args: ['true'], user: {}, execCPUAffinity: { initial: '0', final: '1,9-10' } } }, { exec: true });
    expect(of(steps, 'setAffinity').map(({ slot, operation }) => [slot, operation.args['mask']])).toEqual([['shim.limits', Uint8Array.of(1)], ['exec.limits', Uint8Array.of(2, 6)]]);
    for (const bad of ['x', '3-1', '9999', '1,,2']) expect(() => affinityMask(bad, 'f'), bad).toThrow(/no list of CPUs/);
  });
  it('has an SELinux context only where there is SELinux', () => {
    const process = { cwd: '/', args: ['true'], user: {}, selinuxLabel: 'a:b:c:d' };
    expect(() => plan({ process })).toThrow(/process\.selinuxLabel: SELinux is not enabled/);
    expect(args(plan({ process }, { selinux: true }), 'execLabel')).toMatchObject([{ label: 'a:b:c:d' }]);
    expect(() => plan({ linux: { namespaces: types('mount'), mountLabel: 'l' } })).toThrow(/linux\.mountLabel/);
    expect(args(plan({ linux: { namespaces: types('mount'), mountLabel: 'l' }, mounts: [{ destination: '/t', type: 'tmpfs' }] }, { selinux: true }), 'mountFs').some(({ options }) => (options as string[] | undefined)?.includes('context=l'))).toBe(true);
  });
});
