import { type Effect } from '../../plan/types.ts';
import { type Driver, type RunContext } from '../common/index.ts';

/**
 * Where a container's output goes. The shim writes; a driver only says how, and reads back.
 * Features: `read`, `follow`.
 */
export interface LogDriver extends Driver {
  /** Options it accepts (`--log-opt`). Others are refused by name. */
  readonly options: ReadonlySet<string>;
  /** **plan** How the shim keeps the log: the log fields of operation `stdio`. Errors: ERR_INVALID_VALUE. */
  planLog(request: LogRequest, run: RunContext): { readonly logDir: string; readonly maxSize: bigint; readonly maxFiles: number; readonly ring: number };
  /** **read** Lines in order. `follow` ends when `signal` fires or the container is seen to have ended by `ended()`. */
  read(request: LogRequest & ReadLogOptions): AsyncIterable<LogLine>;
  /** as data: removes the log. */
  remove(request: LogRequest): readonly Effect[];
}
export interface LogRequest {
  readonly container: string;
  /** Host folder that belongs to this container's log. */
  readonly folder: string;
  readonly options: Readonly<Record<string, string>>;
}
export interface ReadLogOptions {
  readonly follow: boolean;
  readonly since?: Date;
  readonly until?: Date;
  /** Last N lines only. */
  readonly tail?: number;
  readonly signal?: AbortSignal;
  ended?(): boolean;
}
export interface LogLine {
  /** RFC 3339 with nanoseconds, as in the file. */
  readonly time: string;
  readonly stream: 'stdout' | 'stderr';
  /** With its newline, unless it was a partial line. */
  readonly text: Buffer;
}
