import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { BITS, decodePlan, op, step } from '@engine/core/plan';
import { createNative } from './index.ts';
import { binaryFolder } from './binaries.ts';
import { decodeFailure } from './frames.ts';
import { Bench, bytesOf, unable, type Container, type Talk } from './testing.ts';

const testShim = unable === undefined ? join(binaryFolder(), 'engine-shim-test') : '';
const why = unable ?? (existsSync(testShim) ? undefined : 'no test build of the shim');
const container: Container = {
  argv: ['cat'], stdio: BITS.STDIO.stdin,
  extra: [
    step('shim.attach', op.awaitPoint({ point: 1 })),
    step('shim.attach', op.release({ point: 1 })),
    step('init.netns', op.reach({ point: 1 })),
  ],
};

async function halted(file: string, done: () => boolean): Promise<boolean> {
  const deadline = Date.now() + 5000;
  while (Date.now() < deadline) {
    if (existsSync(file) && readFileSync(file, 'utf8').includes('\n')) return true;
    if (done()) return false;
    await sleep(2);
  }
  throw new Error('neither halted nor ended');
}

/** Kill the shim at `point`, run the undo, and look for what is left. */
async function killAt(point: string): Promise<void> {
  const bench = new Bench(createNative({ shimPath: testShim }));
  try {
    const halt = join(bench.folder, 'halt');
    const talk = bench.start(container, { ENGINE_HALT: point, ENGINE_HALT_FILE: halt });
    const end = point.startsWith('after:') || point.startsWith('record:exit') || point.startsWith('record:undone');
    if (end) void talk.frame('started').then(() => talk.send('stdinEof')).catch(() => {});
    expect(await halted(halt, () => talk.ended), point).toBe(true);
    const shim = bench.shimPid();
    expect(shim, point).toBeGreaterThan(1);
    process.kill(shim, 'SIGKILL');
    await talk.connection.closed;
    rmSync(halt, { force: true });
    const undo = bench.other('undo', readFileSync(join(bench.run, 'plan')));
    await undo.frame('ok');
    await undo.connection.closed;
    const deadline = Date.now() + 2000;
    while (bench.processes().length && Date.now() < deadline) await sleep(10);
    expect(bench.processes(), point).toEqual([]);
    expect(existsSync(bench.marker), point).toBe(false);
    expect(JSON.parse(bench.file('undone')), point).toEqual({ failures: [] });
    // what the shim wrote is whole or not there
    for (const name of ['started', 'exit', 'failed']) if (existsSync(join(bench.run, name))) JSON.parse(bench.file(name));
    expect(existsSync(join(bench.run, 'exit')), point).toBe(point.startsWith('after:') || point === 'record:exit:after' || point.startsWith('record:undone'));
  } finally {
    await bench.close();
  }
}

describe.skipIf(why !== undefined)(`a shim that is killed${why ? ` (skipped: ${why})` : ''}`, () => {
  const points: string[] = [];
  if (why === undefined) {
    const bench = new Bench(createNative());
    for (const one of decodePlan(bytesOf(bench.steps(container))).steps) {
      for (const when of ['before', 'after']) if (!(one.operation.name === 'exec' && when === 'after')) points.push(`${one.part}:${one.index}:${when}`);
    }
    rmSync(bench.folder, { recursive: true });
    for (const name of ['started', 'exit', 'undone']) points.push(`record:${name}:before`, `record:${name}:after`);
  }

  it.each(points)('at %s leaves nothing that the undo does not find', (point) => killAt(point));
});

describe.skipIf(why !== undefined)(`a session whose processes are killed while it joins${why ? ` (skipped: ${why})` : ''}`, () => {
  const stdin = BITS.STDIO.stdin;
  /** The pid of the one that joins: it has made the process that goes on, and is about to name it. */
  async function joining(halt: string, talk: Talk): Promise<number> {
    expect(await halted(halt, () => talk.ended)).toBe(true);
    return Number(readFileSync(halt, 'utf8').trim().split(' ')[2]);
  }
  const children = (pid: number): number[] => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);

  it.each(['the one that joins', 'the one that it has made'])('is told so: %s', async (which) => {
    const bench = new Bench(createNative({ shimPath: testShim }));
    try {
      const halt = join(bench.folder, 'halt');
      const talk = bench.start({ argv: ['cat'], stdio: stdin }, { ENGINE_HALT: 'session:spawned:before', ENGINE_HALT_FILE: halt });
      await talk.frame('started');
      const [init] = children(bench.shimPid());
      await talk.send('exec', { session: 1, argument: 0, payload: bench.session(['true']) });
      const joiner = await joining(halt, talk);
      const made = children(bench.shimPid()).find((pid) => pid !== init && pid !== joiner) as number;
      process.kill(which === 'the one that joins' ? joiner : made, 'SIGKILL');
      if (which !== 'the one that joins') await expect.poll(() => existsSync(`/proc/${made}`)).toBe(false);
      rmSync(halt);
      expect(decodeFailure((await talk.frame('failed', 1)).payload).detail).toContain(`the session ended before its program was started${which === 'the one that joins' ? ': it was killed' : ''}`);
      await expect.poll(() => children(bench.shimPid())).toEqual([init]);
      expect(talk.frames.filter(({ session }) => session === 1)).toHaveLength(1);
      // and its number is free again
      await talk.send('exec', { session: 1, argument: 0, payload: bench.session(['sh', '-c', 'exit 3']) });
      await joining(halt, talk);
      rmSync(halt);
      expect((await talk.frame('exit', 1)).argument).toBe(3);
      await talk.send('stdinEof');
      expect((await talk.frame('exit')).argument).toBe(0);
    } finally {
      await bench.close();
    }
  });
});
