import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Installation, until } from './launcher-testing.ts';
import { createSyscalls } from './syscalls.ts';

const isRoot = process.getuid?.() === 0;
const syscalls = createSyscalls();
let home: Installation;
/** What the engined of these tests has written: one line of pid each. */
const pids = (): number[] => (existsSync(join(home.folder, 'pids')) ? readFileSync(join(home.folder, 'pids'), 'utf8').split('\n').filter(Boolean).map(Number) : []);
const fact = (name: string): string => readFileSync(join(home.folder, 'facts', name), 'utf8');

beforeEach(() => {
  home = new Installation();
  mkdirSync(join(home.folder, 'facts'));
  // says everything that it was born with, then holds what it has
  writeFileSync(
    join(home.home, `node_modules/node-linux-${process.arch}/bin/node`),
    `#!/bin/sh
here=$(readlink /proc/$$/cwd)
cd ${home.folder}/facts
echo "$here" >cwd
tr '\\0' '\\n' </proc/$$/environ | sort >env
echo "$*" >words
list=
for n in 0 1 2 3 4 5 6 7 8 9; do list="$list$n $(readlink /proc/$$/fd/$n || :)
"; done
echo "$list" >fds
# by the shell itself: while it starts a program, its signals are blocked
while IFS= read -r line; do
  case $line in Umask:* | SigBlk:* | SigIgn:* | CapInh:* | CapAmb:* | Cpus_allowed_list:* | Groups:* | NSsid:*) echo "$line" ;; esac
done </proc/$$/status >status
cat /proc/$$/stat >stat; cat /proc/$$/limits >limits; cat /proc/$$/cgroup >cgroup; cat /proc/$$/oom_score_adj >oom; cat /proc/$$/timerslack_ns >slack 2>&1
echo trouble >&2
echo $$ >>${home.folder}/pids
exec sleep 1000
`,
  );
});
afterEach(async () => {
  for (const pid of pids()) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // gone
    }
  }
  await home.close();
});

/** As somebody who has much of his own about him. */
function start(more: NodeJS.ProcessEnv = {}, before = ''): { status: number | null; stdout: string; stderr: string } {
  return spawnSync('sh', ['-c', `${before} exec "$E" engined --start`], { cwd: home.folder, encoding: 'utf8', env: home.env({ E: home.program, SECRET: '1', ENGINE_LOG_LEVEL: 'debug', ...more }), timeout: 20_000 });
}
const running = (count: number): Promise<number[]> => until('engined', () => (pids().length === count ? pids() : undefined));

describe('engined --start', () => {
  it('says nothing, listens when it ends, and starts one only', async () => {
    rmSync(home.runRoot, { recursive: true });
    home.runRoot = join(home.folder, 'a/b/run');
    const results = await Promise.all([1, 2, 3, 4].map(() => home.run(['engined', '--start']).ended));
    expect(results).toEqual(Array.from({ length: 4 }, () => ({ code: 0, signal: null })));
    expect(statSync(home.runRoot).mode & 0o777).toBe(0o700);
    expect(statSync(home.socket).mode & 0o777).toBe(0o600);
    expect(start()).toMatchObject({ status: 0, stdout: '', stderr: '' });
    await running(1);
    expect(readdirSync(home.runRoot).sort()).toEqual(['engined.lock', 'engined.log', 'engined.sock']);
    expect(readFileSync(join(home.runRoot, 'engined.log'), 'utf8')).toBe('trouble\n');
    expect(statSync(join(home.runRoot, 'engined.log')).mode & 0o777).toBe(0o600);
  });
  it('starts another when the one there has died, and keeps the log short', async () => {
    start();
    const [first = 0] = await running(1);
    process.kill(first, 'SIGKILL');
    await until('its end', () => !existsSync(`/proc/${first}`));
    truncateSync(join(home.runRoot, 'engined.log'), 2 << 20);
    expect(start()).toMatchObject({ status: 0, stderr: '' });
    await running(2);
    expect(readFileSync(join(home.runRoot, 'engined.log'), 'utf8')).toBe('trouble\n');
  });
  it('takes nothing of its caller along but the place of the socket', async () => {
    expect(start({ LANG: 'x' }, 'umask 0; ulimit -S -n 100; ulimit -S -c 12; trap "" INT USR1; exec 9</dev/null 7</dev/null; ')).toMatchObject({ status: 0 });
    const [pid = 0] = await running(1);
    expect(fact('env').trim().split('\n').filter((line) => !/^(PWD|OLDPWD|_|SHLVL|MALLOC_ARENA_MAX|MALLOC_TRIM_THRESHOLD_|UV_THREADPOOL_SIZE)=/.test(line))).toEqual([
      `ENGINE_SOCKET=${home.socket}`,
      `HOME=${isRoot ? '/root' : '/'}`,
      'LISTEN_FDS=1',
      `LISTEN_PID=${pid}`,
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ]);
    expect(fact('words').endsWith(` -- ${home.home}/dist/start.cjs engined\n`)).toBe(true);
    // a pipe is how the shell of this test looks
    const fds = fact('fds').trim().split('\n').map((line) => line.replace(/\[\d+\]/, '').trim()).filter((line) => !/^\d+( pipe:)?$/.test(line));
    expect(fds).toEqual(['0 /dev/null', '1 /dev/null', `2 ${home.runRoot}/engined.log`, '3 socket:', `4 ${home.runRoot}/engined.lock`]);
    expect(fact('cwd')).toBe('/\n');
    const status = fact('status');
    expect(status).toMatch(/^Umask:\s0022$/m);
    expect(status).toMatch(/^SigBlk:\s0+$/m);
    expect(status).toMatch(/^SigIgn:\s0+$/m);
    expect(status).toMatch(/^CapInh:\s0+$/m);
    expect(status).toMatch(/^CapAmb:\s0+$/m);
    const [, parent, , session, tty] = fact('stat').replace(/^.*\) /, '').split(' ');
    expect([Number(session) === process.pid, tty]).toEqual([false, '0']);
    expect(parent).toBeDefined();
    const limit = (text: string, name: string): string[] => (new RegExp(`^${name} +(\\S+) +(\\S+)`, 'm').exec(text) ?? []).slice(1);
    if (isRoot) {
      expect(limit(fact('limits'), 'Max core file size')).toEqual(limit(readFileSync('/proc/1/limits', 'utf8'), 'Max core file size'));
      expect(fact('slack').trim()).toMatch(/^50000$|No such file/);
      expect(['-500', '0']).toContain(fact('oom').trim());
      expect(/^Groups:\s*$/m.test(status)).toBe(true);
    }
    const [soft, hard] = limit(fact('limits'), 'Max open files');
    expect(soft).toBe(hard);
  });
  it.skipIf(!isRoot || !existsSync('/sys/fs/cgroup/pids/tasks'))('leaves its caller\'s cgroups, and changes nothing in them', async () => {
    const folder = '/sys/fs/cgroup/pids/engine-launcher-test';
    mkdirSync(folder, { recursive: true });
    try {
      expect(start({}, `echo 0 >${folder}/tasks;`)).toMatchObject({ status: 0 });
      await running(1);
      expect(fact('cgroup')).toMatch(/^\d+:pids:\/$/m);
      expect(readFileSync(join(folder, 'tasks'), 'utf8')).toBe('');
    } finally {
      rmdirSync(folder);
    }
  });
  it('says what keeps it: no Node, no folder, a lock without a socket', async () => {
    writeFileSync(join(home.folder, 'file'), '');
    expect(start({ ENGINE_RUN_ROOT: join(home.folder, 'file') })).toMatchObject({ status: 125, stderr: expect.stringMatching(/^engine: cannot open .*file: Not a directory\n$/) });
    const lock = syscalls.lock(join(home.runRoot, 'engined.lock'), { create: true, shared: false });
    const result = start();
    if (lock !== undefined) syscalls.close(lock);
    expect(result).toMatchObject({ status: 125, stderr: expect.stringMatching(/engined\.lock, but its socket does not answer\n$/) });
    rmSync(join(home.home, 'node_modules'), { recursive: true });
    expect(start()).toMatchObject({ status: 125, stderr: expect.stringMatching(/not set up yet/) });
  });
});

describe('engined in the foreground', () => {
  it('is this process, with a socket of its own', async () => {
    const run = home.run(['engined']);
    const [pid] = await running(1);
    expect(pid).toBe(run.child.pid);
    expect(existsSync(home.socket)).toBe(true);
    expect(fact('env')).toContain(`LISTEN_PID=${pid}\n`);
    const second = home.run(['engined']);
    expect(await second.ended).toMatchObject({ code: 125 });
    expect(second.err).toMatch(/runs already/);
    expect(run.err).toBe('trouble\n');
  });
  it('takes over the socket of a service manager, and what that wants to be told', async () => {
    const path = join(home.folder, 'given.sock');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const fd = (server as unknown as { _handle: { fd: number } })._handle.fd;
    const run = home.exec('sh', ['-c', 'LISTEN_PID=$$ exec "$E" engined'], {
      stdio: ['pipe', 'pipe', 'pipe', fd],
      more: { E: home.program, LISTEN_FDS: '1', NOTIFY_SOCKET: '/n', WATCHDOG_USEC: '5', INVOCATION_ID: 'i', SECRET: '1' },
    });
    const [pid] = await running(1);
    server.close();
    expect(pid).toBe(run.child.pid);
    const env = fact('env');
    for (const line of [`ENGINE_SOCKET=${path}`, 'NOTIFY_SOCKET=/n', 'WATCHDOG_USEC=5', `LISTEN_PID=${pid}`]) expect(env).toContain(`${line}\n`);
    expect(env).not.toContain('SECRET');
    expect(existsSync(home.socket)).toBe(false);
    expect(fact('fds')).toMatch(/^4( pipe:.*)?$/m);
  });
});
