import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isEngineError } from '@engine/core/errors';
import { type Machine, type PluginState } from '@engine/core/contracts/common';
import { type Spec } from '@engine/core/spec';
import { fakeBench } from '@engine/core/contracts/common/fake-bench';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { securitySuite } from '@engine/core/contracts/security/suite';
import { describe, expect, it } from 'vitest';
import { ARCHITECTURE, newCalls } from './compile.ts';
import { defaultProfile } from './default-profile.ts';
import { createSeccomp, loadProfile, profileOption, type SeccompOptions } from './driver.ts';
import { createLibseccomp } from './libseccomp.ts';
import { parseProfile, resolveProfile, type Profile } from './profile.ts';
import { simulate } from './simulate.ts';

const ALLOW = 0x7fff0000;
const errno = (n: number): number => 0x50000 + n;
const X86_64 = ARCHITECTURE['SCMP_ARCH_X86_64'] as number;
const X86 = ARCHITECTURE['SCMP_ARCH_X86'] as number;
const docker14 = ['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP', 'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE'].map((c) => `CAP_${c}`);

const library = createLibseccomp();
const here = process.arch === 'x64' && library.find() !== undefined;
const machine = (more: Partial<Machine> = {}): Machine => ({
  kernel: [6, 1], release: '6.1.0', architecture: 'x64', hostname: 'h', uid: 0, capabilities: [], filesystems: [], mounts: [], namespaces: [], idMaps: [], root: '/r', runRoot: '/rr',
  read: (path) => (path === '/proc/sys/kernel/seccomp/actions_avail' ? 'kill_process' : undefined), ...more,
});
function memoryState(): PluginState & { readonly map: Map<string, unknown> } {
  const map = new Map<string, unknown>();
  return { map, get: (key) => map.get(key), set: (key, value) => void map.set(key, value), delete: (key) => void map.delete(key), list: (prefix = '') => [...map].filter(([key]) => key.startsWith(prefix)).map(([key, value]) => ({ key, value })) };
}
const log = { debug() {}, warn() {} } as never;
const run = { container: 'c', run: 'r', instance: 'engine-0', runFolder: '/rr/runs/c', explain: false };
const spec = (capabilities: readonly string[] = docker14): Spec => ({ ociVersion: '1.2.0', process: { cwd: '/', user: {}, capabilities: { bounding: [...capabilities] } }, linux: {} });
const request = (options: readonly string[] = [], privileged = false) => ({ privileged, capAdd: [], capDrop: [], options });

async function filterOf(options: { readonly profile?: Profile; readonly capabilities?: readonly string[]; readonly settings?: SeccompOptions } = {}): Promise<Uint8Array> {
  const driver = createSeccomp({ machine: machine(), state: memoryState(), log, library }, options.settings);
  const configured = await driver.configure(spec(options.capabilities), request(options.profile ? [`seccomp=${JSON.stringify(options.profile)}`] : []));
  const steps = await driver.planProcess(configured, { part: 'init', noNewPrivileges: true, privilegedExec: false }, run);
  return steps[0]?.operation.args['filter'] as Uint8Array;
}
const call = (filter: Uint8Array, name: string, args: readonly bigint[] = [], architecture = X86_64): number =>
  simulate(filter, { architecture, number: library.resolve(architecture, name) ?? newCalls[name] ?? -1, args });

describeSuite('seccomp on a fake machine', securitySuite, { bench: () => fakeBench({ machine: { read: (path) => (path.endsWith('actions_avail') ? 'allow' : undefined) } }), create: (deps) => createSeccomp({ ...deps, library }) });

describe.skipIf(!here)('the default profile', () => {
  it('allows what programs live on', async () => {
    const filter = await filterOf();
    for (const name of ['read', 'openat', 'execve', 'mmap', 'clock_nanosleep', 'futex', 'epoll_pwait2', 'statx', 'landlock_create_ruleset', 'fchmodat2', 'cachestat', 'chroot']) expect(call(filter, name), name).toBe(ALLOW);
    for (const name of ['read', '_llseek', 'clock_gettime64', 'fchmodat2']) expect(call(filter, name, [], X86), `x86 ${name}`).toBe(ALLOW);
  });
  it('refuses what reaches the host', async () => {
    const filter = await filterOf();
    for (const name of ['mount', 'umount2', 'unshare', 'setns', 'bpf', 'keyctl', 'add_key', 'request_key', 'kexec_load', 'init_module', 'swapon', 'perf_event_open', 'userfaultfd', 'io_uring_setup', 'open_by_handle_at', 'reboot', 'pivot_root', 'syslog', 'fsopen', 'open_tree']) {
      expect(call(filter, name), name).toBe(errno(1));
    }
  });
  it('CVE-2026-31431: AF_ALG is out of reach, AF_VSOCK too, and by socketcall', async () => {
    const filter = await filterOf();
    expect(call(filter, 'socket', [2n])).toBe(ALLOW);
    expect(call(filter, 'socket', [16n])).toBe(ALLOW);
    for (const family of [38n, 40n, 12n, 0x1_0000_0026n]) expect(call(filter, 'socket', [family]), String(family)).not.toBe(ALLOW);
    for (const which of [1n, 2n, 3n, 9n]) expect(call(filter, 'socketcall', [which], X86)).toBe(errno(38));
    expect(call(filter, 'socket', [38n], X86)).not.toBe(ALLOW);
  });
  it('hides clone3 and refuses namespaces to clone', async () => {
    const filter = await filterOf();
    expect(call(filter, 'clone3')).toBe(errno(38));
    expect(call(filter, 'clone', [17n])).toBe(ALLOW);
    for (const flag of [0x20000n, 0x10000000n, 0x40000000n, 0x20000000n]) expect(call(filter, 'clone', [flag | 17n])).toBe(errno(1));
  });
  it('CAP_SYS_ADMIN brings its calls back', async () => {
    const filter = await filterOf({ capabilities: [...docker14, 'CAP_SYS_ADMIN'] });
    for (const name of ['mount', 'clone3', 'unshare', 'fsopen', 'setns']) expect(call(filter, name), name).toBe(ALLOW);
    expect(call(filter, 'clone', [0x10000011n])).toBe(ALLOW);
    expect(call(filter, 'kexec_load')).toBe(errno(1));
  });
  it('knows five personalities', async () => {
    const filter = await filterOf();
    for (const value of [0n, 8n, 0x20000n, 0x20008n, 0xffffffffn]) expect(call(filter, 'personality', [value])).toBe(ALLOW);
    expect(call(filter, 'personality', [0x40000n])).toBe(errno(1));
  });
  it('answers ENOSYS to numbers it does not know and to architectures it does not list', async () => {
    const filter = await filterOf();
    for (const number of [337, 400, 423, 500, 100000]) expect(simulate(filter, { architecture: X86_64, number }), String(number)).toBe(errno(38));
    expect(simulate(filter, { architecture: 0x40000028, number: 1 })).toBe(errno(38));
    expect(simulate(filter, { architecture: X86_64, number: 0x40000000 })).toBe(errno(38));
  });
  it('is a tree: no call needs more than 60 instructions', async () => {
    const filter = await filterOf();
    for (let number = 0; number < 460; number++) {
      const cost = { steps: 0 };
      simulate(filter, { architecture: X86_64, number }, cost);
      expect(cost.steps, String(number)).toBeLessThan(60);
    }
    expect(filter.length / 8).toBeLessThan(4096);
  });

  const reference = '/usr/share/containers/seccomp.json';
  it.skipIf(!existsSync(reference))('allows nothing unconditionally that a peer with the same ancestry refuses (containers-common is not installed where this skips)', () => {
    const theirs = JSON.parse(readFileSync(reference, 'utf8')) as Profile;
    const surroundings = { machine: machine(), capabilities: docker14 };
    const allowed = (profile: Profile): Set<string> => new Set((resolveProfile(profile, surroundings).syscalls ?? []).filter((rule) => rule.action === 'SCMP_ACT_ALLOW').flatMap(({ names }) => names));
    const more = [...allowed(defaultProfile)].filter((name) => !allowed(theirs).has(name));
    // calls younger than the peer's file, each allowed by Docker's
    const younger = new Set([...Object.keys(newCalls), 'memfd_secret', 'landlock_add_rule', 'landlock_create_ruleset', 'landlock_restrict_self', 'process_mrelease', 'futex_waitv', 'uretprobe', 'epoll_pwait2', 'arch_prctl', 'modify_ldt', 'chroot', 'vmsplice', 'io_pgetevents', 'io_pgetevents_time64']);
    expect(more.filter((name) => !younger.has(name) && !['process_vm_readv', 'process_vm_writev'].includes(name))).toEqual([]);
  });
});

describe.skipIf(!here)('profiles of others', () => {
  it('compares arguments in every way', async () => {
    const rule = (op: string, value: number, valueTwo?: number) => ({ names: ['ioctl'], action: 'SCMP_ACT_ERRNO', errnoRet: 7, args: [{ index: 1, value, op, ...(valueTwo === undefined ? {} : { valueTwo }) }] });
    const cases: [string, number, number | undefined, bigint, bigint][] = [
      ['SCMP_CMP_EQ', 5, undefined, 5n, 6n], ['SCMP_CMP_NE', 5, undefined, 6n, 5n], ['SCMP_CMP_LT', 5, undefined, 4n, 5n], ['SCMP_CMP_LE', 5, undefined, 5n, 6n],
      ['SCMP_CMP_GT', 5, undefined, 6n, 5n], ['SCMP_CMP_GE', 5, undefined, 5n, 4n], ['SCMP_CMP_MASKED_EQ', 0xf0, 0x50, 0x5fn, 0x6fn], ['SCMP_CMP_EQ', 2 ** 40, undefined, 2n ** 40n, 0n],
    ];
    for (const [op, value, two, yes, no] of cases) {
      const filter = await filterOf({ profile: { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule(op, value, two)] } });
      expect(call(filter, 'ioctl', [0n, yes]), op).toBe(errno(7));
      expect(call(filter, 'ioctl', [0n, no]), op).toBe(ALLOW);
    }
  });
  it('takes two conditions on one argument as alternatives, on two as both', async () => {
    const arg = (index: number, value: number) => ({ index, value, op: 'SCMP_CMP_EQ' });
    const profile = (args: ReturnType<typeof arg>[]): Profile => ({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['ioctl'], action: 'SCMP_ACT_KILL_PROCESS', args }] });
    const either = await filterOf({ profile: profile([arg(1, 1), arg(1, 2)]) });
    expect([1n, 2n, 3n].map((value) => call(either, 'ioctl', [0n, value]))).toEqual([0x80000000, 0x80000000, ALLOW]);
    const both = await filterOf({ profile: profile([arg(0, 1), arg(1, 2)]) });
    expect([call(both, 'ioctl', [1n, 2n]), call(both, 'ioctl', [1n, 3n])]).toEqual([0x80000000, ALLOW]);
  });
  it('keeps a default of ALLOW or KILL free of ENOSYS, and skips names nobody knows', async () => {
    const open = await filterOf({ profile: { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['no_such_call', 'mkdir'], action: 'SCMP_ACT_ERRNO' }] } });
    expect([call(open, 'mkdir'), simulate(open, { architecture: X86_64, number: 5000 })]).toEqual([errno(1), ALLOW]);
  });
  it('names what is wrong with a profile', () => {
    const wrong: [string, RegExp][] = [
      ['{', /not JSON/], ['[]', /not an object/], ['{"defaultAction":"X"}', /defaultAction X/], ['{"defaultAction":"SCMP_ACT_ALLOW","sycalls":[]}', /unknown key sycalls/],
      ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_ALLOW"}]}', /names no system call/],
      ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":9,"value":1,"op":"SCMP_CMP_EQ"}]}]}', /argument 9/],
    ];
    for (const [text, message] of wrong) expect(() => parseProfile(text, 'p')).toThrow(message);
  });
  it('decides includes and excludes', () => {
    const rules = (kernel: [number, number], capabilities: string[]) => (resolveProfile({ defaultAction: 'SCMP_ACT_ERRNO', syscalls: [
      { names: ['a'], action: 'SCMP_ACT_ALLOW', includes: { minKernel: '5.10' } }, { names: ['b'], action: 'SCMP_ACT_ALLOW', includes: { caps: ['CAP_X', 'CAP_Y'] } },
      { names: ['c'], action: 'SCMP_ACT_ALLOW', excludes: { caps: ['CAP_X', 'CAP_Y'] } }, { name: 'd', action: 'SCMP_ACT_ALLOW', includes: { arches: ['arm64'] } },
    ] }, { machine: machine({ kernel }), capabilities }).syscalls ?? []).flatMap(({ names }) => names);
    expect(rules([5, 9], [])).toEqual(['c']);
    expect(rules([5, 10], ['CAP_X'])).toEqual(['a']);
    expect(rules([6, 1], ['CAP_X', 'CAP_Y'])).toEqual(['a', 'b']);
  });
});

describe('the driver', () => {
  const driver = (state = memoryState()) => createSeccomp({ machine: machine(), state, log, library });
  it('reads --security-opt', () => {
    expect(profileOption(['apparmor=x', 'seccomp=a', 'seccomp=unconfined'])).toBe('unconfined');
    expect(profileOption(['apparmor=x'])).toBeUndefined();
    expect(() => profileOption(['seccomp='])).toThrow(/no profile is named/);
    expect(loadProfile('unconfined')).toBeUndefined();
  });
  it('reads a profile from a file, and says when it cannot', () => {
    const folder = mkdtempSync(join(tmpdir(), 'seccomp-'));
    try {
      writeFileSync(join(folder, 'p.json'), '{"defaultAction":"SCMP_ACT_LOG"}');
      expect(loadProfile(join(folder, 'p.json'))?.defaultAction).toBe('SCMP_ACT_LOG');
      expect(() => loadProfile(join(folder, 'q.json'))).toThrow(/cannot be read/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
  it('is off for --privileged unless a profile is named', async () => {
    expect((await driver().configure(spec(), request([], true))).linux?.seccomp).toBeUndefined();
    expect((await driver().configure(spec(), request(['seccomp=default'], true))).linux?.seccomp).toBeDefined();
    expect((await driver().configure(spec(), request(['seccomp=unconfined']))).linux?.seccomp).toBeUndefined();
  });
  it('refuses a profile with which init could not go on, and says what would help', async () => {
    const profile = JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['setgroups'], action: 'SCMP_ACT_ERRNO' }] });
    const configured = await driver().configure(spec(), request([`seccomp=${profile}`]));
    const plan = (noNewPrivileges: boolean) => driver().planProcess(configured, { part: 'init', noNewPrivileges, privilegedExec: false }, run);
    try {
      await plan(false);
      expect.unreachable();
    } catch (error) {
      expect(isEngineError(error, 'ERR_INVALID_VALUE') && /setgroups/.test(error.message) && /no-new-privileges/.test(error.hint)).toBe(true);
    }
    if (here) expect((await plan(true))[0]?.slot).toBe('init.seccomp');
  });
  it.skipIf(!here)('loads early without no-new-privs and last with it, in exec too, and keeps filters', async () => {
    const state = memoryState();
    const configured = await driver(state).configure(spec(), request());
    const slot = async (part: 'init' | 'exec', noNewPrivileges: boolean) => (await driver(state).planProcess(configured, { part, noNewPrivileges, privilegedExec: false }, run)).map((s) => s.slot);
    expect([await slot('init', false), await slot('exec', false), await slot('init', true), await slot('exec', true)]).toEqual([['init.seccomp-early'], ['exec.seccomp-early'], ['init.seccomp'], ['exec.seccomp']]);
    expect(state.map.size).toBe(1);
    const broken = { ...library, filter: () => { throw new Error('must not be called'); } };
    const warm = createSeccomp({ machine: machine(), state, log, library: broken });
    expect((await warm.planProcess(configured, { part: 'init', noNewPrivileges: false, privilegedExec: false }, run)).length).toBe(1);
  });
  it('says why it is unavailable', async () => {
    expect(await driver().probe(machine({ read: () => undefined }))).toMatchObject({ available: false });
    const missing = createSeccomp({ machine: machine(), state: memoryState(), log, library: { ...library, find: () => undefined } });
    expect(await missing.probe(machine())).toMatchObject({ available: false, reasons: ['libseccomp.so.2 is not installed'] });
  });
});
