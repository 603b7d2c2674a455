import * as fs from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { type ContainerRequest } from '../api/index.ts';
import { fail } from '../errors/index.ts';
import { createFixture, type Fixture } from '../state/state.fixture.ts';
import { request, startEngines, testEngine, type TestEngine, type TestOptions } from './engine.fixture.ts';

const start = startEngines(afterEach);
const fixtures: Fixture[] = [];
afterEach(() => {
  for (const fixture of fixtures.splice(0)) fixture.remove();
});
async function running(options?: TestOptions & { readonly request?: Partial<ContainerRequest> }): Promise<TestEngine> {
  const made = await start(options);
  await made.engine.containers.create(request({ name: 'one', command: ['sleep'], ...options?.request }));
  (await made.engine.containers.start('one')).detach();
  made.events.length = 0;
  return made;
}
const stateOf = async ({ engine }: TestEngine): Promise<string> => (await engine.containers.resolve('one')).state;
const attach = { stdin: false, stdout: true, stderr: true };
const files = ({ fixture }: TestEngine, kind: string): string[] => {
  const folder = path.join(fixture.folder, 'data', 'groups');
  return fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => name.endsWith(`.${kind}`)).map((name) => fs.readFileSync(path.join(folder, name), 'utf8')) : [];
};

describe('pause', () => {
  it('stops a container where it is, and unpause lets it go on', async () => {
    const made = await running();
    const { engine, events } = made;
    await expect(engine.containers.unpause('one')).rejects.toMatchObject({ code: 'ERR_NOT_PAUSED', exitCode: 1 });
    await engine.containers.pause('one');
    expect(await stateOf(made)).toBe('paused');
    expect((await engine.containers.resolve('one')).run).toBeDefined();
    expect((await engine.containers.list({ all: false })).map((view) => view.state)).toEqual(['paused']);
    expect(await engine.system.info()).toMatchObject({ ContainersRunning: 0, ContainersPaused: 1, ContainersStopped: 0 });
    await expect(engine.containers.pause('one')).rejects.toMatchObject({ code: 'ERR_PAUSED', message: 'cannot pause: container one is already paused' });
    await expect(engine.containers.start('one')).rejects.toMatchObject({ code: 'ERR_PAUSED' });
    await expect(engine.containers.attach('one', attach)).rejects.toMatchObject({ code: 'ERR_PAUSED' });
    await expect(engine.containers.remove('one', { force: false, volumes: false })).rejects.toMatchObject({ code: 'ERR_IN_USE', message: 'cannot remove container one: it is paused' });
    await engine.containers.unpause('one');
    expect(await stateOf(made)).toBe('running');
    await expect.poll(() => events).toEqual(['container pause', 'container unpause']);
    expect(fs.readdirSync(path.join(made.fixture.folder, 'root', 'inflight'))).toEqual([]);
  });
  it('is known to an engine that has not loaded the driver yet', async () => {
    const made = await running();
    await made.engine.containers.pause('one');
    const other = await testEngine({ fixture: made.fixture });
    expect((await other.engine.containers.list({ all: true })).map((view) => view.state)).toEqual(['paused']);
    await other.engine.containers.unpause('one');
    expect(await stateOf(made)).toBe('running');
    await other.engine.close();
  });
  it('refuses what does not run', async () => {
    const { engine } = await start();
    await engine.containers.create(request({ name: 'one', command: ['true'] }));
    await expect(engine.containers.pause('one')).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING', exitCode: 1 });
    await expect(engine.containers.unpause('one')).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
    await expect(engine.containers.pause('nope')).rejects.toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER' });
    await (await engine.containers.start('one')).gone;
    await expect(engine.containers.pause('one')).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
  });
  it('can be refused by a tap, and needs a driver that can', async () => {
    let deny = '';
    const made = await running({
      extra: (hooks) => {
        for (const hook of ['pause', 'resume'] as const) hooks.tapFor('policy')(hook, (_, { container }) => { if (deny === hook) throw fail('ERR_DENIED', `no ${hook} of ${container.name}`); });
        return [];
      },
    });
    const { engine } = made;
    deny = 'pause';
    await expect(engine.containers.pause('one')).rejects.toMatchObject({ code: 'ERR_DENIED' });
    expect(await stateOf(made)).toBe('running');
    deny = 'resume';
    await engine.containers.pause('one');
    await expect(engine.containers.unpause('one')).rejects.toMatchObject({ code: 'ERR_DENIED' });
    // a policy for unpause must not keep anybody from stopping it
    await engine.containers.stop('one');
    expect(await stateOf(made)).toBe('stopped');
  });
  it('says when the driver cannot freeze', async () => {
    const { engine } = await running({ map: (entry) => (entry.manifest.name !== 'groups' ? entry : { ...entry, load: async () => {
      const [driver] = (await entry.load()).drivers ?? [];
      const { freeze: _freeze, isFrozen: _isFrozen, update: _update, ...rest } = driver as NonNullable<typeof driver> & { freeze: unknown; isFrozen: unknown; update: unknown };
      return { drivers: [rest as NonNullable<typeof driver>] };
    } }) });
    await expect(engine.containers.pause('one')).rejects.toMatchObject({ code: 'ERR_FEATURE_MISSING', plugin: 'groups' });
    await expect(engine.containers.update('one', { limits: { memory: 64 << 20 } })).rejects.toMatchObject({ code: 'ERR_FEATURE_MISSING', hint: 'stop it first' });
    expect((await engine.containers.resolve('one')).record.request.limits).toEqual({});
  });
  it.each([['stop', 143], ['kill', 137], ['restart', undefined], ['remove', undefined]] as const)('does not keep it from %s', async (verb, code) => {
    const made = await running();
    const { engine, events } = made;
    await engine.containers.pause('one');
    if (verb === 'kill') await engine.containers.kill('one', 'KILL');
    else if (verb === 'remove') await engine.containers.remove('one', { force: true, volumes: false });
    else await engine.containers[verb]('one');
    if (verb === 'remove') expect(await engine.containers.list({ all: true })).toEqual([]);
    else expect(await stateOf(made)).toBe(verb === 'restart' ? 'running' : 'stopped');
    if (code !== undefined) expect((await engine.containers.resolve('one')).record.lastExit?.code).toBe(code);
    // told after the answer
    if (verb === 'stop') await expect.poll(() => [...events].sort()).toEqual(['container die', 'container pause', 'container stop', 'container unpause']);
  });
  it('ends with a signal as in Docker: any, or the own one when it has one', async () => {
    const made = await running();
    const { engine } = made;
    await engine.containers.pause('one');
    await engine.containers.kill('one', 'USR1');
    expect((await engine.containers.wait('one')).code).toBe(138);
    const other = await running({ request: { stopSignal: 'INT' }, fixture: fixtures[fixtures.push(createFixture({ program: async (program) => { for (;;) if ((await program.signalled()) === 2) return 2; } })) - 1] as Fixture });
    await other.engine.containers.pause('one');
    await other.engine.containers.kill('one', 'USR1');
    expect(await stateOf(other)).toBe('paused');
    await other.engine.containers.kill('one', 'INT');
    expect((await other.engine.containers.wait('one')).code).toBe(2);
  });
  it('is tried by many at once: one does it, the others are told', async () => {
    const made = await running();
    const { engine } = made;
    const tries = await Promise.allSettled(Array.from({ length: 5 }, () => engine.containers.pause('one')));
    expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const one of tries) if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'ERR_PAUSED' });
    const [gone, late] = await Promise.allSettled([engine.containers.remove('one', { force: true, volumes: false }), engine.containers.unpause('one')]);
    expect(gone.status).toBe('fulfilled');
    if (late.status === 'rejected') expect((late.reason as { code: string }).code).toMatch(/^ERR_(NOT_RUNNING|NO_SUCH_CONTAINER|NOT_PAUSED)$/);
    expect(made.fixture.leftOver()).toEqual([]);
  });
  it('leaves it running when the freeze fails', async () => {
    const made = await running();
    const { engine, fixture } = made;
    fixture.native.reset();
    fixture.native.failAt(1, { errno: 'EIO' });
    await expect(engine.containers.pause('one')).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', plugin: 'groups' });
    fixture.native.reset();
    expect(await stateOf(made)).toBe('running');
    expect(files(made, 'frozen')).toEqual([]);
  });
});

describe('update', () => {
  it('changes the record for the next run and the group for this one', async () => {
    const made = await running();
    const { engine, events } = made;
    await engine.containers.update('one', { limits: { memory: 64 << 20 } });
    await engine.containers.update('one', { limits: { pids: 20 }, restart: { policy: 'on-failure', maximum: 2 } });
    const { record } = await engine.containers.resolve('one');
    expect(record.request).toMatchObject({ limits: { memory: 64 << 20, pids: 20 }, restart: { policy: 'on-failure', maximum: 2 } });
    expect(record.spec.linux?.resources).toMatchObject({ memory: { limit: 64 << 20 }, pids: { limit: 20 } });
    // only what has changed
    expect(files(made, 'limits')).toEqual(['{"pids":{"limit":20}}']);
    await expect.poll(() => events).toEqual(['container update', 'container update']);
    await engine.containers.update('one', { limits: { pids: 20 } });
    expect(files(made, 'limits')).toEqual(['{"pids":{"limit":20}}']);
  });
  it('touches no group of one that does not run', async () => {
    const made = await start();
    await made.engine.containers.create(request({ name: 'one', command: ['sleep'] }));
    await made.engine.containers.update('one', { limits: { memory: 64 << 20 } });
    expect(files(made, 'limits')).toEqual([]);
    expect((await made.engine.containers.resolve('one')).record.spec.linux?.resources?.memory?.limit).toBe(64 << 20);
  });
  it('is refused as a whole', async () => {
    const made = await running();
    const { engine } = made;
    const before = (await engine.containers.resolve('one')).record;
    await expect(engine.containers.update('one', { limits: { memory: 7 << 20 }, restart: { policy: 'always', maximum: 0 } })).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
    made.fixture.native.reset();
    made.fixture.native.failAt(1, { errno: 'EINVAL' });
    await expect(engine.containers.update('one', { limits: { memory: 64 << 20 }, restart: { policy: 'always', maximum: 0 } })).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', errno: 'EINVAL' });
    made.fixture.native.reset();
    // what is busy for another reason than memory is told as it is
    made.fixture.native.failAt(1, { errno: 'EBUSY' });
    await expect(engine.containers.update('one', { limits: { pids: 30 } })).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', errno: 'EBUSY' });
    made.fixture.native.reset();
    expect((await engine.containers.resolve('one')).record).toEqual(before);
    expect(files(made, 'limits')).toEqual([]);
    await engine.containers.create(request({ name: 'two', autoRemove: true }));
    await expect(engine.containers.update('two', { restart: { policy: 'always', maximum: 0 } })).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', message: expect.stringContaining('AutoRemove') as string });
  });
  it('asks the policies about what will be executed, and the taps about what comes of it', async () => {
    const asked: unknown[] = [];
    const { engine } = await running({
      extra: (hooks) => {
        hooks.tapFor('policy')('request', (_, value) => { if (value.verb === 'update') asked.push(value.arguments['limits']); });
        hooks.tapFor('policy')('update', (_, { container }) => { if ((container.request.limits.pids ?? 0) > 100) throw fail('ERR_DENIED', 'too many'); });
        return [];
      },
    });
    await engine.containers.update('one', { limits: { pids: 10 } });
    await expect(engine.containers.update('one', { limits: { pids: 101 } })).rejects.toMatchObject({ code: 'ERR_DENIED' });
    expect(asked).toEqual([{ pids: 10 }, { pids: 101 }]);
    expect((await engine.containers.resolve('one')).record.request.limits.pids).toBe(10);
  });
});

describe('stats and top', () => {
  it('give what the driver counts and what taps add; of one that does not run, nothing', async () => {
    const made = await start({
      extra: (hooks) => {
        hooks.tapFor('more')('stats', (_, { container, stats }) => ({ container, stats: { ...stats, more: { ...stats.more, gpus: 2 } } }));
        return [];
      },
    });
    const { engine } = made;
    await engine.containers.create(request({ name: 'one', command: ['sleep'] }));
    expect(await engine.containers.stats('one')).toMatchObject({ name: 'one', state: 'created', group: {}, interfaces: [], more: { gpus: 2 } });
    await expect(engine.containers.top('one')).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
    await engine.containers.start('one');
    const first = await engine.containers.stats('one');
    expect(first).toMatchObject({ state: 'running', group: { pids: 2, memoryBytes: 4096 } });
    expect((await engine.containers.stats('one')).at).toBeGreaterThan(first.at);
    expect(await engine.containers.top('one')).toEqual([(await engine.containers.resolve('one')).run?.pid]);
  });
});
