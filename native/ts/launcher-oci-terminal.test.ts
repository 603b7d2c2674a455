import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BITS } from '@engine/core/plan';
import { type CallerFds } from '@engine/core/native';
import { HandOver } from './handover-testing.ts';
import { createNative } from './index.ts';
import { decodeAnswer } from './launch-spawn.ts';
import { LAUNCH } from './launch.ts';
import { Installation, processState, until, type Call, type Run } from './launcher-testing.ts';
import { bytesOf, Talk, unable } from './testing.ts';

const native = createNative();

/** The real shim below the real launcher: what a run is that its caller attends. */
describe.skipIf(unable !== undefined)(`a container that its caller attends${unable ? ` (skipped: ${unable})` : ''}`, () => {
  let home: Installation;
  let bench: HandOver;
  beforeEach(async () => {
    home = new Installation();
    bench = new HandOver(native);
    await home.listen();
  });
  afterEach(async () => {
    await bench.close();
    await home.close();
  });
  const create = async (call: Call, argv: readonly string[], caller: CallerFds): Promise<number> => {
    const plan = join(bench.run, 'plan');
    writeFileSync(plan, bytesOf(bench.handedSteps({ argv, stdio: caller.console ? BITS.STDIO.terminal : 0 })));
    const lock = native.tryLock(join(bench.run, 'lock'), { create: true });
    if (!lock) throw new Error('the lock is taken');
    const by = {
      async spawn(request: Parameters<Call['spawn']>[0]): Promise<number> {
        const answer = await call.spawn(request, true);
        if (typeof answer !== 'number') throw new Error(answer.what);
        return answer;
      },
    };
    const connection = native.spawnShim({ mode: 'run', plan, runFolder: bench.run, lock, by, handOver: caller });
    lock.release();
    const talk = new Talk(connection);
    bench.connections.push(talk);
    const { argument } = await talk.frame('started');
    await connection.closed;
    expect(connection.failure).toBe(undefined);
    // the lock was open until the shim had it, and is free again
    const again = native.tryLock(join(bench.run, 'lock'), { create: false });
    expect(again).toBeDefined();
    again?.release();
    return argument;
  };
  const exited = async (call: Call): Promise<ReturnType<typeof decodeAnswer>> => decodeAnswer(await call.next(LAUNCH.exited));
  const terminal = async (line = '"$O" run x; echo "code $?"'): Promise<{ run: Run; call: Call; same: () => void }> => {
    const run = home.terminal(`cd ${home.folder}; stty rows 31 cols 97; stty -g >before; ${line}; stty -g >after`, { O: home.oci });
    const read = (name: string): string => readFileSync(join(home.folder, name), 'utf8');
    return { run, call: await home.call(), same: () => expect(read('after')).toBe(read('before')) };
  };
  const isRaw = (pid: number): boolean => execFileSync('sh', ['-c', `stty -a </proc/${pid}/fd/0`], { encoding: 'utf8' }).includes('-icanon');

  it('has the caller\'s terminal through one of its own: keys, sizes, output to the last byte', async () => {
    const { run, call, same } = await terminal();
    // stty(1) sets rows and columns by a call each: two signals
    const resized = 'case $(stty size) in "20 50") stty size; exit 7 ;; esac';
    const pid = await create(call, ['sh', '-c', `stty size; read a; echo "got $a"; trap '${resized}' WINCH; while :; do read b; done`], { console: 'relay', preserve: 0 });
    call.send(LAUNCH.wait, { argument: pid });
    await until('raw mode', () => isRaw(call.pid));
    expect(await bench.begin()).toBe('');
    await until('its size', () => run.out.includes('31 97'));
    run.child.stdin?.write('x\x7fhello\r');
    await until('its answer', () => run.out.includes('got hello'));
    execFileSync('sh', ['-c', `stty rows 20 cols 50 </proc/${call.pid}/fd/0`]);
    expect(await exited(call)).toBe(7);
    call.done(7);
    await run.ended;
    expect(run.out).toMatch(/20 50\r\n/);
    expect(run.out).toMatch(/code 7\r\n/);
    same();
  });
  it('can be interrupted by a key, and its last words come before our end', async () => {
    const { run, call, same } = await terminal();
    const pid = await create(call, ['sh', '-c', 'trap "i=0; while [ \\$i -lt 3000 ]; do echo line \\$i; i=\\$((i+1)); done; exit 5" INT; echo ready; while :; do sleep 0.02; done'], { console: 'relay', preserve: 0 });
    call.send(LAUNCH.wait, { argument: pid });
    expect(await bench.begin()).toBe('');
    await until('it to be ready', () => run.out.includes('ready'));
    run.child.stdin?.write('\x03');
    expect(await exited(call)).toBe(5);
    call.done(5);
    await run.ended;
    expect(run.out).toMatch(/line 2999\r\ncode 5\r\n/);
    same();
  });
  it('does not keep us for a terminal that somebody else still has', async () => {
    const { run, call } = await terminal();
    const pid = await create(call, ['sh', '-c', 'sleep 1000 & echo left; kill -9 $$'], { console: 'relay', preserve: 0 });
    call.send(LAUNCH.wait, { argument: pid });
    await bench.begin();
    const answer = await exited(call);
    // pid 1 of its namespace ignores its own kill: then it ended by itself
    expect([0, 137]).toContain(answer);
    call.done(answer as number);
    await run.ended;
    expect(run.out).toContain('left');
  });
  it('leaves the terminal as it was when the engine is lost, and goes on', async () => {
    const { run, call, same } = await terminal();
    const pid = await create(call, ['sh', '-c', 'echo ready; read a; echo "got $a"; exit 6'], { console: 'relay', preserve: 0 });
    call.send(LAUNCH.wait, { argument: pid });
    await bench.begin();
    await until('it to be ready', () => run.out.includes('ready'));
    await home.stop();
    run.child.stdin?.write('still\r');
    await run.ended;
    expect(run.out).toContain('got still');
    expect(run.out).toMatch(/code 6\r\n/);
    same();
  });
  it('has the caller\'s files without a terminal, and those that are preserved', async () => {
    mkdirSync(join(home.folder, 'd'));
    writeFileSync(join(home.folder, 'kept'), 'kept');
    const run = home.exec('sh', ['-c', `exec "${home.oci}" run x 3<kept`], { cwd: home.folder });
    const call = await home.call();
    const pid = await create(call, ['sh', '-c', 'cat <&3; cat; echo to err >&2; exit 4'], { preserve: 1 });
    call.send(LAUNCH.wait, { argument: pid });
    run.child.stdin?.end(' and typed');
    expect(await bench.begin()).toBe('');
    expect(await exited(call)).toBe(4);
    call.done(4);
    expect(await run.ended).toEqual({ code: 4, signal: null });
    expect({ out: run.out, err: run.err }).toEqual({ out: 'kept and typed', err: 'to err\n' });
  });
  it('that nobody waits for becomes our parent\'s', async () => {
    const { run, call } = { run: home.exec(home.oci, ['create', 'x'], { stdio: 'ignore' }), call: await home.call() };
    const plan = join(bench.run, 'plan');
    writeFileSync(plan, bytesOf(bench.handedSteps({ argv: ['sleep', '1000'] })));
    const lock = native.tryLock(join(bench.run, 'lock'), { create: true });
    const by = { spawn: async (request: Parameters<Call['spawn']>[0]) => (await call.spawn(request)) as number };
    const connection = native.spawnShim({ mode: 'run', plan, runFolder: bench.run, ...(lock && { lock }), by, handOver: { preserve: 0 } });
    lock?.release();
    const talk = new Talk(connection);
    bench.connections.push(talk);
    const pid = (await talk.frame('started')).argument;
    call.done(0);
    await run.ended;
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    expect(processState(pid)).not.toBe('Z');
    expect(bench.shims()).toEqual([]);
  });
});
