import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { BITS, FRAME, op, step } from '@engine/core/plan';
import { decodeBarrier, decodeFailure } from './frames.ts';
import { createNative } from './index.ts';
import { binaryFolder } from './binaries.ts';
import { Bench, bytesOf, namespaces, unable, type Talk } from './testing.ts';

const { stdin, stdinOnce, terminal, attachStdin, attachStdout, attachStderr } = BITS.STDIO;
const outputs = attachStdout | attachStderr;
const native = createNative();
const alive = (pid: number): boolean => native.processStartTime(pid) !== undefined && !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

describe.skipIf(unable !== undefined)(`the shim${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: Bench[] = [];
  const bench = (): Bench => {
    const made = new Bench(native);
    benches.push(made);
    return made;
  };
  const started = async (talk: Talk): Promise<number> => (await talk.frame('started')).argument;
  afterEach(async () => {
    for (const one of benches.splice(0)) await one.close();
  });

  it('runs a program in new namespaces, keeps its output apart, reports its exit and undoes the plan', async () => {
    const b = bench();
    const talk = b.start({ argv: ['sh', '-c', 'echo out; echo $$; echo err >&2; exit 3'], stdio: outputs });
    const gone = await talk.frame('gone');
    expect(talk.output(1)).toBe('out\n1\n');
    expect(talk.output(2)).toBe('err\n');
    expect((await talk.frame('exit')).argument).toBe(3);
    expect(gone.argument).toBe(0);
    expect(talk.frames.map((f) => f.type)).toEqual([FRAME.started, ...talk.frames.slice(1, -2).map(() => FRAME.output), FRAME.exit, FRAME.gone]);
    expect(JSON.parse(b.file('exit'))).toMatchObject({ code: 3, signal: 0, coreDumped: false, oom: { killed: false }, dropped: 0 });
    expect(JSON.parse(b.file('undone'))).toEqual({ failures: [] });
    expect(existsSync(b.marker)).toBe(false);
    expect(b.logText()).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stdout F out\n/);
    expect(b.logText()).toContain(' stderr F err\n');
    await talk.connection.closed;
    expect(native.tryLock(join(b.run, 'lock'), { create: false })).toBeDefined();
  });

  it('says which operation failed, and undoes', async () => {
    const b = bench();
    const talk = b.start({ argv: ['no-such-program'] });
    const failure = decodeFailure((await talk.frame('failed')).payload);
    expect(failure).toMatchObject({ part: 2, errno: 2 });
    expect(failure.detail).toContain('no-such-program');
    await talk.frame('gone');
    expect(JSON.parse(b.file('failed'))).toMatchObject({ part: 'init', errno: 2 });
    expect(existsSync(b.marker)).toBe(false);
    expect(existsSync(join(b.run, 'started'))).toBe(false);
  });

  it('feeds stdin and passes its end on', async () => {
    const b = bench();
    const talk = b.start({ argv: ['cat'], stdio: stdin | stdinOnce | attachStdin | outputs });
    await talk.send('stdin', { payload: 'one\n' });
    await talk.untilOutput('one\n');
    await talk.send('stdin', { payload: 'two\n' });
    await talk.send('stdinEof');
    expect((await talk.frame('exit')).argument).toBe(0);
    expect(talk.output()).toBe('one\ntwo\n');
  });

  it('gives end of file at once without -i', async () => {
    const talk = bench().start({ argv: ['cat'], stdio: outputs });
    expect((await talk.frame('exit')).argument).toBe(0);
  });

  it('passes 8 MiB through unchanged while the reader is slow', async () => {
    const b = bench();
    const talk = b.start({ argv: ['cat'], stdio: stdin | stdinOnce | attachStdin | outputs, log: false });
    const data = Buffer.alloc(8 << 20, 'engine!\n');
    const slow = setInterval(() => {
      talk.connection.pause();
      setTimeout(() => talk.connection.resume(), 30);
    }, 60);
    for (let at = 0; at < data.length; at += 1 << 19) await talk.send('stdin', { payload: data.subarray(at, at + (1 << 19)) });
    await talk.send('stdinEof');
    await talk.frame('exit', 0, 20_000);
    clearInterval(slow);
    expect(Buffer.from(talk.output()).equals(data)).toBe(true);
  });

  it('kills by signal, with Docker\'s exit code', async () => {
    const talk = bench().start({ argv: ['sleep', '100'] });
    await started(talk);
    await talk.send('signal', { argument: 9 });
    const exit = await talk.frame('exit');
    expect(exit.argument).toBe(137);
    expect(JSON.parse(exit.payload.toString())).toMatchObject({ code: 137, signal: 9 });
  });

  it('outlives the engine, and tells the exit to another one', async () => {
    const b = bench();
    const talk = b.start({ argv: ['sh', '-c', 'echo begun; read x; echo "$x"; exit 5'], stdio: stdin });
    await started(talk);
    talk.connection.close();
    await sleep(50);
    const second = await b.connect();
    const third = await b.connect();
    await third.send('wait');
    await second.send('attach', { argument: attachStdin | outputs });
    await second.send('stdin', { payload: 'late\n' });
    expect((await third.frame('exit')).argument).toBe(5);
    expect((await second.frame('exit')).argument).toBe(5);
    expect(second.output()).toBe('late\n');
    expect(b.logText()).toMatch(/begun\n.*late\n$/);
  });

  it('kills the container when it is killed, and the undo clears up', async () => {
    const b = bench();
    const talk = b.start({ argv: ['sh', '-c', 'sleep 100 & wait'] });
    const pid = await started(talk);
    const shim = b.shimPid();
    expect(existsSync(b.marker)).toBe(true);
    process.kill(shim, 'SIGKILL');
    await talk.connection.closed;
    const deadline = Date.now() + 2000;
    while (alive(pid) && Date.now() < deadline) await sleep(10);
    expect(alive(pid)).toBe(false);
    const undo = b.other('undo', readFileSync(join(b.run, 'plan')));
    await undo.frame('ok');
    expect(existsSync(b.marker)).toBe(false);
    expect(JSON.parse(b.file('undone'))).toEqual({ failures: [] });
  });

  it('ignores polite signals to itself', async () => {
    const b = bench();
    const talk = b.start({ argv: ['cat'], stdio: stdin });
    await started(talk);
    for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1'] as const) process.kill(b.shimPid(), name);
    await talk.send('state');
    expect(JSON.parse((await talk.frame('state_')).payload.toString())).toMatchObject({ paused: false, sessions: [] });
  });

  it('gives a terminal with its size', async () => {
    const talk = bench().start({ argv: ['sh', '-c', 'stty size; tty; read x; stty size; echo "[$x]"'], stdio: terminal | stdin | attachStdin | outputs });
    await talk.untilOutput('/dev/pts/0');
    expect(talk.output()).toContain('24 80');
    await talk.send('resize', { payload: Buffer.from([50, 0, 132, 0]) });
    await talk.send('stdin', { payload: 'typed\n' });
    await talk.frame('exit');
    expect(talk.output()).toContain('50 132');
    expect(talk.output()).toContain('[typed]\r\n');
  });

  it('runs pid 1 of its own with --init', async () => {
    const talk = bench().start({ argv: ['sh', '-c', 'echo pid $$; exit 7'], stdio: outputs, reaper: true });
    expect((await talk.frame('exit')).argument).toBe(7);
    expect(talk.output()).toContain('pid 2\n');
  });

  it('runs sessions inside the container', async () => {
    const b = bench();
    const talk = b.start({ argv: ['cat'], stdio: stdin });
    await started(talk);
    await talk.send('exec', { session: 4, argument: stdin | stdinOnce | attachStdin | outputs, payload: b.session(['sh', '-c', 'cat; ps | head -n 3; echo oops >&2; exit 9']) });
    await talk.frame('started', 4);
    await talk.send('stdin', { session: 4, payload: 'in a session\n' });
    await talk.send('stdinEof', { session: 4 });
    expect((await talk.frame('exit', 4)).argument).toBe(9);
    expect(talk.output(1, 4)).toMatch(/^in a session\nPID .*\n +1 0 +cat\n/);
    expect(talk.output(2, 4)).toBe('oops\n');
    expect(b.logText()).toBe('');
    await talk.send('wait', { session: 4 });
    await talk.until((f) => f.type === FRAME.exit && f.session === 4 && f.payload.length === 0, 'exit again');
    await talk.send('exec', { session: 4, argument: terminal | stdin | attachStdin | outputs, payload: b.session(['sh', '-c', 'tty; exit 1'], terminal) });
    await talk.until((f) => f.type === FRAME.exit && f.argument === 1, 'exit of the terminal session');
    expect(talk.output(1, 4)).toContain('/dev/pts/0\r\n');
    await talk.send('exec', { session: 5, argument: outputs, payload: b.session(['nothing']) });
    expect(decodeFailure((await talk.frame('failed', 5)).payload)).toMatchObject({ errno: 2 });
    await talk.send('exec', { session: 6, argument: outputs, payload: b.session(['sleep', '100']) });
    await talk.frame('started', 6);
    await talk.send('exec', { session: 6, argument: outputs, payload: b.session(['true']) });
    expect(decodeFailure((await talk.frame('failed', 6)).payload)).toMatchObject({ errno: 17 });
    await talk.send('stdinEof');
    expect((await talk.frame('exit')).argument).toBe(0);
  });

  it('asks a barrier\'s handler, and runs what it adds', async () => {
    const b = bench();
    const extra = [
      step('shim.attach', op.awaitPoint({ point: 1 })),
      step('shim.attach', op.barrier({ handler: 'lease', input: Buffer.from('{"a":1}'), deadline: 5000 })),
      step('shim.attach', op.release({ point: 1 })),
      step('init.netns', op.reach({ point: 1 })),
    ];
    const talk = b.start({ argv: ['sh', '-c', 'cat /added'], stdio: outputs, extra });
    const request = decodeBarrier((await talk.frame('barrier')).payload);
    expect(request).toMatchObject({ handler: 'lease' });
    expect(request.input.toString()).toBe('{"a":1}');
    expect(alive(request.pid)).toBe(true);
    const added = bytesOf([step('init.netns', op.writeFile({ path: join(b.root, 'added'), data: Buffer.from('by a barrier'), mode: 0o644, how: BITS.WRITE.create }))]);
    await talk.send('barrierReply', { payload: added });
    await talk.frame('exit');
    expect(talk.output()).toBe('by a barrier');
  });

  it('undoes when the engine goes away, refuses or dawdles at a barrier', async () => {
    for (const how of ['gone', 'refuses', 'dawdles']) {
      const b = bench();
      const talk = b.start({ argv: ['true'], extra: [step('shim.attach', op.barrier({ handler: 'x', input: Buffer.alloc(0), deadline: how === 'dawdles' ? 100 : 5000 }))] });
      await talk.frame('barrier');
      if (how === 'gone') talk.connection.close();
      if (how === 'refuses') await talk.send('barrierReply', { argument: 13, payload: 'no lease left' });
      const deadline = Date.now() + 3000;
      while (!existsSync(join(b.run, 'undone')) && Date.now() < deadline) await sleep(10);
      expect(JSON.parse(b.file('failed'))).toMatchObject({ part: 'shim', errno: { gone: 32, refuses: 13, dawdles: 110 }[how] });
      if (how === 'refuses') expect(b.file('failed')).toContain('no lease left');
      expect(existsSync(b.marker)).toBe(false);
    }
  });

  it('makes init through a stage', async () => {
    const b = bench();
    const talk = b.start({
      argv: ['sh', '-c', 'cat /proc/uptime; read x; exit 4'], stdio: stdin | outputs, flags: namespaces,
      extra: [step('stage.namespaces', op.unshare({ flags: 0x80n })), step('stage.namespaces', op.timeOffsets({ offsets: 'boottime 1000000 0' }))],
    });
    await started(talk);
    await talk.send('exec', { session: 1, argument: outputs, payload: b.session(['cat', '/proc/uptime']) });
    await talk.until((f) => f.session === 1 && (f.type === FRAME.exit || f.type === FRAME.failed), 'the end of the session');
    expect(Number(talk.output(1, 1).split('.')[0]), talk.describe()).toBeGreaterThan(1_000_000);
    await talk.send('stdinEof');
    expect((await talk.frame('exit')).argument).toBe(4);
    expect(Number(talk.output().split('.')[0])).toBeGreaterThan(1_000_000);
    await talk.frame('gone');
  });

  it('uses the amended undo', async () => {
    const b = bench();
    const talk = b.start({ argv: ['cat'], stdio: stdin });
    await started(talk);
    const { writeFileSync, renameSync } = await import('node:fs');
    const note = join(b.folder, 'note');
    writeFileSync(join(b.run, 'plan.new'), bytesOf([...b.steps({ argv: ['cat'] }), step('after.undo', op.writeFile({ path: note, data: Buffer.from('amended'), mode: 0o600, how: BITS.WRITE.create }))]));
    renameSync(join(b.run, 'plan.new'), join(b.run, 'plan'));
    await talk.send('amend');
    await talk.frame('ok');
    await talk.send('signal', { argument: 9 });
    await talk.frame('gone');
    expect(readFileSync(note, 'utf8')).toBe('amended');
  });

  it('stays small', async () => {
    const b = bench();
    const talk = b.start({ argv: ['cat'], stdio: stdin | outputs });
    await started(talk);
    // a shim linked with glibc, where there is no musl-gcc, is larger
    const limit = statSync(join(binaryFolder(), 'engine-shim')).size < 500_000 ? 150 : 300;
    const pss = (): number => Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${b.shimPid()}/smaps_rollup`, 'utf8'))?.[1]);
    expect(pss()).toBeGreaterThan(0);
    // it gives back what it needed for the start when nothing comes for a moment
    await expect.poll(pss, { timeout: 10_000 }).toBeLessThanOrEqual(limit);
  });

  it('keeps its socket and folder to itself', async () => {
    const b = bench();
    await started(b.start({ argv: ['cat'], stdio: stdin }));
    expect(statSync(join(b.run, 'shim.sock')).mode & 0o777).toBe(0o600);
    const pid = JSON.parse(b.file('started')).pid as number;
    const { readdirSync } = await import('node:fs');
    expect(readdirSync(`/proc/${pid}/fd`).sort()).toEqual(['0', '1', '2']);
  });

  it('runs helper plans in a mount namespace of their own', async () => {
    const b = bench();
    const pipe = native.pipe();
    const { writeSync, closeSync } = await import('node:fs');
    writeSync(pipe.write, 'streamed');
    closeSync(pipe.write);
    const target = join(b.folder, 'streamed');
    const talk = b.other('helper', bytesOf([step('helper.main', op.writeStream({ path: target, stream: 'fd0', mode: 0o600, offset: -1n }), { none: 'test' })]), [pipe.read]);
    closeSync(pipe.read);
    await talk.frame('ok');
    expect(readFileSync(target, 'utf8')).toBe('streamed');
    const bad = b.other('helper', bytesOf([step('helper.main', op.mkdir({ path: join(b.folder, 'a'), mode: 0o700 }), { none: 'test' }), step('helper.main', op.rmdir({ path: '/nowhere/at/all' }), { none: 'test' })]));
    expect(decodeFailure((await bad.frame('failed')).payload)).toMatchObject({ part: 5, index: 1, errno: 2 });
    expect((await bad.frame('error')).argument).toBe(2);
    expect(existsSync(join(b.folder, 'a'))).toBe(true);
  });

  it('ends a helper whose engine goes away', async () => {
    const b = bench();
    const pipe = native.pipe();
    const { closeSync, writeSync } = await import('node:fs');
    const talk = b.other('helper', bytesOf([step('helper.main', op.writeStream({ path: join(b.folder, 'x'), stream: 'fd0', mode: 0o600, offset: -1n }), { none: 'test' })]), [pipe.read]);
    closeSync(pipe.read);
    await sleep(50);
    writeSync(pipe.write, 'x');
    talk.connection.close();
    await sleep(100);
    expect(() => writeSync(pipe.write, 'x')).toThrow('EPIPE');
    closeSync(pipe.write);
  });

  const freezer = '/sys/fs/cgroup/freezer';
  it.skipIf(!existsSync(`${freezer}/tasks`))('joins the cgroups of init, and refuses sessions while it is paused', async () => {
    const { mkdirSync, rmdirSync, writeFileSync } = await import('node:fs');
    const b = bench();
    const group = `${freezer}/engine-native-${process.pid}`;
    mkdirSync(group);
    try {
      const talk = b.start({ argv: ['cat'], stdio: stdin });
      writeFileSync(`${group}/cgroup.procs`, String(await started(talk)));
      await talk.send('exec', { session: 1, argument: outputs, payload: b.session(['cat', '/proc/self/cgroup']) });
      await talk.frame('exit', 1);
      expect(talk.output(1, 1)).toContain(`:freezer:/engine-native-${process.pid}\n`);
      writeFileSync(`${group}/freezer.state`, 'FROZEN');
      await talk.send('exec', { session: 2, argument: outputs, payload: b.session(['true']) });
      expect(decodeFailure((await talk.frame('failed', 2)).payload)).toMatchObject({ errno: 16 });
      await talk.send('state');
      expect(JSON.parse((await talk.frame('state_')).payload.toString())).toMatchObject({ paused: true });
      writeFileSync(`${group}/freezer.state`, 'THAWED');
      await talk.send('stdinEof');
      await talk.frame('gone');
    } finally {
      writeFileSync(`${group}/freezer.state`, 'THAWED');
      rmdirSync(group);
    }
  });

  it('writes the id maps of a new user namespace from the stage', async () => {
    const b = bench();
    const talk = b.start({
      argv: ['sh', '-c', 'id -u; cat /proc/self/uid_map; read x'], stdio: stdin | outputs, flags: namespaces | 0x1000_0000,
      extra: [
        step('stage.maps', op.writeIdMap({ pid: 'pid', kind: 0, map: '0 0 1000\n' })),
        step('stage.maps', op.writeIdMap({ pid: 'pid', kind: 1, map: '0 0 1000\n' })),
      ],
    });
    await talk.until((f) => f.type === FRAME.started || f.type === FRAME.failed, 'the start');
    await talk.send('exec', { session: 1, argument: outputs, payload: b.session(['cat', '/proc/self/uid_map']) });
    await talk.until((f) => f.session === 1 && (f.type === FRAME.exit || f.type === FRAME.failed), 'the end of the session');
    expect(talk.output(1, 1), talk.describe()).toMatch(/^\s+0\s+0\s+1000\n/);
    await talk.send('stdinEof');
    const end = await talk.until((f) => f.session === 0 && (f.type === FRAME.exit || f.type === FRAME.failed), 'the end');
    expect(end.type, talk.describe()).toBe(FRAME.exit);
    expect(talk.output()).toMatch(/^0\n\s+0\s+0\s+1000\n/);
  });

  it('says so when its stage is killed, whose socket init has too', async () => {
    const b = bench();
    const never = join(b.folder, 'fifo');
    execFileSync('mkfifo', [never]);
    const talk = b.start({ argv: ['true'], flags: namespaces | 0x1000_0000, extra: [step('stage.maps', op.open({ path: never, flags: 0, out: 'never' }))] });
    const children = (): number[] => readFileSync(`/proc/${b.shimPid()}/task/${b.shimPid()}/children`, 'utf8').trim().split(' ').map(Number);
    await expect.poll(() => (b.shimPid() > 0 ? children().length : 0)).toBe(2);
    process.kill(Math.min(...children()), 'SIGKILL');
    expect(decodeFailure((await talk.frame('failed')).payload).detail).toContain('the stage ended early: it was killed');
    await talk.frame('gone');
    expect(existsSync(b.marker)).toBe(false);
  });

  it('says so when init dies before its program runs', async () => {
    const b = bench();
    const talk = b.start({ argv: ['true'], extra: [step('shim.attach', op.barrier({ handler: 'x', input: Buffer.alloc(0), deadline: 5000 })), step('shim.attach', op.awaitPoint({ point: 1 })), step('init.netns', op.reach({ point: 1 }))] });
    const { pid } = decodeBarrier((await talk.frame('barrier')).payload);
    process.kill(pid, 'SIGKILL');
    const failure = decodeFailure((await talk.frame('failed')).payload);
    expect(failure.detail).toContain('killed by signal 9');
    await talk.frame('gone');
    expect(existsSync(b.marker)).toBe(false);
  });

  it('serves several clients at once, and stops when one detaches', async () => {
    const b = bench();
    const talk = b.start({ argv: ['cat'], stdio: stdin | attachStdin | outputs });
    await started(talk);
    const other = await b.connect();
    await other.send('attach', { argument: outputs });
    await other.send('state');
    await other.frame('state_');
    await talk.send('stdin', { payload: 'both\n' });
    await Promise.all([talk.untilOutput('both'), other.untilOutput('both')]);
    await other.send('detach');
    await other.send('wait', { session: 9 });
    expect((await other.frame('error', 9)).argument).toBe(3);
    await talk.send('stdin', { payload: 'one\n' });
    await talk.send('stdinEof');
    await Promise.all([talk.frame('gone'), other.frame('gone')]);
    expect(talk.output()).toBe('both\none\n');
    expect(other.output()).toBe('both\n');
    expect((await other.frame('exit')).argument).toBe(0);
  });
});
