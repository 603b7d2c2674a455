import { AsyncLocalStorage } from 'node:async_hooks';
import { parseSignal, type ContainerRecord, type ContainerRequest, type ContainerView, type Engine, type RestartView, type VerbRequest } from '@engine/core/api';
import { type DriverDeps } from '@engine/core/contracts/common';
import { fail, isEngineError } from '@engine/core/errors';
import { type HookValues, type RunHookContext } from '@engine/core/hooks';
import { createLedger, type Next } from './ledger.ts';
import { checkPolicy, FIRST_DELAY, isExhausted, nextDelay, ranFor, wantsRestart, type Policy } from './policy.ts';

/** Time, for tests. */
export interface Clock {
  now(): number;
  /** Calls `work` once, after `ms`; never keeps a process alive. Returns what cancels it. */
  after(ms: number, work: () => void): () => void;
}
const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, work) {
    const timer = setTimeout(work, ms).unref();
    return () => clearTimeout(timer);
  },
};
export interface RestartOptions {
  readonly engine: () => Promise<Engine>;
  readonly clock?: Clock;
}
export interface RestartPolicy {
  /** Is this a container that is started again? */
  concerns(container: ContainerRecord): boolean;
  /** At the start of an engine: take up what is to run and what waits. Works after it has returned. */
  takeUp(): void;
  /** A start is being planned, with the container's lock held. Errors: ERR_ALREADY_RUNNING for a try of ours that somebody else has made. */
  starting(context: Pick<RunHookContext, 'container' | 'run' | 'record'>): void;
  stopping(value: HookValues['stop']): void;
  exited(container: ContainerRecord): void;
  /** Errors of both: ERR_INVALID_VALUE for a policy that makes no sense. */
  creating(request: VerbRequest): void;
  updating(container: ContainerRecord): void;
  /** As Docker: what is being restarted is not removed without force. Errors: ERR_IN_USE. */
  removing(request: VerbRequest): Promise<void>;
  needed(): readonly string[];
  restarts(container: ContainerRecord, running: boolean): RestartView | undefined;
  close(): void;
}

/** Until an engine that has just begun looks around, ms: one that only serves a short command is gone by then. */
const SETTLE = 100;
/** After that a container that runs is looked at again, ms: another engine may have collected its run. */
const LOOK_AGAIN = 10_000;
/** While something is under way, ms. */
const SOON = 1000;
/** A start that was begun and has not come to anything after that, ms, was the start of a dead engine. */
const CLAIM = 60_000;
/** `restart` has so long for its own start, ms, before the policy takes over. */
const HOLD = 10_000;
/** Starts at a time: after a reboot there may be hundreds. */
const AT_ONCE = 8;
/** HUP, USR1 and the like ask for something else. */
const ENDING = new Set(['INT', 'QUIT', 'KILL', 'TERM'].map((name) => parseSignal(name)));

/** What is kept in the container's row, committed with its start: starts by the policy since somebody started it, and the wait before the last. */
interface Facts { readonly count: number; readonly delay: number }
const PLUGIN = 'restart-policy';
const factsOf = (record: ContainerRecord): Facts => (record.plugins?.[PLUGIN] as Facts | undefined) ?? { count: 0, delay: 0 };

interface Known { readonly name: string; readonly waits: boolean; cancel(): void }

/**
 * Starts containers again. What has happened is read from the container's record each time, never from a notification: those only say when
 * to look, so that late and doubled ones do no harm. The decision is a function of the exit, the policy and what the ledger says.
 */
export function createRestartPolicy(deps: DriverDeps, { engine, clock = systemClock }: RestartOptions): RestartPolicy {
  const { log } = deps;
  const ledger = createLedger(deps.state);
  const known = new Map<string, Known>();
  /** Starts that were planned here and are not seen to run yet. */
  const begun = new Map<string, { readonly run: string; readonly at: number }>();
  /** In it while we start something: the run after whose end. */
  const automatic = new AsyncLocalStorage<string>();
  const trying = new Set<string>();
  /** What a caller's request has to do with us ends with its request. */
  const outside = AsyncLocalStorage.snapshot();
  let closed = false;
  let cancelSettling = (): void => {};
  let settling = false;

  const policyOf = ({ request: { restart } }: ContainerRecord): Policy | undefined => (restart && restart.policy !== 'no' ? restart : undefined);
  const isClaimed = ({ claim }: Next): boolean => claim !== undefined && clock.now() - claim.at < CLAIM;
  /** What was written of the last end; a run that never came to its program has none of its own. */
  const valid = (record: ContainerRecord): Next | undefined => {
    const next = ledger.next(record.id);
    return next && (record.lastExit?.startedAt === undefined || record.lastExit.run === next.run) ? next : undefined;
  };

  /** What is to follow the end of the last run; written down when nobody has yet. */
  function decide(record: ContainerRecord, policy: Policy): Next | undefined {
    const exit = record.lastExit;
    const before = valid(record);
    if (before || exit?.startedAt === undefined) return before;
    const { count, delay: last } = factsOf(record);
    const stays = { run: exit.run, count, delay: last };
    if (ledger.stopped(record.id) === exit.run || !wantsRestart(policy, exit.code !== 0, count)) return ledger.write(record.id, stays);
    const end = Date.parse(exit.finishedAt);
    // its start is on its way: only if that never comes
    if (ledger.held(record.id) === exit.run) return ledger.write(record.id, { ...stays, at: end + HOLD });
    const delay = nextDelay(last, ranFor(exit));
    return ledger.write(record.id, { run: exit.run, count: count + 1, delay, at: end + delay });
  }

  function drop(id: string): void {
    known.get(id)?.cancel();
    known.delete(id);
  }
  function forget(id: string): void {
    drop(id);
    begun.delete(id);
    ledger.forget(id);
  }
  /** Look at it after `ms`, and at no other time. */
  function lookAt(record: Pick<ContainerRecord, 'id' | 'name'>, ms: number, waits = false): void {
    known.get(record.id)?.cancel();
    if (closed) return;
    const cancel = clock.after(Math.max(0, ms), () => void outside(look, record).catch((error: unknown) => {
      if (closed) return;
      log.warn({ err: error, container: record.id }, 'a restart policy could not be applied');
      lookAt(record, SOON, waits);
    }));
    known.set(record.id, { name: record.name, waits, cancel });
  }

  async function find(id: string): Promise<ContainerView | undefined> {
    try {
      return await (await engine()).containers.resolve(id);
    } catch (error) {
      if (isEngineError(error, 'ERR_NO_SUCH_CONTAINER')) return undefined;
      throw error;
    }
  }

  async function look({ id }: { readonly id: string }): Promise<void> {
    if (closed) return;
    const view = await find(id);
    if (closed) return;
    if (!view) return forget(id);
    const { record, state } = view;
    const policy = policyOf(record);
    if (!policy) return forget(id);
    if (state === 'creating') return lookAt(record, SOON);
    if (state === 'running' || state === 'paused') {
      begun.delete(id);
      return lookAt(record, LOOK_AGAIN);
    }
    const start = begun.get(id);
    if (start && start.run !== record.lastExit?.run && clock.now() - start.at < CLAIM) return lookAt(record, SOON);
    begun.delete(id);
    const next = decide(record, policy);
    if (next?.at === undefined) return drop(id);
    if (isClaimed(next) || trying.has(id)) return lookAt(record, SOON);
    const wait = next.at - clock.now();
    if (wait > 0 || trying.size >= AT_ONCE) return lookAt(record, wait > 0 ? wait : FIRST_DELAY, true);
    trying.add(id);
    return tryStart(record, policy, next).finally(() => trying.delete(id));
  }

  async function tryStart(record: ContainerRecord, policy: Policy, next: Next): Promise<void> {
    const { id } = record;
    const { containers } = await engine();
    try {
      log.info({ container: id, count: next.count }, `starting container ${record.name} again`);
      (await automatic.run(next.run, () => containers.start(id))).detach();
      begun.delete(id);
      trying.delete(id);
      // it may be over already
      lookAt(record, 0);
      // somebody wanted it to stay down while it was on its way up
      const now = ledger.next(id);
      if (now?.run === next.run && now.at === undefined) await containers.stop(id);
    } catch (error) {
      begun.delete(id);
      if (closed) return;
      if (isEngineError(error, 'ERR_NO_SUCH_CONTAINER')) return forget(id);
      if (isEngineError(error, 'ERR_ALREADY_RUNNING') || isEngineError(error, 'ERR_BUSY')) return lookAt(record, SOON);
      await failed(record, policy, next, error);
    }
  }

  /** A try that failed is one that is over. */
  async function failed(record: ContainerRecord, policy: Policy, { run, count, delay: last }: Next, cause: unknown): Promise<void> {
    const { id } = record;
    const error = cause instanceof Error ? cause.message : String(cause);
    const over = isExhausted(policy, count);
    const delay = nextDelay(last);
    log.warn({ err: cause, container: id, count }, over ? `container ${record.name} is not tried again` : `container ${record.name} could not be started again; next try in ${delay} ms`);
    const now = await find(id);
    if (!now) return forget(id);
    // stopped meanwhile
    if (ledger.next(id)?.at === undefined) return drop(id);
    ledger.write(id, { run: now.record.lastExit?.run ?? run, count: over ? count : count + 1, delay, error, ...(!over && { at: clock.now() + delay }) });
    if (over) return drop(id);
    return lookAt(record, delay, true);
  }

  async function takeUpAll(): Promise<void> {
    const views = await (await engine()).containers.list({ all: true });
    if (closed) return;
    const boot = deps.machine.read('/proc/sys/kernel/random/boot_id')?.trim();
    const rebooted = boot !== undefined && ledger.boot() !== undefined && ledger.boot() !== boot;
    for (const { record, state } of views) {
      const policy = policyOf(record);
      if (!policy) continue;
      // as with Docker, the machine's start undoes a stop of what is to run always
      const down = state === 'stopped' && decide(record, policy)?.at === undefined;
      if (rebooted && policy.policy === 'always' && record.starts > 0 && down) {
        ledger.write(record.id, { run: record.lastExit?.run ?? '', count: 0, delay: FIRST_DELAY, at: clock.now() });
      }
      if (!known.has(record.id)) lookAt(record, 0);
    }
    if (boot !== undefined && boot !== ledger.boot()) ledger.setBoot(boot);
    const ids = new Set(views.map(({ record }) => record.id));
    for (const id of ledger.containers()) if (!ids.has(id) && !(await find(id))) forget(id);
  }

  return {
    concerns: (container) => policyOf(container) !== undefined,
    takeUp() {
      settling = true;
      cancelSettling = clock.after(SETTLE, () => void takeUpAll()
        .catch((error: unknown) => closed || log.error({ err: error }, 'restart policies are not applied to what ended before'))
        .finally(() => { settling = false; }));
    },
    starting({ container, run, record }) {
      if (run.explain || !policyOf(container)) return;
      const after = automatic.getStore();
      const next = ledger.next(container.id);
      if (after !== undefined && (next?.run !== after || next.at === undefined || isClaimed(next))) {
        throw fail('ERR_ALREADY_RUNNING', `container ${container.name} was started again, or stopped, by somebody else`, { path: container.name });
      }
      if (next) ledger.write(container.id, { ...next, claim: { run: run.run, at: clock.now() } });
      record.set(after !== undefined && next ? { count: next.count, delay: next.delay } : { count: 0, delay: 0 });
      begun.set(container.id, { run: run.run, at: clock.now() });
      if (after === undefined) lookAt(container, SOON);
    },
    stopping({ container, verb, signal, run = container.lastExit?.run }) {
      if (!policyOf(container)) return;
      const { id } = container;
      if (verb === 'restart') return run === undefined ? undefined : ledger.hold(id, run);
      const own = parseSignal(container.request.stopSignal ?? container.imageConfig.StopSignal ?? 'TERM');
      if (verb === 'kill' && signal !== own && !ENDING.has(signal)) return undefined;
      if (run !== undefined) ledger.stop(id, run);
      const { at, ...next } = ledger.next(id) ?? {};
      if (at !== undefined) ledger.write(id, next as Next);
      if (known.get(id)?.waits) drop(id);
      return undefined;
    },
    exited(container) {
      if (policyOf(container)) lookAt(container, 0);
    },
    creating: ({ arguments: { request } }) => checkPolicy(request as ContainerRequest),
    updating(container) {
      checkPolicy(container.request);
      const { id, lastExit } = container;
      const { count, delay } = factsOf(container);
      // a new policy is for what will end, not for what has ended
      if (lastExit && ledger.next(id)?.run !== lastExit.run) ledger.write(id, { run: lastExit.run, count, delay });
      lookAt(container, SOON);
    },
    async removing({ arguments: { container } }) {
      const view = await find(String(container));
      if (view?.restarts?.next !== undefined) throw fail('ERR_IN_USE', `cannot remove container ${view.record.name}: it is restarting`, { path: view.record.name, hint: 'stop it first, or use --force' });
    },
    needed: () => [...(settling ? ['what is to be started again is not known yet'] : []), ...[...known.values()].map(({ name, waits }) => (waits ? `container ${name} waits for its next start` : `container ${name} is to be started again when it ends`))],
    restarts(container, running) {
      const facts = factsOf(container);
      const next = running ? undefined : valid(container);
      if (!next) return { count: facts.count };
      const { count, at, error } = next;
      return { count, ...(at !== undefined && { next: new Date(at).toISOString() }), ...(error !== undefined && { error }) };
    },
    close() {
      closed = true;
      cancelSettling();
      for (const { cancel } of known.values()) cancel();
    },
  };
}
