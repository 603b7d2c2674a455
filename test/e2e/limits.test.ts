import { mkdirSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { removeParent, unified } from '../helpers/cgroup.ts';
import { TestEngine } from '../helpers/engine.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine();
  await importBusybox(engine);
});
afterAll(async () => expect(await engine.close()).toEqual([]));

it('gives a hog under --cpus 0.2 a fifth of a CPU', async () => {
  // two at it, so that it is the quota that holds them and not the number of their CPUs
  await engine.ok('run', '-d', '--name', 'hog', '--cpus', '0.2', 'busybox', 'sh', '-c', '(while :; do :; done) & while :; do :; done');
  const usage = unified ? "sed -n 's/usage_usec //p' /sys/fs/cgroup/cpu.stat; cat" : 'cat /sys/fs/cgroup/cpuacct/cpuacct.usage';
  const look = async (): Promise<{ used: number; at: number }> => {
    const [used = '', uptime = ''] = (await engine.ok('exec', 'hog', 'sh', '-c', `${usage} /proc/uptime`)).split('\n');
    return { used: Number(used) / (unified ? 1e6 : 1e9), at: Number(uptime.split(' ')[0]) };
  };
  const before = await look();
  await new Promise((resolve) => setTimeout(resolve, 4000));
  const after = await look();
  const share = (after.used - before.used) / (after.at - before.at);
  expect(share).toBeGreaterThan(0.05); // a busy machine may give less
  expect(share).toBeLessThan(0.24);
  const throttled = Number(/^nr_throttled (\d+)/m.exec(await engine.ok('exec', 'hog', 'cat', unified ? '/sys/fs/cgroup/cpu.stat' : '/sys/fs/cgroup/cpu/cpu.stat'))?.[1]);
  expect(throttled).toBeGreaterThan(5);
  await engine.ok('rm', '-f', 'hog');
});

it('kills a memory hog, says why, and says it again in inspect', async () => {
  const result = await engine.run(['run', '--name', 'eater', '-m', '20m', 'busybox', 'sh', '-c', 'echo begin; exec tail /dev/zero']);
  expect(result).toMatchObject({ code: 137, stdout: 'begin\n' });
  expect(result.stderr).toBe('engine: the container ran out of memory: a process was killed at its memory limit of 20 MiB; allow more with -m\n');
  expect(await engine.ok('inspect', '-f', '{{.State.OOMKilled}} {{.State.ExitCode}}', 'eater')).toBe('true 137');
  await engine.ok('rm', 'eater');
  // killed by somebody else: nobody speaks of memory
  const killed = await engine.run(['run', '--name', 'killed', '--init', '-m', '20m', 'busybox', 'sh', '-c', 'kill -9 $$']);
  expect(killed).toMatchObject({ code: 137, stderr: '' });
  expect(await engine.ok('inspect', '-f', '{{.State.OOMKilled}}', 'killed')).toBe('false');
  await engine.ok('rm', 'killed');
});

it('does not blame a limit that the container has not', async () => {
  const top = unified ? '/sys/fs/cgroup' : '/sys/fs/cgroup/memory';
  // of this engine by its name, so that what is left of it is seen at the end
  const parent = `parent-${engine.instance}`;
  if (unified) writeFileSync(`${top}/cgroup.subtree_control`, '+memory');
  mkdirSync(`${top}/${parent}`);
  try {
    writeFileSync(`${top}/${parent}/${unified ? 'memory.max' : 'memory.limit_in_bytes'}`, '20M');
    const { code, stderr } = await engine.run(['run', '--rm', '--cgroup-parent', `/${parent}`, 'busybox', 'tail', '/dev/zero']);
    expect(code).toBe(137);
    expect(stderr).toMatch(/^engine: the container ran out of memory: it has no limit of its own, .*--cgroup-parent.*\n$/);
  } finally {
    await removeParent(parent);
  }
});

it('tells a limit that is too small for anything to start', async () => {
  const { code, stderr } = await engine.run(['run', '--rm', '-m', '512k', 'busybox', 'true']);
  expect(code).toBe(125);
  expect(stderr).toMatch(/memory/i);
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(await engine.ok('ps', '-aq')).toBe('');
});

it('holds a fork bomb at --pids-limit', async () => {
  const { stdout, stderr } = await engine.run(['run', '--rm', '--pids-limit', '20', 'busybox', 'sh', '-c', 'i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done; echo never']);
  expect(stderr).toMatch(/fork/);
  expect(stdout).toBe('');
});
