import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, rmdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { constants, release } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { BITS, op, type Operation } from '@engine/core/plan';
import { build, canRun, encode, inFolder, run, runBytes, whileExchanging, type Result, type RunOptions } from './harness.ts';

const E = constants.errno;
const PATH_FOLDER = 0o10200000;
const NEW = { ns: 0x20000n, uts: 0x4000000n, ipc: 0x8000000n, pid: 0x20000000n, net: 0x40000000n, cgroup: 0x2000000n };
const env = ['PATH=/usr/bin:/bin'];
const PRIVATE_RECURSIVE = 0x44000;

/** Init in a mount namespace of its own: `before`, then a shell of the host's root (or of the new one), its output. */
const init = (before: readonly Operation[], script?: string, flags = NEW.ns, options: RunOptions = { fds: [2] }): Result =>
  runBytes('shim', encode([
    ['shim.spawn', op.spawn({ flags, pid: 'pid', pidfd: 'pidfd' })],
    ...[op.setPropagation({ path: '/', flags: PRIVATE_RECURSIVE }), ...before].map((o) => ['init.mounts', o] as const),
    ...(script === undefined ? [] : [...(before.some((o) => o.name === 'pipes') ? [] : [op.pipes({})]), op.resolveExec({ name: '/bin/sh', env, out: 'sh' }), op.exec({ program: 'sh', argv: ['sh', '-c', script], env })]).map((o) => ['init.exec', o] as const),
  ]), options);
const open = (path: string, out = 'root'): Operation => op.open({ path, flags: PATH_FOLDER, out });

describe.skipIf(!canRun)('mounts', () => {
  beforeAll(() => void build('interpret'), 120_000);

  it('are made detached, attached by fd, with targets made to fit', () => inFolder((f) => {
    mkdirSync(`${f}/root`);
    writeFileSync(`${f}/file`, 'bound');
    const done = init([
      open(`${f}/root`), op.mountFs({ type: 'tmpfs', source: 'mine', options: ['mode=0711', 'size=64k'], attributes: 0xe, out: 't' }), op.moveMount({ mount: 't', root: 'root', target: '/a/b/tmp' }),
      op.openTree({ source: `${f}/file`, out: 'f' }), op.setMountAttributes({ mount: 'f', set: 1 }), op.moveMount({ mount: 'f', root: 'root', target: '/etc/deep/file' }),
    ], `grep ${f} /proc/self/mountinfo | cut -d' ' -f5-; stat -c %a ${f}/root/a/b/tmp ${f}/root/a/b; cat ${f}/root/etc/deep/file; (echo x > ${f}/root/etc/deep/file) 2>&1`);
    expect(done.failures).toEqual([]);
    expect(done.output).toMatch(/a\/b\/tmp rw,nosuid,nodev,noexec.* - tmpfs mine .*size=64k,mode=711/);
    expect(done.output).toMatch(/etc\/deep\/file ro/);
    expect(done.output).toContain('711\n755\nbound');
    expect(done.output).toMatch(/Read-only file system/);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(f);
    expect(statSync(`${f}/root/etc/deep/file`).isFile()).toBe(true);
    expect(init([op.mountFs({ type: 'tmpfs', options: ['size=nonsense'], out: 't' })]).failures).toMatchObject([{ errno: E.EINVAL, detail: expect.stringMatching(/size=nonsense/) }]);
    expect(init([op.mountFs({ type: 'nosuchfs', out: 't' })]).failures[0]?.errno).toBe(E.ENODEV);
  }));

  it('of files are made where links lead that lead nowhere yet, inside the root', () => inFolder((f) => {
    mkdirSync(`${f}/root/etc`, { recursive: true });
    writeFileSync(`${f}/file`, 'bound');
    const links = { relative: '../run/systemd/stub', absolute: `${f}/outside/made`, up: '../../../../../up', chain: 'relative2', relative2: 'deep/er', loop: 'loop2', loop2: 'loop', '../way': 'elsewhere/', slash: 'behind/' };
    for (const [name, target] of Object.entries(links)) symlinkSync(target, `${f}/root/etc/${name}`);
    const bound = (target: string): Result => init([open(`${f}/root`), op.openTree({ source: `${f}/file`, out: 'f' }), op.moveMount({ mount: 'f', root: 'root', target })], `grep -o "${f}/root[^ ]*" /proc/self/mountinfo`);
    const cases: Readonly<Record<string, string>> = { '/etc/relative': '/run/systemd/stub', '/etc/absolute': `${f}/outside/made`, '/etc/up': '/up', 'etc/chain': '/etc/deep/er', '/way/file': '/elsewhere/file', '/etc/slash': '/etc/behind' };
    for (const [target, at] of Object.entries(cases)) {
      const { failures, output } = bound(target);
      expect([target, failures, output]).toEqual([target, [], `${f}/root${at}\n`]);
      expect(statSync(`${f}/root${at}`).mode & 0o777777).toBe(0o100644);
    }
    expect(bound('/etc/loop').failures).toMatchObject([{ errno: E.ELOOP }]);
    expect(existsSync(`${f}/outside`)).toBe(false);
  }));

  it('CVE-2019-19921, CVE-2021-30465: a mount point that is a link is refused, a link on the way stays inside', () => inFolder((f) => {
    mkdirSync(`${f}/root/real`, { recursive: true });
    mkdirSync(`${f}/outside`);
    symlinkSync('/real', `${f}/root/proc`);
    symlinkSync(`${f}/outside`, `${f}/root/dev`);
    symlinkSync('/proc/self/fd', `${f}/root/magic`);
    const mount = (target: string, refuse = 0): Result => init([
      open(`${f}/root`), op.mountFs({ type: 'tmpfs', out: 't' }), op.moveMount({ mount: 't', root: 'root', target, refuse }),
    ], `grep -c " ${f}/outside" /proc/self/mountinfo; grep -o "${f}/root[^ ]*" /proc/self/mountinfo`);
    expect(mount('/proc', BITS.REFUSE.symlink).failures).toMatchObject([{ errno: E.ELOOP }]);
    expect(mount('/proc').output).toBe(`0\n${f}/root/real\n`);
    expect(mount('/dev/sub').output).toBe(`0\n${f}/root${f}/outside/sub\n`);
    expect(mount('/magic/3').output).toMatch(new RegExp(`^0\n(${f}/root/.*\n)?`));
    expect(mount('/missing', BITS.REFUSE.createMissing).failures).toMatchObject([{ errno: E.ENOENT }]);
  }));

  it('CVE-2021-30465: a race that exchanges the target for a link wins nothing', { timeout: 60_000 }, () => inFolder((f) => {
    mkdirSync(`${f}/root/a/sub`, { recursive: true });
    mkdirSync(`${f}/outside/sub`, { recursive: true });
    whileExchanging(`${f}/root`, 'a', 'b', `${f}/outside`, () => {
      const tries = Array.from({ length: 60 }, (_, i): Operation[] => [op.mountFs({ type: 'tmpfs', out: `t${i}` }), op.moveMount({ mount: `t${i}`, root: 'root', target: '/a/sub' }, { optional: true })]).flat();
      for (let i = 0; i < 5; i++) expect(init([open(`${f}/root`), ...tries], `grep -c " ${f}/outside" /proc/self/mountinfo`).output.split('\n').filter((l) => !l.startsWith('warning'))[0]).toBe('0');
    });
  }));

  // `lowerdir+`: Linux 6.8
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const byFd = major > 6 || (major === 6 && minor >= 8);
  it('overlays by fd and by mount(2)', () => inFolder((f) => {
    execFileSync('sh', ['-c', `cd ${f} && mkdir -p l1 'l:2,x' up work up2 work2 m1 m2 scratch && echo one > l1/f && echo two > 'l:2,x/f' && echo deep > 'l:2,x/g'`]);
    const done = init([
      byFd ? op.overlayByFd({ lowers: [`${f}/l1`, `${f}/l:2,x`], upper: `${f}/up`, work: `${f}/work`, out: 'o' }) : op.overlayByMount({ base: f, scratch: `${f}/scratch`, lowers: ['l1', 'l:2,x'], upper: 'up', work: 'work', out: 'o' }),
      op.moveMount({ mount: 'o', target: `${f}/m1` }),
      op.overlayByMount({ base: f, scratch: `${f}/scratch`, lowers: ['l1', 'l:2,x'], upper: `up2`, work: `work2`, attributes: 2, out: 'p' }), op.moveMount({ mount: 'p', target: `${f}/m2` }),
    ], `cat ${f}/m1/f ${f}/m1/g ${f}/m2/f ${f}/m2/g; echo new > ${f}/m1/n; echo new > ${f}/m2/n; ls ${f}/up ${f}/up2 ${f}/scratch; grep m2 /proc/self/mountinfo | grep -c nosuid`);
    expect(done.failures).toEqual([]);
    expect(done.output).toBe(`one\ndeep\none\ndeep\n${f}/scratch:\n\n${f}/up:\nn\n\n${f}/up2:\nn\n1\n`);
    if (!byFd) return;
    const readOnly = init([op.overlayByFd({ lowers: [`${f}/l1`, `${f}/l:2,x`], out: 'o' }), op.moveMount({ mount: 'o', target: `${f}/m1` })], `(echo x > ${f}/m1/y) 2>&1`);
    expect(readOnly.output).toMatch(/Read-only/);
    expect(init([op.overlayByFd({ lowers: [`${f}/none`], out: 'o' })]).failures).toMatchObject([{ errno: E.ENOENT, detail: expect.stringContaining('/none') }]);
  }));

  it('a whole root: pivot, nothing of the host left, masks, read-only paths, sysctl, hostname', () => inFolder((f) => {
    execFileSync('sh', ['-c', `mkdir -p ${f}/root/bin ${f}/root/proc ${f}/root/secret ${f}/root/ro ${f}/at ${f}/empty && cp /bin/busybox ${f}/root/bin/ && for a in sh ls cat mount hostname mkdir echo stat; do ln -s busybox ${f}/root/bin/$a; done; echo s > ${f}/root/secret/file; echo p > ${f}/root/password; touch ${f}/root/ro/file`]);
    const done = init([
      op.openTree({ source: `${f}/root`, out: 'm' }), op.reopenRoot({ mount: 'm', at: `${f}/at`, out: 'root' }), open(`${f}/empty`, 'empty'),
      op.procHandle({ out: 'proc' }), op.mountFs({ type: 'proc', out: 'p' }), op.moveMount({ mount: 'p', root: 'root', target: '/proc', refuse: BITS.REFUSE.symlink }),
      op.sysctl({ proc: 'proc', key: 'net.ipv4.ip_forward', value: '1' }), op.sysctl({ proc: 'proc', key: 'kernel/shm_rmid_forced', value: '1' }),
      op.mask({ root: 'root', path: '/secret', empty: 'empty' }), op.mask({ root: 'root', path: '/password', empty: 'empty' }), op.mask({ root: 'root', path: '/proc/version', empty: 'empty' }), op.mask({ root: 'root', path: '/proc/acpi-none', empty: 'empty' }),
      op.readonly({ root: 'root', path: '/ro' }), op.readonly({ root: 'root', path: '/proc/sys' }), op.readonly({ root: 'root', path: '/none' }),
      op.setHostname({ name: 'inside' }), op.setDomainname({ name: 'example' }), op.pipes({}), op.pivotRoot({ root: 'root' }),
    ], 'ls / /secret; cat /password; echo x 2>&1 > /ro/file; echo 1 2>&1 > /proc/sys/kernel/shmmni; echo y > /new; hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced; cat /proc/mounts; cat /proc/1/comm',
    NEW.ns | NEW.pid | NEW.uts | NEW.net | NEW.ipc);
    expect(done.failures).toEqual([]);
    expect(done.output).toContain('/:\nbin\npassword\nproc\nro\nsecret\n\n/secret:\n');
    expect(done.output.match(/Read-only file system/g)).toHaveLength(2);
    expect(done.output).toContain('inside\nexample\n1\n1\n');
    const mounts = done.output.split('\n').filter((line) => /^\S+ \/\S* \w/.test(line)).map((line) => line.split(' ')[1]);
    expect(mounts.sort()).toEqual(['/', '/password', '/proc', '/proc/sys', '/proc/version', '/ro', '/secret']);
    expect(existsSync(`${f}/root/new`)).toBe(true);
  }));

  it('CVE-2025-52881: only the real procfs takes sysctls', () => inFolder((f) => {
    mkdirSync(`${f}/fake/sys/net/ipv4`, { recursive: true });
    writeFileSync(`${f}/fake/sys/net/ipv4/ip_forward`, '');
    expect(init([open(`${f}/fake`, 'proc'), op.sysctl({ proc: 'proc', key: 'net.ipv4.ip_forward', value: '1' })], undefined, NEW.ns | NEW.net).failures).toMatchObject([{ errno: E.EXDEV }]);
    for (const key of ['../self/oom_score_adj', 'net//ipv4', '/net/ipv4/ip_forward', '', 'a'.repeat(600)])
      expect(init([op.procHandle({ out: 'proc' }), op.sysctl({ proc: 'proc', key, value: '1' })], undefined, NEW.ns | NEW.net).failures).toMatchObject([{ errno: E.EINVAL }]);
  }));

  it('CVE-2025-31133: only the real null device masks a file', () => inFolder((f) => {
    execFileSync('sh', ['-c', `mkdir -p ${f}/dev ${f}/root ${f}/empty && touch ${f}/root/file && echo fake > ${f}/dev/null`]);
    const masked = (before: readonly Operation[]): Result => init([open(`${f}/root`), open(`${f}/empty`, 'empty'), ...before, op.mask({ root: 'root', path: '/file', empty: 'empty' })]);
    expect(masked([op.openTree({ source: `${f}/dev`, out: 'd' }), op.moveMount({ mount: 'd', target: '/dev' })]).failures).toMatchObject([{ errno: E.ENODEV }]);
    expect(masked([]).failures).toMatchObject([]);
  }));

  it('CVE-2025-52565: a terminal is made by fd, /dev/console no link', () => inFolder((f) => {
    execFileSync('sh', ['-c', `mkdir -p ${f}/root/dev/pts ${f}/outside && touch ${f}/outside/file`]);
    const terminal = (script: string): Result => init([
      open(`${f}/root`), op.mountFs({ type: 'devpts', options: ['newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'], out: 'pts' }), op.moveMount({ mount: 'pts', root: 'root', target: '/dev/pts' }),
      op.resolveUser({ root: 'root', user: '77', uid: 'u', gid: 'g', groups: 'gs' }), op.terminal({ devpts: 'pts', root: 'root', uid: 'u', console: 1 }),
      op.resolveExec({ name: 'sh', env, out: 'sh' }), op.exec({ program: 'sh', argv: ['sh', '-c', script], env }),
    ], undefined, NEW.ns | NEW.pid, {});
    const done = terminal(`stat -c '%u %g %a' ${f}/root/dev/pts/0; stat -c '%t:%T' ${f}/root/dev/console; ps -o tpgid= $$ >/dev/null 2>&1; test -t 0 -a -t 2 && echo tty; exec 9</dev/tty && echo controlling; exit 4`);
    expect(done).toMatchObject({ failures: [], exit: 4, terminal: '77 5 620\r\n88:0\r\ntty\r\ncontrolling\r\n' });
    rmSync(`${f}/root/dev/console`);
    symlinkSync(`${f}/outside/file`, `${f}/root/dev/console`);
    expect(terminal('true').failures).toMatchObject([{ errno: E.ELOOP }]);
    expect(init([open(`${f}/root`), op.terminal({ devpts: 'root' })], undefined, NEW.ns, {}).result === 0).toBe(true);
  }));

  it('a bind of a host node stands in where nodes cannot be made', () => inFolder((f) => {
    mkdirSync(`${f}/dev`);
    // a user namespace without a mapping of the folder's filesystem: mknod is EPERM, and so is the mount there; here the refusal itself
    expect(run([op.mknod({ path: `${f}/dev/x`, mode: 0o020666, major: 1, minor: 3, bind: '/dev/null' })]).result).toBe(0);
    expect(statSync(`${f}/dev/x`).rdev).toBe(0x103);
  }));

  it('unmount: what is not mounted is success, links are not followed', () => inFolder((f) => {
    mkdirSync(`${f}/a`);
    symlinkSync(`${f}/a`, `${f}/l`);
    const done = init([
      op.mountFs({ type: 'tmpfs', out: 't' }), op.moveMount({ mount: 't', target: `${f}/a` }), op.unmount({ path: `${f}/l` }), op.unmount({ path: `${f}/none` }), op.execHost({ argv: ['/bin/grep', `${f}/a`, '/proc/self/mountinfo'], deadline: 2000 }),
      open(f), op.unmount({ root: 'root', path: '/a', flags: 2 }), op.unmount({ root: 'root', path: '/a' }),
    ], `grep -c ${f} /proc/self/mountinfo`);
    expect(done).toMatchObject({ failures: [], output: '0\n' });
  }));
});

describe.skipIf(!canRun)('namespaces, cgroups and netlink', () => {
  const startTime = (pid: number): bigint => BigInt(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[19] ?? '0');

  it('opens a namespace only of the process meant', () => {
    const mine = { pid: process.pid, startTime: startTime(process.pid) };
    expect(run([op.openNamespace({ ...mine, type: 'net', out: 'n' }), op.joinNamespace({ fd: 'n', flags: 0x40000000 })]).failures).toEqual([]);
    expect(run([op.openNamespace({ ...mine, startTime: mine.startTime + 1n, type: 'net', out: 'n' })]).result).toBe(E.ESRCH);
    expect(run([op.openNamespace({ pid: 0x3ffffff, startTime: 1n, type: 'net', out: 'n' })]).result).toBe(E.ESRCH);
    expect(run([op.openNamespace({ ...mine, type: '../exe', out: 'n' })]).result).toBe(E.EINVAL);
    expect(run([op.openNamespace({ type: 'net', path: '/etc/passwd', out: 'n' })]).result).toBe(E.EINVAL);
    expect(run([op.openNamespace({ type: 'net', path: '/proc/self/ns/net', out: 'n' })]).result).toBe(0);
  });

  const message = (type: number, flags: number, body: Buffer): Buffer => {
    const b = Buffer.alloc(16 + body.length);
    b.writeUInt32LE(b.length, 0);
    b.writeUInt16LE(type, 4);
    b.writeUInt16LE(flags, 6);
    b.writeUInt32LE(7, 8);
    body.copy(b, 16);
    return b;
  };
  it('sends a netlink batch and gives the kernel\'s own words', () => {
    const up = Buffer.alloc(16);
    up.writeInt32LE(1, 4);
    up.writeUInt32LE(1, 8);
    up.writeUInt32LE(1, 12);
    const good = message(16, 5, up);
    const bad = message(16, 5 | 0x600, Buffer.concat([Buffer.alloc(16), Buffer.from([8, 0, 3, 0]), Buffer.from('dum\0')])); // RTM_NEWLINK without a kind
    const missing = Buffer.from(up);
    missing.writeInt32LE(99999, 4);
    const del = message(17, 5, missing);
    const batch = (...messages: Buffer[]): Result => run([op.unshare({ flags: NEW.net }), op.netlink({ protocol: 0, messages: Buffer.concat(messages) })]);
    expect(batch(good, good).failures).toEqual([]);
    expect(batch(good, bad, good).failures).toMatchObject([{ index: 1, detail: expect.stringContaining('netlink message 7') }]);
    expect(batch(del).result).toBe(E.ENODEV);
    expect(run([op.unshare({ flags: NEW.net }), op.netlink({ protocol: 0, messages: Buffer.concat([del, good]) }, { okMissing: true })]).failures).toEqual([]);
    expect(batch(good.subarray(0, 20)).result).toBe(E.EINVAL);
    const elsewhere = run([op.openNamespace({ type: 'net', path: '/proc/self/ns/net', out: 'host' }), op.unshare({ flags: NEW.net }), op.openNamespace({ type: 'net', path: '/proc/self/ns/net', out: 'own' }), op.joinNamespace({ fd: 'host', flags: 0x40000000 }), op.netlink({ protocol: 0, messages: good, namespace: 'own' })]);
    expect(elsewhere.failures).toEqual([]);
  });

  const freezer = '/sys/fs/cgroup/freezer';
  it.skipIf(!existsSync(`${freezer}/tasks`))('kills a v1 cgroup, frozen or not, with all below it, and removes it', () => {
    const path = mkdtempSync(join(freezer, 'engine-interpret-'));
    mkdirSync(`${path}/below`);
    const child = (folder: string): number => Number(execFileSync('sh', ['-c', `sleep 60 >/dev/null 2>&1 & echo $! > ${folder}/cgroup.procs; echo $!`], { encoding: 'utf8' }));
    const pids = [child(path), child(`${path}/below`)];
    try {
      writeFileSync(`${path}/freezer.state`, 'FROZEN');
      expect(run([op.cgroupRemove({ path, deadline: 30 })]).result).toBe(E.EBUSY);
      expect(run([op.cgroupKill({ path, deadline: 5000 }), op.cgroupRemove({ path, deadline: 5000 }), op.cgroupKill({ path, deadline: 10 }), op.cgroupRemove({ path, deadline: 10 })]).failures).toEqual([]);
      expect(existsSync(path)).toBe(false);
    } finally {
      for (const pid of pids) try { process.kill(pid, 'SIGKILL'); } catch { /* dead, as it should be */ }
      // only after a failure: what is frozen does not die
      if (existsSync(path)) execFileSync('sh', ['-c', `echo THAWED > ${path}/freezer.state; sleep 0.3`]);
      for (const folder of [`${path}/below`, path]) if (existsSync(folder)) rmdirSync(folder);
    }
  });

  const hierarchy = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup', freezer].find((folder) => existsSync(`${folder}/cgroup.procs`));
  it.skipIf(!hierarchy)('kills and removes groups nested deeper than there are fds, or room in a path', () => {
    const path = mkdtempSync(join(hierarchy as string, 'engine-interpret-'));
    const python = (script: string): void => void execFileSync('python3', ['-c', `import os, signal, sys\nos.chdir('${path}')\n${script}`], { stdio: ['ignore', 'ignore', 'inherit'] });
    try {
      python(`
for i in range(1100): os.mkdir('.%03d' % (i % 1000)); os.mkdir('other'); os.chdir('.%03d' % (i % 1000))
pid = os.fork()
if not pid:
  signal.pause(); sys.exit()
open('cgroup.procs', 'w').write(str(pid))`);
      expect(run([op.cgroupRemove({ path, deadline: 30 })]).result).toBe(E.EBUSY);
      expect(run([op.cgroupKill({ path, deadline: 20_000 }), op.cgroupRemove({ path, deadline: 20_000 })]).failures).toEqual([]);
      expect(existsSync(path)).toBe(false);
    } finally {
      // only after a failure
      if (existsSync(path)) {
        python(`
import time
down = []
while any(n.startswith('.') for n in os.listdir()):
  down.append([n for n in os.listdir() if n.startswith('.')][0]); os.chdir(down[-1])
for pid in open('cgroup.procs').read().split(): os.kill(int(pid), 9)
time.sleep(1)
for name in reversed(down):
  os.chdir('..')
  if os.path.isdir('other'): os.rmdir('other')
  os.rmdir(name)`);
        rmdirSync(path);
      }
    }
  });

  it.skipIf(!existsSync('/sys/fs/cgroup/memory/tasks'))('reads the OOM counters of v1', () => {
    const path = mkdtempSync('/sys/fs/cgroup/memory/engine-interpret-');
    try {
      writeFileSync(`${path}/memory.limit_in_bytes`, '8388608');
      expect(run([op.memoryEvents({ path, version: 1 })]).output).toBe('oom_kill 0 limit 8388608\n');
      expect(run([op.memoryEvents({ path: `${path}/none`, version: 1 })]).result).toBe(E.ENOENT);
    } finally {
      rmdirSync(path);
    }
  });

  it('undo runs every operation and tells every failure', () => inFolder((f) => {
    mkdirSync(`${f}/a`);
    const result = runBytes('after', encode([op.rmdir({ path: `${f}/none` }), op.rmdir({ path: `${f}/a` }), op.unlink({ path: `${f}/gone` }), op.close({ fd: 'unset' }), op.unlink({ path: `${f}/x` }, { okMissing: true })].map((o) => ['after.undo', o] as const)));
    expect(result.failures).toMatchObject([{ part: 'after', index: 0, errno: E.ENOENT }, { index: 2, errno: E.ENOENT }]);
    expect(readdirSync(f)).toEqual([]);
  }));

  it('the test build halts at an operation and traces them', () => inFolder((f) => {
    const trace = { ENGINE_TRACE_FILE: `${f}/trace` };
    run([op.mkdir({ path: `${f}/a`, mode: 0o700 }), op.mkdir({ path: `${f}/b`, mode: 0o700 })], { env: trace });
    expect(readFileSync(`${f}/trace`, 'utf8')).toBe('helper 0 mkdir\nhelper 1 mkdir\n');
    expect(() => run([op.mkdir({ path: `${f}/c`, mode: 0o700 }), op.mkdir({ path: `${f}/d`, mode: 0o700 })], { env: { ENGINE_HALT: 'helper:1:before', ENGINE_HALT_FILE: `${f}/halt` }, timeout: 300 })).toThrow();
    expect(readFileSync(`${f}/halt`, 'utf8')).toMatch(/^helper:1:before mkdir \d+\n$/);
    expect([existsSync(`${f}/c`), existsSync(`${f}/d`)]).toEqual([true, false]);
  }));
});
