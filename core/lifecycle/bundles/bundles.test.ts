import fs from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { type CgroupDriver } from '../../contracts/cgroup/index.ts';
import { fail } from '../../errors/index.ts';
import { BITS, op } from '../../plan/index.ts';
import { type FakeProgram } from '../../native/fake.ts';
import { createFixture } from '../../state/state.fixture.ts';
import { type TestOptions } from '../engine.fixture.ts';
import { bundleWorld, caller, closeWorlds, config, type World } from './bundles.fixture.ts';

const open: World[] = [];
afterEach(() => closeWorlds(open));
async function start(options: TestOptions = {}): Promise<World> {
  const world = await bundleWorld(options);
  open.push(world);
  return world;
}
async function running(id = 'one', options: TestOptions = {}): Promise<World> {
  const world = await start(options);
  await world.create(id);
  await world.bundles.start(world.ref(id));
  return world;
}
const statusOf = async ({ bundles, ref }: World, id = 'one'): Promise<string> => (await bundles.state(ref(id))).status;

describe('a container of a bundle', () => {
  it('goes from created to running to stopped, and leaves nothing', async () => {
    const world = await start();
    const { bundles, ref, root, native } = world;
    const spec = config({ annotations: { a: 'b', 'engine.internal/init': '1' } });
    const made = await bundles.create(world.request('one', { spec, env: ['LISTEN_FDS=1'], preserveFds: 1 }));
    expect(made).toMatchObject({ root, id: 'one', status: 'created', ociVersion: '1.0.2', owner: 'root', annotations: { a: 'b' }, process: { args: ['sleep'], env: ['LISTEN_FDS=1'] } });
    expect(made.annotations).not.toHaveProperty('engine.internal/init');
    expect(made.rootfs).toBe(path.join(made.bundle, 'rootfs'));
    expect(await bundles.state(ref('one'))).toEqual(made);
    expect(fs.statSync(path.join(root, 'one')).mode & 0o777).toBe(0o700);
    expect(await bundles.start(ref('one'))).toMatchObject({ status: 'running', pid: made.pid });
    expect(native.processOf(made.pid)?.isAlive).toBe(true);
    await bundles.kill(ref('one'), 15);
    await native.processOf(made.pid)?.ended;
    expect(await bundles.state(ref('one'))).toMatchObject({ status: 'stopped', pid: 0 });
    await bundles.delete(ref('one'));
    await expect(bundles.state(ref('one'))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER', message: 'container "one" does not exist' });
    expect(world.left()).toEqual([]);
    // no row, no run of the engine's own
    expect(world.fixture.leftOver()).toEqual([]);
    expect(await world.engine.containers.list({ all: true })).toEqual([]);
  });

  it('has the streams of its caller, and waits for its start where hooks and exec come', async () => {
    const tapped = { extra: (hooks: Parameters<NonNullable<TestOptions['extra']>>[0]) => (hooks.tapFor('late')('applyLimits', ({ plan }) => plan.add('init.exec', op.chdir({ path: '/hook' }))), []) };
    const world = await start(tapped);
    const spawner = caller();
    await world.bundles.create(world.request('one', { spawner, preserveFds: 2 }));
    expect(spawner.asked).toEqual([{ preserve: 2 }]);
    const names = world.native.operations.map(({ name }) => name);
    expect(names.slice(-2)).toEqual(['resolveExec', 'awaitStart']);
    expect(world.native.operations.find(({ name }) => name === 'stdio')?.args['flags']).toBe(BITS.STDIO.inherit);
    await world.bundles.start(world.ref('one'));
    expect(world.native.operations.at(-1)?.name).toBe('exec');
  });

  it('gets a terminal by a socket, or from its caller', async () => {
    const world = await start();
    const spec = config({ process: { cwd: '/', user: {}, args: ['sleep'], terminal: true, consoleSize: { height: 20, width: 70 } } });
    const spawner = caller();
    await world.bundles.create(world.request('one', { spec, spawner, consoleSocket: '/s' }));
    await world.bundles.create(world.request('two', { spec, spawner }));
    expect(spawner.asked).toEqual([{ preserve: 0, console: { socket: '/s' } }, { preserve: 0, console: 'relay' }]);
    expect(world.native.operations.find(({ name }) => name === 'stdio')?.args).toMatchObject({ flags: BITS.STDIO.terminal, rows: 20, cols: 70 });
    await expect(world.bundles.create(world.request('three', { consoleSocket: '/s' }))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', message: expect.stringContaining('cannot use console socket if') });
    await expect(world.bundles.create(world.request('three', { spec, detached: true }))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', message: expect.stringContaining('cannot allocate tty if') });
  });

  it('is refused with the field that is wrong', async () => {
    const world = await start();
    const asked = async (spec: unknown, over = {}): Promise<unknown> => world.bundles.create(world.request('bad', { spec, ...over })).catch((error: unknown) => error);
    for (const [spec, field] of [
      ['{"ociVersion": ', 'is not JSON'], ['[]', 'not a JSON object'], [{}, 'root'], [config({ ociVersion: '2.0.0' }), 'ociVersion'], [config({ ociVersion: 'new' }), 'ociVersion'], [{ ...config(), root: {} }, 'root.path'], [{ ...config(), root: undefined }, 'root'], [{ ...config(), process: undefined }, 'process'],
      [config({ args: [] }), 'process.args'], [config({ args: [''] }), 'process.args'], [{ ...config(), process: { ...config().process, cwd: 'tmp' } }, 'process.cwd'], [{ ...config(), process: { ...config().process, env: [1] } }, 'process.env'],
      [{ ...config(), mounts: [{ destination: 7 }] }, 'mounts[0].destination'], [{ ...config(), linux: { namespaces: [{ type: 1 }] } }, 'linux.namespaces[0].type'], [{ ...config(), annotations: { a: 1 } }, 'annotations'],
    ] as const) expect(await asked(spec)).toMatchObject({ code: 'ERR_INVALID_VALUE', message: expect.stringContaining(field) as string });
    expect(await asked(config(), { bundle: 'relative' })).toMatchObject({ code: 'ERR_INVALID_VALUE', operation: 'bundle' });
    expect(await asked(config(), { config: 'other.json' })).toMatchObject({ code: 'ERR_INVALID_VALUE', errno: 'ENOENT' });
    expect(await asked({ ...config(), linux: { ...config().linux, intelRdt: { closID: 'x' } } })).toMatchObject({ code: 'ERR_NOT_SUPPORTED', path: 'linux.intelRdt' });
    expect(await asked({ ...config(), domainname: 'd', hooks: { poststop: [{ path: '/x' }] } })).toMatchObject({ code: 'ERR_SECTION_UNOWNED', path: 'hooks.poststop' });
    for (const id of ['', '.', '..', 'a/b', 'a b', 'x'.repeat(241)]) await expect(world.bundles.create(world.request(id))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', operation: 'id' });
    await expect(world.bundles.create({ ...world.request('one'), root: 'relative' })).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', operation: 'root' });
    expect(world.left()).toEqual([]);
    expect(world.native.spawned).toBe(0);
  });

  it('has unknown fields, which are ignored and told', async () => {
    const world = await start();
    const told: string[] = [];
    await world.bundles.create(world.request('one', { spec: { ...config({ ociVersion: '1.9.9-dev' }), more: { kernel: {} }, hostname: null, process: { ...config().process, magic: 1 } }, onWarning: (text) => void told.push(text.replace(/^.*config.json: /, '')) }));
    expect(told.sort()).toEqual(['process.magic is not known, and ignored', 'more is not known, and ignored'].sort());
  });

  it('takes numbers of seccomp rules that no double holds', async () => {
    const { parseSpec, exactJson } = await import('./config.ts');
    const text = JSON.stringify(config()).replace('"linux":{', '"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]},');
    const spec = parseSpec(text, 'f');
    expect(spec.linux?.seccomp?.syscalls?.[0]?.args?.[0]?.value).toBe(18_446_744_073_709_551_615n);
    expect(exactJson(spec)).toContain('18446744073709551615');
  });

  it('keeps its id to itself, also against another that comes at the same time', async () => {
    const world = await start();
    const both = await Promise.allSettled([world.create('one'), world.create('one')]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    await expect(world.create('one')).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN', message: 'container with id exists: one' });
    expect(world.left()).toEqual(['one']);
  });

  it('says that its id is taken when somebody quicker is in its group already', async () => {
    const [failure, made] = [fail('ERR_IN_USE', 'the group has processes'), { folder: '' }];
    const world = await start({ extra: (hooks) => (hooks.tapFor('late')('applyLimits', () => { if (made.folder) fs.mkdirSync(made.folder, { recursive: true }); throw failure; }), []) });
    await expect(world.create('one')).rejects.toMatchObject({ code: 'ERR_IN_USE' });
    made.folder = `${world.root}/one`;
    await expect(world.create('one')).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN' });
  });

  it('is told of by the plugins: which hooks are called', async () => {
    const called: string[] = [];
    const hooks = ['request', 'create', 'configure', 'prepareRootfs', 'beforeStart', 'exec', 'pause', 'resume', 'update', 'stop', 'exited', 'postExitCleanup', 'remove', 'event'] as const;
    const world = await start({ extra: (all) => (hooks.forEach((name) => all.tapFor('spy')(name, ((_: unknown, value: { verb?: string }) => void called.push(name === 'request' ? String(value.verb) : name)) as never)), []) });
    const { bundles, ref } = world;
    called.length = 0;
    await world.create('one');
    await bundles.start(ref('one'));
    await bundles.exec(ref('one'), world.exec(['true']));
    await bundles.pause(ref('one'));
    await bundles.resume(ref('one'));
    await bundles.update(ref('one'), { memory: { limit: 1 } });
    await bundles.kill(ref('one'), 9);
    await bundles.delete(ref('one'), { force: true });
    expect(called).toEqual(['bundle create', 'create', 'prepareRootfs', 'beforeStart', 'bundle start', 'bundle exec', 'exec', 'bundle pause', 'pause', 'bundle resume', 'resume', 'bundle update', 'update', 'bundle kill', 'stop', 'bundle delete', 'postExitCleanup']);
  });

  it('is refused by a policy, before anything is there', async () => {
    const world = await start({ extra: (hooks) => (hooks.tapFor('policy')('request', (_, { verb, arguments: args }) => { if (verb === 'bundle create' && (args['spec'] as { hostname?: string }).hostname === 'evil') throw fail('ERR_DENIED', 'no'); }), []) });
    await expect(world.create('one', config({ hostname: 'evil' }))).rejects.toMatchObject({ code: 'ERR_DENIED' });
    expect(world.left()).toEqual([]);
  });
});

describe('start', () => {
  it('says why the program could not be run, and of what was started that it was', async () => {
    const world = await start();
    const { bundles, ref, native } = world;
    await world.create('one');
    native.failAt(0, { errno: 'ENOEXEC' });
    await expect(bundles.start(ref('one'))).rejects.toMatchObject({ code: 'ERR_EXEC_FAILED', message: 'exec: "sleep": exec format error' });
    expect(await statusOf(world)).toBe('stopped');
    await expect(bundles.start(ref('one'))).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING', message: 'cannot start a container that has stopped' });
    native.reset();
    await world.create('two');
    await bundles.start(ref('two'));
    await expect(bundles.start(ref('two'))).rejects.toMatchObject({ code: 'ERR_ALREADY_RUNNING', message: 'cannot start an already running container' });
    await expect(bundles.start(ref('none'))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER' });
  });
  it('starts once, however many ask', async () => {
    const world = await start();
    await world.create('one');
    const asked = await Promise.allSettled(Array.from({ length: 4 }, () => world.bundles.start(world.ref('one'))));
    expect(asked.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(world.native.operations.filter(({ name }) => name === 'exec')).toHaveLength(1);
  });
  const withHooks: TestOptions = { map: (entry) => (entry.manifest.name === 'base' ? { ...entry, manifest: { ...entry.manifest, sections: [...(entry.manifest.sections ?? []), 'hooks'] } } : entry) };
  it('runs the hooks of the spec outside; one of poststop that fails is told', async () => {
    const world = await start(withHooks);
    const { bundles, ref, native } = world;
    const hooks = { poststart: [{ path: '/bin/a' }, { path: '/bin/b', args: ['b', 'c'], env: ['X=1'], timeout: 3 }], poststop: [{ path: '/bin/z' }] };
    const { pid } = await world.create('one', config({ hooks, annotations: { k: 'v' } }));
    const told: string[] = [];
    await bundles.start(ref('one'));
    const ran = native.operations.filter(({ name }) => name === 'hook');
    expect(ran.map(({ args }) => [args['path'], args['argv'], args['timeout']])).toEqual([['/bin/a', ['/bin/a'], 0], ['/bin/b', ['b', 'c'], 3000]]);
    expect(JSON.parse(String(ran[0]?.args['stateHead']))).toMatchObject({ ociVersion: '1.0.2', id: 'one', status: 'running', pid, annotations: { k: 'v' } });
    await world.create('two', config({ hooks }));
    const before = native.operations.length;
    await bundles.delete(ref('two'), { force: true });
    native.failAt(native.operations.slice(before).findIndex(({ name }) => name === 'hook'), { errno: 'EPERM', detail: 'exit status 3' });
    await bundles.delete(ref('one'), { force: true, onWarning: (text) => void told.push(text) });
    expect(told).toEqual([expect.stringMatching(/^poststop hook \/bin\/z failed: exit status 3/)]);
    expect(JSON.parse(String(native.operations.findLast(({ name }) => name === 'hook')?.args['stateHead']))).toMatchObject({ id: 'one', status: 'stopped' });
    expect(world.left()).toEqual([]);
  });
  it('ends a container whose poststart hook fails, and runs no further one', async () => {
    const world = await start(withHooks);
    const { bundles, ref, native } = world;
    const { pid } = await world.create('one', config({ hooks: { poststart: [{ path: '/bin/a' }, { path: '/bin/b' }] } }));
    native.failAt(1, { errno: 'EPERM', detail: 'exit status 3' });
    await expect(bundles.start(ref('one'))).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', message: expect.stringMatching(/^poststart hook \/bin\/a failed: exit status 3/) });
    expect([native.processOf(pid)?.isAlive, await statusOf(world)]).toEqual([false, 'stopped']);
    expect(native.operations.filter(({ name }) => name === 'hook')).toHaveLength(1);
    await bundles.delete(ref('one'));
    expect(world.left()).toEqual([]);
  });
});

describe('who has no hooks', () => {
  it('starts and goes without a look at its spec, unless a plugin is told of the end', async () => {
    const world = await start();
    const { bundles, ref, root } = world;
    await world.create('one');
    fs.rmSync(path.join(root, 'one', 'spec.json'));
    expect(await bundles.start(ref('one'))).toMatchObject({ id: 'one', status: 'running' });
    await bundles.delete(ref('one'), { force: true });
    expect(world.left()).toEqual([]);
  });
});

describe('kill and delete', () => {
  it('refuse what does not fit the state', async () => {
    const world = await running();
    const { bundles, ref } = world;
    await expect(bundles.delete(ref('one'))).rejects.toMatchObject({ code: 'ERR_ALREADY_RUNNING', message: 'cannot delete container one that is not stopped: running' });
    await bundles.kill(ref('one'), 9);
    await expect(bundles.kill(ref('one'), 9)).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
    await bundles.kill(ref('one'), 9, { all: true });
    await expect(bundles.kill(ref('one'), 65)).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
    await expect(bundles.kill(ref('none'), 9)).rejects.toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER' });
    await expect(bundles.delete(ref('none'))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER' });
    await bundles.delete(ref('none'), { force: true });
    await bundles.delete({ root: path.join(world.fixture.folder, 'nowhere'), id: 'none' }, { force: true });
  });
  it('end one that waits for its start, without force, and a running one with it', async () => {
    const world = await start();
    for (const id of ['waits', 'runs']) await world.create(id);
    await world.bundles.start(world.ref('runs'));
    await world.bundles.delete(world.ref('waits'));
    await world.bundles.delete(world.ref('runs'), { force: true });
    expect(world.left()).toEqual([]);
  });
  it('are asked at once by many, and one does it', async () => {
    const world = await running();
    await Promise.all(Array.from({ length: 5 }, () => world.bundles.delete(world.ref('one'), { force: true })));
    expect(world.left()).toEqual([]);
    expect(world.native.operations.filter(({ name, part }) => name === 'cgroupRemove' && part === 'after')).toHaveLength(1);
  });
  it('come in the way of a start, which ends then', async () => {
    const world = await start();
    const { pid } = await world.create('one');
    const [started, deleted] = await Promise.allSettled([world.bundles.start(world.ref('one')), world.bundles.delete(world.ref('one'), { force: true })]);
    expect(deleted.status).toBe('fulfilled');
    if (started.status === 'rejected') expect((started.reason as { code: string }).code).toMatch(/ERR_NOT_RUNNING|ERR_NO_SUCH_CONTAINER/);
    expect(world.native.processOf(pid)?.isAlive).toBe(false);
    expect(world.left()).toEqual([]);
  });
  it('tell what could not be undone, free the id, and try again later', async () => {
    const world = await running();
    const { bundles, ref, native } = world;
    await bundles.kill(ref('one'), 9);
    const names: string[] = [];
    native.failAt(1, { errno: 'EBUSY' });
    await expect(bundles.delete(ref('one'))).rejects.toMatchObject({ code: 'ERR_UNDO_FAILED' });
    names.push(...world.left());
    expect(names).toEqual([expect.stringMatching(/^\.leftovers\/one-/)]);
    native.reset();
    await world.create('one');
    await bundles.delete(ref('one'));
    expect(world.left()).toEqual([]);
  });
  it('clean up after crashes, also where there is nothing to delete', async () => {
    const world = await running();
    const { bundles, ref, root } = world;
    fs.mkdirSync(path.join(root, '.trash', 'old'), { recursive: true });
    fs.writeFileSync(path.join(root, '.trash', 'old', 'record.json'), '{}');
    await bundles.delete(ref('nobody'), { force: true });
    expect(world.left()).toEqual(['one']);
    await bundles.delete(ref('one'), { force: true });
  });
  it('remove what cannot be read, and nothing of others', async () => {
    const world = await running();
    const { bundles, ref, root } = world;
    fs.writeFileSync(path.join(root, 'one', 'container.json'), '{');
    await expect(bundles.state(ref('one'))).rejects.toMatchObject({ code: 'ERR_STATE', hint: 'delete it with --force' });
    await expect(bundles.delete(ref('one'))).rejects.toMatchObject({ code: 'ERR_STATE' });
    fs.mkdirSync(path.join(root, 'theirs'));
    fs.writeFileSync(path.join(root, 'theirs', 'state.json'), '{}');
    fs.mkdirSync(path.join(root, 'empty'));
    await world.create('fine');
    const told: string[] = [];
    expect((await bundles.list(root, { onWarning: (text) => void told.push(text) })).map(({ id }) => id)).toEqual(['fine']);
    expect(told).toHaveLength(3);
    await expect(bundles.delete(ref('theirs'), { force: true })).rejects.toMatchObject({ code: 'ERR_STATE', message: expect.stringContaining('was not made by the engine') as string });
    for (const id of ['one', 'empty', 'fine']) await bundles.delete(ref(id), { force: true });
    expect(world.left()).toEqual(['theirs']);
    expect(world.native.operations.some(({ name, part }) => name === 'cgroupKill' && part === 'after')).toBe(true);
  });
  it('keep away from a root that others can write to', async () => {
    const world = await running();
    fs.chmodSync(world.root, 0o777);
    await expect(world.bundles.state(world.ref('one'))).rejects.toMatchObject({ code: 'ERR_STATE', operation: 'root' });
    fs.chmodSync(world.root, 0o700);
  });
});

describe('a running container', () => {
  it('takes sessions', async () => {
    const seen: (readonly string[])[] = [];
    const world = await running('one', { fixture: createFixture({ program: (program: FakeProgram) => (seen.push(program.argv), new Promise<number>(() => {})) }) });
    const { bundles, ref, native } = world;
    const spawner = caller();
    const { pid } = await bundles.exec(ref('one'), world.exec(['id', '-u'], { spawner, preserveFds: 3 }));
    expect(native.processOf(pid)?.isAlive).toBe(true);
    await expect.poll(() => seen.at(-1)).toEqual(['id', '-u']);
    expect(spawner.asked).toEqual([{ preserve: 3 }]);
    expect(fs.readdirSync(path.join(world.root, 'one')).filter((name) => name.startsWith('plan-'))).toEqual([]);
    await expect(bundles.exec(ref('one'), world.exec([]))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', path: 'process.args' });
    await expect(bundles.exec(ref('one'), world.exec(['x'], { cgroups: ['sub'] }))).rejects.toMatchObject({ code: 'ERR_FEATURE_MISSING' });
    native.failAt(3, { errno: 'ENOENT' });
    await expect(bundles.exec(ref('one'), world.exec(['nothing']))).rejects.toMatchObject({ code: 'ERR_EXEC_NOT_FOUND' });
    native.reset();
    await bundles.kill(ref('one'), 9);
    await expect(bundles.exec(ref('one'), world.exec(['x']))).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
  });
  it('is frozen and let go', async () => {
    const world = await running();
    const { bundles, ref } = world;
    await expect(bundles.resume(ref('one'))).rejects.toMatchObject({ code: 'ERR_NOT_PAUSED' });
    await bundles.pause(ref('one'));
    expect(await statusOf(world)).toBe('paused');
    await expect(bundles.pause(ref('one'))).rejects.toMatchObject({ code: 'ERR_PAUSED' });
    await expect(bundles.exec(ref('one'), world.exec(['x']))).rejects.toMatchObject({ code: 'ERR_PAUSED' });
    await bundles.exec(ref('one'), world.exec(['x'], { ignorePaused: true }));
    await expect(bundles.delete(ref('one'))).rejects.toMatchObject({ message: 'cannot delete container one that is not stopped: paused' });
    await bundles.resume(ref('one'));
    expect(await statusOf(world)).toBe('running');
    await bundles.pause(ref('one'));
    await bundles.delete(ref('one'), { force: true });
    await expect(bundles.pause(ref('one'))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_CONTAINER' });
  });
  it('gets other limits, and is counted', async () => {
    const world = await running();
    const { bundles, ref, root } = world;
    await bundles.update(ref('one'), { memory: { limit: 4096 } });
    await bundles.update(ref('one'), { pids: { limit: 5 } });
    const spec = JSON.parse(fs.readFileSync(path.join(root, 'one', 'spec.json'), 'utf8')) as { linux: { resources: unknown } };
    expect(spec.linux.resources).toEqual({ memory: { limit: 4096 }, pids: { limit: 5 } });
    expect(await bundles.stats(ref('one'))).toEqual({ group: { pids: 2, memoryBytes: 4096 }, interfaces: [] });
    const { pid } = await bundles.state(ref('one'));
    expect(await bundles.processes(ref('one'))).toEqual([pid]);
    await bundles.kill(ref('one'), 9);
    for (const asked of [bundles.stats(ref('one')), bundles.processes(ref('one')), bundles.update(ref('one'), {}), bundles.oom(ref('one'))]) await expect(asked).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
  });
  it('tells of kills for want of memory, until it ends or nobody asks', async () => {
    let kills: number | undefined = 0;
    const watchers = new Set<() => void>();
    const over: Partial<CgroupDriver> = { stats: () => (kills === undefined ? {} : { oomKills: kills }), watchKills: (_group, told) => (watchers.add(told), { close: () => void watchers.delete(told) }) };
    const tell = (now: number): void => {
      kills = now;
      for (const told of watchers) told();
    };
    const world = await running('one', { map: (entry) => (entry.manifest.name === 'groups' ? { ...entry, load: async () => { const made = await entry.load(); return { drivers: (made.drivers ?? []).map((driver) => ({ ...driver, ...over })) }; } } : entry) });
    const { bundles, ref } = world;
    const asked = async (...rest: [AbortSignal?, number?]): Promise<{ told: Promise<number | undefined> }> => {
      const told = bundles.oom(ref('one'), ...rest);
      await expect.poll(() => watchers.size).toBe(1);
      return { told };
    };
    const next = await asked();
    tell(0); // told once too often
    expect(watchers.size).toBe(1);
    tell(3);
    expect([await next.told, watchers.size]).toEqual([3, 0]);
    kills = 5; // nobody watches
    expect([await bundles.oom(ref('one'), undefined, 3), watchers.size]).toEqual([5, 0]);
    const abort = new AbortController();
    const none = await asked(abort.signal);
    abort.abort();
    expect([await none.told, watchers.size]).toEqual([undefined, 0]);
    expect(await bundles.oom(ref('one'), abort.signal)).toBeUndefined();
    const last = await asked(undefined, 5);
    kills = 6; // the kill that ends it: the end comes first
    await bundles.kill(ref('one'), 9);
    expect([await last.told, watchers.size]).toEqual([6, 0]);
    expect(await bundles.oom(ref('one'), undefined, 6)).toBeUndefined();
    kills = undefined; // its group is gone
    expect([await bundles.oom(ref('one'), undefined, 6), watchers.size]).toEqual([undefined, 0]);
  });
  it('nobody waits for kills any more when the engine or the container ends', async () => {
    let open = 0;
    const map: NonNullable<TestOptions['map']> = (entry) => (entry.manifest.name === 'groups' ? { ...entry, load: async () => { const made = await entry.load(); return { drivers: (made.drivers ?? []).map((driver) => ({ ...driver, stats: () => ({}), watchKills: () => (open++, { close: () => void open-- }) })) }; } } : entry);
    const world = await running('one', { map });
    const end = world.bundles.oom(world.ref('one'));
    await expect.poll(() => open).toBe(1);
    await world.bundles.kill(world.ref('one'), 9);
    expect([await end, open]).toEqual([undefined, 0]);
    await world.create('two');
    const closed = world.bundles.oom(world.ref('two'));
    await expect.poll(() => open).toBe(1);
    await world.engine.close();
    expect([await closed, open]).toEqual([undefined, 0]);
  });
  it('is served without the plugin that limits it, as far as that goes', async () => {
    const world = await running();
    const later = await bundleWorld({ fixture: world.fixture, native: world.native, without: ['groups'] });
    expect(await statusOf(later)).toBe('running');
    await expect(later.bundles.pause(later.ref('one'))).rejects.toMatchObject({ code: 'ERR_PLUGIN_MISSING' });
    await later.bundles.delete(later.ref('one'), { force: true });
    expect(later.left()).toEqual([]);
    await later.engine.close();
  });
});

describe('features', () => {
  it('are what plugins and drivers say', async () => {
    const world = await start({ map: (entry) => (entry.manifest.name === 'groups' ? { ...entry, load: async () => { const made = await entry.load(); return { ociFeatures: () => ({ hooks: ['b', 'a'] }), drivers: (made.drivers ?? []).map((driver) => ({ ...driver, ociFeatures: () => ({ hooks: ['a', 'c'], linux: { cgroup: { v1: true } } }) })) }; } } : entry) });
    await world.create('one');
    expect(await world.bundles.features()).toMatchObject({ ociVersionMin: '1.0.0', hooks: ['a', 'b', 'c'], linux: { cgroup: { v1: true } } });
  });
});
