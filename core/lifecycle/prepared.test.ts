import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { op } from '../plan/index.ts';
import { createFixture, type Fixture } from '../state/state.fixture.ts';
import { request, testEngine, type TestEngine, type TestOptions } from './engine.fixture.ts';

let fixture: Fixture;
afterEach(() => fixture.remove());

/** Every plugin says that it answers the same each time. */
async function repeatable(options: TestOptions = {}): Promise<TestEngine> {
  fixture = options.fixture ?? createFixture({ program: async () => 3 });
  return testEngine({ fixture, ...options, map: (entry) => ({ ...entry, manifest: { ...entry.manifest, repeatable: entry.manifest.repeatable ?? true } }) });
}
const rm = (over: Parameters<typeof request>[0] = {}): ReturnType<typeof request> => request({ autoRemove: true, command: ['/bin/true'], ...over });
const shims = (): number => fixture.native.spawned;
function left(test: TestEngine): string[] {
  const folders = [path.join(fixture.folder, 'data/snapshots'), path.join(test.state.folders.root, 'containers')];
  const names = folders.flatMap((folder) => (existsSync(folder) ? readdirSync(folder).filter((name) => name !== '.trash') : []));
  return [...names, ...test.state.containers.list().map((c) => `row ${c.name}`), ...fixture.leftOver()];
}

describe('a request that comes again', () => {
  it('gets its plan from memory, when two in full were the same: no driver is asked', async () => {
    const test = await repeatable();
    const ids = new Set<string>();
    for (let i = 0; i < 4; i++) {
      const session = await test.engine.containers.run(rm());
      expect((await session.exit).code).toBe(3);
      await session.gone;
      ids.add(session.container);
    }
    expect(ids.size).toBe(4);
    expect(test.calls.list.filter((call) => call === 'plain.planRootfs')).toHaveLength(2);
    await (await test.engine.containers.run(rm({ env: ['A=1'] }))).gone;
    expect(test.calls.list.filter((call) => call === 'plain.planRootfs')).toHaveLength(3);
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('is planned each time when a plugin wants to be asked', async () => {
    const asked: string[] = [];
    const test = await repeatable({ extra: (hooks) => [{
      manifest: { name: 'asks', version: '1.0.0', main: './x.ts', repeatable: false }, builtin: false, source: 'asks', optionsDigest: 'd', eager: true,
      load: async () => { hooks.tapFor('asks')('beforeStart', () => void asked.push('asked')); return {}; },
    }] });
    for (let i = 0; i < 4; i++) await (await test.engine.containers.run(rm())).gone;
    expect(asked).toHaveLength(4);
    expect(await test.engine.containers.prepare(rm())).toBe(false);
    await test.engine.close();
  });
});

describe('a sandbox', () => {
  it('is used by the run it was made for', async () => {
    const test = await repeatable();
    expect(await test.engine.containers.prepare(rm())).toBe(true);
    const before = shims();
    const session = await test.engine.containers.run(rm({ name: 'mine' }));
    expect(shims()).toBe(before);
    expect(test.state.containers.byName('mine')?.id).toBe(session.container);
    expect((await session.exit).code).toBe(3);
    await session.gone;
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it.each([true, false])('is asked for at a barrier before anybody wants it only when the answer is the same for all: %s', async (same) => {
    const answered: string[] = [];
    const test = await repeatable({ extra: (hooks) => [{
      manifest: { name: 'waits', version: '1.0.0', main: './x.ts', repeatable: same, handlers: ['waits.here'] }, builtin: false, source: 'waits', optionsDigest: 'd', eager: true,
      load: async () => {
        hooks.tapFor('core')('applyLimits', ({ plan, run }) => plan.add('shim.cgroup', op.barrier({ handler: 'waits.here', input: Buffer.from(JSON.stringify(run.run)), deadline: 1000 })), { name: 'waits' });
        return { handlers: { 'waits.here': async ({ input }) => void answered.push(input as string) } };
      },
    }] });
    expect(await test.engine.containers.prepare(rm())).toBe(same);
    expect(answered).toHaveLength(same ? 1 : 0);
    for (let i = 0; i < 3; i++) await (await test.engine.containers.run(rm())).gone;
    expect(new Set(answered).size).toBe(3);
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('is used by a run with another program, and not by one with another sandbox', async () => {
    const test = await repeatable();
    await test.engine.containers.prepare(rm());
    let before = shims();
    await (await test.engine.containers.run(rm({ command: ['/bin/other', 'x'], env: ['A=1'] }))).gone;
    expect(shims()).toBe(before);
    const [exec] = fixture.native.operations.filter(({ name }) => name === 'exec').slice(-1);
    expect(exec?.args['argv']).toEqual(['/bin/other', 'x']);
    await test.engine.containers.prepare(rm());
    before = shims();
    await (await test.engine.containers.run(rm({ network: 'bridge' }))).gone;
    expect(shims()).toBe(before + 1);
    expect(await test.engine.containers.release()).toEqual({ ready: [] });
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('is not used when an image was removed since: its layers may be gone with that', async () => {
    const test = await repeatable();
    await test.engine.containers.prepare(rm());
    await test.state.begin('another engine removes an image').commit((rows) => rows.countRemoval());
    const before = shims();
    await (await test.engine.containers.run(rm())).gone;
    expect(shims()).toBe(before + 1);
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('is no container: nobody sees it, and the end of the engine removes it', async () => {
    const test = await repeatable();
    await test.engine.containers.prepare(rm());
    expect(await test.engine.containers.list({ all: true })).toEqual([]);
    expect((await test.engine.containers.release({ idle: 60_000 })).ready).toHaveLength(1);
    await test.engine.close();
    expect(fixture.leftOver()).toEqual([]);
  });

  it('that has died is not used', async () => {
    const test = await repeatable();
    await test.engine.containers.prepare(rm());
    const [folder = ''] = readdirSync(path.join(test.state.folders.runRoot, 'runs'));
    fixture.native.killShim(path.join(test.state.folders.runRoot, 'runs', folder));
    const session = await test.engine.containers.run(rm());
    expect((await session.exit).code).toBe(3);
    await session.gone;
    expect(await test.engine.containers.release()).toEqual({ ready: [] });
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('is undone when a policy refuses the run that was to have it', async () => {
    let deny = false;
    const test = await repeatable({ extra: (hooks) => {
      hooks.tapFor('police')('request', (_, { verb }) => { if (deny && verb === 'start') throw new Error('no'); });
      return [];
    } });
    await test.engine.containers.prepare(rm());
    deny = true;
    await expect(test.engine.containers.run(rm())).rejects.toThrow(/no/);
    deny = false;
    expect(left(test)).toEqual([]);
    await test.engine.close();
  });

  it('leaves nothing wherever engine, shim or both are killed', async () => {
    for (const victim of ['engine', 'shim', 'both'] as const) {
      for (let k = 0, done = false; !done; k++) {
        const test = await repeatable();
        fixture.native.crashAt(k, { victim });
        const verb = test.engine.containers.prepare(rm()).then(() => test.engine.containers.run(rm())).then((session) => session.gone).then(() => 'done', () => 'failed');
        const how = await Promise.race([verb, fixture.native.crashed.then(() => 'crashed')]);
        done = fixture.native.count <= k;
        const native = how === 'crashed' ? fixture.native.restart() : fixture.native;
        let next = how === 'crashed' ? await repeatable({ fixture, native }) : test;
        // a sandbox whose engine has died undoes itself, and then wakes another one
        for (let tries = 0; tries < 100 && fixture.leftOver().length > 0; tries++) {
          await new Promise((resolve) => setImmediate(resolve));
          await next.engine.close();
          next = await repeatable({ fixture, native });
        }
        await next.engine.containers.list({ all: true });
        for (const record of next.state.containers.list()) await next.engine.containers.wait(record.id, 'removed').catch(() => undefined);
        await next.engine.containers.release();
        expect(left(next), `${victim} at ${k} (${how})`).toEqual([]);
        await next.engine.close();
        fixture.remove();
      }
    }
  });
});
