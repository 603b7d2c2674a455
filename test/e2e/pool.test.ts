/** Sandboxes that wait for a run: what becomes of them when something happens meanwhile, and what runs in them. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { busyboxTar } from '../helpers/busybox.ts';
import { entries, TestEngine, type RunOptions } from '../helpers/engine.ts';
import { makeBusyboxImage } from '../helpers/images.ts';
import { owned } from '../helpers/leaks.ts';
import { parentOf, pool, ready, type Pool } from '../helpers/pool.ts';
import { until } from '../helpers/wait.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine({ resident: 'auto' });
  await engine.ok('load', '-q', '-i', makeBusyboxImage());
  await engine.startEngined();
});
afterAll(async () => expect(await engine.close()).toEqual([]));
/** An empty pool: kinds that nobody runs any more hold their places for a while. */
beforeEach(async () => {
  await engine.stopEngined();
  await engine.startEngined();
});

const runs = (): string[] => entries(join(engine.runRoot, 'runs'));
const alive = (pid: number): boolean => existsSync(`/proc/${pid}/exe`);
/** Nothing of a container is on the machine. */
const bare = (): Promise<unknown> => until(() => `nothing of a sandbox; left: ${[...runs(), ...owned(engine).cgroups].join(' ')}`, () => runs().length === 0 && owned(engine).cgroups.length === 0 && entries(join(engine.root, 'containers')).length === 0 && owned(engine).mounts.length === 0 && owned(engine).processes.every((line) => !line.startsWith('engine-shim')));
const plain = ['run', '--rm', 'busybox'] as const;
/** A run that must have found a sandbox. */
async function fromPool(args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { Used } = await pool(engine);
  const result = await engine.run(args, options);
  expect(result.stderr).toBe('');
  expect((await pool(engine)).Used, `${args.join(' ')} found one`).toBe(Used + 1);
  return result.stdout;
}

describe('a sandbox', () => {
  it('serves other words, variables, users and folders of the same shape, with a terminal and input too', async () => {
    await ready(engine, [...plain, 'true']);
    expect(await fromPool([...plain, 'echo', 'hello'])).toBe('hello\n');
    await ready(engine, [...plain, 'true']);
    expect(await fromPool(['run', '--rm', '-e', 'A=1', '-l', 'x=y', 'busybox', 'sh', '-c', 'id -un; pwd; echo $A $HOME; hostname | wc -c'])).toBe('root\n/\n1 /root\n13\n');
    await ready(engine, [...plain, 'true']);
    // whether it fits is for the plan to say
    expect(await engine.ok('run', '--rm', '-e', 'A=1', '-u', 'app', '-w', '/tmp', 'busybox', 'sh', '-c', 'id -un; pwd; echo $A $HOME; touch x; stat -c %U x')).toBe('app\n/tmp\n1 /home/app\napp');
    await ready(engine, [...plain, 'true']);
    expect(await fromPool(['run', '--rm', '--entrypoint', 'cat', '-i', 'busybox'], { input: 'typed\n' })).toBe('typed\n');
    const shell = ['run', '--rm', '-i', 'busybox', 'sh', '-c', 'cat; exit 3'];
    await ready(engine, shell, { input: '' });
    expect(await fromPool(shell, { input: 'x'.repeat(200_000) })).toBe('x'.repeat(200_000));
    const tty = ['run', '--rm', '-t', 'busybox', 'sh', '-c', 'tty; stty size; echo err >&2'];
    const first = (await engine.run(tty)).stdout;
    await ready(engine, tty);
    expect(await fromPool(tty)).toBe(first);
  });
  it('serves what is typed at a terminal', async () => {
    const words = ['run', '--rm', '-it', 'busybox', 'sh', '-c', 'echo ready; read x; stty size; echo "got $x"; exit 4'];
    for (let i = 0; i < 5; i++) {
      const before = await pool(engine);
      const run = engine.terminal(words);
      await run.output(/ready/);
      run.child.stdin.write('hello\r');
      const { code, stdout } = await run.result;
      expect([code, stdout]).toEqual([4, expect.stringMatching(/24 80\r\ngot hello/)]);
      if (before.Ready > 0 && i > 2) expect((await pool(engine)).Used).toBe(before.Used + 1);
      await until('one that waits, or none to come', async () => i < 2 || (await pool(engine)).Ready > 0);
    }
  });
  it('with codes, limits and errors as without', async () => {
    const shape = ['run', '--rm', '-m', '16m', '--pids-limit', '20', 'busybox'];
    await ready(engine, [...shape, 'true']);
    for (const [script, code] of [['exit 7', 7], ['kill -9 $$', 0], ['ulimit -c', 0]] as const) {
      await ready(engine, [...shape, 'true']);
      const [here, alone] = [await engine.run([...shape, 'sh', '-c', script]), await engine.run(['--no-daemon', ...shape, 'sh', '-c', script])];
      expect(here).toEqual(alone);
      if (code > 0) expect(here.code).toBe(code);
    }
    for (const words of [['nope'], ['/etc'], ['/etc/passwd']]) {
      await ready(engine, [...shape, 'true']);
      expect(await engine.run([...shape, ...words])).toEqual(await engine.run(['--no-daemon', ...shape, ...words]));
    }
    await ready(engine, [...shape, 'true']);
    const oom = await engine.run([...shape, 'sh', '-c', 'x=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | tr "\\0" x); echo $x']);
    expect(oom.stderr).toMatch(/ran out of memory.* at its memory limit of 16 MiB/);
    for (const flags of [['-u', 'nobody-here'], ['-w', '/etc/passwd']]) {
      await ready(engine, [...shape, 'true']);
      const words = [...shape.slice(0, -1), ...flags, 'busybox', 'true'];
      expect(await engine.run(words)).toEqual(await engine.run(['--no-daemon', ...words]));
    }
  });
  it('is good after a long pause', { timeout: 60_000 }, async () => {
    await ready(engine, [...plain, 'true']);
    // longer than its plan is believed: it is made again and compared
    await new Promise((resolve) => setTimeout(resolve, 10_500));
    expect(await fromPool([...plain, 'true'])).toBe('');
  });
  it('is not made with pool: off', async () => {
    for (let i = 0; i < 4; i++) await engine.ok('--set', 'pool=off', ...plain, 'true');
    const info = JSON.parse(await engine.ok('--set', 'pool=off', 'info', '-f', 'json')) as { Sandboxes: Pool; Pool?: object };
    expect([info.Pool, info.Sandboxes.Made, info.Sandboxes.Ready]).toEqual([undefined, 0, 0]);
  });
});

describe('what happens while it waits:', () => {
  it('its shim is killed', async () => {
    const { Pids } = await ready(engine, [...plain, 'true']);
    for (const pid of Pids) process.kill(parentOf(pid), 'SIGKILL');
    for (const pid of Pids) await until('init to end', () => !alive(pid));
    const { code, stderr } = await engine.run([...plain, 'true']);
    if (code !== 0) expect(stderr).toMatch(/^engine: the shim of container \w+ ended before the program was started\n$/);
    await until('it to be forgotten', async () => !(await pool(engine)).Pids.some((pid) => Pids.includes(pid)));
    await engine.stopEngined();
    await engine.ok('--no-daemon', 'ps');
    await bare();
  });
  it('its init is killed', async () => {
    const { Pids } = await ready(engine, [...plain, 'true']);
    for (const pid of Pids) process.kill(pid, 'SIGKILL');
    // who is faster than the news of it is told
    const { code, stderr } = await engine.run([...plain, 'true']);
    if (code !== 0) expect(stderr).toMatch(/^engine: the shim of container \w+ ended before the program was started\n$/);
    await until('it to be forgotten', async () => !(await pool(engine)).Pids.some((pid) => Pids.includes(pid)));
    expect(await engine.ok(...plain, 'echo', 'well')).toBe('well');
  });
  it.each(['SIGKILL', 'SIGTERM'] as const)('engined ends by %s: everything is undone, without another engine', async (signal) => {
    const { Pids } = await ready(engine, [...plain, 'true']);
    const shims = Pids.map(parentOf);
    await engine.stopEngined(signal);
    for (const pid of [...Pids, ...shims]) await until('its end', () => !alive(pid));
    await until('its cgroups to go', () => owned(engine).cgroups.length === 0);
    expect(owned(engine).mounts).toEqual([]);
    expect(await engine.ok('--no-daemon', 'ps', '-aq')).toBe('');
    await bare();
  });
  it('engined hands over', async () => {
    await ready(engine, [...plain, 'true']);
    const before = engine.engined ?? 0;
    process.kill(before, 'SIGHUP');
    await until('the successor', () => engine.engined !== undefined && engine.engined !== before, 30_000);
    expect(await engine.ok(...plain, 'echo', 'well')).toBe('well');
    await until('the end of the old one', () => !alive(before), 30_000);
    const waiting = await pool(engine);
    await until('only those of the new one', async () => runs().length <= (await pool(engine)).Ready);
    expect(waiting.Made).toBeLessThan(10);
  });
  it('its image is removed, and comes back', async () => {
    await ready(engine, [...plain, 'true']);
    expect(await engine.ok('rmi', 'busybox')).toContain('busybox');
    expect(await engine.run([...plain, 'true'])).toMatchObject({ code: 125, stderr: expect.stringContaining('no such image') as string });
    await engine.ok('load', '-q', '-i', makeBusyboxImage());
    for (let i = 0; i < 3; i++) expect(await engine.ok(...plain, 'cat', '/etc/layer')).toBe('two');
  });
  it('its name goes to another image', async () => {
    await ready(engine, [...plain, 'true']);
    await engine.ok('tag', 'busybox', 'first');
    await engine.ok('import', '-c', 'CMD ["sh"]', '-c', 'ENV WHICH=second', busyboxTar(), 'busybox');
    expect(await engine.ok(...plain, 'sh', '-c', 'echo $WHICH')).toBe('second');
    await engine.ok('rmi', 'busybox');
    await engine.ok('tag', 'first', 'busybox');
    await engine.ok('rmi', 'first');
  });
  it('a file that its settings come from is changed', async () => {
    const file = join(engine.folder, 'cwd', 'seccomp.json');
    const profile = (names: string[]): void => writeFileSync(file, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names, action: 'SCMP_ACT_ERRNO' }] }));
    profile(['sethostname']);
    const words = ['run', '--rm', '--security-opt', `seccomp=${file}`, 'busybox', 'mkdir', '/new'];
    await ready(engine, words);
    profile(['mkdir', 'mkdirat']);
    expect((await engine.run(words)).code).toBe(1);
    profile(['sethostname']);
    expect((await engine.run(words)).code).toBe(0);
  });
  it('the configuration changes', async () => {
    await ready(engine, [...plain, 'true']);
    engine.configure('security: { seccomp: unconfined }\n');
    expect(await engine.ok(...plain, 'grep', 'Seccomp:', '/proc/1/status')).toMatch(/\t0$/);
    engine.configure('');
    expect(await engine.ok(...plain, 'grep', 'Seccomp:', '/proc/1/status')).toMatch(/\t2$/);
  });
  it('nobody sees it in a list, and no verb reaches it', async () => {
    await ready(engine, [...plain, 'true']);
    expect(await engine.ok('ps', '-aq')).toBe('');
    expect(runs().length).toBeGreaterThan(0);
    for (const id of runs()) for (const verb of [['inspect'], ['exec', id, 'true'], ['rm', '-f'], ['kill'], ['logs'], ['stop'], ['attach']]) {
      const { code, stderr } = await engine.run(verb[0] === 'exec' ? verb : [...verb, id]);
      if (verb[0] === 'rm') expect(stderr).toMatch(/no such container/);
      else expect([code, stderr]).toEqual([expect.any(Number), expect.stringMatching(/no such (container|object)/)]);
    }
    expect(await engine.ok('doctor')).toContain('nothing was left behind');
    expect(await engine.ok('--no-daemon', 'doctor')).toContain('nothing was left behind');
    // another engine on the same root starts and collects nothing of what is waiting
    const { Pids } = await pool(engine);
    await engine.ok('--no-daemon', 'ps');
    for (const pid of Pids) expect(alive(pid)).toBe(true);
  });
});
