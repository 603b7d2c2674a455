import { expect, it, vi } from 'vitest';
import { type Engine } from '@engine/core/api';
import { type OpenedEngine } from '../open.ts';
import { createInstances } from './instances.ts';
import { type Resolved } from './resolve.ts';

const resolved = (digest: string, root = '/r'): Resolved => ({ digest, config: { value: { root } }, ambience: { cwd: '/', env: {}, flags: {} } }) as unknown as Resolved;

function fixture(options: { running?: () => unknown[] } = {}) {
  let time = 0;
  const made: { close: ReturnType<typeof vi.fn>; supervise: ReturnType<typeof vi.fn> }[] = [];
  const open = vi.fn(() => {
    const engine = { close: vi.fn(() => Promise.resolve()), supervise: vi.fn(() => Promise.resolve([])) };
    made.push(engine);
    return Promise.resolve({ engine: { close: engine.close, system: { needed: () => [], supervise: engine.supervise }, containers: { list: () => Promise.resolve(options.running?.() ?? []) } } as unknown as Engine, config: { value: { pool: 'off' } } } as unknown as OpenedEngine);
  });
  return { instances: createInstances({ open, now: () => time }), made, open, later: (ms: number) => (time += ms) };
}

it('opens one engine per configuration, once', async () => {
  const { instances, open } = fixture();
  const [a, b, c] = await Promise.all([instances.acquire(resolved('a')), instances.acquire(resolved('a')), instances.acquire(resolved('b'))]);
  expect(a.engine).toBe(b.engine);
  expect(c.engine).not.toBe(a.engine);
  expect(open).toHaveBeenCalledTimes(2);
});

it('tries again what could not be opened', async () => {
  const open = vi.fn().mockRejectedValueOnce(new Error('no')).mockResolvedValueOnce({ engine: {}, config: { value: { pool: 'off' } } });
  const instances = createInstances({ open });
  await expect(instances.acquire(resolved('a'))).rejects.toThrow('no');
  await instances.acquire(resolved('a'));
});

it('closes what nobody uses any more, never what somebody does or what watches containers', async () => {
  let running: unknown[] = [{}];
  const { instances, made, later } = fixture({ running: () => running });
  const lease = await instances.acquire(resolved('a'));
  later(1e6);
  expect(await instances.sweep()).toBe(0);
  lease.release();
  expect(await instances.sweep()).toBe(0);
  later(1e6);
  expect(await instances.sweep()).toBe(0);
  running = [];
  expect(await instances.sweep()).toBe(1);
  expect(made[0]?.close).toHaveBeenCalledTimes(1);
});

it('hands what runs to the one that took its place', async () => {
  const { instances, made, later } = fixture({ running: () => [{}] });
  (await instances.acquire(resolved('old'))).release();
  later(1e6);
  const lease = await instances.acquire(resolved('new'));
  later(1);
  lease.release();
  expect(await instances.sweep()).toBe(1);
  expect(made.map(({ close }) => close.mock.calls.length)).toEqual([1, 0]);
  expect(made[1]?.supervise).toHaveBeenCalledTimes(1);
});
