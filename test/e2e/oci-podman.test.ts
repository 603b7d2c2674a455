/** podman with our runtime below conmon, configured as docs/callers/podman.md says. */
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PodmanCaller } from '../helpers/callers-podman.ts';
import { example, makeFolder, needed, ours } from '../helpers/callers.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';

const missing = missingPeers(...needed, 'podman', 'conmon', 'script');
if (!existsSync('/usr/lib/cni/bridge')) missing.push('CNI plugins');
if (missing.length > 0) console.error(`no podman above the runtime, missing: ${missing.join(', ')}`);
const run = describe.skipIf(missing.length > 0);

let podman: PodmanCaller;
beforeAll(async () => {
  if (missing.length === 0) podman = await PodmanCaller.start();
});
afterAll(async () => {
  if (podman) expect(await podman.close()).toEqual([]);
});

let counter = 0;
const name = (): string => `p${++counter}`;
const words = (script: string, ...flags: string[]): string[] => ['run', '--rm', '--network', 'none', ...flags, 'busybox', 'sh', '-c', script];
const out = (script: string, ...flags: string[]): Promise<string> => podman.ok(...words(script, ...flags));
async function sleeper(...flags: string[]): Promise<string> {
  const called = name();
  await podman.detached('--name', called, ...(flags.includes('--network') ? [] : ['--network', 'none']), ...flags, 'busybox', 'sh', '-c', 'trap "exit 0" TERM; while :; do sleep 0.05; done');
  return called;
}

run('podman run', () => {
  it('knows it as its runtime', async () => {
    expect(await podman.ok('info', '--format', '{{.Host.OCIRuntime.Name}}')).toBe('engine');
    if (ours) expect(await podman.ok('info', '--format', '{{.Host.OCIRuntime.Version}}')).toMatch(/spec/);
  });
  it('output, input, exit codes', async () => {
    for (const [script, code] of [['exit 0', 0], ['echo out; echo err >&2; exit 3', 3], ['exit 255', 255]] as const) expect((await podman.run(words(script))).code, script).toBe(code);
    expect(await podman.run(words('echo out; echo err >&2'))).toMatchObject({ stdout: 'out\n', stderr: 'err\n' });
    expect((await podman.run(['run', '--rm', '-i', '--network', 'none', 'busybox', 'cat'], { input: 'typed\n' })).stdout).toBe('typed\n');
    for (const [program, code] of [['no-such', 127], ['/etc/passwd', 126]] as const) {
      const { code: found, stderr } = await podman.run(['run', '--rm', '--network', 'none', 'busybox', program]);
      expect([found, stderr], program).toEqual([code, expect.stringMatching(/^Error: .*(not found|no such file|permission denied)/im)]);
    }
    const killed = podman.start(words('echo ready; sleep 1000', '--name', 'killed', '--init=false'));
    await killed.output(/ready/);
    await podman.ok('kill', 'killed');
    expect((await killed.result).code).toBe(137);
  });
  it('-it: a terminal of the right size', async () => {
    const running = podman.terminal(['run', '--rm', '-it', '--network', 'none', 'busybox', 'sh', '-c', 'test -t 0 && echo tty; until stty size | grep -q "24 80"; do :; done; echo sized; read x; echo "got:$x"; exit 5']);
    await running.output(/sized/);
    running.child.stdin.write('line\n');
    const { code, stdout } = await running.result;
    expect([code, stdout]).toEqual([5, expect.stringMatching(/tty\r?\n[^]*got:line/)]);
  });
  it('flags: limits, capabilities, files, namespaces', async () => {
    const v2 = existsSync('/sys/fs/cgroup/cgroup.controllers');
    expect(await out(`cat /sys/fs/cgroup/${v2 ? 'memory.max' : 'memory/memory.limit_in_bytes'} /sys/fs/cgroup/${v2 ? 'pids.max' : 'pids/pids.max'}`, '-m', '64m', '--pids-limit', '20')).toBe(`${64 << 20}\n20`);
    expect(await out('grep -E "CapEff|NoNewPrivs|Seccomp:" /proc/self/status | tr -s "\\t " " "', '--cap-drop', 'all', '--cap-add', 'net_bind_service', '--security-opt', 'no-new-privileges')).toBe('CapEff: 0000000000000400\nNoNewPrivs: 1\nSeccomp: 2');
    expect(await out('touch /x 2>&1 | grep -c Read-only; touch /t/x && echo wrote; id -u; hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start', '--read-only', '--tmpfs', '/t', '-u', 'root', '-h', 'box', '--sysctl', 'net.ipv4.ip_unprivileged_port_start=7')).toBe('1\nwrote\n0\nbox\n7');
    const bind = makeFolder(podman.machine.path('bind'));
    podman.machine.write('bind/file', 'bound\n');
    expect(await out('cat /b/file; touch /b/x 2>&1 | grep -c Read-only; id -u', '-v', `${bind}:/b:ro`, '-u', 'app')).toBe('bound\n1\n1000');
    expect(await out('cat /proc/self/uid_map | tr -s " "', '--uidmap', '0:100000:5000')).toBe(' 0 100000 5000');
  });
  it('memory that runs out ends it', async () => {
    const called = name();
    const { code } = await podman.run(['run', '--name', called, '--network', 'none', '-m', '24m', '--memory-swap', '24m', 'busybox', 'tail', '/dev/zero']);
    expect(code).toBe(137); // conmon tells no reason in a hybrid tree, whatever the runtime
    await podman.ok('rm', called);
  });
  it('on its bridge, with a published port', async () => {
    const server = await sleeper('--network', 'podman', '-p', '8098:98');
    await podman.ok('exec', '-d', server, 'sh', '-c', 'while :; do echo served | nc -l -p 98; done');
    const address = await podman.inspect(server, '{{.NetworkSettings.IPAddress}}');
    expect(await until('an answer', async () => (await podman.run(['run', '--rm', 'busybox', 'nc', '-w', '2', address, '98'])).stdout)).toBe('served\n');
    await podman.ok('rm', '-f', '-t', '0', server);
  });
  it('five at a time', async () => {
    const answers = await Promise.all(Array.from({ length: 5 }, (_, n) => podman.run(words(`echo ${n}; exit ${n}`))));
    expect(answers.map(({ code, stdout }) => [code, stdout])).toEqual(answers.map((_, n) => [n, `${n}\n`]));
  });
});

run('a container of podman', () => {
  it('exec, top, logs, stats, pause, update', async () => {
    const called = name();
    await podman.detached('--name', called, '--network', 'none', '-e', 'A=container', 'busybox', 'sh', '-c', 'echo one; echo two >&2; trap "exit 0" TERM; while :; do sleep 0.05; done');
    expect(await podman.run(['exec', '-u', 'app', '-e', 'X=given', '-w', '/tmp', called, 'sh', '-c', 'id -un; echo $A $X; pwd; exit 7'])).toMatchObject({ code: 7, stdout: 'app\ncontainer given\n/tmp\n' });
    expect((await podman.run(['exec', '-i', called, 'cat'], { input: 'in\n' })).stdout).toBe('in\n');
    expect((await podman.run(['exec', called, 'no-such'])).code).toBe(127);
    const terminal = await podman.terminal(['exec', '-t', called, 'tty']).result;
    expect([terminal.code, terminal.stdout]).toEqual([0, expect.stringMatching(/\/dev\/pts\/\d+/)]);
    expect(await podman.ok('top', called, 'pid', 'args')).toMatch(/sh -c echo one/);
    const logs = await podman.run(['logs', called]);
    expect([logs.stdout, logs.stderr]).toEqual(['one\n', 'two\n']);
    expect(await podman.ok('stats', '--no-stream', '--format', '{{.MemUsage}} {{.PIDs}}', called)).toMatch(/^[\d.]+[kM]B \/ .* [1-9]\d*$/);
    await podman.ok('pause', called);
    expect(await podman.inspect(called, '{{.State.Status}}')).toBe('paused');
    await podman.ok('unpause', called);
    const v2 = existsSync('/sys/fs/cgroup/cgroup.controllers');
    await podman.ok('update', '--memory', '96m', called);
    expect(await podman.ok('exec', called, 'cat', `/sys/fs/cgroup/${v2 ? 'memory.max' : 'memory/memory.limit_in_bytes'}`)).toBe(String(96 << 20));
    const began = performance.now();
    await podman.ok('stop', '-t', '30', called);
    expect(performance.now() - began).toBeLessThan(20_000);
    expect(await podman.inspect(called, '{{.State.ExitCode}}')).toBe('0');
    await podman.ok('start', called);
    expect(await podman.inspect(called, '{{.State.Status}}')).toBe('running');
    await podman.ok('rm', '-f', '-t', '0', called);
  });
  it('health checks', async () => {
    const called = await sleeper('--health-cmd', 'test -e /ok', '--health-interval', 'disable', '--health-retries', '1');
    expect((await podman.run(['healthcheck', 'run', called])).code).not.toBe(0);
    await podman.ok('exec', called, 'touch', '/ok');
    expect((await podman.run(['healthcheck', 'run', called])).code).toBe(0);
    await podman.ok('rm', '-f', '-t', '0', called);
  });
  it('that somebody kills ends with a code, and can be removed', async () => {
    const id = await podman.detached('--network', 'none', 'busybox', 'sleep', '1000');
    process.kill(Number(await podman.inspect(id, '{{.State.Pid}}')), 'SIGKILL');
    expect(await podman.ok('wait', id)).toBe('137');
    await podman.ok('rm', id);
  });
});

run('pods', () => {
  it('share network and ipc, and are stopped and removed as one', async () => {
    const pod = name();
    await podman.ok('pod', 'create', '--name', pod, '--network', 'none');
    for (const n of ['one', 'two']) await podman.ok('run', '-d', '--pod', pod, '--name', `${pod}-${n}`, 'busybox', 'sh', '-c', 'trap "exit 0" TERM; while :; do sleep 0.05; done');
    await podman.watchAll();
    const space = async (n: string, kind: string): Promise<string> => podman.ok('exec', `${pod}-${n}`, 'readlink', `/proc/self/ns/${kind}`);
    expect([await space('one', 'net'), await space('one', 'ipc')]).toEqual([await space('two', 'net'), await space('two', 'ipc')]);
    expect(await space('one', 'mnt')).not.toBe(await space('two', 'mnt'));
    await podman.ok('pod', 'pause', pod);
    expect(await podman.ok('pod', 'inspect', '-f', '{{.State}}', pod)).toBe('Paused');
    await podman.ok('pod', 'unpause', pod);
    await podman.ok('pod', 'stop', '-t', '10', pod);
    await podman.ok('pod', 'start', pod);
    await podman.ok('pod', 'rm', '-f', '-t', '0', pod);
  });
  it('play kube, and down again', async () => {
    const file = podman.machine.write('pod.yaml', example('kube-pod.yaml'));
    await podman.ok('play', 'kube', '--network', 'none', file);
    await podman.watchAll();
    expect((await podman.ok('exec', 'played-one', 'sh', '-c', 'echo $FROM'))).toBe('kube');
    await until('its log', async () => (await podman.ok('logs', 'played-one')) === 'played');
    expect(await podman.ok('pod', 'inspect', '-f', '{{.State}}', 'played')).toBe('Running');
    await podman.ok('play', 'kube', '--down', file);
    expect(await podman.ok('pod', 'ps', '-q')).toBe('');
  });
});

run('what is left', () => {
  it('is nothing, once all are removed', async ({ skip }) => {
    if (!ours) skip('another runtime');
    await podman.removeAll();
    expect(await podman.machine.leftovers()).toEqual([]);
  });
});
