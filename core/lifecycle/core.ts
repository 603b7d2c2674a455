import path from 'node:path';
import { type ContainerRecord, type EngineEvent } from '../api/index.ts';
import { openPhases, openSpan, type Phase, type Trace } from '../hooks/index.ts';
import { type Transaction } from '../state/index.ts';
import { type NetworkRecord } from '../contracts/network/index.ts';
import { type Lock, type ShimConnection } from '../native/index.ts';
import { type EngineParts, type Registry } from './parts.ts';
import { Sandboxes } from './prepared.ts';
import { Shapes } from './shapes.ts';

/** What the verbs share. */
export interface Core {
  readonly parts: EngineParts;
  readonly registry: Registry;
  /** The engine is ending: sessions end without collecting runs, which go on. */
  closing: boolean;
  /** Held for containers that are made but not started yet by a `run --rm`: see ContainerRecord.provisional. */
  readonly provisional: Map<string, Lock>;
  /** Networks that were designed to be shown (`explain`), by their ids; not kept. */
  readonly designed: Map<string, NetworkRecord>;
  readonly shapes: Shapes;
  readonly sandboxes: Sandboxes;
  /** Names given out lately: some are not in the database yet. */
  readonly recentNames: Set<string>;
  /** Connections, and whatever else is waited at, that end with the engine. */
  readonly connections: Set<{ close(): void }>;
  /** Of the running verb, when somebody wants to know what takes how long; see {@link withTrace}. */
  readonly trace?: Trace | undefined;
  readonly phase?: Phase | undefined;
  now(): Date;
  /** Folder of a container below root. */
  folderOf(id: string): string;
  /** Ask the policies; every verb calls it first. */
  request(verb: string, args: Readonly<Record<string, unknown>>): Promise<void>;
  /** Tell everybody who listens; never fails, never waited for. */
  emit(type: EngineEvent['type'], action: string, id: string, attributes?: Readonly<Record<string, string>>): void;
  /** Run `work` in a transaction: committed by it, or rolled back. */
  transact<T>(what: string, work: (transaction: Transaction) => Promise<T>): Promise<T>;
  /** Resolves when nothing is done under a lock any more: the state may be closed. */
  settled(): Promise<void>;
  /** Hold locks (kind and id, in this order) while `work` runs; `shared` with others who do so too. `patience`: longest wait for each, ms. Errors: ERR_BUSY. */
  locked<T>(locks: readonly (readonly [kind: string, id: string, shared?: boolean])[], work: () => Promise<T>, patience?: number): Promise<T>;
}

/** Longest wait for another verb on the same object, ms. */
const LOCK_TIMEOUT = 30_000;

export function createCore(parts: EngineParts, registry: Registry): Core {
  const { state, hooks, log } = parts;
  const now = (): Date => parts.now?.() ?? new Date();
  const busy = new Set<Promise<unknown>>();
  let shapes: Shapes | undefined;
  let sandboxes: Sandboxes | undefined;
  const core: Core = {
    parts, registry, now,
    get shapes(): Shapes { return (shapes ??= new Shapes(core)); },
    get sandboxes(): Sandboxes { return (sandboxes ??= new Sandboxes(core)); },
    closing: false,
    provisional: new Map(),
    designed: new Map(),
    recentNames: new Set(),
    connections: new Set(),
    folderOf: (id) => path.join(state.folders.root, 'containers', id),
    async request(verb, args) {
      this.phase?.('request');
      const caller = parts.caller?.() ?? { uid: process.getuid?.() ?? 0, pid: process.pid };
      await hooks.call('request', { verb, arguments: args, caller, config: parts.config.sources }, { trace: this.trace });
    },
    emit(type, action, id, attributes = {}) {
      if (hooks.taps('event').length === 0) return;
      const event = { sequence: state.nextEvent(), time: now().toISOString(), type, action, id, attributes };
      hooks.call('event', event).catch((error: unknown) => log.error({ err: error }, 'event lost'));
    },
    settled: async () => { while (busy.size > 0) await Promise.allSettled(busy); },
    async transact(what, work) {
      const transaction = state.begin(what, this.trace);
      const end = this.trace && openSpan(this.trace, 'engine', what);
      try {
        return await work(transaction);
      } catch (error) {
        // the first error is the one to tell; what could not be undone is undone by the next start
        await transaction.rollback().catch((undo: unknown) => log.error({ err: undo }, `could not undo: ${what}`));
        throw error;
      } finally {
        end?.();
      }
    },
    async locked(locks, work, patience = LOCK_TIMEOUT) {
      this.phase?.('lock');
      const held = [];
      try {
        for (const [kind, id, shared = false] of locks) held.push(await state.lock(kind, id, { timeout: patience, shared }));
        const done = work();
        busy.add(done);
        return await done.finally(() => busy.delete(done));
      } finally {
        for (const lock of held.reverse()) lock.release();
      }
    },
  };
  return core;
}

/** Run a verb whose spans go to `trace`; without one nothing is different. */
export async function withTrace<T>(core: Core, trace: Trace | undefined, work: (core: Core) => Promise<T>): Promise<T> {
  if (!trace) return work(core);
  const phase = openPhases(trace);
  try {
    return await work(Object.assign(Object.create(core) as Core, { trace, phase }));
  } catch (error) {
    phase();
    throw error;
  }
}

/** Attributes of a container's events, as Docker names them. */
export function eventAttributes(record: ContainerRecord): Record<string, string> {
  return { ...record.request.labels, image: record.image.name, name: record.name };
}

/** It is closed with the engine, unless it has ended before. */
export function endWithEngine(core: Core, connection: ShimConnection): ShimConnection {
  core.connections.add(connection);
  void connection.closed.finally(() => core.connections.delete(connection));
  return connection;
}

/** The container is started, or will never be. */
export function releaseProvisional(core: Core, id: string): void {
  core.provisional.get(id)?.release();
  core.provisional.delete(id);
}

/** `value` without the keys that are undefined. */
export function defined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> };
}

export const shortId = (id: string): string => id.slice(0, 12);
