import { afterEach, describe, expect, it } from 'vitest';
import { createFixture, type Fixture } from '../state/state.fixture.ts';
import { request, testEngine } from './engine.fixture.ts';

let fixture: Fixture;
afterEach(() => fixture.remove());

describe('the next engine', () => {
  it('removes what a killed `run --rm` had made but not started, and nothing else', async () => {
    fixture = createFixture();
    const first = await testEngine({ fixture });
    await first.engine.containers.create(request({ name: 'kept', autoRemove: true }));
    await first.engine.containers.create(request({ name: 'lost', autoRemove: true }), { thenStart: true });
    await first.engine.containers.create(request({ name: 'plain' }), { thenStart: true });
    const beside = await testEngine({ fixture, native: fixture.native });
    expect((await beside.engine.containers.list({ all: true })).map((v) => v.record.name).sort()).toEqual(['kept', 'lost', 'plain']);
    const native = fixture.native.restart();
    const second = await testEngine({ fixture, native });
    expect((await second.engine.containers.list({ all: true })).map((v) => v.record.name).sort()).toEqual(['kept', 'plain']);
  });

  it('learns the exit of what went on without an engine, and removes it when it was --rm', async () => {
    fixture = createFixture({ program: async (program) => 40 + (await program.signalled()) });
    const first = await testEngine({ fixture });
    await first.engine.containers.create(request({ name: 'one', command: ['wait'] }));
    await first.engine.containers.create(request({ name: 'two', command: ['wait'], autoRemove: true }));
    for (const name of ['one', 'two']) await first.engine.containers.start(name);
    const native = fixture.native.restart();
    const second = await testEngine({ fixture, native });
    expect((await second.engine.containers.list({ all: false })).map((v) => v.record.name).sort()).toEqual(['one', 'two']);
    await second.engine.containers.kill('one', 'USR1');
    expect((await second.engine.containers.wait('one')).code).toBe(50);
    await second.engine.containers.kill('two', 'USR1');
    await second.engine.containers.wait('two', 'removed');
    expect((await second.engine.containers.list({ all: true })).map((v) => v.record.name)).toEqual(['one']);
  });

  it('ends what lost its shim', async () => {
    fixture = createFixture();
    const { engine, state } = await testEngine({ fixture });
    const { id } = await engine.containers.create(request({ name: 'headless', command: ['sleep'] }));
    const session = await engine.containers.start(id);
    fixture.native.killShim(state.runs.find(id)?.folder ?? '');
    await expect(session.exit).rejects.toMatchObject({ code: 'ERR_SHIM_GONE' });
    await session.gone;
    const view = await engine.containers.resolve(id);
    expect(view).toMatchObject({ state: 'stopped', record: { lastExit: { code: 137 } } });
    expect(state.runs.find(id)).toBeUndefined();
  });
});
