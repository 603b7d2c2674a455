/** Attacks by what a bundle holds, and on what its caller hands over: through the real engine-oci. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxRootfs } from '../helpers/busybox.ts';
import { removeParent } from '../helpers/cgroup.ts';
import { TestEngine } from '../helpers/engine.ts';

const program = join(import.meta.dirname, '..', '..', 'bin', 'engine-oci');
const missing = process.getuid?.() !== 0 ? 'needs root' : undefined;
type Json = Record<string, unknown>;

describe.skipIf(missing !== undefined)(`bundles${missing ? ` (skipped: ${missing})` : ''}`, () => {
  let engine: TestEngine;
  let folder: string;
  let counter = 0;
  beforeAll(() => {
    engine = new TestEngine();
    folder = realpathSync(mkdtempSync('/var/tmp/engine-bundles-'));
  });
  afterAll(async () => {
    expect(readdirSync(join(folder, 'state')).flatMap((name) => (name.startsWith('.') ? readdirSync(join(folder, 'state', name)) : [name]))).toEqual([]);
    rmSync(folder, { recursive: true });
    for (let i = 1; i <= counter; i++) await removeParent(`bundle-${process.pid}-${i}`);
    expect(await engine.close()).toEqual([]);
  });

  interface Bundle { readonly path: string; readonly rootfs: string; readonly id: string }
  function bundle(script: string, changes: Json = {}): Bundle {
    const id = `bundle-${process.pid}-${++counter}`;
    const path = join(folder, id);
    const rootfs = join(path, 'rootfs');
    busyboxRootfs(rootfs);
    const { linux, process: own, mounts = [], ...rest } = changes as { linux?: Json; process?: Json; mounts?: Json[] } & Json;
    writeFileSync(join(path, 'config.json'), JSON.stringify({
      ociVersion: '1.2.0', root: { path: 'rootfs' }, ...rest,
      process: { cwd: '/', user: { uid: 0, gid: 0 }, args: ['/bin/sh', '-c', script], env: ['PATH=/bin'], capabilities: {}, ...own },
      mounts: [{ destination: '/proc', type: 'proc' }, { destination: '/dev', type: 'tmpfs' }, { destination: '/sys', type: 'sysfs', options: ['ro'] }, ...mounts],
      linux: { namespaces: ['pid', 'mount', 'network', 'ipc', 'uts'].map((type) => ({ type })), cgroupsPath: `/${id}`, ...linux },
    }));
    return { path, rootfs, id };
  }
  const arguments_ = ({ path, id }: Bundle): string[] => ['--root', join(folder, 'state'), 'run', '--bundle', path, id];
  function run(b: Bundle, env: Record<string, string> = {}, before: readonly string[] = []): { code: number | null; out: string; err: string } {
    const [command = program, ...rest] = [...before, program, ...arguments_(b)];
    const { status, stdout, stderr } = spawnSync(command, rest, { env: { ...process.env, ...engine.env, ...env }, encoding: 'utf8', timeout: 30_000, stdio: ['ignore', 'pipe', 'pipe'] });
    return { code: status, out: stdout, err: stderr };
  }

  it('CVE-2025-23267: a hook has the environment that the spec gives it, and no other file open', () => {
    const told = join(folder, 'told');
    const look = `{ echo "$0"; env; ls /proc/self/fd; } > ${told}.$0`;
    const hook = (name: string) => [{ path: '/bin/sh', args: [name, '-c', look, name], env: ['ONLY=this', 'PATH=/usr/bin:/bin'] }];
    const b = bundle('echo ran', { hooks: Object.fromEntries(['prestart', 'createRuntime', 'createContainer', 'poststart', 'poststop'].map((name) => [name, hook(name)])) });
    expect(run(b, { LD_PRELOAD_OF_CALLER: '/evil.so', SECRET: 'x' })).toMatchObject({ code: 0, out: 'ran\n' });
    for (const name of ['prestart', 'createRuntime', 'createContainer', 'poststart', 'poststop']) {
      const lines = readFileSync(`${told}.${name}`, 'utf8').trim().split('\n');
      const variables = lines.filter((line) => line.includes('=')).map((line) => line.split('=')[0]).filter((word) => !['PWD', 'OLDPWD', '_', 'SHLVL'].includes(word ?? ''));
      expect(variables.sort(), name).toEqual(['ONLY', 'PATH']);
      // its stdin, stdout, stderr, and the folder that ls reads
      expect(lines.filter((line) => /^\d+$/.test(line)), name).toEqual(['0', '1', '2', '3']);
    }
  });

  it('a hook that fails, or never ends, undoes the container', () => {
    const failing = run(bundle('echo ran', { hooks: { createRuntime: [{ path: '/bin/sh', args: ['sh', '-c', 'echo no such thing >&2; exit 3'] }] } }));
    expect(failing.code).not.toBe(0);
    expect(failing.out).toBe('');
    expect(failing.err).toMatch(/exited with 3.*no such thing/s);
    const endless = run(bundle('echo ran', { hooks: { createContainer: [{ path: '/bin/sleep', args: ['sleep', '1000'], timeout: 1 }] } }));
    expect(endless.code).not.toBe(0);
    expect(endless.err).toMatch(/did not end within 1000 ms/);
  });

  it('mount points that are links of the image lead nowhere out of it: tmpfs with copy-up, cgroups, files', () => {
    const outside = join(folder, 'outside');
    mkdirSync(outside);
    writeFileSync(join(outside, 'secret'), 'secret of the host');
    const b = bundle('ls -A /up /real 2>&1; cat /up/* 2>/dev/null; echo; ls -A /', { mounts: [{ destination: '/up', type: 'tmpfs', options: ['tmpcopyup'] }, { destination: '/into/below', type: 'tmpfs', options: ['tmpcopyup'] }] });
    symlinkSync(outside, join(b.rootfs, 'up'));
    symlinkSync('../../../../../../..' + outside, join(b.rootfs, 'into'));
    const { out } = run(b);
    expect(out).not.toContain('secret');
    expect(readdirSync(outside)).toEqual(['secret']);

    const groups = bundle('ls /sys/fs/cgroup', { mounts: [{ destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup' }] });
    rmSync(join(groups.rootfs, 'sys'), { recursive: true });
    symlinkSync(outside, join(groups.rootfs, 'sys'));
    const refused = run(groups);
    expect(refused.code).not.toBe(0);
    expect(refused.err).toMatch(/sys/);
    expect(readdirSync(outside)).toEqual(['secret']);
  });

  it('a cgroup mount shows the own group alone, also in the host\'s cgroup namespace', () => {
    const b = bundle('for f in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -e $f/cgroup.procs ] && cat $f/cgroup.procs; done | sort -u; echo; for f in /sys/fs/cgroup/*; do [ -d $f ] && ls -d $f/*/ 2>/dev/null; done; true', { mounts: [{ destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro'] }] });
    if (existsSync('/sys/fs/cgroup/cgroup.controllers')) return; // as runc: v2 without a namespace is the host's
    const { code, out } = run(b);
    expect(code).toBe(0);
    const [, folders = ''] = out.split('\n\n');
    expect(folders.trim()).toBe('');
    expect(out).toMatch(/^1$/m);
  });

  it('read-only means all below it with rro, and only itself with ro', () => {
    const tree = join(folder, 'tree');
    mkdirSync(join(tree, 'below'), { recursive: true });
    // in a mount namespace of its own: it goes with the command
    const inside = (option: string) => run(bundle('touch /tree/x 2>/dev/null && echo top; touch /tree/below/x 2>/dev/null && echo below; true', { mounts: [{ destination: '/tree', type: 'bind', source: tree, options: ['rbind', option] }] }), {}, ['unshare', '--mount', 'sh', '-c', `mount -t tmpfs below ${join(tree, 'below')} && exec "$@"`, 'sh']).out;
    expect([inside('ro'), inside('rro'), inside('rw')]).toEqual(['below\n', '', 'top\nbelow\n']);
  });

  it('the listener of a filter goes to the socket at its path, and to nothing else that is there', async () => {
    const seccomp = (listenerPath: string): Json => ({ linux: { seccomp: { defaultAction: 'SCMP_ACT_ALLOW', listenerPath, syscalls: [{ names: ['acct'], action: 'SCMP_ACT_NOTIFY' }] } } });
    const file = join(folder, 'no-socket');
    writeFileSync(file, 'untouched');
    const refused = run(bundle('echo ran', seccomp(file)));
    expect([refused.code === 0, refused.out]).toEqual([false, '']);
    expect(readFileSync(file, 'utf8')).toBe('untouched');
    for (const bad of ['relative.sock', '']) expect(run(bundle('echo ran', seccomp(bad))).err).toMatch(/listenerPath/);
    const socket = join(folder, 'agent');
    let told = '';
    const agent = createServer((connection) => connection.on('data', (data) => (told += data.toString())));
    await new Promise<void>((resolve) => agent.listen(socket, resolve));
    const b = bundle('echo ran', seccomp(socket));
    const child = spawn(program, arguments_(b), { env: { ...process.env, ...engine.env }, stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    const code = await new Promise((resolve) => child.once('close', resolve));
    await new Promise((resolve) => agent.close(resolve));
    expect([code, out]).toEqual([0, 'ran\n']);
    const state = JSON.parse(told) as { pid: number; state: Json };
    expect(state).toMatchObject({ ociVersion: '1.2.0', fds: ['seccompFd'], state: { id: b.id, status: 'creating', bundle: b.path } });
    expect(state.state['pid']).toBe(state.pid);
  });

  it('a network device of the host goes in by its name, with its addresses, and no other', () => {
    const b = bundle('ip -o addr | awk \'{print $2, $3, $4}\'; ip -o link', { linux: { netDevices: { give0: { name: 'got0' } } } });
    const made = 'ip link add give0 type veth peer name keep0 && ip addr add 192.0.2.9/24 dev give0 && "$@" && ! ip link show give0 2>/dev/null';
    const { code, out, err } = run(b, {}, ['unshare', '--net', 'sh', '-c', made, 'sh']);
    expect({ code, err }).toEqual({ code: 0, err: expect.any(String) as string });
    expect(out).toMatch(/got0 inet 192\.0\.2\.9\/24/);
    expect(out).toMatch(/got0\S*: <[^>]*\bUP\b/);
    expect(out).not.toMatch(/keep0|give0/);
  });

  it('a bundle that is malformed is refused by the field, and leaves nothing', () => {
    for (const [changes, field] of [
      [{ process: { user: { uid: 2 ** 32 - 1, gid: 0 } } }, 'process.user.uid'], [{ linux: { netDevices: { '../x': {} } } }, 'linux.netDevices'], [{ hooks: { prestart: [{ path: 'evil.sh' }] } }, 'hooks.prestart'],
      [{ linux: { intelRdt: { closID: 'x' } } }, 'linux.intelRdt'], [{ vm: { kernel: { path: '/k' } } }, 'vm'], [{ process: { selinuxLabel: 'x:y:z' } }, 'process.selinuxLabel'],
    ] as const) {
      const { code, err } = run(bundle('echo ran', changes as Json));
      expect(code, field).not.toBe(0);
      expect(err).toContain(field);
    }
  });
});
