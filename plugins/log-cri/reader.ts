import { statSync, watch, type FSWatcher } from 'node:fs';
import { join } from 'node:path';
import { type LogLine, type ReadLogOptions } from '@engine/core/contracts/log';
import { backward, endOfLines, ForwardReader, type RawLine } from './lines.ts';
import { closeFile, CURRENT, openAll, type LogFile } from './files.ts';

/** How often `ended()` and the folder are looked at when no event comes, ms: an end without output makes no event. */
const LOOK = 250;

/** A window of time as text: RFC 3339 in UTC with nanoseconds sorts as text. */
interface Window { readonly since: string; readonly until: string }
const windowOf = ({ since, until }: ReadLogOptions): Window => ({
  since: since ? since.toISOString().replace('Z', '') : '',
  until: until ? `${until.toISOString().replace('Z', '')}999999Z` : '~',
});
const inside = (line: RawLine, { since, until }: Window): boolean => line.time >= since && line.time <= until;

/** Where the last `count` lines begin, looking backwards from the end. A line is all its pieces; interleaved streams count together. */
async function findTail(files: readonly LogFile[], count: number, window: Window): Promise<{ readonly index: number; readonly start: number }> {
  let left = count;
  const open = new Set<string>();
  const [newest] = files;
  let place = { index: 0, start: newest ? await endOfLines(newest.fd, newest.size) : 0 };
  for (const [index, file] of files.entries()) {
    for await (const { line, start } of backward(file.fd, file.size)) {
      if (line.time > window.until) continue;
      if (line.time < window.since) return place;
      // Backwards, a line begins with its end: a whole piece, or the last piece of one that was never finished.
      if (!line.partial || !open.has(line.stream)) {
        if (left === 0) return place;
        left--;
        open.add(line.stream);
      }
      place = { index, start };
    }
  }
  return place;
}

/** Waits for a change of the folder, the next look, or the end of `signal`; never polls faster than {@link LOOK}. */
class Waiter {
  #watcher: FSWatcher | undefined;
  #wake: (() => void) | undefined;
  #changed = false;
  readonly #folder: string;
  readonly #signal: AbortSignal | undefined;
  readonly #notify = (): void => {
    this.#changed = true;
    this.#wake?.();
  };

  constructor(folder: string, signal: AbortSignal | undefined) {
    this.#folder = folder;
    this.#signal = signal;
    signal?.addEventListener('abort', this.#notify);
  }
  /** From now on changes are noticed, also those before the next {@link wait}. */
  watch(): void {
    this.#changed = false;
    if (this.#watcher) return;
    try {
      this.#watcher = watch(this.#folder, { persistent: false }, this.#notify);
      this.#watcher.on('error', () => {
        this.#watcher?.close();
        this.#watcher = undefined;
      });
    } catch {
      // Not there yet, or no inotify watches left: the timer does it alone.
    }
  }
  async wait(): Promise<void> {
    if (this.#changed || this.#signal?.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, LOOK);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
  close(): void {
    this.#watcher?.close();
    this.#signal?.removeEventListener('abort', this.#notify);
  }
}

/** Read the log in `folder`; see {@link LogDriver.read}. */
export async function* readLog(folder: string, options: ReadLogOptions): AsyncGenerator<LogLine> {
  const window = windowOf(options);
  const waiter = new Waiter(folder, options.signal);
  let files: LogFile[] = [];
  // What a generator holds open must be closed however it ends.
  const opened = new Set<LogFile>();
  const take = (some: LogFile[]): LogFile[] => {
    for (const file of some) opened.add(file);
    return some;
  };
  const drop = (file: LogFile): void => {
    opened.delete(file);
    closeFile(file);
  };
  try {
    if (options.follow) waiter.watch();
    files = take(openAll(folder));
    const all = options.tail === undefined && options.since === undefined;
    const from = all ? { index: files.length - 1, start: 0 } : await findTail(files, options.tail ?? Infinity, window);
    let current: { readonly file: LogFile; readonly reader: ForwardReader } | undefined;
    for (let index = from.index; index >= 0; index--) {
      const file = files[index];
      if (!file) continue;
      current = { file, reader: new ForwardReader(file.fd, index === from.index ? from.start : 0) };
      yield* within(current.reader, window, options.signal);
      if (options.signal?.aborted) return;
      if (index > 0) drop(file);
    }
    while (options.follow && !options.signal?.aborted && !isPast(options.until)) {
      waiter.watch();
      // Asked before reading: what was written before the end is then surely read.
      const ended = options.ended?.() ?? false;
      if (current) yield* within(current.reader, window, options.signal);
      if (isRotated(folder, current?.file)) {
        // What was written to the old file before it was renamed is complete now.
        if (current) yield* within(current.reader, window, options.signal);
        for (const file of take(openAll(folder, current?.file.ino)).reverse()) {
          if (current) drop(current.file);
          current = { file, reader: new ForwardReader(file.fd) };
          yield* within(current.reader, window, options.signal);
        }
        continue;
      }
      if (current?.reader.isBeyondEnd()) {
        // max-file=1: the one file was emptied.
        current = { file: current.file, reader: new ForwardReader(current.file.fd) };
        continue;
      }
      if (ended) return;
      await waiter.wait();
    }
  } finally {
    waiter.close();
    for (const file of opened) closeFile(file);
  }
}

const isPast = (until: Date | undefined): boolean => until !== undefined && until.getTime() < Date.now();

function isRotated(folder: string, file: LogFile | undefined): boolean {
  const stat = statSync(join(folder, CURRENT), { bigint: true, throwIfNoEntry: false });
  return stat !== undefined && stat.ino !== file?.ino;
}

async function* within(reader: ForwardReader, window: Window, signal: AbortSignal | undefined): AsyncGenerator<LogLine> {
  for await (const line of reader.more()) {
    if (signal?.aborted) return;
    if (line.time > window.until) return;
    if (inside(line, window)) yield { time: line.time, stream: line.stream, text: line.text };
  }
}
