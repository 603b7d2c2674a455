import { afterEach, describe, expect, it } from 'vitest';
import { type RestartView } from '../api/index.ts';
import { type PluginInstance } from '../plugin/index.ts';
import { createFixture, type Fixture } from '../state/state.fixture.ts';
import { request, testEngine, type TestEngine } from './engine.fixture.ts';

let fixture: Fixture;
afterEach(() => fixture.remove());

/** An engine with a plugin that starts nothing, but answers and listens. */
async function withPolicy(answers: PluginInstance = {}): Promise<TestEngine & { readonly stops: unknown[] }> {
  fixture = createFixture();
  const stops: unknown[] = [];
  const test = await testEngine({
    fixture,
    extra: (hooks) => [{
      manifest: { name: 'policy', version: '1.0.0', main: './x.ts' }, builtin: false, source: 'policy', optionsDigest: '', eager: true,
      load: async () => {
        hooks.tapFor('policy')('stop', (_, { container, verb, signal, run }) => void stops.push([container.name, verb, signal, run !== undefined]));
        hooks.tapFor('policy')('update', (_, { container }) => { if (container.request.restart?.policy === 'no') throw new Error('no'); });
        return answers;
      },
    }],
  });
  return { ...test, stops };
}

describe('restart', () => {
  it('stops and starts, or only starts; it says so beforehand and afterwards', async () => {
    const { engine, stops, events } = await withPolicy();
    const { id } = await engine.containers.create(request({ name: 'one', command: ['sleep'] }));
    await engine.containers.restart(id);
    const first = await engine.containers.resolve('one');
    await engine.containers.restart('one', { signal: 'KILL' });
    const second = await engine.containers.resolve('one');
    expect([first.state, second.state, first.run?.id === second.run?.id, second.record.starts]).toEqual(['running', 'running', false, 2]);
    expect(stops).toEqual([['one', 'restart', 15, false], ['one', 'restart', 9, true]]);
    await expect.poll(() => events).toEqual(['create', 'start', 'restart', 'die', 'stop', 'start', 'restart'].map((action) => `container ${action}`));
    await engine.containers.kill('one', 'KILL');
    expect(stops.at(-1)).toEqual(['one', 'kill', 9, true]);
    await engine.close();
  });
  it('is not for what goes with its run', async () => {
    const { engine } = await withPolicy();
    (await engine.containers.run(request({ name: 'passing', command: ['sleep'], autoRemove: true }))).detach();
    await expect(engine.containers.restart('passing')).rejects.toMatchObject({ code: 'ERR_NOT_SUPPORTED' });
    expect((await engine.containers.resolve('passing')).state).toBe('running');
    await engine.containers.kill('passing', 'KILL');
    await engine.close();
  });
});

describe('a restart policy', () => {
  it('is kept and changed when the plugin that knows about it agrees', async () => {
    const { engine, events, hooks } = await withPolicy();
    expect(hooks.taps('update')).toEqual([{ name: 'policy', plugin: 'policy' }]);
    await engine.containers.create(request({ name: 'one', restart: { policy: 'on-failure', maximum: 3 } }));
    const policy = async (): Promise<unknown> => (await engine.containers.resolve('one')).record.request.restart;
    expect(await policy()).toEqual({ policy: 'on-failure', maximum: 3 });
    await engine.containers.update('one', { restart: { policy: 'always', maximum: 0 } });
    await expect(engine.containers.update('one', { restart: { policy: 'no', maximum: 3 } })).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', cause: expect.objectContaining({ message: 'no' }) as unknown });
    expect(await policy()).toEqual({ policy: 'always', maximum: 0 });
    await expect.poll(() => events).toEqual(['container create', 'container update']);
    await engine.close();
  });
  it('is told by the plugin that has one: what waits is listed, restarting, and ended by kill', async () => {
    let answer: RestartView = { count: 2, next: '2026-01-01T00:00:00.000Z', error: 'no such file' };
    const { engine, stops } = await withPolicy({ needed: () => ['it waits'], restarts: (_, running) => (running ? { count: answer.count } : answer) });
    expect(engine.system.needed()).toEqual(['it waits']);
    await engine.containers.create(request({ name: 'one', restart: { policy: 'always', maximum: 0 } }));
    await engine.containers.create(request({ name: 'two' }));
    expect((await engine.containers.list({ all: false })).map(({ record, restarts }) => [record.name, restarts])).toEqual([['one', answer]]);
    expect(await engine.containers.inspect('one')).toMatchObject({ facts: { view: { state: 'created', restarts: answer } } });
    expect((await engine.containers.resolve('two')).restarts).toBeUndefined();
    await engine.containers.kill('one', 'TERM');
    expect(stops).toEqual([['one', 'kill', 15, false]]);
    answer = { count: 2 };
    await expect(engine.containers.kill('one', 'TERM')).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
    await engine.close();
  });
});
