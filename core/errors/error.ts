import { catalogue, type ErrorCode } from './catalogue.ts';

/** What an error carries besides its message. Every field is plain data, so it survives a socket. */
export interface ErrorDetails {
  /** What was being done, e.g. `mount`, `container start`. */
  operation?: string;
  /** The path, name or id it was done to. */
  path?: string;
  /** The kernel's errno by name, e.g. `ENOENT`. */
  errno?: string;
  /** The plugin that asked for the operation. */
  plugin?: string;
  /** What to change, in one sentence; overrides the catalogue's hint. */
  hint?: string;
  /** Whatever caused this one. */
  cause?: unknown;
  /** Exit code of the command line, where it isn't the catalogue's. */
  exitCode?: number;
  /** Anything else worth reporting, as plain data. */
  data?: Record<string, unknown>;
}

/**
 * The one error class of the engine. Match by `code` (see {@link isEngineError}), never by class:
 * a plugin may carry another copy of this module.
 */
export class EngineError extends Error {
  readonly code: ErrorCode;
  readonly operation?: string;
  readonly path?: string;
  readonly errno?: string;
  readonly plugin?: string;
  readonly hint: string;
  readonly exitCode: number;
  readonly data?: Record<string, unknown>;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    const entry = catalogue[code];
    this.name = 'EngineError';
    this.code = code;
    this.hint = details.hint ?? entry.hint;
    this.exitCode = details.exitCode ?? entry.exitCode;
    if (details.operation !== undefined) this.operation = details.operation;
    if (details.path !== undefined) this.path = details.path;
    if (details.errno !== undefined) this.errno = details.errno;
    if (details.plugin !== undefined) this.plugin = details.plugin;
    if (details.data !== undefined) this.data = details.data;
  }

  toJSON(): Record<string, unknown> {
    const { code, message, operation, path, errno, plugin, hint, data } = this;
    const cause = this.cause instanceof Error ? this.cause.message : this.cause;
    return { code, message, operation, path, errno, plugin, hint, data, cause };
  }
}

/** Shorthand: `throw fail('ERR_NO_SUCH_IMAGE', 'no such image: x', {path: 'x'})`. */
export function fail(code: ErrorCode, message: string, details?: ErrorDetails): EngineError {
  return new EngineError(code, message, details);
}

/** Is `error` an engine error (with `code`, where given)? By shape, so that other copies of core match too. */
export function isEngineError(error: unknown, code?: ErrorCode): error is EngineError {
  if (!(error instanceof Error) || !('code' in error) || !('hint' in error)) return false;
  return code === undefined ? String(error.code).startsWith('ERR_') : error.code === code;
}

/** What a command line that this ended exits with. Never 0: an error made by hand, or by another copy of core, may say less than ours. */
export function exitCodeOf(error: unknown): number {
  if (!isEngineError(error)) return 125;
  const own = error.exitCode as number | undefined;
  return own || ((catalogue as Readonly<Record<string, { exitCode: number } | undefined>>)[error.code]?.exitCode ?? 125);
}

/**
 * `text` with what a terminal would obey, or what would hide text (C0 and C1 controls, bidirectional overrides), as escapes: names, commands
 * and paths of images and containers are other people's words. Newlines and tabs stay unless `strict`.
 */
export function visible(text: string, strict = false): string {
  return text.replaceAll(/[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, (character) => {
    if (!strict && (character === '\n' || character === '\t')) return character;
    return { '\n': '\\n', '\t': '\\t' }[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** The one line a person sees: `message (errno) [plugin x]: cause; hint`. */
export function describeError(error: unknown): string {
  return visible(describe(error));
}
function describe(error: unknown): string {
  if (!isEngineError(error)) return error instanceof Error ? error.message : String(error);
  let line = error.message;
  if (error.errno && !line.includes(error.errno)) line += ` (${error.errno})`;
  if (error.plugin && !line.includes(`plugin ${error.plugin}`)) line += ` [plugin ${error.plugin}]`;
  if (error.cause !== undefined) line += `: ${describe(error.cause)}`;
  if (error.hint) line += `; ${error.hint}`;
  return line;
}
