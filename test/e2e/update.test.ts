import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { unified } from '../helpers/cgroup.ts';
import { TestEngine } from '../helpers/engine.ts';
import { cpuLimit, limitOf, memoryLimit, ticksOf } from '../helpers/limits.ts';
import { until } from '../helpers/wait.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine();
  await importBusybox(engine);
});
afterEach(() => engine.removeContainers());
afterAll(async () => expect(await engine.close()).toEqual([]));

const MiB = 1 << 20;
const pids = async (name: string): Promise<string> => limitOf(engine, name, 'pids/pids.max', 'pids.max');
const host = async (name: string, field: string): Promise<string> => engine.ok('inspect', '-f', `{{.HostConfig.${field}}}`, name);

describe('update', () => {
  it('changes what holds now and what will hold at the next start', async () => {
    await engine.ok('run', '-d', '--name', 'one', '-m', '64m', 'busybox', 'sleep', '1000');
    expect(await engine.ok('update', '-m', '100m', '--cpus', '0.5', '--pids-limit', '30', 'one')).toBe('one');
    for (let round = 0; round < 2; round++) {
      expect([await memoryLimit(engine, 'one'), await cpuLimit(engine, 'one'), await pids('one')]).toEqual([100 * MiB, 0.5, '30']);
      expect([await host('one', 'Memory'), await host('one', 'NanoCpus'), await host('one', 'PidsLimit')]).toEqual([String(100 * MiB), '500000000', '30']);
      await engine.ok('restart', '-t', '0', 'one');
    }
    // what was not named stays; -1 lifts
    await engine.ok('update', '--pids-limit', '-1', 'one');
    expect([await memoryLimit(engine, 'one'), await cpuLimit(engine, 'one'), await pids('one')]).toEqual([100 * MiB, 0.5, 'max']);
  });
  it('reaches a container that does not run, at its next start', async () => {
    await engine.ok('create', '--name', 'one', 'busybox', 'sleep', '1000');
    await engine.ok('update', '-m', '32m', '--cpu-shares', '512', 'one');
    await engine.ok('start', 'one');
    expect(await memoryLimit(engine, 'one')).toBe(32 * MiB);
    expect(await limitOf(engine, 'one', 'cpu/cpu.shares', 'cpu.weight')).toBe(unified ? '20' : '512');
  });
  it('takes several containers, and goes on after one that is not there', async () => {
    for (const name of ['one', 'two']) await engine.ok('run', '-d', '--name', name, 'busybox', 'sleep', '1000');
    const result = await engine.run(['update', '-m', '48m', 'one', 'nope', 'two']);
    expect(result).toMatchObject({ code: 1, stdout: 'one\ntwo\n', stderr: expect.stringContaining('no such container: nope') as string });
    expect([await memoryLimit(engine, 'one'), await memoryLimit(engine, 'two')]).toEqual([48 * MiB, 48 * MiB]);
  });
  it('lets the kernel hold it at once', async () => {
    await engine.ok('run', '-d', '--name', 'hog', 'busybox', 'sh', '-c', '(while :; do :; done) & while :; do :; done');
    const pid = Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', 'hog'));
    await engine.ok('update', '--cpus', '0.1', 'hog');
    const before = { ticks: ticksOf(pid), at: Date.now() };
    await new Promise((resolve) => setTimeout(resolve, 2000));
    // one of two that share a tenth, 100 ticks a second
    expect((ticksOf(pid) - before.ticks) / ((Date.now() - before.at) / 10)).toBeLessThan(0.15);
    await engine.ok('update', '--pids-limit', '5', 'hog');
    expect((await engine.run(['exec', 'hog', 'sh', '-c', 'for i in 1 2 3 4 5 6 7; do sleep 100 & done; echo never'])).stderr).toMatch(/fork/);
    expect(await engine.ok('inspect', '-f', '{{.State.Status}}', 'hog')).toBe('running');
  });
  it('of a paused container holds as well', async () => {
    await engine.ok('run', '-d', '--name', 'one', 'busybox', 'sleep', '1000');
    await engine.ok('pause', 'one');
    await engine.ok('update', '-m', '48m', 'one');
    await engine.ok('unpause', 'one');
    expect(await memoryLimit(engine, 'one')).toBe(48 * MiB);
  });
});

describe('what cannot be', () => {
  it('is refused, and nothing is changed', async () => {
    await engine.ok('run', '-d', '--name', 'one', '-m', '64m', '--cpus', '0.5', 'busybox', 'sleep', '1000');
    const before = await engine.ok('inspect', '-f', '{{json .HostConfig}}', 'one');
    for (const [flags, said] of [
      [['-m', '1m'], /minimum memory limit allowed is 6MB/], [['-m', 'x'], /invalid value "x" for --memory/], [['-m', '300m'], /memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time/],
      [['--memory-swap', '32m'], /minimum memoryswap limit should be larger than memory limit/], [['--memory-reservation', '128m'], /minimum memory limit can not be less than memory reservation limit/],
      [['--cpu-quota', '5000'], /CPU quota cannot be updated as nano CPUs has already been set/], [['--cpu-period', '5000'], /CPU period cannot be updated as nano CPUs has already been set/], [['--cpus', '1000'], /this machine has/],
      [['--cpus', '1', '--cpu-quota', '5000'], /--cpus excludes/], [['--cpuset-cpus', '1-'], /a list such as 0-3,7/], [['--cpuset-cpus', '4000'], /requested CPUs are not available - requested 4000, available: /], [['--pids-limit', '-2'], /whole number from -1/], [['--blkio-weight', '5'], /range of blkio weight is from 10 to 1000/],
      [['--device-read-bps', '/dev/nope:1mb'], /no such device: \/dev\/nope/], [['--device-read-bps', '/dev/null:1mb'], /\/dev\/null is not a block device/], [['--device-read-bps', 'x:1'], /device below \/dev/], [['--restart', 'sometimes'], /sometimes/],
      [['--cgroup-conf', 'memory.high'], /FILE=VALUE/], [['--cpu-rt-period', '10', '--cpu-rt-runtime', '20'], /runtime cannot be higher than cpu real-time period/], [['--cpuset-cpus', '0', '--memory', '1m'], /minimum memory limit/], [['--nope', '1'], /unknown flag/], [[], /at least one flag/],
    ] as const) {
      const more = flags.some((flag) => flag === '--restart') || flags.length === 0 ? [] : ['--restart=always'];
      const { code, stderr } = await engine.run(['update', ...flags, ...more, 'one']);
      expect(stderr, flags.join(' ')).toMatch(said);
      expect(stderr.trimEnd().split('\n')).toHaveLength(1);
      expect(code).not.toBe(0);
    }
    expect(await engine.ok('inspect', '-f', '{{json .HostConfig}}', 'one')).toBe(before);
    expect([await memoryLimit(engine, 'one'), await cpuLimit(engine, 'one')]).toEqual([64 * MiB, 0.5]);
  });
  it('less memory than is in use is refused instead of killing', async () => {
    await engine.ok('run', '-d', '--name', 'fat', '-m', '200m', '--memory-swap', '200m', 'busybox', 'sh', '-c', 'x=$(yes | head -c 30000000); echo full; sleep 1000; :');
    await until('its memory', async () => (await engine.ok('logs', 'fat')) === 'full');
    const { code, stderr } = await engine.run(['update', '-m', '16m', '--memory-swap', '16m', '--pids-limit', '9', 'fat']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/in use|uses/);
    expect(await engine.ok('inspect', '-f', '{{.State.Status}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}', 'fat')).toMatch(new RegExp(`^running ${200 * MiB} (<nil>|null)`));
    expect([await memoryLimit(engine, 'fat'), await pids('fat')]).toEqual([200 * MiB, 'max']);
  });
  it('files of cgroup v2 are written there, and refused by name elsewhere', async () => {
    const flags = ['--cgroup-conf', 'memory.high=50331648'];
    const { code, stderr } = await engine.run(['run', '-d', '--name', 'one', ...flags, 'busybox', 'sleep', '1000']);
    if (unified) {
      expect(code, stderr).toBe(0);
      expect(await limitOf(engine, 'one', '', 'memory.high')).toBe('50331648');
      await engine.ok('update', '--cgroup-conf', 'memory.low=1048576', 'one');
      expect([await limitOf(engine, 'one', '', 'memory.high'), await limitOf(engine, 'one', '', 'memory.low')]).toEqual(['50331648', '1048576']);
    } else {
      expect([code, stderr]).toEqual([125, expect.stringMatching(/linux\.resources\.unified/)]);
      await engine.ok('run', '-d', '--name', 'two', 'busybox', 'sleep', '1000');
      expect((await engine.run(['update', ...flags, 'two'])).stderr).toMatch(/linux\.resources\.unified/);
    }
  });
  it('is no policy for what goes with its run', async () => {
    await engine.ok('run', '-d', '--rm', '--name', 'one', 'busybox', 'sleep', '1000');
    expect((await engine.run(['update', '--restart', 'always', 'one'])).stderr).toMatch(/AutoRemove is enabled/);
    await engine.ok('update', '-m', '48m', 'one');
    expect(await memoryLimit(engine, 'one')).toBe(48 * MiB);
  });
});

describe('limits of run', () => {
  it('says what it discards', async () => {
    const { code, stderr } = await engine.run(['run', '--rm', '--kernel-memory', '64m', 'busybox', 'true']);
    expect([code, stderr]).toEqual([0, expect.stringMatching(/--kernel-memory is deprecated and discarded/)]);
  });
});

it('many updates at once leave one of them, whole', async () => {
  await engine.ok('run', '-d', '--name', 'one', 'busybox', 'sleep', '1000');
  const sizes = [40, 50, 60, 70, 80];
  const results = await Promise.all(sizes.map((size) => engine.run(['update', '-m', `${size}m`, '--memory-swap', `${size * 2}m`, 'one'])));
  for (const { code, stderr } of results) expect([code, stderr]).toEqual([0, '']);
  const held = await memoryLimit(engine, 'one');
  expect(sizes.map((size) => size * MiB)).toContain(held);
  expect([await host('one', 'Memory'), await host('one', 'MemorySwap')]).toEqual([String(held), String(held * 2)]);
});
