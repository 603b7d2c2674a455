import tapable from 'tapable';
import { type Logger } from 'pino';
import { fail, isEngineError } from '../errors/index.ts';
import { type RunContext } from '../contracts/common/index.ts';
import { type ContainerRecord } from '../api/types.ts';
import { type Spec } from '../spec/index.ts';
import { attribute, frozenCopy, type Asked } from './attribution.ts';
import { hookTable, type ContextOf, type HookKind, type HookName, type HookValues, type RecordHookContext, type RunHook, type RunHookContext, type TapContext, type TapFunction, type TapOptions } from './declare.ts';
import { breathe } from './breathe.ts';
import { createRecords, type RecordSet } from './records.ts';
import { openSpan, type Trace } from './trace.ts';
import { type PlanCollector } from './writer.ts';

/** What the caller of a run's hook brings; the rest of the context is made for each tap. */
export interface RunBase {
  readonly container: ContainerRecord;
  readonly run: RunContext;
  readonly spec: Spec;
  readonly plan: PlanCollector;
  readonly log?: Logger;
  /** Where taps may set their records; without it they can only be read. */
  readonly records?: RecordSet;
  /** Receives a span for the hook, each tap and each driver. */
  readonly trace?: Trace | undefined;
}
/** For the other hooks. */
export interface CallBase { readonly log?: Logger; readonly records?: RecordSet; readonly trace?: Trace | undefined }
export type WaterfallName = { [H in HookName]: (typeof hookTable)[H]['kind'] extends 'waterfall' ? H : never }[HookName];
type BaseArgument<H extends HookName> = H extends RunHook ? [base: RunBase] : [base?: CallBase];

export interface TapFailure { readonly plugin: string; readonly error: Error }

export interface Hooks {
  /** The `tap` that a plugin is given. Errors: ERR_HOOK_UNKNOWN, ERR_HOOK_DUPLICATE, ERR_HOOK_SEALED. */
  tapFor(plugin: string): TapFunction;
  /** Call a series or notification hook. A series rejects with the first failure; a notification resolves with all of them, logged. */
  call<H extends Exclude<HookName, WaterfallName>>(hook: H, value: HookValues[H], ...base: BaseArgument<H>): Promise<readonly TapFailure[]>;
  /** Call a waterfall hook: the last value, deep-frozen, and who asked for what in it. */
  callWaterfall<H extends WaterfallName>(hook: H, value: HookValues[H], ...base: BaseArgument<H>): Promise<{ readonly value: HookValues[H]; readonly asked: Asked }>;
  /** A copy that needs no other when hooks are called with it, or with something that it is part of. */
  frozen<T>(value: T): T;
  /** No taps from now on. Errors: ERR_HOOK_UNKNOWN when a `before` names a tap that never came. */
  seal(): void;
  /** Names of the taps in the order they are called, and their plugins. */
  taps(hook: HookName): readonly { readonly name: string; readonly plugin: string }[];
}
export interface HooksOptions {
  readonly log: Logger;
  /** Milliseconds a tap may take when it names no deadline of its own. */
  readonly defaultDeadline?: number;
}

/** One call of one hook; tapable hands it to every tap. */
interface Call {
  readonly run: RunBase | undefined;
  readonly log: Logger;
  /** Of the container that the hook is about. */
  readonly records: RecordSet | undefined;
  readonly trace: Trace | undefined;
  readonly failures: TapFailure[];
  readonly known: WeakSet<object>;
  asked: Asked;
  /** In a waterfall: the value so far. */
  current: unknown;
}
/** Who is to be blamed while a tap runs. */
interface Running { plugin: string; open: boolean; readonly signal: AbortSignal; readonly call: Call; readonly hook: HookName }
interface EngineTap { readonly name: string; readonly plugin: string; readonly deadline: number; when?(value: unknown): boolean }
type AnyTap = (context: TapContext, value: unknown) => unknown;
type HookArguments = [value: unknown, call: Call];
type EngineHook = tapable.AsyncSeriesHook<HookArguments, EngineTap> | tapable.AsyncSeriesWaterfallHook<HookArguments, unknown, EngineTap>;

const running = new WeakMap<TapContext, Running>();

function takeValue(call: Call, returned: unknown, plugin: string): unknown {
  const next = frozenCopy(returned, call.known);
  call.asked = attribute(call.asked, call.current, next, plugin);
  call.current = next;
  return next;
}

/**
 * Let `work` speak for `plugin`: the core's adapters use it when they call the driver that was chosen. Origins, log lines and errors name
 * that plugin, and so does, in a waterfall, what it changed.
 */
export async function onBehalf<C extends TapContext, R>(context: C, plugin: string, work: (context: C) => R | Promise<R>): Promise<R> {
  const state = running.get(context);
  if (!state) throw fail('ERR_INTERNAL', 'onBehalf needs the context of a tap');
  const previous = state.plugin;
  const { trace } = state.call;
  const end = trace && openSpan(trace, 'driver', plugin, { plugin, hook: state.hook });
  state.plugin = plugin;
  try {
    const result = await work(makeContext(state) as C);
    // several drivers may edit within one tap of the core: each is named for its own part
    return hookTable[state.hook].kind === 'waterfall' && result !== undefined ? (takeValue(state.call, result, plugin) as R) : result;
  } catch (error) {
    end?.(error);
    throw blame(error, state.hook, plugin);
  } finally {
    end?.();
    state.plugin = previous;
  }
}

function makeContext(state: Running): TapContext {
  const { plugin, hook, call } = state;
  let log: Logger | undefined;
  const { run, records } = call;
  const context = {
    plugin, hook,
    get signal() { return state.signal; },
    get log() { return (log ??= call.log.child({ plugin, hook })); },
    ...(records && ({ record: records.of(plugin, hook, () => state.open) } satisfies Partial<RecordHookContext>)),
    ...(run && ({ container: run.container, run: run.run, spec: run.spec, plan: run.plan.writer(plugin, hook, () => state.open) } satisfies Partial<RunHookContext>)),
  } satisfies TapContext;
  running.set(context, state);
  return context;
}

function blame(error: unknown, hook: HookName, plugin: string): Error {
  if (isEngineError(error)) return error;
  const text = error instanceof Error ? error.message : String(error);
  return fail('ERR_PLUGIN_FAILED', `plugin ${plugin} failed in hook ${hook}: ${text}`, { plugin, operation: hook, cause: error, hint: '' });
}

/** One that cannot say is called, and blamed then. */
function isConcerned({ when }: EngineTap, value: unknown): boolean {
  try {
    return when?.(value) !== false;
  } catch {
    return true;
  }
}

/** Run one tap with its own context and deadline. A late result is dropped; a late failure has nobody left to hear it. */
async function runTap(tap: AnyTap, { name, plugin, deadline, when }: EngineTap, hook: HookName, value: unknown, call: Call): Promise<unknown> {
  // most taps never look at it
  let controller: AbortController | undefined;
  const state: Running = { plugin, open: true, get signal() { return (controller ??= new AbortController()).signal; }, call, hook };
  const end = call.trace && openSpan(call.trace, 'tap', name === plugin ? name : `${plugin}: ${name}`, { plugin, hook });
  let timer: NodeJS.Timeout | undefined;
  try {
    if (when?.(value) === false) return undefined;
    const result = tap(makeContext(state), value);
    if (!(result instanceof Promise) && typeof (result as { then?: unknown } | undefined)?.then !== 'function') return result;
    const overrun = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        const error = fail('ERR_PLUGIN_TIMEOUT', `plugin ${state.plugin} took longer than ${deadline} ms in hook ${hook}`, { plugin: state.plugin, operation: hook });
        reject(error);
        (controller ??= new AbortController()).abort(error);
      }, deadline);
    });
    return await Promise.race([result, overrun]);
  } catch (error) {
    end?.(error);
    throw blame(error, hook, state.plugin);
  } finally {
    end?.();
    clearTimeout(timer);
    state.open = false;
  }
}

/** What a throw does, by kind. */
function wrap(hook: HookName, tap: AnyTap, options: EngineTap): (value: unknown, call: Call) => Promise<unknown> {
  const kind: HookKind = hookTable[hook].kind;
  if (kind === 'series') return async (value, call) => void (await runTap(tap, options, hook, value, call));
  if (kind === 'notification') {
    return async (value, call) => {
      try {
        await runTap(tap, options, hook, value, call);
      } catch (error) {
        const plugin = isEngineError(error) ? (error.plugin ?? options.plugin) : options.plugin;
        call.log.error({ plugin, hook, err: error }, `a tap on ${hook} failed`);
        call.failures.push({ plugin, error: error as Error });
      }
    };
  }
  return async (value, call) => {
    call.current = value;
    const returned = await runTap(tap, options, hook, value, call);
    if (returned === undefined) return undefined;
    try {
      return takeValue(call, returned, options.plugin);
    } catch (error) {
      throw fail('ERR_PLUGIN_FAILED', `plugin ${options.plugin} returned something unusable in hook ${hook}`, { plugin: options.plugin, operation: hook, cause: error, hint: '' });
    }
  };
}

function createHook(name: HookName): EngineHook {
  const hook: EngineHook = hookTable[name].kind === 'waterfall'
    ? new tapable.AsyncSeriesWaterfallHook<HookArguments, unknown, EngineTap>(['value', 'call'], name)
    : new tapable.AsyncSeriesHook<HookArguments, EngineTap>(['value', 'call'], name);
  hook.intercept({ name: 'engine', register: (tap) => ({ ...tap, fn: wrap(name, tap.fn as AnyTap, tap) }) });
  return hook;
}

/** Every hook of hookTable, made once. */
export function createHooks({ log, defaultDeadline = 10_000 }: HooksOptions): Hooks {
  const hooks = Object.freeze(Object.fromEntries(Object.keys(hookTable).map((name) => [name, createHook(name as HookName)]))) as Readonly<Record<HookName, EngineHook>>;
  const names = new Map<HookName, Set<string>>();
  /** Taps whose `before` has not been registered yet. */
  const waiting: { hook: HookName; before: string; plugin: string; register: () => void }[] = [];
  let sealed = false;

  const hasTap = (hook: HookName, name: string): boolean => hooks[hook].taps.some((tap) => tap.name === name);
  const settleWaiting = (): void => {
    for (let i = waiting.findIndex((w) => hasTap(w.hook, w.before)); i >= 0; i = waiting.findIndex((w) => hasTap(w.hook, w.before))) waiting.splice(i, 1)[0]?.register();
  };
  const refuseWaiting = (hook?: HookName): void => {
    const lost = waiting.find((w) => hook === undefined || w.hook === hook);
    if (lost) throw fail('ERR_HOOK_UNKNOWN', `plugin ${lost.plugin} taps ${lost.hook} before ${lost.before}, but there is no such tap`, { plugin: lost.plugin, operation: lost.hook });
  };

  const tapFor = (plugin: string): TapFunction => (hook, tap, options: TapOptions = {}) => {
    const details = { plugin, operation: hook };
    if (!Object.hasOwn(hookTable, hook)) throw fail('ERR_HOOK_UNKNOWN', `plugin ${plugin} taps ${hook}, but there is no such hook`, details);
    if (sealed) throw fail('ERR_HOOK_SEALED', `plugin ${plugin} taps ${hook} after the hooks were sealed`, details);
    const name = options.name ?? plugin;
    const taken = names.get(hook) ?? new Set();
    if (taken.has(name)) throw fail('ERR_HOOK_DUPLICATE', `plugin ${plugin} taps ${hook} as ${name}, but that name is taken`, details);
    names.set(hook, taken.add(name));
    // postExitCleanup runs newest first: each tap gets a stage before all others
    const stage = hook === 'postExitCleanup' ? -taken.size : 0;
    const { before } = options;
    const register = (): void => {
      const full = { name, stage, plugin, ...(options.when && { when: options.when as NonNullable<EngineTap['when']> }), deadline: options.deadline ?? defaultDeadline, ...(before === undefined ? {} : { before }) };
      hooks[hook].tapPromise(full, tap as unknown as (value: unknown, call: Call) => Promise<never>);
    };
    if (before === undefined || hasTap(hook, before)) register();
    else waiting.push({ hook, before, plugin, register });
    settleWaiting();
  };

  /** Frozen copies made before: the spec of a run is copied once, not once per hook. */
  const known = new WeakSet<object>();
  const newCall = (base: RunBase | CallBase | undefined, value: unknown): Call => {
    const run = base && 'plan' in base ? { ...base, spec: frozenCopy(base.spec, known) } : undefined;
    const container = run?.container ?? (value as { container?: ContainerRecord }).container;
    return { run, log: base?.log ?? log, records: base?.records ?? (container && createRecords(container)), trace: base?.trace, failures: [], known, asked: new Map(), current: undefined };
  };

  return {
    tapFor,
    async call(hook, value, ...[base]) {
      refuseWaiting(hook);
      const tapped = hooks[hook];
      await breathe();
      if (!tapped.taps.some((tap) => isConcerned(tap as unknown as EngineTap, value))) return [];
      const call = newCall(base, value);
      const end = base?.trace && openSpan(base.trace, 'hook', hook);
      // a copy: what one tap has judged, no other may change
      const done = tapped.promise(frozenCopy(value, call.known), call);
      await (end ? done.finally(end) : done);
      return call.failures;
    },
    async callWaterfall(hook, value, ...[base]) {
      refuseWaiting(hook);
      await breathe();
      const call = newCall(base, value);
      const first = frozenCopy(value, call.known);
      const end = base?.trace && openSpan(base.trace, 'hook', hook);
      const done = hooks[hook].promise(first, call);
      const last = await (end ? done.finally(end) : done);
      return { value: last as typeof value, asked: call.asked };
    },
    frozen: (value) => frozenCopy(value, known),
    seal() {
      refuseWaiting();
      sealed = true;
    },
    taps: (hook) => hooks[hook].taps.map((tap) => ({ name: tap.name, plugin: (tap as unknown as EngineTap).plugin })),
  };
}

export type { ContextOf };
