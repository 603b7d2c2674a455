import { readFileSync } from 'node:fs';
import { type ContainerRequest, type Engine, type StartOptions } from '@engine/core/api';

/** What `auto` means: sandboxes per engine, each some 300 KB. */
const AUTO = 4;
/** Of one kind of request. */
const PER_KIND = 2;
/** Kinds that are remembered, the last used first. */
const KINDS = 8;
/** A kind is prepared for when it came twice within this time, ms; unused for so long, its sandboxes go. */
const MEMORY = 60_000;
/** The engine must have been idle for so long before sandboxes are made: they cost what a start costs, ms. */
const QUIET = 10;

/** A kind gives way to one that was run so much later, ms. */
const REPLACED = 1000;

export interface PoolOptions {
  /** `pool` of the configuration. */
  readonly size: 'auto' | 'off' | number;
  /** Is there anything else to do? */
  readonly busy?: () => boolean;
  readonly now?: () => number;
  onError?(error: unknown): void;
}
interface Kind {
  readonly request: ContainerRequest;
  readonly options: Pick<StartOptions, 'attach' | 'windowSize'>;
  last: number;
  /** Came again within MEMORY. */
  again: boolean;
  hopeless: boolean;
}

/**
 * An engine that prepares, in idle moments, for what has been run twice lately: a `run --rm` like the last one finds a sandbox ready. What doesn't
 * fit is started as ever. `info` tells what it holds and what it was good for.
 */
export function withPool(engine: Engine, options: PoolOptions): Engine {
  const size = options.size === 'auto' ? AUTO : options.size === 'off' ? 0 : options.size;
  if (size === 0) return engine;
  const now = options.now ?? (() => performance.now());
  const kinds = new Map<string, Kind>();
  let timer: NodeJS.Timeout | undefined;
  let working: Promise<void> | undefined;
  let closed = false;
  /** Runs that are being started right now. */
  let starting = 0;

  const later = (ms: number): void => {
    if (closed) return;
    clearTimeout(timer);
    timer = setTimeout(() => (working = tend().finally(() => (working = undefined))), ms);
    timer.unref();
  };
  /** Make one, or remove what is no longer wanted; then look again. */
  async function tend(): Promise<void> {
    if (starting > 0 || options.busy?.()) return later(QUIET);
    try {
      for (const [key, kind] of kinds) if (now() - kind.last > MEMORY) kinds.delete(key);
      const wanted = [...kinds.values()].filter((kind) => kind.again && !kind.hopeless).reverse();
      const { ready } = await engine.containers.release({ idle: wanted.length === 0 ? 0 : 5 * MEMORY });
      const room = size - ready.length;
      const lacking = wanted.find((kind) => ready.filter((name) => name === nameOf(kind)).length < Math.min(PER_KIND, size));
      if (!lacking) return kinds.size > 0 || ready.length > 0 ? later(MEMORY / 4) : undefined;
      if (room <= 0) {
        // a new kind is worth more than what was made for an old one
        const old = [...kinds.values()].find((kind) => ready.includes(nameOf(kind)) && lacking.last - kind.last > REPLACED);
        const stale = ready.find((name) => !kinds.has(name)) ?? (old && nameOf(old));
        if (stale === undefined) return later(MEMORY / 4);
        await engine.containers.release({ tag: stale });
        return later(0);
      }
      if (!(await engine.containers.prepare(lacking.request, { ...lacking.options, tag: nameOf(lacking) }))) lacking.hopeless = true;
      later(0);
    } catch (error) {
      options.onError?.(error);
      later(MEMORY / 4);
    }
  }
  const nameOf = ({ request, options: { attach, windowSize } }: Kind): string => {
    const { name: _, ...rest } = request;
    return JSON.stringify([rest, attach, windowSize]);
  };
  const note = (request: ContainerRequest, { attach, windowSize }: StartOptions): void => {
    if (!request.autoRemove) return;
    const { name: _, ...plain } = request;
    const kind: Kind = { request: plain, options: { ...(attach && { attach }), ...(windowSize && { windowSize }) }, last: now(), again: false, hopeless: false };
    const key = nameOf(kind);
    const known = kinds.get(key);
    kinds.delete(key);
    kinds.set(key, { ...kind, again: known !== undefined, hopeless: known?.hopeless ?? false });
    for (const old of kinds.keys()) if (kinds.size > KINDS) kinds.delete(old);
    later(QUIET);
  };

  return {
    ...engine,
    containers: {
      ...engine.containers,
      async run(request, start = {}) {
        starting++;
        try {
          return await engine.containers.run(request, start);
        } finally {
          starting--;
          note(request, start);
        }
      },
    },
    system: {
      ...engine.system,
      async info() {
        const info = await engine.system.info();
        const pids = (info['Sandboxes'] as { Pids?: readonly number[] } | undefined)?.Pids ?? [];
        return { ...info, Pool: { Size: size, Kinds: [...kinds.values()].filter((kind) => kind.again).length, MemoryBytes: pids.reduce((sum, pid) => sum + memoryOf(pid), 0) } };
      },
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await working;
      await engine.close();
    },
  };
}

/** PSS of a sandbox: its init and the shim that is init's parent, bytes. */
function memoryOf(init: number): number {
  try {
    const stat = readFileSync(`/proc/${init}/stat`, 'latin1');
    const shim = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    return [init, shim].reduce((sum, pid) => sum + 1024 * Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'))?.[1] ?? 0), 0);
  } catch {
    return 0; // it has ended meanwhile
  }
}
