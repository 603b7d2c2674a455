import { existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { decodePlan, type Step } from '@engine/core/plan';
import { binaryFolder } from './binaries.ts';
import { HandOver, statusOf } from './handover-testing.ts';
import { createNative } from './index.ts';
import { bytesOf, unable, type Talk } from './testing.ts';

const native = createNative();
const why = unable ?? (existsSync(join(binaryFolder(), 'engine-shim-test')) ? undefined : 'no test build of the shim');

async function halted(file: string, talk: Talk): Promise<number> {
  for (const deadline = Date.now() + 5000; Date.now() < deadline; await sleep(2)) {
    if (existsSync(file) && readFileSync(file, 'utf8').includes('\n')) return Number(readFileSync(file, 'utf8').trim().split(' ')[2]);
    if (talk.ended) break;
  }
  throw new Error(`neither halted nor ended: ${talk.describe()}`);
}
const steps = (b: HandOver): Step[] => b.handedSteps({ argv: ['sleep', '100'] });

/** Kill the shim at `point`; what `undo` finds, and what is left afterwards. */
async function killAt(point: string): Promise<void> {
  const b = new HandOver(native);
  try {
    const halt = join(b.folder, 'halt');
    const talk = b.spawn('run', bytesOf(steps(b)), { env: { ENGINE_HALT: point, ENGINE_HALT_FILE: halt } });
    await halted(halt, talk);
    const shim = b.children[0]?.pid ?? 0;
    process.kill(shim, 'SIGKILL');
    await talk.connection.closed;
    rmSync(halt);
    expect(talk.frames, point).toEqual([]);
    const name = existsSync(join(b.run, 'started')) ? (JSON.parse(b.file('started')) as { pid: number }).pid : 0;
    const free = point === 'handover:leave:after';
    if (free) await sleep(50);
    else await expect.poll(() => name && statusOf(name, 'Name'), { timeout: 5000, message: point }).toBeFalsy();
    if (free) expect(statusOf(name, 'Name'), point).toBeDefined();
    // nobody was told: whoever finds that undoes it
    const undo = b.other('undo', readFileSync(join(b.run, 'plan')));
    await undo.frame('ok');
    await undo.connection.closed;
    await expect.poll(() => b.processes(), { timeout: 5000, message: point }).toEqual([]);
    expect(existsSync(b.marker), point).toBe(false);
  } finally {
    await b.close();
  }
}

describe.skipIf(why !== undefined)(`a shim that is killed before it has handed over${why ? ` (skipped: ${why})` : ''}`, () => {
  const points: string[] = [];
  if (why === undefined) {
    const b = new HandOver(native);
    for (const one of decodePlan(bytesOf(steps(b))).steps) {
      if (one.part === 'after' || one.operation.name === 'exec') continue;
      points.push(`${one.part}:${one.index}:before`);
      if (one.operation.name !== 'awaitStart') points.push(`${one.part}:${one.index}:after`);
    }
    rmSync(b.folder, { recursive: true });
    points.push('record:started:before', 'record:started:after', 'handover:leave:before', 'handover:leave:after');
  }

  it.each(points)('at %s leaves nothing that the undo does not find', (point) => killAt(point));
});

describe.skipIf(why !== undefined)(`a hand-over in which somebody goes${why ? ` (skipped: ${why})` : ''}`, () => {
  it('is undone when the engine goes before its end', async () => {
    const b = new HandOver(native);
    try {
      const halt = join(b.folder, 'halt');
      const talk = b.spawn('run', bytesOf(steps(b)), { env: { ENGINE_HALT: 'record:started:before', ENGINE_HALT_FILE: halt } });
      await halted(halt, talk);
      talk.connection.close();
      rmSync(halt);
      await expect.poll(() => existsSync(join(b.run, 'undone')), { timeout: 5000 }).toBe(true);
      await expect.poll(() => b.processes(), { timeout: 5000 }).toEqual([]);
      expect(existsSync(join(b.run, 'started'))).toBe(false);
      expect(JSON.parse(b.file('failed'))).toMatchObject({ part: 'shim', detail: 'the engine is gone' });
      expect(existsSync(b.marker)).toBe(false);
    } finally {
      await b.close();
    }
  });

  it('goes on when init is killed after it, and says so when before', async () => {
    const b = new HandOver(native);
    try {
      const halt = join(b.folder, 'halt');
      const talk = b.spawn('run', bytesOf(steps(b)), { env: { ENGINE_HALT: 'record:started:after', ENGINE_HALT_FILE: halt } });
      await halted(halt, talk);
      process.kill((JSON.parse(b.file('started')) as { pid: number }).pid, 'SIGKILL');
      rmSync(halt);
      expect((await talk.frame('failed')).payload.toString()).toContain('init was killed by signal 9 as it was handed over');
      await talk.frame('gone');
      expect(existsSync(b.marker)).toBe(false);
    } finally {
      await b.close();
    }
  });

  it('ends a session whose joining process, or whose shim, is killed', async () => {
    const b = new HandOver(native);
    try {
      const pid = await b.create({ argv: ['sleep', '100'] });
      expect(await b.begin()).toBe('');
      const out = b.keep(openSync(join(b.folder, 'out'), 'w+'));
      for (const victim of ['joiner', 'shim', 'engine'] as const) {
        const halt = join(b.folder, 'halt');
        const point = victim === 'engine' ? 'exec:3:before' : 'session:spawned:before';
        const talk = b.spawn('exec', b.session(['sh', '-c', 'echo ran; sleep 1000']), { stdio: ['ignore', out, out], env: { ENGINE_HALT: point, ENGINE_HALT_FILE: halt } });
        const joiner = await halted(halt, talk);
        if (victim === 'engine') talk.connection.close();
        else process.kill(victim === 'joiner' ? joiner : (b.children.at(-1)?.pid ?? 0), 'SIGKILL');
        // what is halted is killed as it waits
        if (victim === 'engine') await expect.poll(() => b.children.at(-1)?.exitCode, { timeout: 5000 }).toBe(0);
        rmSync(halt);
        if (victim === 'joiner') expect((await talk.frame('failed')).payload.toString()).toContain('it was killed');
        await talk.connection.closed;
        await expect.poll(() => b.processes(), { timeout: 10_000, message: victim }).toEqual([pid]);
      }
      expect(readFileSync(join(b.folder, 'out'), 'utf8')).toBe('');
    } finally {
      await b.close();
    }
  });
});
