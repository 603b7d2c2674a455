import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { busyboxTar, importBusybox } from '../helpers/busybox.ts';
import { TestEngine, type Result, type RunOptions } from '../helpers/engine.ts';
import { until } from '../helpers/wait.ts';

let engine: TestEngine;
beforeAll(async () => {
  engine = new TestEngine({ resident: 'auto' });
  await engine.startEngined();
  await importBusybox(engine);
});
afterAll(async () => expect(await engine.close()).toEqual([]));
const log = (): string => readFileSync(join(engine.runRoot, 'engined.log'), 'utf8');

/** The same command by engined, and in a process of its own. */
async function both(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const [here, alone] = [await engine.run(args, options), await engine.run(['--no-daemon', ...args], options)];
  expect(here).toEqual(alone);
  return here;
}

describe('a command gives the same as in a process of its own:', () => {
  it.each([
    [['run', '--rm', 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 7'], {}],
    [['run', '--rm', '-i', 'busybox', 'cat'], { input: 'x'.repeat(300_000) }],
    [['run', '--rm', '--hostname', 'h', '-e', 'HOME', '-e', 'X=1', 'busybox', 'env'], {}],
    [['run', '--rm', 'busybox', 'nope'], {}],
    [['run', '--rm', 'nope'], {}],
    [['run', '--rm', '-t', 'busybox', 'tty'], {}],
    [['run', '-m', '8m', '--rm', 'busybox', 'sh', '-c', 'x=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | tr "\\0" x); echo $x'], {}],
    [['ps', '-a'], {}],
    [['images', '--format', '{{.Repository}}'], {}],
    [['inspect', 'busybox'], {}],
    [['nope'], {}],
    [['--help'], {}],
    [['--set', 'nope=1', 'ps'], {}],
    [['exec', 'nope', 'true'], {}],
  ] as [string[], RunOptions][])('%j', async (args, options) => void (await both(args, options)));

  it('import and load from standard input, exec, logs, attach', async () => {
    const image = await engine.run(['import', '-', 'stdin'], { input: readFileSync(busyboxTar()) });
    expect([image.code, image.stderr]).toEqual([0, '']);
    await engine.ok('run', '-d', '-i', '--name', 'cc', 'busybox', 'sh', '-c', 'echo up; while read line; do echo got $line; done; exit 4');
    await until('its output', async () => (await engine.ok('logs', 'cc')) === 'up');
    await both(['logs', 'cc']);
    expect(await both(['exec', '-i', 'cc', 'sh', '-c', 'cat; echo no >&2; exit 9'], { input: 'yes' })).toMatchObject({ code: 9, stdout: 'yes', stderr: 'no\n' });
    const attached = engine.start(['attach', 'cc']);
    attached.child.stdin.write('one\n');
    await attached.output(/got one/);
    const follow = engine.start(['logs', '-f', 'cc'], { input: '' });
    await follow.output(/got one/);
    attached.child.stdin.end('two\n');
    await follow.output(/got two/);
    await engine.ok('kill', 'cc');
    expect((await attached.result).code).toBe(137);
    expect((await follow.result).code).toBe(0);
    await engine.ok('rm', 'cc');
  });
  it('a terminal, its size, and the keys that detach', async () => {
    const terminal = engine.terminal(['run', '-it', '--name', 'tt', 'busybox', 'sh']);
    terminal.child.stdin.write('stty size\n');
    await terminal.output(/24 80/);
    terminal.child.stdin.write('\x10\x11');
    expect((await terminal.result).code).toBe(0);
    expect(await engine.ok('inspect', '-f', '{{.State.Status}}', 'tt')).toBe('running');
    await engine.ok('rm', '-f', 'tt');
  });
  it('signals', async () => {
    const run = engine.start(['run', '--rm', 'busybox', 'sh', '-c', 'trap "echo got; exit 9" TERM; echo up; while :; do sleep 0.1; done'], { input: '' });
    await run.output(/up/);
    run.child.kill('SIGTERM');
    expect(await run.result).toMatchObject({ code: 9, stdout: 'up\ngot\n' });
  });
});

it('nothing of the caller who started it, or of this one, leaks into containers', async () => {
  const look = 'umask; ulimit -n; cat /proc/self/oom_score_adj; pwd; env | sort; cat /proc/self/cgroup';
  const [plain] = [await engine.run(['run', '--rm', '--hostname', 'h', 'busybox', 'sh', '-c', look])];
  const script = `umask 077; ulimit -n 64; cd /; exec "${join(import.meta.dirname, '../../bin/engine')}" run --rm --hostname h busybox sh -c '${look}'`;
  const odd = execFileSync('nice', ['-n', '5', 'sh', '-c', script], { env: { ...engine.env, SECRET: '1' }, encoding: 'utf8' });
  const anonymous = (text: string): string => text.replaceAll(/[0-9a-f]{12,}/g, 'ID');
  expect(anonymous(odd)).toBe(anonymous(plain.stdout));
  expect(odd).not.toContain('SECRET');
});

it('its socket is for its own user', async () => {
  expect(statSync(join(engine.runRoot, 'engined.sock')).mode & 0o777).toBe(0o600);
  // a way past the mode shows that the one behind it is asked who he is, too
  const folders = [engine.folder, engine.runRoot].map((path) => [path, statSync(path).mode] as const);
  for (const [path] of folders) chmodSync(path, 0o755);
  chmodSync(join(engine.runRoot, 'engined.sock'), 0o666);
  const connect = `const s = require('node:net').connect(process.argv[1]); let t = ''; s.on('data', (d) => (t += d.toString('latin1'))); s.on('error', () => {}); s.on('close', () => console.log(JSON.stringify(t)));`;
  const said = execFileSync(process.execPath, ['-e', connect, join(engine.runRoot, 'engined.sock')], { uid: 65534, gid: 65534, cwd: '/', encoding: 'utf8' });
  expect(said).toContain('serves uid 0 only');
  for (const [path, mode] of folders) chmodSync(path, mode);
  chmodSync(join(engine.runRoot, 'engined.sock'), 0o600);
});

describe('configurations', () => {
  afterEach(() => engine.configure(''));
  it('two at once, and one that is edited between two calls', async () => {
    const seccomp = async (...flags: string[]): Promise<string> => (await engine.ok(...flags, 'run', '--rm', 'busybox', 'sh', '-c', 'grep Seccomp: /proc/self/status')).replace(/\s+/g, ' ');
    const [a, b] = await Promise.all([seccomp(), seccomp('--set', 'security.seccomp=unconfined')]);
    expect([a, b]).toEqual(['Seccomp: 2', 'Seccomp: 0']);
    engine.configure('security: { seccomp: unconfined }\n');
    expect(await seccomp()).toBe('Seccomp: 0');
    engine.configure('security: { seccomp: default }\n');
    expect(await seccomp()).toBe('Seccomp: 2');
    engine.configure('securitee: {}\n');
    expect((await both(['ps'])).stderr).toMatch(/did you mean "security"/);
  });
  it('a plugin whose code is another one now: a fresh process has it', async () => {
    const folder = join(engine.folder, 'cwd', 'label');
    mkdirSync(folder);
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'label', version: '1.0.0', type: 'module', peerDependencies: { '@engine/core': '^0.1.0' }, engine: { name: 'label', main: './plugin.ts', taps: ['configure'] } }));
    const write = (text: string): void =>
      writeFileSync(
        join(folder, 'plugin.ts'),
        `import { definePlugin } from '@engine/core/plugin';
         export default definePlugin({ create({ tap }) { tap('configure', ({ spec }) => ({ ...spec, hostname: '${text}' })); return {}; } });`,
      );
    write('first');
    engine.configure(`plugins: [${folder}]\n`);
    const hostname = (): Promise<string> => engine.ok('run', '--rm', 'busybox', 'hostname');
    expect(await hostname()).toBe('first');
    const before = engine.engined;
    const held = engine.start(['run', '--rm', '-i', 'busybox', 'cat']);
    held.child.stdin.write('a\n');
    await held.output(/a/);
    write('second');
    expect(await hostname()).toBe('second');
    await until('the successor', () => engine.engined !== undefined && engine.engined !== before);
    await until('the end of the old one', () => !existsSync(`/proc/${before}`));
    expect(await hostname()).toBe('second');
    held.child.stdin.end('b\n');
    expect(await held.result).toMatchObject({ code: 0, stdout: 'a\nb\n' });
  });
});

describe('faults', () => {
  afterAll(() => engine.configure(''));
  it('of one request end that one only', async () => {
    const folder = join(engine.folder, 'cwd', 'thrower');
    mkdirSync(folder);
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'thrower', version: '1.0.0', type: 'module', peerDependencies: { '@engine/core': '^0.1.0' }, engine: { name: 'thrower', main: './plugin.ts', taps: ['create'] } }));
    writeFileSync(
      join(folder, 'plugin.ts'),
      `import { definePlugin } from '@engine/core/plugin';
       const bad = { throws: () => setImmediate(() => { throw new Error('thrown later'); }), rejects: () => void Promise.reject(new Error('rejected later')) };
       export default definePlugin({ create({ tap }) { tap('create', (_context, { container }) => bad[container.name]?.()); return {}; } });`,
    );
    engine.configure(`plugins: [${folder}]\n`);
    const held = engine.start(['run', '--rm', '-i', 'busybox', 'cat']);
    held.child.stdin.write('a\n');
    await held.output(/a/);
    const pid = engine.engined;
    for (const [name, text] of [['throws', 'thrown later'], ['rejects', 'rejected later']] as const) {
      const result = await engine.run(['run', '--rm', '--name', name, 'busybox', 'sleep', '0.2']);
      expect([result.code, result.stderr]).toEqual([125, `engine: ${text}\n`]);
      expect(log()).toContain(text);
    }
    expect(engine.engined).toBe(pid);
    held.child.stdin.end();
    expect((await held.result).code).toBe(0);
  });
});

it('hands over without a gap', async () => {
  const before = await engine.startEngined();
  let calls = 0;
  let over = false;
  const caller = async (): Promise<void> => {
    while (!over) {
      expect(await engine.run(['ps', '-q'])).toEqual({ code: 0, signal: null, stdout: '', stderr: '' });
      calls++;
    }
  };
  const callers = [caller(), caller(), caller()];
  await until('some calls', () => calls > 5);
  process.kill(before, 'SIGHUP');
  await until('the successor', () => engine.engined !== undefined && engine.engined !== before);
  const then = calls;
  await until('more calls', () => calls > then + 5);
  over = true;
  await Promise.all(callers);
  await until('the end of the old one', () => !existsSync(`/proc/${before}`));
});

describe('when it ends', () => {
  const running = async (name: string): Promise<string> => engine.ok('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', name);
  it.each(['SIGTERM', 'SIGKILL'] as const)('by %s, containers and who is attached to them go on, and the next call finds everything', async (signal) => {
    await engine.startEngined();
    await engine.ok('run', '-d', '--name', 'stays', 'busybox', 'sh', '-c', 'while ! test -e /go; do sleep 0.05; done; exit 6');
    const attached = engine.start(['run', '--name', 'held', '-i', 'busybox', 'sh', '-c', 'echo up; cat; exit 5']);
    await attached.output(/up/);
    await engine.stopEngined(signal);
    attached.child.stdin.end('still here\n');
    expect(await attached.result).toMatchObject({ code: 5, stdout: 'up\nstill here\n' });
    expect(await running('stays')).toBe('running 0');
    await until('the next one', () => engine.engined);
    expect(await engine.ok('exec', 'stays', 'touch', '/go')).toBe('');
    expect(await engine.ok('wait', 'stays')).toBe('6');
    expect(await running('held')).toBe('exited 5');
    await engine.ok('rm', 'stays', 'held');
  });
  it('a run whose engine is gone is collected by the next, without being asked for', async () => {
    await engine.startEngined();
    await engine.ok('run', '-d', '--rm', '--name', 'alone', 'busybox', 'sh', '-c', 'sleep 0.5');
    const folder = join(engine.runRoot, 'runs', await engine.ok('inspect', '-f', '{{.Id}}', 'alone'));
    await engine.stopEngined('SIGKILL');
    await engine.startEngined();
    await until('its end', () => !existsSync(folder));
    expect(log()).toContain('engined serves');
  });
  it('and a container ends after that, its shim starts another, which collects the run', async () => {
    await engine.startEngined();
    await engine.ok('run', '-d', '--rm', '--name', 'last', 'busybox', 'sh', '-c', 'while ! test -e /go; do sleep 0.05; done');
    const id = await engine.ok('inspect', '-f', '{{.Id}}', 'last');
    const pid = Number(await engine.ok('inspect', '-f', '{{.State.Pid}}', 'last'));
    await engine.stopEngined('SIGKILL');
    writeFileSync(`/proc/${pid}/root/go`, '');
    await until('its end', () => !existsSync(join(engine.runRoot, 'runs', id)) && !existsSync(join(engine.root, 'containers', id)));
    await until('engined', () => engine.engined);
    expect(await engine.ok('ps', '-aq')).toBe('');
  });
  it('by its time, when nothing needs it', async () => {
    await engine.stopEngined();
    engine.configure('idle: 1\n');
    const pid = await engine.startEngined();
    await engine.ok('ps');
    await until('its end', () => !existsSync(`/proc/${pid}`));
    expect(existsSync(join(engine.runRoot, 'engined.sock'))).toBe(false);
    engine.configure('');
    expect((await engine.run(['ps'])).code).toBe(0);
    await until('another one', () => engine.engined);
  });
});

it.skipIf(spawnSync('systemd-socket-activate', ['--version']).status !== 0)("a service manager's socket is taken over, and left to it", async () => {
  const other = new TestEngine({ resident: 'auto' });
  mkdirSync(other.runRoot, { mode: 0o700 });
  const socket = join(other.runRoot, 'engined.sock');
  const manager = spawn('systemd-socket-activate', ['-E', 'ENGINE_RUN_ROOT', '-l', socket, join(import.meta.dirname, '../../bin/engine'), 'engined'], { env: other.env, stdio: 'ignore' });
  const ended = new Promise((resolve) => manager.on('exit', resolve));
  await until('its socket', () => existsSync(socket));
  chmodSync(socket, 0o600);
  expect(await other.ok('ps', '-q')).toBe('');
  expect(other.engined).toBe(manager.pid);
  process.kill(manager.pid ?? 0, 'SIGTERM');
  expect(await ended).toBe(0);
  expect(existsSync(socket)).toBe(true);
  expect(await other.close()).toEqual([]);
});

it('what it cannot serve is done by the caller', async () => {
  const file = join(engine.folder, 'cwd', 'names');
  writeFileSync(file, 'X=from a pipe\n');
  const out = execFileSync('bash', ['-c', `"${join(import.meta.dirname, '../../bin/engine')}" run --rm --env-file <(cat ${file}) busybox sh -c 'echo $X'`], { env: engine.env, encoding: 'utf8' });
  expect(out).toBe('from a pipe\n');
  expect((await engine.run(['plugin', 'ls'])).stdout).toContain('frontend-cli');
  const off = await engine.run(['--set', 'resident=off', 'ps', '-q'], { env: { ENGINE_LOG_LEVEL: 'debug' } });
  expect([off.code, off.stdout, off.stderr]).toEqual([0, '', expect.stringContaining('the resident engine does not do this one: its configuration says resident: off')]);
});

it('ends when nobody can find it any more', async () => {
  const other = new TestEngine({ resident: 'auto' });
  const pid = await other.startEngined();
  rmSync(join(other.runRoot, 'engined.sock'));
  await until('its end', () => !existsSync(`/proc/${pid}`));
  expect(await other.ok('ps', '-q')).toBe('');
  expect(await other.close()).toEqual([]);
});
