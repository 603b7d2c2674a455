import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type ContainerRequest, type Engine } from '@engine/core/api';
import { withPool, type PoolOptions } from './pool.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

interface Fake { readonly engine: Engine; readonly ready: string[]; prepared: number; busy: number; possible: boolean }
function make(size: PoolOptions['size'] = 'auto'): Fake {
  const fake = { ready: [] as string[], prepared: 0, busy: 0, possible: true };
  const inner = {
    containers: {
      run: async () => void fake.ready.shift(),
      prepare: async (_: unknown, { tag }: { tag: string }) => {
        if (!fake.possible) return false;
        fake.prepared++;
        fake.ready.push(tag);
        return true;
      },
      release: async ({ idle = 0, tag }: { idle?: number; tag?: string } = {}) => {
        if (tag !== undefined) fake.ready.splice(0, Infinity, ...fake.ready.filter((one) => one !== tag));
        else if (idle === 0) fake.ready.length = 0;
        return { ready: [...fake.ready] };
      },
    },
    system: { info: async () => ({ Sandboxes: { Pids: [] } }) },
    close: async () => {},
  } as unknown as Engine;
  const engine = withPool(inner, { size, busy: () => fake.busy > 0, now: () => Date.now() });
  return Object.assign(fake, { engine });
}
const request = (over: Partial<ContainerRequest> = {}): ContainerRequest => ({ image: 'a', autoRemove: true, ...over }) as ContainerRequest;
const idle = (ms = 1000): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

it('prepares for what came twice, in idle moments, and not for what came once', async () => {
  const pool = make();
  await pool.engine.containers.run(request());
  await idle();
  expect(pool.ready).toEqual([]);
  pool.busy = 1;
  await pool.engine.containers.run(request({ name: 'x' }));
  await idle();
  expect(pool.ready).toEqual([]);
  pool.busy = 0;
  await idle();
  expect(pool.ready).toHaveLength(2);
});

it('refills what was used', async () => {
  const pool = make();
  for (let i = 0; i < 3; i++) await pool.engine.containers.run(request());
  await idle();
  await pool.engine.containers.run(request());
  await idle();
  expect([pool.ready.length, pool.prepared]).toEqual([2, 3]);
});

it('is bounded, and lets go of what nobody asks for any more', async () => {
  const pool = make(3);
  for (const image of ['a', 'b', 'c', 'd']) for (let i = 0; i < 2; i++) await pool.engine.containers.run(request({ image }));
  await idle();
  expect(pool.ready).toHaveLength(3);
  await idle(120_000);
  expect(pool.ready).toEqual([]);
});

it('gives the place of an old kind to a new one', async () => {
  const pool = make(2);
  for (let i = 0; i < 2; i++) await pool.engine.containers.run(request({ image: 'old' }));
  await idle();
  await idle(2000);
  for (let i = 0; i < 2; i++) await pool.engine.containers.run(request({ image: 'new' }));
  await idle();
  expect(pool.ready).toHaveLength(2);
  expect(pool.ready.every((tag) => tag.includes('"new"'))).toBe(true);
});

it('gives up on what can not be prepared', async () => {
  const pool = make();
  pool.possible = false;
  for (let i = 0; i < 3; i++) await pool.engine.containers.run(request());
  await idle();
  pool.possible = true;
  await idle();
  expect(pool.ready).toEqual([]);
});

it('is nothing when it is off, tells of itself in info, and ends with its engine', async () => {
  const off = make('off');
  for (let i = 0; i < 3; i++) await off.engine.containers.run(request());
  await idle();
  expect(off.prepared).toBe(0);
  const on = make(2);
  expect(await on.engine.system.info()).toMatchObject({ Pool: { Size: 2, Kinds: 0, MemoryBytes: 0 } });
  for (let i = 0; i < 3; i++) await on.engine.containers.run(request());
  await on.engine.close();
  await idle();
  expect(on.prepared).toBe(0);
});
