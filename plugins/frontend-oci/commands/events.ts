import { setTimeout as sleep } from 'node:timers/promises';
import { fail, isEngineError } from '@engine/core/errors';
import { command, type CommandContext } from '../command.ts';
import { exactNumbers, statsJson } from '../stats.ts';

const UNITS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, 'µs': 1e-3, 'μs': 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
/** A time as Go writes it (`1m30s`, `250ms`), in ms. Errors: ERR_INVALID_VALUE. */
export function readDuration(flag: string, text: string): number {
  const wrong = (): Error => fail('ERR_INVALID_VALUE', `invalid value "${text}" for --${flag}: not a time such as 5s or 250ms`, { operation: 'events', hint: '', exitCode: 1 });
  if (!/^\+?(?:\d+(?:\.\d*)?(?:ns|us|µs|μs|ms|s|m|h))+$/.test(text)) throw wrong();
  let total = 0;
  for (const [, digits, unit] of text.matchAll(/(\d+(?:\.\d*)?)(ns|us|µs|μs|ms|s|m|h)/g)) total += Number(digits) * (UNITS[unit ?? ''] ?? NaN);
  if (!(total > 0)) throw fail('ERR_INVALID_VALUE', 'duration interval must be greater than 0', { operation: 'events', hint: '', exitCode: 1 });
  return total;
}

const line = (type: string, id: string, data?: unknown): string => `${exactNumbers({ type, id, ...(data !== undefined && { data }) })}\n`;

/** Numbers again and again, and kills as they come, until the container ends or the caller goes. */
async function follow(context: CommandContext, id: string, interval: number): Promise<void> {
  const bundles = await context.bundles();
  const ref = context.ref(id);
  const over = new AbortController();
  const end = (): void => over.abort();
  const { signal: gone } = context.invocation;
  gone?.addEventListener('abort', end, { once: true });
  const kills = async (): Promise<void> => {
    let told: number | undefined;
    for (;;) {
      told = await bundles.oom(ref, over.signal, told);
      if (told === undefined) return end(); // it has ended: nobody waits for the next look
      await context.print(line('oom', id));
    }
  };
  const watching = kills().catch((error: unknown) => {
    // a driver that cannot tell of kills still counts
    if (isEngineError(error, 'ERR_FEATURE_MISSING')) {
      context.report.warn(error.message);
      context.report.settle();
    } else {
      end();
      if (!isEngineError(error, 'ERR_NOT_RUNNING') && !isEngineError(error, 'ERR_NO_SUCH_CONTAINER')) throw error;
    }
  });
  try {
    while (!over.signal.aborted) {
      await sleep(interval, undefined, { signal: over.signal }).catch(() => {});
      if (over.signal.aborted) return;
      await context.print(line('stats', id, statsJson(await bundles.stats(ref))));
    }
  } catch (error) {
    if (!isEngineError(error, 'ERR_NOT_RUNNING') && !isEngineError(error, 'ERR_NO_SUCH_CONTAINER')) throw error;
  } finally {
    end();
    gone?.removeEventListener('abort', end);
    await watching;
  }
}

export const eventsCommand = command({
  name: 'events', usage: '<container-id>', summary: 'print what a container uses, and kills for want of memory, as lines of JSON',
  flags: {
    interval: { type: 'string', value: 'TIME', help: 'time between two looks (default 5s)' },
    stats: { type: 'boolean', help: 'one look, then end' },
  },
  args: [1, 1],
  async run(context, flags, [id = '']) {
    const interval = readDuration('interval', flags.interval ?? '5s');
    const bundles = await context.bundles();
    const { status } = await bundles.state(context.ref(id));
    if (status === 'stopped') throw fail('ERR_NOT_RUNNING', `container with id ${id} is not running`, { operation: 'events', path: id, hint: '' });
    if (flags.stats) await context.print(line('stats', id, statsJson(await bundles.stats(context.ref(id)))));
    else await follow(context, id, interval);
    return 0;
  },
});
