import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type Driver } from '@engine/core/contracts/common';
import { type PluginInstance } from '@engine/core/plugin';
import { DEADLINE, guardInstance, guardTap, unmarked, within, type Mark } from './guard.ts';

beforeEach(() => { vi.useFakeTimers(); });
afterEach(() => { vi.useRealTimers(); });
const never = (): Promise<never> => new Promise(() => {});
const seen: string[] = [];
const mark: Mark = (plugin, what, call) => (seen.push(`${plugin} ${what}`), call());

class Overlay {
  readonly #bytes = 7;
  readonly name = 'x';
  readonly features = new Set(['volatile']);
  get size(): number { return this.#bytes; }
  hasLayer(): boolean { return this.#bytes === 7; }
  usage(): Promise<number> { return Promise.resolve(this.#bytes); }
  listLayers(): Promise<string[]> { return never(); }
  load(): Promise<string> { return new Promise((resolve) => { setTimeout(() => resolve('late'), 10 * DEADLINE); }); }
  *read(): Generator<number> { yield this.#bytes; }
}
const guard = (instance: PluginInstance): PluginInstance => guardInstance({ name: 'acme', provides: [{ contract: 'storage', driver: 'x' }] }, instance, mark);

it('every call into a driver is marked, and none is without an end', async () => {
  const driver = guard({ drivers: [Object.freeze(new Overlay()) as unknown as Driver] }).drivers?.[0] as unknown as Overlay;
  expect([driver.name, driver.size, driver.features.has('volatile'), driver.hasLayer(), 'usage' in driver, ...driver.read()]).toEqual(['x', 7, true, true, true, 7]);
  expect(await driver.usage()).toBe(7);
  expect(seen).toEqual(['acme storage.hasLayer', 'acme storage.read', 'acme storage.usage']);
  expect(driver.usage).toBe(driver.usage);
  const stuck = expect(driver.listLayers()).rejects.toMatchObject({ code: 'ERR_PLUGIN_TIMEOUT', plugin: 'acme', operation: 'storage.listLayers' });
  await vi.advanceTimersByTimeAsync(DEADLINE);
  await stuck;
  // as long as its data is large
  const load = driver.load();
  await vi.advanceTimersByTimeAsync(10 * DEADLINE);
  expect(await load).toBe('late');
});

it('a barrier handler ends with its deadline even if it ignores the signal', async () => {
  const controller = new AbortController();
  const { handlers } = guard({ handlers: { wait: never } });
  const stuck = expect(handlers?.['wait']?.({ input: {}, pid: 1, signal: controller.signal })).rejects.toMatchObject({ code: 'ERR_PLUGIN_TIMEOUT', plugin: 'acme' });
  controller.abort();
  await stuck;
});

it('a frontend lasts as long as its command', () => {
  const frontend = { name: 'cli', run: never } as unknown as Driver;
  expect(guardInstance({ name: 'acme', provides: [{ contract: 'frontend', driver: 'cli' }] }, { drivers: [frontend] }, mark).drivers?.[0]).toBe(frontend);
});

it('marks taps with plugin and hook; loading has its deadline too', async () => {
  seen.length = 0;
  const taps: ((...args: unknown[]) => unknown)[] = [];
  const tap = ((_hook: string, run: (...args: unknown[]) => unknown) => void taps.push(run)) as never;
  expect(guardTap('acme', tap, unmarked)).toBe(tap);
  guardTap('acme', tap, mark)('create', () => {});
  taps[0]?.();
  expect(seen).toEqual(['acme hook create']);
  const stuck = expect(within('acme', 'load', never())).rejects.toMatchObject({ code: 'ERR_PLUGIN_TIMEOUT', message: `plugin acme took longer than ${DEADLINE} ms in load` });
  await vi.advanceTimersByTimeAsync(DEADLINE);
  await stuck;
});
