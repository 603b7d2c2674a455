import { AsyncLocalStorage } from 'node:async_hooks';
import { type Logger } from 'pino';
import { type ServiceContext, type ServiceDefinition } from '@engine/core/plugin';
import { type Service } from './place.ts';

/** Pause before a service that failed is started again: doubled each time, ms. One that ran for a while begins at the first again. */
const FIRST_PAUSE = 250;
const LAST_PAUSE = 30_000;
const SETTLED = 60_000;
/** Longest time that a service may take to stop, ms. */
const STOP_PATIENCE = 2000;

type Running = Awaited<ReturnType<ServiceDefinition['start']>>;

export interface SupervisorOptions {
  readonly log: Logger;
  load(service: Service): Promise<ServiceDefinition>;
  context(service: Service, log: Logger): ServiceContext;
  readonly firstPause?: number;
}
/** Runs services: each by itself, started again when it fails. */
export interface Supervisor {
  /** From now on these run: what is new is started, what has other options or another version is started anew. Resolves when each was tried once. */
  run(services: readonly Service[]): Promise<void>;
  /** An error that nobody caught: the service that it belongs to is started anew; without one, all are. */
  fault(error: unknown): void;
  /** Why the keeper must stay: what services say. */
  needed(): readonly string[];
  stop(): Promise<void>;
}

interface Entry {
  readonly service: Service;
  readonly key: string;
  running?: Running | undefined;
  starting?: Promise<void> | undefined;
  started: number;
  pause: number;
  timer?: NodeJS.Timeout | undefined;
  closed: boolean;
}

export function createSupervisor({ log, load, context, firstPause = FIRST_PAUSE }: SupervisorOptions): Supervisor {
  const entries = new Map<string, Entry>();
  const current = new AsyncLocalStorage<Entry>();
  const logOf = ({ service }: Entry): Logger => log.child({ plugin: service.plugin });

  const stopRunning = async (entry: Entry): Promise<void> => {
    const { running } = entry;
    entry.running = undefined;
    if (!running) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        logOf(entry).warn('the service does not stop in time');
        resolve();
      }, STOP_PATIENCE);
    });
    await Promise.race([
      Promise.resolve()
        .then(() => running.stop())
        .catch((err: unknown) => logOf(entry).warn({ err }, 'the service failed when it was stopped')),
      late,
    ]);
    clearTimeout(timer);
  };
  const failed = (entry: Entry, err: unknown, what: string): void => {
    if (entry.closed || entry.timer) return;
    if (entry.running && Date.now() - entry.started > SETTLED) entry.pause = firstPause;
    logOf(entry).error({ err }, `${what}; it is started again in ${entry.pause} ms`);
    entry.timer = setTimeout(() => {
      entry.timer = undefined;
      void stopRunning(entry).then(() => start(entry));
    }, entry.pause);
    entry.pause = Math.min(entry.pause * 2, LAST_PAUSE);
  };
  const start = (entry: Entry): Promise<void> => {
    entry.starting ??= current
      .run(entry, async () => {
        if (entry.closed) return;
        const definition = await load(entry.service);
        const running = await definition.start(context(entry.service, logOf(entry)));
        if (typeof running?.stop !== 'function') throw new TypeError('start must return an object with stop');
        entry.running = running;
        entry.started = Date.now();
        if (entry.closed) await stopRunning(entry);
      })
      .catch((err: unknown) => failed(entry, err, 'the service failed to start'))
      .finally(() => (entry.starting = undefined));
    return entry.starting;
  };
  const close = async (entry: Entry): Promise<void> => {
    entry.closed = true;
    clearTimeout(entry.timer);
    await entry.starting;
    await stopRunning(entry);
  };

  return {
    async run(services) {
      await Promise.all(
        services.map(async (service) => {
          const key = JSON.stringify(service);
          const before = entries.get(service.plugin);
          if (before?.key === key) return before.starting;
          const entry: Entry = { service, key, started: 0, pause: firstPause, closed: false };
          entries.set(service.plugin, entry);
          if (before) await close(before);
          return start(entry);
        }),
      );
    },
    fault(error) {
      const entry = current.getStore();
      if (entry) return failed(entry, error, 'the service failed');
      log.error({ err: error }, 'an error that nobody caught');
      for (const each of entries.values()) failed(each, error, 'started anew with all others');
    },
    needed() {
      return [...entries.values()].flatMap((entry) => {
        try {
          return (entry.running?.needed?.() ?? []).map((reason) => `${entry.service.plugin}: ${reason}`);
        } catch (err) {
          failed(entry, err, 'the service failed');
          return [];
        }
      });
    },
    async stop() {
      await Promise.all([...entries.values()].map(close));
      entries.clear();
    },
  };
}
