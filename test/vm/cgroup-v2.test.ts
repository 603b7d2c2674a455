/** The unified hierarchy on a real kernel: the same values as other runtimes write, parents, an engine inside of a group, and nothing left after a kill. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyboxRootfs, busyboxTar, importBusybox } from '../helpers/busybox.ts';
import { groupsBelow } from '../helpers/cgroup.ts';
import { TestEngine } from '../helpers/engine.ts';
import { which } from '../helpers/peers.ts';
import { until } from '../helpers/wait.ts';

const top = '/sys/fs/cgroup';
const unable = existsSync(`${top}/cgroup.controllers`) ? (process.getuid?.() === 0 ? undefined : 'not root') : 'no cgroup v2 hierarchy';
const read = (path: string): string => readFileSync(path, 'utf8').trim();

describe.skipIf(unable)('cgroup v2', () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = new TestEngine({ config: 'drivers: { cgroup: v2 }\n' });
    await importBusybox(engine);
  });
  afterAll(async () => expect(await engine.close()).toEqual([]));

  describe('values', () => {
    const disk = existsSync('/sys/class/block/vda/dev') ? { path: '/dev/vda', number: read('/sys/class/block/vda/dev') } : undefined;
    const flags = ['--memory', '64m', '--memory-reservation', '32m', '--cpus', '0.5', '--cpu-shares', '512', '--pids-limit', '20', '--blkio-weight', '300', '--cpuset-cpus', '0', ...(disk ? ['--device-read-bps', `${disk.path}:1mb`, '--device-write-iops', `${disk.path}:100`] : [])];
    const [major = 0, minor = 0] = (disk?.number ?? '').split(':').map(Number);
    const resources = {
      devices: [{ allow: false, access: 'rwm' }],
      memory: { limit: 64 << 20, swap: 128 << 20, reservation: 32 << 20 }, cpu: { shares: 512, quota: 50_000, period: 100_000, cpus: '0' }, pids: { limit: 20 },
      blockIO: { weight: 300, ...(disk ? { throttleReadBpsDevice: [{ major, minor, rate: 1 << 20 }], throttleWriteIOPSDevice: [{ major, minor, rate: 100 }] } : {}) },
    };
    const script = 'cd /sys/fs/cgroup; for f in memory.max memory.swap.max memory.low memory.high memory.min cpu.max cpu.max.burst cpu.weight cpu.idle cpuset.cpus cpuset.mems pids.max io.weight io.bfq.weight io.max memory.oom.group; do [ -e $f ] && echo "$f=$(cat $f)"; done; exit 0';
    let ours = '';
    let folder = '';
    beforeAll(async () => {
      folder = mkdtempSync('/var/tmp/engine-peers-');
      ours = await engine.ok('run', '--rm', ...flags, 'busybox', 'sh', '-c', script);
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    it('are what the flags say', () => {
      expect(ours).toContain(`memory.max=${64 << 20}\nmemory.swap.max=${64 << 20}\nmemory.low=${32 << 20}\n`);
      expect(ours).toMatch(/cpu\.max=50000 100000[^]*cpu\.weight=20\n[^]*cpuset\.cpus=0\n[^]*pids\.max=20\n/);
      if (disk) expect(ours).toContain(`io.max=${disk.number} rbps=1048576 wbps=max riops=max wiops=100`);
    });
    for (const runtime of ['runc', 'crun']) {
      it.skipIf(!which(runtime))(`are what ${runtime} makes of the same v1-style resources`, () => {
        const bundle = join(folder, runtime);
        mkdirSync(bundle);
        busyboxRootfs(join(bundle, 'rootfs'));
        execFileSync(runtime, ['spec'], { cwd: bundle });
        const config = JSON.parse(read(join(bundle, 'config.json'))) as { process: { terminal: boolean; args: string[] }; linux: { resources: unknown; namespaces: { type: string }[] } };
        config.process.terminal = false;
        config.process.args = ['sh', '-c', script];
        config.linux.resources = resources;
        if (!config.linux.namespaces.some(({ type }) => type === 'cgroup')) config.linux.namespaces.push({ type: 'cgroup' });
        writeFileSync(join(bundle, 'config.json'), JSON.stringify(config));
        const { stdout, stderr } = spawnSync(runtime, ['--root', join(folder, `${runtime}-state`), 'run', '--bundle', bundle, `engine-peer-${runtime}`], { encoding: 'utf8' });
        expect((stdout || stderr).trimEnd()).toBe(ours);
      });
    }
    it.skipIf(!which('podman'))('are what podman makes of the same flags', () => {
      const root = join(folder, 'podman-rootfs');
      busyboxRootfs(root);
      const { stdout, stderr } = spawnSync('podman', [
        '--root', join(folder, 'podman'), '--runroot', join(folder, 'podman-run'), '--tmpdir', join(folder, 'podman-tmp'), '--storage-driver', 'vfs', '--cgroup-manager', 'cgroupfs', '--events-backend', 'none', '--log-level', 'error',
        'run', '--rm', '--network', 'none', '--cgroupns', 'private', '--log-driver', 'none', ...flags, '--rootfs', root, 'sh', '-c', script,
      ], { encoding: 'utf8', env: { ...process.env, CONTAINERS_CONF: '/dev/null' } });
      expect((stdout || stderr).trimEnd()).toBe(ours);
    });
  });

  it('of controllers that few have, files are written as they are said: huge pages', async () => {
    const controllers = read(`${top}/cgroup.controllers`).split(' ');
    expect(controllers).toContain('hugetlb');
    const wanted = [{ file: 'hugetlb.2MB.max', value: String(4 << 20) }, { file: 'hugetlb.2MB.rsvd.max', value: String(6 << 20) }];
    const shown = await engine.ok('run', '--rm', ...wanted.flatMap(({ file, value }) => ['--cgroup-conf', `${file}=${value}`]), 'busybox', 'sh', '-c', `cd /sys/fs/cgroup; cat ${wanted.map(({ file }) => file).join(' ')}`);
    expect(shown.split('\n')).toEqual(wanted.map(({ value }) => value));
  });

  it('a parent that was named is made with its controllers, and stays', async () => {
    const path = 'engine-test-parent/deep';
    try {
      expect(await engine.ok('run', '--rm', '--cgroup-parent', `/${path}`, '--cgroupns', 'host', '-m', '32m', 'busybox', 'sh', '-c', 'cat /proc/self/cgroup')).toContain(`/${path}/engine-`);
      await until('its group to be gone', () => groupsBelow(join(top, path)).length === 0);
      expect(read(join(top, path, 'cgroup.subtree_control')).split(' ')).toEqual(expect.arrayContaining(['cpu', 'memory', 'pids', 'io']));
    } finally {
      rmdirSync(join(top, path));
      rmdirSync(join(top, 'engine-test-parent'));
    }
  });

  it('a parent with processes of its own is refused, with what to do', async () => {
    const path = join(top, 'engine-test-busy');
    mkdirSync(path);
    const sleeper = execFileSync('sh', ['-c', `sleep 1000 >/dev/null 2>&1 & echo $! | tee ${path}/cgroup.procs`], { encoding: 'utf8' }).trim();
    try {
      const { code, stderr } = await engine.run(['run', '--rm', '--cgroup-parent', '/engine-test-busy', 'busybox', 'true']);
      expect(code).toBe(125);
      expect(stderr).toMatch(/has processes of its own.*\n?.*cgroup-parent/s);
    } finally {
      process.kill(Number(sleeper), 'SIGKILL');
      await until('the group to be empty', () => read(join(path, 'cgroup.events')).includes('populated 0'));
      rmdirSync(path);
    }
  });

  it('an engine inside of a group of its own makes room, and goes on there', async () => {
    const box = join(top, 'engine-test-box');
    const path = mkdtempSync('/var/tmp/engine-inside-');
    mkdirSync(box);
    try {
      const bin = join(import.meta.dirname, '../../bin/engine');
      const e = `${bin} --root ${path}/root --run-root ${path}/run`;
      const inside = `umount -l ${top}; mount -t cgroup2 cgroup2 ${top}; cat /proc/self/cgroup; ${e} import ${busyboxTar()} busybox >/dev/null && ${e} run --rm --net none -m 48m busybox cat /sys/fs/cgroup/memory.max && ${e} run --rm --net none busybox cat /proc/self/cgroup; cat /proc/self/cgroup ${top}/cgroup.subtree_control`;
      const { stdout, stderr } = spawnSync('sh', ['-c', `echo $$ > ${box}/cgroup.procs; exec unshare -C -m sh -c "$1"`, 'sh', inside], { encoding: 'utf8', env: { ...process.env, ENGINE_RESIDENT: 'off' } });
      const [before, limit, container, after, controllers = ''] = stdout.split('\n');
      expect({ before, limit, container, after, stderr }).toEqual({ before: '0::/', limit: String(48 << 20), container: '0::/', after: '0::/init', stderr: '' });
      expect(controllers.split(' ')).toEqual(expect.arrayContaining(['cpu', 'memory', 'pids']));
    } finally {
      await until('the box to be empty', () => read(join(box, 'cgroup.events')).includes('populated 0'));
      for (const name of groupsBelow(box)) rmdirSync(join(box, name));
      rmdirSync(box);
      rmSync(path, { recursive: true, force: true });
    }
  });

  it('a shim that is killed leaves no group, nor those that the container made', async () => {
    const id = (await engine.ok('run', '-d', '--privileged', 'busybox', 'sh', '-c', 'mount -o remount,rw /sys/fs/cgroup; mkdir /sys/fs/cgroup/in /sys/fs/cgroup/in/deep; (echo 0 > /sys/fs/cgroup/in/deep/cgroup.procs; sleep 1000) & touch /made; sleep 1000')).trim();
    await until('the groups', async () => (await engine.run(['exec', id, 'ls', '/made'])).code === 0);
    const pid = Number((await engine.ok('inspect', '-f', '{{.State.Pid}}', id)).trim());
    const group = join(top, /^0::(.*)$/m.exec(read(`/proc/${pid}/cgroup`))?.[1] ?? '');
    expect(groupsBelow(group)).toEqual(['in']);
    const shim = Number(/^PPid:\s*(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1]);
    process.kill(shim, 'SIGKILL');
    await until('the group to be gone', async () => {
      await engine.run(['ps']);
      return !existsSync(group);
    });
    await engine.ok('rm', '-f', id);
  });
});
