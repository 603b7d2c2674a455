import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FRONTEND, LAUNCH, LAUNCH_VERSION } from './launch.ts';
import { decodeAnswer, encodeWait } from './launch-spawn.ts';
import { Installation, pendingSignals, processState, signalNumber, until, type Call, type Run } from './launcher-testing.ts';

let home: Installation;
const opened: number[] = [];
beforeEach(async () => {
  home = new Installation();
  await home.listen();
});
afterEach(async () => {
  for (const fd of opened.splice(0)) closeSync(fd);
  await home.close();
});
const file = (path: string, flags = 'r'): number => {
  opened.push(openSync(path, flags));
  return opened.at(-1) as number;
};
const sh = (script: string, more: { readonly fds?: readonly number[]; readonly preserve?: number; readonly console?: 'relay' | { readonly socket: string }; readonly env?: readonly string[] } = {}) => ({
  program: file('/bin/sh'),
  argv: ['sh', '-c', script],
  env: more.env ?? ['PATH=/usr/bin:/bin'],
  fds: more.fds ?? [],
  callerFds: { preserve: more.preserve ?? 0, ...(more.console === undefined ? {} : { console: more.console }) },
});
const begin = async (words: readonly string[] = ['create', 'x'], options: Parameters<Installation['exec']>[2] = {}): Promise<{ run: Run; call: Call }> => {
  const run = home.exec(home.oci, words, options);
  return { run, call: await home.call() };
};
const end = async ({ run, call }: { run: Run; call: Call }, code = 0): Promise<void> => {
  call.done(code);
  expect(await run.ended).toEqual({ code, signal: null });
};

describe('under the name engine-oci', () => {
  it('asks for the frontend of OCI runtimes, whatever its words and its environment are', async () => {
    const { run, call } = await begin(['--root', '/x', '--no-daemon', 'engined', '--start'], { more: { LISTEN_FDS: '2', LISTEN_PID: '7', LISTEN_FDNAMES: 'a:b', NOTIFY_SOCKET: '/n', RUNC_X: '1', ANY: 'thing' } });
    const request = await call.request;
    expect(request).toMatchObject({ frontend: FRONTEND.oci, argv: ['--root', '/x', '--no-daemon', 'engined', '--start'], home: home.home });
    expect(request.env).toMatchObject({ LISTEN_FDS: '2', LISTEN_PID: '7', LISTEN_FDNAMES: 'a:b', NOTIFY_SOCKET: '/n', RUNC_X: '1', ANY: 'thing' });
    expect(call.frames[0]?.argument).toBe(LAUNCH_VERSION);
    call.out('as it is');
    await end({ run, call }, 3);
    expect(run.out).toBe('as it is');
    // and the other name for the other
    home.run(['ps']);
    expect(await (await home.call()).request).toMatchObject({ frontend: FRONTEND.cli });
  });
  it('is found by links of any name, and by its own name that leads elsewhere', async () => {
    symlinkSync(home.oci, join(home.folder, 'runc'));
    symlinkSync(home.program, join(home.folder, 'engine-oci'));
    for (const name of ['runc', 'engine-oci']) {
      home.exec(join(home.folder, name), ['list']);
      expect(await (await home.call()).request).toMatchObject({ frontend: FRONTEND.oci, argv: ['list'] });
    }
  });
  it('takes long command lines, closed standard files, and a folder that is gone', async () => {
    const words = Array.from({ length: 4000 }, (_, i) => `${i}`.padEnd(100, 'x'));
    const long = await begin(words);
    expect((await long.call.request).argv).toEqual(words);
    await end(long);
    mkdirSync(join(home.folder, 'gone'));
    const gone = home.exec('sh', ['-c', `cd gone; rmdir ../gone; exec "${home.oci}" list <&- >&- 2>&-`], { cwd: home.folder });
    const call = await home.call();
    expect((await call.request).cwd).toBe(`/proc/${call.pid}/cwd`);
    expect([0, 1, 2].map((fd) => readlinkSync(`/proc/${call.pid}/fd/${fd}`))).toEqual(['/dev/null', '/dev/null', '/dev/null']);
    call.done(0);
    expect(await gone.ended).toEqual({ code: 0, signal: null });
  });
  it('ends with 1 when the engine is lost in the middle, and does again what only reads', async () => {
    const { run, call } = await begin();
    call.out('begun\n');
    await until('output', () => run.out === 'begun\n');
    await home.stop();
    expect(await run.ended).toEqual({ code: 1, signal: null });
    expect(run.err).toMatch(/^engine-oci: the resident engine ended while it served this command: /);
  });
});

describe('children', () => {
  const fdsOf = 'for f in /proc/$$/fd/*; do [ -e "$f" ] && echo "${f##*/} $(readlink "$f")"; done';
  const list = (text: string): Record<string, string> => Object.fromEntries(text.trim().split('\n').map((line) => line.split(' ') as [string, string]));

  it('have the fds they are to have, in their places, and no other', async () => {
    for (const name of ['a', 'b', 'p3', 'p5', 'p6']) writeFileSync(join(home.folder, name), name);
    const at = (name: string): number => file(join(home.folder, name));
    const both = await begin(['create', 'x'], { stdio: ['ignore', 'pipe', 'pipe', at('p3'), 'ignore', at('p5'), at('p6')] });
    const pid = await both.call.spawn(sh(fdsOf, { fds: [at('a'), -1, at('b')], preserve: 3 }));
    expect(pid).toBeGreaterThan(0);
    await until('its end', () => processState(pid as number) === undefined);
    const real = (name: string): string => join(home.folder, name);
    const { 0: input, 1: output, 2: error, ...rest } = list(both.run.out);
    expect([input, output?.split(':')[0], error?.split(':')[0]]).toEqual(['/dev/null', 'socket', 'socket']);
    expect(rest).toEqual({ 3: real('a'), 5: real('b'), 6: real('p3'), 8: real('p5') });
    await end(both);
  });
  it('get nothing of ours for preserved fds that are not open', async () => {
    const both = await begin(['create', 'x'], { stdio: ['ignore', 'pipe', 'pipe'] });
    await both.call.spawn(sh(fdsOf, { fds: [file('/dev/zero')], preserve: 200 }));
    await end(both);
    expect(Object.keys(list(both.run.out))).toEqual(['0', '1', '2', '3']);
  });
  it('take a thousand preserved fds beyond the soft limit', async () => {
    const script = 'import os,sys\nfor i in range(3,1000): os.dup2(1,i) if i!=1 else 0\nos.closerange(1000,1100)\nimport resource\nresource.setrlimit(resource.RLIMIT_NOFILE,(1024,resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\nfor i in range(3,1000): os.set_inheritable(i,True)\nos.execv(sys.argv[1],sys.argv[1:])';
    const run = home.exec('python3', ['-c', script, home.oci, 'create', 'x']);
    const call = await home.call();
    await call.spawn(sh('ls /proc/$$/fd | wc -l; ulimit -n', { fds: [file('/dev/zero')], preserve: 997 }));
    call.done(0);
    await run.ended;
    // 0 to 2, one, 997 of the caller's; and the pipe of the shell's own
    expect(run.out).toBe('1001\n1024\n');
  });
  it('start in /, with umask 022, all signals blocked, and the environment they are given', async () => {
    const both = await begin(['create', 'x'], { cwd: home.folder });
    await both.call.spawn(sh('pwd; umask; env | grep -v -e ^PWD -e ^_ -e ^OLDPWD -e ^SHLVL', { env: ['PATH=/usr/bin:/bin', 'B=c d'] }));
    await until('its end', () => both.run.out.endsWith('d\n'));
    await both.call.spawn({ ...sh(''), program: file('/bin/grep'), argv: ['grep', 'SigBlk', '/proc/self/status'] });
    await end(both);
    expect(both.run.out).toBe('/\n0022\nPATH=/usr/bin:/bin\nB=c d\nSigBlk:\tfffffffffffbfeff\n');
  });
  it('fail with the errno of the exec', async () => {
    writeFileSync(join(home.folder, 'text'), 'no program', { mode: 0o755 });
    const both = await begin();
    expect(await both.call.spawn({ ...sh(''), program: file(join(home.folder, 'text')) })).toEqual({ errno: 8, what: 'start the shim' });
    expect(await both.call.spawn({ ...sh(''), program: file('/dev/null') })).toEqual({ errno: 13, what: 'start the shim' });
    expect(await both.call.spawn(sh('exit 0'))).toBeGreaterThan(0);
    await end(both);
  });
  it('are waited for before the end, so that their parent is nobody else', async () => {
    const both = await begin();
    const pid = (await both.call.spawn(sh(`while [ ! -e ${home.folder}/go ]; do sleep 0.02; done`))) as number;
    both.call.done(0);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(processState(pid)).toBeDefined();
    expect(both.run.child.exitCode).toBe(null);
    writeFileSync(join(home.folder, 'go'), '');
    expect(await both.run.ended).toEqual({ code: 0, signal: null });
    expect(processState(pid)).toBe(undefined);
  });
  it('live on when the launcher is killed', async () => {
    const both = await begin();
    const pid = (await both.call.spawn(sh(`while [ ! -e ${home.folder}/go ]; do sleep 0.02; done`))) as number;
    both.run.child.kill('SIGKILL');
    await until('the end of the connection', () => both.call.closed);
    expect(processState(pid)).not.toBe(undefined);
    writeFileSync(join(home.folder, 'go'), '');
    await until('its end', () => [undefined, 'Z'].includes(processState(pid)));
  });
});

describe('a console socket', () => {
  const servers: Server[] = [];
  afterEach(async () => {
    for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
  });
  const listen = async (path: string): Promise<string[]> => {
    const heard: string[] = [];
    const server = createServer((socket) => {
      socket.on('data', (data: Buffer) => heard.push(data.toString()));
      socket.on('error', () => {});
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return heard;
  };
  it('is connected and comes after the other fds, before the preserved ones', async () => {
    const heard = await listen(join(home.folder, 'c'));
    writeFileSync(join(home.folder, 'p'), 'preserved');
    const both = await begin(['create', 'x'], { cwd: home.folder, stdio: ['ignore', 'pipe', 'pipe', file(join(home.folder, 'p'))] });
    for (const socket of [join(home.folder, 'c'), 'c', './c']) await both.call.spawn(sh('echo master >&4; cat <&5', { fds: [file('/dev/null')], preserve: 1, console: { socket } }));
    await until('three masters', () => heard.join('') === 'master\n'.repeat(3));
    await end(both);
    expect(both.run.out).toBe('preserved');
  });
  it('may have a longer path than a socket address holds', async () => {
    const folder = join(home.folder, 'l'.repeat(120));
    mkdirSync(folder);
    symlinkSync(folder, join(home.folder, 'short'));
    const heard = await listen(join(home.folder, 'short/c'));
    const both = await begin();
    expect(await both.call.spawn(sh('echo master >&3', { console: { socket: join(folder, 'c') } }))).toBeGreaterThan(0);
    await until('the master', () => heard.length > 0);
    await end(both);
  });
  it('that nobody listens at is an error, and nothing is started', async () => {
    const both = await begin();
    const what = 'connect to the console socket';
    expect(await both.call.spawn(sh('echo started', { console: { socket: join(home.folder, 'none') } }))).toEqual({ errno: 2, what });
    expect(await both.call.spawn(sh('echo started', { console: { socket: join(home.folder, 'none/none') } }))).toEqual({ errno: 2, what });
    writeFileSync(join(home.folder, 'file'), '');
    expect(await both.call.spawn(sh('echo started', { console: { socket: join(home.folder, 'file') } }))).toEqual({ errno: 111, what });
    await end(both);
    expect(both.run.out).toBe('');
  });
});

/** One that its parent leaves behind. */
const orphan = async ({ call, run }: { run: Run; call: Call }, script: string): Promise<number> => {
  const path = join(home.folder, `pid-${opened.length}`);
  // its parent, a shell, would collect it too
  const parent = await call.spawn(sh(`env --default-signal sh -c 'while [ ! -e ${path}-go ]; do sleep 0.01; done; ${script}' & echo $! >${path}.new; mv ${path}.new ${path}`), true);
  await until('its parent to end', () => processState(parent as number) === undefined || run.child.exitCode !== null);
  writeFileSync(`${path}-go`, '');
  return Number(readFileSync(path, 'utf8'));
};

describe('a process that is waited for', () => {
  const exited = async (call: Call): Promise<ReturnType<typeof decodeAnswer>> => decodeAnswer(await call.next(LAUNCH.exited));

  it('tells its exit code, or 128 and its signal', async () => {
    for (const [script, code] of [['exit 7', 7], ['kill -9 $$', 137], ['sleep 0.1; exit 3', 3]] as const) {
      const both = await begin(['run', 'x']);
      both.call.send(LAUNCH.wait, { argument: await orphan(both, script) });
      expect(await exited(both.call)).toBe(code);
      await end(both, code);
    }
  });
  it('gets the signals that we get, and we go on', async () => {
    const both = await begin(['run', 'x']);
    const log = join(home.folder, 'log');
    const traps = ['INT', 'TERM', 'HUP', 'USR1', 'TSTP', 'CONT', 'ALRM'];
    const pid = await orphan(both, `${traps.map((name) => `trap "echo ${name} >>${log}" ${name}`).join('; ')}; echo ready >${log}; while [ ! -e ${home.folder}/go ]; do sleep 0.02; done; exit 9`);
    await until('its traps', () => existsSync(log) && readFileSync(log, 'utf8') === 'ready\n');
    both.call.send(LAUNCH.wait, { argument: pid });
    // frames are read in their order
    both.call.out('waiting');
    await until('the wait', () => both.run.out === 'waiting');
    for (const name of traps) {
      process.kill(both.run.child.pid as number, signalNumber(`SIG${name}` as NodeJS.Signals));
      await until(name, () => readFileSync(log, 'utf8').endsWith(`${name}\n`));
    }
    process.kill(both.run.child.pid as number, 'SIGPIPE');
    process.kill(both.run.child.pid as number, 'SIGURG');
    writeFileSync(join(home.folder, 'go'), '');
    expect(await exited(both.call)).toBe(9);
    await end(both, 9);
  });
  it('gets what we were sent before it was to be waited for; who insists ends the command', async () => {
    const both = await begin(['run', 'x']);
    const log = join(home.folder, 'log');
    const pid = await orphan(both, `trap "exit 5" TERM; echo ready >${log}; while :; do sleep 0.02; done`);
    await until('its trap', () => existsSync(log) && readFileSync(log, 'utf8') === 'ready\n');
    const send = async (): Promise<void> => {
      process.kill(both.run.child.pid as number, 'SIGTERM');
      await until('the signal to be taken', () => pendingSignals(both.run.child.pid as number) === 0n);
    };
    await send();
    both.call.out('still here');
    await until('its output', () => both.run.out === 'still here');
    expect(both.call.frames.some(({ type }) => type === LAUNCH.signal)).toBe(false);
    both.call.send(LAUNCH.wait, { argument: pid });
    expect(await exited(both.call)).toBe(5);
    await end(both, 5);

    const again = await begin(['run', 'x']);
    const other = await orphan(again, 'while :; do sleep 0.02; done');
    for (let i = 0; i < 2; i++) {
      process.kill(again.run.child.pid as number, 'SIGTERM');
      await until('the signal to be taken', () => pendingSignals(again.run.child.pid as number) === 0n);
    }
    await until('it to be told', () => again.call.frames.some(({ type }) => type === LAUNCH.signal));
    process.kill(other, 'SIGKILL');
    again.call.done(143);
    expect(await again.run.ended).toEqual({ code: null, signal: 'SIGTERM' });
  });
  it('keeps its exit code, whatever signals come once it has ended', async () => {
    for (const lost of [false, true]) {
      const both = await begin(['run', 'x']);
      both.call.send(LAUNCH.wait, { argument: await orphan(both, 'exit 8') });
      expect(await exited(both.call)).toBe(8);
      for (const name of ['SIGTERM', 'SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGTSTP'] as const) {
        process.kill(both.run.child.pid as number, name);
        // none of them waits behind another
        await until(`${name} to be taken`, () => pendingSignals(both.run.child.pid as number) === 0n);
      }
      expect(both.call.frames.some(({ type }) => type === LAUNCH.signal)).toBe(false);
      if (lost) both.call.out('still here');
      if (lost) await until('its output', () => both.run.out === 'still here');
      await end(both, 8);
    }
  });
  it('is none of other orphans, which are collected', async () => {
    const both = await begin(['run', 'x']);
    const other = await orphan(both, 'exit 4');
    const pid = await orphan(both, `while [ ! -e ${home.folder}/go ]; do sleep 0.02; done; exit 5`);
    await until('the other to end', () => processState(other) === 'Z');
    both.call.send(LAUNCH.wait, { argument: pid });
    await until('the other to be collected', () => processState(other) === undefined);
    expect(both.call.frames.some(({ type }) => type === LAUNCH.exited)).toBe(false);
    writeFileSync(join(home.folder, 'go'), '');
    expect(await exited(both.call)).toBe(5);
    await end(both, 5);
  });
  it('that ended before it is asked for is not lost', async () => {
    const both = await begin(['run', 'x']);
    const pid = await orphan(both, 'exit 6');
    await until('its end', () => processState(pid) === 'Z');
    both.call.send(LAUNCH.wait, { argument: pid });
    expect(await exited(both.call)).toBe(6);
    await end(both);
  });
  it('tells its exit code to who was started with SIGCHLD ignored', async () => {
    const run = home.exec('python3', ['-c', 'import os,signal,sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])', home.oci, 'run', 'x']);
    const both = { run, call: await home.call() };
    both.call.send(LAUNCH.wait, { argument: await orphan(both, 'exit 13') });
    expect(await exited(both.call)).toBe(13);
    await end(both, 13);
  });
  it('that is not ours is an error', async () => {
    const both = await begin(['run', 'x']);
    both.call.send(LAUNCH.wait, { argument: process.pid });
    expect(await exited(both.call)).toEqual({ errno: 10, what: '' });
    await end(both, 1);
  });
  it('is waited for when the engine is lost, and its exit code is ours', async () => {
    const both = await begin(['run', 'x']);
    const pid = await orphan(both, `while [ ! -e ${home.folder}/go ]; do sleep 0.02; done; exit 11`);
    both.call.send(LAUNCH.wait, { argument: pid });
    both.call.out('waiting');
    await until('the wait', () => both.run.out === 'waiting');
    await home.stop();
    writeFileSync(join(home.folder, 'go'), '');
    expect(await both.run.ended).toEqual({ code: 11, signal: null });
    expect(both.run.err).toMatch(/^engine-oci: the resident engine ended while the container ran/);
  });
});

describe('a pidfd', () => {
  it('goes to a socket, or says why not', async () => {
    const path = join(home.folder, 'p');
    const heard: string[] = [];
    const server = createServer((socket) => socket.on('data', (data: Buffer) => heard.push(data.toString())));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const both = await begin();
    both.call.send(LAUNCH.pidfd, { argument: process.pid, payload: Buffer.from(path) });
    expect((await both.call.next(LAUNCH.pidfdSent)).argument).toBe(0);
    await until('it', () => heard.join('') === 'pidfd');
    both.call.send(LAUNCH.pidfd, { argument: process.pid, payload: Buffer.from(`${path}-none`) });
    expect((await both.call.next(LAUNCH.pidfdSent)).argument).toBe(2);
    both.call.send(LAUNCH.pidfd, { argument: 2 ** 30, payload: Buffer.from(path) });
    expect((await both.call.next(LAUNCH.pidfdSent)).argument).toBe(3);
    await end(both);
    await new Promise((resolve) => server.close(resolve));
  });
});

describe('without a resident engine', () => {
  const node = (script: string): void => {
    const path = join(home.home, `node_modules/node-linux-${process.arch}/bin/node`);
    rmSync(path);
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
  };
  /** Its Node: tells what it is, then answers with `done` and a code. */
  const answering = (code: number): void =>
    node(`echo "$*" >"$HOME/words"; ls -l /proc/$$/fd >"$HOME/fds"; out=$(readlink /proc/$$/fd/1); echo "$out" >&2; echo said by it >&2; cat /proc/$$/stat >"$HOME/stat"
      printf '\\000\\000\\000\\000\\104\\000\\000\\000\\${code.toString(8).padStart(3, '0')}\\000\\000\\000' >&3; [ -e "$HOME/stay" ] && cat <&3 >/dev/null; exit 0`);
  const said = (name: string): string => readFileSync(join(home.folder, name), 'utf8');

  it('a Node process of its own serves it, without its input, output, terminal and fds', async () => {
    answering(5);
    for (const more of [{ ENGINE_RUN_ROOT: join(home.folder, 'nowhere') }, { ENGINE_RESIDENT: 'off' }, { ENGINE_NO_DAEMON: '1' }]) {
      const run = home.exec(home.oci, ['state', 'x'], { more, stdio: ['pipe', 'pipe', 'pipe', file('/dev/zero')] });
      expect(await run.ended).toEqual({ code: 5, signal: null });
      expect(run.out).toBe('');
      expect(run.err).toBe('/dev/null\nsaid by it\n');
      expect(said('words')).toBe(`--disable-warning=ExperimentalWarning -- ${home.home}/dist/start.cjs --serve-one\n`);
      const fds = said('fds');
      expect(fds).toMatch(/ 0 -> \/dev\/null\n[^]* 2 -> (socket|pipe):.*\n.* 3 -> socket:/);
      expect(fds).not.toContain('/dev/zero');
      // a session of its own
      const [pid, , , , , session] = said('stat').split(' ');
      expect(session).toBe(pid);
    }
  });
  it('does so when the resident engine leaves it to us', async () => {
    answering(6);
    const { run, call } = await begin();
    call.send(LAUNCH.local, { payload: Buffer.from('another world') });
    expect(await run.ended).toEqual({ code: 6, signal: null });
    expect(said('words')).toContain('--serve-one');
  });
  it('does so when the engine is gone before it has begun, or the command only looks', async () => {
    answering(7);
    const { run, call } = await begin(['--log', '/l', 'state', 'x']);
    call.end();
    await home.stop();
    expect(await run.ended).toEqual({ code: 7, signal: null });
  });
  it('collects it, and does not leave it when it is killed', async () => {
    answering(0);
    const env = { ENGINE_RESIDENT: 'off' };
    const run = home.exec(home.oci, ['state', 'x'], { more: env });
    await run.ended;
    expect(existsSync(`/proc/${said('stat').split(' ')[0] ?? ''}`)).toBe(false);
    writeFileSync(join(home.folder, 'stay'), '');
    rmSync(join(home.folder, 'stat'));
    node(`cat /proc/$$/stat >"$HOME/stat"; exec cat <&3 >/dev/null`);
    const killed = home.exec(home.oci, ['create', 'x'], { more: env });
    const pid = await until('its Node', () => existsSync(join(home.folder, 'stat')) && Number(said('stat').split(' ')[0]));
    killed.child.kill('SIGKILL');
    await until('its end', () => [undefined, 'Z'].includes(processState(pid)));
  });
  it('has one see to what is left when the engine is lost under what it waits for', async () => {
    answering(5);
    for (const [begun, after] of [[true, 11], [false, 1]] as const) {
      const both = await begin(['run', 'x']);
      const pid = await orphan(both, `while [ ! -e ${home.folder}/go ]; do sleep 0.02; done; exit 11`);
      both.call.send(LAUNCH.wait, { argument: pid, payload: encodeWait(['delete', 'x']) });
      if (begun) both.call.send(LAUNCH.begun);
      both.call.out('waiting');
      await until('the wait', () => both.run.out === 'waiting');
      await home.stop();
      if (begun) expect(existsSync(join(home.folder, 'words'))).toBe(false);
      if (begun) writeFileSync(join(home.folder, 'go'), '');
      expect(await both.run.ended).toEqual({ code: after, signal: null });
      expect(processState(pid)).toBe(undefined);
      expect(both.run.err).toMatch(/another process deletes it\n[^]*said by it/);
      for (const name of ['go', 'words']) rmSync(join(home.folder, name), { force: true });
      await home.listen();
    }
  });
  it('says so when that one ends in the middle', async () => {
    node('exit 3');
    const run = home.exec(home.oci, ['create', 'x'], { more: { ENGINE_RESIDENT: 'off' } });
    expect(await run.ended).toEqual({ code: 1, signal: null });
    expect(run.err).toMatch(/^engine-oci: its own process /);
  });
  it('is told what is missing, with 1', async () => {
    rmSync(join(home.home, 'dist/start.cjs'));
    const run = home.exec(home.oci, ['state', 'x'], { more: { ENGINE_RESIDENT: 'off' } });
    expect(await run.ended).toEqual({ code: 1, signal: null });
    expect(run.err).toBe(`engine-oci: not built yet; run: sh ${home.home}/config/setup/setup.sh\n`);
    expect(readdirSync(join(home.home, 'dist'))).toEqual([]);
  });
});
