import { type PluginState } from '@engine/core/contracts/common';

/** What follows the end of a run. Whoever looks at the same end writes the same, so that it doesn't matter which engine does. */
export interface Next {
  /** The run that has ended. */
  readonly run: string;
  /** Starts by the policy since somebody started the container; the one to come is counted in. */
  readonly count: number;
  /** The wait before it, ms. */
  readonly delay: number;
  /** When it is to be started, ms since the epoch; absent: it is not. */
  readonly at?: number;
  /** Why the last try failed. */
  readonly error?: string;
  /** Somebody has begun to start it, under the container's lock. */
  readonly claim?: { readonly run: string; readonly at: number };
}

/** What survives the engine, beside what is kept with the container's own row. */
export interface Ledger {
  next(container: string): Next | undefined;
  write(container: string, next: Next): Next;
  /** The run that a user wanted to end. */
  stopped(container: string): string | undefined;
  stop(container: string, run: string): void;
  /** The run that ended for `restart`, whose start follows. */
  held(container: string): string | undefined;
  hold(container: string, run: string): void;
  /** The boot in which an engine last looked after this root. */
  boot(): string | undefined;
  setBoot(boot: string): void;
  forget(container: string): void;
  containers(): readonly string[];
}

const KINDS = ['next', 'stop', 'hold'] as const;

export function createLedger(state: PluginState): Ledger {
  const text = (key: string): string | undefined => {
    const value = state.get(key);
    return typeof value === 'string' ? value : undefined;
  };
  return {
    next: (container) => state.get(`next/${container}`) as Next | undefined,
    write(container, next) {
      state.set(`next/${container}`, next);
      return next;
    },
    stopped: (container) => text(`stop/${container}`),
    stop: (container, run) => state.set(`stop/${container}`, run),
    held: (container) => text(`hold/${container}`),
    hold: (container, run) => state.set(`hold/${container}`, run),
    boot: () => text('boot'),
    setBoot: (boot) => state.set('boot', boot),
    forget: (container) => {
      for (const kind of KINDS) if (state.get(`${kind}/${container}`) !== undefined) state.delete(`${kind}/${container}`);
    },
    containers: () => [...new Set(KINDS.flatMap((kind) => state.list(`${kind}/`).map(({ key }) => key.slice(kind.length + 1))))],
  };
}
