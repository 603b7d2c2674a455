import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { ticksOf } from '../helpers/limits.ts';
import { until } from '../helpers/wait.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine();
  await importBusybox(engine);
});
afterEach(() => engine.removeContainers());
afterAll(async () => expect(await engine.close()).toEqual([]));

/** Two processes that never rest. */
const BUSY = ['busybox', 'sh', '-c', '(while :; do :; done) & while :; do :; done'];
const pidOf = async (name: string): Promise<number> => Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', name));
const stateOf = (name: string): Promise<string> => engine.ok('inspect', '-f', '{{.State.Status}}', name);
const gone = (pid: number): Promise<unknown> => until(`the end of ${pid}`, () => !existsSync(`/proc/${pid}`));

describe('pause', () => {
  it('stops every process where it is, and unpause lets them go on', async () => {
    await engine.ok('run', '-d', '--name', 'busy', ...BUSY);
    const pids = await until('both processes', async () => {
      const found = (await engine.ok('top', 'busy', '-o', 'pid,comm')).split('\n').slice(1).map((line) => Number(line.split(/\s+/)[0]));
      return found.length === 2 ? found : undefined;
    });
    await engine.ok('pause', 'busy');
    const before = pids.map(ticksOf);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(pids.map(ticksOf)).toEqual(before);
    expect(await engine.ok('ps', '--format', '{{.Names}} {{.Status}}')).toMatch(/^busy Up .* \(Paused\)$/);
    expect(await engine.ok('inspect', '-f', '{{.State.Status}} {{.State.Running}} {{.State.Paused}}', 'busy')).toBe('paused true true');
    expect(await engine.ok('info', '-f', '{{.ContainersRunning}} {{.ContainersPaused}}')).toBe('0 1');
    await engine.ok('unpause', 'busy');
    await until('both to go on', () => pids.every((pid, i) => ticksOf(pid) > (before[i] ?? 0)));
  });
  it('lets nobody in, but lets everybody look, and end it', async () => {
    await engine.ok('run', '-d', '--name', 'one', 'busybox', 'sh', '-c', 'echo said; echo made > /made; while :; do sleep 1; done');
    await until('its word', async () => (await engine.ok('logs', 'one')) === 'said');
    await engine.ok('pause', 'one');
    for (const [argv, said] of [[['pause', 'one'], /already paused/], [['exec', 'one', 'true'], /paused; unpause it first/], [['attach', 'one'], /paused; unpause it first/], [['start', 'one'], /it is paused; unpause it first/], [['rm', 'one'], /it is paused; unpause and stop it first, or use --force/]] as const) {
      const { code, stderr } = await engine.run(argv);
      expect([code, stderr]).toEqual([1, expect.stringMatching(said)]);
    }
    expect(await engine.ok('logs', 'one')).toBe('said');
    expect(await engine.ok('diff', 'one')).toContain('A /made');
    expect((await engine.ok('stats', '--no-stream', '--format', '{{.Name}}', 'one'))).toBe('one');
    const waiter = engine.start(['wait', 'one'], { input: '' });
    await engine.ok('stop', '-t', '0', 'one');
    expect((await waiter.result).stdout).toMatch(/^(137|143)\n$/);
    expect(await stateOf('one')).toBe('exited');
  });
  it.each([
    ['stop', ['stop', '-t', '60', 'one'], 3], ['kill', ['kill', 'one'], 137], ['kill -s TERM', ['kill', '-s', 'TERM', 'one'], 3],
  ] as const)('keeps nothing from %s', async (_, argv, code) => {
    await engine.ok('run', '-d', '--name', 'one', 'busybox', 'sh', '-c', 'trap "exit 3" TERM; echo up; while :; do sleep 0.1; done');
    await until('its word', async () => (await engine.ok('logs', 'one')) === 'up');
    await engine.ok('pause', 'one');
    await engine.ok(...argv);
    expect(await engine.ok('wait', 'one')).toBe(String(code));
  });
  it('does not outlive a restart or a removal by force', async () => {
    await engine.ok('run', '-d', '--name', 'one', 'busybox', 'sleep', '1000');
    await engine.ok('pause', 'one');
    await engine.ok('restart', '-t', '0', 'one');
    expect(await stateOf('one')).toBe('running');
    const pid = await pidOf('one');
    await engine.ok('pause', 'one');
    await engine.ok('rm', '-f', 'one');
    await gone(pid);
  });
  it('wakes by a signal only when it is the one that asks it to end, where it has one', async () => {
    await engine.ok('run', '-d', '--name', 'one', '--stop-signal', 'INT', 'busybox', 'sh', '-c', 'trap "exit 4" INT; trap "echo used" USR1; echo up; while :; do sleep 0.1; done');
    await until('its word', async () => (await engine.ok('logs', 'one')) === 'up');
    await engine.ok('pause', 'one');
    await engine.ok('kill', '-s', 'USR1', 'one');
    expect(await stateOf('one')).toBe('paused');
    await engine.ok('unpause', 'one');
    await until('the signal that waited', async () => (await engine.ok('logs', 'one')).includes('used'));
    await engine.ok('pause', 'one');
    await engine.ok('kill', '-s', 'INT', 'one');
    expect(await engine.ok('wait', 'one')).toBe('4');
  });
  it('is no end for a restart policy, and ends with the shim', async () => {
    await engine.ok('run', '-d', '--name', 'one', '--restart', 'always', 'busybox', 'sleep', '1000');
    await engine.ok('pause', 'one');
    expect(await engine.ok('inspect', '-f', '{{.RestartCount}} {{.State.Restarting}}', 'one')).toBe('0 false');
    await engine.ok('update', '--restart', 'no', 'one');
    const pid = await pidOf('one');
    const shim = Number((await engine.ok('top', 'one', '-o', 'pid,ppid')).split('\n')[1]?.split(/\s+/)[1]);
    process.kill(shim, 'SIGKILL');
    await until('its end to be seen', async () => (await stateOf('one')) === 'exited');
    await gone(pid);
  });
});

describe('races', () => {
  it('of many pauses: one does it', async () => {
    await engine.ok('run', '-d', '--name', 'one', 'busybox', 'sleep', '1000');
    const results = await Promise.all(Array.from({ length: 6 }, () => engine.run(['pause', 'one'])));
    expect(results.filter(({ code }) => code === 0)).toHaveLength(1);
    for (const { code, stderr } of results) if (code !== 0) expect(stderr).toMatch(/already paused/);
    const thaws = await Promise.all(Array.from({ length: 6 }, () => engine.run(['unpause', 'one'])));
    expect(thaws.filter(({ code }) => code === 0)).toHaveLength(1);
  });
  it('of pause, unpause, stop, kill and rm leave nothing frozen behind', async () => {
    for (let round = 0; round < 4; round++) {
      await engine.ok('run', '-d', '--name', 'one', ...BUSY);
      const pid = await pidOf('one');
      const ends = [['stop', '-t', '0', 'one'], ['kill', 'one'], ['rm', '-f', 'one'], ['stop', '-t', '1', 'one']][round] ?? [];
      const results = await Promise.all([['pause', 'one'], ['pause', 'one'], ends, ['unpause', 'one'], ['pause', 'one']].map((argv) => engine.run(argv)));
      expect(results[2]?.code, results[2]?.stderr).toBe(0);
      for (const { code, stderr } of results) if (code !== 0) expect(stderr).toMatch(/not running|no such container|already paused|not paused/);
      await gone(pid);
      await engine.ok('rm', '-f', 'one');
    }
  });
  it('of an engine that is killed while it pauses: paused or not, and it can be let go', async () => {
    await engine.ok('run', '-d', '--name', 'one', 'busybox', 'sleep', '1000');
    for (let round = 0; round < 8; round++) {
      const running = engine.start([(await stateOf('one')) === 'paused' ? 'unpause' : 'pause', 'one'], { input: '' });
      setTimeout(() => running.child.kill('SIGKILL'), 40 + round * 15);
      await running.result;
      expect(await stateOf('one')).toMatch(/^(running|paused)$/);
      expect(await engine.ok('doctor', '--fix')).not.toMatch(/inflight/);
    }
    if ((await stateOf('one')) === 'paused') await engine.ok('unpause', 'one');
    await engine.ok('exec', 'one', 'true');
  });
});
