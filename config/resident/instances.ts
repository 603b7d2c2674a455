import { writeSync } from 'node:fs';
import { type Engine } from '@engine/core/api';
import { openEngine, type OpenedEngine, type OpenOptions } from '../open.ts';
import { requestContext } from './context.ts';
import { withPool } from './pool.ts';
import { createResolver, type Ambience, type Resolved, type Resolver } from './resolve.ts';

/** A configuration that nobody used for so long is closed when nothing of its own runs, ms. */
const UNUSED = 60_000;

export interface Instance {
  readonly resolved: Resolved;
  readonly opened: Promise<OpenedEngine>;
  users: number;
  lastUsed: number;
}
/** The use of an instance by one request. */
export interface Lease {
  readonly engine: Engine;
  readonly instance: Instance;
  release(): void;
}
export interface InstancesOptions {
  readonly resolver?: Resolver;
  readonly open?: (options: OpenOptions) => Promise<OpenedEngine>;
  readonly host?: OpenOptions['host'];
  /** A new one is open: for the list of roots, and so that its runs are watched. */
  onOpened?(instance: Instance, engine: Engine): void;
  readonly now?: () => number;
}
export interface Instances {
  resolve(ambience: Ambience): Promise<Resolved>;
  /** The engine of that configuration; opened when there is none. Errors: those of openEngine. */
  acquire(resolved: Resolved): Promise<Lease>;
  /** Those that are open, the last used first. */
  open(): readonly { readonly instance: Instance; readonly engine: Engine }[];
  /** Close what nobody needs any more. Returns how many. */
  sweep(): Promise<number>;
  close(): Promise<void>;
}

/** One engine per resolved configuration, for as many callers as there are. */
export function createInstances(options: InstancesOptions = {}): Instances {
  const resolver = options.resolver ?? createResolver();
  const open = options.open ?? openEngine;
  const now = options.now ?? (() => Date.now());
  const openPooled = async (how: OpenOptions): Promise<OpenedEngine> => {
    const opened = await open(how);
    const { images } = opened.engine;
    const remove: typeof images.remove = (ref, options) => images.remove(ref, options).finally(releaseAll);
    return { ...opened, engine: withPool({ ...opened.engine, images: { ...images, remove } }, { size: opened.config.value.pool }) };
  };
  /** What waits stands on layers that are gone now; when the image comes back, they are others. */
  const releaseAll = async (): Promise<void> => void (await Promise.allSettled([...ready.values()].map((engine) => engine.containers.release())));
  const all = new Map<string, Instance>();
  const ready = new Map<Instance, Engine>();

  const start = (resolved: Resolved): Instance => {
    // what is said while it is opened is for the one who needs it; what it does by itself later is nobody's
    let opener = requestContext.getStore();
    const opened = requestContext.exit(() =>
      openPooled({
        config: resolved.config,
        caller: () => {
          const { uid, pid } = requestContext.getStore() ?? { uid: process.geteuid?.() ?? 0, pid: process.pid };
          return { uid, pid };
        },
        host: {
          ...options.host,
          writeLog: (line, entry) => {
            if ((requestContext.getStore() ?? opener)?.write(line, entry) !== true) writeSync(2, line);
          },
        },
      }),
    );
    const over = (): void => void (opener = undefined);
    opened.then(over, over);
    const instance: Instance = { resolved, opened, users: 0, lastUsed: now() };
    all.set(resolved.digest, instance);
    opened.then(
      ({ engine }) => {
        ready.set(instance, engine);
        requestContext.exit(() => options.onOpened?.(instance, engine));
      },
      // the next one tries again
      () => all.get(resolved.digest) === instance && all.delete(resolved.digest),
    );
    return instance;
  };
  const shut = async (instance: Instance): Promise<void> => {
    if (all.get(instance.resolved.digest) === instance) all.delete(instance.resolved.digest);
    ready.delete(instance);
    const opened = await instance.opened.catch(() => undefined);
    await opened?.engine.close();
  };
  const isNeeded = async (instance: Instance, engine: Engine): Promise<boolean> => {
    if (instance.users > 0 || now() - instance.lastUsed < UNUSED || engine.system.needed().length > 0) return true;
    const { root } = instance.resolved.config.value;
    // another one of this root takes over what runs
    if ([...ready.keys()].some((other) => other !== instance && other.resolved.config.value.root === root && other.lastUsed > instance.lastUsed)) return false;
    return (await engine.containers.list({ all: false })).length > 0;
  };
  return {
    resolve: (ambience) => resolver.resolve(ambience),
    async acquire(resolved) {
      const instance = all.get(resolved.digest) ?? start(resolved);
      instance.users++;
      let released = false;
      const release = (): void => {
        if (released) return;
        released = true;
        instance.users--;
        instance.lastUsed = now();
      };
      try {
        return { engine: (await instance.opened).engine, instance, release };
      } catch (error) {
        release();
        throw error;
      }
    },
    open: () => [...ready].map(([instance, engine]) => ({ instance, engine })).sort((a, b) => b.instance.lastUsed - a.instance.lastUsed),
    async sweep() {
      let closed = 0;
      for (const [instance, engine] of ready) {
        if (await isNeeded(instance, engine).catch(() => true)) continue;
        if (instance.users > 0) continue; // somebody came meanwhile
        await shut(instance);
        closed++;
        const heir = [...ready].find(([other]) => other.resolved.config.value.root === instance.resolved.config.value.root)?.[1];
        await heir?.system.supervise().catch(() => []);
      }
      return closed;
    },
    async close() {
      await Promise.allSettled([...new Set([...all.values(), ...ready.keys()])].map(shut));
    },
  };
}
