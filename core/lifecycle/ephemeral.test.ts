import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { type Hooks } from '../hooks/index.ts';
import { createFixture, type Fixture } from '../state/state.fixture.ts';
import { request, testEngine, type TestEngine } from './engine.fixture.ts';

let fixture: Fixture;
afterEach(() => fixture.remove());

const rm = (over: Parameters<typeof request>[0] = {}): ReturnType<typeof request> => request({ autoRemove: true, command: ['/bin/true'], ...over });
/** What must be gone with every run. */
function left(test: Pick<TestEngine, 'fixture' | 'state'>): string[] {
  const snapshots = path.join(test.fixture.folder, 'data/snapshots');
  const containers = path.join(test.state.folders.root, 'containers');
  const names = [snapshots, containers].flatMap((folder) => (existsSync(folder) ? readdirSync(folder).filter((name) => name !== '.trash') : []));
  return [...names, ...test.state.containers.list().map((c) => `row ${c.name}`), ...test.fixture.leftOver()];
}

describe('run --rm', () => {
  it('makes and removes all of it in the plan of its run: no helper, no journal', async () => {
    fixture = createFixture({ program: async () => 7 });
    const test = await testEngine({ fixture });
    const created: string[] = [];
    const session = await test.engine.containers.run(rm(), { onCreated: (id) => created.push(id) });
    expect(created).toEqual([session.container]);
    expect((await session.exit).code).toBe(7);
    await session.gone;
    expect(fixture.native.operations.filter(({ part }) => part === 'helper')).toEqual([]);
    expect(fixture.native.operations.filter(({ part, name }) => part === 'shim' && name === 'mkdir').length).toBeGreaterThan(3);
    await expect.poll(() => test.events).toEqual(['container create', 'container start', 'container die', 'container destroy']);
    expect(left(test)).toEqual([]);
    await test.engine.close();
    expect(fixture.leftOver()).toEqual([]);
  });

  it('leaves what outlives its run to a creation of its own', async () => {
    fixture = createFixture();
    const test = await testEngine({ fixture });
    const kept = await test.engine.containers.run(request({ name: 'kept', command: ['/bin/true'] }));
    await kept.gone;
    const volume = await test.engine.containers.run(rm({ mounts: [{ type: 'volume', source: 'data', target: '/data', readonly: false, createSource: false, noCopy: false }] }));
    await volume.gone;
    expect(test.state.containers.list().map((c) => [c.name, c.ephemeral])).toEqual([['kept', undefined]]);
    expect(test.state.volumes.get('data')?.name).toBe('data');
    await test.engine.close();
  });

  it('frees its name with its exit: the next one waits for the end of the teardown', async () => {
    fixture = createFixture({ program: async () => 0 });
    const test = await testEngine({ fixture });
    for (let i = 0; i < 3; i++) await (await test.engine.containers.run(rm({ name: 'same' }))).exit;
    expect(await test.engine.containers.list({ all: true })).toEqual([]);
    await expect(test.engine.containers.inspect('same')).rejects.toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER' });
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('names who has the name', async () => {
    fixture = createFixture({ program: async (program) => program.signalled() });
    const test = await testEngine({ fixture });
    const first = await test.engine.containers.run(rm({ name: 'taken' }));
    await expect(test.engine.containers.run(rm({ name: 'taken' }))).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN' });
    first.signal(9);
    await first.gone;
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('is not there for a verb that it ends under', async () => {
    fixture = createFixture({ program: async (program) => program.signalled() });
    let meanwhile: (() => Promise<void>) | undefined;
    const extra = (hooks: Hooks) => (hooks.tapFor('policy')('request', async (_, { verb }) => ['start', 'diff'].includes(verb) ? meanwhile?.() : undefined), []);
    const { engine, ...test } = await testEngine({ fixture, extra });
    const volume = { type: 'volume', source: 'data', target: '/data', readonly: false, createSource: false, noCopy: false } as const;
    for (const more of [{}, { mounts: [volume] }]) {
      for (const verb of ['start', 'diff'] as const) {
        const session = await engine.containers.run(rm({ name: 'ends', ...more }));
        const lock = await test.state.lock('container', session.container);
        // its end is known, and nobody has seen to it yet
        meanwhile = () => (session.signal(9), session.exit).then(() => void setTimeout(lock.release));
        await expect(engine.containers[verb]('ends'), verb).rejects.toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER' });
        meanwhile = undefined;
        await session.gone;
        expect(left(test)).toEqual([]);
      }
    }
    await engine.close();
  });

  it('is undone when it cannot start', async () => {
    fixture = createFixture();
    const test = await testEngine({ fixture });
    fixture.native.failAt(5);
    await expect(test.engine.containers.run(rm())).rejects.toThrow();
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('leaves nothing wherever engine, shim or both are killed', async () => {
    for (const victim of ['engine', 'shim', 'both'] as const) {
      for (let k = 0, done = false; !done; k++) {
        fixture = createFixture({ program: async () => 0 });
        const test = await testEngine({ fixture });
        fixture.native.crashAt(k, { victim });
        const verb = test.engine.containers.run(rm()).then((session) => session.gone).then(() => 'done', () => 'failed');
        const how = await Promise.race([verb, fixture.native.crashed.then(() => 'crashed')]);
        done = fixture.native.count <= k;
        // a shim that is killed while the engine lives: it finishes the undo by itself
        const native = how === 'crashed' ? fixture.native.restart() : fixture.native;
        const next = how === 'crashed' ? await testEngine({ fixture, native }) : test;
        if (how === 'crashed') await new Promise((resolve) => setImmediate(resolve));
        await next.engine.containers.list({ all: true });
        for (const record of next.state.containers.list()) await next.engine.containers.wait(record.id, 'removed').catch(() => undefined);
        expect(left({ fixture, state: next.state }), `${victim} at ${k} (${how})`).toEqual([]);
        await next.engine.close();
        fixture.remove();
      }
    }
  });

  it('is found by its folder when the power went before its row was written', async () => {
    fixture = createFixture();
    const test = await testEngine({ fixture });
    const id = 'a'.repeat(64);
    mkdirSync(path.join(test.state.folders.root, 'containers', id, 'log'), { recursive: true });
    mkdirSync(path.join(fixture.folder, 'data/snapshots', id), { recursive: true });
    await test.engine.close();
    const next = await testEngine({ fixture, native: fixture.native.restart({ reboot: true }) });
    expect(left(next)).toEqual([]);
    await next.engine.close();
  });

  it('is removed after a reboot that took its run along', async () => {
    fixture = createFixture({ program: async (program) => program.signalled() });
    const test = await testEngine({ fixture });
    await test.engine.containers.run(rm());
    rmSync(path.join(test.state.folders.runRoot, 'runs'), { recursive: true });
    mkdirSync(path.join(test.state.folders.runRoot, 'runs'), { mode: 0o700 });
    const next = await testEngine({ fixture, native: fixture.native.restart({ reboot: true }) });
    expect(left(next)).toEqual([]);
    await next.engine.close();
  });
});
