/** Groups of bundles on the unified hierarchy, made by the engine itself and by systemd: where callers of runc look for them. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { groupsBelow } from '../helpers/cgroup.ts';
import { hasBusybox, OciRuntime } from '../helpers/oci.ts';
import { until } from '../helpers/wait.ts';

const top = '/sys/fs/cgroup';
const read = (path: string): string => readFileSync(path, 'utf8').trim();
const isV2 = existsSync(`${top}/cgroup.controllers`) && process.getuid?.() === 0 && hasBusybox;
const isSystemd = isV2 && read('/proc/1/comm') === 'systemd' && existsSync('/run/systemd/system');
const host = (...argv: string[]): string => execFileSync(argv[0] as string, argv.slice(1), { encoding: 'utf8' }).trim();
const groupOf = (pid: number | string): string => /^0::(.*)$/m.exec(read(`/proc/${pid}/cgroup`))?.[1] ?? '';
const files = (folder: string, names: readonly string[]): string[] => names.map((name) => read(join(folder, name)));
const resources = { memory: { limit: 64 << 20, swap: 64 << 20 }, cpu: { shares: 512, quota: 50_500, period: 100_000 }, pids: { limit: 20 } };
const limits = ['memory.max', 'cpu.weight', 'cpu.max', 'pids.max'];
const expected = [String(64 << 20), '20', '50500 100000', '20'];
const first = `hold() { while :; do sleep 1000; done; }; hold`;

describe.skipIf(!isV2)('groups of bundles', () => {
  let oci: OciRuntime;
  beforeAll(() => {
    oci = new OciRuntime({ resident: 'auto' });
  });
  afterAll(async () => expect(await oci?.close()).toEqual([]));
  const bundle = (cgroupsPath: string, more: Record<string, unknown> = {}, annotations: Record<string, string> = {}): string =>
    oci.bundle((spec) => {
      spec.linux = { ...spec.linux, cgroupsPath, resources: { ...resources, ...more } } as NonNullable<typeof spec.linux>;
      spec.annotations = annotations;
    }, ['sh', '-c', first]);

  it('are the path that is named, of many below a parent that stays', async () => {
    const made = join(top, 'engine-test-oci');
    try {
      await oci.ok('run', '-d', '-b', bundle('/engine-test-oci/pod/a'), 'a');
      await oci.ok('run', '-d', '-b', bundle('/engine-test-oci/pod/b'), 'b');
      const { pid } = await oci.state('a');
      expect(groupOf(pid)).toBe('/engine-test-oci/pod/a');
      expect(files(join(made, 'pod/a'), limits)).toEqual(expected);
      expect(await oci.ok('exec', 'a', 'cat', '/proc/self/cgroup')).toBe('0::/\n');
      mkdirSync(join(made, 'pod/a/session'));
      expect(await oci.ok('exec', '--cgroup', 'session', 'a', 'cat', '/proc/self/cgroup')).toBe('0::/session\n');
      await oci.ok('update', '--memory', String(80 << 20), '--memory-swap', String(80 << 20), '--pids-limit', '30', 'a');
      expect(files(join(made, 'pod/a'), ['memory.max', 'pids.max'])).toEqual([String(80 << 20), '30']);
      const refused = await oci.call(['run', '-d', '-b', bundle('/engine-test-oci/pod/b'), 'c']);
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('container\'s cgroup is not empty')]);
      // groups that somebody has made inside go with it
      mkdirSync(join(made, 'pod/a/sub/deeper'), { recursive: true });
      await oci.ok('delete', '--force', 'a');
      expect(groupsBelow(join(made, 'pod'))).toEqual(['b']);
      expect((await oci.state('b')).status).toBe('running');
      await oci.ok('delete', '--force', 'b');
      expect(groupsBelow(join(made, 'pod'))).toEqual([]);
    } finally {
      for (const folder of ['pod', '']) if (existsSync(join(made, folder))) rmdirSync(join(made, folder));
    }
  });

  it.each(isSystemd ? ['cgroupfs', 'systemd'] : ['cgroupfs'])('belong to the user of a container that may write to them, by %s', async (manager) => {
    const made = (isWritable: boolean, name: string): string => {
      const folder = oci.bundle((spec) => {
        const ids = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
        const mounts = (spec.mounts ?? []).filter(({ destination }) => destination !== '/sys/fs/cgroup');
        spec.mounts = [...mounts, { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'noexec', 'nodev', isWritable ? 'rw' : 'ro'] }];
        spec.linux = { ...spec.linux, cgroupsPath: manager === 'systemd' ? `engtest.slice:engtest:${name}` : `/engine-test-owned-${name}`, uidMappings: ids, gidMappings: ids, namespaces: [...(spec.linux?.namespaces ?? []).filter(({ type }) => type !== 'cgroup'), { type: 'cgroup' }, { type: 'user' }] } as NonNullable<typeof spec.linux>;
      }, ['sh', '-c', first]);
      host('chown', '-R', '100000:100000', join(folder, 'rootfs'));
      return folder;
    };
    const ownersOf = async (id: string): Promise<number[]> => {
      const folder = join(top, groupOf((await oci.state(id)).pid));
      return ['', 'cgroup.procs', 'cgroup.subtree_control', 'cgroup.threads', 'memory.max'].map((file) => statSync(join(folder, file)).uid);
    };
    await oci.ok(`--cgroup-manager=${manager}`, 'run', '-d', '-b', made(true, 'own'), 'own');
    expect(await ownersOf('own')).toEqual([100_000, 100_000, 100_000, 100_000, 0]);
    await oci.ok('exec', 'own', 'sh', '-c', '/bin/busybox mkdir /sys/fs/cgroup/mine && echo $$ > /sys/fs/cgroup/mine/cgroup.procs');
    await oci.ok(`--cgroup-manager=${manager}`, 'run', '-d', '-b', made(false, 'not'), 'not');
    expect(await ownersOf('not')).toEqual([0, 0, 0, 0, 0]);
    for (const id of ['own', 'not']) await oci.ok('delete', '--force', id);
  });

  describe.skipIf(!isSystemd)('made by systemd', () => {
    const unit = 'engtest-web.scope';
    const inside = join(top, 'engtest.slice', unit);
    const show = (...names: string[]): Record<string, string> => Object.fromEntries(host('systemctl', 'show', ...names.map((name) => `--property=${name}`), unit).split('\n').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
    const isKnown = (): boolean => host('systemctl', 'list-units', '--all', '--plain', '--no-legend', 'engtest-*.scope') !== '';
    afterAll(() => void spawnSync('systemctl', ['stop', 'engtest.slice']));

    it('are the scope itself, with nobody else in it, and limits that stay', async () => {
      const path = bundle('engtest.slice:engtest:web', {}, { 'org.systemd.property.TimeoutStopSec': 'uint32 7', 'org.systemd.property.After': '[\'local-fs.target\']' });
      await oci.ok('--systemd-cgroup', 'create', '-b', path, 'web');
      const { pid } = await oci.state('web');
      expect(groupOf(pid)).toBe(`/engtest.slice/${unit}`);
      expect([read(join(inside, 'cgroup.procs')), groupsBelow(inside)]).toEqual([String(pid), []]);
      expect(files(inside, limits)).toEqual(expected);
      expect(show('Slice', 'Delegate', 'DefaultDependencies', 'MemoryMax', 'TasksMax', 'CPUWeight', 'CPUQuotaPerSecUSec', 'TimeoutStopUSec')).toEqual({ Slice: 'engtest.slice', Delegate: 'yes', DefaultDependencies: 'no', MemoryMax: String(64 << 20), TasksMax: '20', CPUWeight: '20', CPUQuotaPerSecUSec: '510ms', TimeoutStopUSec: '7s' });
      expect(show('After')['After']).toContain('local-fs.target');
      await oci.ok('start', 'web');
      expect(await oci.ok('exec', 'web', 'cat', '/proc/self/cgroup')).toBe('0::/\n');
      await oci.ok('update', '--memory', String(80 << 20), '--memory-swap', String(80 << 20), '--cpu-quota', '25000', '--pids-limit', '30', 'web');
      const changed = [String(80 << 20), '20', '25000 100000', '30'];
      expect(files(inside, limits)).toEqual(changed);
      host('systemctl', 'daemon-reload');
      expect(files(inside, limits)).toEqual(changed);
      expect(show('MemoryMax', 'TasksMax', 'CPUQuotaPerSecUSec')).toEqual({ MemoryMax: String(80 << 20), TasksMax: '30', CPUQuotaPerSecUSec: '250ms' });
      // the filter of devices is still there
      expect((await oci.call(['exec', 'web', 'sh', '-c', '/bin/busybox mknod /dev/shm/mem c 1 1 && : < /dev/shm/mem'])).code).not.toBe(0);
      const taken = await oci.call(['--systemd-cgroup', 'create', '-b', bundle('engtest.slice:engtest:web'), 'other']);
      expect([taken.code, taken.stderr]).toEqual([1, expect.stringContaining('container\'s cgroup is not empty')]);
      await oci.ok('pause', 'web');
      expect((await oci.state('web')).status).toBe('paused');
      await oci.ok('delete', '--force', 'web');
      expect(existsSync(inside)).toBe(false);
      await until('systemd to collect', () => !isKnown());
    });

    it('hold one process where one is allowed, and a user namespace; what is wrong is refused by its name', async () => {
      const one = oci.bundle((spec) => {
        spec.linux = { ...spec.linux, cgroupsPath: 'engtest.slice:engtest:one', resources: { pids: { limit: 1 } }, uidMappings: [{ containerID: 0, hostID: 100_000, size: 65_536 }], gidMappings: [{ containerID: 0, hostID: 100_000, size: 65_536 }], namespaces: [...(spec.linux?.namespaces ?? []), { type: 'user' }] } as NonNullable<typeof spec.linux>;
      }, ['sleep', '1000']);
      host('chown', '-R', '100000:100000', join(one, 'rootfs'));
      await oci.ok('--cgroup-manager=systemd', 'run', '-d', '-b', one, 'one');
      const { pid } = await oci.state('one');
      expect([groupOf(pid), read(join(top, groupOf(pid), 'pids.current'))]).toEqual(['/engtest.slice/engtest-one.scope', '1']);
      await oci.ok('kill', 'one', 'KILL');
      await oci.untilStatus('one', 'stopped');
      await oci.ok('delete', 'one');
      for (const [path, annotations, words] of [
        ['/a/path', {}, 'for systemd cgroups, got'],
        ['engtest.slice:engtest:x', { 'org.systemd.property.Slice': '\'a.slice\'' }, 'org.systemd.property.Slice'],
        ['engtest.slice:engtest:x', { 'org.systemd.property.NoSuchThing': 'true' }, 'NoSuchThing'],
      ] as const) {
        const { code, stderr } = await oci.call(['--systemd-cgroup', 'create', '-b', bundle(path, {}, annotations), 'x']);
        expect([code, stderr]).toEqual([1, expect.stringContaining(words)]);
      }
      await until('systemd to collect', () => !isKnown());
    });

    it('leave nothing when the runtime is killed while systemd is asked', async () => {
      const path = bundle('engtest.slice:engtest:cut');
      const folder = join(oci.root, 'cut');
      // another instant each time
      const pause = Math.floor(Math.random() * 200);
      const child = spawn(join(import.meta.dirname, '../../bin/engine-oci'), ['--root', oci.root, '--systemd-cgroup', 'create', '-b', path, 'cut'], { env: { ...oci.engine.env, ENGINE_RESIDENT: 'off' }, stdio: 'ignore' });
      const ended = new Promise((resolve) => child.once('exit', resolve));
      await until('it to begin', () => existsSync(folder) || child.exitCode !== null);
      await new Promise((resolve) => setTimeout(resolve, pause));
      child.kill('SIGKILL');
      await ended;
      await until(`the end of what began (killed after ${pause} ms)`, async () => (await oci.call(['delete', '--force', 'cut'])).code === 0 && !existsSync(folder) && !isKnown());
    });
  });
});
