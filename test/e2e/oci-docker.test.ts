/** Docker with our runtime below it: a real dockerd and containerd, configured as docs/callers/docker.md says. */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DockerCaller } from '../helpers/callers-docker.ts';
import { documented, makeFolder, needed, ours } from '../helpers/callers.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';

const missing = missingPeers(...needed, 'docker', 'dockerd', 'containerd', 'containerd-shim-runc-v2', 'script');
if (missing.length > 0) console.error(`no docker above the runtime, missing: ${missing.join(', ')}`);
const run = describe.skipIf(missing.length > 0);

let docker: DockerCaller;
beforeAll(async () => {
  if (missing.length === 0) docker = await DockerCaller.start({ config: { 'live-restore': true } });
});
afterAll(async () => {
  if (docker) expect(await docker.close()).toEqual([]);
});

const sh = (script: string, ...flags: string[]): string[] => ['run', '--rm', ...(flags.includes('--network') ? [] : ['--network', 'none']), ...flags, 'busybox', 'sh', '-c', script];
const out = (script: string, ...flags: string[]): Promise<string> => docker.ok(...sh(script, ...flags));
let counter = 0;
const name = (): string => `c${++counter}`;
/** One that goes on, with nothing to do. */
async function sleeper(...flags: string[]): Promise<string> {
  const called = name();
  await docker.detached('--name', called, ...(flags.includes('--network') ? [] : ['--network', 'none']), ...flags, 'busybox', 'sleep', '1000');
  return called;
}
const state = (called: string): Promise<string> => docker.inspect(called, '{{.State.Status}}');

run('docker run', () => {
  it('knows it as its default runtime', async () => {
    expect(await docker.ok('info', '-f', '{{.DefaultRuntime}}')).toBe('engine');
    const called = await sleeper();
    expect(await docker.inspect(called, documented('docker.md', 'docker inspect').split("'")[1] ?? '')).toBe('engine');
    await docker.ok('rm', '-f', called);
    // runc's own stay beside it, and each container says whose it is
    const [, , runtime = '', chosen = ''] = documented('docker.md', 'docker run --runtime').split(' ');
    expect([runtime, chosen]).toEqual(['--runtime', 'engine']);
    const both = await Promise.all([chosen, 'runc'].map((one) => docker.run(sh('echo ran', runtime, one))));
    expect(both.map(({ stdout }) => stdout)).toEqual(['ran\n', 'ran\n']);
  });
  it('ends with the code of its program, which no signal of its own ends', async () => {
    const ended = await Promise.all(['exit 255', 'kill -9 $$; exit 1'].map((script) => docker.run(sh(script))));
    expect(ended.map(({ code }) => code)).toEqual([255, 1]);
  });
  it('says what cannot be run: 127 for what is not there, 126 for what is no program', async () => {
    const at = (...words: string[]) => docker.run(['run', '--rm', '--network', 'none', 'busybox', ...words]);
    const [absent, file, folder, sysctl, cwd] = await Promise.all([at('/no/such'), at('/etc/passwd'), at('/etc'), docker.run(sh('true', '--sysctl', 'net.ipv4.no_such=1')), docker.run(sh('true', '-w', '/etc/passwd'))]);
    expect([absent.code, absent.stderr]).toEqual([127, expect.stringMatching(/no such file|not found/)]);
    expect([file.code, folder.code]).toEqual([126, 126]);
    // whatever code Docker makes of the words
    expect([(sysctl.code ?? 0) > 124, sysctl.stderr]).toEqual([true, expect.stringContaining('no_such')]);
    expect([(cwd.code ?? 0) > 124, cwd.stderr]).toEqual([true, expect.stringMatching(/not a directory|cwd|working directory/i)]);
  });
  it('passes on standard input, however much', async () => {
    const many = 'x'.repeat(3 << 20);
    const [counted, { stdout, stderr, code }] = await Promise.all([docker.run(['run', '--rm', '-i', '--network', 'none', 'busybox', 'wc', '-c'], { input: many }), docker.run(sh('echo out; echo err >&2; exit 4'))]);
    expect(counted.stdout.trim()).toBe(String(many.length));
    expect([stdout, stderr, code]).toEqual(['out\n', 'err\n', 4]);
  });
  it('makes a terminal of the right size', async () => {
    const running = docker.terminal(['run', '--rm', '-it', '--network', 'none', 'busybox', 'sh', '-c', 'test -t 0 && test -t 1 && echo tty; until stty size | grep -q "24 80"; do :; done; stty size; read x; echo "got:$x"; exit 5']);
    await running.output(/24 80/);
    running.child.stdin.write('line\n');
    const { code, stdout } = await running.result;
    expect(stdout).toMatch(/tty\r\n[^]*24 80\r\n[^]*got:line/);
    expect(code).toBe(5);
  });
  it('detached: logs of both streams, attach, wait', async () => {
    const called = name();
    await docker.detached('--name', called, '-i', '--network', 'none', 'busybox', 'sh', '-c', 'echo one; echo two >&2; read x; echo "three $x"; exit 9');
    await until('its logs', async () => (await docker.ok('logs', called)).includes('one'));
    const attached = docker.start(['attach', called]); // it reads its input once it is connected
    attached.child.stdin.write('word\n');
    expect(await docker.ok('wait', called)).toBe('9');
    expect((await attached.result).stdout).toContain('three word');
    const { stdout, stderr } = await docker.run(['logs', called]);
    expect([stdout, stderr]).toEqual(['one\nthree word\n', 'two\n']);
    await docker.ok('rm', called);
  });
  it('passes on signals of the client', async () => {
    const running = docker.start(sh('trap "echo term; exit 42" TERM; echo ready; while :; do sleep 0.05; done'));
    await running.output(/ready/);
    running.child.kill('SIGTERM');
    expect(await running.result).toMatchObject({ code: 42, stdout: 'ready\nterm\n' });
  });
  it('ten at a time', async () => {
    const answers = await Promise.all(Array.from({ length: 10 }, (_, n) => docker.run(sh(`echo ${n}; exit ${n}`))));
    expect(answers.map(({ code, stdout }) => [code, stdout])).toEqual(answers.map((_, n) => [n, `${n}\n`]));
  });
});

run('docker exec', () => {
  it('runs with its own user, variables, folder, input and exit code', async () => {
    const called = await sleeper('-e', 'A=container');
    const exec = (...args: string[]) => docker.run(['exec', ...args]);
    expect(await exec(called, 'sh', '-c', 'echo $A; exit 7')).toMatchObject({ code: 7, stdout: 'container\n' });
    expect((await exec('-u', 'app', '-e', 'X=given', '-w', '/tmp', called, 'sh', '-c', 'id -un; id -Gn; echo $X; pwd')).stdout).toBe('app\napp extra\ngiven\n/tmp\n');
    expect((await docker.run(['exec', '-i', called, 'cat'], { input: 'in\n' })).stdout).toBe('in\n');
    // Docker 20.10 says 126 of both, later ones tell them apart
    expect([126, 127]).toContain((await exec(called, 'no-such')).code);
    expect((await exec(called, '/etc/passwd')).code).toBe(126);
    expect((await exec(called, 'sh', '-c', 'kill -9 $$')).code).toBe(137);
    await docker.ok('exec', '-d', called, 'sh', '-c', 'echo later >/tmp/later; sleep 1000');
    await until('what was started in the background', async () => (await exec(called, 'cat', '/tmp/later')).stdout === 'later\n');
    const many = await Promise.all(Array.from({ length: 5 }, (_, n) => exec(called, 'sh', '-c', `exit ${n + 10}`)));
    expect(many.map(({ code }) => code)).toEqual([10, 11, 12, 13, 14]);
    await docker.ok('rm', '-f', called);
  });
  it('-it: on a terminal', async () => {
    const called = await sleeper();
    const running = docker.terminal(['exec', '-it', called, 'sh', '-c', 'tty; until stty size | grep -q "24 80"; do :; done; echo sized; read x; echo "got:$x"; exit 6']);
    await running.output(/sized/);
    running.child.stdin.write('line\n');
    const { code, stdout } = await running.result;
    expect(stdout).toMatch(/\/dev\/pts\/\d+[^]*got:line/);
    expect(code).toBe(6);
    await docker.ok('rm', '-f', called);
  });
});

run('docker and a container that runs', () => {
  it('top, stats, pause, unpause', async () => {
    const called = name();
    await docker.detached('--name', called, '--network', 'none', 'busybox', 'sh', '-c', 'while :; do echo x >>/n; sleep 0.02; done');
    expect(await docker.ok('top', called)).toMatch(/PID[^]*while :; do/);
    expect(await docker.ok('top', called, '-o', 'pid,args')).toMatch(/while :; do/);
    const line = await until('numbers', async () => {
      const text = await docker.ok('stats', '--no-stream', '--format', '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}', called);
      return /^[\d.]+% [1-9][\d.]*[KM]iB \/ .* [1-9]\d*$/.test(text) ? text : undefined;
    });
    expect(line).not.toContain('--');
    await docker.ok('pause', called);
    expect(await state(called)).toBe('paused');
    const refused = await docker.run(['exec', called, 'true']);
    expect([refused.code, refused.stderr + refused.stdout]).toEqual([1, expect.stringContaining('paused')]);
    await docker.ok('unpause', called);
    const size = async (): Promise<number> => Number(await docker.ok('exec', called, 'wc', '-c', '/n').then((text) => text.split(' ')[0]));
    const before = await size();
    await until('it to go on', async () => (await size()) > before);
    await docker.ok('rm', '-f', called);
  });
  it('kill with any signal, stop with its time, start again, restart', async () => {
    const called = name();
    await docker.detached('--name', called, '--network', 'none', 'busybox', 'sh', '-c', 'trap "echo usr" USR1; trap "" TERM; echo ready; while :; do sleep 0.05; done');
    await until('it to be ready', async () => (await docker.ok('logs', called)).includes('ready'));
    await docker.ok('kill', '-s', 'USR1', called);
    await until('the signal', async () => (await docker.ok('logs', called)).includes('usr'));
    const began = performance.now();
    await docker.ok('stop', '-t', '1', called);
    expect(performance.now() - began).toBeGreaterThan(950);
    expect(await docker.inspect(called, '{{.State.ExitCode}} {{.State.Status}}')).toBe('137 exited');
    await docker.ok('start', called);
    expect(await state(called)).toBe('running');
    await docker.ok('restart', '-t', '0', called);
    expect(await state(called)).toBe('running');
    await docker.ok('kill', called);
    expect(await docker.ok('wait', called)).toBe('137');
    await docker.ok('rm', called);
    const willing = name();
    await docker.detached('--name', willing, '--network', 'none', 'busybox', 'sh', '-c', 'trap "exit 0" TERM; echo ready; while :; do sleep 0.02; done');
    await until('it to be ready', async () => (await docker.ok('logs', willing)).includes('ready'));
    await docker.ok('stop', '-t', '30', willing);
    expect(await docker.inspect(willing, '{{.State.ExitCode}}')).toBe('0');
    await docker.ok('rm', willing);
  });
  it('copies files in and out', async () => {
    const called = await sleeper('--tmpfs', '/t');
    const file = docker.machine.write('copied', 'content\n');
    await docker.ok('cp', file, `${called}:/tmp/in`);
    expect(await docker.ok('exec', called, 'cat', '/tmp/in')).toBe('content');
    await docker.ok('exec', called, 'sh', '-c', 'echo made >/tmp/out');
    await docker.ok('cp', `${called}:/tmp/out`, docker.machine.path('out'));
    expect(readFileSync(docker.machine.path('out'), 'utf8')).toBe('made\n');
    await docker.ok('rm', '-f', called);
  });
  it('health: starting, healthy, unhealthy', async () => {
    const called = await sleeper('--health-cmd', 'test -e /ok || exit 1', '--health-interval', '150ms', '--health-retries', '2');
    const health = (): Promise<string> => docker.inspect(called, '{{.State.Health.Status}}');
    await docker.ok('exec', called, 'touch', '/ok');
    await until('healthy', async () => (await health()) === 'healthy');
    await docker.ok('exec', called, 'rm', '/ok');
    await until('unhealthy', async () => (await health()) === 'unhealthy');
    await docker.ok('rm', '-f', called);
  });
  it('restart policies', async () => {
    const called = name();
    await docker.detached('--name', called, '--network', 'none', '--restart', 'on-failure:2', 'busybox', 'sh', '-c', 'exit 3');
    await until('two restarts', async () => (await docker.inspect(called, '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}')) === '2 exited 3');
    await docker.ok('rm', called);
    const always = await sleeper('--restart', 'always');
    const pid = await docker.inspect(always, '{{.State.Pid}}');
    process.kill(Number(pid), 'SIGKILL');
    await until('another process', async () => ![pid, '0'].includes(await docker.inspect(always, '{{.State.Pid}}')) && (await state(always)) === 'running');
    await docker.ok('rm', '-f', always);
  });
});

run('limits', () => {
  it('memory: out of it is told', async () => {
    const called = name();
    const { code } = await docker.run(['run', '--name', called, '--network', 'none', '-m', '24m', '--memory-swap', '24m', 'busybox', 'tail', '/dev/zero']);
    expect([code, await docker.inspect(called, '{{.State.OOMKilled}}')]).toEqual([137, 'true']);
    await docker.ok('rm', called);
  });
  it('are what was asked for, and what an update says', async () => {
    const v2 = existsSync('/sys/fs/cgroup/cgroup.controllers');
    const files = v2 ? ['memory.max', 'cpu.max', 'pids.max', 'cpuset.cpus', 'cpu.weight'] : ['memory/memory.limit_in_bytes', 'cpu/cpu.cfs_quota_us', 'pids/pids.max', 'cpuset/cpuset.cpus', 'cpu/cpu.shares'];
    const called = await sleeper('-m', '64m', '--cpus', '0.5', '--pids-limit', '30', '--cpuset-cpus', '0', '--cpu-shares', '512');
    const found = async (): Promise<string[]> => (await docker.ok('exec', called, 'sh', '-c', `cd /sys/fs/cgroup; cat ${files.join(' ')}`)).split('\n');
    expect((await found()).slice(0, 4)).toEqual([String(64 << 20), v2 ? '50000 100000' : '50000', '30', '0']);
    if (!v2) expect((await found())[4]).toBe('512');
    await docker.ok('update', '-m', '96m', '--memory-swap', '96m', '--cpus', '0.25', '--pids-limit', '50', '--cpuset-cpus', '0-1', called);
    expect((await found()).slice(0, 4)).toEqual([String(96 << 20), v2 ? '25000 100000' : '25000', '50', '0-1']);
    expect((await docker.ok('stats', '--no-stream', '--format', '{{.MemUsage}}', called)).split(' / ')[1]).toBe('96MiB');
    await docker.ok('rm', '-f', called);
    const { stdout, stderr } = await docker.run(sh('for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all', '--pids-limit', '5'));
    expect(stdout).not.toContain('all');
    expect(stderr).toMatch(/can't fork/);
  });
});

run('flags', () => {
  const status = (field: string): string => `grep ${field} /proc/self/status | tr -s "\\t " " "`;
  it('capabilities, privileges and seccomp', async () => {
    const profile = docker.machine.write('seccomp.json', JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 95 }] }));
    const found = await Promise.all([
      out(status('-E "CapEff|NoNewPrivs|Seccomp:"'), '--cap-drop', 'ALL', '--cap-add', 'NET_BIND_SERVICE', '--security-opt', 'no-new-privileges'),
      out(status('-E "CapEff|NoNewPrivs|Seccomp:"'), '-u', 'app', '--security-opt', 'seccomp=unconfined'),
      out('mkdir /x 2>&1; true', '--security-opt', `seccomp=${profile}`),
    ]);
    expect(found).toEqual(['CapEff: 0000000000000400\nNoNewPrivs: 1\nSeccomp: 2', 'CapEff: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 0', expect.stringMatching(/not supported/i)]);
  });
  it('--privileged', async ({ skip }) => {
    const all = BigInt(`0x${/^CapBnd:\s+(\w+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`);
    if (((all >> 24n) & 1n) === 0n) skip('root lacks CAP_SYS_RESOURCE here: no runtime can grant all capabilities');
    expect(await out(status('CapEff'), '--privileged')).toBe(`CapEff: ${all.toString(16).padStart(16, '0')}`);
  });
  it('a folder of its own: read-only, tmpfs, volumes, binds, devices', async () => {
    const bind = makeFolder(docker.machine.path('bind'));
    docker.machine.write('bind/file', 'bound\n');
    const size = (path: string): string => `df -k ${path} | tail -1 | tr -s " " | cut -d " " -f 2`;
    const script = [
      'touch /x 2>&1 | grep -c Read-only; touch /t/x && echo wrote', size('/t'), size('/dev/shm'), 'cat /b/file; touch /b/x 2>&1 | grep -c Read-only; cat /one; echo v >/v/x; cat /v/x',
      'ls -l /dev/fuse2 | tr -s " " | cut -d " " -f 5,6; dd if=/dev/null2 count=0 2>/dev/null && echo opened',
    ].join('; ');
    const flags = ['--read-only', '--tmpfs', '/t:size=1m', '--shm-size', '8m', '-v', `${bind}:/b:ro`, '-v', `${bind}/file:/one`, '-v', '/v', '--device', '/dev/fuse:/dev/fuse2', '--device', '/dev/null:/dev/null2:r'];
    expect((await out(script, ...flags)).split('\n')).toEqual(['1', 'wrote', '1024', '8192', 'bound', '1', 'bound', 'v', '10, 229', 'opened']);
  });
  it('users, ulimits, names, sysctls, init, oom score', async () => {
    const init = missingPeers('docker-init').length === 0;
    const script = 'id -u; id -g; id -G; ulimit -n; ulimit -Hn; hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj /proc/1/comm';
    const flags = ['-u', 'app', '--group-add', '3000', '--ulimit', 'nofile=100:200', '-h', 'box', '--domainname', 'example.org', '--sysctl', 'net.ipv4.ip_unprivileged_port_start=7', '--oom-score-adj', '321', ...(init ? ['--init'] : [])];
    expect((await out(script, ...flags)).split('\n')).toEqual(['1000', '1000', '1000 2000 3000', '100', '200', 'box', 'example.org', '7', '321', init ? 'docker-init' : 'sh']);
  });
  it('namespaces of others: pid, ipc, network, host', async () => {
    const called = await sleeper('--ipc', 'shareable', '-h', 'shared');
    const spaces = 'for kind in ipc net uts; do readlink /proc/self/ns/$kind; done';
    const [theirs, joined, host, machine] = await Promise.all([
      docker.ok('exec', called, 'sh', '-c', spaces),
      out(`cat /proc/1/comm; ${spaces}`, '--pid', `container:${called}`, '--ipc', `container:${called}`, '--network', `container:${called}`),
      out(spaces, '--network', 'host', '--uts', 'host', '--ipc', 'host'),
      docker.machine.ok(['sh', '-c', spaces]),
    ]);
    expect(joined.split('\n').slice(0, 3)).toEqual(['sleep', ...theirs.split('\n').slice(0, 2)]);
    expect(joined.split('\n')[3]).not.toBe(theirs.split('\n')[2]);
    expect(host).toBe(machine);
    await docker.ok('rm', '-f', called);
  });
  it('the bridge of docker itself, with names and published ports', async () => {
    await docker.ok('network', 'create', 'own');
    const server = await sleeper('--network', 'own', '-p', '8099:99');
    await docker.ok('exec', '-d', server, 'sh', '-c', 'while :; do echo served | nc -l -p 99; done');
    const asked = async (script: string, ...flags: string[]): Promise<string> => until('an answer', async () => (await docker.run(sh(script, ...flags))).stdout);
    expect(await asked(`nc -w 2 ${server} 99 </dev/null`, '--network', 'own')).toBe('served\n');
    expect(await until('the published port', async () => (await docker.machine.run(['busybox', 'nc', '-w', '2', '127.0.0.1', '8099'])).stdout)).toBe('served\n');
    await docker.ok('rm', '-f', server);
    await docker.ok('network', 'rm', 'own');
  });
});

run('live-restore', () => {
  it('containers go on without dockerd, and are its own again', async () => {
    const called = name();
    const id = await docker.detached('--name', called, '--network', 'none', 'busybox', 'sh', '-c', 'trap "exit 11" TERM; while :; do echo tick; sleep 0.05; done');
    const pid = await docker.inspect(called, '{{.State.Pid}}');
    await docker.endDaemon('SIGKILL');
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('tick');
    await docker.startDaemon();
    expect(await docker.inspect(called, '{{.State.Pid}} {{.Id}} {{.State.Status}}')).toBe(`${pid} ${id} running`);
    expect((await docker.run(['exec', called, 'sh', '-c', 'exit 12'])).code).toBe(12);
    const ticks = async (): Promise<number> => (await docker.ok('logs', called)).split('\n').length;
    const before = await ticks();
    await until('more of its logs', async () => (await ticks()) > before);
    await docker.ok('stop', '-t', '20', called);
    expect(await docker.inspect(called, '{{.State.ExitCode}}')).toBe('11');
    await docker.ok('rm', called);
  });
});

run('what is left', () => {
  it('is nothing, once all containers are removed', async ({ skip }) => {
    if (!ours) skip('another runtime');
    const ids = (await docker.ok('ps', '-aq', '--no-trunc')).split('\n').filter(Boolean);
    if (ids.length > 0) await docker.ok('rm', '-fv', ...ids);
    expect(await docker.machine.leftovers()).toEqual([]);
  });
});
