import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { BITS, decodePlan, FRAME, op, step } from '@engine/core/plan';
import { decodeFailure } from './frames.ts';
import { createNative } from './index.ts';
import { createConnection } from './shim.ts';
import { binaryFolder } from './binaries.ts';
import { createSyscalls } from './syscalls.ts';
import { Bench, bytesOf, Talk, unable, type Container } from './testing.ts';

const { stdin, stdinOnce, terminal, attachStdin, attachStdout, attachStderr } = BITS.STDIO;
const outputs = attachStdout | attachStderr;
const native = createNative();

/** How many operations of part init come before the first with this name (or after it). */
function before(plan: Uint8Array, name: string, after = 0): number {
  return decodePlan(plan).steps.filter(({ part }) => part === 'init').findIndex(({ operation }) => operation.name === name) + after;
}

describe.skipIf(unable !== undefined)(`a prepared sandbox${unable ? ` (skipped: ${unable})` : ''}`, () => {
  const benches: Bench[] = [];
  const clients: Talk[] = [];
  const bench = (with_ = native): Bench => {
    const made = new Bench(with_);
    benches.push(made);
    return made;
  };
  afterEach(async () => {
    for (const one of clients.splice(0)) one.connection.close();
    for (const one of benches.splice(0)) await one.close();
  });
  const guess: Container = { argv: ['guess'] };
  const prepare = async (b: Bench, container: Container = guess, after?: string): Promise<Talk> => {
    const plan = bytesOf(b.steps(container));
    const talk = b.startPlan(plan, undefined, { pool: after === undefined ? before(plan, 'pipes') : before(plan, after, 1) });
    await talk.frame('prepared');
    return talk;
  };
  /** As the engine does it: the plan on disk is replaced before. */
  const go = async (b: Bench, talk: Talk, container: Container): Promise<void> => {
    const plan = bytesOf(b.steps(container));
    writeFileSync(join(b.run, 'plan'), plan);
    await talk.send('resume', { payload: plan });
  };

  it('becomes the container that is asked for', async () => {
    const b = bench();
    const talk = await prepare(b);
    expect(existsSync(b.marker)).toBe(true);
    expect(talk.frames[0]?.argument).toBeGreaterThan(1);
    expect(b.logText()).toBe('');
    await go(b, talk, { argv: ['sh', '-c', 'echo $$; echo err >&2; read x; exit 7'], stdio: outputs });
    await talk.frame('gone');
    expect((await talk.frame('exit')).argument).toBe(7);
    expect([talk.output(1), talk.output(2)]).toEqual(['1\n', 'err\n']);
    expect(b.logText()).toContain('stdout F 1');
    expect(talk.frames.map(({ type }) => type).filter((type) => type !== FRAME.output)).toEqual([FRAME.prepared, FRAME.started, FRAME.exit, FRAME.gone]);
    expect(existsSync(b.marker)).toBe(false);
    expect(JSON.parse(b.file('undone'))).toEqual({ failures: [] });
  });

  it.each([
    ['a pipe with input', stdin | stdinOnce | attachStdin | outputs, undefined, { argv: ['sh', '-c', 'cat; echo end'] }, 'hello\nend\n'],
    ['a terminal that comes after', stdin | terminal | attachStdin | outputs, undefined, { argv: ['sh', '-c', 'size=$(stty size); read x; echo "got $x $size"'] }, 'got hello 24 80\r\n'],
    ['a terminal that is there already', stdin | terminal | attachStdin | outputs, 'terminal', { argv: ['sh', '-c', 'stty size; read x; echo "got $x"'] }, '24 80\r\n'],
  ])('with %s', async (_, stdio, after, container, expected) => {
    const b = bench();
    const talk = await prepare(b, after ? { ...guess, stdio } : guess, after);
    await go(b, talk, { ...container, stdio });
    // at once: a line may be all that it waits for
    await Promise.all([talk.send('stdin', { payload: 'hello\n' }), talk.send('stdinEof')]);
    expect((await talk.frame('exit')).argument).toBe(0);
    expect(talk.output()).toContain(expected);
  });

  it('gives its streams to a client that is adopted before', async () => {
    const b = bench();
    const talk = await prepare(b);
    const [mine, fd] = native.socketPair();
    const client = new Talk(createConnection(new Socket({ fd: mine, readable: true, writable: true }), createSyscalls));
    clients.push(client);
    await client.send('stdin', { payload: 'early\n' });
    talk.connection.adopt(fd);
    await go(b, talk, { argv: ['sh', '-c', 'read x; echo "got $x"'], stdio: stdin | attachStdin | outputs });
    expect((await client.frame('exit')).argument).toBe(0);
    expect(client.output()).toBe('got early\n');
    await talk.frame('gone');
    expect(talk.output()).toBe('');
  });

  it('is undone when its engine goes away', async () => {
    const b = bench();
    const talk = await prepare(b);
    const shim = b.shimPid();
    talk.connection.close();
    while (native.processStartTime(shim) !== undefined) await sleep(5);
    expect(existsSync(b.marker)).toBe(false);
    expect(b.processes()).toEqual([]);
    expect(JSON.parse(b.file('undone'))).toEqual({ failures: [] });
  });

  it('says so when its init dies, and undoes', async () => {
    const b = bench();
    const talk = await prepare(b);
    await talk.send('signal', { argument: 9 });
    expect(decodeFailure((await talk.frame('failed')).payload).detail).toContain('killed by signal 9');
    await talk.frame('gone');
    expect(existsSync(b.marker)).toBe(false);
  });

  it('refuses a plan that begins otherwise', async () => {
    const b = bench();
    const talk = await prepare(b);
    const plan = bytesOf([...b.steps({ argv: ['true'] }), step('shim.cgroup', op.mkdir({ path: `${b.marker}2`, mode: 0o700 }), op.rmdir({ path: `${b.marker}2` }, { okMissing: true }))]);
    await talk.send('resume', { payload: plan });
    expect(decodeFailure((await talk.frame('failed')).payload)).toMatchObject({ errno: 22, detail: 'the plan begins otherwise than what was prepared' });
    await talk.frame('gone');
    expect(existsSync(b.marker)).toBe(false);
  });

  it('tells what fails in the rest, and refuses a second plan', async () => {
    const b = bench();
    const talk = await prepare(b);
    await go(b, talk, { argv: ['no-such-program'] });
    expect(decodeFailure((await talk.frame('failed')).payload)).toMatchObject({ part: 2, errno: 2 });
    await talk.frame('gone');
    const other = bench();
    const second = other.start({ argv: ['sleep', '100'] });
    await second.frame('started');
    await second.send('resume', { payload: bytesOf(other.steps(guess)) });
    expect((await second.frame('error')).argument).toBe(22);
  });

  it('waits in little memory', async () => {
    const b = bench();
    const talk = await prepare(b);
    const pss = (pid: number): number => Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
    const [shim, init] = [pss(b.shimPid()), pss(talk.frames[0]?.argument ?? 0)];
    expect(shim + init).toBeLessThan(400);
  });

  const slow = createNative({ shimPath: join(binaryFolder(), 'engine-shim-test') });
  it.each(['record:prepared:before', 'record:prepared:after', 'record:resume:before', 'record:resume:after'])('killed at %s, leaves nothing behind the undo', async (halt) => {
    const b = bench(slow);
    const plan = bytesOf(b.steps(guess));
    const file = join(b.folder, 'halted');
    const talk = b.startPlan(plan, { ENGINE_HALT: halt, ENGINE_HALT_FILE: file }, { pool: before(plan, 'pipes') });
    if (halt.includes('resume')) {
      await talk.frame('prepared');
      await go(b, talk, { argv: ['sleep', '100'], stdio: outputs });
    }
    while (!existsSync(file)) await sleep(5);
    process.kill(b.shimPid(), 'SIGKILL');
    await talk.connection.closed;
    await b.other('undo', readFileSync(join(b.run, 'plan'))).frame('ok');
    expect(existsSync(b.marker)).toBe(false);
    await expect.poll(() => b.processes()).toEqual([]);
  });
});
