import { describeError, fail } from '@engine/core/errors';
import { connectBus, SYSTEMD, type Bus } from './bus.ts';
import { objectPath } from './slices.ts';
import { membersOf } from './variant.ts';

/** A property of a unit as plain data: its name, the D-Bus signature of its value, the value. Numbers of 64 bits may be given as text. */
export type Property = readonly [name: string, signature: string, value: unknown];

export interface ScopeRequest {
  readonly unit: string;
  readonly properties: readonly Property[];
  /** Is what is to be in the scope there already? Asked when an answer was lost. */
  readonly isPlaced: () => boolean;
}
export interface Systemd {
  /** Resolves when the scope is active. Errors: ERR_DRIVER_UNAVAILABLE (nobody answers), ERR_OPERATION_FAILED with systemd's words, ERR_TIMEOUT. */
  startScope(request: ScopeRequest, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** How long a scope of the same name, which is about to go, is waited for: ms. */
const EXISTS_MS = 3000;
const PAUSE_MS = 50;
/** How often a unit is looked at, should the word that its job is over be lost: ms. */
const LOOK_MS = 500;

const U64_MAX = 2n ** 64n - 1n;
/** A value as the library wants it: `t` and `x` as bigint; `infinity` is the largest. */
function toWire(signature: string, value: unknown): unknown {
  if (signature === 't' || signature === 'x') return value === 'infinity' ? U64_MAX : BigInt(value as string);
  if (signature.startsWith('a')) return (value as readonly unknown[]).map((one) => toWire(signature.slice(1), one));
  if (!signature.startsWith('(')) return value;
  const types = membersOf(signature);
  return (value as readonly unknown[]).map((one, i) => toWire(types[i] ?? '', one));
}

const nameOf = (error: unknown): string => (error as { readonly dbusName?: string }).dbusName ?? '';
/** The connection has gone, systemd executes itself anew, or the bus does: what was asked may have been done. */
const isLost = (error: unknown): boolean => /\.(NoReply|Disconnected|ServiceUnknown|NameHasNoOwner)$/.test(nameOf(error)) || /^E(PIPE|CONNRESET|CONNREFUSED)$/.test((error as NodeJS.ErrnoException).code ?? '');

function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  signal.addEventListener('abort', () => resolve(), { once: true });
  return promise.finally(() => clearTimeout(timer));
}

/** `open`: another bus, for tests. One connection serves all, and is made when it is first needed. */
export function createSystemd(open: () => Promise<Bus> = connectBus): Systemd {
  let connection: Promise<Bus> | undefined;
  /** Who waits for which job. */
  const waiting = new Map<string, (result: string) => void>();
  /** Jobs that were over before their number was known here; kept while somebody asks for one. */
  const over = new Map<string, string>();
  let asking = 0;
  /** Who is to hear that a connection has gone: a promise would keep each of them for as long as it lasts. */
  const losers = new WeakMap<Bus, Set<() => void>>();

  function bus(): Promise<Bus> {
    if (connection) return connection;
    const opening = open().then((found) => {
      found.onJob((job, result) => {
        const wake = waiting.get(job);
        if (wake) wake(result);
        else if (asking > 0) over.set(job, result);
      });
      const ours = new Set<() => void>();
      losers.set(found, ours);
      void found.closed.then(() => {
        if (connection === opening) connection = undefined;
        losers.delete(found);
        for (const tell of ours) tell();
      });
      return found;
    });
    connection = opening;
    opening.catch(() => {
      if (connection === opening) connection = undefined;
    });
    return opening;
  }

  /** The result of a job; from the state of its unit when nobody says that it is over. */
  async function finished(found: Bus, unit: string, job: string, signal: AbortSignal): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const known = over.get(job);
    over.delete(job);
    if (known !== undefined) return known;
    waiting.set(job, resolve);
    const stop = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', stop, { once: true });
    const lost = (): void => reject(Object.assign(new Error('the connection to systemd was lost'), { dbusName: 'org.freedesktop.DBus.Error.Disconnected' }));
    const ours = losers.get(found);
    if (ours) ours.add(lost);
    else lost();
    const look = setInterval(() => {
      found.call<string>({ path: objectPath(unit), interface: 'org.freedesktop.DBus.Properties', member: 'Get', signature: 'ss', body: [SYSTEMD.unit, 'ActiveState'], signal })
        .then((state) => { if (state === 'active') resolve('done'); }, () => {});
    }, LOOK_MS);
    try {
      return await promise;
    } finally {
      clearInterval(look);
      ours?.delete(lost);
      waiting.delete(job);
      signal.removeEventListener('abort', stop);
    }
  }

  async function start({ unit, properties }: ScopeRequest, signal: AbortSignal): Promise<string> {
    const found = await bus().catch((error: unknown) => {
      throw fail('ERR_DRIVER_UNAVAILABLE', `systemd cannot be reached: ${describeError(error)}`, { path: unit, cause: error, hint: 'is systemd, or the system bus, in order? Without it: drivers: { cgroup: v2 }' });
    });
    asking++;
    try {
      const wire = properties.map(([name, signature, value]) => [name, [signature, toWire(signature, value)]]);
      const job = await found.call<string>({ member: 'StartTransientUnit', signature: 'ssa(sv)a(sa(sv))', body: [unit, 'fail', wire, []], signal });
      return await finished(found, unit, job, signal);
    } finally {
      if (--asking === 0) over.clear();
    }
  }

  return {
    async startScope(request, signal) {
      const { unit, isPlaced } = request;
      const patience = performance.now() + EXISTS_MS;
      const refused = (text: string, cause: unknown, hint?: string): Error => fail('ERR_OPERATION_FAILED', `systemd did not make scope ${unit}: ${text}`, { operation: 'StartTransientUnit', path: unit, cause, ...(hint && { hint }) });
      for (let lost: unknown; ;) {
        try {
          const result = await start(request, signal);
          if (result === 'done') return;
          throw refused(`its job ended as ${result}`, undefined, `see: journalctl -u ${unit}`);
        } catch (error) {
          if (signal.aborted) throw fail('ERR_TIMEOUT', `systemd took too long to make scope ${unit}`, { operation: 'StartTransientUnit', path: unit, cause: lost ?? error, hint: 'see: systemctl status; systemctl list-jobs' });
          const exists = nameOf(error) === 'org.freedesktop.systemd1.UnitExists';
          if ((exists || isLost(error)) && isPlaced()) return;
          if (!isLost(error) && !(exists && performance.now() < patience)) {
            throw nameOf(error) ? refused((error as Error).message, error, exists ? 'another run, or another runtime, has a scope of that name' : undefined) : error;
          }
          lost = error;
          await pause(PAUSE_MS, signal);
        }
      }
    },
    async close() {
      const open = connection;
      connection = undefined;
      await open?.then((found) => found.close(), () => {});
    },
  };
}
