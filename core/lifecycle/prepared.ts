import path from 'node:path';
import { FRAME, operations as table, planParts, RUN_FILES } from '../plan/index.ts';
import { type ContainerRequest } from '../api/index.ts';
import { type Frame, type ShimConnection } from '../native/index.ts';
import { answerBarrier } from './barrier.ts';
import { type Core } from './core.ts';
import { isConnected } from './endpoints.ts';
import { collectLocked } from './finish.ts';
import { renamed, type Made } from './shapes.ts';

/** A sandbox that has run all of a plan that does not depend on the program, and waits for the rest. It is a run without a row. */
export interface Prepared {
  readonly made: Made;
  /** See {@link Shapes.key}. */
  readonly key: string;
  readonly loose: string;
  /** Whoever asked for it knows it by this. */
  readonly tag: string;
  readonly pid: number;
  /** Of that process: another one may have its number. */
  readonly startTime: bigint | undefined;
  /** Images that had been removed until then: layers that it stands on may be gone with another. */
  readonly removals: number;
  readonly at: number;
  readonly connection: ShimConnection;
}

/** How long the plan of a sandbox is taken as it is, ms; after that it is made again, and what has been run must be the same. */
const TRUST = 10_000;

/** What comes after the sandbox: a request that differs in nothing else may have it. */
export function looseKey(request: ContainerRequest, image: string): string {
  const { name: _n, command: _c, entrypoint: _e, env: _v, attach: _a, labels: _l, rlimits: _r, openStdin: _o, stdinOnce: _s, detached: _d, stopSignal: _t, ...rest } = request;
  return JSON.stringify([rest, image]);
}

const operations = (bytes: Uint8Array, part: 'shim' | 'init' | 'after'): readonly Buffer[] => planParts(bytes).get(part) ?? [];
/** Has `done` run what `wanted` begins with, and does the same undo serve both? */
function covers(done: Made, wanted: Made): boolean {
  const same = (a: readonly Buffer[], b: readonly Buffer[]): boolean => a.length === b.length && a.every((one, i) => one.equals(b[i] as Buffer));
  const [mine, theirs] = [done.plan.bytes, wanted.plan.bytes];
  return wanted.plan.prefix === done.plan.prefix && same(operations(mine, 'shim').filter(notStreams), operations(theirs, 'shim').filter(notStreams)) && same(operations(mine, 'after'), operations(theirs, 'after'))
    && same(operations(mine, 'init').slice(0, done.plan.prefix), operations(theirs, 'init').slice(0, wanted.plan.prefix));
}
/** The streams are the claimant's. */
const notStreams = (operation: Buffer): boolean => operation.readUInt16LE(0) !== table.stdio.code;

/** Sandboxes of one engine. */
export class Sandboxes {
  readonly #ready: Prepared[] = [];
  readonly #core: Core;
  #made = 0;
  #used = 0;
  constructor(core: Core) {
    this.#core = core;
  }
  /** Tags of those that wait. */
  get ready(): readonly string[] {
    return this.#ready.map(({ tag }) => tag);
  }
  /** For `info`. `Pids`: of their inits. */
  get info(): Readonly<Record<string, unknown>> {
    return { Ready: this.#ready.length, Made: this.#made, Used: this.#used, Pids: this.#ready.map(({ pid }) => pid) };
  }

  /** Run what is common, and keep it. Errors: those of a start; it is undone then. */
  async add(made: Made, key: string, loose: string, tag = ''): Promise<void> {
    const { state, native, shimEnv, wake: waking } = this.#core.parts;
    const { record: { id: container }, run, plan } = made;
    const wake = waking?.(made.record);
    const { folder, lock } = await state.runs.create({ run, container, instance: state.folders.instance, boot: native.bootId(), created: this.#core.now().toISOString(), ...(plan.group !== undefined && { group: plan.group }) }, plan.bytes);
    const ready = Promise.withResolvers<number>();
    let connection: ShimConnection;
    try {
      connection = native.spawnShim({ mode: 'run', pool: plan.prefix, plan: path.join(folder, RUN_FILES.plan), runFolder: folder, lock, ...(wake && { wake }), ...(shimEnv && { env: shimEnv }) });
    } finally {
      lock.release();
    }
    connection.onFrame((frame: Frame) => {
      if (frame.type === FRAME.prepared) ready.resolve(frame.argument);
      // what it failed for has been logged; the shim ends then, and says so by that
      if (frame.type === FRAME.barrier) void answerBarrier(this.#core, connection, frame, plan);
    });
    const entry = { made, key, loose, tag, at: performance.now(), connection, pid: 0, startTime: undefined as bigint | undefined, removals: state.removals() };
    connection.closed.then(() => this.#lost(entry, ready), () => {});
    entry.pid = await ready.promise;
    entry.startTime = native.processStartTime(entry.pid);
    if (entry.pid === 0 || this.#core.closing) return this.drop(entry);
    this.#made++;
    this.#ready.push(entry);
  }
  #lost(entry: Prepared, ready: { resolve(pid: number): void }): void {
    ready.resolve(0);
    const at = this.#ready.indexOf(entry);
    if (at < 0) return;
    this.#ready.splice(at, 1);
    this.drop(entry).catch((error: unknown) => this.#core.parts.log.warn({ err: error }, 'a sandbox was not removed'));
  }
  /** Its shim undoes it when nobody speaks with it any more. */
  async drop({ made, connection }: Prepared): Promise<void> {
    connection.close();
    await collectLocked(this.#core, made.record.id);
  }

  /**
   * One for this request, with the plan to go on with. `make`: the plan in full, for what the sandbox is. Undefined: there is none that fits.
   */
  async take(key: string, loose: string, name: string, make: (sandbox: Made) => Promise<Made | undefined>): Promise<{ readonly sandbox: Prepared; readonly made: Made } | undefined> {
    const { native, state } = this.#core.parts;
    const found = this.#ready.find((p) => p.key === key) ?? this.#ready.find((p) => p.loose === loose);
    if (!found) return undefined;
    this.#ready.splice(this.#ready.indexOf(found), 1);
    let made: Made | undefined;
    try {
      const isSound = found.removals === state.removals() && native.processStartTime(found.pid) === found.startTime && (await isConnected(this.#core, found.made.endpoints).catch(() => false));
      if (isSound) made = await this.#madeFor(found, key, name, make);
    } finally {
      if (!made) await this.drop(found);
    }
    if (!made) return undefined;
    this.#used++;
    return { sandbox: found, made };
  }
  /** Undefined: it does not fit. */
  async #madeFor({ made: mine, key: own, at }: Prepared, key: string, name: string, make: (sandbox: Made) => Promise<Made | undefined>): Promise<Made | undefined> {
    const { record: { id }, run, names, endpoints, places } = mine;
    const created = this.#core.now().toISOString();
    if (own === key && performance.now() - at < TRUST) return { ...mine, record: { ...mine.record, name, created } };
    const made = await make(mine);
    const wanted = made && renamed(made, { id, run, names, endpoints, places, name, created });
    return wanted && covers(mine, wanted) ? wanted : undefined;
  }

  /** Give up those that `which` says, all without it. */
  async release(which: (prepared: Prepared) => boolean = () => true): Promise<void> {
    const given = this.#ready.filter(which);
    for (const entry of given) this.#ready.splice(this.#ready.indexOf(entry), 1);
    await Promise.allSettled(given.map((entry) => this.drop(entry)));
  }
}
