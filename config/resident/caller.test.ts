import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as listen, type Server as Listener } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type CallerProcess, type Frontend, type Invocation } from '@engine/core/contracts/frontend';
import { fail } from '@engine/core/errors';
import { createSyscalls } from '@engine/native';
import { createLog } from '../log.ts';
import { launcherPath } from '../launch.ts';
import { callerPath } from './caller.ts';
import { createInstances } from './instances.ts';
import { createServer, type Server } from './server.ts';

const program = `${launcherPath() ?? ''}-oci`;
const syscalls = createSyscalls();
let folder: string;
let listener: Listener;
let server: Server;
let resolved: unknown[];
let run: (caller: CallerProcess, invocation: Invocation, open: () => Promise<unknown>) => Promise<number>;
const launchers: ChildProcess[] = [];
const opened: number[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'engine-caller-'));
  resolved = [];
  const instances = createInstances({ open: () => Promise.reject(fail('ERR_STATE', 'no engine here')) });
  const resolve: typeof instances.resolve = (ambience) => {
    resolved.push(ambience);
    return instances.resolve(ambience);
  };
  server = createServer({
    instances: { ...instances, resolve },
    calls: syscalls,
    frontend: (driver) => {
      if (driver !== 'oci') throw new Error(`the frontend ${driver} is asked for`);
      return Promise.resolve({ name: driver, features: new Set(), probe: () => ({ available: true, score: 1, reasons: [] }), run: (open, invocation) => run(invocation.caller as CallerProcess, invocation, open) } as Frontend);
    },
    log: createLog({ level: 'silent', format: 'json' }),
    busyWith: () => undefined,
    wake: async () => {},
  });
  listener = listen({ allowHalfOpen: true }, (socket) => void server.accept(socket));
  await new Promise<void>((done) => listener.listen(join(folder, 'engined.sock'), done));
});
afterEach(async () => {
  for (const child of launchers.splice(0)) child.kill('SIGKILL');
  for (const fd of opened.splice(0)) closeSync(fd);
  await new Promise((done) => listener.close(done));
  rmSync(folder, { recursive: true, force: true });
});

interface Ended { readonly code: number | null; readonly signal: string | null; readonly out: string; readonly err: string }
function launch(words: readonly string[] = ['create', 'x'], env: NodeJS.ProcessEnv = {}): { readonly child: ChildProcess; readonly ended: Promise<Ended> } {
  const child = spawn(program, words, { cwd: folder, env: { PATH: process.env.PATH, HOME: folder, ENGINE_SOCKET: join(folder, 'engined.sock'), ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  launchers.push(child);
  const text = { out: '', err: '' };
  child.stdout.on('data', (data: Buffer) => (text.out += data.toString()));
  child.stderr.on('data', (data: Buffer) => (text.err += data.toString()));
  return { child, ended: new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal, ...text }))) };
}
const sh = (script: string, more: Partial<Parameters<CallerProcess['spawn']>[0]> = {}): Parameters<CallerProcess['spawn']>[0] => {
  const fd = openSync('/bin/sh', 'r');
  opened.push(fd);
  return { program: fd, argv: ['sh', '-c', script], env: ['PATH=/usr/bin:/bin'], fds: [], callerFds: { preserve: 0 }, ...more };
};

describe.skipIf(!existsSync(program))(`the caller's process${existsSync(program) ? '' : ' (skipped: bin/engine-oci is not built)'}`, () => {
  it('gets every word, and no configuration of the folder it stands in', async () => {
    run = (_caller, { argv, cwd, env, commands, signal }, open) => {
      expect({ argv, cwd, commands, aborted: signal?.aborted }).toEqual({ argv: ['--root', 'r', '--set', 'x', 'run', 'x'], cwd: folder, commands: [], aborted: false });
      expect(env.SOME).toBe('thing');
      return open().then(() => 0, () => 9);
    };
    writeFileSync(join(folder, '.enginerc'), 'nonsense: [');
    expect(await launch(['--root', 'r', '--set', 'x', 'run', 'x'], { SOME: 'thing' }).ended).toEqual({ code: 9, signal: null, out: '', err: '' });
    expect(resolved).toEqual([expect.objectContaining({ cwd: '/', flags: {} })]);
  });
  it('starts what it is handed, and answers in order', async () => {
    const a = openSync(join(folder, 'a'), 'w+');
    opened.push(a);
    const big = `BIG=${'x'.repeat(100_000)}`;
    run = async (caller, { stdout }) => {
      const said = stdout.write('said before\n');
      const pids = await Promise.all([1, 2, 3].map((n) => caller.spawn(sh(`echo ${n} $$ >&4; exit 0`, { fds: [-1, a] }))));
      const env = await caller.spawn(sh('echo ${#BIG}; exit 0', { env: ['PATH=/bin', big] }));
      expect(said).toBe(true);
      return new Set([...pids, env]).size === 4 && [...pids, env].every((pid) => pid > 0) ? 0 : 1;
    };
    const { code, out } = await launch().ended;
    expect({ code, out }).toEqual({ code: 0, out: 'said before\n100000\n' });
    expect(readFileSync(join(folder, 'a'), 'utf8').trim().split('\n').map((line) => line.split(' ')[0]).sort()).toEqual(['1', '2', '3']);
  });
  it('waits for what it has adopted', async () => {
    run = async (caller, _invocation) => {
      caller.adopt();
      await caller.spawn(sh(`sh -c 'while [ ! -e ${folder}/go ]; do sleep 0.01; done; exit 44' & echo $! >${folder}/pid; exit 0`));
      await expect.poll(() => existsSync(join(folder, 'pid')) && readFileSync(join(folder, 'pid'), 'utf8').endsWith('\n')).toBe(true);
      const code = caller.wait(Number(readFileSync(join(folder, 'pid'), 'utf8')));
      writeFileSync(join(folder, 'go'), '');
      return code;
    };
    expect(await launch(['run', 'x']).ended).toMatchObject({ code: 44, signal: null });
  });
  it('says with errno and path what it could not do', async () => {
    const socket = join(folder, 'nobody');
    run = async (caller) => {
      await expect(caller.spawn(sh('', { callerFds: { preserve: 0, console: { socket } } }))).rejects.toMatchObject({ code: 'ERR_NATIVE', errno: 'ENOENT', path: socket, message: expect.stringContaining('console socket') as string });
      await expect(caller.sendPidfd(process.pid, socket)).rejects.toMatchObject({ code: 'ERR_NATIVE', errno: 'ENOENT', path: socket });
      await expect(caller.wait(process.pid)).rejects.toMatchObject({ code: 'ERR_NATIVE', errno: 'ECHILD' });
      return 0;
    };
    expect(await launch().ended).toMatchObject({ code: 0, err: '' });
  });
  it('that has gone is an error for all who ask it', async () => {
    const failures: unknown[] = [];
    const over = Promise.withResolvers<void>();
    run = async (caller) => {
      caller.adopt();
      await caller.spawn(sh(`sh -c 'while [ -e ${folder} ]; do sleep 0.01; done' & echo $! >${folder}/pid; exit 0`));
      await expect.poll(() => existsSync(join(folder, 'pid')) && readFileSync(join(folder, 'pid'), 'utf8').endsWith('\n')).toBe(true);
      const waiting = caller.wait(Number(readFileSync(join(folder, 'pid'), 'utf8')));
      launched.child.kill('SIGKILL');
      await waiting.catch((error: unknown) => failures.push(error));
      await caller.spawn(sh('')).catch((error: unknown) => failures.push(error));
      over.resolve();
      return 0;
    };
    const launched = launch(['run', 'x']);
    await over.promise;
    expect(failures).toEqual([expect.objectContaining({ code: 'ERR_SHIM_GONE' }), expect.objectContaining({ code: 'ERR_SHIM_GONE' })]);
    await server.settled();
    expect(server.active).toBe(0);
  });
  it('ends with 1, in its own name, for an error that the frontend does not tell', async () => {
    run = () => Promise.reject(fail('ERR_USAGE', 'no such thing'));
    expect(await launch().ended).toEqual({ code: 1, signal: null, out: '', err: 'engine-oci: no such thing; see --help\n' });
  });
  it('that waits goes on when the engine ends', async () => {
    const waiting = Promise.withResolvers<void>();
    run = async (caller) => {
      caller.adopt();
      await caller.spawn(sh(`sh -c 'while [ ! -e ${folder}/go ]; do sleep 0.01; done; exit 8' & echo $! >${folder}/pid; exit 0`));
      await expect.poll(() => existsSync(join(folder, 'pid')) && readFileSync(join(folder, 'pid'), 'utf8').endsWith('\n')).toBe(true);
      const code = caller.wait(Number(readFileSync(join(folder, 'pid'), 'utf8')));
      waiting.resolve();
      return code;
    };
    const { ended } = launch(['run', 'x']);
    await waiting.promise;
    await server.cancel('it was stopped');
    writeFileSync(join(folder, 'go'), '');
    const { code, err } = await ended;
    expect(code).toBe(8);
    expect(err).not.toContain('it was stopped');
  });
});

describe('a path of the caller', () => {
  it('is called what it is for others', () => {
    for (const [path, other] of [
      ['/dev/stdin', '/proc/7/fd/0'], ['/dev/stderr', '/proc/7/fd/2'], ['/dev/fd/5', '/proc/7/fd/5'], ['/dev/fd', '/proc/7/fd'], ['/proc/self/cwd/b', '/proc/7/cwd/b'], ['/proc/thread-self/fd/1', '/proc/7/fd/1'],
      ['/dev/fdx', '/dev/fdx'], ['/dev/stdin/x', '/dev/stdin/x'], ['/proc/selfish', '/proc/selfish'], ['a/proc/self', 'a/proc/self'], ['/var/x', '/var/x'],
    ] as const) expect(callerPath(7, path)).toBe(other);
  });
});
