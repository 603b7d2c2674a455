import * as fs from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { fail, isEngineError } from '../errors/index.ts';
import { decodePlan } from '../plan/index.ts';
import { layer, request, startEngines } from './engine.fixture.ts';

const start = startEngines(afterEach);
async function text(output: AsyncIterable<{ stream: string; data: Buffer }>): Promise<string> {
  let all = '';
  for await (const { data } of output) all += data.toString();
  return all;
}
const attach = { stdin: true, stdout: true, stderr: true };

describe('life of a container', () => {
  it('runs a program, gives its output and exit, and keeps nothing of the run', async () => {
    const { engine, fixture, events } = await start();
    const record = await engine.containers.create(request({ command: ['echo', 'hello'], name: 'one' }));
    expect((await engine.containers.resolve('one')).state).toBe('created');
    const session = await engine.containers.start('one', { attach });
    expect(await text(session.output)).toBe('hello\n');
    expect((await session.exit).code).toBe(0);
    await session.gone;
    const view = await engine.containers.resolve(record.id.slice(0, 6));
    expect(view.state).toBe('stopped');
    expect(view.record.starts).toBe(1);
    expect(view.record.lastExit?.code).toBe(0);
    expect(fixture.leftOver()).toEqual([]);
    await engine.containers.remove('one', { force: false, volumes: false });
    expect(fs.existsSync(path.join(fixture.folder, 'root', 'containers', record.id))).toBe(false);
    expect(fs.readdirSync(path.join(fixture.folder, 'data', 'snapshots'))).toEqual([]);
    await expect.poll(() => events).toEqual(['container create', 'container start', 'container die', 'container destroy']);
  });

  it('removes a container with --rm after its end, with its anonymous volumes', async () => {
    const { engine, fixture } = await start({ image: { Cmd: ['false'], Volumes: { '/data': {} } } });
    const record = await engine.containers.create(request({ autoRemove: true }));
    expect(record.volumes).toHaveLength(1);
    expect(await engine.volumes.list()).toHaveLength(1);
    const session = await engine.containers.start(record.id);
    expect((await session.exit).code).toBe(1);
    await session.gone;
    expect(await engine.containers.list({ all: true })).toEqual([]);
    expect(await engine.volumes.list()).toEqual([]);
    expect(fs.readdirSync(path.join(fixture.folder, 'data', 'volumes'))).toEqual([]);
  });

  it('stops, waits, kills, refuses to remove what runs, and removes by force', async () => {
    const { engine } = await start();
    await engine.containers.create(request({ command: ['sleep'], name: 'aa', stopSignal: 'INT' }));
    await engine.containers.start('aa');
    expect((await engine.containers.list({ all: false })).map((v) => v.record.name)).toEqual(['aa']);
    await expect(engine.containers.start('aa')).rejects.toMatchObject({ code: 'ERR_ALREADY_RUNNING' });
    await expect(engine.containers.remove('aa', { force: false, volumes: false })).rejects.toMatchObject({ code: 'ERR_IN_USE' });
    const waited = engine.containers.wait('aa');
    await engine.containers.stop('aa');
    expect((await waited).code).toBe(130);
    await engine.containers.stop('aa');
    await expect(engine.containers.kill('aa', 'TERM')).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
    await engine.containers.start('aa');
    await engine.containers.kill('aa', 'KILL');
    expect((await engine.containers.wait('aa')).code).toBe(137);
    await engine.containers.start('aa');
    await engine.containers.remove('aa', { force: true, volumes: false });
    expect(await engine.containers.list({ all: true })).toEqual([]);
  });

  it('attaches, feeds stdin, and execs beside init', async () => {
    const { engine } = await start();
    await engine.containers.create(request({ command: ['cat'], name: 'cc', openStdin: true }));
    const first = await engine.containers.start('cc', { attach });
    const session = await engine.containers.exec('cc', { args: ['echo', 'beside'], env: ['X=1'], terminal: false, openStdin: false, attach, privileged: false, detached: false });
    expect(await text(session.output)).toBe('beside\n');
    expect((await session.exit).code).toBe(0);
    await session.gone;
    await first.write(Buffer.from('typed'));
    first.endInput();
    expect(await text(first.output)).toBe('typed');
    await first.gone;
    await expect(engine.containers.exec('cc', { args: ['x'], env: [], terminal: false, openStdin: false, attach, privileged: false, detached: false })).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
  });

  it('names a taken name and its holder, and checks names', async () => {
    const { engine, fixture } = await start();
    const { id } = await engine.containers.create(request({ name: 'same' }));
    await expect(engine.containers.create(request({ name: 'same' }))).rejects.toMatchObject({ code: 'ERR_NAME_TAKEN', message: expect.stringContaining(id.slice(0, 12)) as string });
    await expect(engine.containers.create(request({ name: '-x' }))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
    expect((await engine.containers.create(request())).name).toMatch(/^[a-z]+_[a-z]+$/);
    expect(fs.readdirSync(path.join(fixture.folder, 'root', 'containers')).filter((n) => !n.startsWith('.'))).toHaveLength(2);
  });

  it('leaves nothing when create fails at any operation', async () => {
    const { engine, fixture } = await start({ image: { Cmd: ['true'], Volumes: { '/v': {} } } });
    const { native } = fixture;
    native.reset();
    await engine.containers.create(request({ name: 'probe' }));
    const operations = native.count;
    await engine.containers.remove('probe', { force: false, volumes: true });
    for (let k = 0; k < operations; k++) {
      native.failAt(k, { errno: 'EIO' });
      await engine.containers.create(request({ name: `k${k}` })).then(() => expect.unreachable(), (error: unknown) => expect(isEngineError(error, 'ERR_OPERATION_FAILED')).toBe(true));
      native.reset();
      expect(await engine.containers.list({ all: true })).toEqual([]);
      expect(fixture.leftOver()).toEqual([]);
      for (const folder of ['data/snapshots', 'data/volumes', 'root/containers']) {
        const at = path.join(fixture.folder, folder);
        expect(fs.existsSync(at) ? fs.readdirSync(at).filter((n) => n !== '.trash') : []).toEqual([]);
      }
    }
  });
});

describe('failure of a start', () => {
  it('blames the operation and undoes the run', async () => {
    const { engine, fixture } = await start();
    const { id } = await engine.containers.create(request({ command: ['nope'] }));
    const bytes = (await engine.containers.explain(request({ command: ['nope'] }))).bytes;
    const at = decodePlan(bytes).steps.findIndex((s) => s.operation.name === 'resolveExec');
    fixture.native.failAt(at, { errno: 'ENOENT' });
    await expect(engine.containers.start(id)).rejects.toMatchObject({ code: 'ERR_EXEC_NOT_FOUND', exitCode: 127, message: 'exec: "nope": executable file not found in $PATH' });
    fixture.native.reset();
    fixture.native.failAt(at, { errno: 'EACCES' });
    await expect(engine.containers.start(id)).rejects.toMatchObject({ code: 'ERR_EXEC_FAILED', exitCode: 126 });
    fixture.native.failAt(1, { errno: 'EROFS' });
    await expect(engine.containers.start(id)).rejects.toMatchObject({ code: 'ERR_OPERATION_FAILED', errno: 'EROFS', plugin: 'groups' });
    fixture.native.reset();
    expect((await engine.containers.resolve(id)).record.lastExit?.error).toContain('EROFS');
    const session = await engine.containers.start(id);
    session.signal(9);
    await session.gone;
  });

  it('refuses a section that nobody compiles, and a tap that refuses stops the verb', async () => {
    const { engine } = await start({
      extra: (hooks) => [{
        manifest: { name: 'strange', version: '1.0.0', main: '' }, builtin: false, source: 'x', optionsDigest: '', eager: true,
        load: async () => {
          hooks.tapFor('strange')('configure', (_, spec) => (spec.process?.env?.includes('STRANGE=1') ? { ...spec, linux: { ...spec.linux, seccomp: { defaultAction: 'SCMP_ACT_ERRNO' } } } : undefined));
          hooks.tapFor('strange')('request', (_, { verb }) => { if (verb === 'kill') throw new Error('no killing'); });
          return {};
        },
      }],
    });
    const { id } = await engine.containers.create(request({ env: ['STRANGE=1'] }));
    await expect(engine.containers.start(id)).rejects.toMatchObject({ code: 'ERR_SECTION_UNOWNED', message: expect.stringContaining('linux.seccomp') as string });
    await expect(engine.containers.kill(id, 'KILL')).rejects.toMatchObject({ code: 'ERR_PLUGIN_FAILED', message: expect.stringContaining('no killing') as string });
    expect((await engine.containers.resolve(id)).state).toBe('created');
  });
});

describe('a policy', () => {
  it('is asked before every verb, about what will be executed', async () => {
    let deny = false;
    const asked: string[] = [];
    const { engine } = await start({
      extra: (hooks) => {
        hooks.tapFor('policy')('request', (_, { verb, arguments: given }) => {
          asked.push(`${verb} ${(given['request'] as { network?: string } | undefined)?.network ?? ''}`.trim());
          if (deny) throw fail('ERR_DENIED', `no ${verb}`);
        });
        return [];
      },
      parts: { defaults: { network: 'host', logOptions: {} } },
    });
    const { id } = await engine.containers.create(request({ network: '', command: ['/bin/sleep'] }));
    expect(asked).toEqual(['create host']);
    await engine.containers.start(id);
    deny = true;
    const streams = { stdin: false, stdout: true, stderr: true };
    const verbs: Record<'containers' | 'images' | 'volumes' | 'system', Record<string, () => unknown>> = {
      containers: {
        create: () => engine.containers.create(request()), run: () => engine.containers.run(request()), prepare: () => engine.containers.prepare(request({ autoRemove: true })), restart: () => engine.containers.restart(id), pause: () => engine.containers.pause(id), unpause: () => engine.containers.unpause(id), stats: () => engine.containers.stats(id), top: () => engine.containers.top(id), update: () => engine.containers.update(id, {}), start: () => engine.containers.start(id), explain: () => engine.containers.explain(request()), attach: () => engine.containers.attach(id, streams),
        exec: () => engine.containers.exec(id, { args: ['x'], env: [], terminal: false, openStdin: false, attach: streams, privileged: false, detached: false }), stop: () => engine.containers.stop(id),
        kill: () => engine.containers.kill(id, 'KILL'), remove: () => engine.containers.remove(id, { force: true, volumes: false }), wait: () => engine.containers.wait(id), list: () => engine.containers.list({ all: true }),
        logs: async () => { for await (const _ of engine.containers.logs(id, { follow: false })) break; }, diff: () => engine.containers.diff(id), inspect: () => engine.containers.inspect(id),
      },
      images: {
        list: () => engine.images.list(), load: () => engine.images.load({}), import: () => engine.images.import({ changes: [] }), tag: () => engine.images.tag('test', 'x'), remove: () => engine.images.remove('test', { force: true }),
        history: () => engine.images.history('test'), inspect: () => engine.images.inspect('test'),
      },
      volumes: { create: () => engine.volumes.create({ labels: {}, options: {} }), list: () => engine.volumes.list(), inspect: () => engine.volumes.inspect('v'), remove: () => engine.volumes.remove('v', { force: true }) },
      system: { info: () => engine.system.info(), doctor: () => engine.system.doctor({ fix: true }) },
    };
    for (const part of ['containers', 'images', 'volumes', 'system'] as const) {
      // resolve only turns words into ids; machine and plugins are data
      expect(Object.keys(engine[part]).filter((name) => !['resolve', 'release', 'machine', 'plugins', 'needed', 'supervise'].includes(name)).sort()).toEqual(Object.keys(verbs[part]).sort());
      for (const [name, call] of Object.entries(verbs[part])) await expect(Promise.resolve().then(call), `${part}.${name}`).rejects.toMatchObject({ code: 'ERR_DENIED' });
    }
    deny = false;
    await engine.containers.remove(id, { force: true, volumes: false });
  });
});

describe('drivers', () => {
  it('asks only the chosen one, and old containers stay with theirs', async () => {
    const first = await start();
    const { id } = await first.engine.containers.create(request({ name: 'old' }));
    expect(first.calls.list).toEqual(['plain.createSnapshot']);
    await first.engine.close();
    const second = await start({ fixture: first.fixture, parts: { choices: { storage: 'other', cgroup: 'auto', log: 'fake', volume: 'auto', ipam: 'auto', firewall: 'auto', dns: 'auto', checkpoint: 'auto', security: [] } } });
    await second.engine.containers.create(request({ name: 'new' }));
    await (await second.engine.containers.start(id)).gone;
    expect(second.calls.list).toEqual(['other.createSnapshot', 'plain.planRootfs']);
  });

  it('still lists and removes a container whose plugin is gone', async () => {
    const first = await start();
    await first.engine.containers.create(request({ name: 'old' }));
    await first.engine.close();
    const { engine } = await start({ fixture: first.fixture, without: ['store'] });
    expect((await engine.containers.list({ all: true }))[0]?.record.name).toBe('old');
    await expect(engine.containers.start('old')).rejects.toMatchObject({ code: 'ERR_PLUGIN_MISSING', plugin: 'store' });
    await engine.containers.remove('old', { force: false, volumes: false });
    expect(await engine.containers.list({ all: true })).toEqual([]);
  });

  it('reports every driver, and refuses an unknown one by name', async () => {
    const { engine } = await start();
    const { drivers } = await engine.system.doctor({ fix: false });
    expect(drivers.filter((d) => d.contract === 'storage').map((d) => [d.driver, d.chosen])).toEqual([['plain', true], ['other', false]]);
    await expect(engine.containers.create(request({ network: 'nowhere' }))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_NETWORK' });
    await expect(engine.containers.create(request({ log: { driver: 'x', options: {} } }))).rejects.toMatchObject({ code: 'ERR_DRIVER_UNKNOWN' });
    await expect(engine.containers.create(request({ log: { options: { nope: '1' } } }))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE' });
    await expect(engine.containers.create(request({ image: 'missing' }))).rejects.toMatchObject({ code: 'ERR_NO_SUCH_IMAGE' });
  });
});

describe('what a plugin keeps with a container', () => {
  it('is committed with its creation and with its start, and with nothing else', async () => {
    const seen: unknown[] = [];
    let broken = false;
    const { engine, state } = await start({
      extra: (hooks) => {
        const tap = hooks.tapFor('keeper');
        tap('create', ({ record }) => record.set({ made: 1 }));
        tap('attachNetwork', ({ record, run }) => record.set({ ...(record.get() as object), run: run.explain ? 'explained' : 'real' }));
        tap('beforeStart', () => { if (broken) throw new Error('no'); });
        tap('exited', ({ record }) => {
          seen.push(record.get());
          record.set(1);
        });
        tap('remove', ({ record }) => void seen.push(record.get()));
        hooks.tapFor('other')('remove', ({ record }) => void seen.push(record.get()));
        return [];
      },
    });
    const { id } = await engine.containers.create(request({ command: ['/bin/true'] }));
    expect(state.containers.get(id)?.plugins).toEqual({ keeper: { made: 1 } });
    broken = true;
    await expect(engine.containers.start(id)).rejects.toThrow();
    expect(state.containers.get(id)?.plugins).toEqual({ keeper: { made: 1 } });
    broken = false;
    await (await engine.containers.start(id)).gone;
    expect(state.containers.get(id)?.plugins).toEqual({ keeper: { made: 1, run: 'real' } });
    await engine.containers.explain(request({ command: ['/bin/true'] }));
    await engine.containers.remove(id, { force: false, volumes: false });
    expect(seen).toEqual([{ made: 1, run: 'real' }, { made: 1, run: 'real' }, undefined]);
  });
});

describe('explain', () => {
  it('shows the plan in order, undoes backwards with the kill first, and makes nothing', async () => {
    const { engine, fixture } = await start();
    fixture.native.reset();
    const before = fs.readdirSync(path.join(fixture.folder, 'root'));
    const { steps, bytes } = await engine.containers.explain(request({ network: 'bridge' }));
    expect(fixture.native.operations).toEqual([]);
    expect(fs.readdirSync(path.join(fixture.folder, 'root'))).toEqual(before);
    expect(decodePlan(bytes).steps.map((s) => s.operation.name)).toEqual(steps.map((s) => s.operation.name));
    const shown = steps.map((s) => `${s.slot} ${s.operation.name} ${s.origin.plugin}`);
    expect(shown).toEqual([
      'shim.stdio stdio logs', 'shim.cgroup mkdir groups', 'shim.links writeFile nets', 'shim.spawn spawn core', 'shim.attach netlink nets', 'shim.attach awaitPoint core', 'shim.attach release core',
      'shim.started keepNamespaces core', 'init.rootfs openTree store', 'init.rootfs reopenRoot core', 'init.netns reach core', 'init.bounds capabilityBounds caps', 'init.exec resolveExec base', 'init.exec exec base',
      'after.undo cgroupKill groups', 'after.undo unlink nets', 'after.undo cgroupRemove groups',
    ]);
  });
  it.each([[true, []], [false, ['reconcile']]])('is all that one who is not root can have done (%s): nothing is reconciled', async (explainOnly, expected) => {
    const called: string[] = [];
    const { engine } = await start({ parts: { explainOnly }, extra: (hooks) => (hooks.tapFor('watch')('reconcile', () => void called.push('reconcile')), []) });
    expect((await engine.containers.explain(request())).steps.length).toBeGreaterThan(0);
    expect(called).toEqual(expected);
  });
  it('knows the layers of the image', async () => {
    const { engine } = await start();
    const record = await engine.containers.create(request());
    expect(record.rootfs).toEqual({ chainID: layer.chainID });
    expect(record.image).toEqual({ id: 'sha256:abc', name: 'test', source: 'fake' });
  });
});

describe('volumes and binds', () => {
  it('makes named volumes once, refuses to remove one in use, copies up what the image has', async () => {
    const { engine, fixture } = await start();
    const mount = { type: 'volume' as const, source: 'data', target: '/data', readonly: false, createSource: true, noCopy: false };
    fixture.native.reset();
    await engine.containers.create(request({ name: 'aa', mounts: [mount] }));
    expect(fixture.native.operations.filter((o) => o.name === 'copyUp').map((o) => o.args['from'])).toEqual(['/data']);
    await engine.containers.create(request({ name: 'bb', mounts: [mount] }));
    expect((await engine.volumes.list()).map((v) => v.name)).toEqual(['data']);
    await expect(engine.volumes.remove('data', { force: false })).rejects.toMatchObject({ code: 'ERR_IN_USE' });
    for (const name of ['aa', 'bb']) await engine.containers.remove(name, { force: false, volumes: true });
    await engine.volumes.remove('data', { force: false });
    await expect(engine.volumes.inspect('data')).rejects.toMatchObject({ code: 'ERR_NO_SUCH_VOLUME' });
  });
  it('makes a missing -v source and refuses a missing --mount source', async () => {
    const { engine, fixture } = await start();
    const source = path.join(fixture.work, 'deep', 'er');
    const bind = { type: 'bind' as const, source, target: '/x', readonly: true, noCopy: false };
    await expect(engine.containers.create(request({ mounts: [{ ...bind, createSource: false }] }))).rejects.toMatchObject({ code: 'ERR_INVALID_VALUE', path: source });
    expect(fs.existsSync(source)).toBe(false);
    const record = await engine.containers.create(request({ mounts: [{ ...bind, createSource: true }] }));
    expect(fs.statSync(source).isDirectory()).toBe(true);
    expect(record.spec.mounts?.at(-1)).toEqual({ destination: '/x', type: 'bind', source, options: ['rbind', 'ro'] });
  });
  it('refuses to remove an image that a container uses', async () => {
    const { engine } = await start();
    await engine.containers.create(request({ name: 'user' }));
    await expect(engine.images.remove('test', { force: false })).rejects.toMatchObject({ code: 'ERR_IN_USE' });
    await engine.containers.remove('user', { force: false, volumes: false });
    expect(await engine.images.remove('test', { force: false })).toEqual(['Deleted: sha256:abc']);
  });
});

describe('inspect, logs, diff', () => {
  it('tells what is known, and lets plugins say it', async () => {
    const { engine, fixture } = await start();
    const { id } = await engine.containers.create(request({ name: 'ii', command: ['echo', 'x'], env: ['A=b'] }));
    await (await engine.containers.start('ii')).gone;
    const inspected = await engine.containers.inspect('ii', { size: true });
    expect(inspected).toMatchObject({
      facts: { kind: 'container', size: 1, view: { state: 'stopped', record: { id, name: 'ii', spec: { process: { args: ['echo', 'x'] } } } } },
      Engine: { starts: 1, source: 'fake', run: null, lastExit: { code: 0 }, drivers: { storage: { driver: 'plain' } } },
    });
    expect((await engine.containers.inspect('ii'))['facts']).not.toHaveProperty('size');
    expect(await engine.images.inspect('test')).toMatchObject({ facts: { kind: 'image', image: { id: 'sha256:abc' }, architecture: 'x64' }, Engine: { source: 'fake', rootfs: { kind: 'layers' } } });
    const lines = [];
    for await (const line of engine.containers.logs('ii', { follow: false })) lines.push(line.text.toString());
    expect(lines).toEqual(['line\n']);
    fs.mkdirSync(path.join(fixture.folder, 'data', 'snapshots', id, 'etc'));
    fs.writeFileSync(path.join(fixture.folder, 'data', 'snapshots', id, 'etc', 'hosts'), '');
    fs.writeFileSync(path.join(fixture.folder, 'data', 'snapshots', id, 'new'), '');
    expect(await engine.containers.diff('ii')).toEqual([{ kind: 'A', path: '/new' }]);
  });
});
