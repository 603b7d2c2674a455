import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { type Bundles, type BundleState } from '@engine/core/api';
import { type CallerProcess, type Invocation, type LogEntry } from '@engine/core/contracts/frontend';
import { fail } from '@engine/core/errors';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readSize } from './commands/update.ts';
import { readDuration } from './commands/events.ts';
import { linesOf } from './commands/ps.ts';
import { commands } from './commands/index.ts';
import { createOci } from './driver.ts';
import { chooseCgroup, globalFlags, parseGlobals } from './globals.ts';
import { countArgs, parse } from './parse.ts';
import { messageOf } from './phrases.ts';
import { execProcess } from './process.ts';
import { logLine } from './report.ts';
import { parseSignal } from './signals.ts';
import { listenFds } from './streams.ts';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'frontend-oci-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const state = (more: Partial<BundleState> = {}): BundleState => ({
  root: '/r', id: 'c1', ociVersion: '1.0.2', status: 'running', pid: 42, bundle: '/b', rootfs: '/b/rootfs', created: '2026-01-02T03:04:05.678Z', annotations: {}, owner: 'root', process: { cwd: '/', args: ['sh'], env: ['A=b'], user: { uid: 0, gid: 0 } }, ...more,
});

interface Call { readonly verb: string; readonly args: readonly unknown[] }
/** `engine-oci` in this process, with what it asked of the engine and of the caller. */
async function call(argv: readonly string[], bundles: Partial<Bundles> = {}, more: { env?: Record<string, string>; code?: number; input?: string; onLog?: Invocation['onLog'] } = {}) {
  const calls: Call[] = [];
  const answers: Partial<Bundles> = { create: () => Promise.resolve(state({ status: 'created' })), start: () => Promise.resolve(state()), state: () => Promise.resolve(state()), exec: () => Promise.resolve({ pid: 77 }), list: () => Promise.resolve([]), ...bundles };
  const recorder = new Proxy({}, {
    get: (_, verb: string) => (verb === 'then' ? undefined : (...args: unknown[]) => {
      calls.push({ verb, args });
      return (answers as Record<string, ((...args: unknown[]) => unknown) | undefined>)[verb]?.(...args) ?? Promise.resolve();
    }),
  }) as Bundles;
  const caller: CallerProcess = {
    adopt: () => void calls.push({ verb: 'adopt', args: [] }),
    spawn: () => Promise.resolve(1),
    wait: (pid, lost) => (calls.push({ verb: 'wait', args: [pid, ...(lost ? [lost] : [])] }), Promise.resolve(more.code ?? 0)),
    begun: () => void calls.push({ verb: 'begun', args: [] }),
    path: (path) => path.replace(/^\/proc\/self(?=\/|$)/, '/proc/4711'),
    sendPidfd: (pid, socket) => (calls.push({ verb: 'sendPidfd', args: [pid, socket] }), Promise.resolve()),
  };
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  stdin.end(more.input ?? '');
  const invocation = { argv, cwd: folder, env: more.env ?? {}, stdin, stdout, stderr, version: '9.9.9', commands: [], umask: 0o22, caller, ...(more.onLog && { onLog: more.onLog }) } as unknown as Invocation;
  const code = await createOci().run(() => Promise.resolve({ bundles: recorder } as never), invocation);
  const text = (stream: PassThrough): string => String(stream.read() ?? '');
  return { code, stdout: text(stdout), stderr: text(stderr), calls };
}
const config = (process: object): void => writeFileSync(join(folder, 'config.json'), JSON.stringify({ process }));

describe('words', () => {
  const table = { all: { type: 'boolean', short: 'a', help: '' }, bundle: { type: 'string', short: 'b', help: '' }, env: { type: 'list', short: 'e', help: '' }, tty: { type: 'boolean', short: 't', help: '' } } as const;
  it.each([
    [['-all', 'x'], { all: true }, ['x']],
    [['x', '--all'], { all: true }, ['x']],
    [['x', '--all=false'], { all: false }, ['x']],
    [['-bundle=/p', 'x'], { bundle: '/p' }, ['x']],
    [['--bundle', '/p', 'x'], { bundle: '/p' }, ['x']],
    [['-b/p', 'x'], { bundle: '/p' }, ['x']],
    [['-at', 'x'], { all: true, tty: true }, ['x']],
    [['-ab', '/p', 'x'], { all: true, bundle: '/p' }, ['x']],
    [['-e', 'A=b', '--env=C=d=e', 'x'], { env: ['A=b', 'C=d=e'] }, ['x']],
    [['x', '-9'], {}, ['x', '-9']],
    [['--', '--all'], {}, ['--all']],
    [['-', 'x'], {}, ['-', 'x']],
    [['--bundle', '--all', 'x'], { bundle: '--all' }, ['x']],
  ])('%j', (argv, flags, args) => expect(parse('kill', table, argv)).toEqual({ flags: { all: false, bundle: undefined, env: [], tty: false, ...flags }, args }));
  it('leaves what follows the id of exec alone', () => expect(parse('exec', table, ['-t', 'x', 'ls', '-a', '--', '-t'], { passThrough: true })).toMatchObject({ flags: { tty: true, all: false }, args: ['x', 'ls', '-a', '--', '-t'] }));
  it.each([
    [['--nope'], 'flag provided but not defined: -nope'],
    [['-z'], 'flag provided but not defined: -z'],
    [['-az'], 'flag provided but not defined: -az'],
    [['x', '--nope=1'], 'flag provided but not defined: -nope'],
    [['--bundle'], 'flag needs an argument: --bundle'],
    [['--all=maybe'], 'invalid boolean value "maybe" for --all'],
  ])('refuses %j', (argv, message) => expect(() => parse('kill', table, argv)).toThrow(message));
  it('takes every flag of every command in each of its forms', () => {
    for (const { name, flags } of [...commands, { name: '', flags: globalFlags }]) {
      for (const [flag, { type, short }] of Object.entries(flags)) {
        for (const word of [`--${flag}`, `-${flag}`, ...(short === undefined ? [] : [`-${short}`])]) {
          const { flags: read } = parse(name, flags, type === 'boolean' ? [word] : [word, '7']);
          expect(read[flag as keyof typeof read], `${name} ${word}`).toEqual(type === 'boolean' ? true : type === 'list' ? ['7'] : '7');
          expect(parse(name, flags, [`${word}=${type === 'boolean' ? 'true' : '7'}`]).flags).toEqual(read);
        }
      }
    }
  });
  it('counts arguments', () => {
    expect(() => countArgs('kill', [], 1, 2)).toThrow('"kill" requires a minimum of 1 argument(s)');
    expect(() => countArgs('kill', ['a', 'b', 'c'], 1, 2)).toThrow('"kill" requires a maximum of 2 argument(s)');
    expect(() => countArgs('state', [], 1, 1)).toThrow('"state" requires exactly 1 argument(s)');
  });
  it('of all verbs stand before theirs', () => {
    expect(parseGlobals(['--root', '/r', '--log=l', '-log-format', 'json', '--systemd-cgroup', 'kill', '--all', 'x'])).toMatchObject({ flags: { root: '/r', log: 'l', 'log-format': 'json', 'systemd-cgroup': true, debug: false }, rest: ['kill', '--all', 'x'] });
    expect(parseGlobals(['-V'])).toMatchObject({ flags: { version: true }, rest: [] });
    expect(parseGlobals(['--cgroup-manager', 'systemd', '--rootless=auto', '--criu', '/c', 'list'])).toMatchObject({ flags: { 'cgroup-manager': 'systemd', rootless: 'auto', criu: '/c' }, rest: ['list'] });
  });
  it('choose the cgroup driver', () => {
    expect(chooseCgroup('systemd', false)).toBe('systemd');
    expect(chooseCgroup(undefined, true)).toBe('systemd');
    expect(chooseCgroup('cgroupfs', false)).toMatch(/^v[12]$/);
    expect(chooseCgroup('mine', false)).toBe('mine');
    expect(() => chooseCgroup('disabled', false)).toThrow('--cgroup-manager disabled');
    expect(() => chooseCgroup('cgroupfs', true)).toThrow('exclude each other');
  });
});

describe('values', () => {
  it.each([['9', 9], ['0', 0], ['KILL', 9], ['sigkill', 9], ['SIGWINCH', 28], ['winch', 28], ['RTMIN+3', 37], ['SIGRTMAX-1', 63], ['CLD', 17], ['64', 64]])('signal %s', (text, number) => expect(parseSignal(text)).toBe(number));
  it.each(['FOO', '', '-9', 'RTMIN+31', 'RTMAX+1', 'RTMIN+', '9.5'])('no signal %j', (text) => expect(() => parseSignal(text)).toThrow('unknown signal'));
  it('no signal 65', () => expect(() => parseSignal('65')).toThrow('unable to signal init'));
  it.each([['100', 100], ['10m', 10 << 20], ['1.5k', 1536], ['2GB', 2 * 2 ** 30], ['3 KiB', 3072], ['-1', -1]])('size %s', (text, bytes) => expect(readSize('memory', text)).toBe(bytes));
  it.each(['foo', '-2', '1x', '', '1e3', '9999999999g'])('no size %j', (text) => expect(() => readSize('memory', text)).toThrow(`invalid value for memory: invalid size: '${text}'`));
  it.each([['5s', 5000], ['250ms', 250], ['1m30s', 90_000], ['1.5h', 5_400_000], ['100us', 0.1]])('time %s', (text, ms) => expect(readDuration('interval', text)).toBeCloseTo(ms));
  it.each(['5', 's', '', '-1s', '0s'])('no time %j', (text) => expect(() => readDuration('interval', text)).toThrow());
});

describe('the process of exec', () => {
  const own = { cwd: '/w', terminal: true, consoleSize: { height: 1, width: 2 }, args: ['old'], env: ['A=1'], user: { uid: 5, gid: 6, additionalGids: [7], umask: 63 }, noNewPrivileges: true, apparmorProfile: 'p', oomScoreAdj: 3, rlimits: [], capabilities: { bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'], ambient: ['CAP_KILL'] } };
  const none = { env: [], additionalGids: [], caps: [] };
  it("is the container's own with another command and no terminal", () => expect(execProcess(own, ['ls'], none)).toEqual({ cwd: '/w', terminal: false, args: ['ls'], env: ['A=1'], user: own.user, noNewPrivileges: true, apparmorProfile: 'p', oomScoreAdj: 3, rlimits: [], capabilities: own.capabilities }));
  it('is changed by flags', () => {
    const made = execProcess(own, ['ls'], { cwd: '/', env: ['A=2', 'B='], tty: true, user: '1000:8', additionalGids: ['9'], processLabel: 'l', apparmor: 'q', noNewPrivs: true, caps: ['CAP_CHOWN'] });
    expect(made).toMatchObject({ cwd: '/', terminal: true, env: ['A=1', 'A=2', 'B='], user: { uid: 1000, gid: 8, additionalGids: [7, 9], umask: 63 }, selinuxLabel: 'l', apparmorProfile: 'q' });
    expect(made.capabilities).toEqual({ bounding: ['CAP_KILL', 'CAP_CHOWN'], effective: ['CAP_KILL', 'CAP_CHOWN'], permitted: ['CAP_KILL', 'CAP_CHOWN'], ambient: ['CAP_KILL', 'CAP_CHOWN'] });
  });
  it('keeps the group when only the user is named', () => expect(execProcess(own, ['ls'], { ...none, user: '1000' }).user).toMatchObject({ uid: 1000, gid: 6 }));
  it.each(['foo', '', '-1', '4294967295', '99999999999', '1:x', '1:2:3', '1.5', '0x10', ' 1', '1:'])('refuses the user %j', (user) => user === '' ? expect(execProcess(own, ['ls'], { ...none, user }).user.uid).toBe(5) : expect(() => execProcess(own, ['ls'], { ...none, user })).toThrow('--user'));
  it.each(['A', '=b', ''])('refuses the variable %j', (one) => expect(() => execProcess(own, ['ls'], { ...none, env: [one] })).toThrow('--env'));
  it('refuses groups that are no numbers', () => expect(() => execProcess(own, ['ls'], { ...none, additionalGids: ['4294967295'] })).toThrow('--additional-gids'));
});

describe('answers', () => {
  it('state', async () => {
    const { stdout } = await call(['state', 'c1'], { state: () => Promise.resolve(state({ annotations: { 'a.b': 'c' } })) });
    expect(stdout).toBe('{\n  "ociVersion": "1.0.2",\n  "id": "c1",\n  "pid": 42,\n  "status": "running",\n  "bundle": "/b",\n  "rootfs": "/b/rootfs",\n  "created": "2026-01-02T03:04:05.678Z",\n  "annotations": {\n    "a.b": "c"\n  },\n  "owner": ""\n}');
  });
  it('list', async () => {
    expect((await call(['list'])).stdout).toBe('ID          PID         STATUS      BUNDLE      CREATED     OWNER\n');
    const two = { list: () => Promise.resolve([state({ bundle: '/var/lib/bundle' }), state({ id: 'another-container', pid: 0, status: 'stopped' as const })]) };
    expect((await call(['list'], two)).stdout).toBe(
      'ID                  PID         STATUS      BUNDLE            CREATED                    OWNER\nc1                  42          running     /var/lib/bundle   2026-01-02T03:04:05.678Z   root\nanother-container   0           stopped     /b                2026-01-02T03:04:05.678Z   root\n',
    );
    expect((await call(['list', '-q'], two)).stdout).toBe('c1\nanother-container\n');
    expect((await call(['list', '-f', 'json'])).stdout).toBe('null\n');
    expect(JSON.parse((await call(['list', '--format=json'], two)).stdout)).toMatchObject([{ id: 'c1', pid: 42, owner: 'root' }, { id: 'another-container', status: 'stopped' }]);
    expect(await call(['list', '-f', 'yaml'])).toMatchObject({ code: 1, stderr: expect.stringContaining('invalid format option') });
  });
  it('ps', async () => {
    expect((await call(['ps', '-f', 'json', 'c1'], { processes: () => Promise.resolve([1, 5]) })).stdout).toBe('[1,5]\n');
    expect((await call(['ps', '-f', 'json', 'c1'], { processes: () => Promise.reject(fail('ERR_NOT_RUNNING', 'x')) })).stdout).toBe('null\n');
    expect((await call(['ps', 'c1'], { processes: () => Promise.resolve([process.pid]) })).stdout).toMatch(new RegExp(`^UID +PID[^\\n]*\\n\\S+ +${process.pid} [^\\n]*\\n$`));
    expect(linesOf('  PID CMD\n    1 init\n   12 a b\n', new Set([12]))).toBe('  PID CMD\n   12 a b\n');
    expect(await call(['ps', 'c1', '-o', 'comm'], { processes: () => Promise.resolve([1]) })).toMatchObject({ code: 1, stderr: expect.stringContaining("couldn't find PID field in ps output") });
  });
  it('version and help', async () => {
    expect(await call(['--version'])).toMatchObject({ code: 0, stdout: 'engine-oci version 9.9.9\ncommit: 9.9.9\nspec: 1.3.0\n' });
    expect((await call([])).stdout).toContain('COMMANDS:');
    for (const { name, flags } of commands) {
      const { code, stdout } = await call([name, '--help']);
      expect([name, code]).toEqual([name, 0]);
      for (const flag of Object.keys(flags)) expect(stdout).toContain(`--${flag}`);
    }
  });
  it('kill and delete', async () => {
    expect((await call(['--root', 'r', 'kill', '-a', 'c1', 'INT'])).calls).toEqual([{ verb: 'kill', args: [{ root: join(folder, 'r'), id: 'c1' }, 2, { all: true }] }]);
    expect((await call(['kill', 'c1'])).calls).toEqual([{ verb: 'kill', args: [{ root: '/run/engine-oci', id: 'c1' }, 15, { all: false }] }]);
    expect((await call(['delete', 'c1', '--force'])).calls).toMatchObject([{ verb: 'delete', args: [{ id: 'c1' }, { force: true }] }]);
    expect((await call(['delete', '-r', '^c'], { list: () => Promise.resolve([state(), state({ id: 'd1' })]) })).calls.filter(({ verb }) => verb === 'delete')).toMatchObject([{ args: [{ id: 'c1' }, {}] }]);
  });
  it('update', async () => {
    const flags = ['--memory', '10m', '--memory-swap', '-1', '--cpu-share', '5', '--cpu-quota', '-1', '--cpuset-cpus', '0-1', '--pids-limit', '7', '--blkio-weight', '100', '--cpu-rt-runtime', '0'];
    expect((await call(['update', ...flags, 'c1'])).calls).toMatchObject([{ verb: 'update', args: [{ id: 'c1' }, { memory: { limit: 10 << 20, swap: -1 }, cpu: { shares: 5, quota: -1, cpus: '0-1', realtimeRuntime: 0 }, pids: { limit: 7 }, blockIO: { weight: 100 } }] }]);
    expect((await call(['update', '-r', '-', 'c1'], {}, { input: '{"memory":{"limit":5}}' })).calls).toMatchObject([{ args: [{}, { memory: { limit: 5 } }] }]);
    // Docker writes every field
    const whole = { memory: { limit: 0, reservation: 0, swap: 0, kernel: 0, kernelTCP: 0, swappiness: 0 }, cpu: { shares: 7, quota: 0, period: 0, cpus: '', mems: '0' }, blockIO: { weight: 0 }, pids: { limit: 0 }, unified: { 'cpu.idle': '0' } };
    expect((await call(['update', '-r', '-', 'c1'], {}, { input: JSON.stringify(whole) })).calls[0]?.args[1]).toEqual({ memory: { swappiness: 0 }, cpu: { shares: 7, mems: '0' }, unified: { 'cpu.idle': '0' } });
    expect(await call(['update', '-r', '-', 'c1'], {}, { input: '{' })).toMatchObject({ code: 1, calls: [] });
    expect(await call(['update', '-r', 'nope', 'c1'])).toMatchObject({ code: 1, stderr: expect.stringContaining('no such file or directory') });
    expect(await call(['update', '--l3-cache-schema', 'x', 'c1'])).toMatchObject({ code: 1, stderr: expect.stringContaining('--l3-cache-schema') });
  });
  it('spec', async () => {
    expect(await call(['spec'])).toMatchObject({ code: 0 });
    expect(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))).toMatchObject({ process: { terminal: true, args: ['sh'] }, root: { path: 'rootfs', readonly: true } });
    expect(await call(['spec'])).toMatchObject({ code: 1, stderr: expect.stringContaining('config.json exists') });
    expect(await call(['spec', '--rootless', '-f', 'other.json'])).toMatchObject({ code: 0 });
    expect(JSON.parse(readFileSync(join(folder, 'other.json'), 'utf8')).linux.uidMappings).toHaveLength(1);
  });
});

describe('what is started', () => {
  it('create writes the pid before it ends, as a whole', async () => {
    config({ terminal: false });
    expect(await call(['create', '--pid-file', 'pid', '--pidfd-socket', 's', '--no-pivot', '--preserve-fds', '2', 'c1'], {}, { env: { LISTEN_FDS: '1', LISTEN_PID: '4711' } })).toMatchObject({
      code: 0, calls: [{ verb: 'create', args: [{ id: 'c1', bundle: folder, noPivot: true, noNewKeyring: false, preserveFds: 3, env: ['LISTEN_FDS=1', 'LISTEN_PID=1'] }] }, { verb: 'sendPidfd', args: [42, join(folder, 's')] }],
    });
    expect(readFileSync(join(folder, 'pid'), 'utf8')).toBe('42');
  });
  it('create leaves no container whose pid cannot be told', async () => {
    config({});
    expect(await call(['create', '--pid-file', 'no/such/folder', 'c1'])).toMatchObject({ code: 1, calls: [], stderr: expect.stringMatching(/create failed: .*pid file.*no such file or directory/) });
    const failing = await call(['create', '--pidfd-socket', 's', 'c1'], { create: () => { throw fail('ERR_NAME_TAKEN', 'container with id exists: c1'); } });
    expect(failing).toMatchObject({ code: 1, stderr: expect.stringContaining('container with given ID already exists') });
  });
  it('terminals go with a console socket, and only then', async () => {
    config({ terminal: true });
    expect((await call(['create', 'c1'])).calls).toMatchObject([{ args: [{ detached: true }] }]);
    expect((await call(['run', '-d', 'c1'])).calls[0]).toMatchObject({ args: [{ detached: true }] });
    expect((await call(['run', 'c1'])).calls[1]).toMatchObject({ verb: 'create', args: [{ detached: false }] });
    expect(await call(['run', '--console-socket', 's', 'c1'])).toMatchObject({ code: 1, calls: [], stderr: expect.stringContaining('cannot use console socket if') });
    expect((await call(['create', '--console-socket', 's', 'c1'])).calls).toMatchObject([{ args: [{ consoleSocket: join(folder, 's') }] }]);
  });
  it('run waits, has the exit code, and deletes', async () => {
    config({});
    const { code, calls } = await call(['run', 'c1'], {}, { code: 137 });
    expect([code, ...calls.map(({ verb }) => verb)]).toEqual([137, 'adopt', 'create', 'wait', 'start', 'begun', 'delete']);
    // who waits is told what is to be done when nobody else can
    expect(calls.find(({ verb }) => verb === 'wait')?.args[1]).toEqual(['--root', expect.stringMatching(/^\//), 'delete', '--force', '--', 'c1']);
    expect((await call(['run', '--keep', 'c1'])).calls.find(({ verb }) => verb === 'wait')?.args[1]).toEqual([]);
    expect((await call(['run', '--keep', 'c1'])).calls.map(({ verb }) => verb)).not.toContain('delete');
    expect((await call(['run', '-d', 'c1'])).calls.map(({ verb }) => verb)).toEqual(['create', 'start']);
  });
  it('run deletes what could not start', async () => {
    config({});
    const { code, calls, stderr } = await call(['run', '-d', 'c1'], { start: () => Promise.reject(fail('ERR_EXEC_FAILED', 'exec: "x": exec format error')) });
    expect([code, ...calls.map(({ verb }) => verb)]).toEqual([1, 'create', 'start', 'delete']);
    expect(stderr).toContain('engine-oci run failed: unable to start container process: exec: \\"x\\": exec format error');
  });
  it('exec', async () => {
    expect(await call(['exec', '--pid-file', 'pid', '-e', 'B=c', 'c1', 'ls', '-l'], {}, { code: 3 })).toMatchObject({ code: 3, calls: [{ verb: 'state' }, { verb: 'adopt' }, { verb: 'exec', args: [{ id: 'c1' }, { process: { args: ['ls', '-l'], env: ['A=b', 'B=c'], terminal: false }, cgroups: [], ignorePaused: false, preserveFds: 0 }] }, { verb: 'wait', args: [77] }] });
    expect(readFileSync(join(folder, 'pid'), 'utf8')).toBe('77');
    writeFileSync(join(folder, 'p.json'), '{"cwd":"/x","args":["a"],"terminal":true}');
    expect((await call(['exec', '-d', '-p', 'p.json', '--console-socket', 's', '--cgroup', 'sub', '--ignore-paused', 'c1'])).calls).toMatchObject([{}, { verb: 'exec', args: [{}, { process: { cwd: '/x', args: ['a'] }, cgroups: ['sub'], ignorePaused: true, consoleSocket: join(folder, 's') }] }]);
    expect(await call(['exec', 'c1'])).toMatchObject({ code: 255, stderr: expect.stringContaining('exec failed: process args cannot be empty') });
    expect(await call(['exec', '-p', 'nope.json', 'c1'])).toMatchObject({ code: 255, stderr: expect.stringContaining('no such file or directory') });
    expect(await call(['exec'])).toMatchObject({ code: 1 });
  });
  it('sockets of activation are those of the caller alone', () => {
    const caller = { path: () => '/proc/5' } as unknown as CallerProcess;
    expect(listenFds({ env: { LISTEN_FDS: '2', LISTEN_PID: '5' }, caller })).toBe(2);
    expect(listenFds({ env: { LISTEN_FDS: '2', LISTEN_PID: '6' }, caller })).toBe(0);
    expect(listenFds({ env: { LISTEN_FDS: '2' }, caller })).toBe(0);
    expect(listenFds({ env: { LISTEN_FDS: '-1', LISTEN_PID: '5' }, caller })).toBe(0);
  });
});

describe('events', () => {
  it('stats in the layout of runc', async () => {
    const stats = { group: { cpuNanoseconds: 5, cpuSystemNanoseconds: 2, pids: 1, memoryLimitBytes: 9, memoryBytes: 3 }, interfaces: [] };
    const { stdout } = await call(['events', '--stats', 'c1'], { stats: () => Promise.resolve(stats) });
    expect(JSON.parse(stdout)).toMatchObject({ type: 'stats', id: 'c1', data: { cpu: { usage: { total: 5, kernel: 2, user: 0 } }, memory: { usage: { limit: 9, usage: 3, failcnt: 0 } }, pids: { current: 1 } } });
  });
  it('stats have all that the kernel counts, digit by digit', async () => {
    const details = {
      perCpu: { total: [5, 6] }, cpuset: { cpus: [0, 1], mems: [0], flags: { sched_load_balance: 1, sched_relax_domain_level: -1 } }, memory: { cache: 4, rss: 0 },
      counters: { memory: { limit: 9223372036854771712, usage: 3, peak: 8, failures: 2 }, swap: { usage: 3 } }, hugetlb: { '2MB': { usage: 0, failures: 1 } }, block: { io_serviced: [{ major: 8, minor: 0, operation: 'Read', value: 2 }] },
    };
    const { stdout } = await call(['events', '--stats', 'c1'], { stats: () => Promise.resolve({ group: {}, details, interfaces: [] }) });
    expect(stdout).toContain('"memory":{"cache":4,"usage":{"limit":9223372036854771712,"usage":3,"max":8,"failcnt":2},"swap":{"limit":18446744073709551615,"usage":3,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"kernelTCP":{"limit":0,"failcnt":0},"raw":{"cache":4,"rss":0}}');
    expect(JSON.parse(stdout)).toMatchObject({ data: {
      cpu: { usage: { percpu: [5, 6], kernel: 0, user: 0 }, throttling: {} }, cpuset: { cpus: [0, 1], mems: [0], cpu_exclusive: 0, sched_load_balance: 1, sched_relax_domain_level: -1 },
      blkio: { ioServicedRecursive: [{ major: 8, op: 'Read', value: 2 }] }, hugetlb: { '2MB': { failcnt: 1 } }, intel_rdt: {}, network_interfaces: null,
    } });
  });
  it('kills are told, and the end ends them', async () => {
    let left = 2;
    const { code, stdout } = await call(['events', '--interval', '5ms', 'c1'], {
      stats: () => (left-- > 0 ? Promise.resolve({ group: {}, interfaces: [] }) : Promise.reject(fail('ERR_NOT_RUNNING', 'gone'))),
      oom: (() => { let told = false; return (_ref: unknown, signal?: AbortSignal) => (told ? new Promise<undefined>((resolve) => signal?.addEventListener('abort', () => resolve(undefined))) : ((told = true), Promise.resolve(1))); })(),
    });
    const types = stdout.trim().split('\n').map((line) => (JSON.parse(line) as { type: string }).type).sort();
    expect([code, ...types]).toEqual([0, 'oom', 'stats', 'stats']);
  });
  it('the end ends them before the next look', async () => expect(await call(['events', '--interval', '1h', 'c1'], { oom: () => Promise.resolve(undefined) })).toMatchObject({ code: 0, stdout: '' }));
  it('of one that has ended', async () => expect(await call(['events', 'c1'], { state: () => Promise.resolve(state({ status: 'stopped' })) })).toMatchObject({ code: 1, stderr: expect.stringContaining('container with id c1 is not running') }));
});

describe('what fails', () => {
  it.each([
    [fail('ERR_NO_SUCH_CONTAINER', 'container "x" does not exist', { path: 'x' }), 'container does not exist: x'],
    [fail('ERR_NOT_RUNNING', 'cannot exec: container x is not running', { operation: 'exec' }), 'cannot exec: container x is not running: cannot exec in a stopped container'],
    [fail('ERR_NOT_RUNNING', 'cannot kill: container x is not running', { operation: 'kill' }), 'cannot kill: container x is not running: container not running'],
    [fail('ERR_NAME_TAKEN', 'container with id exists: x'), 'container with id exists: x: container with given ID already exists'],
    [fail('ERR_EXEC_NOT_FOUND', 'exec: "nope": executable file not found in $PATH', { errno: 'ENOENT' }), 'unable to start container process: exec: "nope": executable file not found in $PATH'],
    [fail('ERR_EXEC_FAILED', 'exec: "/etc": is a directory', { errno: 'EISDIR', plugin: 'linux-base' }), 'unable to start container process: exec: "/etc": is a directory: permission denied'],
    [fail('ERR_EXEC_FAILED', 'exec: "/x": permission denied', { errno: 'EACCES' }), 'unable to start container process: exec: "/x": permission denied'],
    [fail('ERR_OPERATION_FAILED', 'mount /a failed', { errno: 'ENOTDIR', plugin: 'p', hint: 'do that' }), 'mount /a failed: not a directory [plugin p]; do that'],
    [new Error('plain'), 'plain'],
    [fail('ERR_OPERATION_FAILED', 'hook /bin/false failed: /bin/false exited with 1', { errno: 'EREMOTEIO', hint: '' }), 'hook /bin/false failed: /bin/false exited with 1'],
  ])('%s', (error, text) => expect(messageOf(error)).toBe(text));
  it('is in the log as JSON, and on standard error in words', async () => {
    const { code, stderr } = await call(['--log', 'log.json', '--log-format', 'json', 'state', 'x'], { state: () => Promise.reject(fail('ERR_NO_SUCH_CONTAINER', 'no "x"\nat all', { path: 'x' })) });
    expect([code, stderr]).toEqual([1, 'container does not exist: x\n']);
    expect(JSON.parse(readFileSync(join(folder, 'log.json'), 'utf8'))).toEqual({ level: 'error', msg: 'container does not exist: x', time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/) });
  });
  it('stands alone in the log; warnings of what succeeds are there', async () => {
    config({});
    const warned = (end: () => Promise<BundleState>): Partial<Bundles> => ({ create: (request) => (request.onWarning?.('careful'), end()) });
    const bad = await call(['--log', 'l', '--log-format=json', 'create', 'c1'], warned(() => Promise.reject(fail('ERR_OPERATION_FAILED', 'bad'))));
    expect(JSON.parse(readFileSync(join(folder, 'l'), 'utf8'))).toMatchObject({ level: 'error' });
    expect(bad.stderr).toContain('warning: careful\n');
    await call(['--log', 'm', '--log-format=json', 'create', 'c1'], warned(() => Promise.resolve(state())));
    expect(JSON.parse(readFileSync(join(folder, 'm'), 'utf8'))).toMatchObject({ level: 'warning', msg: 'careful' });
  });
  it('takes what the engine has to say of it, until it is over', async () => {
    const takes: (((entry: LogEntry) => void) | undefined)[] = [];
    const onLog: NonNullable<Invocation['onLog']> = (take) => void takes.push(take);
    const said = (): Promise<BundleState> => {
      takes[0]?.({ level: 'warning', text: '[plugin p] careful' });
      takes[0]?.({ level: 'debug', text: 'seen with --debug' });
      return Promise.resolve(state());
    };
    expect((await call(['--log', 'l', '--log-format=json', 'state', 'c1'], { state: said }, { onLog })).stderr).toBe('');
    expect(readFileSync(join(folder, 'l'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as object)).toMatchObject([{ level: 'warning', msg: '[plugin p] careful' }]);
    expect(takes).toEqual([expect.any(Function), undefined]);
    takes.length = 0;
    expect((await call(['--debug', 'state', 'c1'], { state: said }, { onLog })).stderr).toMatch(/level=debug msg="seen with --debug"\n.*level=warning/);
  });
  it('is told in the log also where the words are wrong', async () => {
    expect(await call(['--log', 'l', 'state'])).toMatchObject({ code: 1, stderr: expect.stringContaining('requires exactly 1 argument') });
    expect(readFileSync(join(folder, 'l'), 'utf8')).toContain('level=error');
    expect(await call(['frobnicate'])).toMatchObject({ code: 3, stderr: expect.stringContaining("No help topic for 'frobnicate'") });
    expect(await call(['--log-format', 'xml', 'list'])).toMatchObject({ code: 1, stderr: expect.stringContaining('invalid log-format: xml') });
    expect(await call(['--log', 'no/such/folder', 'list'])).toMatchObject({ code: 1, calls: [], stderr: expect.stringMatching(/^time="[^"]+" level=error msg="cannot open the log \S+: no such file or directory"\n$/) });
  });
  it('goes to the log that is the own standard error, once', async () => {
    for (const path of ['/dev/stderr', '/proc/self/fd/2', '/dev/fd/2']) expect((await call(['--log', path, 'state'])).stderr.match(/requires exactly/g)).toHaveLength(1);
  });
  it('reaches a fifo that somebody reads', async () => {
    const path = join(folder, 'fifo');
    execFileSync('mkfifo', [path]);
    const fd = openSync(path, 'r+');
    await call(['--log', path, 'state']);
    const buffer = Buffer.alloc(4096);
    expect(buffer.toString('utf8', 0, readSync(fd, buffer))).toContain('requires exactly');
    closeSync(fd);
  });
  it('is one line as logrus writes it', () => {
    const now = new Date('2026-01-02T03:04:05.678Z');
    expect(logLine(false, 'error', 'a "b" c', now)).toBe('time="2026-01-02T03:04:05Z" level=error msg="a \\"b\\" c"\n');
    expect(logLine(false, 'error', 'plain', now)).toBe('time="2026-01-02T03:04:05Z" level=error msg=plain\n');
    expect(logLine(true, 'warning', 'a "b"', now)).toBe('{"level":"warning","msg":"a \\"b\\"","time":"2026-01-02T03:04:05Z"}\n');
  });
});
