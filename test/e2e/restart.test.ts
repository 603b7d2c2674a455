import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Engine } from '@engine/core/api';
import { type Machine } from '@engine/core/contracts/common';
import { type Native } from '@engine/core/native';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../config/open.ts';
import { importBusybox } from '../helpers/busybox.ts';
import { TestEngine } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';

let engine: TestEngine;
let host: Engine | undefined;
beforeAll(async () => {
  engine = new TestEngine();
  await importBusybox(engine);
});
afterAll(async () => {
  await host?.close();
  expect(await engine.close()).toEqual([]);
});
afterEach(async () => {
  await closeHost();
  await engine.removeContainers();
});

/** What a resident engine does, in this process: it stays, and looks after what others started. */
async function openHost(boot?: string): Promise<Engine> {
  const machine = (real: Machine): Machine => ({ ...real, read: (path) => (boot !== undefined && path.endsWith('boot_id') ? `${boot}\n` : real.read(path)) });
  const native = (real: Native): Native => (boot === undefined ? real : { ...real, bootId: () => boot });
  ({ engine: host } = await openEngine({ env: engine.env, cwd: join(engine.folder, 'cwd'), wrap: { machine, native } }));
  await host.system.supervise();
  return host;
}
async function closeHost(): Promise<void> {
  await host?.close();
  host = undefined;
}

/** As when its shim, ending without an engine, had woken the resident one. */
async function runDetached(...args: string[]): Promise<void> {
  await engine.ok('run', '-d', ...args);
  await host?.system.supervise();
}

interface Seen { readonly State: { readonly Status: string; readonly Running: boolean; readonly Restarting: boolean; readonly Pid: number; readonly ExitCode: number; readonly Error: string; readonly StartedAt: string }; readonly RestartCount: number; readonly HostConfig: { readonly RestartPolicy: unknown }; readonly Engine: { readonly starts: number; readonly run: { readonly id: string } | null } }
const inspect = async (name: string): Promise<Seen> => (JSON.parse(await engine.ok('inspect', name)) as Seen[])[0] as Seen;
/** Wait until what is seen of a container fits. */
const seen = (name: string, what: string, fits: (container: Seen) => boolean): Promise<Seen> => until(what, async () => {
  const container = await inspect(name);
  return fits(container) ? container : undefined;
  // the process that asks may collect a run before its engine does, which then looks again after ten seconds: once per try
}, 60_000);
const runs = (name: string, starts: number): Promise<Seen> => seen(name, `start ${starts} of ${name}`, (c) => c.Engine.starts === starts && c.State.Status === 'running');
const shimOf = (pid: number): number => Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);

describe('--restart', () => {
  it('on-failure:3 tries three times and says so', async () => {
    await openHost();
    await runDetached('--name', 'fails', '--restart', 'on-failure:3', 'busybox', 'sh', '-c', 'echo try; exit 7');
    const waiting = await seen('fails', 'a wait', (c) => c.State.Restarting);
    expect(waiting.State).toMatchObject({ Status: 'restarting', Running: true, Pid: 0, ExitCode: 7 });
    const over = await seen('fails', 'the last try', (c) => c.Engine.starts === 4 && c.State.Status === 'exited');
    expect(over).toMatchObject({ RestartCount: 3, HostConfig: { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 3 } }, State: { ExitCode: 7, Restarting: false } });
    expect(await engine.ok('logs', 'fails')).toBe('try\ntry\ntry\ntry');
    await runDetached('--name', 'well', '--restart', 'on-failure', 'busybox', 'true');
    await seen('well', 'its end', (c) => c.State.Status === 'exited');
    expect((await inspect('well')).RestartCount).toBe(0);
  });

  it('always starts again what was killed from outside; stop keeps it down, start brings it back', async () => {
    const events: string[] = [];
    const { system } = await openHost();
    await runDetached('--name', 'lasting', '--restart', 'always', 'busybox', 'sh', '-c', 'echo x >> /count; exec sleep 1000');
    let { State } = await runs('lasting', 1);
    for (let starts = 2; starts < 4; starts++) {
      process.kill(State.Pid, 'SIGKILL');
      ({ State } = await runs('lasting', starts));
      events.push(State.StartedAt);
    }
    expect(new Set(events).size).toBe(2);
    expect(await engine.ok('exec', 'lasting', 'wc', '-l', '/count')).toBe('3 /count');
    expect((await inspect('lasting')).RestartCount).toBe(2);
    process.kill(shimOf(State.Pid), 'SIGKILL');
    await runs('lasting', 4);
    // another engine may have been faster with the start: then this one hears of it a moment later
    await until('it to be needed', () => system.needed().length > 0);
    expect(system.needed()).toEqual(['container lasting is to be started again when it ends']);
    await engine.ok('stop', '-t', '0', 'lasting');
    expect((await inspect('lasting')).State).toMatchObject({ Status: 'exited', Restarting: false });
    await engine.ok('start', 'lasting');
    expect(await inspect('lasting')).toMatchObject({ RestartCount: 0, State: { Status: 'running' } });
  });

  it('waits longer each time, is shown by ps, and a stop ends the wait; so does a removal', async () => {
    await openHost();
    for (const name of ['waits', 'goes']) await runDetached('--name', name, '--restart', 'unless-stopped', 'busybox', 'false');
    const shown = await until('a wait of a while', async () => /^Restarting \(1\) .* ago$/.exec(await engine.ok('ps', '-f', 'name=waits', '--format', '{{.Status}}')));
    expect(shown).toBeTruthy();
    await seen('waits', 'a longer wait', (c) => c.State.Restarting && c.RestartCount >= 4);
    expect((await engine.ok('ps', '-f', 'status=restarting', '--format', '{{.Names}}')).split('\n')).toContain('waits');
    expect(await engine.run(['rm', 'waits'])).toMatchObject({ code: 1, stderr: expect.stringContaining('it is restarting') as string });
    await engine.ok('stop', 'waits');
    const { Engine: { starts }, State } = await inspect('waits');
    expect(State).toMatchObject({ Status: 'exited', Restarting: false });
    await seen('goes', 'a wait', (c) => c.State.Restarting);
    await engine.ok('rm', '-f', 'goes');
    expect(await engine.ok('ps', '-aq', '-f', 'name=goes')).toBe('');
    // the other one would have come up meanwhile
    await runDetached('--name', 'later', '--restart', 'on-failure:5', 'busybox', 'false');
    await seen('later', 'five tries', (c) => c.RestartCount === 5 && c.State.Status === 'exited');
    expect((await inspect('waits')).Engine.starts).toBe(starts);
  });

  it('a start that fails is a try; inspect says why', async () => {
    await openHost();
    const source = join(engine.folder, 'source');
    await runDetached('--name', 'broken', '--restart', 'always', '-v', `${source}:/source`, 'busybox', 'sleep', '1000');
    const { State } = await runs('broken', 1);
    renameSync(source, `${source}.away`);
    process.kill(State.Pid, 'SIGKILL');
    const failing = await seen('broken', 'a second try', (c) => c.State.Restarting && c.RestartCount >= 2);
    expect(failing.State.Error).toContain('source');
    renameSync(`${source}.away`, source);
    await runs('broken', 2);
  });

  it('is refused with --rm, and where it is no policy', async () => {
    for (const [flags, said] of [
      [['--rm', '--restart', 'always'], /conflicting options: --restart and --rm/], [['--restart', 'sometimes'], /sometimes/], [['--restart', 'always:3'], /maximum retry count cannot be used with restart policy 'always'/],
      [['--restart', 'on-failure:x'], /maximum retry count must be an integer/], [['--restart', 'on-failure:-1'], /cannot be negative/],
    ] as const) {
      const { code, stderr } = await engine.run(['run', ...flags, 'busybox', 'true']);
      expect([code, stderr]).toEqual([125, expect.stringMatching(said)]);
    }
    expect(await engine.ok('run', '--rm', '--restart', 'no', 'busybox', 'echo', 'fine')).toBe('fine');
  });

  it('is changed by update', async () => {
    await openHost();
    await runDetached('--name', 'changed', 'busybox', 'sleep', '1000');
    expect(await engine.ok('update', '--restart', 'always', 'changed')).toBe('changed');
    const { State } = await inspect('changed');
    process.kill(State.Pid, 'SIGKILL');
    const again = await runs('changed', 2);
    expect(again.HostConfig.RestartPolicy).toEqual({ Name: 'always', MaximumRetryCount: 0 });
    await engine.ok('update', '--restart=no', 'changed');
    process.kill(again.State.Pid, 'SIGKILL');
    await seen('changed', 'its end', (c) => c.State.Status === 'exited');
    expect((await engine.run(['update', 'changed'])).stderr).toMatch(/takes at least one flag/);
  });
});

describe('restart', () => {
  it('stops and starts, keeps what was written, and starts what does not run', async () => {
    await runDetached('--name', 'again', 'busybox', 'sh', '-c', 'trap "echo bye; exit" TERM; echo x >> /count; echo up; while :; do sleep 0.1; done');
    const before = await inspect('again');
    await until('its trap', async () => (await engine.ok('logs', 'again')) === 'up');
    expect(await engine.ok('restart', '-t', '5', 'again')).toBe('again');
    const after = await inspect('again');
    expect([after.State.Status, after.Engine.starts, after.Engine.run?.id === before.Engine.run?.id]).toEqual(['running', 2, false]);
    await until('both runs in the log', async () => (await engine.ok('logs', 'again')) === 'up\nbye\nup');
    expect(await engine.ok('exec', 'again', 'wc', '-l', '/count')).toBe('2 /count');
    await engine.ok('stop', '-t', '0', 'again');
    await engine.ok('restart', 'again');
    expect((await inspect('again')).State.Status).toBe('running');
    const { code, stderr } = await engine.run(['restart', '-t', '0', 'again', 'nobody']);
    expect([code, stderr]).toEqual([1, expect.stringContaining('no such container: nobody')]);
    await runDetached('--rm', '--name', 'passing', 'busybox', 'sleep', '1000');
    expect(await engine.run(['restart', 'passing'])).toMatchObject({ code: 1, stderr: expect.stringContaining('--rm') as string });
    expect((await inspect('passing')).State.Status).toBe('running');
  });
  it('is no stop for a policy, and counts anew', async () => {
    await openHost();
    await runDetached('--name', 'both', '--restart', 'unless-stopped', 'busybox', 'sleep', '1000');
    await engine.ok('restart', '-t', '0', 'both');
    await host?.system.supervise();
    const { State, RestartCount } = await runs('both', 2);
    expect(RestartCount).toBe(0);
    process.kill(State.Pid, 'SIGKILL');
    expect((await runs('both', 3)).RestartCount).toBe(1);
  });
});

describe('the next engine', () => {
  it('leaves alone what runs, and goes on with what waits or has ended meanwhile', async () => {
    await openHost();
    await runDetached('--name', 'runs', '--restart', 'always', 'busybox', 'sleep', '1000');
    await runDetached('--name', 'ends', '--restart', 'always', 'busybox', 'sleep', '1000');
    await runDetached('--name', 'waits', '--restart', 'always', 'busybox', 'false');
    const { State } = await runs('runs', 1);
    const { RestartCount } = await seen('waits', 'a few tries', (c) => c.State.Restarting && c.RestartCount >= 3);
    await closeHost();
    expect((await inspect('waits')).RestartCount).toBeGreaterThanOrEqual(RestartCount);
    const pid = (await inspect('ends')).State.Pid;
    process.kill(pid, 'SIGKILL');
    await until('its end', () => !existsSync(`/proc/${pid}/exe`));
    await openHost();
    await runs('ends', 2);
    await seen('waits', 'more tries', (c) => c.RestartCount > RestartCount);
    expect((await inspect('runs')).State.Pid).toBe(State.Pid);
    // and it is looked after from now on
    process.kill(State.Pid, 'SIGKILL');
    await runs('runs', 2);
  });

  it('is one of several: a container is started once', async () => {
    const { engine: other } = await openEngine({ env: engine.env, cwd: join(engine.folder, 'cwd') });
    try {
      await openHost();
      await other.system.supervise();
      await runDetached('--name', 'shared', '--restart', 'always', 'busybox', 'sh', '-c', 'echo up; exec sleep 1000');
      for (const each of [other, host]) await each?.system.supervise();
      for (let starts = 1; starts < 4; starts++) {
        const { State } = await runs('shared', starts);
        for (const each of [other, host]) await each?.system.supervise();
        process.kill(State.Pid, 'SIGKILL');
      }
      expect((await runs('shared', 4)).RestartCount).toBe(3);
      expect(await engine.ok('logs', 'shared')).toBe('up\nup\nup\nup');
    } finally {
      await other.close();
    }
  });
});

describe('a reboot', () => {
  it('starts always, what was not stopped unless-stopped, and what failed', async () => {
    await openHost();
    await until('the boot to be known', () => readdirSync(engine.root).includes('restart-policy'));
    const names = ['always', 'unless-stopped', 'on-failure', 'no'];
    for (const name of names) for (const how of ['ran', 'stopped']) await runDetached('--name', `${name}-${how}`, '--restart', name, 'busybox', 'sleep', '1000');
    await engine.ok('stop', '-t', '0', ...names.map((name) => `${name}-stopped`));
    // it has looked around when it has seen what it is needed for
    await closeHost();
    await openHost();
    await until('a look at all', () => (host?.system.needed().length ?? 0) >= 3);
    await closeHost();
    for (const name of names) {
      const { Id, State } = (JSON.parse(await engine.ok('inspect', `${name}-ran`)) as { Id: string; State: { Pid: number } }[])[0] ?? { Id: '', State: { Pid: 0 } };
      const shim = shimOf(State.Pid);
      process.kill(shim, 'SIGKILL');
      await until('its end', () => !existsSync(`/proc/${shim}/exe`) && !existsSync(`/proc/${State.Pid}/exe`));
      const record = join(engine.runRoot, 'runs', Id, 'record.json');
      writeFileSync(record, JSON.stringify({ ...(JSON.parse(readFileSync(record, 'utf8')) as object), boot: '00000000-0000-0000-0000-000000000000' }));
    }
    const boot = '11111111-1111-1111-1111-111111111111';
    const engineOfBoot = await openHost(boot);
    const up = async (): Promise<string[]> => (await engineOfBoot.containers.list({ all: true })).filter(({ state }) => state === 'running').map(({ record }) => record.name).sort();
    await until(() => 'four to come up', async () => (await up()).length === 4);
    expect(await up()).toEqual(['always-ran', 'always-stopped', 'on-failure-ran', 'unless-stopped-ran']);
    for (const name of await up()) await engineOfBoot.containers.remove(name, { force: true, volumes: true });
  });
});

describe('nobody but the shim', () => {
  it('wakes a process that starts the container again, also without a resident engine', async () => {
    await engine.ok('run', '-d', '--name', 'alone', '--restart', 'always', 'busybox', 'sleep', '1000');
    for (let starts = 1; starts < 4; starts++) process.kill((await runs('alone', starts)).State.Pid, 'SIGKILL');
    expect((await runs('alone', 4)).RestartCount).toBe(3);
  });

  it('wakes a process although the command that started the container is still there, for it ends too', async () => {
    // attached: its connection is there for as long as the run
    expect((await engine.run(['run', '--name', 'brief', '--restart', 'on-failure:2', 'busybox', 'false'])).code).toBe(1);
    await until('the last try', async () => (await engine.ok('inspect', '-f', '{{.RestartCount}} {{.State.Status}}', 'brief')) === '2 exited');
  });

  it('wakes the resident engine, whose death changes nothing', async () => {
    const own = new TestEngine({ resident: 'auto' });
    const look = async (): Promise<Seen> => (JSON.parse(await own.ok('inspect', 'kept')) as Seen[])[0] as Seen;
    const up = (starts: number): Promise<Seen> => until(`start ${starts}`, async () => {
      const container = await look();
      return container.Engine.starts === starts && container.State.Status === 'running' ? container : undefined;
    });
    try {
      await importBusybox(own);
      await own.startEngined();
      await own.ok('run', '-d', '--name', 'kept', '--restart', 'unless-stopped', 'busybox', 'sleep', '1000');
      process.kill((await up(1)).State.Pid, 'SIGKILL');
      const { State } = await up(2);
      await own.stopEngined('SIGKILL');
      process.kill(State.Pid, 'SIGKILL');
      await until('an engine', () => own.engined);
      const woken = await up(3);
      expect(woken.RestartCount).toBe(2);
      // one that is started anew looks after what runs
      await own.stopEngined('SIGKILL');
      await own.startEngined();
      expect((await up(3)).State.Pid).toBe(woken.State.Pid);
      process.kill(woken.State.Pid, 'SIGKILL');
      await up(4);
      await own.ok('restart', '-t', '0', 'kept');
      expect((await up(5)).RestartCount).toBe(0);
      await own.ok('stop', '-t', '0', 'kept');
      await own.stopEngined();
      await own.startEngined();
      expect((await look()).State.Status).toBe('exited');
    } finally {
      expect(await own.close()).toEqual([]);
    }
  });
});
