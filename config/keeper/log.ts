import { fstatSync, ftruncateSync, writeSync } from 'node:fs';
import { type Logger } from 'pino';
import { describeError } from '@engine/core/errors';

const levels: Readonly<Record<string, number>> = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60 };

/** Lines as pino writes them, without pino: a third of the keeper's own memory. */
export function createPlainLog(level: string, write: (line: string) => void, bindings: Readonly<Record<string, unknown>> = {}): Logger {
  const least = levels[level] ?? (level === 'silent' ? Infinity : 30);
  const plain = (value: unknown): unknown => (value instanceof Error ? { message: describeError(value), stack: value.stack } : value);
  const logger: Record<string, unknown> = {
    level,
    bindings: () => bindings,
    isLevelEnabled: (name: string) => (levels[name] ?? 0) >= least,
    child: (more: Readonly<Record<string, unknown>>) => createPlainLog(level, write, { ...bindings, ...more }),
    flush() {},
    silent() {},
  };
  for (const [name, number] of Object.entries(levels)) {
    logger[name] = (first: unknown, text?: unknown): void => {
      if (number < least) return;
      const object = typeof first === 'object' && first !== null ? first : {};
      const fields = first instanceof Error ? { err: plain(first) } : Object.fromEntries(Object.entries(object).map(([key, value]) => [key, plain(value)]));
      write(`${JSON.stringify({ level: number, time: Date.now(), ...bindings, ...fields, msg: typeof first === 'string' ? first : (text ?? '') })}\n`);
    };
  }
  return logger as unknown as Logger;
}

/** Writes to a file of at most `limit` bytes: it begins anew then. */
export function boundedWriter(fd: number, limit: number): (line: string) => void {
  let size = sizeOf(fd);
  return (line) => {
    try {
      if (size > limit) {
        ftruncateSync(fd, 0);
        size = 0;
      }
      size += writeSync(fd, line);
    } catch {
      // a full disk: then it is not told
    }
  };
}
function sizeOf(fd: number): number {
  try {
    return fstatSync(fd).size;
  } catch {
    return 0;
  }
}
