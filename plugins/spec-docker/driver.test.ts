import { describe, expect, it } from 'vitest';
import { isEngineError } from '@engine/core/errors';
import { parseSignal, type ContainerRequest, type ExecRequest } from '@engine/core/api';
import { type CompileFacts, type Compiled } from '@engine/core/hooks';
import { type Spec } from '@engine/core/spec';
import { ANNOTATION, createDockerSpec } from './driver.ts';
import { splitDevice, type HostView } from './host-view.ts';
import { hostsFile, parseAddHost, resolvConf } from './hosts-files.ts';
import { defaultDeviceRules } from '@engine/core/contracts/cgroup';
import { compileResources, parseDeviceRule } from './limits.ts';
import { mergeTmpfsOptions } from './mounts.ts';
import { compileExec, overlayEnv, processArgs, processEnv, processRlimits, workingDir } from './process.ts';
import { checkSysctls } from './sysctl.ts';

/** A host with these files; everything else is missing. */
const fakeHost = (files: Readonly<Record<string, string>> = {}, extra: Partial<HostView> = {}): HostView => ({
  cpus: 2, read: (p) => files[p], kind: (p) => (p in files ? 'file' : undefined), device: () => undefined, list: () => [], ...extra,
});
const request = (over: Partial<ContainerRequest> = {}): ContainerRequest => ({
  image: 'test', env: [], labels: {}, addHosts: [], terminal: false, openStdin: false, stdinOnce: false, attach: { stdin: false, stdout: true, stderr: true }, detached: false, autoRemove: false,
  network: 'none', ports: [], mounts: [], tmpfs: [], readonlyRootfs: false, init: false, privileged: false, capAdd: [], capDrop: [], securityOptions: [], devices: [], deviceCgroupRules: [], rlimits: [],
  sysctls: {}, groupAdd: [], log: { options: {} }, storageOptions: {}, limits: {}, ...over,
});
const id = 'abcdef0123456789'.repeat(4);
type Rest = Partial<CompileFacts> & { readonly host?: HostView };
const compileAll = (over: Partial<ContainerRequest> = {}, { host = fakeHost(), ...rest }: Rest = {}): Compiled => createDockerSpec({ machine: { hostname: 'host1' }, host }).compile({
  facts: {
    id, request: request({ command: ['sh'], ...over }), imageConfig: {}, rootfs: { kind: 'layers', layers: [] }, volumes: [], network: 'new', folder: '/c', resources: ['memory', 'cpu'],
    cgroupMounts: [{ destination: '/sys/fs/cgroup', type: 'cgroup2', source: 'cgroup', options: ['nosuid', 'ro'] }], ...rest,
  },
  spec: { ociVersion: '1' }, files: {},
});
const compile = (over?: Partial<ContainerRequest>, rest?: Rest): Spec => compileAll(over, rest).spec;
const invalid = (work: () => unknown, text?: RegExp | string): void => {
  expect(work).toThrow(text);
  try { work(); } catch (error) { expect(isEngineError(error, 'ERR_INVALID_VALUE')).toBe(true); }
};
const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

describe('user namespaces', () => {
  const mappings = [{ containerID: 0, hostID: 100000, size: 5000 }];
  const ids = { uidMappings: mappings, gidMappings: mappings };
  it('are a namespace with the maps that the core chose', () => {
    expect(compile({}, { ids }).linux).toMatchObject({ uidMappings: mappings, gidMappings: mappings, namespaces: expect.arrayContaining([{ type: 'user' }]) as unknown });
    expect(compile().linux?.namespaces).not.toContainEqual({ type: 'user' });
    expect(compile().linux?.uidMappings).toBeUndefined();
  });
  it('allow pings to those groups that there are', () => {
    const key = 'net.ipv4.ping_group_range';
    const host = fakeHost({ '/proc/sys/net/ipv4/ping_group_range': '1 0' });
    expect(compile({}, { host }).linux?.sysctl?.[key]).toBe('0 2147483647');
    expect(compile({}, { host, ids }).linux?.sysctl?.[key]).toBe('0 4999');
    const holes = [{ containerID: 10, hostID: 7, size: 5 }, { containerID: 0, hostID: 100, size: 5 }, { containerID: 5, hostID: 200, size: 2 }];
    expect(compile({}, { host, ids: { uidMappings: holes, gidMappings: holes } }).linux?.sysctl?.[key]).toBe('0 6');
  });
  it('show volumes with the ids of the container where that can be, binds where it is asked for', () => {
    const volumes = [{ target: '/a', source: '/va', readonly: false, idmap: true }, { target: '/b', source: '/vb', readonly: false, idmap: false }];
    const bind = { type: 'bind' as const, source: '/h', target: '/c', readonly: false, createSource: true, noCopy: false };
    const found = compile({ mounts: [bind, { ...bind, target: '/d', idmap: true }] }, { ids, volumes }).mounts ?? [];
    expect(['/a', '/b', '/c', '/d'].map((target) => found.find(({ destination }) => destination === target)?.options?.includes('idmap'))).toEqual([true, false, false, true]);
  });
  it('refuse a user or group that they do not have, when it is a number', () => {
    for (const user of ['5000', '0:5000', '4294967295']) invalid(() => compile({ user }, { ids }), /not mapped in the user namespace/);
    invalid(() => compile({}, { ids, imageConfig: { User: '65534' } }), /user 65534 is not mapped/);
    for (const user of ['4999', '0:4999', 'somebody', '']) expect(() => compile({ user }, { ids })).not.toThrow();
  });
  it('and clocks are as they were asked for', () => {
    expect(compile({ timeOffsets: { boottime: { secs: 5, nanosecs: 0 } } }).linux).toMatchObject({ timeOffsets: { boottime: { secs: 5 } }, namespaces: expect.arrayContaining([{ type: 'time' }]) as unknown });
  });
});

describe('process', () => {
  it.each([
    [{ env: [], terminal: false }, {}, [PATH, 'HOSTNAME=h']],
    [{ env: [], terminal: true }, {}, [PATH, 'HOSTNAME=h', 'TERM=xterm']],
    [{ env: ['A=1'], terminal: false }, { Env: ['A=0', 'B=2'] }, [PATH, 'HOSTNAME=h', 'A=1', 'B=2']],
    [{ env: [], terminal: false }, { Env: ['PATH=/x', 'HOME=/y'] }, ['PATH=/x', 'HOSTNAME=h', 'HOME=/y']],
    [{ env: ['HOSTNAME=me', 'E='], terminal: true }, { Env: ['TERM=dumb'] }, [PATH, 'HOSTNAME=me', 'TERM=dumb', 'E=']],
    [{ env: ['PATH'], terminal: false }, { Env: ['A=b=c'] }, ['HOSTNAME=h', 'A=b=c']],
  ])('env %j over %j', (own, image, result) => expect(processEnv(own, image, 'h')).toEqual(result));
  it('of a session: TERM follows its own terminal; variables and folder are its own', () => {
    const session = (terminal: boolean, over: Partial<ExecRequest> = {}): unknown => {
      const own = { cwd: '/c', user: {}, args: ['sh'], terminal: !terminal, env: ['A=1', ...(terminal ? [] : ['TERM=xterm'])] };
      const asked: ExecRequest = { args: ['x'], env: [], terminal, openStdin: false, attach: { stdin: false, stdout: true, stderr: true }, privileged: false, detached: false, ...over };
      const { process } = compileExec({ own, request: asked, process: { ...own, args: ['x'], terminal } });
      return [process.args, process.terminal, process.env, process.cwd];
    };
    expect(session(true)).toEqual([['x'], true, ['A=1', 'TERM=xterm'], '/c']);
    expect(session(false, { env: ['A=2', 'B=3'], workdir: '/w/' })).toEqual([['x'], false, ['A=2', 'B=3'], '/w']);
    invalid(() => session(false, { workdir: 'w' }));
  });
  it('keeps the order, replaces in place, removes by a bare name, refuses nonsense', () => {
    expect(overlayEnv(['A=1', 'B=2', 'C=3'], ['B=x', 'D=4', 'A'])).toEqual(['B=x', 'C=3', 'D=4']);
    invalid(() => overlayEnv([], ['=x']));
    invalid(() => overlayEnv([], ['A=\0']));
  });
  it.each([
    [{}, { Cmd: ['c'] }, ['c']],
    [{}, { Entrypoint: ['e'], Cmd: ['c'] }, ['e', 'c']],
    [{ command: ['x'] }, { Entrypoint: ['e'], Cmd: ['c'] }, ['e', 'x']],
    [{ entrypoint: ['n'] }, { Entrypoint: ['e'], Cmd: ['c'] }, ['n']],
    [{ entrypoint: ['n'], command: ['x'] }, { Entrypoint: ['e'], Cmd: ['c'] }, ['n', 'x']],
    [{ entrypoint: [''], command: ['x'] }, { Entrypoint: ['e'], Cmd: ['c'] }, ['x']],
    [{ entrypoint: [] }, { Entrypoint: ['e'], Cmd: ['c'] }, ['c']],
  ])('args of %j over %j', (own, image, result) => expect(processArgs(own, image).args).toEqual(result));
  it('needs something to run', () => {
    invalid(() => processArgs({}, {}), 'no command');
    invalid(() => processArgs({ entrypoint: [''] }, { Cmd: ['c'] }), 'no command');
  });
  it.each([[undefined, undefined, '/'], [undefined, 'app', '/app'], ['/a/../b/', '/x', '/b'], [undefined, '/x//y/', '/x/y']])('workdir %j, image %j', (own, image, result) => expect(workingDir(own, image)).toBe(result));
  it('takes user, groups, init, limits, no-new-privileges', () => {
    invalid(() => workingDir('relative'));
    const spec = compile({ user: '5:6', groupAdd: ['audio'], init: true, rlimits: [{ name: 'nofile', soft: 10, hard: -1 }], securityOptions: ['no-new-privileges'], oomScoreAdj: 5 });
    expect(spec.process).toMatchObject({ user: { username: '5:6' }, rlimits: [{ type: 'RLIMIT_NOFILE', soft: 10, hard: -1 }], noNewPrivileges: true, oomScoreAdj: 5 });
    expect(spec.annotations).toEqual({ [ANNOTATION.init]: '1', [ANNOTATION.groupAdd]: '["audio"]' });
    expect(compile({}, { imageConfig: { User: 'web', Labels: { [ANNOTATION.init]: '1' } } })).toMatchObject({ process: { user: { username: 'web' } } });
    expect(compile({}, { imageConfig: { Labels: { [ANNOTATION.init]: '1' } } }).annotations).toBeUndefined();
    invalid(() => processRlimits([{ name: 'files', soft: 1, hard: 1 }]));
    invalid(() => processRlimits([{ name: 'nofile', soft: 2, hard: 1 }]));
    invalid(() => compile({ oomScoreAdj: 1001 }));
  });
  it.each([['TERM', 15], ['SIGINT', 2], ['9', 9], ['rtmin+3', 37], ['RTMAX-1', 63]])('signal %s', (text, number) => expect(parseSignal(text)).toBe(number));
  it.each(['0', '65', 'NOPE', ''])('no signal %j', (text) => invalid(() => parseSignal(text)));
});

describe('limits', () => {
  const resources = (limits: ContainerRequest['limits'], canSwap = true) => {
    const { devices: _, ...rest } = compileResources(request({ limits }), { cpus: 2, honours: () => canSwap }, []);
    return rest;
  };
  const MB = 1 << 20;
  it.each([
    [{}, {}],
    [{ memory: 64 * MB }, { memory: { limit: 64 * MB, swap: 128 * MB } }],
    [{ memory: 64 * MB, memorySwap: -1 }, { memory: { limit: 64 * MB, swap: -1 } }],
    [{ memory: 64 * MB, memorySwap: 64 * MB }, { memory: { limit: 64 * MB, swap: 64 * MB } }],
    [{ memory: 64 * MB, memoryReservation: 32 * MB, memorySwappiness: 0, oomKillDisable: true }, { memory: { limit: 64 * MB, swap: 128 * MB, reservation: 32 * MB, swappiness: 0, disableOOMKiller: true } }],
    [{ nanoCpus: 200_000_000 }, { cpu: { period: 100_000, quota: 20_000 } }],
    [{ cpuShares: 512, cpusetCpus: '0-1', cpusetMems: '0', cpuPeriod: 50_000, cpuQuota: 25_000 }, { cpu: { shares: 512, period: 50_000, quota: 25_000, cpus: '0-1', mems: '0' } }],
    [{ pids: 10 }, { pids: { limit: 10 } }], [{ pids: -1 }, {}], [{ pids: 0 }, {}],
    [{ blkioWeight: 300 }, { blockIO: { weight: 300 } }],
  ])('%j', (limits, result) => expect(resources(limits)).toEqual(result));
  it('asks for no swap limit by itself where there is none', () => expect(resources({ memory: 64 * MB }, false)).toEqual({ memory: { limit: 64 * MB } }));
  it.each([
    { memory: MB }, { memorySwap: 64 * MB }, { memory: 64 * MB, memorySwap: 32 * MB }, { memory: 64 * MB, memoryReservation: 65 * MB }, { memory: 64 * MB, memorySwappiness: 101 },
    { nanoCpus: 3e9 }, { nanoCpus: 1 }, { nanoCpus: 1e9, cpuQuota: 5000 }, { cpuPeriod: 10 }, { cpuQuota: 10 }, { cpuShares: -1 }, { cpusetCpus: '0-' }, { pids: -2 }, { blkioWeight: 5 },
  ])('refuses %j', (limits) => invalid(() => resources(limits)));
  it('gives Docker\'s device rules, all to a privileged container, and reads rules', () => {
    const rules = (over: Partial<ContainerRequest>) => compileResources(request(over), { cpus: 1, honours: () => true }, []).devices;
    expect(rules({})).toEqual(defaultDeviceRules);
    expect(rules({ privileged: true })).toEqual([{ allow: true, access: 'rwm' }]);
    expect(rules({ deviceCgroupRules: ['c 42:* rmw'] })?.at(-1)).toEqual({ allow: true, type: 'c', major: 42, access: 'rmw' });
    invalid(() => parseDeviceRule('c 1:3 rwx'));
  });
});

describe('sysctls', () => {
  const check = (key: string, value: string, types: ('ipc' | 'network' | 'uts')[] = ['ipc', 'network', 'uts']): void => checkSysctls({ ociVersion: '1', linux: { namespaces: types.map((type) => ({ type })), sysctl: { [key]: value } } });
  it.each([['kernel.shmmax', '1'], ['fs.mqueue.msg_max', '10'], ['net.ipv4.ping_group_range', '0 1'], ['net/ipv4/ip_forward', '1'], ['kernel.domainname', 'x.y']])('allows %s', (key, value) => check(key, value));
  it.each([
    ['kernel.core_pattern', 'x'], ['kernel.shmmax', '1+kernel.core_pattern=|x'], ['kernel.shmmax', '1\nkernel.x=2'], ['net.../../kernel/core_pattern', 'x'], ['net', '1'], ['vm.swappiness', '1'], ['kernel.hostname', 'h'], ['kernel.shmmax', ''],
  ])('refuses %j = %j (CVE-2022-0811)', (key, value) => invalid(() => check(key, value)));
  it('refuses what belongs to a shared namespace', () => {
    invalid(() => check('net.ipv4.ip_forward', '1', ['ipc']), 'shared');
    invalid(() => check('kernel.sem', '1', ['network']), 'ipc');
  });
});

describe('mounts', () => {
  const paths = (spec: Spec): string[] => (spec.mounts ?? []).map((m) => m.destination);
  const find = (spec: Spec, at: string) => spec.mounts?.find((m) => m.destination === at);
  it('are Docker\'s by default', () => {
    const spec = compile();
    expect(paths(spec)).toEqual(['/proc', '/dev', '/dev/pts', '/sys', '/sys/fs/cgroup', '/dev/mqueue', '/dev/shm', '/etc/resolv.conf', '/etc/hostname', '/etc/hosts']);
    expect(find(spec, '/dev/pts')?.options).toEqual(['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']);
    expect(find(spec, '/dev/shm')?.options).toContain(`size=${64 << 20}`);
    expect(find(spec, '/sys')?.options).toContain('ro');
    expect(find(spec, '/sys/fs/cgroup')?.options).toEqual(['nosuid', 'ro']);
    expect(spec.linux?.maskedPaths).toContain('/proc/kcore');
    expect(spec.linux?.readonlyPaths).toContain('/proc/sys');
    expect(spec.linux?.devices?.map((d) => d.path)).toEqual(['/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', '/dev/tty']);
  });
  it('are open for a privileged container, which sees the host\'s devices', () => {
    const host = fakeHost({}, { list: (p) => (p === '/dev' ? ['kmsg', 'pts', 'ptmx', 'null'] : []), device: (p) => (p === '/dev/kmsg' ? { type: 'c', major: 1, minor: 11, mode: 0o644, uid: 0, gid: 0 } : undefined) });
    const spec = compile({ privileged: true, shmSize: 4096 }, { host });
    expect(spec.linux).toMatchObject({ maskedPaths: [], readonlyPaths: [] });
    expect(find(spec, '/sys')?.options).not.toContain('ro');
    expect(find(spec, '/sys/fs/cgroup')?.options).toEqual(['nosuid']);
    expect(find(spec, '/dev/shm')?.options).toContain('size=4096');
    expect(spec.linux?.devices?.at(-1)).toEqual({ type: 'c', path: '/dev/kmsg', major: 1, minor: 11, fileMode: 0o644, uid: 0, gid: 0 });
  });
  it('of the user take the place of default ones, parents first', () => {
    const bind = (target: string, readonly = false) => ({ type: 'bind' as const, source: '/s', target, readonly, createSource: true, noCopy: false });
    const spec = compile({ mounts: [bind('/a/b/c'), bind('/a'), bind('/dev/shm'), bind('/etc/hosts', true)], tmpfs: [{ target: '/a/b', options: ['exec', 'size=1m'] }] });
    expect(paths(spec).slice(-5)).toEqual(['/a', '/dev/shm', '/etc/hosts', '/a/b', '/a/b/c']);
    expect(paths(spec).filter((p) => p === '/dev/shm' || p === '/etc/hosts')).toHaveLength(2);
    expect(find(spec, '/a/b')?.options).toEqual(['nosuid', 'nodev', 'exec', 'size=1m']);
    expect(find(spec, '/etc/hosts')?.options).toEqual(['rbind', 'rprivate', 'ro', 'rro']);
    const all = compile({ mounts: [bind('/dev')] });
    expect(paths(all).some((p) => p.startsWith('/dev/'))).toBe(false);
  });
  it('become read-only with the root, except what must be written', () => {
    const spec = compile({ readonlyRootfs: true });
    expect(spec.root?.readonly).toBe(true);
    expect(find(spec, '/etc/hosts')?.options).toContain('ro');
    expect(find(spec, '/dev/shm')?.options).not.toContain('ro');
  });
  it('follow the ipc mode', () => {
    expect(find(compile({ ipc: 'host' }), '/dev/shm')).toMatchObject({ type: 'bind', source: '/dev/shm' });
    expect(find(compile({ ipc: 'none' }), '/dev/shm')).toBeUndefined();
  });
  it('of volumes are binds of their folders', () => {
    expect(find(compile({}, { volumes: [{ target: '/v', source: '/volumes/x', readonly: true }] }), '/v')).toEqual({ destination: '/v', type: 'bind', source: '/volumes/x', options: ['rbind', 'rprivate', 'ro', 'rro'] });
    invalid(() => compile({ tmpfs: [{ target: 'x', options: [] }] }));
    invalid(() => mergeTmpfsOptions(['lowerdir=/'], '/x'));
  });
  it('of devices come from the host', () => {
    const host = fakeHost({}, { device: (p) => (p === '/dev/fuse' ? { type: 'c', major: 10, minor: 229, mode: 0o666, uid: 0, gid: 0 } : undefined) });
    const spec = compile({ devices: [{ source: '/dev/fuse', target: '/dev/f', access: 'rw' }] }, { host });
    expect(spec.linux?.devices?.at(-1)).toMatchObject({ path: '/dev/f', major: 10, minor: 229 });
    expect(spec.linux?.resources?.devices?.at(-1)).toEqual({ allow: true, type: 'c', major: 10, minor: 229, access: 'rw' });
    invalid(() => compile({ devices: [{ source: '/dev/none', target: '/dev/none', access: 'rw' }] }, { host }), 'no such file');
    invalid(() => compile({ devices: [{ source: '/dev/fuse', target: '/dev/f', access: 'x' }] }, { host }));
    expect(splitDevice(Number((0x12n << 8n) | 0x34n | (0x5n << 20n)))).toEqual({ major: 0x12, minor: 0x534 });
  });
  it('of this machine\'s own root have /run and /tmp fresh and hide what it says', () => {
    const spec = compile({ privileged: true }, { rootfs: { kind: 'host', filesystems: [{ target: '/', type: 'ext4' }], hide: ['/var/lib/engine'] } });
    expect(paths(spec)).toEqual(expect.arrayContaining(['/run', '/tmp']));
    expect(spec.linux?.maskedPaths).toEqual(['/var/lib/engine']);
  });
});

describe('names and namespaces', () => {
  const types = (spec: Spec) => spec.linux?.namespaces?.map((n) => n.type);
  it('are the container\'s own by default', () => {
    expect(types(compile())).toEqual(['mount', 'pid', 'ipc', 'uts', 'cgroup', 'network']);
    expect(types(compile({ pid: 'host', ipc: 'host', uts: 'host', cgroupns: 'host' }, { network: 'host' }))).toEqual(['mount']);
    expect(() => compile({ pid: 'container:x' })).toThrow('cannot be joined yet');
    invalid(() => compile({ uts: 'strange' }));
  });
  it('have a hostname', () => {
    expect(compile().hostname).toBe(id.slice(0, 12));
    expect(compile({ hostname: 'web', domainname: 'example.org' })).toMatchObject({ hostname: 'web', domainname: 'example.org' });
    expect(compile({}, { network: 'host' }).hostname).toBe('host1');
    expect(compile({}, { network: 'container', sharedHostname: 'other' }).hostname).toBe('other');
    expect(compile({ uts: 'host' }).hostname).toBeUndefined();
    invalid(() => compile({ hostname: 'x', uts: 'host' }));
    invalid(() => compile({ hostname: 'x' }, { network: 'container' }));
    invalid(() => compile({ hostname: '-x' }));
    expect(compileAll({ hostname: 'web' }).files).toMatchObject({ hostname: 'web\n', 'resolv.conf': 'nameserver 8.8.8.8\nnameserver 8.8.4.4\n' });
  });
  it('set what Docker sets in a network namespace of its own, where the kernel knows it', () => {
    const host = fakeHost({}, { kind: (p) => (p === '/proc/sys/net/ipv4/ip_unprivileged_port_start' ? 'file' : undefined) });
    expect(compile({}, { host }).linux?.sysctl).toEqual({ 'net.ipv4.ip_unprivileged_port_start': '0' });
    expect(compile({}, { host, network: 'host' }).linux?.sysctl).toBeUndefined();
    invalid(() => compile({ sysctls: { 'kernel.core_pattern': 'x' } }));
  });
});

describe('files', () => {
  it('resolv.conf: systemd\'s stub is replaced by what is behind it, loopback is dropped', () => {
    const stub = fakeHost({ '/etc/resolv.conf': 'nameserver 127.0.0.53\nsearch lan\n', '/run/systemd/resolve/resolv.conf': 'nameserver 192.168.1.1\nsearch home\noptions edns0\n' });
    expect(resolvConf({}, false, stub)).toBe('nameserver 192.168.1.1\nsearch home\noptions edns0\n');
    expect(resolvConf({}, true, stub)).toBe('nameserver 127.0.0.53\nsearch lan\n');
    expect(resolvConf({}, false, fakeHost({ '/etc/resolv.conf': '# c\nnameserver 127.0.0.1\nnameserver 9.9.9.9\nnameserver ::1\n' }))).toBe('nameserver 9.9.9.9\n');
    expect(resolvConf({}, false, fakeHost())).toBe('nameserver 8.8.8.8\nnameserver 8.8.4.4\n');
    expect(resolvConf({ dns: ['1.2.3.4'], dnsSearch: ['.'], dnsOptions: ['ndots:2'] }, true, stub)).toBe('nameserver 1.2.3.4\noptions ndots:2\n');
    invalid(() => resolvConf({ dns: ['x'] }, false, stub));
    invalid(() => resolvConf({ dnsSearch: ['a\nnameserver 6.6.6.6'] }, false, stub));
  });
  it('hosts', () => {
    expect(hostsFile({ network: 'bridge', addHosts: ['a:1.2.3.4', 'b=[::5]', 'c:fe80::1'] }, false, fakeHost())).toMatch(/ff02::2\tip6-allrouters\n1\.2\.3\.4\ta\n::5\tb\nfe80::1\tc\n$/);
    expect(hostsFile({ network: 'host', addHosts: ['a:1.2.3.4'] }, true, fakeHost({ '/etc/hosts': '10.0.0.1 me' }))).toBe('10.0.0.1 me\n1.2.3.4\ta\n');
    invalid(() => parseAddHost('a:b'));
    invalid(() => parseAddHost('a b:1.2.3.4'));
  });
});
