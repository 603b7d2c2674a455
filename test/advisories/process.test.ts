/** What a program in a container can reach: fds, processes that join, keys, system calls, the kernel's own files. */
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { until } from '../helpers/wait.ts';
import { Attack, outcomes } from './attack.ts';

let engine: Attack;
/** A container that does nothing, for exec. */
let resident: string;
const bin = join(import.meta.dirname, '..', '..', 'bin', 'engine');
beforeAll(async () => {
  engine = new Attack();
  await engine.image('plain', [{ path: 'evil', content: '#!/proc/self/exe\n', mode: 0o755 }, { path: 'link', type: '2', link: '/proc/self/exe' }]);
  resident = (await engine.ok('run', '-d', 'plain', 'sleep', '1000')).trim();
});
afterAll(async () => expect(await engine.close()).toEqual([]));

describe('CVE-2019-5736: the runtime overwritten through /proc/self/exe', () => {
  it('the program that a container can get hold of cannot be written to', async () => {
    const container = (await engine.ok('run', '-d', 'plain', 'attack', 'overwrite', '60')).trim();
    await until('the attacker', async () => (await engine.ok('logs', container)).includes('go'));
    // a script whose interpreter is /proc/self/exe runs whatever the joining process is: until its exec that is the shim
    await until('the attacker to hold a program', async () => {
      for (const program of ['/evil', '/proc/self/exe', '/link']) await engine.run(['exec', container, program]);
      return /write /.test(await engine.ok('logs', container));
    }, 60_000);
    const log = await engine.ok('logs', container);
    expect(log).toMatch(/held .*engine-shim/);
    // the shim itself runs from it, hence ETXTBSY as long as the container lives; after that the seals stand
    expect(log).toMatch(/write (ETXTBSY|EPERM|EACCES|EROFS)/);
    expect(log).toMatch(/seals 15|readonly mount/);
    expect(log).not.toMatch(/overwrote|mapped|truncated/);
    await engine.ok('rm', '-f', container);
    // as the first program too, and nothing of the host's files has changed
    for (const program of ['/evil', '/proc/self/exe', '/link']) expect((await engine.run(['run', '--rm', 'plain', program])).code).not.toBe(0);
    expect(readFileSync('/proc/self/exe').subarray(1, 4).toString()).toBe('ELF');
  });
  it('control: the attack does overwrite a program that is not sealed', async () => {
    const victim = join(engine.folder, 'victim');
    execFileSync('cp', ['/bin/sleep', victim]);
    const attacker = spawn(engine.program, ['overwrite-path', victim], { stdio: 'pipe' });
    let said = '';
    attacker.stdout.on('data', (data: Buffer) => (said += data.toString()));
    await new Promise((resolve) => attacker.on('close', resolve));
    expect(said).toContain('overwrote');
  });
});

describe('CVE-2024-21626: leaked fds and working directories', () => {
  it('no fd but the three streams is there, in run and in exec', async () => {
    for (const args of [['run', '--rm', 'plain'], ['exec', resident]]) {
      expect((await engine.ok(...args, 'attack', 'descriptors')).split('\n').map((line) => line.split(' ')[0]), args[0]).toEqual(['0', '1', '2']);
    }
  });
  it('a working directory of /proc/self/fd/N leads nowhere', async () => {
    const said: string[] = [];
    for (let fd = 3; fd < 40; fd++) {
      const results = await Promise.all([
        engine.run(['exec', '-w', `/proc/self/fd/${fd}`, resident, 'cat', `../../../../../../../..${engine.host}/file`]),
        ...(fd < 20 ? [engine.run(['run', '--rm', '-w', `/proc/self/fd/${fd}/../../../..`, 'plain', 'cat', `.${engine.host}/file`])] : []),
      ]);
      for (const { code, stdout, stderr } of results) {
        expect(code).not.toBe(0);
        expect(stdout).toBe('');
        said.push(stderr);
      }
    }
    // one of them is a folder of the host: the attack has come as far as the check of the working directory (the control)
    expect(said.filter((line) => /lies outside the root/.test(line))).not.toEqual([]);
    await engine.image('workdir', [{ path: 'cwd', type: '2', link: '/proc/self/fd/7' }], ['WORKDIR /cwd']);
    expect(await engine.run(['run', '--rm', 'workdir', 'ls', '-a', '..'])).toMatchObject({ code: 126, stdout: '' });
  });
  it('a program that is an open fd is nothing of the host\'s', async () => {
    for (let fd = 3; fd < 9; fd++) {
      const program = `/proc/self/fd/${fd}`;
      for (const { code, stderr } of await Promise.all([engine.run(['run', '--rm', 'plain', program]), engine.run(['exec', resident, program])])) expect([2, 126, 127], `${program}: ${stderr}`).toContain(code);
    }
  });
});

describe('CVE-2016-9962: the joining process', () => {
  it('cannot be traced, read or followed before its exec', async () => {
    const container = (await engine.ok('run', '-d', 'plain', 'attack', 'watch', '4')).trim();
    await until('the attacker', async () => (await engine.ok('logs', container)).includes('go'));
    for (let i = 0; i < 3; i++) await Promise.all([engine.run(['exec', container, 'true']), engine.run(['exec', '-u', 'app', container, 'true'])]);
    await engine.ok('wait', container);
    const log = await engine.ok('logs', container);
    // it was there to be seen: otherwise nothing has been shown
    expect(Number(/saw (\d+)/.exec(log)?.[1])).toBeGreaterThan(0);
    expect(log).not.toMatch(/reached/);
    await engine.ok('rm', container);
  });
  it('/proc/1/environ and the command line of pid 1 tell nothing of the engine', async () => {
    const { stdout } = await engine.run(['run', '--rm', 'plain', 'sh', '-c', 'tr "\\0" "\\n" < /proc/1/environ | cut -d = -f 1 | sort; tr "\\0" " " < /proc/1/cmdline; cat /proc/1/comm'], { env: { ENGINE_TEST_SECRET: 'x', SECRET: 'y' } });
    expect(stdout).toMatch(/^HOME\nHOSTNAME\nPATH\nsh -c .* (sh|cat)\n$/s);
  });
});

describe('host stdio through /proc/self/fd', () => {
  it('a host file given as stdin or stdout is not what the container gets', async () => {
    const file = join(engine.host, 'file');
    const before = statSync(file);
    const input = openSync(file, 'r');
    const output = join(engine.folder, 'output');
    const out = openSync(output, 'w');
    const child = spawn(bin, ['run', '--rm', '-i', 'plain', 'sh', '-c', 'attack descriptors >&2; cat; echo x > /proc/self/fd/0; echo own > /proc/self/fd/1; dd if=/dev/zero of=/dev/stdin bs=1 count=1 2>/dev/null'], { env: engine.env, cwd: engine.folder, stdio: [input, out, 'pipe'] });
    let said = '';
    child.stderr?.on('data', (data: Buffer) => (said += data.toString()));
    const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
    expect(await new Promise((resolve) => child.on('close', (code) => resolve(code))), `standard input that is a file has no end; so far: ${said}`).toBe(0);
    clearTimeout(timer);
    closeSync(input);
    closeSync(out);
    expect(said).toMatch(/^0 pipe:.* type=10000 /);
    expect(said).toMatch(/^1 pipe:.* type=10000 /m);
    expect(readFileSync(output, 'utf8')).toBe(`${engine.secret}own\n`);
    expect(engine.hostChanges()).toEqual([]);
    expect(statSync(file).mtimeMs).toBe(before.mtimeMs);
    // control: a program that has the file itself as stdin can write to it
    const control = join(engine.folder, 'control');
    writeFileSync(control, 'x');
    const fd = openSync(control, 'r');
    expect(execFileSync(engine.program, ['descriptors'], { stdio: [fd, 'pipe', 'inherit'], encoding: 'utf8' })).toMatch(/^0 .*control.* reopened/);
    closeSync(fd);
  });
  it('the streams belong to the container\'s user', async () => {
    expect((await engine.sh('plain', 'echo out > /dev/stdout; echo err > /dev/stderr; attack descriptors | cut -d " " -f 4', '-u', 'app'))).toMatchObject({ code: 0, stderr: 'err\n', stdout: expect.stringMatching(/^out\nuid=1000\n/) as string });
  });
});

describe('session keyring', () => {
  it('keys of the caller are not visible inside', async () => {
    const run = (...args: string[]): string => execFileSync(engine.program, ['with-key', ...args], { env: engine.env, cwd: engine.folder, encoding: 'utf8' });
    expect(run(engine.program, 'keyrings')).toMatch(/caller-session[^]*search done/); // control
    const inside = run(bin, 'run', '--rm', '--security-opt', 'seccomp=unconfined', 'plain', 'attack', 'keyrings');
    expect(inside).toMatch(/session keyring;0;0;[0-9a-f]+;_ses\.[0-9a-f]{12}/);
    expect(inside).toMatch(/search ENOKEY/);
    const container = run(bin, 'run', '-d', '--security-opt', 'seccomp=unconfined', 'plain', 'sleep', '1000').trim();
    const joined = run(bin, 'exec', container, 'attack', 'keyrings');
    expect(joined).toMatch(/_ses\./);
    expect(joined).toMatch(/search ENOKEY/);
    await engine.ok('rm', '-f', container);
  });
});

describe('CVE-2022-29162, CVE-2022-27649, CVE-2022-27650: capabilities', () => {
  it('none is inheritable, in run and exec, for root and for users', async () => {
    const show = 'grep -E "^Cap(Inh|Amb|Eff)" /proc/self/status | tr -d "\\n\\t"';
    const root = 'CapInh:0000000000000000CapEff:00000000a80425fbCapAmb:0000000000000000';
    const user = 'CapInh:0000000000000000CapEff:0000000000000000CapAmb:0000000000000000';
    expect((await engine.sh('plain', show)).stdout).toBe(root);
    const container = (await engine.ok('run', '-d', '-u', 'app', '--cap-add', 'NET_ADMIN', 'plain', 'sleep', '1000')).trim();
    expect(await engine.ok('exec', container, 'sh', '-c', show)).toBe(user);
    expect(await engine.ok('exec', '-u', '0', container, 'sh', '-c', show)).toBe(root.replace('a80425fb', 'a80435fb'));
    await engine.ok('rm', '-f', container);
  });
});

describe('CVE-2026-31431 and what the default filter denies', () => {
  it('everything that leads out fails, and what is unknown is ENOSYS', async () => {
    const inside = outcomes((await engine.sh('plain', 'attack system-calls')).stdout);
    // root of the host with no filter: what the attacks do by themselves (the control)
    const outside = outcomes(execFileSync('unshare', ['-m', engine.program, 'system-calls-harmless'], { encoding: 'utf8', cwd: engine.folder }));
    const allowed = new Set(['af_unix', 'mknod_disk', 'mknod_kmem']);
    for (const [name, outcome] of Object.entries(inside)) {
      if (allowed.has(name)) expect(outcome, name).toBe('done');
      else expect(outcome, name).toMatch(/^(EPERM|EACCES|ENOSYS|EOPNOTSUPP|EAFNOSUPPORT)$/);
    }
    expect(inside).toMatchObject({ af_alg: 'EPERM', clone3: 'ENOSYS', unknown: 'ENOSYS', unshare_user: 'EPERM', clone_user: 'EPERM', mount: 'EPERM' });
    expect(Object.keys(inside).length).toBeGreaterThan(45);
    expect(Object.entries(outside).filter(([, outcome]) => outcome === 'done').map(([name]) => name)).toEqual(expect.arrayContaining(['mount', 'unshare_user', 'clone_user', 'clone3', 'unshare_mount']));
  });
});

describe('CVE-2022-0492, CVE-2023-25809, CVE-2022-0811: files of the kernel', () => {
  it('release_agent, core_pattern, cgroups, sysrq, uevent_helper and modprobe cannot be written', async () => {
    const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8');
    const script = `for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/tasks /sys/fs/cgroup/*/cgroup.procs /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/uevent_helper /proc/sys/vm/panic_on_oom /proc/sys/fs/binfmt_misc/register /proc/irq/default_smp_affinity /sys/kernel/mm/transparent_hugepage/enabled; do
      test -e $f || continue; sh -c "echo evil > $f" 2>/dev/null && echo "wrote $f"; done
      mkdir /sys/fs/cgroup/*/evil 2>/dev/null && echo made; mkdir /tmp/c; mount -t cgroup -o memory x /tmp/c 2>/dev/null && echo mounted; mount -o remount,rw /sys/fs/cgroup/memory 2>/dev/null && echo remounted; umount /proc/sys 2>/dev/null && echo unmounted; echo end`;
    expect((await engine.sh('plain', script)).stdout).toBe('end\n');
    // CAP_SYS_ADMIN alone opens mounts, and still not the release_agent of the host: cgroups are a namespace
    const admin = await engine.sh('plain', 'mkdir /tmp/c && mount -t cgroup -o memory x /tmp/c && ls /tmp/c | grep -c release_agent; cut -d : -f 3 /proc/self/cgroup | sort -u', '--cap-add', 'SYS_ADMIN');
    expect(admin.stdout).toMatch(/^(0\n)?\/\n$/);
    expect(readFileSync('/proc/sys/kernel/core_pattern', 'utf8')).toBe(pattern);
  });
  it('sysctls: namespaced ones only, and no value carries another (+ and =)', async () => {
    const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8');
    const bad = ['kernel.core_pattern=x', 'kernel/core_pattern=x', 'kernel.shm_rmid_forced=1+kernel.core_pattern=|/x', 'kernel.shm_rmid_forced=1\nkernel.core_pattern=x', 'net.ipv4.../../../kernel/core_pattern=x', 'net/../kernel/core_pattern=x',
      'net.ipv4/../../kernel/core_pattern=x', 'kernel.modprobe=x', 'vm.panic_on_oom=1', 'fs.mqueue.../../kernel.core_pattern=x', 'fs.suid_dumpable=2', 'kernel.msg..=1', 'net.=1', '=1', 'net.ipv4.ip_forward', 'kernel.sem=1 2 3 4\0x', 'user.max_user_namespaces=1', 'kernel.hostname=x', 'net.ipv4.ip_forward/../../../kernel/core_pattern=x'];
    for (const sysctl of bad) {
      if (sysctl.includes('\0')) continue; // no argument can carry it
      const { code, stdout } = await engine.run(['run', '--rm', '--sysctl', sysctl, 'plain', 'true']);
      expect({ code, stdout }, sysctl).toEqual({ code: 125, stdout: '' });
    }
    expect(readFileSync('/proc/sys/kernel/core_pattern', 'utf8')).toBe(pattern);
    expect((await engine.sh('plain', 'cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax', '--sysctl', 'net.ipv4.ip_forward=1', '--sysctl', 'kernel/msgmax=4444')).stdout).toBe('1\n4444\n');
  });
});
