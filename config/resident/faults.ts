import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger } from 'pino';
import { describeError, isEngineError } from '@engine/core/errors';
import { ENGINED_FILES } from '@engine/native/launch';
import { requestContext } from './context.ts';

/** What the launcher tells somebody whose call was cut short. */
export function writeDied(folder: string, reason: string, plugin?: string): void {
  try {
    writeFileSync(join(folder, ENGINED_FILES.died), JSON.stringify({ pid: process.pid, reason, ...(plugin === undefined ? {} : { plugin }), time: new Date().toISOString() }), { mode: 0o600 });
  } catch {
    // then the caller is told less
  }
}

/**
 * Errors that nobody caught. One that belongs to a request ends that request; the others go on. One that belongs to none may have left
 * anything behind: the process ends, with its reason written down, and the next call starts another.
 */
export function catchFaults(folder: string, log: Logger, end: () => void): void {
  const handle = (error: unknown, what: string): void => {
    const request = requestContext.getStore();
    log.error({ err: error, stack: error instanceof Error ? error.stack : undefined }, what);
    if (request) return request.fail(error);
    if (isEngineError(error)) return;
    writeDied(folder, `${what}: ${describeError(error)}`, isEngineError(error) ? error.plugin : undefined);
    end();
  };
  process.on('uncaughtException', (error) => handle(error, 'an error that nobody caught'));
  process.on('unhandledRejection', (error) => handle(error, 'a rejection that nobody handled'));
}
