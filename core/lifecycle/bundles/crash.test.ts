import fs from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { fail, isEngineError } from '../../errors/index.ts';
import { type FakeNative, type Victim } from '../../native/fake.ts';
import { createFixture, Crash } from '../../state/state.fixture.ts';
import { bundleWorld, caller, config, type World } from './bundles.fixture.ts';

const open: World[] = [];
afterEach(() => {
  for (const { fixture } of open.splice(0)) fixture.remove();
});
async function start(...args: Parameters<typeof bundleWorld>): Promise<World> {
  const world = await bundleWorld(...args);
  open.push(world);
  return world;
}
/** What of a container is on the host besides its state: here its group, a folder of the run's. */
const inits = (world: World, root: string): number[] => fs.readdirSync(root).flatMap((id) => {
  const file = path.join(root, id, 'started');
  return fs.existsSync(file) ? [(JSON.parse(fs.readFileSync(file, 'utf8')) as { pid: number }).pid] : [];
}).filter((pid) => world.native.processOf(pid)?.isAlive);

describe('a create that fails', () => {
  it('is undone, whatever failed', async () => {
    for (let at = 0; ; at++) {
      const world = await start();
      world.native.failAt(at);
      const result = await world.create('one').then(() => undefined, (error: unknown) => error);
      if (result === undefined) {
        expect(at).toBeGreaterThan(5);
        break;
      }
      expect(isEngineError(result), `operation ${at}: ${String(result)}`).toBe(true);
      expect(world.left(), `operation ${at}`).toEqual([]);
      world.native.reset();
      await world.create('one');
      await world.bundles.delete(world.ref('one'));
      expect(world.left()).toEqual([]);
    }
  });
  it('is undone when its caller has gone, or the shim is killed', async () => {
    const world = await start();
    await expect(world.bundles.create(world.request('one', { spawner: caller(fail('ERR_SHIM_GONE', 'the caller has gone')) }))).rejects.toMatchObject({ code: 'ERR_SHIM_GONE', message: 'the caller has gone' });
    expect(world.left()).toEqual([]);
    for (let at = 0; ; at++) {
      world.native.crashAt(at, { victim: 'shim' });
      const result = await world.create('two').then(() => undefined, (error: unknown) => error);
      if (result === undefined) break;
      expect(result).toMatchObject({ code: 'ERR_SHIM_GONE' });
      expect(world.left(), `operation ${at}`).toEqual([]);
    }
    expect(inits(world, world.root)).toHaveLength(1);
  });
});

describe('a crash', () => {
  /** Cut `verb` at every operation; the next engine must tell the truth, and --force must clean up. */
  async function everywhere(victim: Victim, prepare: (world: World) => Promise<unknown>, verb: (world: World) => Promise<unknown>): Promise<number> {
    for (let at = 0; ; at++) {
      const world = await start();
      await prepare(world);
      world.native.crashAt(at, { victim });
      const outcome = await Promise.race([verb(world).then(() => 'done', () => 'failed'), world.native.crashed.then(() => 'crashed')]);
      const over = outcome === 'done';
      const next = await world.next();
      const [state] = await next.bundles.list(world.root);
      if (state) {
        expect(['creating', 'created', 'running', 'paused', 'stopped'], `operation ${at}`).toContain(state.status);
        expect(state.pid > 0, `operation ${at}: ${state.status}`).toBe(['created', 'running', 'paused'].includes(state.status));
        if (state.pid > 0) expect(next.native.processOf(state.pid)?.isAlive).toBe(true);
      }
      await next.bundles.delete(next.ref('one'), { force: true });
      expect(next.left(), `operation ${at}`).toEqual([]);
      expect(await next.bundles.list(world.root)).toEqual([]);
      await next.create('one');
      await next.bundles.delete(next.ref('one'));
      await next.engine.close();
      if (over) return at;
    }
  }
  const create = (world: World): Promise<unknown> => world.create('one');
  const started = async (world: World): Promise<void> => {
    await create(world);
    await world.bundles.start(world.ref('one'));
  };
  for (const victim of ['engine', 'both'] as const) {
    it(`of ${victim} during create`, async () => {
      expect(await everywhere(victim, async () => {}, create)).toBeGreaterThan(5);
    }, 60_000);
    it(`of ${victim} during start`, async () => {
      expect(await everywhere(victim, create, (world) => world.bundles.start(world.ref('one')))).toBeGreaterThan(0);
    }, 60_000);
    it(`of ${victim} during delete`, async () => {
      expect(await everywhere(victim, started, (world) => world.bundles.delete(world.ref('one'), { force: true }))).toBeGreaterThan(1);
    }, 60_000);
    it(`of ${victim} during update`, async () => {
      expect(await everywhere(victim, started, (world) => world.bundles.update(world.ref('one'), { memory: { limit: 1 } }))).toBeGreaterThan(0);
    }, 60_000);
  }

  it('at a record point of create or delete leaves the state before, or the state after', async () => {
    const points = ['run.write', 'run.create', 'run.undo', 'run.remove'].flatMap((point) => [`${point}.before`, `${point}.after`]);
    for (const point of points) {
      const fixture = createFixture();
      let armed = false;
      const { open: openState } = fixture;
      const crashing = { ...fixture, open: (native?: FakeNative) => openState(native, (name) => { if (armed && name === point) throw new Crash(name); }) };
      const world = await start({ fixture: crashing });
      armed = /write|create/.test(point);
      const crashes = (work: Promise<unknown>): Promise<boolean> => work.then(() => false, (error: unknown) => {
        if (error instanceof Crash) return true;
        throw error;
      });
      if (!(await crashes(world.create('one')))) {
        armed = true;
        expect(await crashes(world.bundles.delete(world.ref('one'), { force: true })), point).toBe(true);
      }
      armed = false;
      const next = await bundleWorld({ fixture, native: fixture.native.restart() });
      expect((await next.bundles.list(world.root)).map(({ status }) => status).filter((status) => status !== 'stopped'), point).toEqual([]);
      await next.bundles.delete(next.ref('one'), { force: true });
      // what was never named is taken away with the next one
      await next.create('two');
      await next.bundles.delete(next.ref('two'));
      expect(next.left(), point).toEqual([]);
      await next.engine.close();
    }
  });

  it('of the machine ends all, and a pid of then is nobody now', async () => {
    const world = await start();
    await world.create('one');
    await world.bundles.start(world.ref('one'));
    const next = await world.next({ reboot: true });
    expect(await next.bundles.list(world.root)).toMatchObject([{ id: 'one', status: 'stopped', pid: 0 }]);
    await expect(next.bundles.kill(next.ref('one'), 9)).rejects.toMatchObject({ code: 'ERR_NOT_RUNNING' });
    await next.bundles.delete(next.ref('one'));
    expect(next.left()).toEqual([]);
    await next.engine.close();
  });
});

describe('many', () => {
  it('are made, listed and removed at once', async () => {
    const world = await start();
    const ids = Array.from({ length: 20 }, (_, i) => `c${i}`);
    await Promise.all(ids.map((id) => world.create(id)));
    await Promise.all(ids.map((id) => world.bundles.start(world.ref(id))));
    expect((await world.bundles.list(world.root)).map(({ id, status }) => `${id} ${status}`)).toEqual(ids.toSorted().map((id) => `${id} running`));
    await Promise.all(ids.map((id) => world.bundles.delete(world.ref(id), { force: true })));
    expect(world.left()).toEqual([]);
  });
  it('are made and removed by two engines under one id, and nothing is left', async () => {
    const world = await start();
    const other = await bundleWorld({ fixture: world.fixture, native: world.native });
    const turn = async (one: World): Promise<void> => {
      for (let i = 0; i < 8; i++) {
        await one.create('same').catch((error: unknown) => expect(error).toMatchObject({ code: expect.stringMatching(/ERR_NAME_TAKEN|ERR_SHIM_GONE|ERR_NO_SUCH_CONTAINER|ERR_STATE/) as string }));
        await one.bundles.delete(one.ref('same'), { force: true });
      }
    };
    await Promise.all([turn(world), turn(other)]);
    expect(world.left()).toEqual([]);
    expect(config().process?.args).toEqual(['sleep']);
    await other.engine.close();
  });
});
