import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { cgroupSuite } from '@engine/core/contracts/cgroup/suite';
import { createNative } from '@engine/native';
import { createContainerRunner } from '@engine/native/container-runner';
import { createCgroupSystemd } from '../../plugins/cgroup-systemd/driver.ts';
import { createScopeHandler, HANDLER } from '../../plugins/cgroup-systemd/scope.ts';
import { createSystemd } from '../../plugins/cgroup-systemd/systemd.ts';
import { realBench } from '../e2e/conformance/bench.ts';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';

const top = '/sys/fs/cgroup';
const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
};
const isSystemd = read('/proc/1/comm')?.trim() === 'systemd' && existsSync('/run/systemd/system');
const host = async (...argv: string[]): Promise<string> => (await promisify(execFile)(argv[0] as string, argv.slice(1))).stdout.trimEnd();

describe.skipIf(!isSystemd)('under systemd', () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = new TestEngine();
    await importBusybox(engine);
  });
  afterAll(async () => {
    const instance = engine?.instance;
    expect(await engine?.close()).toEqual([]);
    // no unit, running or failed, and nothing of one on disk
    await until('systemd to collect', async () => (await units(instance)).length === 0);
    await until('systemd to forget', async () => (await host('find', '/run/systemd', '-name', `*${instance}*`)) === '');
  });
  const units = async (name = engine.instance): Promise<string[]> => (await host('systemctl', 'list-units', '--all', '--plain', '--no-legend', `*${name}*`)).split('\n').map((line) => line.split(' ')[0] ?? '').filter(Boolean);
  const show = async (unit: string, property: string): Promise<string> => host('systemctl', 'show', '--value', '-p', property, unit);
  const scopeOf = async (name: string): Promise<{ unit: string; inside: string; pid: string }> => {
    const pid = await engine.ok('inspect', '-f', '{{.State.Pid}}', name);
    const group = /^0::(.*)$/m.exec(read(`/proc/${pid}/cgroup`) ?? '')?.[1] ?? '';
    return { pid, inside: join(top, group), unit: group.split('/').at(-2) ?? '' };
  };

  it('a container is a scope of system.slice, with its shim, and limits in the group inside', async () => {
    await engine.ok('run', '-d', '--name', 'web', '-m', '64m', '--cpus', '0.5', '--pids-limit', '50', '--cpu-shares', '512', 'busybox', 'sleep', '1000');
    const { unit, inside, pid } = await scopeOf('web');
    expect(await units()).toEqual([unit]);
    expect(inside).toBe(join(top, 'system.slice', unit, unit.replace(/^container-|\.scope$/g, '')));
    expect(['memory.max', 'cpu.max', 'pids.max'].map((file) => read(join(inside, file))?.trim())).toEqual([String(64 << 20), '50000 100000', '50']);
    expect([await show(unit, 'Slice'), await show(unit, 'Delegate'), await show(unit, 'TasksMax'), await show(unit, 'CPUWeight'), await show(unit, 'Description')]).toEqual(['system.slice', 'yes', 'infinity', read(join(inside, 'cpu.weight'))?.trim(), expect.stringMatching(/^container [0-9a-f]{12} of engine-/)]);
    const status = await host('systemctl', 'status', '--no-pager', '-l', unit);
    expect(status).toMatch(new RegExp(`active \\(running\\)[^]*${pid} sleep 1000`));
    expect(readdirSync(join(inside, '..')).filter((name) => name === 'shim')).toEqual(['shim']);
    expect(read(`/proc/${read(join(inside, '../shim/cgroup.procs'))?.trim()}/comm`)).toBe('engine-shim\n');
    expect(await engine.ok('exec', 'web', 'cat', '/proc/self/cgroup')).toBe('0::/');
  });

  it('limits stay when systemd loads its units anew and executes itself anew, also changed ones', async () => {
    const { unit, inside } = await scopeOf('web');
    await engine.ok('update', '-m', '80m', '--memory-swap', '80m', '--cpu-shares', '2048', 'web');
    const weight = read(join(inside, 'cpu.weight'));
    const limits = (): (string | undefined)[] => [read(join(inside, 'memory.max')), read(join(inside, 'cpu.weight')), read(join(inside, '../cpu.weight')), read(join(inside, 'cpu.max'))];
    const expected = [`${80 << 20}\n`, weight, weight, '50000 100000\n'];
    expect(limits()).toEqual(expected);
    await host('systemctl', 'daemon-reload');
    expect(limits()).toEqual(expected);
    await host('systemctl', 'daemon-reexec');
    expect(limits()).toEqual(expected);
    expect(await show(unit, 'ActiveState')).toBe('active');
    // devices are filtered still, and the next start finds systemd again
    expect((await engine.run(['exec', 'web', 'sh', '-c', 'mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem'])).code).not.toBe(0);
    expect(await engine.ok('run', '--rm', 'busybox', 'echo', 'well')).toBe('well');
    await engine.ok('rm', '-f', 'web');
    await until('the scope to be collected', async () => (await units()).length === 0);
  });

  it('says that memory was the reason, however fast systemd collects', async () => {
    for (let i = 0; i < 3; i++) {
      expect((await engine.run(['run', '--name', 'eater', '-m', '20m', '--memory-swap', '20m', 'busybox', 'tail', '/dev/zero'])).code).toBe(137);
      expect(await engine.ok('inspect', '-f', '{{.State.OOMKilled}} {{.State.ExitCode}}', 'eater')).toBe('true 137');
      await engine.ok('rm', 'eater');
    }
  });

  it('takes a slice as parent, and nothing else', async () => {
    await engine.ok('run', '-d', '--name', 'deep', '--cgroup-parent', 'engtest-deep.slice', '--cgroup-conf', 'memory.min=4M', 'busybox', 'sleep', '1000');
    const { unit, inside } = await scopeOf('deep');
    expect([await show(unit, 'MemoryMin'), read(join(inside, 'memory.min'))]).toEqual([String(4 << 20), `${4 << 20}\n`]);
    expect(inside).toContain(`${top}/engtest.slice/engtest-deep.slice/${unit}/`);
    await engine.ok('rm', '-f', 'deep');
    const { code, stderr } = await engine.run(['run', '--rm', '--cgroup-parent', '/docker', 'busybox', 'true']);
    expect([code, stderr]).toEqual([125, expect.stringMatching(/cgroup parent \/docker.*--cgroup-parent mine\.slice/)]);
    await host('systemctl', 'stop', 'engtest-deep.slice', 'engtest.slice');
  });

  it('ends what systemctl stops, and what lost its shim', async () => {
    await engine.ok('run', '-d', '--name', 'stopped', 'busybox', 'sh', '-c', 'trap "exit 7" TERM; while :; do sleep 0.1; done');
    await host('systemctl', 'stop', (await scopeOf('stopped')).unit);
    expect(await engine.ok('wait', 'stopped')).toBe('7');
    await engine.ok('run', '-d', '--name', 'orphan', 'busybox', 'sh', '-c', 'sleep 1000 & sleep 1000');
    const { inside } = await scopeOf('orphan');
    process.kill(Number(read(join(inside, '../shim/cgroup.procs'))), 'SIGKILL');
    await until('its end', async () => (await engine.ok('ps', '-q')) === '');
    await until('the scope to be collected', async () => (await units()).length === 0);
    await engine.ok('rm', 'stopped', 'orphan');
  });

  it('an engine that is killed while systemd is asked leaves nothing', async () => {
    const cold = new TestEngine({ resident: 'off' });
    await importBusybox(cold);
    // from the moment when its run is written down, a little later each time
    for (const pause of [0, 40]) {
      const started = cold.start(['run', '--rm', '--name', 'cut', 'busybox', 'sleep', '1000'], { input: '' });
      await until('the engine to begin', () => existsSync(join(cold.runRoot, 'runs')) && readdirSync(join(cold.runRoot, 'runs')).length > 0);
      await new Promise((resolve) => setTimeout(resolve, pause));
      started.child.kill('SIGKILL');
      await started.result;
      // it may have come so far that there is a container, which goes on
      const ids = (await cold.ok('ps', '-aq')).split('\n').filter(Boolean);
      if (ids.length > 0) await cold.ok('rm', '-f', ...ids);
      await until('the undo', async () => (await units(cold.instance)).length === 0 && readdirSync(join(cold.runRoot, 'runs')).length === 0);
    }
    expect(await cold.close()).toEqual([]);
  });

  it('starts many at once', async () => {
    const names = Array.from({ length: 4 }, (_, i) => `many${i}`);
    await Promise.all(names.map((name) => engine.ok('run', '-d', '--name', name, 'busybox', 'sleep', '1000')));
    expect(await units()).toHaveLength(4);
    await engine.ok('rm', '-f', ...names);
    await until('the scopes to be collected', async () => (await units()).length === 0);
  }, 600_000);
});

describe.skipIf(!isSystemd)('the contract under systemd', () => {
  const systemd = createSystemd();
  const containers = createContainerRunner(createNative(), { [HANDLER]: createScopeHandler(systemd, read) });
  // the root of a guest is an overlay
  const before = process.env['TMPDIR'];
  beforeAll(() => void (process.env['TMPDIR'] = '/var/tmp'));
  afterAll(async () => {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
    await systemd.close();
  });
  describeSuite('cgroup systemd', cgroupSuite, { bench: () => realBench(), containers, create: (deps) => createCgroupSystemd(deps) });
});
