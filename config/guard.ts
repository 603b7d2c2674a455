import { fail } from '@engine/core/errors';
import { type Driver } from '@engine/core/contracts/common';
import { type TapFunction } from '@engine/core/hooks';
import { type PluginInstance, type PluginManifest } from '@engine/core/plugin';

/** Runs `call`, code of `plugin`; `what` for messages. Whoever watches the engine notes meanwhile who it is. */
export type Mark = <T>(plugin: string, what: string, call: () => T) => T;
export const unmarked: Mark = (_plugin, _what, call) => call();

/** How long a call into a plugin may take before it fails, ms. */
export const DEADLINE = 10_000;
/** Of those that walk through a tree, or wait for the disk. */
const SLOW_DEADLINE = 300_000;
const slow = new Set(['usage', 'prepareLayer', 'commitLayer', 'remove']);
/** As long as the data is large: whoever called can give them up. */
const unlimited = new Set(['load', 'importRootfs', 'unpack']);

/** Errors: ERR_PLUGIN_TIMEOUT names the plugin; what comes later is dropped. */
export async function within<T>(plugin: string, what: string, work: PromiseLike<T>, ms = DEADLINE): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(fail('ERR_PLUGIN_TIMEOUT', `plugin ${plugin} took longer than ${ms} ms in ${what}`, { plugin, operation: what })), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
const isPromise = (value: unknown): value is PromiseLike<unknown> => typeof (value as { then?: unknown } | undefined)?.then === 'function';

type Method = (...args: unknown[]) => unknown;

/** The driver, each of its calls marked and none without an end. Not a copy: a driver may be of a class with private fields, or frozen. */
function guardDriver(plugin: string, contract: string, driver: Driver, mark: Mark): Driver {
  const methods = new Map<Method, Method>();
  const guarded = (name: string, method: Method): Method => {
    const what = `${contract}.${name}`;
    const deadline = slow.has(name) ? SLOW_DEADLINE : DEADLINE;
    return (...args) => {
      const result = mark(plugin, what, () => Reflect.apply(method, driver, args) as unknown);
      return isPromise(result) && !unlimited.has(name) ? within(plugin, what, result, deadline) : result;
    };
  };
  return new Proxy(Object.create(driver) as Driver, {
    get(_target, name) {
      const value: unknown = Reflect.get(driver, name);
      if (typeof value !== 'function' || typeof name !== 'string') return value;
      let method = methods.get(value as Method);
      if (!method) methods.set(value as Method, (method = guarded(name, value as Method)));
      return method;
    },
  });
}

/**
 * A plugin as the core gets it. A call into it that never settles ends with ERR_PLUGIN_TIMEOUT; taps have their deadline from the hooks, a
 * frontend lasts as long as its command.
 */
export function guardInstance(manifest: Pick<PluginManifest, 'name' | 'provides'>, instance: PluginInstance, mark: Mark): PluginInstance {
  const { name } = manifest;
  const { drivers, handlers, start, stop, needed, restarts, ociFeatures } = instance;
  const contractOf = (driver: Driver, at: number): string => (manifest.provides?.[at]?.driver === driver.name ? manifest.provides[at] : manifest.provides?.find((p) => p.driver === driver.name))?.contract ?? '';
  return {
    ...(drivers && { drivers: drivers.map((driver, at) => (contractOf(driver, at) === 'frontend' ? driver : guardDriver(name, contractOf(driver, at), driver, mark))) }),
    ...(handlers && {
      handlers: Object.fromEntries(Object.entries(handlers).map(([key, handler]) => [key, async (call) => {
        const late = new Promise<never>((_, reject) => {
          call.signal.addEventListener('abort', () => reject(fail('ERR_PLUGIN_TIMEOUT', `plugin ${name} took too long in barrier handler ${key}`, { plugin: name, operation: key })), { once: true });
        });
        return Promise.race([mark(name, `barrier handler ${key}`, () => handler.call(handlers, call)), late]);
      }])),
    }),
    ...(start && { start: (...args) => mark(name, 'start', () => start.apply(instance, args)) }),
    ...(stop && { stop: () => mark(name, 'stop', () => stop.call(instance)) }),
    ...(needed && { needed: () => mark(name, 'needed', () => needed.call(instance)) }),
    ...(ociFeatures && { ociFeatures: () => mark(name, 'ociFeatures', () => ociFeatures.call(instance)) }),
    ...(restarts && { restarts: (...args) => mark(name, 'restarts', () => restarts.apply(instance, args)) }),
  };
}

export function guardTap(plugin: string, tap: TapFunction, mark: Mark): TapFunction {
  if (mark === unmarked) return tap;
  return ((hook: string, run: (...args: unknown[]) => unknown, options: unknown) =>
    (tap as unknown as Method)(hook, (...args: unknown[]) => mark(plugin, `hook ${hook}`, () => run(...args)), options)) as unknown as TapFunction;
}
