import { AsyncLocalStorage } from 'node:async_hooks';
import { type LogEntry } from '@engine/core/contracts/frontend';

/** On whose behalf something happens. */
export interface RequestContext {
  readonly uid: number;
  readonly pid: number;
  /** Where this caller reads what the engine itself has to say; nothing once it has gone. */
  write(line: string, entry: () => LogEntry): boolean;
  /** Something failed that nobody caught: this request is over. */
  fail(error: unknown): void;
}

/** The request that the running code belongs to. Undefined: engined's own doings. */
export const requestContext = new AsyncLocalStorage<RequestContext>();
