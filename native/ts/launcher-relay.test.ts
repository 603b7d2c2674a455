import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FRAME } from '@engine/core/plan';
import { encodeFrame } from './frames.ts';
import { LAUNCH } from './launch.ts';
import { Installation, signalNumber, until } from './launcher-testing.ts';

let home: Installation;
beforeEach(async () => {
  home = new Installation();
  await home.listen();
});
afterEach(() => home.close());

describe('a relay', () => {
  it('carries the session: output in order, input and its end, the exit', async () => {
    const run = home.run(['run', '-i', 'x']);
    const call = await home.call();
    const shim = call.relay(['stdin', 'endInput']);
    shim.send(FRAME.started, { argument: 1 });
    shim.output(1, 'one ');
    shim.output(2, 'two');
    shim.output(1, 'three');
    run.child.stdin?.write('typed');
    await until('input', () => shim.bytes(FRAME.stdin).toString() === 'typed');
    expect(shim.frames.some(({ type }) => type === FRAME.stdinEof)).toBe(false);
    run.child.stdin?.end();
    await shim.next(FRAME.stdinEof);
    shim.exit(5);
    expect(await call.relayed()).toBe(0);
    await sleep(20);
    expect(run.child.exitCode).toBe(null); // not the last word
    call.send(LAUNCH.error, { payload: Buffer.from(' engined') });
    call.done(6);
    expect(await run.ended).toEqual({ code: 6, signal: null });
    expect([run.out, run.err]).toEqual(['one three', 'two engined']);
    expect(call.frames.filter(({ type }) => type === LAUNCH.input || type === LAUNCH.resize)).toEqual([]);
  });
  it('is understood however it is cut', async () => {
    const run = home.run(['run', 'x']);
    const shim = (await home.call()).relay(['final']);
    const exit = encodeFrame(FRAME.exit, { argument: 4, payload: Buffer.from('{"oom":{"killed":false}}') });
    for (const byte of Buffer.concat([encodeFrame(FRAME.output, { argument: 1, payload: Buffer.from('text') }), exit])) {
      shim.socket.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await run.ended).toEqual({ code: 4, signal: null });
    expect(run.out).toBe('text');
  });
  it('ends at once with the final code, after what engined had said; not after an OOM kill', async () => {
    let run = home.run(['run', 'x']);
    let call = await home.call();
    call.send(LAUNCH.error, { payload: Buffer.from('warning\n') });
    let shim = call.relay(['final']);
    shim.exit(42);
    expect(await run.ended).toEqual({ code: 42, signal: null });
    expect(run.err).toBe('warning\n');
    expect(await call.relayed()).toBe(0);

    run = home.run(['run', 'x']);
    call = await home.call();
    shim = call.relay(['final']);
    shim.exit(137, { code: 137, oom: { killed: true, limit: 'memory' } });
    expect(await call.relayed()).toBe(0);
    call.send(LAUNCH.error, { payload: Buffer.from('out of memory\n') });
    call.done(137);
    expect(await run.ended).toEqual({ code: 137, signal: null });
    expect(run.err).toBe('out of memory\n');
  });
  it('is brought to its end when `done` comes first', async () => {
    const run = home.run(['run', 'x']);
    const call = await home.call();
    const shim = call.relay([]);
    call.done(3);
    await sleep(30);
    const last = 'l'.repeat(300_000);
    shim.output(1, last);
    shim.exit(1);
    expect(await run.ended).toEqual({ code: 3, signal: null });
    expect(run.out).toBe(last);
  });
  it('says how it ended otherwise: lost, cut off', async () => {
    let run = home.run(['attach', 'x']);
    let call = await home.call();
    let shim = call.relay(['final']);
    shim.output(1, 'text');
    shim.end();
    expect(await call.relayed()).toBe(2);
    call.done(1);
    expect(await run.ended).toMatchObject({ code: 1 });
    run = home.run(['attach', 'x']);
    call = await home.call();
    shim = call.relay(['final', 'stdin']);
    shim.send(FRAME.cutOff);
    expect(await call.relayed()).toBe(4);
    call.done(2);
    expect(await run.ended).toMatchObject({ code: 2 });
  });
  it('outlives engined', async () => {
    const run = home.run(['run', 'x']);
    const call = await home.call();
    const shim = call.relay(['signals']);
    shim.output(1, 'a');
    await until('output', () => run.out === 'a');
    call.end();
    await sleep(20);
    shim.output(1, 'b');
    shim.exit(8);
    expect(await run.ended).toEqual({ code: 8, signal: null });
    expect(run).toMatchObject({ out: 'ab', err: '' });
    const lost = home.run(['run', 'x']);
    const other = await home.call();
    const gone = other.relay([]);
    other.end();
    gone.end();
    expect(await lost.ended).toMatchObject({ code: 125 });
    expect(lost.err).toContain('the resident engine ended');
  });
  it('serves a session by its number only', async () => {
    const run = home.run(['exec', 'x']);
    const call = await home.call();
    const shim = call.relay(['final', 'stdin', 'signals'], { session: 7 });
    shim.send(FRAME.output, { session: 0, argument: 1, payload: Buffer.from('no') });
    shim.send(FRAME.exit, { session: 0, argument: 1 });
    shim.output(1, 'yes');
    run.child.stdin?.write('in');
    expect((await shim.next(FRAME.stdin)).session).toBe(7);
    run.child.kill('SIGTERM');
    expect(await shim.next(FRAME.signal)).toMatchObject({ session: 7, argument: 15 });
    shim.exit(9);
    expect(await run.ended).toMatchObject({ code: 9 });
    expect(run.out).toBe('yes');
  });
  it('goes on serving output while the session does not read its input, and the other way round', async () => {
    const run = home.exec('sh', ['-c', 'yes | "$E" run -i x'], { more: { E: home.program } });
    const call = await home.call();
    const shim = call.relay(['stdin', 'endInput', 'final']);
    shim.socket.pause();
    await sleep(50);
    shim.output(1, 'output');
    await until('output', () => run.out === 'output');
    shim.socket.resume();
    run.child.stdout?.pause();
    await until('back-pressure', () => shim.socket.writableLength > 500_000 || (shim.output(1, 'z'.repeat(8_000_000)), false));
    const before = shim.bytes(FRAME.stdin).length;
    await until('more input', () => shim.bytes(FRAME.stdin).length > before + 100_000);
    run.child.stdout?.resume();
    shim.exit(0);
    await run.ended;
    const seen = shim.bytes(FRAME.stdin);
    expect(seen.equals(Buffer.alloc(seen.length, 'y\n'))).toBe(true);
  });
  it('loses nothing of a large input', async () => {
    const data = Buffer.alloc(2_000_003, 'some input\n');
    const file = join(home.folder, 'data');
    writeFileSync(file, data);
    const run = home.exec('sh', ['-c', '"$E" run -i x <"$F"'], { more: { E: home.program, F: file } });
    const shim = (await home.call()).relay(['stdin', 'endInput', 'final']);
    for (let i = 0; i < 20; i++) {
      shim.socket.pause();
      await sleep(2);
      shim.socket.resume();
      await sleep(2);
    }
    await shim.next(FRAME.stdinEof);
    expect(shim.bytes(FRAME.stdin).equals(data)).toBe(true);
    shim.exit(0);
    await run.ended;
  });
  it('keeps the input of who keeps it open, and goes on when nobody reads the output', async () => {
    const run = home.exec('sh', ['-c', '{ "$E" run x </dev/null; echo $? >&2; } | true'], { more: { E: home.program } });
    const call = await home.call();
    const shim = call.relay(['stdin', 'final']);
    await sleep(20);
    for (let i = 0; i < 20; i++) shim.output(1, 'nobody reads this'.repeat(1000));
    shim.output(2, 'this they do\n');
    shim.exit(11);
    await run.ended;
    expect(run.err).toBe('this they do\n11\n');
    expect(shim.frames.some(({ type }) => type === FRAME.stdinEof)).toBe(false);
    expect(await call.relayed()).toBe(0);
  });
  it('passes the signals on that the command line passes on without a daemon', async () => {
    const source = readFileSync(join(import.meta.dirname, '../../plugins/frontend-cli/attach.ts'), 'utf8');
    const kept = new Set([...(/const KEPT = new Set\(\[([^\]]*)\]/.exec(source)?.[1] ?? '').matchAll(/SIG\w+/g)].map(([name]) => name));
    const { constants } = await import('node:os');
    const run = home.run(['run', 'x']);
    const call = await home.call();
    const shim = call.relay(['signals', 'final']);
    const names = Object.keys(constants.signals).filter((name) => name === 'SIGUSR1' || !kept.has(name)) as NodeJS.Signals[];
    expect(names).toContain('SIGINT');
    // once the relay is there
    shim.output(1, '.');
    await until('output', () => run.out === '.');
    for (const name of names) {
      run.child.kill(name);
      expect((await shim.next(FRAME.signal)).argument, name).toBe(signalNumber(name));
    }
    run.child.kill('SIGWINCH');
    shim.exit(0);
    expect(await run.ended).toMatchObject({ code: 0 });
    expect(shim.frames.filter(({ type }) => type === FRAME.signal)).toHaveLength(names.length);
    expect(call.frames.some(({ type }) => type === LAUNCH.signal)).toBe(false);
  });
  it('leaves input and signals alone until the session has begun', async () => {
    const run = home.run(['run', '-i', 'x']);
    const call = await home.call();
    const shim = call.relay(['stdin', 'endInput', 'signals', 'final', 'early']);
    run.child.stdin?.end('typed');
    call.out('.');
    await until('output', () => run.out === '.');
    run.child.kill('SIGTERM');
    expect((await call.next(LAUNCH.signal)).argument).toBe(15);
    await sleep(20);
    expect(shim.frames).toEqual([]);
    shim.send(FRAME.started, { argument: 1 });
    await shim.next(FRAME.stdinEof);
    expect(shim.bytes(FRAME.stdin).toString()).toBe('typed');
    // it was for the session: nobody dies of it later
    await sleep(1200);
    run.child.kill('SIGTERM');
    expect((await shim.next(FRAME.signal)).argument).toBe(15);
    shim.exit(3);
    expect(await run.ended).toEqual({ code: 3, signal: null });
  });
  it('is told by engined when the session runs already', async () => {
    const run = home.run(['attach', 'x']);
    const call = await home.call();
    const shim = call.relay(['stdin', 'endInput', 'final', 'early']);
    run.child.stdin?.write('typed');
    call.send(LAUNCH.begun);
    await until('input', () => shim.bytes(FRAME.stdin).toString() === 'typed');
    shim.exit(0);
    await run.ended;
  });
  it('can be interrupted before its session has begun', async () => {
    const run = home.run(['run', 'x']);
    const call = await home.call();
    call.relay(['signals', 'final', 'early']);
    call.out('.');
    await until('output', () => run.out === '.');
    run.child.kill('SIGINT');
    await call.next(LAUNCH.signal);
    run.child.kill('SIGINT');
    expect(await run.ended).toEqual({ code: null, signal: 'SIGINT' });
  });
  it('dies of a signal that is not passed on', async () => {
    const run = home.run(['attach', '--sig-proxy=false', 'x']);
    const shim = (await home.call()).relay(['stdin']);
    shim.output(1, '.');
    await until('output', () => run.out === '.');
    run.child.kill('SIGINT');
    expect(await run.ended).toEqual({ code: null, signal: 'SIGINT' });
    await until('its end', () => shim.closed);
  });
});

it('sleeps while it waits, whatever is full or gone', async () => {
  const run = home.exec('sh', ['-c', 'exec "$E" run -i x'], { more: { E: home.program } });
  run.child.stdin?.end('input');
  const call = await home.call();
  const ticks = (): number => readFileSync(`/proc/${call.pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ').slice(11, 13).reduce((sum, text) => sum + Number(text), 0);
  const shim = call.relay(['stdin', 'endInput']);
  await shim.next(FRAME.stdinEof);
  run.child.stdout?.pause();
  await until('back-pressure', () => shim.socket.writableLength > 500_000 || (shim.output(1, 'z'.repeat(8_000_000)), false));
  for (const change of [() => {}, () => shim.end(), () => call.out('more'), () => run.child.stdout?.destroy()]) {
    change();
    await sleep(100);
    const before = ticks();
    await sleep(300);
    expect(ticks() - before).toBeLessThan(5);
  }
  call.done(0);
  await run.ended;
});
