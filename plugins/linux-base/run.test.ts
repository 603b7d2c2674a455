/** The compiled sections at work: real containers through the real shim. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPlanCollector } from '@engine/core/hooks';
import { BITS, FRAME, op, step, type Step } from '@engine/core/plan';
import { REGISTER, type Machine } from '@engine/core/contracts/common';
import { type Spec } from '@engine/core/spec';
import { createNative } from '@engine/native';
import { decodeFailure } from '@engine/native/frames';
import { Bench, bytesOf, unable, type Talk } from '@engine/native/testing';
import { afterEach, describe, expect, it } from 'vitest';
import { createLinuxBase } from './driver.ts';

const native = createNative();
const capabilities = readFileSync('/proc/self/status', 'utf8').includes('CapEff:\t000001fffeffffff') ? [] : ['CAP_SYS_RESOURCE'];
const base = createLinuxBase({ machine: { capabilities, read: (path: string) => readFileSync(path, 'utf8') } as unknown as Machine });
const { attachStdout, attachStderr, stdin, attachStdin, terminal } = BITS.STDIO;

const mounts: NonNullable<Spec['mounts']> = [
  { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
  { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
  { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'] },
  { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
  { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
  { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=1m'] },
];
type Changes = Omit<Partial<Spec>, 'process' | 'linux'> & { process?: Partial<NonNullable<Spec['process']>>; linux?: Partial<NonNullable<Spec['linux']>> };
function specOf(script: string, changes: Changes = {}): Spec {
  return {
    ociVersion: '1.2.0', hostname: 'box', mounts, ...changes,
    process: { cwd: '/', env: ['PATH=/bin'], args: ['sh', '-c', script], user: { username: '0' }, ...changes.process },
    linux: { namespaces: (['mount', 'pid', 'ipc', 'uts', 'network'] as const).map((type) => ({ type })), maskedPaths: ['/proc/kcore', '/proc/acpi', '/sys/firmware', '/no/such'], readonlyPaths: ['/proc/sys', '/proc/bus'], ...changes.linux },
  };
}

describe.skipIf(unable !== undefined)(`linux-base through the shim${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: Bench[] = [];
  afterEach(async () => {
    for (const bench of benches.splice(0)) await bench.close();
  });
  function bench(): Bench {
    const made = new Bench(native);
    benches.push(made);
    for (const applet of ['ls', 'stat', 'mount', 'hostname', 'readlink', 'touch', 'mkdir', 'grep', 'ulimit', 'umask', 'pwd', 'wc', 'date', 'awk', 'find', 'test', 'rm']) symlinkSync('busybox', join(made.root, 'bin', applet));
    mkdirSync(join(made.root, 'etc'));
    writeFileSync(join(made.root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nbob:x:1000:100::/home/bob:/bin/sh\n');
    writeFileSync(join(made.root, 'etc/group'), 'root:x:0:\nusers:x:100:\nwheel:x:10:bob,root\n');
    return made;
  }
  function steps(b: Bench, spec: Spec, stdio = attachStdout | attachStderr): Step[] {
    const plan = createPlanCollector();
    const run = { container: 'c0ffee', runFolder: b.run };
    const writer = plan.writer('linux-base', 'test');
    base.planRootfs(writer, spec);
    base.planNamespaces(writer, spec, run);
    base.planProcess(writer, spec, run);
    return [
      step('shim.stdio', op.stdio({ flags: stdio, rows: 24, cols: 80 })),
      step('init.rootfs', op.openTree({ source: b.root, out: 'tree' })),
      step('init.rootfs', op.reopenRoot({ mount: 'tree', at: join(b.run, 'rootfs'), out: REGISTER.rootfs })),
      ...plan.steps(),
    ];
  }
  const start = (b: Bench, spec: Spec, stdio?: number): Talk => b.startPlan(bytesOf(steps(b, spec, stdio)));
  /** What the script prints; its exit code must be 0. */
  async function run(b: Bench, spec: Spec): Promise<string> {
    const talk = start(b, spec);
    const end = await talk.until(({ type }) => type === FRAME.exit || type === FRAME.failed, 'the end');
    if (end.type === FRAME.failed) throw new Error(JSON.stringify(decodeFailure(end.payload)));
    await talk.frame('gone');
    expect(end.argument, talk.output(2)).toBe(0);
    expect(JSON.parse(b.file('undone'))).toEqual({ failures: [] });
    return talk.output();
  }
  async function failureOf(b: Bench, spec: Spec): Promise<ReturnType<typeof decodeFailure>> {
    const talk = start(b, spec);
    const failed = await talk.frame('failed');
    await talk.frame('gone');
    return decodeFailure(failed.payload);
  }

  it('gives a container its own proc, dev, hostname and nothing of the host', async () => {
    const out = await run(bench(), specOf('echo $$ $(hostname); ls /dev | busybox tr "\\n" " "; for d in null zero tty; do stat -c "%F %t:%T %a" /dev/$d; done; readlink /dev/fd; readlink /dev/ptmx; stat -c %a /dev/shm; ls -A /; echo $HOME; awk \'{print $5}\' /proc/self/mountinfo'));
    expect(out).toContain('1 box\n');
    for (const node of ['null 1:3', 'full', 'urandom', 'stdin', 'core', 'ptmx']) expect(out.replaceAll('\n', ' ')).toContain(node.split(' ')[0]);
    expect(out).toContain('character special file 1:3 666');
    expect(out).toContain('/proc/self/fd\npts/ptmx\n1777\n');
    const listed = out.trim().split('\n').filter((line) => line.startsWith('/'));
    expect(listed.filter((line) => line.includes('engine') || line.startsWith('/var'))).toEqual([]);
  });

  it('masks and protects, exactly', async () => {
    const out = await run(bench(), specOf(`
      ls -A /sys/firmware | wc -l; touch /sys/firmware/x 2>&1; echo x > /proc/sys/kernel/hostname; echo $?; touch /sys/x; echo $?
      grep -c " /proc/acpi " /proc/self/mountinfo; grep " /proc/sys " /proc/self/mountinfo | busybox awk '{print $6}' | busybox cut -d, -f1; exit 0`));
    const lines = out.trim().split('\n');
    expect(lines[0]).toBe('0');
    expect(lines[1]).toMatch(/Read-only file system/);
    expect(lines.at(-1)).toBe('ro');
  });

  it('makes the root read-only after its mount points are made, and the working directory', async () => {
    const b = bench();
    const out = await run(b, specOf('pwd; touch /x 2>&1; touch /dev/shm/y && echo shm; touch /made/here/z && echo bound; ls /made', {
      root: { path: 'rootfs', readonly: true }, process: { cwd: '/new/work/dir' },
      mounts: [...mounts, { destination: '/made/here', type: 'bind', source: b.log, options: ['rbind', 'rprivate'] }],
    }));
    expect(out).toMatch(/^\/new\/work\/dir\n.*Read-only file system\nshm\nbound\nhere\n$/);
  });

  it('binds folders and files, read-only recursively, with flags', async () => {
    const b = bench();
    writeFileSync(join(b.log, 'file'), 'content\n');
    const out = await run(b, specOf('cat /f; touch /d/x 2>&1; echo hi > /w/y && cat /w/y; grep -E " (/d|/f|/w) " /proc/self/mountinfo | busybox awk \'{print $5, $6}\'', {
      mounts: [...mounts, { destination: '/f', type: 'bind', source: join(b.log, 'file'), options: ['bind', 'ro', 'noexec'] }, { destination: '/d', type: 'bind', source: b.log, options: ['rbind', 'ro', 'rro', 'nosuid'] }, { destination: '/w', type: 'bind', source: b.log, options: ['rbind'] }],
    }));
    expect(out).toMatch(/^content\n.*Read-only file system\nhi\n/);
    expect(out).toMatch(/\/f ro,noexec/);
    expect(out).toMatch(/\/d ro,nosuid/);
    expect(out).toMatch(/\/w rw/);
  });

  it('makes /dev in a rootfs that has none, and takes a folder that is there', async () => {
    const [b, other] = [bench(), bench()];
    for (const { root } of [b, other]) rmSync(join(root, 'dev'), { recursive: true });
    mkdirSync(join(other.root, 'dev'), { mode: 0o755 });
    const spec = specOf('test -c /dev/null && test -L /dev/fd && stat -c %a /dev && echo > /dev/null', { mounts: mounts.filter(({ destination }) => !destination.startsWith('/dev')) });
    expect(await run(b, spec)).toBe('755\n');
    expect(await run(other, spec)).toBe('755\n');
  });

  it('copies up into a tmpfs that asks for it, and makes it read-only last', async () => {
    const b = bench();
    mkdirSync(join(b.root, 'data'));
    writeFileSync(join(b.root, 'data/seed'), 'seed\n');
    const out = await run(b, specOf('cat /data/seed; touch /data/x 2>&1; touch /plain/y && echo plain', { mounts: [...mounts, { destination: '/data', type: 'tmpfs', source: 'tmpfs', options: ['tmpcopyup', 'ro'] }, { destination: '/plain', type: 'tmpfs', options: ['size=64k'] }] }));
    expect(out).toMatch(/^seed\n.*Read-only file system\nplain\n$/);
  });

  it('is the user that is named, with groups, home, limits, umask, personality and niceness', async () => {
    const out = await run(bench(), specOf('id; echo $HOME; ulimit -n; ulimit -Hn; umask; grep -E "^(CapInh|CapPrm|CapEff|CapAmb)" /proc/self/status; cat /proc/self/oom_score_adj; busybox uname -m; busybox cut -d" " -f19 /proc/self/stat', {
      process: { user: { username: 'bob', umask: 0o27 }, rlimits: [{ type: 'RLIMIT_NOFILE', soft: 100, hard: 200 }], oomScoreAdj: 500, scheduler: { policy: 'SCHED_BATCH', nice: 5 }, ioPriority: { class: 'IOPRIO_CLASS_IDLE', priority: 0 } },
      linux: { personality: { domain: 'LINUX32' } }, annotations: { 'engine.internal/group-add': '["10","4242"]' },
    }));
    expect(out).toMatch(/^uid=1000\(bob\) gid=100\(users\) groups=.*10\(wheel\).*,4242/);
    expect(out).toContain('\n/home/bob\n100\n200\n0027\n');
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) expect(out).toContain(`${set}:\t0000000000000000`);
    expect(out).toMatch(/\n500\ni[36]86\n5\n$/);
  });

  it('runs a reaper for --init', async () => {
    const out = await run(bench(), specOf('echo $$; cat /proc/1/comm', { annotations: { 'engine.internal/init': '1' } }));
    expect(out).toBe('2\ninit\n');
  });

  it('gives a terminal of its own devpts', async () => {
    const b = bench();
    const talk = start(b, specOf('tty; stty size; test -c /dev/console && echo console; stat -c %u /dev/pts/0', { process: { terminal: true, user: { username: '1000' } } }), terminal | stdin | attachStdin | attachStdout);
    await talk.frame('exit');
    await talk.frame('gone');
    expect(talk.output().replaceAll('\r', '')).toBe('/dev/pts/0\n24 80\nconsole\n1000\n');
  });

  it('sets sysctls of its namespaces, domain name and time offsets', async () => {
    const spec = specOf('cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax /proc/sys/kernel/domainname; cat /proc/uptime', {
      domainname: 'example.org', linux: { sysctl: { 'net.ipv4.ip_unprivileged_port_start': '0', 'kernel.msgmax': '1234' }, timeOffsets: { boottime: { secs: 1_000_000 } }, namespaces: (['mount', 'pid', 'ipc', 'uts', 'network', 'time'] as const).map((type) => ({ type })) },
    });
    const lines = (await run(bench(), spec)).split('\n');
    expect(lines.slice(0, 3)).toEqual(['0', '1234', 'example.org']);
    const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
    expect(Math.abs(Number(lines[3]?.split(' ')[0]) - uptime - 1_000_000)).toBeLessThan(60);
  });

  it('joins namespaces by path', async () => {
    const b = bench();
    const talk = start(b, specOf('sleep 100'));
    const pid = (await talk.frame('started')).argument;
    const other = bench();
    const out = await run(other, specOf('hostname; readlink /proc/self/ns/net', { hostname: '', linux: { namespaces: [{ type: 'mount' }, { type: 'pid' }, { type: 'uts', path: `/proc/${pid}/ns/uts` }, { type: 'network', path: `/proc/${pid}/ns/net` }, { type: 'ipc' }] } }));
    const [hostname, net] = out.trim().split('\n');
    expect(hostname).toBe('box');
    expect(net).toMatch(/^net:\[\d+\]$/);
    await talk.send('signal', { argument: 9 });
    await talk.frame('gone');
  });

  for (const [advisory, path] of [['CVE-2019-19921', 'proc'], ['CVE-2023-27561', 'sys'], ['CVE-2026-41579', 'dev']] as const) {
    it(`${advisory}: /${path} as a link of the image is refused`, async () => {
      const b = bench();
      rmSync(join(b.root, path), { recursive: true, force: true });
      symlinkSync('tmp', join(b.root, path));
      expect(await failureOf(b, specOf('true'))).toMatchObject({ errno: 40, detail: expect.stringContaining(`/${path}`) as string });
    });
  }

  it('CVE-2021-30465: a mount target that leads out by links stays inside', async () => {
    const b = bench();
    const outside = mkdtempSync(join(tmpdir(), 'engine-outside-'));
    try {
      symlinkSync(`../../../../../../..${outside}`, join(b.root, 'out'));
      await run(b, specOf('touch /out/x/y; exit 0', { mounts: [...mounts, { destination: '/out/x', type: 'tmpfs', options: [] }] }));
      expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(outside);
      expect(() => readFileSync(join(outside, 'x/y'))).toThrow();
    } finally {
      rmSync(outside, { recursive: true });
    }
  });

  it('says what is missing with the number the command line wants', async () => {
    expect(await failureOf(bench(), specOf('', { process: { args: ['nothing-here'] } }))).toMatchObject({ errno: 2 });
    expect(await failureOf(bench(), specOf('true', { process: { user: { username: 'nobody-here' } } }))).toMatchObject({ errno: 2, detail: expect.stringContaining('nobody-here') as string });
  });

  it('runs sessions with the container\'s root, user and terminal', async () => {
    const b = bench();
    const talk = start(b, specOf('sleep 100'));
    await talk.frame('started');
    const session = async (number: number, spec: Spec, stdio: number): Promise<string> => {
      const plan = createPlanCollector();
      base.planExec(plan.writer('linux-base', 'exec'), spec, { container: 'c0ffee', runFolder: b.run });
      await talk.send('exec', { session: number, argument: stdio, payload: bytesOf([step('exec.join', op.joinContainer({})), ...plan.steps()]) });
      const end = await talk.until((f) => f.session === number && (f.type === FRAME.exit || f.type === FRAME.failed), 'the end of the session');
      if (end.type === FRAME.failed) throw new Error(JSON.stringify(decodeFailure(end.payload)));
      return talk.output(1, number).replaceAll('\r', '');
    };
    expect(await session(1, specOf('id -u; hostname; pwd; echo $HOME', { process: { user: { username: 'bob' } } }), attachStdout)).toBe('1000\nbox\n/\n/home/bob\n');
    expect(await session(2, specOf('tty', { process: { terminal: true, oomScoreAdj: 10 } }), terminal | attachStdout)).toBe('/dev/pts/0\n');
    await talk.send('signal', { argument: 9 });
    await talk.frame('gone');
  });
});
