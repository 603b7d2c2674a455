import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FRAME } from '@engine/core/plan';
import { LAUNCH, TERMINALS } from './launch.ts';
import { Installation, processState, until, type Call, type Run, type Shim } from './launcher-testing.ts';

let home: Installation;
beforeEach(async () => {
  home = new Installation();
  await home.listen();
});
afterEach(() => home.close());

describe('a terminal', () => {
  const settings = (pid: number): string => execFileSync('sh', ['-c', `stty -a </proc/${pid}/fd/0`], { encoding: 'utf8' });
  const isRaw = (pid: number): boolean => ['-opost', '-icanon', '-echo ', '-isig', '-icrnl', '-ixon', '-iexten', 'min = 1'].every((word) => settings(pid).includes(word));
  const wrapped = 'stty rows 31 cols 97; stty -g >before; "$E" run -it x; echo "code $?"; stty -g >after';
  const begin = async (line = wrapped): Promise<{ run: Run; call: Call; same: () => void }> => {
    const run = home.terminal(`cd ${home.folder}; ${line}`);
    const call = await home.call();
    const read = (name: string): string => readFileSync(join(home.folder, name), 'utf8');
    return { run, call, same: () => expect(read('after')).toBe(read('before')) };
  };
  const session = async (call: Call, keys: readonly number[] = []): Promise<Shim> => {
    const shim = call.relay(['terminal', 'stdin', 'endInput', 'signals', 'final'], { keys });
    await until('raw mode', () => isRaw(call.pid));
    return shim;
  };

  it('is raw for the session, tells its size, and is as before at the end', async () => {
    const { run, call, same } = await begin();
    expect(await call.request).toMatchObject({ terminals: TERMINALS.stdin | TERMINALS.stdout | TERMINALS.stderr, rows: 31, cols: 97 });
    const shim = await session(call);
    expect([...(await shim.next(FRAME.resize)).payload]).toEqual([31, 0, 97, 0]);
    run.child.stdin?.write('\x03a\r\x1a');
    await until('input', () => shim.bytes(FRAME.stdin).toString() === '\x03a\r\x1a');
    shim.output(1, 'a\r\nb\nc');
    execFileSync('sh', ['-c', `stty rows 20 cols 50 </proc/${call.pid}/fd/0`]);
    await until('the new size', () => shim.bytes(FRAME.resize).subarray(-4).equals(Buffer.of(20, 0, 50, 0)));
    await until('the new size', () => call.bytes(LAUNCH.resize).subarray(-4).equals(Buffer.of(20, 0, 50, 0)));
    shim.exit(3);
    await run.ended;
    expect(run.out).toContain('a\r\nb\nccode 3\r\n');
    same();
  });
  it('stays as it is until the session has begun, and when it never does', async () => {
    const { run, call, same } = await begin();
    const shim = call.relay(['terminal', 'stdin', 'endInput', 'signals', 'final', 'early']);
    await shim.next(FRAME.resize);
    await sleep(50);
    expect(isRaw(call.pid)).toBe(false);
    shim.end();
    expect(await call.relayed()).toBe(2);
    call.done(127);
    await run.ended;
    expect(run.out).toMatch(/code 127/);
    same();
  });
  it('is as before after a detach, which is found in any cut, with what is held back until it is decided', async () => {
    const { run, call, same } = await begin();
    const shim = await session(call, [0x10, 0x11]);
    const type = async (text: string, seen: string): Promise<void> => {
      run.child.stdin?.write(text);
      await until(`input ${JSON.stringify(seen)}`, () => shim.bytes(FRAME.stdin).toString() === seen);
    };
    await type('a\x10', 'a');
    await type('b', 'a\x10b');
    await type('\x10\x10x', 'a\x10b\x10\x10x');
    await type('yz\x10', 'a\x10b\x10\x10xyz');
    run.child.stdin?.write('\x11never');
    await shim.next(FRAME.detach);
    expect(await call.relayed()).toBe(1);
    call.done(0);
    await run.ended;
    expect(shim.bytes(FRAME.stdin).toString()).toBe('a\x10b\x10\x10xyz');
    expect(run.out).toMatch(/code 0\r\n$/);
    same();
  });
  it('is as before when a signal ends the launcher, when engined dies, when the relay is lost', async () => {
    for (const end of ['signal', 'engined', 'lost'] as const) {
      const { run, call, same } = await begin();
      const shim = await session(call);
      if (end === 'signal') process.kill(call.pid, 'SIGTERM');
      if (end === 'engined') call.end();
      if (end !== 'signal') shim.end();
      if (end === 'lost') call.done(1);
      await run.ended;
      expect(run.out).toMatch(end === 'signal' ? /code 143/ : /code (125|1)\b/);
      same();
    }
  });
  it('is given back while the launcher is stopped, and raw again when it goes on', async () => {
    const { run, call, same } = await begin('set -m; stty -g >before; "$E" run -it x; stty -g >stopped; echo stopped >&2; sleep 0.1; fg; echo "code $?"; stty -g >after');
    const shim = await session(call);
    process.kill(call.pid, 'SIGTSTP');
    await until('the shell', () => run.out.includes('stopped'));
    expect(readFileSync(join(home.folder, 'stopped'), 'utf8')).toBe(readFileSync(join(home.folder, 'before'), 'utf8'));
    await until('raw mode again', () => processState(call.pid) === 'S' && isRaw(call.pid));
    await until('its size again', () => shim.frames.filter(({ type }) => type === FRAME.resize).length > 1);
    run.child.stdin?.write('on');
    await until('input', () => shim.bytes(FRAME.stdin).toString() === 'on');
    shim.exit(2);
    await run.ended;
    expect(run.out).toContain('code 2');
    same();
  });
  it('is put in raw mode for engined, too', async () => {
    const { run, call, same } = await begin();
    call.send(LAUNCH.raw, { argument: 1 });
    await until('raw mode', () => isRaw(call.pid));
    call.send(LAUNCH.want, { argument: 1 });
    run.child.stdin?.write('k');
    expect((await call.next(LAUNCH.input)).payload.toString()).toBe('k');
    call.send(LAUNCH.raw, { argument: 0 });
    await until('as it was', () => !isRaw(call.pid));
    call.send(LAUNCH.raw, { argument: 1 });
    call.done(0);
    await run.ended;
    same();
  });
  it('without input of its own stays as it is, and its signals go to the session', async () => {
    const { run, call } = await begin('"$E" attach --no-stdin x; echo "code $?"');
    const shim = call.relay(['terminal', 'signals', 'final'], { keys: [1] });
    await shim.next(FRAME.resize);
    expect(isRaw(call.pid)).toBe(false);
    run.child.stdin?.write('\x03');
    expect((await shim.next(FRAME.signal)).argument).toBe(2);
    shim.exit(0);
    await run.ended;
  });
  it('that does not take output does not keep a signal waiting', async () => {
    const { run, call } = await begin();
    const shim = await session(call);
    run.child.stdout?.pause();
    await until('back-pressure', () => shim.socket.writableLength > 500_000 || (shim.output(1, 'z'.repeat(8_000_000)), false));
    process.kill(call.pid, 'SIGTERM');
    await until('its end', () => shim.closed);
    run.child.stdout?.resume();
    await run.ended;
  });
});
