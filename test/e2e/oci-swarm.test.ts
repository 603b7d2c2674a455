/** A Swarm of one node whose default runtime is ours, as docs/callers/swarm.md says: services, scaling, updates, a drained node. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DockerCaller } from '../helpers/callers-docker.ts';
import { documented, needed } from '../helpers/callers.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until as untilSoon } from '../helpers/wait.ts';

const missing = missingPeers(...needed, 'docker', 'dockerd', 'containerd', 'containerd-shim-runc-v2');
if (missing.length > 0) console.error(`no swarm above the runtime, missing: ${missing.join(', ')}`);
const run = describe.skipIf(missing.length > 0);

/** Each look is a command of docker, and the swarm needs the processors as well. */
const until = <T>(what: string, check: () => Promise<T>): Promise<NonNullable<T>> => untilSoon(what, check, 40_000, 50);

let docker: DockerCaller;
let overlay: string | undefined;
beforeAll(async () => {
  if (missing.length > 0) return;
  docker = await DockerCaller.start({ flags: documented('docker.md', 'dockerd ').split(' ').slice(1) });
  // an address that no one else has, on a wire that leads nowhere
  await docker.machine.ok(['sh', '-ec', 'ip link add wire type veth peer name end; ip link set wire up; ip link set end up; ip address add 192.0.2.1/24 dev wire']);
  overlay = (await docker.machine.run(['sh', '-c', 'ip link add probe type vxlan id 99 dstport 4789 && ip link del probe'])).code === 0 ? undefined : 'the kernel has no vxlan';
  await docker.machine.ok(['sh', '-ec', `${documented('swarm.md', 'docker swarm init').replace('ADDRESS', '192.0.2.1')} --task-history-limit 2\n${documented('swarm.md', 'docker node update --label-add')}`], { env: docker.env });
});
afterAll(async () => {
  if (!docker) return;
  for (const id of (await docker.ok('service', 'ls', '-q')).split('\n').filter(Boolean)) await docker.ok('service', 'rm', id);
  await until('the tasks to go', async () => (await docker.ok('ps', '-aq')) === '').catch(() => {});
  await docker.ok('swarm', 'leave', '--force');
  await docker.machine.ok(['ip', 'link', 'del', 'wire']);
  expect(await docker.close()).toEqual([]);
});

/** Lines of what a task runs, as it is now: those that are to run and do. */
const running = async (service: string): Promise<string[]> => (await docker.ok('service', 'ps', '--no-trunc', '-f', 'desired-state=running', '--format', '{{.ID}} {{.CurrentState}} {{.Error}}', service)).split('\n').filter((line) => / Running /.test(line));
async function untilRunning(service: string, count: number): Promise<string[]> {
  return until(`${count} tasks of ${service}`, async () => { const tasks = await running(service); return tasks.length === count ? tasks : undefined; });
}
/** Containers of a service's tasks, and nothing else, as they run now. */
const containers = async (service: string): Promise<string[]> => {
  const ids = (await docker.ok('ps', '-q', '--no-trunc', '-f', `label=com.docker.swarm.service.name=${service}`)).split('\n').filter(Boolean);
  docker.machine.watch(...ids);
  return ids;
};
const script = (text: string): string[] => ['busybox', 'sh', '-c', `trap "exit 0" TERM; ${text}; while :; do sleep 0.05; done`];
const create = (service: string, flags: readonly string[], command: readonly string[]): Promise<string> => docker.ok('service', 'create', '-q', '--detach', '--no-resolve-image', '--stop-grace-period', '1s', '--name', service, ...flags, ...command);

run('a swarm of one node', () => {
  it('runs services by our runtime, scales them, updates them one task after the other', async () => {
    await create('web', ['--replicas', '2', ...(/--constraint \S+/.exec(documented('swarm.md', 'docker service create'))?.[0].split(' ') ?? []), '--env', 'V=1', '--limit-memory', '64m', '--restart-delay', '100ms', '--update-delay', '0s', '--update-monitor', '100ms'], script('echo serving $V'));
    await untilRunning('web', 2);
    const first = await containers('web');
    expect(first).toHaveLength(2);
    expect(await docker.inspect(first[0] ?? '', '{{.HostConfig.Runtime}} {{.HostConfig.Memory}}')).toBe(`engine ${64 << 20}`);
    await docker.ok('service', 'scale', '-d', 'web=4');
    await untilRunning('web', 4);
    expect((await containers('web')).filter((id) => first.includes(id))).toHaveLength(2);
    await docker.ok('service', 'scale', '-d', 'web=2');
    await until('two of them to go', async () => (await containers('web')).length === 2);
    const before = await containers('web');
    await docker.ok('service', 'update', '-q', '-d', '--no-resolve-image', '--env-add', 'V=2', '--update-parallelism', '1', 'web');
    await until('the update', async () => (await docker.ok('service', 'inspect', '-f', '{{.UpdateStatus.State}}', 'web')) === 'completed');
    const after = await containers('web');
    expect(after).toHaveLength(2);
    expect(after.filter((id) => before.includes(id))).toEqual([]);
    expect(await docker.ok('exec', after[0] ?? '', 'sh', '-c', 'echo $V')).toBe('2');
    expect(await docker.ok('service', 'logs', '--raw', 'web')).toMatch(/serving 2/);
  });
  it('starts another task for one that dies', async () => {
    const [id = ''] = await containers('web');
    process.kill(Number(await docker.inspect(id, '{{.State.Pid}}')), 'SIGKILL');
    await until('another in its place', async () => { const now = await containers('web'); return now.length === 2 && !now.includes(id); });
  });
  it('drains its node, and takes it back', async () => {
    const node = await docker.ok('node', 'ls', '-q');
    await docker.ok('node', 'update', '--availability', 'drain', node);
    await until('its containers to end', async () => (await containers('web')).length === 0);
    await docker.ok('node', 'update', '--availability', 'active', node);
    await untilRunning('web', 2);
    await docker.ok('service', 'rm', 'web');
    await until('its containers to go', async () => (await docker.ok('ps', '-aq', '-f', 'label=com.docker.swarm.service.name=web')) === '');
  });
  it('secrets and configs are mounted', async () => {
    const secret = docker.machine.write('secret', 'hidden\n');
    await docker.ok('secret', 'create', 'word', secret);
    await docker.ok('config', 'create', 'settings', secret);
    await create('holder', ['--secret', 'word', '--config', 'source=settings,target=/etc/settings', '--read-only', '--user', 'app', '--cap-drop', 'ALL'], script('true'));
    await untilRunning('holder', 1);
    const [id = ''] = await containers('holder');
    expect(await docker.ok('exec', id, 'sh', '-c', 'cat /run/secrets/word /etc/settings; id -u; grep CapBnd /proc/self/status')).toMatch(/^hidden\nhidden\n1000\nCapBnd:\s+0+$/);
    await docker.ok('service', 'rm', 'holder');
    await until('its containers to go', async () => (await docker.ok('ps', '-aq', '-f', 'label=com.docker.swarm.service.name=holder')) === '');
    await docker.ok('secret', 'rm', 'word');
    await docker.ok('config', 'rm', 'settings');
  });
  it('an overlay network carries names and traffic between services', async ({ skip }) => {
    if (overlay) skip(overlay);
    await docker.ok('network', 'create', '-d', 'overlay', '--attachable', 'wide');
    // virtual addresses need IPVS, which not every kernel has
    await create('server', ['--network', 'wide', '--endpoint-mode', 'dnsrr'], script('while :; do echo served | nc -l -p 99; done'));
    await create('client', ['--network', 'wide', '--endpoint-mode', 'dnsrr'], script('true'));
    await Promise.all([untilRunning('server', 1), untilRunning('client', 1)]);
    const [id = ''] = await containers('client');
    await containers('server');
    expect(await until('an answer', async () => (await docker.run(['exec', id, 'nc', '-w', '2', 'server', '99'])).stdout)).toBe('served\n');
    await docker.ok('service', 'rm', 'server', 'client');
    await until('its containers to go', async () => (await docker.ok('ps', '-aq')) === '');
  });
});
