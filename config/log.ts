import { createRequire } from 'node:module';
import { writeSync } from 'node:fs';
import { type Bindings, type ChildLoggerOptions, type Logger } from 'pino';
import { describeError } from '@engine/core/errors';
import { type LogEntry } from '@engine/core/contracts/frontend';

const levels = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60, silent: Infinity } as const;
type Level = keyof typeof levels;
const names = Object.keys(levels).filter((name) => name !== 'silent') as Exclude<Level, 'silent'>[];

export interface LogOptions {
  readonly level: Level;
  readonly format: 'text' | 'json';
  /** Takes whole lines; default stderr, written at once. `entry`: what the line says, for who writes it in a form of his own. */
  readonly write?: (line: string, entry: () => LogEntry) => void;
}

/** A pino logger that loads pino with the first line that is really written: most invocations write none. */
export function createLog({ level, format, write = (line) => void writeSync(2, line) }: LogOptions): Logger {
  return lazy(
    () => {
      const pino = createRequire(import.meta.url)('pino') as typeof import('pino').default;
      const take = (line: string): void => {
        const entry = (): LogEntry => entryOf(JSON.parse(line) as Record<string, unknown>);
        write(format === 'json' ? line : humanLine(entry()), entry);
      };
      return pino({ level, base: null, serializers: { err: (error: unknown) => ({ message: describeError(error) }) } }, { write: take });
    },
    level,
    {},
  );
}

function lazy(make: () => Logger, level: Level, bindings: Bindings): Logger {
  let made: Logger | undefined;
  const real = (): Logger => (made ??= make());
  const logger: Record<string, unknown> = {
    level,
    bindings: () => bindings,
    isLevelEnabled: (name: Level) => levels[name] >= levels[level],
    child: (more: Bindings, options: ChildLoggerOptions = {}) =>
      lazy(() => real().child(more, options), (options.level as Level | undefined) ?? level, { ...bindings, ...more }),
    flush() {},
    silent() {},
  };
  for (const name of names) {
    logger[name] = levels[name] < levels[level] ? () => {} : (...args: [object, string]) => real()[name](...args);
  }
  return logger as unknown as Logger;
}

function entryOf({ level, msg, plugin, err }: Record<string, unknown>): LogEntry {
  const name = names.find((candidate) => levels[candidate] === level) ?? 'info';
  const reason = err === undefined ? '' : `: ${String((err as { message?: unknown }).message)}`;
  return { level: name === 'warn' ? 'warning' : name, text: `${plugin === undefined ? '' : `[plugin ${String(plugin)}] `}${String(msg ?? '')}${reason}` };
}
const humanLine = ({ level, text }: LogEntry): string => `engine: ${level}: ${text}\n`;
