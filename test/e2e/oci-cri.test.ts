/** Kubernetes' side: containerd's CRI plugin with a runtime handler that is ours, asked as a kubelet asks it. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ContainerdCaller, image } from '../helpers/callers-containerd.ts';
import { documented, example, makeFolder, needed, runtime } from '../helpers/callers.ts';
import { Cri, CriError } from '../helpers/cri.ts';
import { missingPeers } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';

const missing = missingPeers(...needed, 'containerd', 'ctr', 'containerd-shim-runc-v2');
if (!existsSync('/usr/lib/cni/bridge')) missing.push('CNI plugins');
if (missing.length > 0) console.error(`no CRI above the runtime, missing: ${missing.join(', ')}`);
const run = describe.skipIf(missing.length > 0);

let containerd: ContainerdCaller;
let cri: Cri;
beforeAll(async () => {
  if (missing.length > 0) return;
  containerd = await ContainerdCaller.start();
  cri = new Cri(containerd.socket);
  // it answers before its plugins are up
  await until('the CRI to be ready', async () => (await cri.call<{ status: { conditions: { status: boolean }[] } }>('Status').catch(() => undefined))?.status.conditions.every(({ status }) => status));
});
afterAll(async () => {
  if (!containerd) return;
  const { items = [] } = await cri.call<{ items?: { id: string }[] }>('ListPodSandbox');
  for (const { id } of items) for (const verb of ['StopPodSandbox', 'RemovePodSandbox']) await cri.call(verb, { pod_sandbox_id: id });
  cri.close();
  expect(await containerd.close()).toEqual([]);
});

/** A pod as the kubelet describes it: cgroups of its own, the handler of its RuntimeClass. */
class Pod {
  readonly name: string;
  id = '';
  readonly config: object;
  constructor(name: string, more: object = {}, onNode = false) {
    this.name = name;
    const { machine, logs } = containerd;
    this.config = {
      metadata: { name, uid: `uid-${name}`, namespace: 'default', attempt: 0 }, hostname: onNode ? '' : name, log_directory: makeFolder(join(logs, name)),
      linux: { cgroup_parent: `/${machine.cgroup}/pod-${name}`, security_context: { namespace_options: { pid: 1 } }, ...more },
    };
  }
  async start(handler = /^handler: (\w+)$/m.exec(example('runtimeclass.yaml'))?.[1]): Promise<this> {
    this.id = (await cri.call<{ pod_sandbox_id: string }>('RunPodSandbox', { config: this.config, runtime_handler: handler })).pod_sandbox_id;
    containerd.machine.watch(this.id);
    return this;
  }
  async create(name: string, command: readonly string[], linux: { readonly security_context?: object; readonly resources?: object } = {}, more: object = {}): Promise<string> {
    const config = { metadata: { name, attempt: 0 }, image: { image }, command: [...command], log_path: `${name}.log`, linux: { ...linux, security_context: { namespace_options: { pid: 1 }, ...linux.security_context } }, ...more };
    const { container_id: id } = await cri.call<{ container_id: string }>('CreateContainer', { pod_sandbox_id: this.id, config, sandbox_config: this.config });
    containerd.machine.watch(id);
    return id;
  }
  async run(name: string, command: readonly string[], linux: { readonly security_context?: object; readonly resources?: object } = {}, more: object = {}): Promise<string> {
    const id = await this.create(name, command, linux, more);
    await cri.call('StartContainer', { container_id: id });
    return id;
  }
  log(name: string): string {
    return readFileSync(join(containerd.logs, this.name, `${name}.log`), 'utf8');
  }
  async end(): Promise<void> {
    await cri.call('StopPodSandbox', { pod_sandbox_id: this.id });
    await cri.call('RemovePodSandbox', { pod_sandbox_id: this.id });
  }
}
const sh = (script: string): string[] => ['sh', '-c', script];
interface Status { readonly state: string; readonly exit_code: number; readonly reason: string; readonly message: string }
const status = async (id: string): Promise<Status> => (await cri.call<{ status: Status }>('ContainerStatus', { container_id: id })).status;
async function ended(id: string): Promise<Status> {
  return until('the container to end', async () => { const now = await status(id); return now.state === 'CONTAINER_EXITED' ? now : undefined; });
}
async function exec(id: string, script: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const answer = await cri.call<{ stdout: Uint8Array; stderr: Uint8Array; exit_code: number }>('ExecSync', { container_id: id, cmd: sh(script), timeout: 20 });
  return { code: answer.exit_code, stdout: Buffer.from(answer.stdout).toString(), stderr: Buffer.from(answer.stderr).toString() };
}

run('a pod', () => {
  it('has an address, a name and namespaces that its containers share', async () => {
    const pod = await new Pod('shared').start();
    const { status: sandbox } = await cri.call<{ status: { state: number; network: { ip: string }; runtime_handler: string } }>('PodSandboxStatus', { pod_sandbox_id: pod.id });
    expect(sandbox).toMatchObject({ state: 0, runtime_handler: 'engine', network: { ip: expect.stringMatching(/^10\.244\.0\.\d+$/) as string } });
    const [one, two] = [await pod.run('one', ['sleep', '1000']), await pod.run('two', sh('echo told; echo wrong >&2; sleep 1000'))];
    // as somebody looks at a node who has just given it the handler
    const [usable, handler, ours] = await Promise.all(['engine-oci --version', 'containerd config dump', 'engine-oci --root'].map((begins) => containerd.machine.ok(['sh', '-ec', documented('kubernetes.md', begins).replaceAll(/^engine-oci|&& engine-oci/g, (word) => word.replace('engine-oci', runtime)).replace('containerd config', `containerd --config ${containerd.machine.path('containerd.toml')} config`)])));
    expect(usable).toMatch(/usable$/);
    expect(handler).toContain(`BinaryName = "${runtime}"`);
    expect([pod.id, one, two].filter((id) => ours?.includes(id))).toHaveLength(3);
    const spaces = async (id: string): Promise<string[]> => (await exec(id, 'for kind in net ipc uts pid mnt; do readlink /proc/self/ns/$kind; done')).stdout.trim().split('\n');
    const [first, second] = [await spaces(one), await spaces(two)];
    expect(first.map((space, n) => space === second[n])).toEqual([true, true, true, false, false]);
    expect((await exec(one, 'hostname; ip -4 -o addr show eth0')).stdout).toMatch(new RegExp(`^shared\\n.*${sandbox.network.ip}/24`));
    // of both streams, in whichever order they were read
    await until('its log', () => ['stdout F told\n', 'stderr F wrong\n'].every((line) => pod.log('two').includes(line)));
    expect(await exec(one, 'echo o; echo e >&2; exit 9')).toEqual({ code: 9, stdout: 'o\n', stderr: 'e\n' });
    await expect(cri.call('ExecSync', { container_id: one, cmd: ['sleep', '30'], timeout: 1 })).rejects.toThrow(/timeout|exceeded/);
    // two pods reach each other
    const other = await new Pod('other').start();
    const asking = await other.run('asks', ['sleep', '1000']);
    expect((await exec(asking, `ping -c 1 -W 2 ${sandbox.network.ip} >/dev/null && echo reached`)).stdout).toBe('reached\n');
    await Promise.all([pod.end(), other.end()]);
  });
  it('on the network of its node, with the node\'s processes', async () => {
    const pod = await new Pod('node', { security_context: { namespace_options: { network: 2, pid: 2, ipc: 2 } } }, true).start();
    const id = await pod.run('one', ['sleep', '1000'], { security_context: { namespace_options: { network: 2, pid: 2, ipc: 2 } } });
    expect((await exec(id, 'readlink /proc/self/ns/net')).stdout.trim()).toBe(await containerd.machine.ok(['readlink', '/proc/self/ns/net']));
    expect((await exec(id, 'test -d /proc/$PPID; ls -d /proc/1/task && cat /proc/1/comm')).stdout).toContain(readFileSync('/proc/1/comm', 'utf8').trim());
    await pod.end();
  });
});

run('a container', () => {
  it('starts, ends with its code, is stopped in time and removed', async () => {
    const pod = await new Pod('lives').start();
    const created = await pod.create('waits', sh('exit 3'));
    expect((await status(created)).state).toBe('CONTAINER_CREATED');
    await cri.call('StartContainer', { container_id: created });
    expect(await ended(created)).toMatchObject({ exit_code: 3, reason: 'Error' });
    await cri.call('RemoveContainer', { container_id: created });
    const never = await pod.create('never', ['true']);
    await cri.call('RemoveContainer', { container_id: never });
    const willing = await pod.run('willing', sh('trap "exit 7" TERM; echo ready; while :; do sleep 0.02; done'));
    await until('it to be ready', () => pod.log('willing').includes('ready'));
    await cri.call('StopContainer', { container_id: willing, timeout: 20 });
    expect(await status(willing)).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 7 });
    const deaf = await pod.run('deaf', sh('trap "" TERM; echo ready; while :; do sleep 0.02; done'));
    await until('it to be ready', () => pod.log('deaf').includes('ready'));
    await cri.call('StopContainer', { container_id: deaf, timeout: 1 });
    expect(await status(deaf)).toMatchObject({ exit_code: 137 });
    const missingProgram = await pod.create('missing', ['/no/such']);
    await expect(cri.call('StartContainer', { container_id: missingProgram })).rejects.toThrow(/no such file|not found/);
    expect((await ended(missingProgram)).exit_code).toBe(128); // containerd's own: it never began
    await pod.end();
  });
  it('has the limits it was given, also new ones, and numbers', async () => {
    const pod = await new Pod('limits').start();
    const v2 = existsSync('/sys/fs/cgroup/cgroup.controllers');
    const files = v2 ? 'memory.max cpu.max' : 'memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us';
    const id = await pod.run('limited', ['sleep', '1000'], { resources: { memory_limit_in_bytes: 64 << 20, cpu_period: 100000, cpu_quota: 50000, cpu_shares: 512, oom_score_adj: 500 } });
    expect((await exec(id, `cd /sys/fs/cgroup; cat ${files} /proc/self/oom_score_adj`)).stdout).toBe(`${64 << 20}\n${v2 ? '50000 100000' : '50000'}\n500\n`);
    await cri.call('UpdateContainerResources', { container_id: id, linux: { memory_limit_in_bytes: 96 << 20, cpu_period: 100000, cpu_quota: 25000, oom_score_adj: 500 } });
    expect((await exec(id, `cd /sys/fs/cgroup; cat ${files}`)).stdout).toBe(`${96 << 20}\n${v2 ? '25000 100000' : '25000'}\n`);
    const { stats } = await cri.call<{ stats: { cpu: { usage_core_nano_seconds: { value: number } }; memory: { working_set_bytes: { value: number } } } }>('ContainerStats', { container_id: id });
    expect(stats.cpu.usage_core_nano_seconds.value).toBeGreaterThan(0);
    expect(stats.memory.working_set_bytes.value).toBeGreaterThan(0);
    const hungry = await pod.run('hungry', ['tail', '/dev/zero'], { resources: { memory_limit_in_bytes: 24 << 20 } });
    expect(await ended(hungry)).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
    await pod.end();
  });
  it('has the security context of its pod', async () => {
    const pod = await new Pod('secured', { sysctls: { 'net.ipv4.ip_unprivileged_port_start': '7' } }).start();
    const mounted = makeFolder(containerd.machine.path('mounted'));
    containerd.machine.write('mounted/file', 'from the node\n');
    const context = {
      capabilities: { drop_capabilities: ['ALL'], add_capabilities: ['NET_BIND_SERVICE'] }, run_as_user: { value: 1000 }, supplemental_groups: [3000], readonly_rootfs: true, no_new_privs: true, seccomp: { profile_type: 0 },
      masked_paths: ['/proc/keys'], readonly_paths: ['/proc/sys'],
    };
    const more = { working_dir: '/tmp', envs: [{ key: 'FROM', value: 'pod' }], mounts: [{ container_path: '/m', host_path: mounted, readonly: true }], devices: [{ container_path: '/dev/zero2', host_path: '/dev/zero', permissions: 'r' }] };
    const id = await pod.run('secured', ['sleep', '1000'], { security_context: context }, more);
    const { stdout } = await exec(id, 'id -u; id -G; pwd; echo $FROM; cat /m/file /proc/sys/net/ipv4/ip_unprivileged_port_start; head -c 0 /dev/zero2 && echo device; touch /x 2>&1 | grep -c Read-only; grep -E "NoNewPrivs|Seccomp:|CapBnd" /proc/self/status | tr -s "\\t " " "; wc -c </proc/keys');
    expect(stdout.split('\n').slice(0, -1)).toEqual(['1000', expect.stringMatching(/\b3000$/), '/tmp', 'pod', 'from the node', '7', 'device', '1', 'CapBnd: 0000000000000400', 'NoNewPrivs: 1', 'Seccomp: 2', '0']);
    await pod.end();
  });
  it('a pod\'s containers go on without containerd, and are stopped by the next', async () => {
    const pod = await new Pod('restored').start();
    const id = await pod.run('one', sh('trap "exit 5" TERM; while :; do sleep 0.02; done'));
    cri.close();
    await containerd.endDaemon();
    await containerd.startDaemon();
    cri = new Cri(containerd.socket);
    await until('the CRI to be back', async () => (await cri.call('Status').catch(() => undefined)) !== undefined);
    expect((await status(id)).state).toBe('CONTAINER_RUNNING');
    expect((await exec(id, 'echo still')).stdout).toBe('still\n');
    await cri.call('StopContainer', { container_id: id, timeout: 20 });
    expect((await status(id)).exit_code).toBe(5);
    await pod.end();
  });
  it('a handler that nobody has configured is refused', async () => {
    await expect(new Pod('nobody').start('nobody')).rejects.toThrow(CriError);
  });
});
