import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { unified } from '../helpers/cgroup.ts';
import { TestEngine } from '../helpers/engine.ts';
import { patience } from '../helpers/wait.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine({ resident: 'auto' });
  await importBusybox(engine);
  await importBusybox(engine, 'full', ['ENV A=image B=image', 'WORKDIR /work/dir', 'USER app', 'ENTRYPOINT ["/bin/echo","entry"]', 'CMD ["cmd"]', 'LABEL l=1']);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

const run = (...args: string[]): Promise<string> => engine.ok('run', '--rm', ...args);
const sh = (script: string, ...flags: string[]): Promise<string> => run(...flags, 'busybox', 'sh', '-c', script);

describe('exit codes', () => {
  it.each([[0, 'true'], [3, 'exit 3'], [137, 'kill -9 $$'], [143, 'kill -TERM $$; sleep 9']])('%i for %s', async (code, script) => {
    // the shell as a child: pid 1 ignores signals it has no handler for
    expect((await engine.run(['run', '--rm', '--init', 'busybox', 'sh', '-c', script])).code).toBe(code);
  });
  it('127 for a command that is not there, 126 for one that cannot run, with one line and nothing left', async () => {
    for (const [args, code] of [[['busybox', 'no-such'], 127], [['busybox', '/no/such'], 127], [['busybox', '/etc/passwd'], 126], [['busybox', '/etc'], 126]] as const) {
      const result = await engine.run(['run', '--rm', ...args]);
      expect(result, args.join(' ')).toMatchObject({ code, stdout: '' });
      expect(result.stderr.trimEnd().split('\n'), result.stderr).toHaveLength(1);
    }
    expect(await engine.ok('ps', '-aq')).toBe('');
  });
});

describe('streams', () => {
  it('keeps stdout and stderr apart', async () => {
    expect(await engine.run(['run', '--rm', 'busybox', 'sh', '-c', 'echo out; echo err >&2'])).toMatchObject({ stdout: 'out\n', stderr: 'err\n', code: 0 });
  });
  it('passes stdin on with -i and ends it', async () => {
    expect((await engine.run(['run', '--rm', '-i', 'busybox', 'sh', '-c', 'cat; echo after'], { input: 'some\0bytes\n' })).stdout).toBe('some\0bytes\nafter\n');
    expect((await engine.run(['run', '--rm', 'busybox', 'cat'], { input: 'ignored' })).stdout).toBe('');
  });
  // as much as no buffer holds; a guest of test/vm takes a minute for 50 MB
  const megabytes = patience > 1 ? 4 : 50;
  it(`carries ${megabytes} MB both ways unharmed`, async () => {
    const input = Buffer.alloc(megabytes << 20, 'abcdefghij');
    const { stdout, code } = await engine.run(['run', '--rm', '-i', '--log-driver', 'none', 'busybox', 'md5sum'], { input });
    expect({ stdout, code }).toEqual({ stdout: `${createHash('md5').update(input).digest('hex')}  -\n`, code: 0 });
    expect((await engine.run(['run', '--rm', '--log-driver', 'none', 'busybox', 'sh', '-c', `head -c ${megabytes << 20} /dev/zero`])).stdout.length).toBe(megabytes << 20);
  });
  it('gives a terminal with -t, whose size and control keys work', async () => {
    const terminal = engine.terminal(['run', '--rm', '-it', 'busybox', 'sh']);
    terminal.child.stdin.write('stty size; tty; echo $TERM\n');
    await terminal.output(/24 80\r\n\/dev\/pts\/0\r\nxterm\r\n/);
    // said by who is in the foreground by then: else the shell itself would take the key
    terminal.child.stdin.write("sh -c 'echo u$((1))p; exec sleep 1000'\n");
    await terminal.output(/u1p\r\n/);
    terminal.child.stdin.write('\x03'); // the kernel throws away what was typed and not read yet
    await terminal.output(/\^C\r\n.*# /);
    terminal.child.stdin.write('echo co$((40+2))de $?; exit 7\n');
    await terminal.output(/co42de 130/);
    expect((await terminal.result).code).toBe(7);
  });
  it('lets go with the detach keys and takes hold again', async () => {
    const terminal = engine.terminal(['run', '-it', '--name', 'detachable', 'busybox', 'sh']);
    terminal.child.stdin.write('echo rea$((1))dy\n');
    await terminal.output(/rea1dy/);
    terminal.child.stdin.write('\x10\x11');
    expect((await terminal.result).code).toBe(0);
    expect(await engine.ok('inspect', '-f', '{{.State.Status}}', 'detachable')).toBe('running');
    const again = engine.terminal(['attach', 'detachable']);
    again.child.stdin.write('echo ag$((1))ain; exit 4\n');
    await again.output(/ag1ain/);
    expect((await again.result).code).toBe(4);
    await engine.ok('rm', 'detachable');
  });
});

describe('identity', () => {
  it('has namespaces, a host name and a root of its own', async () => {
    const [hostname, pid, mounts] = (await sh('hostname; echo $$; wc -l < /proc/1/mountinfo')).split('\n');
    expect(hostname).toMatch(/^[0-9a-f]{12}$/);
    expect(pid).toBe('1');
    expect(Number(mounts)).toBeLessThan(60);
    expect(await sh('hostname; cat /etc/hostname; grep -c my-name /etc/hosts || true', '-h', 'my-name')).toMatch(/^my-name\nmy-name\n\d$/);
  });
  it('resolves users as Docker does', async () => {
    expect(await sh('id', '-u', 'app')).toBe('uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)');
    expect(await sh('id -u; id -g; echo $HOME', '-u', '4321:8765')).toBe('4321\n8765\n/');
    expect(await sh('id -g; echo $HOME', '-u', 'app:daemon')).toBe('1\n/home/app');
    for (const user of ['nobody-here', 'app:nothing', '4294967296', '-1', ':', '0:0:0']) expect((await engine.run(['run', '--rm', '-u', user, 'busybox', 'true'])).code, user).toBe(125);
  });
  it('starts with the right capabilities, limits and privileges', async () => {
    const status = await sh('grep -E "^(Cap|NoNewPrivs|Seccomp:)" /proc/self/status');
    expect(status).toMatch(/CapInh:\s+0+\n/);
    expect(status).toMatch(/CapEff:\s+00000000a80425fb/);
    expect(status).toMatch(/CapAmb:\s+0+\n/);
    expect(status).toMatch(/NoNewPrivs:\s+0/);
    expect(status).toMatch(/Seccomp:\s+2/);
    expect(await sh('grep CapEff /proc/self/status', '-u', 'app')).toMatch(/0000000000000000$/);
    expect(await sh('grep NoNewPrivs /proc/self/status', '--security-opt', 'no-new-privileges')).toMatch(/1$/);
    expect(await sh('grep CapBnd /proc/self/status', '--cap-drop', 'ALL', '--cap-add', 'NET_ADMIN')).toMatch(/0000000000001000$/);
    expect(await sh('ulimit -n', '--ulimit', 'nofile=100:200')).toBe('100');
  });
  it('inherits no fd and no environment of the caller', async () => {
    expect((await sh('ls /proc/self/fd | tr "\\n" " "')).trim()).toMatch(/^0 1 2 3$/); // 3 is ls's own
    const { stdout } = await engine.run(['run', '--rm', 'busybox', 'env'], { env: { SECRET: 'x' } });
    expect(stdout.split('\n').map((line) => line.split('=')[0]).filter(Boolean).sort()).toEqual(['HOME', 'HOSTNAME', 'PATH']);
  });
});

describe('configuration of the image', () => {
  it('is merged with the flags', async () => {
    expect(await run('full')).toBe('entry cmd');
    expect(await run('full', 'x', 'y')).toBe('entry x y');
    expect(await run('--entrypoint', 'pwd', 'full')).toBe('/work/dir');
    expect(await run('--entrypoint', 'sh', '-e', 'B=flag', 'full', '-c', 'echo $A $B $(id -un)')).toBe('image flag app');
    expect((await engine.run(['run', '--rm', '--entrypoint', '', 'full'])).code).toBe(125);
    expect(await run('-w', '/new/folder', 'busybox', 'pwd')).toBe('/new/folder');
  });
});

describe('filesystem', () => {
  it('is writable, and read-only with --read-only', async () => {
    expect(await sh('echo x > /file; cat /file')).toBe('x');
    expect(await sh('touch /file 2>&1; touch /dev/shm/x /tmp/y 2>&1; echo x > /t/x; ls /t', '--read-only', '--tmpfs', '/t')).toMatch(/Read-only[^]*Read-only[^]*x$/);
  });
  it('hides what Docker hides', async () => {
    expect(await sh('cat /proc/kcore 2>/dev/null | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | tr -d "\\n"; echo x 2>/dev/null > /proc/sysrq-trigger || echo refused')).toMatch(/^0\n.*refused$/s);
    expect((await sh('{ echo 1 > /proc/sys/kernel/hostname; } 2>&1 || true; mount -t tmpfs x /tmp 2>&1 || true')).toLowerCase()).toMatch(/read-only[^]*(denied|permitted)/);
  });
  it('has the devices, links and mounts people expect', async () => {
    expect(await sh('ls -l /dev/fd /dev/stdin /dev/ptmx | sed "s/.*-> //" | tr "\\n" " "; for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; df -k /dev/shm | tail -1 | tr -s " " | cut -d " " -f 2', '--shm-size', '8m')).toBe('/proc/self/fd pts/ptmx /proc/self/fd/0 8192');
  });
});

describe('limits', () => {
  it('hold before the first instruction of the user', async () => {
    const files = unified ? ['memory.max', 'pids.max', 'cpu.max'] : ['memory/memory.limit_in_bytes', 'pids/pids.max', 'cpu/cpu.cfs_quota_us'];
    expect(await sh(`cd /sys/fs/cgroup; cat ${files.join(' ')} | sed 's/ 100000$//'`, '-m', '64m', '--pids-limit', '20', '--cpus', '0.5')).toBe('67108864\n20\n50000');
  });
  it('says that memory ran out', async () => {
    const result = await engine.run(['run', '--name', 'hog', '-m', '16m', 'busybox', 'sh', '-c', 'exec tail /dev/zero']);
    expect(result.code).toBe(137);
    expect(result.stderr).toMatch(/memory/);
    expect(await engine.ok('inspect', '-f', '{{.State.OOMKilled}} {{.State.ExitCode}}', 'hog')).toBe('true 137');
    await engine.ok('rm', 'hog');
  });
});

describe('bad input', () => {
  it.each([
    [['no-such-image'], /no such image/], [['--name', '-x', 'busybox'], /name/], [['-m', '1k', 'busybox'], /memory/], [['--cap-add', 'NOPE', 'busybox'], /NOPE/], [['--network', 'nope', 'busybox'], /nope/],
    [['--security-opt', 'nope=1', 'busybox'], /nope/], [['--mount', 'type=bind,src=/no/such,dst=/x', 'busybox'], /\/no\/such/], [['--stop-signal', 'NOPE', 'busybox'], /NOPE/], [['--device', '/dev/no-such', 'busybox'], /no-such/],
    [['--sysctl', 'kernel.core_pattern=x', 'busybox'], /core_pattern/], [['--log-opt', 'nope=1', 'busybox'], /nope/], [['--log-driver', 'nope', 'busybox'], /nope/], [['--cpuset-cpus', '99', 'busybox'], /99|cpuset/], [['-h', 'bad name', 'busybox'], /host ?name/],
  ])('%j: one line, 125, nothing left', async (args, message) => {
    const { code, stderr, stdout } = await engine.run(['run', '--rm', ...args, 'true']);
    expect({ code, stdout }, stderr).toEqual({ code: 125, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n'), stderr).toHaveLength(1);
    expect(await engine.ok('ps', '-aq')).toBe('');
    expect(await engine.ok('volume', 'ls', '-q')).toBe('');
  });
});

describe('the built-in image host', () => {
  it('is a throw-away copy of this system, and diff shows what changed', async () => {
    expect(await run('host', 'sh', '-c', 'test -d /etc && test -r /etc/passwd && echo $$ && ls /run | wc -l')).toMatch(/^1\n\d+$/);
    await engine.ok('run', '--name', 'changer', 'host', 'sh', '-c', 'echo x > /etc/engine-test-file; rm /etc/hostname 2>/dev/null; true');
    expect(await engine.ok('diff', 'changer')).toContain('A /etc/engine-test-file');
    await engine.ok('rm', 'changer');
  });
  it('hides the engine\'s own roots', async () => {
    expect(await run('host', 'sh', '-c', `ls -A ${engine.root} ${engine.runRoot} 2>/dev/null | grep -v : | tr -d '\\n'`)).toBe('');
  });
});
