/** containerd with our runtime below its shim (`BinaryName`), asked by ctr. */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ContainerdCaller, image } from '../helpers/callers-containerd.ts';
import { documented, needed, ours, runtime } from '../helpers/callers.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';

const missing = missingPeers(...needed, 'containerd', 'ctr', 'containerd-shim-runc-v2', 'script');
if (missing.length > 0) console.error(`no containerd above the runtime, missing: ${missing.join(', ')}`);
const run = describe.skipIf(missing.length > 0);

let containerd: ContainerdCaller;
beforeAll(async () => {
  // each command of the runtime by itself here: Docker's and Kubernetes' tests have the resident engine
  if (missing.length === 0) containerd = await ContainerdCaller.start({ resident: 'off' });
});
afterAll(async () => {
  if (!containerd) return;
  for (const id of (await containerd.ok('tasks', 'ls', '-q')).split('\n').filter(Boolean)) await containerd.run(['tasks', 'rm', '-f', id]);
  for (const id of (await containerd.ok('containers', 'ls', '-q')).split('\n').filter(Boolean)) await containerd.ok('containers', 'rm', id);
  expect(await containerd.close()).toEqual([]);
});

let counter = 0;
/** Names that nobody else has: their cgroups are looked for by it. */
function name(): string {
  const called = `ctr-${process.pid}-${++counter}`;
  containerd.machine.watch(called);
  return called;
}
const start = (flags: readonly string[], called: string, ...command: string[]): string[] => ['run', ...containerd.flags, '--cgroup', `${containerd.machine.cgroup}/${called}`, ...flags, image, called, ...command];
const tasks = async (): Promise<string> => containerd.ok('tasks', 'ls');
async function sleeper(...flags: string[]): Promise<string> {
  const called = name();
  await containerd.ok(...start(['-d', ...flags], called, 'sleep', '1000'));
  return called;
}
async function remove(called: string): Promise<void> {
  await containerd.run(['tasks', 'kill', '-s', 'SIGKILL', called]);
  await until('the task to end', async () => !(await tasks()).includes(`${called} `) || /STOPPED/.test((await tasks()).split('\n').find((line) => line.startsWith(called)) ?? ''));
  await containerd.run(['tasks', 'rm', called]);
  await containerd.ok('containers', 'rm', called);
}

run('ctr run', () => {
  it('has output, input and exit codes', async () => {
    expect(await containerd.run(start(['--rm'], name(), 'sh', '-c', 'echo out; echo err >&2; exit 3'))).toMatchObject({ code: 3, stdout: 'out\n', stderr: 'err\n' });
    expect(await containerd.run(start(['--rm'], name(), 'sh', '-c', 'read x; echo "got:$x"'), { input: 'line\n' })).toMatchObject({ code: 0, stdout: 'got:line\n' });
    const { code, stderr } = await containerd.run(start(['--rm'], name(), '/no/such'));
    expect([code, stderr]).toEqual([1, expect.stringMatching(/no such file|not found/)]);
  });
  it('runs what the documentation says', async () => {
    const script = documented('containerd.md', 'ctr run ').replace('ctr run ', `ctr --address ${containerd.socket} run --cgroup ${containerd.machine.cgroup}/hello `);
    expect(await containerd.machine.ok(['sh', '-ec', script])).toBe('hello');
  });
  it('-t: on a terminal', async () => {
    const running = containerd.terminal(start(['--rm', '-t'], name(), 'sh', '-c', 'test -t 0 && echo tty; until stty size | grep -q "24 80"; do :; done; echo sized; read x; echo "got:$x"; exit 5'));
    await running.output(/sized/);
    running.child.stdin.write('line\n');
    const { code, stdout } = await running.result;
    expect([code, stdout]).toEqual([5, expect.stringMatching(/tty\s[^]*got:line/)]);
  });
  it('says what the runtime says of a container', async () => {
    const called = await sleeper('--env', 'A=b', '--cwd', '/tmp');
    const pid = /(\d+)\s+RUNNING/.exec((await tasks()).split('\n').find((line) => line.startsWith(called)) ?? '')?.[1] ?? '';
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain('sleep');
    const state = JSON.parse(await containerd.machine.ok([runtime, '--root', `${containerd.machine.path('state', 'oci')}/default`, 'state', called])) as Record<string, unknown>;
    expect(state).toMatchObject({ id: called, pid: Number(pid), status: 'running' });
    expect(await containerd.ok('tasks', 'ps', called)).toMatch(new RegExp(`^PID[^]*${pid}`));
    await remove(called);
  });
});

run('a task', () => {
  it('exec: code, terminal, user and folder', async () => {
    const called = await sleeper();
    expect(await containerd.run(['tasks', 'exec', '--exec-id', 'one', '--cwd', '/tmp', called, 'sh', '-c', 'pwd; id -u; exit 9'])).toMatchObject({ code: 9, stdout: '/tmp\n0\n' });
    expect(await containerd.run(['tasks', 'exec', '--exec-id', 'two', '--user', '1000', called, 'id', '-u'])).toMatchObject({ code: 0, stdout: '1000\n' });
    const terminal = await containerd.terminal(['tasks', 'exec', '--exec-id', 'three', '-t', called, 'tty']).result;
    expect([terminal.code, terminal.stdout]).toEqual([0, expect.stringMatching(/\/dev\/pts\/\d+/)]);
    expect((await containerd.run(['tasks', 'exec', '--exec-id', 'four', called, 'no-such'])).code).not.toBe(0);
    await remove(called);
  });
  it('pause and resume', async () => {
    const called = name();
    await containerd.ok(...start(['-d'], called, 'sh', '-c', 'while :; do echo x >>/n; sleep 0.02; done'));
    const status = async (): Promise<string> => (await tasks()).split('\n').find((line) => line.startsWith(called)) ?? '';
    await containerd.ok('tasks', 'pause', called);
    expect(await status()).toMatch(/PAUSED/);
    await containerd.ok('tasks', 'resume', called);
    expect(await status()).toMatch(/RUNNING/);
    const size = async (n: number): Promise<number> => Number((await containerd.ok('tasks', 'exec', '--exec-id', `size${n}`, called, 'wc', '-c', '/n')).split(' ')[0]);
    const before = await size(0);
    let looks = 0;
    await until('it to go on', async () => (await size(++looks)) > before);
    await remove(called);
  });
  it('metrics and limits', async () => {
    const called = await sleeper('--memory-limit', String(64 << 20), '--cpus', '0.5');
    const metrics = JSON.parse(await containerd.ok('tasks', 'metrics', '--format', 'json', called)) as { memory?: { usage?: { limit?: number | string; usage?: number | string } | number | string; usage_limit?: number | string }; pids?: { current?: number | string } };
    expect(Number(metrics.pids?.current)).toBe(1);
    expect(JSON.stringify(metrics.memory)).toMatch(/"limit":"?67108864"?|"usage_limit":"?67108864"?/);
    const group = `${containerd.machine.cgroup}/${called}`;
    expect(readFileSync(existsSync('/sys/fs/cgroup/cgroup.controllers') ? `/sys/fs/cgroup/${group}/cpu.max` : `/sys/fs/cgroup/cpu/${group}/cpu.cfs_quota_us`, 'utf8')).toMatch(/^50000/);
    await remove(called);
  });
  it('signals by name and number', async () => {
    const called = name();
    await containerd.ok(...start(['-d'], called, 'sh', '-c', 'trap "echo usr >>/n" USR1; trap "exit 4" TERM; echo ready >/n; while :; do sleep 0.02; done'));
    let looks = 0;
    const told = async (): Promise<string> => (await containerd.run(['tasks', 'exec', '--exec-id', `told${++looks}`, called, 'cat', '/n'])).stdout;
    await until('it to be ready', async () => (await told()).includes('ready'));
    await containerd.ok('tasks', 'kill', '-s', 'SIGUSR1', called);
    await until('the signal', async () => (await told()).includes('usr'));
    await containerd.ok('tasks', 'kill', '-s', '15', called);
    await until('the end', async () => /STOPPED/.test((await tasks()).split('\n').find((line) => line.startsWith(called)) ?? ''));
    expect((await containerd.run(['tasks', 'rm', called])).stderr).toMatch(/code 4|^$/);
    await containerd.ok('containers', 'rm', called);
  });
  it('ten at a time', async () => {
    const answers = await Promise.all(Array.from({ length: 10 }, (_, n) => containerd.run(start(['--rm'], name(), 'sh', '-c', `echo ${n}; exit ${n}`))));
    expect(answers.map(({ code, stdout }) => [code, stdout])).toEqual(answers.map((_, n) => [n, `${n}\n`]));
  });
  it('a program that someone kills leaves nothing that delete cannot remove', async () => {
    const called = await sleeper();
    const pid = Number(/(\d+)\s+RUNNING/.exec((await tasks()).split('\n').find((line) => line.startsWith(called)) ?? '')?.[1]);
    process.kill(pid, 'SIGKILL');
    await until('its end to be known', async () => /STOPPED/.test((await tasks()).split('\n').find((line) => line.startsWith(called)) ?? ''));
    await remove(called);
  });
});

run('the runtime alone, as its shim calls it', () => {
  it('answers what containerd asks of a container that is gone in its words', async () => {
    const { code, stderr } = await containerd.machine.run([runtime, '--root', `${containerd.machine.path('state', 'oci')}/default`, '--log', containerd.machine.path('log.json'), '--log-format', 'json', 'kill', '--all', 'nobody', '9']);
    expect([code, stderr]).toEqual([1, expect.stringContaining('container does not exist')]);
    const lines = readFileSync(containerd.machine.path('log.json'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as { level: string; msg: string });
    expect(lines.at(-1)).toMatchObject({ level: 'error', msg: expect.stringContaining('does not exist') as string });
  });
  it('checkpoint and restore', async ({ skip }) => {
    if (missingPeers('criu').length > 0) skip('criu is not installed');
    const features = await containerd.machine.run(['criu', 'check']);
    if (features.code !== 0) skip(`criu does not work here: ${features.stderr.slice(-200)}`);
    const called = name();
    const reference = `localhost/checkpoint/${called}:latest`;
    await containerd.ok(...start(['-d'], called, 'sh', '-c', 'n=41; echo begun >>/begun; while :; do n=$((n+1)); echo $n >/n; sleep 0.05; done'));
    const count = async (): Promise<number> => Number(await containerd.ok('tasks', 'exec', '--exec-id', 'count', called, 'cat', '/n'));
    await until('it to count', async () => (await count()) > 42);
    await containerd.ok('tasks', 'checkpoint', '--image-path', containerd.machine.path('image'), '--work-path', containerd.machine.path('work'), called);
    expect(existsSync(containerd.machine.path('image', 'descriptors.json')) && (await tasks())).toContain('RUNNING');
    await containerd.ok('containers', 'checkpoint', '--rw', '--task', called, reference);
    const before = await count();
    await remove(called);
    await containerd.ok('containers', 'restore', '--rw', '--live', called, reference);
    await until('it to count on', async () => (await count()) > before);
    expect(await containerd.ok('tasks', 'exec', '--exec-id', 'begun', called, 'cat', '/begun')).toBe('begun');
    await remove(called);
    await containerd.ok('images', 'rm', reference);
  });
});

run('what is left', () => {
  it('is nothing, once all are removed', async ({ skip }) => {
    if (!ours) skip('another runtime');
    expect(await containerd.machine.leftovers()).toEqual([]);
  });
});
