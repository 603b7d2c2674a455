import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fakeMachine } from '@engine/core/contracts/common/bench';
import { idmapObstacle, type Machine } from '@engine/core/contracts/common';
import { describe, expect, it } from 'vitest';
import { readMachine } from '../machine.ts';
import { type KernelCalls } from './calls.ts';
import { kernelFeatures } from './features.ts';
import { askFor, kernelReport, machineFacts } from './report.ts';
import { isSince, OLDEST } from './versions.ts';
import { viewOf, type KernelView } from './view.ts';

const folders = { root: '/var/lib/engine', runRoot: '/run/engine' };
const unified = { id: 2, parent: 1, device: '0:30', root: '/', target: '/sys/fs/cgroup', options: ['rw'], propagation: [], type: 'cgroup2', source: 'cgroup2', superOptions: ['rw'] };
interface Fake { readonly links?: Readonly<Record<string, string>>; readonly machine?: Partial<Machine>; readonly files?: Readonly<Record<string, string>>; readonly calls?: KernelCalls }
/** A machine of these files, and nothing else. */
function fake({ machine = {}, files = {}, links = {}, calls }: Fake = {}): KernelView {
  const plain = fakeMachine(folders, { namespaces: [], filesystems: [], ...machine });
  return {
    machine: { ...plain, mounts: [...plain.mounts.filter(({ type }) => !type.startsWith('cgroup')), ...(machine.mounts ?? [])], read: (path) => files[path] },
    calls,
    link: (path) => links[path],
    exists: (path) => path in files || Object.keys(files).some((name) => name.startsWith(`${path}/`)),
    list: (path) => [...new Set(Object.keys(files).filter((name) => name.startsWith(`${path}/`)).map((name) => name.slice(path.length + 1).split('/')[0] ?? ''))],
  };
}
const all = (answer: boolean | undefined): KernelCalls => new Proxy({}, { get: () => () => answer }) as KernelCalls;
const answers = (view: KernelView): Map<string, boolean> => new Map(kernelReport(view.machine, view).features.map(({ name, there }) => [name, there]));

describe('the table of kernel features', () => {
  const root = join(import.meta.dirname, '../..');
  it('names plugins that there are, each feature once, in sentences without an end', () => {
    expect(new Set(kernelFeatures.map(({ name }) => name)).size).toBe(kernelFeatures.length);
    for (const { name, users, use, without } of kernelFeatures) {
      expect(users.length, name).toBeGreaterThan(0);
      for (const user of users) expect(['shim', 'launcher', 'core'].includes(user) || existsSync(join(root, 'plugins', user, 'package.json')), `${name}: ${user}`).toBe(true);
      expect(`${use} ${without}`, name).not.toMatch(/\.( |$)|[\n|]/);
    }
  });
  it('says of what is newer than the oldest kernel where the other way was taken, of the rest that it is always there', () => {
    for (const { name, since, tested } of kernelFeatures) {
      if (!isSince(OLDEST, since)) expect(tested, name).not.toBe('always there');
      // refusing is no way for what came later
      if (!isSince(OLDEST, since)) expect(kernelFeatures.find((feature) => feature.name === name)?.without, name).not.toBe('containers are refused');
    }
  });
  it('gets an answer for each on a machine that tells nothing, by its version', () => {
    const report = kernelReport(fake().machine, fake());
    for (const { name, there, byVersion } of report.features) {
      const feature = kernelFeatures.find((candidate) => candidate.name === name);
      if (feature && byVersion) expect(there, name).toBe(isSince([6, 12], feature.since));
    }
    expect(report).toMatchObject({ release: fake().machine.release, oldest: '5.14' });
  });
  it('believes calls before versions, and versions where calls may not be made', () => {
    const asked = kernelFeatures.filter((feature) => feature.asked === 'call');
    expect(asked.length).toBeGreaterThan(10);
    for (const feature of asked) {
      // as RHEL's backports do
      expect(askFor(feature, fake({ machine: { kernel: [5, 14] }, calls: all(true) })), feature.name).toMatchObject({ there: true, byVersion: false });
      expect(askFor(feature, fake({ machine: { kernel: [9, 0] }, calls: all(false) })), feature.name).toMatchObject({ there: false, byVersion: false });
      expect(askFor(feature, fake({ machine: { kernel: [9, 0] }, calls: all(undefined) })), feature.name).toMatchObject({ there: true, byVersion: true });
    }
  });
  it('says of idmapped mounts what drivers go by', () => {
    const since = (path: string, type: string, as: 'mount' | 'layer'): string | undefined => {
      const { mounts } = fake().machine;
      const on = (kernel: readonly [number, number]): boolean => idmapObstacle({ kernel, release: '', mounts: [...mounts, { ...unified, target: '/x', type }] }, path, as) === undefined;
      return [[5, 12], [5, 14], [5, 15], [5, 18], [5, 19], [6, 2], [6, 3], [6, 18]].find(([major = 0, minor = 0]) => on([major, minor]))?.join('.');
    };
    const feature = (name: string): string | undefined => kernelFeatures.find((candidate) => candidate.name === name)?.since.join('.');
    for (const type of ['ext4', 'xfs', 'vfat']) expect(feature('idmapped mounts of ext4, xfs, fat')).toBe(since('/x', type, 'mount'));
    for (const type of ['btrfs', 'tmpfs']) expect(feature(`idmapped mounts of ${type}`)).toBe(since('/x', type, 'mount'));
    expect(feature('overlay on idmapped layers')).toBe(since('/x', 'ext4', 'layer'));
  });
  it('looks for files of cgroups in groups, as the root group lacks them', () => {
    const files = (more: readonly string[]): Record<string, string> => Object.fromEntries([['cgroup.controllers', 'cpu memory io pids\n'], ...more.map((name) => [`system.slice/${name}`, ''])].map(([name = '', text = '']) => [`/sys/fs/cgroup/${name}`, text]));
    const machine = { mounts: [unified], kernel: [6, 1] as const };
    const found = answers(fake({ machine, files: files(['cgroup.procs', 'memory.max', 'memory.peak', 'cpu.max', 'cpu.weight', 'io.max', 'io.bfq.weight', 'cgroup.kill']) }));
    expect(['memory.peak', 'cgroup.kill', 'io.weight or io.bfq.weight'].map((name) => found.get(name))).toEqual([true, true, true]);
    expect(['memory.swap.max', 'cpu.idle', 'io.latency', 'controller misc', 'cgroup.freeze'].map((name) => found.get(name))).toEqual([false, false, false, false, false]);
    // no group yet: the version
    expect(answers(fake({ machine, files: files([]) })).get('memory.peak')).toBe(true);
    expect(answers(fake({ machine: { ...machine, kernel: [5, 15] }, files: files([]) })).get('memory.peak')).toBe(false);
  });
  it('says the same as the version on this machine, whose kernel is no distribution\'s', ({ skip }) => {
    const machine = readMachine(folders);
    if (machine.uid !== 0 || /el\d|amzn/.test(machine.release)) skip();
    for (const feature of kernelFeatures.filter(({ asked }) => asked === 'call')) {
      expect(askFor(feature, viewOf(machine)).there, feature.name).toBe(isSince(machine.kernel, feature.since));
    }
    expect(viewOf(machine).calls).toBeDefined();
  });
});

describe('what is said of a machine', () => {
  const fact = (name: string, options: Fake): string | undefined => machineFacts(fake(options)).find((found) => found.name === name)?.text;
  const apparmor = { '/sys/module/apparmor/parameters/enabled': 'Y\n', '/sys/kernel/security/apparmor/profiles': '' };
  it.each<[string, string, Fake, RegExp | undefined]>([
    ['no cgroups', 'cgroups', {}, /^none is mounted$/],
    ['v2', 'cgroups', { machine: { mounts: [unified] }, files: { '/sys/fs/cgroup/cgroup.controllers': 'cpu memory', '/sys/fs/cgroup/cgroup.subtree_control': 'cpu' } }, /^v2 at \/sys\/fs\/cgroup: controllers cpu memory; for groups: cpu /],
    ['v1', 'cgroups', { machine: { mounts: [{ ...unified, type: 'cgroup', target: '/sys/fs/cgroup/memory' }] } }, /^v1$/],
    ['systemd', 'init', { files: { '/proc/1/comm': 'systemd\n', '/run/systemd/system/x': '', '/run/dbus/system_bus_socket': '' } }, /^systemd$/],
    ['systemd without its bus', 'init', { files: { '/run/systemd/system/x': '' } }, /bus is not there/],
    ['another init', 'init', { files: { '/proc/1/comm': 'busybox\n' } }, /^busybox: no scopes/],
    ['no AppArmor', 'AppArmor', {}, /^not in this kernel$/],
    ['AppArmor off', 'AppArmor', { files: { '/sys/module/apparmor/parameters/enabled': 'N\n' } }, /^switched off/],
    ['AppArmor without its parser', 'AppArmor', { files: apparmor }, /not installed.*package apparmor/],
    ['AppArmor', 'AppArmor', { files: { ...apparmor, '/usr/sbin/apparmor_parser': '' } }, /^on; .*\/usr\/sbin\/apparmor_parser/],
    ['SELinux', 'SELinux', { files: { '/sys/fs/selinux/enforce': '1' } }, /^enforcing/],
    ['no SELinux', 'SELinux', {}, undefined],
    ['user namespaces', 'user namespaces', { machine: { namespaces: ['user'] }, files: { '/proc/sys/user/max_user_namespaces': '100\n' } }, /^usable$/],
    ['user namespaces off', 'user namespaces', { machine: { namespaces: ['user'] }, files: { '/proc/sys/user/max_user_namespaces': '0\n' } }, /^switched off/],
    ['Ubuntu 24.04', 'user namespaces', { machine: { namespaces: ['user'] }, files: { '/proc/sys/kernel/apparmor_restrict_unprivileged_userns': '1\n' } }, /other users than root/],
    ['Debian of old', 'user namespaces', { machine: { namespaces: ['user'] }, files: { '/proc/sys/kernel/unprivileged_userns_clone': '0\n' } }, /root only/],
    ['a kernel without', 'user namespaces', {}, /^not in this kernel$/],
    ['memfd', 'memfd', {}, /^may be executed$/],
    ['memfd when asked for', 'memfd', { files: { '/proc/sys/vm/memfd_noexec': '1\n' } }, /when asked for/],
    ['no memfd', 'memfd', { files: { '/proc/sys/vm/memfd_noexec': '2\n' } }, /read-only mount/],
    ['WSL', 'machine', { machine: { release: '5.15.167.4-microsoft-standard-WSL2' } }, /WSL 2/],
    ['podman', 'machine', { files: { '/run/.containerenv': '' }, links: { '/proc/self/ns/pid': 'pid:[4026532000]' } }, /inside a container of podman/],
    ['some container', 'machine', { links: { '/proc/self/ns/pid': 'pid:[4026532000]' } }, /inside a container:/],
    ['a root made by Docker on a machine of its own', 'machine', { files: { '/.dockerenv': '' }, links: { '/proc/self/ns/pid': 'pid:[4026531836]' } }, undefined],
  ])('%s', (_, name, options, expected) => {
    if (expected) expect(fact(name, options)).toMatch(expected);
    else expect(fact(name, options)).toBeUndefined();
  });
});
