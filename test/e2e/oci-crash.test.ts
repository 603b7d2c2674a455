import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { busyboxRootfs } from '../helpers/busybox.ts';
import { enginedOf, TestEngine } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';

const bin = join(import.meta.dirname, '../../bin/engine-oci');
/** As in test/crash: every nth case, from another one each time unless `CRASH_SEED` says which; a process of Node for each command costs more. */
const sample = { auto: Number(process.env['CRASH_SAMPLE'] ?? 3), off: Number(process.env['CRASH_SAMPLE'] ?? 6) };
const seed = Number(process.env['CRASH_SEED'] ?? Date.now());
interface State { readonly id: string; readonly status: string; readonly pid: number }
interface Command { readonly child: ChildProcess; readonly done: Promise<number | null>; out: string; err: string }

const read = (path: string): string => {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // it has gone
  }
};
const childrenOf = (pid: number): number[] => read(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean).map(Number);
const wordsOf = (pid: number): readonly string[] => read(`/proc/${pid}/cmdline`).split('\0');
const isZombie = (pid: number): boolean => /\) Z /.test(read(`/proc/${pid}/stat`));

describe.skipIf(process.getuid?.() !== 0).each(['auto', 'off'] as const)('engine-oci that is killed (resident: %s)', (resident) => {
  let engine: TestEngine;
  const every = sample[resident];
  afterEach(async () => {
    expect(await engine.close()).toEqual([]);
  });
  const root = (): string => join(engine.folder, 'oci');
  const file = (name: string): string => join(root(), 'one', name);
  const group = (): string => `${engine.instance}-crash`;
  function start(...args: string[]): Command {
    const child = spawn(bin, ['--root', root(), ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: engine.env });
    // a container has the streams, and keeps them open: the end of the command is not theirs
    const command: Command = { child, done: new Promise((resolve) => child.once('exit', resolve)), out: '', err: '' };
    child.stdout?.on('data', (data: Buffer) => (command.out += data.toString()));
    child.stderr?.on('data', (data: Buffer) => (command.err += data.toString()));
    return command;
  }
  async function oci(...args: string[]): Promise<Command & { readonly code: number | null }> {
    const command = start(...args);
    const code = await command.done;
    return Object.assign(command, { code });
  }
  async function well(...args: string[]): Promise<string> {
    const { code, out, err } = await oci(...args);
    expect(code, `${args.join(' ')}: ${err}`).toBe(0);
    return out;
  }
  const list = async (): Promise<readonly State[]> => (JSON.parse(await well('list', '--format', 'json')) ?? []) as State[];

  function bundle(): string {
    engine = new TestEngine({ resident });
    const folder = join(engine.folder, 'bundle');
    mkdirSync(join(folder, 'rootfs'), { recursive: true });
    busyboxRootfs(join(folder, 'rootfs'));
    writeFileSync(join(folder, 'config.json'), JSON.stringify({
      ociVersion: '1.0.2', root: { path: 'rootfs' }, process: { cwd: '/', user: { uid: 0, gid: 0 }, args: ['sleep', '1000'], env: ['PATH=/bin'] },
      mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }, { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['mode=755'] }],
      linux: { namespaces: ['mount', 'pid', 'ipc', 'uts', 'network'].map((type) => ({ type })), cgroupsPath: `/${group()}` },
    }));
    return folder;
  }

  const victims = {
    launcher: ({ child }: Command): number | undefined => child.pid,
    server: ({ child }: Command): number | undefined => (resident === 'auto' ? enginedOf(engine.runRoot) : childrenOf(child.pid ?? 0).find((pid) => wordsOf(pid).includes('--serve-one'))),
    shim: ({ child }: Command): number | undefined => childrenOf(child.pid ?? 0).find((pid) => wordsOf(pid)[0] === 'engine-shim'),
  };
  /** Kill one of those who serve a command as soon as it has come to a point, or let it end; its exit code. */
  async function killed(victim: keyof typeof victims, point: () => boolean, args: readonly string[]): Promise<number | null> {
    const command = start(...args);
    let over = false;
    void command.done.finally(() => (over = true));
    for (let pid: number | undefined; !over; await turn()) {
      pid ??= victims[victim](command);
      if (pid === undefined || !point()) continue;
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('ESRCH'); // it had ended
      }
      break;
    }
    return command.done;
  }

  const groups = (): string[] => ['/sys/fs/cgroup', ...readdirSync('/sys/fs/cgroup', { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => `/sys/fs/cgroup/${name}`)].map((path) => join(path, group())).filter((path) => existsSync(path));
  /** What is told of it is so, and what is told to be there can be used. */
  async function checkTruth(): Promise<void> {
    for (const { id, status, pid } of await list()) {
      expect(id).toBe('one');
      expect(['creating', 'created', 'running', 'stopped']).toContain(status);
      expect(pid > 0).toBe(status === 'created' || status === 'running');
      if (pid > 0) expect(existsSync(`/proc/${pid}`) && !isZombie(pid)).toBe(true);
      if (status === 'created') await well('start', 'one');
      if (status === 'created' || status === 'running') await until('its program does not run', () => wordsOf(pid)[0] === 'sleep');
    }
  }
  async function cleanUp(): Promise<void> {
    await well('delete', '--force', 'one');
    expect(await list()).toEqual([]);
    const names = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);
    // a shim that has lost its caller undoes what it has done before it lets go
    await until(() => `left: ${names(root()).join(' ')}; ${groups().join(' ')}`, () => names(root()).every((name) => ['.trash', '.leftovers'].includes(name)) && ['.trash', '.leftovers'].every((name) => names(join(root(), name)).length === 0) && groups().length === 0);
    expect(read('/proc/self/mounts')).not.toContain(engine.folder);
  }
  const points = {
    'its begin': (): boolean => true,
    'its folder': (): boolean => existsSync(file('container.json')),
    'its init': (): boolean => existsSync(file('started')),
    'its program': (): boolean => wordsOf(Number(/"pid":\s*(\d+)/.exec(read(file('started')))?.[1] ?? 0))[0] === 'sleep',
    'the undo': (): boolean => !existsSync(file('started')),
    'the end': (): boolean => !existsSync(join(root(), 'one')),
  };
  const all = ['launcher', 'server', 'shim'] as const;
  const both = ['launcher', 'server'] as const;
  const cases = (folder: string): readonly { readonly victim: keyof typeof victims; readonly point: keyof typeof points; readonly args: readonly string[]; readonly before: readonly string[] }[] => {
    const [create, run] = [['create', '--bundle', folder, 'one'], ['run', '--detach', '--bundle', folder, 'one']];
    return [
      { args: create, points: ['its begin', 'its folder', 'its init'], of: all, before: [] },
      { args: run, points: ['its program'], of: all, before: [] },
      { args: ['start', 'one'], points: ['its begin', 'its program'], of: both, before: create },
      // missed, it ends by itself
      { args: ['exec', 'one', 'true'], points: ['its begin'], of: all, before: run },
      { args: ['exec', '--detach', 'one', 'sleep', '1000'], points: ['its begin'], of: all, before: run },
      { args: ['delete', '--force', 'one'], points: ['its begin', 'the undo', 'the end'], of: both, before: create },
    ].flatMap(({ points: at, of, ...rest }) => at.flatMap((point) => of.map((victim) => ({ victim, point, ...rest }) as never)));
  };

  it('as an attended container runs, lets it come to its end and deletes it', async () => {
    const folder = bundle();
    await well('list'); // the first command is not the resident engine's
    await until('the resident engine', () => resident !== 'auto' || enginedOf(engine.runRoot) !== undefined);
    const command = start('run', '--bundle', folder, 'one');
    await until('its program', points['its program']);
    // whoever starts it has its lock until all of that is over: only then has the caller been told that it runs
    await until('the end of its start', () => spawnSync('flock', ['--nonblock', '--no-fork', file('lock'), 'true']).status === 0);
    const server = await until('its server', () => victims.server(command));
    process.kill(server, 'SIGKILL');
    await until('its end', () => !existsSync(`/proc/${server}`) || isZombie(server));
    await well('kill', 'one', 'KILL');
    expect(await command.done).toBe(128 + 9);
    expect(command.err).toContain('another process deletes it');
    expect(existsSync(join(root(), 'one'))).toBe(false);
    await cleanUp();
  }, 60_000);

  it('tells the truth after it, and leaves nothing once it is deleted', async () => {
    const folder = bundle();
    for (const [i, { victim, point, args, before }] of cases(folder).entries()) {
      if ((i + seed) % every !== 0) continue;
      try {
        if (before.length > 0) await well(...before);
        const code = await killed(victim, points[point], args);
        const [state] = await list();
        // what was told to be done is
        if (code === 0) expect(state?.status).toBe(args[0] === 'create' ? 'created' : args[0] === 'delete' ? undefined : 'running');
        // a container is none of those who serve a session in it
        if (args[0] === 'exec') expect(state?.status).toBe('running');
        await checkTruth();
        await cleanUp();
      } catch (cause) {
        throw new Error(`${victim} killed at ${point} of ${args.join(' ')} (CRASH_SEED=${seed}): ${String(cause)}`, { cause });
      }
    }
    await well('create', '--bundle', folder, 'one');
    await cleanUp();
  }, 60_000);
});
