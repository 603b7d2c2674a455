import { chmodSync, chownSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeFrame } from './frames.ts';
import { LAUNCH, LAUNCH_VERSION } from './launch.ts';
import { Installation, processState, signalNumber, until } from './launcher-testing.ts';

const isRoot = process.getuid?.() === 0;
let home: Installation;
beforeEach(() => {
  home = new Installation();
});
afterEach(() => home.close());

/** To the end, engined answering nothing. */
async function local(args: readonly string[], more: NodeJS.ProcessEnv = {}): Promise<{ code: number | null; out: string; err: string }> {
  const run = home.run(args, { more });
  run.child.stdin?.end();
  const { code } = await run.ended;
  return { code, out: run.out, err: run.err };
}

describe('without a resident engine', () => {
  const itself = (args: string): string => `local: --disable-warning=ExperimentalWarning -- ${home.home}/dist/start.cjs ${args}\n`;

  it('runs Node in its place, with the words it got', async () => {
    expect(await local(['run', '--env-file', 'x', 'a b'], { LOCAL_CODE: '7' })).toEqual({ code: 7, out: itself('run --env-file x a b'), err: '' });
  });
  it('does so for a socket that nobody listens at, for --no-daemon and its variables', async () => {
    await home.listen();
    for (const [words, more] of [[['--no-daemon', 'ps'], {}], [['--root', '/x', '--set=a=b', '--no-daemon', 'ps'], {}], [['ps'], { ENGINE_RESIDENT: 'off' }], [['ps'], { ENGINE_NO_DAEMON: 'Yes' }]] as const)
      expect(await local(words, more)).toMatchObject({ code: 0, out: itself(words.join(' ')) });
    expect(home.calls).toHaveLength(0);
    // after the verb it is somebody else's word
    home.run(['run', 'image', '--no-daemon']);
    await home.call();
    await home.stop();
    writeFileSync(home.socket, '');
    expect(await local(['ps'])).toMatchObject({ code: 0, out: itself('ps') });
  });
  it('is found through links, and asks for what is missing', async () => {
    symlinkSync(home.program, join(home.folder, 'one'));
    symlinkSync('one', join(home.folder, 'two'));
    const run = home.exec('two', ['ps'], { more: { PATH: `${home.folder}:${process.env.PATH ?? ''}` } });
    await run.ended;
    expect(run.out).toBe(itself('ps'));
    rmSync(join(home.home, 'dist/start.cjs'));
    expect(await local(['ps'])).toEqual({ code: 125, out: '', err: `engine: not built yet; run: sh ${home.home}/config/setup/setup.sh\n` });
    rmSync(join(home.home, 'node_modules'), { recursive: true });
    expect(await local(['ps'])).toEqual({ code: 125, out: '', err: `engine: not set up yet: Node 24 is missing; run: sh ${home.home}/config/setup/setup.sh\n` });
  });
  it('builds when a source is newer than the bundle, and says so when that fails', async () => {
    const built = `local: ${home.home}/config/setup/build.ts\n`;
    const touch = (path: string): void => {
      mkdirSync(join(home.home, path, '..'), { recursive: true });
      writeFileSync(join(home.home, path), '');
    };
    const stamp = (): void => {
      touch('dist/.stamp');
      const soon = Date.now() / 1000 + 1;
      utimesSync(join(home.home, 'dist/.stamp'), soon, soon);
    };
    const newer = (path: string): void => {
      touch(path);
      const later = Date.now() / 1000 + 60;
      utimesSync(join(home.home, path), later, later);
    };
    mkdirSync(join(home.home, 'node_modules/rolldown'));
    expect((await local(['ps'])).err).toBe(built);
    stamp();
    expect((await local(['ps'])).err).toBe('');
    for (const path of ['package.json', 'native/package.json', 'plugins/a/package.json', 'plugins/a/b/c.ts', 'core/a/b.ts', 'core/a/b/c.ts', 'config/a.ts', 'config/a/b.ts', 'native/ts/a.ts']) {
      newer(path);
      expect((await local(['ps'])).err, path).toBe(built);
      rmSync(join(home.home, path));
    }
    for (const path of ['plugins/a/b.test.ts', 'plugins/a/node_modules/x.ts', 'config/a/b/c.ts', 'native/ts/a/b.ts']) {
      newer(path);
      expect((await local(['ps'])).err, path).toBe('');
    }
    newer('config/a.ts');
    expect((await local(['ps'], { ENGINE_NO_BUILD: '1' })).err).toBe('');
    expect(await local(['ps'], { LOCAL_CODE: '1' })).toEqual({ code: 125, out: '', err: `${built}engine: the build failed (see above)\n` });
  });
});

describe('the request', () => {
  it('says words, folder, terminals, umask, home and world', async () => {
    await home.listen();
    home.run(['run', '', 'ä b'], { cwd: '/usr' });
    const call = await home.call();
    const request = await call.request;
    const inode = (path: string): bigint => statSync(path, { bigint: true }).ino;
    expect(call.frames[0]?.argument).toBe(LAUNCH_VERSION);
    expect(request).toMatchObject({ argv: ['run', '', 'ä b'], cwd: '/usr', terminals: 0, rows: 0, cols: 0, umask: process.umask(), home: home.home });
    expect(request.world).toBe([...['mnt', 'net', 'user', 'pid', 'cgroup'].map((name) => inode(`/proc/self/ns/${name}`)), statSync('/', { bigint: true }).dev, inode('/')].join(' '));
    expect(call.pid).toBeGreaterThan(1);
  });
  it('brings only the variables that can matter', async () => {
    await home.listen();
    const more = { ENGINE_LOG_LEVEL: 'info', XDG_CONFIG_HOME: '/x', TERM: 't', NO_COLOR: '1', TMPDIR: '/t', LANG: 'de', SECRET: '1', WHOLE: '2', AFTER: '3', SHORT: '4', CLUSTER: '5', FTER: '6' };
    home.run(['run', '-e', 'WHOLE', '--env=AFTER', '-eSHORT', '-iteCLUSTER', 'SECRET=no'], { more });
    const { env } = await (await home.call()).request;
    expect(Object.keys(env).filter((name) => name in more).sort()).toEqual(['AFTER', 'CLUSTER', 'ENGINE_LOG_LEVEL', 'NO_COLOR', 'SHORT', 'TERM', 'TMPDIR', 'WHOLE', 'XDG_CONFIG_HOME']);
    expect(env).toMatchObject({ PATH: process.env.PATH, HOME: home.folder, WHOLE: '2' });
    home.run(['run', '--env-file=x'], { more });
    expect((await (await home.call()).request).env).toMatchObject(more);
  });
  it('carries long command lines', async () => {
    await home.listen();
    const words = Array.from({ length: 3000 }, (_, i) => `${i}`.padEnd(300, 'x'));
    home.run(words);
    expect((await (await home.call()).request).argv).toEqual(words);
  });
  it('reaches a socket whose path is longer than sun_path, and one named outright', async () => {
    home.runRoot = join(home.folder, 'x'.repeat(120), 'y'.repeat(60));
    mkdirSync(home.runRoot, { recursive: true });
    const cwd = process.cwd();
    process.chdir(home.runRoot);
    try {
      await home.listen('engined.sock');
    } finally {
      process.chdir(cwd);
    }
    home.run(['ps']);
    await home.call();
    home.run(['ps'], { cwd: home.runRoot, more: { ENGINE_RUN_ROOT: '/nowhere', ENGINE_SOCKET: './engined.sock' } });
    await home.call();
  });
  it.skipIf(!isRoot)('is never sent to somebody else', async () => {
    await home.listen();
    const refused = async (): Promise<void> => {
      expect(await local(['ps'], { ENGINE_LOG_LEVEL: 'debug' })).toMatchObject({ code: 0, err: expect.stringMatching(/belongs to somebody else|others can write/) });
      expect(home.calls).toHaveLength(0);
    };
    chownSync(home.socket, 65534, 65534);
    await refused();
    chownSync(home.socket, 0, 0);
    chownSync(home.runRoot, 65534, 65534);
    await refused();
    chownSync(home.runRoot, 0, 0);
    chmodSync(home.runRoot, 0o777);
    await refused();
    chmodSync(home.runRoot, 0o700);
    // a process of another uid that listens in a folder of ours
    await home.stop();
    const other = home.exec('python3', ['-c', `import socket,os,sys
s=socket.socket(socket.AF_UNIX); s.bind(${JSON.stringify(home.socket)}); os.setuid(65534); s.listen(5); print("ready", flush=True)
c,_=s.accept(); print(len(c.recv(100)), flush=True)`]);
    await until('the other', () => other.out.includes('ready'));
    expect(await local(['ps'], { ENGINE_LOG_LEVEL: 'debug' })).toMatchObject({ code: 0, err: expect.stringContaining('its process belongs to somebody else') });
    await until('its answer', () => other.out === 'ready\n0\n');
  });
  it('is answered by `local` with its own process', async () => {
    await home.listen();
    const run = home.run(['ps'], { more: { ENGINE_LOG_LEVEL: 'debug' } });
    (await home.call()).send(LAUNCH.local, { payload: Buffer.from('another world') });
    expect(await run.ended).toEqual({ code: 0, signal: null });
    expect(run.out).toContain('local: ');
    expect(run.err).toContain('another world');
  });
});

describe('output and input', () => {
  it('passes output on in any cut, and ends with the code', async () => {
    await home.listen();
    const run = home.run(['ps']);
    const call = await home.call();
    const big = 'x'.repeat(200_000);
    const bytes = Buffer.concat([encodeFrame(LAUNCH.output, { payload: Buffer.from('out') }), encodeFrame(LAUNCH.error, { payload: Buffer.from('err') }), encodeFrame(999, { payload: Buffer.from('later') })]);
    for (const byte of bytes) {
      call.socket.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    call.out(big);
    call.done(3);
    expect(await run.ended).toEqual({ code: 3, signal: null });
    expect(run.out).toBe(`out${big}`);
    expect(run.err).toBe('err');
  });
  it('holds back who sends more than is read, whatever its output is', async () => {
    await home.listen();
    for (const line of ['exec "$E" ps', '"$E" ps | cat']) {
      const run = home.exec('sh', ['-c', line], { more: { E: home.program } });
      run.child.stdout?.pause();
      const call = await home.call();
      const chunk = 'y'.repeat(50_000);
      let sent = 0;
      await until('back-pressure', () => {
        if (call.socket.writableLength > 500_000) return true;
        call.out(chunk);
        sent += chunk.length;
        return false;
      });
      call.done(0);
      await sleep(50);
      expect(run.child.exitCode).toBe(null);
      run.child.stdout?.resume();
      await run.ended;
      expect(run.out.length).toBe(sent);
    }
  });
  it('ends by a signal while its output stands still', async () => {
    await home.listen();
    const run = home.exec('sh', ['-c', '"$E" logs; echo $? >&2', 'sh'], { more: { E: home.program } });
    run.child.stdout?.pause();
    const call = await home.call();
    await until('back-pressure', () => call.socket.writableLength > 500_000 || (call.out('z'.repeat(50_000)), false));
    process.kill(call.pid, 'SIGTERM');
    expect((await call.next(LAUNCH.signal)).argument).toBe(signalNumber('SIGTERM'));
    process.kill(call.pid, 'SIGTERM');
    run.child.stdout?.resume();
    await run.ended;
    expect(run.err).toMatch(/143/);
  });
  it('reads standard input only as far as engined wants it', async () => {
    await home.listen();
    const run = home.exec('sh', ['-c', '(printf 0123456789; sleep 0.1; printf abc) | { "$E" load; cat; }'], { more: { E: home.program } });
    const call = await home.call();
    await sleep(50);
    expect(call.bytes(LAUNCH.input).toString()).toBe('');
    call.send(LAUNCH.want, { argument: 4 });
    await until('input', () => call.bytes(LAUNCH.input).toString() === '0123');
    call.send(LAUNCH.want, { argument: 2 });
    await until('input', () => call.bytes(LAUNCH.input).toString() === '012345');
    call.done(0);
    await run.ended;
    expect(run.out).toBe('6789abc');
  });
  it('sends all of a large input, and its end', async () => {
    await home.listen();
    const data = Buffer.alloc(3_000_000, 'input ');
    const file = join(home.folder, 'data');
    writeFileSync(file, data);
    for (const line of ['"$E" load <"$F"', 'cat "$F" | "$E" load', '"$E" load <&-']) {
      const run = home.exec('sh', ['-c', line], { more: { E: home.program, F: file } });
      const call = await home.call();
      call.send(LAUNCH.want, { argument: 10_000_000 });
      await call.next(LAUNCH.inputEnd);
      expect(call.bytes(LAUNCH.input).equals(line.includes('&-') ? Buffer.alloc(0) : data)).toBe(true);
      call.done(0);
      expect(await run.ended).toMatchObject({ code: 0 });
    }
  });
  it('tells engined when nobody reads its output any more, and goes on to the end', async () => {
    await home.listen();
    const run = home.exec('sh', ['-c', '{ "$E" logs -f; echo $? >&2; } | head -n 1'], { more: { E: home.program } });
    const call = await home.call();
    call.out('first\n');
    await until('head', () => run.out === 'first\n');
    const told = call.next(LAUNCH.relayed);
    await until('the end of the pipe', async () => {
      call.out('more\n');
      await sleep(5);
      return call.frames.some(({ type }) => type === LAUNCH.relayed);
    });
    expect((await told).argument).toBe(3);
    call.out('and more\n');
    call.send(LAUNCH.error, { payload: Buffer.from('said\n') });
    call.done(4);
    await run.ended;
    expect(run.err).toBe('said\n4\n');
  });
  it('says what keeps it from writing', async () => {
    await home.listen();
    const run = home.exec('sh', ['-c', '"$E" save >/dev/full'], { more: { E: home.program } });
    const call = await home.call();
    call.out('data');
    expect(await call.relayed()).toBe(3);
    call.done(0);
    expect(await run.ended).toEqual({ code: 1, signal: null });
    expect(run.err).toBe('engine: cannot write to standard output: No space left on device\n');
  });
});

describe('signals', () => {
  it('are told to engined, which may end in its own way', async () => {
    await home.listen();
    const run = home.run(['load']);
    const call = await home.call();
    run.child.kill('SIGTERM');
    expect((await call.next(LAUNCH.signal)).argument).toBe(15);
    call.out('tidied up\n');
    call.done(9);
    expect(await run.ended).toEqual({ code: 9, signal: null });
    expect(run.out).toBe('tidied up\n');
  });
  it('end the launcher as such when engined says 128 + n, does not end, or they come twice', async () => {
    await home.listen();
    for (const [signal, how] of [['SIGINT', 'code'], ['SIGHUP', 'patience'], ['SIGQUIT', 'twice']] as const) {
      const run = home.exec('sh', ['-c', 'ulimit -c 0; exec "$E" load'], { more: { E: home.program } });
      const call = await home.call();
      run.child.kill(signal);
      expect((await call.next(LAUNCH.signal)).argument).toBe(signalNumber(signal));
      if (how === 'code') call.done(128 + signalNumber(signal));
      if (how === 'twice') run.child.kill(signal);
      expect(await run.ended).toEqual({ code: null, signal });
    }
  });
  it('that are ignored stay so; others have their usual effect', async () => {
    await home.listen();
    const run = home.exec('sh', ['-c', 'trap "" HUP; exec "$E" load'], { more: { E: home.program } });
    const call = await home.call();
    run.child.kill('SIGHUP');
    run.child.kill('SIGTERM');
    expect((await call.next(LAUNCH.signal)).argument).toBe(15);
    expect(call.frames.filter(({ type }) => type === LAUNCH.signal)).toHaveLength(1);
    call.done(0);
    await run.ended;
    const other = home.run(['load']);
    await home.call();
    other.child.kill('SIGUSR1');
    expect(await other.ended).toEqual({ code: null, signal: 'SIGUSR1' });
  });
  it('stop and continue as with any program', async () => {
    await home.listen();
    const run = home.run(['load']);
    const call = await home.call();
    run.child.kill('SIGSTOP');
    await until('stopped', () => processState(call.pid) === 'T');
    run.child.kill('SIGCONT');
    await until('running', () => processState(call.pid) === 'S');
    call.done(0);
    expect(await run.ended).toMatchObject({ code: 0 });
  });
});

describe('engined ends in the middle', () => {
  const message = (reason: string): string =>
    `engine: the resident engine ended while it served this command: ${reason}; containers go on, what was begun is undone by the next command\n`;

  it('is an error with its reason, when there is one of this time', async () => {
    await home.listen();
    const died = join(home.runRoot, 'engined.died');
    writeFileSync(died, JSON.stringify({ pid: 1, reason: 'of yesterday', time: 1 }));
    utimesSync(died, 1000, 1000);
    let run = home.run(['run', 'x']);
    (await home.call()).end();
    expect(await run.ended).toEqual({ code: 125, signal: null });
    expect(run.err).toBe(message('it was killed, or crashed'));
    run = home.run(['run', 'x']);
    const call = await home.call();
    writeFileSync(died, JSON.stringify({ pid: 1, reason: 'a hook of "x"\nnever returned', plugin: 'acme', time: 1 }));
    call.end();
    expect(await run.ended).toEqual({ code: 125, signal: null });
    expect(run.err).toBe(message('a hook of "x" never returned (plugin acme)'));
  });
  it('is carried over when the verb only looks and nothing has been answered', async () => {
    await home.listen();
    for (const words of [['ps'], [], ['--root', '/x', 'inspect', 'a'], ['volume', 'ls'], ['--help']]) {
      const run = home.run(words);
      (await home.call()).end();
      expect(await run.ended, words.join(' ')).toEqual({ code: 0, signal: null });
      expect(run.out).toContain(`start.cjs${words.length ? ' ' : ''}${words.join(' ')}`);
    }
    for (const words of [['volume', 'rm', 'x'], ['stop', 'x']]) {
      const run = home.run(words);
      (await home.call()).end();
      expect(await run.ended, words.join(' ')).toMatchObject({ code: 125 });
    }
    const run = home.run(['ps']);
    const call = await home.call();
    call.out('CONTAINER');
    await until('output', () => run.out !== '');
    call.end();
    expect(await run.ended).toMatchObject({ code: 125 });
  });
  it('is carried over for any verb when engined never read the request', async () => {
    await home.listen();
    await home.stop();
    // listens, and ends with the connection in its queue
    const script = `import socket,os,sys,time
s=socket.socket(socket.AF_UNIX); s.bind(${JSON.stringify(home.socket)}); s.listen(5); print("ready", flush=True); sys.stdin.readline()`;
    const idle = home.exec('python3', ['-c', script]);
    await until('the other', () => idle.out === 'ready\n');
    const run = home.run(['run', 'x']);
    await until('the connection', () => readFileSync('/proc/net/unix', 'utf8').split(home.socket).length > 2);
    idle.child.stdin?.end('\n');
    expect(await run.ended).toEqual({ code: 0, signal: null });
    expect(run.out).toContain('start.cjs run x');
  });
  it('does not believe a frame that is too long', async () => {
    await home.listen();
    const run = home.run(['ps']);
    const head = Buffer.alloc(12);
    head.writeUInt32LE(0x7fffffff, 0);
    head.writeUInt16LE(LAUNCH.local, 4);
    (await home.call()).socket.write(head);
    expect(await run.ended).toEqual({ code: 125, signal: null });
    expect(run.err).toMatch(/another language/);
  });
});
