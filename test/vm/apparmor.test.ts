/** The default AppArmor profile on a real kernel: what it forbids, and that nothing else forbade it; what goes on as ever; who loads it, and when. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTar, importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { Dockerd, which } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';

/** Each line: a name, then what is tried; what it changes it changes to what it was. */
const probes = String.raw`
same() { v=$(cat "$1") && echo "$v" > "$1"; }
can() { name=$1; shift; if ( "$@" ) >/dev/null 2>&1; then echo "$name yes"; else echo "$name no"; fi; }
write() { printf '%s' "$1" > "$2"; }
open() { : < "$1"; }
mkdir -p /mnt
can mount mount -t tmpfs none /mnt
can bind mount --bind /tmp /mnt
can remount mount -o remount,ro /dev/shm
can umount umount /dev/mqueue
can sysrq write h /proc/sysrq-trigger
can core-pattern same /proc/sys/kernel/core_pattern
can modprobe same /proc/sys/kernel/modprobe
can sysrq-mask same /proc/sys/kernel/sysrq
can semaphores same /proc/sys/kernel/sem
can messages same /proc/sys/kernel/msgmax
can shared-memory same /proc/sys/kernel/shmmax
can swappiness same /proc/sys/vm/swappiness
can forwarding same /proc/sys/net/ipv4/ip_forward
can mqueue same /proc/sys/fs/mqueue/msg_max
can irq same /proc/irq/default_smp_affinity
can kcore head -c 4 /proc/kcore
can ksm same /sys/kernel/mm/ksm/run
can queue same /sys/block/vda/queue/nr_requests
can firmware head -c 4 /sys/firmware/acpi/tables/DSDT
can security cat /sys/kernel/security/lsm
can current write 'changeprofile unconfined' /proc/self/attr/apparmor/current
can onexec write 'exec unconfined' /proc/self/attr/apparmor/exec
can trace-host open /proc/$VICTIM/mem
can read-host cat /proc/$VICTIM/environ
can signal-host kill -CONT $VICTIM
sleep 30 &
can trace-own open /proc/$!/mem
can signal-own kill $!
can read-cgroup ls /sys/fs/cgroup
can write-tmp write x /tmp/x
can oom-score same /proc/self/oom_score_adj
`;
/** What Docker's profile lets pass as well. */
const harmless = ['trace-own', 'signal-own', 'read-cgroup', 'write-tmp', 'oom-score'];
const everything = probes.split('\n').flatMap((line) => /^can (\S+)/.exec(line)?.[1] ?? []);
type Outcome = Readonly<Record<string, boolean>>;
const outcome = (text: string): Outcome => Object.fromEntries(text.trim().split('\n').map((line) => line.split(' ')).map(([name = '', can]) => [name, can === 'yes']));
const allowed = (found: Outcome): string[] => everything.filter((name) => found[name]);

/** Several engines take minutes: for guests alone (selection.ts). */
const isBeside = process.env['VM_PART'] === 'beside';
const hasAppArmor = existsSync('/sys/kernel/security/apparmor/policy');
const PARSER = '/usr/sbin/apparmor_parser';
const loaded = (name: string): boolean => readFileSync('/sys/kernel/security/apparmor/profiles', 'utf8').includes(`${name} (`);
const parse = (argument: string, text: string): void => void execFileSync(PARSER, ['-K', '-q', argument], { input: text, stdio: ['pipe', 'ignore', 'pipe'] });
/** Denials of profile `name` since `mark`, as the kernel tells them. */
const denials = (name: string): string[] => execFileSync('dmesg', { encoding: 'utf8', maxBuffer: 1 << 26 }).split('\n').filter((line) => line.includes('apparmor="DENIED"') && line.includes(`profile="${name}"`));

describe.skipIf(!hasAppArmor)('AppArmor', () => {
  let engine: TestEngine;
  let victim: ChildProcess;
  const open = (): string[] => ['--privileged', '--pid', 'host', '-e', `VICTIM=${victim.pid}`, '-v', '/sys/kernel/security:/sys/kernel/security'];
  beforeAll(async () => {
    victim = spawn('sleep', ['10000'], { stdio: 'ignore' });
    // of another file's containers
    if (loaded('engine-default')) parse('-R', 'profile engine-default {}');
    engine = new TestEngine({ resident: 'auto' });
    await importBusybox(engine);
  });
  afterAll(async () => {
    victim.kill('SIGKILL');
    expect(await engine.close()).toEqual([]);
  });

  it('forbids what reaches the machine when nothing else stands in the way: nothing else did', async () => {
    expect(loaded('engine-default')).toBe(false);
    const free = outcome(await engine.ok('run', '--rm', ...open(), 'busybox', 'sh', '-c', probes));
    expect(loaded('engine-default'), 'nobody needed it').toBe(false);
    const held = outcome(await engine.ok('run', '--rm', ...open(), '--security-opt', 'apparmor=engine-default', 'busybox', 'sh', '-c', probes));
    expect(allowed(held)).toEqual(harmless);
    expect(allowed(free)).toEqual(everything);
  });

  it('is the label of the program and of each session, with --init of pid 1 too, whoever the user is', async () => {
    const label = ['cat', '/proc/self/attr/apparmor/current'];
    const variants = [['-u', 'app'], ['--security-opt', 'no-new-privileges', '--init'], ['--security-opt', 'seccomp=unconfined', '--cap-drop', 'ALL']];
    for (const options of variants) expect(await engine.ok('run', '--rm', ...options, 'busybox', ...label), options.join(' ')).toBe('engine-default (enforce)');
    await engine.ok('run', '-d', '--init', '--name', 'one', 'busybox', 'sleep', '10000');
    expect(await engine.ok('exec', 'one', 'cat', '/proc/1/attr/apparmor/current')).toBe('engine-default (enforce)');
    expect(await engine.ok('exec', 'one', ...label)).toBe('engine-default (enforce)');
    expect(await engine.ok('exec', '-u', 'app', 'one', ...label)).toBe('engine-default (enforce)');
    expect(await engine.ok('exec', '--privileged', 'one', ...label)).toBe('unconfined');
    expect(await engine.ok('inspect', '-f', '{{.AppArmorProfile}}', 'one')).toBe('engine-default');
    // who stands for its container may be told to end by it; who tells it may go with it before it has ended by itself
    expect([0, 137]).toContain((await engine.run(['exec', 'one', 'kill', '-TERM', '1'])).code);
    expect(await engine.ok('wait', 'one')).toBe('143');
    for (const options of [['--privileged'], ['--security-opt', 'apparmor:unconfined']]) {
      expect(await engine.ok('run', '--rm', ...options, 'busybox', ...label), options.join(' ')).toBe('unconfined');
    }
    await engine.ok('rm', 'one');
  });

  it('lets ordinary programs be: not one denial', async () => {
    const before = denials('engine-default').length;
    const script = 'ps; top -bn1; df; id; su app -c id; ls -lR /etc /proc/self/ >/dev/null; cat /proc/meminfo /proc/1/environ /proc/1/cmdline; echo x > /tmp/x; chown app /tmp/x; ln /tmp/x /tmp/y; mkfifo /tmp/f; find / -xdev >/dev/null; sleep 1 & kill $!; wait; echo end';
    expect(await engine.ok('run', '--rm', 'busybox', 'sh', '-c', script)).toContain('end');
    expect(denials('engine-default').slice(before)).toEqual([]);
  });
  it('lets a distribution\'s programs be', async () => {
    // the guest's own root is a Debian
    const before = denials('engine-default').length;
    const work = 'set -e; dpkg -l >/dev/null; useradd -m tester; su tester -c "touch ~/x; id" >/dev/null; tar -C /etc/apparmor.d -cf /tmp/e.tar .; mkdir /tmp/e; tar -C /tmp/e -xf /tmp/e.tar; perl -e "kill 0, $$; fork; wait"; ldconfig -p >/dev/null; ps ax >/dev/null; echo end';
    expect(await engine.ok('run', '--rm', 'host', 'sh', '-c', work)).toMatch(/end$/);
    expect(denials('engine-default').slice(before)).toEqual([]);
  });

  it('is loaded again when somebody took it away, or put another in its place; a session comes back under it too', async () => {
    const held = async (): Promise<boolean> => (await engine.run(['run', '--rm', '--cap-add', 'SYS_ADMIN', '--security-opt', 'seccomp=unconfined', 'busybox', 'mount', '-t', 'tmpfs', 'none', '/tmp'])).code !== 0;
    expect(await held()).toBe(true);
    parse('-R', 'profile engine-default {}');
    expect(loaded('engine-default')).toBe(false);
    expect(await held()).toBe(true);
    parse('-r', 'profile engine-default flags=(attach_disconnected,mediate_deleted) { file, capability, network, mount, umount, signal, ptrace, }');
    expect(await held()).toBe(true);
    await engine.ok('run', '-d', '--name', 'session', 'busybox', 'sleep', '10000');
    parse('-R', 'profile engine-default {}');
    expect(await engine.ok('exec', 'session', 'cat', '/proc/self/attr/apparmor/current')).toBe('engine-default (enforce)');
    await engine.ok('rm', '-f', 'session');
  });

  it.skipIf(isBeside)('is loaded once by many at once, of two engines', async () => {
    const other = new TestEngine();
    try {
      await importBusybox(other);
      parse('-R', 'profile engine-default {}');
      const runs = [engine, other, engine, other].map((one) => one.ok('run', '--rm', 'busybox', 'cat', '/proc/self/attr/apparmor/current'));
      expect(await Promise.all(runs)).toEqual(Array(4).fill('engine-default (enforce)'));
      const [, revision] = [await engine.ok('run', '--rm', 'busybox', 'true'), profileNumber()];
      for (const one of [engine, other]) await one.ok('run', '--rm', 'busybox', 'true');
      expect(profileNumber()).toBe(revision);
    } finally {
      expect(await other.close()).toEqual([]);
    }
  });

  it.skipIf(isBeside)('an engine with another template, since it runs under a profile itself, has one of another name, and neither replaces the other\'s', async () => {
    const other = new TestEngine({ resident: 'off' });
    const label = ['busybox', 'cat', '/proc/self/attr/apparmor/current'];
    parse('-r', 'profile test-engine flags=(unconfined) { }');
    const profiled = (...args: string[]): string => execFileSync('aa-exec', ['-p', 'test-engine', '--', join(import.meta.dirname, '../../bin/engine'), '--root', other.root, '--run-root', other.runRoot, ...args], { encoding: 'utf8', env: { ...process.env, ENGINE_RESIDENT: 'off' } }).trim();
    try {
      await importBusybox(other);
      await engine.ok('run', '--rm', ...label);
      const theirs = profiled('run', '--rm', '--net', 'none', ...label);
      expect(theirs).toMatch(/^engine-default-[0-9a-f]{8} \(enforce\)$/);
      const revision = profileNumber();
      expect(await engine.ok('run', '--rm', ...label)).toBe('engine-default (enforce)');
      expect(profiled('run', '--rm', '--net', 'none', ...label)).toBe(theirs);
      expect(profileNumber()).toBe(revision);
      // a session of the other engine's is heard by what runs under this one
      await other.ok('run', '-d', '--net', 'none', '--name', 'mixed', 'busybox', 'sleep', '10000');
      profiled('exec', 'mixed', 'sh', '-c', 'sleep 1000 & kill -0 1 && kill $!');
      await other.ok('rm', '-f', 'mixed');
    } finally {
      expect(await other.close()).toEqual([]);
    }
  });

  it('takes a profile of somebody else by its name, and says when it is not there before anything is made', async () => {
    const label = ['busybox', 'cat', '/proc/self/attr/apparmor/current'];
    parse('-r', 'profile test-own flags=(attach_disconnected) { file, capability, network, signal, ptrace, deny /etc/passwd r, }');
    expect(await engine.ok('run', '--rm', '--security-opt', 'apparmor=test-own', ...label)).toBe('test-own (enforce)');
    expect((await engine.run(['run', '--rm', '--security-opt', 'apparmor=test-own', 'busybox', 'cat', '/etc/passwd'])).stderr).toMatch(/Permission denied/);
    await engine.ok('create', '--name', 'later', '--security-opt', 'apparmor=test-own', 'busybox', 'true');
    parse('-R', 'profile test-own {}');
    const late = await engine.run(['start', 'later']);
    expect([late.code, late.stderr]).toEqual([125, expect.stringMatching(/AppArmor profile test-own is not loaded/)]);
    await engine.ok('rm', 'later');
    const result = await engine.run(['run', '--security-opt', 'apparmor=test-own', ...label]);
    expect(result.stderr).toMatch(/AppArmor profile test-own is not loaded.*apparmor_parser/s);
    expect(result.code).toBe(125);
    for (const name of ['', 'a b', 'a//&b']) {
      const { code, stderr } = await engine.run(['run', '--security-opt', `apparmor=${name}`, ...label]);
      expect([code, stderr], name).toEqual([125, expect.stringMatching(/AppArmor profile|no profile is named/)]);
    }
    expect(await engine.ok('ps', '-aq')).toBe('');
  });

  it('says so when there is nobody to load it, and does without with a warning where nobody asked for it', async () => {
    const alone = new TestEngine();
    parse('-R', 'profile engine-default {}');
    renameSync(PARSER, `${PARSER}.away`);
    try {
      await importBusybox(alone);
      expect(await alone.run(['run', '--rm', 'busybox', 'cat', '/proc/self/attr/apparmor/current'])).toMatchObject({ code: 0, stdout: 'unconfined\n', stderr: expect.stringMatching(/without an AppArmor profile: apparmor_parser/) as string });
      expect((await alone.run(['run', '--rm', '--security-opt', 'apparmor=engine-default', 'busybox', 'true']))).toMatchObject({ code: 125, stderr: expect.stringMatching(/apparmor_parser.*not installed/) as string });
      expect(await alone.ok('doctor').catch(String)).toMatch(/apparmor.*apparmor_parser/);
      alone.configure('security: { apparmor: named }');
      expect((await alone.run(['run', '--rm', 'busybox', 'true']))).toMatchObject({ code: 125, stderr: expect.stringMatching(/apparmor_parser.*not installed/) as string });
    } finally {
      renameSync(`${PARSER}.away`, PARSER);
      expect(await alone.close()).toEqual([]);
    }
  });

  it('survives a crash while it is being loaded: the next start loads it', async () => {
    const crashing = new TestEngine({ resident: 'off' });
    const marker = join(crashing.folder, 'loading');
    try {
      await importBusybox(crashing);
      parse('-r', 'profile engine-default { file, capability, network, mount, umount, signal, ptrace, }');
      renameSync(PARSER, `${PARSER}.real`);
      writeFileSync(PARSER, `#!/bin/sh\necho $PPID > ${marker}.new; mv ${marker}.new ${marker}\nsleep 600\n`, { mode: 0o755 });
      const running = crashing.start(['run', '--rm', 'busybox', 'true']);
      await until('the profile to be loaded', () => existsSync(marker));
      running.child.kill('SIGKILL');
      await running.result;
      renameSync(`${PARSER}.real`, PARSER);
      expect((await crashing.run(['run', '--rm', '--cap-add', 'SYS_ADMIN', '--security-opt', 'seccomp=unconfined', 'busybox', 'sh', '-c', 'cat /proc/self/attr/apparmor/current; mount -t tmpfs none /tmp && echo mounted'])).stdout).toBe('engine-default (enforce)\n');
    } finally {
      if (existsSync(`${PARSER}.real`)) renameSync(`${PARSER}.real`, PARSER);
      expect(await crashing.close()).toEqual([]);
    }
  });

  it('CVE-2025-52881: a procfs and links that the container laid out do not turn the label elsewhere', async () => {
    // a volume in place of /proc in which the file to write to is a link, or a plain file
    const folder = mkdtempSync('/var/tmp/engine-proc-');
    try {
      execFileSync('sh', ['-c', 'for d in self thread-self; do mkdir -p $0/$d/attr/apparmor; ln -s /proc/sysrq-trigger $0/$d/attr/apparmor/exec; ln -s /proc/sysrq-trigger $0/$d/attr/exec; done', folder]);
      for (const target of ['/proc', '/proc/self/attr']) {
        const result = await engine.run(['run', '--rm', '-v', `${folder}:${target}`, 'busybox', 'cat', '/proc/self/attr/apparmor/current']);
        if (result.code === 0) expect([target, result.stdout.trim()]).toEqual([target, 'engine-default (enforce)']);
      }
      expect(execFileSync('find', [folder, '-type', 'f', '-size', '+0'], { encoding: 'utf8' })).toBe('');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it.skipIf(isBeside || which('dockerd') === undefined)('forbids all that Docker\'s profile does', async () => {
    const docker = await new Dockerd().start();
    try {
      docker.docker('import', '-c', 'CMD ["sh"]', busyboxTar(), 'busybox');
      const theirs = outcome(docker.docker('run', '--rm', '--network', 'none', ...open(), '--security-opt', 'apparmor=docker-default', 'busybox', 'sh', '-c', probes));
      const ours = outcome(await engine.ok('run', '--rm', ...open(), '--security-opt', 'apparmor=engine-default', 'busybox', 'sh', '-c', probes));
      expect(everything.filter((name) => !theirs[name] && ours[name])).toEqual([]);
      expect(allowed(theirs).length).toBeGreaterThanOrEqual(harmless.length);
      if (process.env['VM_OUT']) writeFileSync(join(process.env['VM_OUT'], 'apparmor-docker.json'), JSON.stringify({ theirs: allowed(theirs), ours: allowed(ours) }));
    } finally {
      await docker.stop();
    }
  });
});

/** Which load of the default profile it is. */
function profileNumber(): string {
  return execFileSync('sh', ['-c', 'ls /sys/kernel/security/apparmor/policy/profiles | grep ^engine-default; ls /sys/kernel/security/apparmor/policy/raw_data'], { encoding: 'utf8' });
}
