import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fail, visible } from '@engine/core/errors';
import { type Invocation } from '@engine/core/contracts/frontend';
import { reachable, streamOf } from './files.ts';

export type Level = 'debug' | 'warning' | 'error';
export interface Report {
  /** Open the log. Errors: ERR_INVALID_VALUE. */
  open(): Promise<void>;
  debug(text: string): void;
  /** Kept until the command succeeds, or goes on for long ({@link settle}): podman reads a log with an error as one JSON document. */
  warn(text: string): void;
  settle(): void;
  /** What ended the command: in the log, and in plain words on standard error where that is not the log. */
  error(text: string): Promise<void>;
  /** Everything is written. */
  close(): Promise<void>;
}
export interface ReportOptions {
  readonly log?: string | undefined;
  readonly json: boolean;
  readonly debug: boolean;
}

/** Longest wait for a fifo's reader, or for room in it, ms. */
const PATIENCE = 5000;

/** As Go's %q does in logrus: only what needs quotes gets them. */
const quote = (text: string): string => (/^[\w\-./@^+]+$/.test(text) ? text : JSON.stringify(text));
const timeOf = (now: Date): string => now.toISOString().replace(/\.\d+Z$/, 'Z');

/** One line of the log, as logrus writes it: containerd, podman and others parse it. */
export function logLine(json: boolean, level: Level, text: string, now = new Date()): string {
  const time = timeOf(now);
  return json ? `${JSON.stringify({ level, msg: text, time })}\n` : `time=${quote(time).replace(/^(?!")(.*)$/, '"$1"')} level=${level} msg=${quote(text)}\n`;
}

/** A fifo is opened as soon as somebody reads it. */
async function openLog(path: string, mode: number): Promise<number> {
  const end = Date.now() + PATIENCE;
  for (;;) {
    try {
      return openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOCTTY, mode);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENXIO' || Date.now() > end) throw fail('ERR_INVALID_VALUE', `cannot open the log ${path}`, { operation: '--log', path, errno: code ?? 'EIO', hint: '', exitCode: 1 });
      await sleep(10);
    }
  }
}

async function writeAll(fd: number, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  const end = Date.now() + PATIENCE;
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || Date.now() > end) throw error;
      await sleep(5);
    }
  }
}

export function createReport(invocation: Invocation, { log, json, debug }: ReportOptions): Report {
  // streams are made when something is written there
  const stderr = (): NodeJS.WriteStream => invocation.stderr;
  const stream = log === undefined || log === '' ? stderr : streamOf(invocation, log);
  let fd: number | undefined;
  let isBroken = false;
  let last: Promise<void> = Promise.resolve();
  const held: string[] = [];
  const plain = (text: string): string => visible(text.replaceAll(/\s*\n\s*/g, ' ').trim());
  const print = (to: () => NodeJS.WriteStream, text: string): Promise<void> => new Promise((resolve) => void to().write(text, () => resolve()));
  const line = (level: Level, text: string): void => {
    const words = logLine(json, level, plain(text));
    last = last.then(async () => {
      if (stream) return print(stream, words);
      if (fd === undefined) return level === 'error' && !isBroken ? undefined : print(stderr, words);
      try {
        await writeAll(fd, words);
      } catch (error) {
        await print(stderr, `engine-oci: cannot write to the log ${log}: ${(error as Error).message}: ${words}`);
      }
    });
  };
  const settle = (): void => {
    for (const text of held.splice(0)) line('warning', text);
  };
  return {
    async open() {
      if (stream || fd !== undefined) return;
      isBroken = true;
      fd = await openLog(reachable(invocation, log ?? ''), 0o644 & ~(invocation.umask ?? 0));
      isBroken = false;
    },
    debug(text) {
      if (debug) line('debug', text);
    },
    warn: (text) => void held.push(text),
    settle,
    async error(text) {
      if (stream) settle();
      for (const warning of held.splice(0)) last = last.then(() => print(stderr, `warning: ${plain(warning)}\n`));
      line('error', text);
      // without a log that can be opened its line is there already
      if (stream?.() !== stderr() && !isBroken) last = last.then(() => print(stderr, `${plain(text)}\n`));
      await last;
    },
    async close() {
      settle();
      await last;
      if (fd !== undefined) closeSync(fd);
      fd = undefined;
    },
  };
}
