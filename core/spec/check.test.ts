import { describe, expect, it } from 'vitest';
import { checkProcess, checkSpec } from './check.ts';

const process = { cwd: '/', args: ['sh'], user: { uid: 0, gid: 0 } };
/** A spec with `value` at `field` (`linux.devices[0].type`). */
function withField(field: string, value: unknown): unknown {
  const spec: Record<string, unknown> = { ociVersion: '1.2.0', root: { path: 'rootfs' }, process: structuredClone(process), linux: { namespaces: [{ type: 'mount' }] } };
  const parts = field.replaceAll(/\[(\d+)\]/g, '.$1').split('.');
  let at: Record<string, unknown> = spec;
  parts.forEach((part, i) => {
    if (i === parts.length - 1) at[part] = value;
    else at = (at[part] ??= /^\d+$/.test(parts[i + 1] as string) ? [] : {}) as Record<string, unknown>;
  });
  return spec;
}

describe('checkSpec', () => {
  it('takes what the spec knows, and what it does not', () => {
    for (const [field, value] of [
      ['process.rlimits', [{ type: 'RLIMIT_NOFILE', soft: 1, hard: 2 ** 64 }]], ['process.scheduler', { policy: 'SCHED_DEADLINE', runtime: 1n, deadline: 2, period: 3, flags: ['SCHED_FLAG_RECLAIM'] }],
      ['process.execCPUAffinity', { initial: '0-1,3', final: '' }], ['linux.timeOffsets', { monotonic: { secs: -5, nanosecs: 999_999_999 } }], ['linux.resources.memory', { limit: -1, checkBeforeUpdate: true, swappiness: null }],
      ['linux.seccomp', { defaultAction: 'SCMP_ACT_ALLOW', flags: ['SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV'], syscalls: [{ names: ['socket'], action: 'SCMP_ACT_ERRNO', args: [{ index: 0, value: 2n ** 64n - 1n, op: 'SCMP_CMP_EQ' }] }] }],
      ['linux.netDevices', { eth0: {}, eth1: { name: 'net1' } }], ['hooks.poststop', [{ path: '/bin/true', timeout: 1 }]], ['windows', {}], ['linux.intelRdt', { closID: '' }], ['process.user.somethingNew', [1]], ['linux.namespaces', null],
    ] as const) expect(() => checkSpec(withField(field, value)), field).not.toThrow();
  });

  it.each([
    ['ociVersion', 1], ['root.path', ''], ['process.cwd', 'relative'], ['process.args[0]', 7], ['process.env[0]', '=x'], ['process.env[0]', 'a\0=b'], ['process.terminal', 'yes'], ['process.consoleSize', { height: 1, width: 70000 }], ['process.consoleSize', { height: 1 }],
    ['process.rlimits[0]', { type: 'RLIMIT_NO', soft: 1, hard: 1 }], ['process.rlimits[0]', { type: 'RLIMIT_CPU', soft: -1, hard: 1 }], ['process.oomScoreAdj', 1001], ['process.oomScoreAdj', 1.5], ['process.user.uid', 4294967295], ['process.user.gid', -1],
    ['process.user.additionalGids[0]', 2 ** 32], ['process.user.umask', 0o1000], ['process.scheduler', { policy: 'SCHED_FAST' }], ['process.scheduler', { nice: 1 }], ['process.scheduler', { policy: 'SCHED_OTHER', flags: ['X'] }], ['process.ioPriority', { class: 'IOPRIO_CLASS_BE', priority: 8 }],
    ['process.execCPUAffinity', { initial: '1-' }], ['process.capabilities.bounding', 'CAP_CHOWN'], ['mounts[0]', { source: '/x' }], ['mounts[0]', { destination: '/x', options: 'ro' }], ['mounts[0]', { destination: '/x', uidMappings: [{ containerID: 0, hostID: 0 }] }],
    ['hooks.prestart[0]', { path: 'relative' }], ['hooks.prestart[0]', { path: '/x', timeout: 0 }], ['hooks.poststop[0]', { args: ['x'] }], ['linux.namespaces[0].type', 'network2'], ['linux.namespaces[0].path', 'ns'], ['linux.uidMappings[0]', { containerID: 0, hostID: 2 ** 32, size: 1 }],
    ['linux.timeOffsets', { realtime: { secs: 1 } }], ['linux.timeOffsets', { boottime: { nanosecs: 1e9 } }], ['linux.devices[0]', { type: 'x', path: '/dev/x' }], ['linux.devices[0]', { type: 'c', path: 'dev/x' }], ['linux.rootfsPropagation', 'up'], ['linux.sysctl', { 'net.a': 1 }],
    ['linux.maskedPaths[0]', 'proc/kcore'], ['linux.personality', { domain: 'LINUX64' }], ['linux.seccomp', {}], ['linux.seccomp', { defaultAction: 'ALLOW' }], ['linux.seccomp', { defaultAction: 'SCMP_ACT_ALLOW', architectures: ['x86'] }], ['linux.seccomp', { defaultAction: 'SCMP_ACT_ALLOW', flags: ['NEW_LISTENER'] }],
    ['linux.seccomp', { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['x'], action: 'SCMP_ACT_LOG', args: [{ index: 6, value: 1, op: 'SCMP_CMP_EQ' }] }] }], ['linux.resources.devices[0]', { allow: true, access: 'x' }], ['linux.resources.pids', {}], ['linux.resources.cpu.cpus', '0;1'], ['linux.resources.unified', { 'memory.max': 1 }],
    ['linux.netDevices', { eth0: 'net0' }], ['annotations', { a: 1 }], ['linux', []],
  ])('names the field that is wrong: %s', (field, value) => {
    const error = (() => {
      try {
        checkSpec(withField(field, value));
        return undefined;
      } catch (caught) {
        return caught as Error & { code: string; path: string };
      }
    })();
    expect(error).toMatchObject({ code: 'ERR_INVALID_VALUE', path: expect.stringMatching(new RegExp(`^${field.replaceAll(/[[\].]/g, String.raw`\$&`)}`)) as string });
  });

  it.each([['vm', { kernel: { path: '/k' } }], ['windows', { layerFolders: ['x'] }], ['solaris', { milestone: 'x' }], ['zos', { namespaces: [{ type: 'mount' }] }], ['linux.intelRdt', { closID: 'x' }], ['linux.memoryPolicy', { mode: 'MPOL_BIND' }], ['linux.personality', { domain: 'LINUX', flags: ['x'] }]])('refuses by its name what cannot be done: %s', (field, value) => {
    expect(() => checkSpec(withField(field, value))).toThrow(expect.objectContaining({ code: 'ERR_NOT_SUPPORTED', path: expect.stringContaining(field) as string }));
  });

  it('takes the process of a session', () => {
    expect(() => checkProcess(process)).not.toThrow();
    expect(() => checkProcess(undefined)).toThrow(/not set/);
    expect(() => checkProcess({ ...process, user: { uid: 'root' } })).toThrow(/process\.user\.uid/);
  });
});
