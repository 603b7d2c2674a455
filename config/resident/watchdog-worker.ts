/** What `engined.died` says, and each entry of `engined.blocked`. */
export interface Verdict {
  readonly pid: number;
  readonly reason: string;
  readonly plugin?: string;
  /** The innermost calls of the main thread, when it could be asked. */
  readonly stack?: readonly string[];
  /** ISO 8601. */
  readonly time: string;
}

type Message = { readonly call: { readonly number: number; readonly plugin: string; readonly what: string } }
  | { readonly plugin: string; readonly folder: string }
  | { readonly discard: readonly string[] }
  | { readonly limit: number; readonly tick: number }
  | { readonly compact: string; readonly request: number };

/**
 * The watchdog's thread. It is started from this function's source text, so that it needs no file of its own in the bundle: it may use nothing from
 * outside itself.
 */
export function watch(): void {
  const { workerData, parentPort } = process.getBuiltinModule('node:worker_threads');
  const fs = process.getBuiltinModule('node:fs');
  const { cells, cell, folder, ...first } = workerData as { cells: Int32Array; cell: { beat: number; now: number; open: number; count: number }; tick: number; limit: number; folder: string };
  let { limit, tick } = first;
  const post = parentPort?.postMessage.bind(parentPort);
  const calls = new Map<number, { plugin: string; what: string }>();
  const folders = new Map<string, string>();

  const compact = (path: string): void => {
    const { DatabaseSync } = process.getBuiltinModule('node:sqlite');
    const db = new DatabaseSync(path, { timeout: 100 });
    try {
      db.exec('PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=8388608');
      db.exec('PRAGMA wal_checkpoint(PASSIVE)');
      // the next writer begins the log anew, and has to sync its head: let that be this thread
      db.exec("INSERT INTO counters VALUES ('compacted', 1) ON CONFLICT DO UPDATE SET value = value + 1");
    } finally {
      db.close();
    }
  };

  /** As removeRecords in core/state/files.ts: never into `rootfs`, where something may be mounted. */
  const discard = (path: string, levels: number): void => {
    for (const entry of fs.readdirSync(path, { withFileTypes: true })) {
      const child = `${path}/${entry.name}`;
      if (!entry.isDirectory()) fs.unlinkSync(child);
      else if (entry.name === 'rootfs' || levels === 0) fs.rmdirSync(child);
      else discard(child, levels - 1);
    }
    fs.rmdirSync(path);
  };

  const write = (name: string, value: unknown): void => {
    const path = `${folder}/${name}`;
    fs.writeFileSync(`${path}.tmp`, `${JSON.stringify(value)}\n`, { mode: 0o600 });
    fs.renameSync(`${path}.tmp`, path);
  };
  const earlier = (): Verdict[] => {
    try {
      return JSON.parse(fs.readFileSync(`${folder}/engined.blocked`, 'utf8')) as Verdict[];
    } catch {
      return [];
    }
  };
  const scripts = new Map<string, string>();
  const condemn = (frames: readonly { functionName: string; location: { scriptId: string; lineNumber: number } }[]): void => {
    try {
      const stack = frames.map(({ functionName, location }) => ({ functionName, location, url: scripts.get(location.scriptId) ?? '' }));
      const running = calls.get(cells[cell.now] ?? 0);
      const begun = [...cells.subarray(cell.open)].flatMap((number) => calls.get(number) ?? []);
      const seen = stack.flatMap(({ url }) => [...folders].find(([, at]) => url.includes(`${at}/`))?.[0] ?? [])[0];
      const guilty = running ?? (seen === undefined ? undefined : (begun.find(({ plugin }) => plugin === seen) ?? { plugin: seen, what: 'a callback' }));
      const suspects = [...new Set(begun.map(({ plugin, what }) => `${plugin} in ${what}`))];
      const long = `for ${limit / 1000} s`;
      const reason = guilty ? `plugin ${guilty.plugin} blocked the engine ${long} in ${guilty.what}`
        : `the engine was blocked ${long}${suspects.length > 0 ? `; begun and not ended: ${suspects.join(', ')}` : ''}`;
      const lines = stack.slice(0, 10).map(({ functionName, url, location }) => `${functionName || '(anonymous)'} ${url}:${location.lineNumber + 1}`);
      const verdict: Verdict = { pid: process.pid, reason, ...(guilty && { plugin: guilty.plugin }), ...(lines.length > 0 && { stack: lines }), time: new Date().toISOString() };
      write('engined.died', verdict);
      write('engined.blocked', [...earlier().slice(-9), verdict]);
      fs.writeSync(2, `engined: ${reason}; it is ended, containers go on${lines.map((line) => `\n    at ${line}`).join('')}\n`);
    } finally {
      process.kill(process.pid, 'SIGKILL');
    }
  };
  /** Where is it? The debugger can stop JavaScript that spins; not what hangs in a system call. */
  const judge = (): void => {
    setTimeout(() => condemn([]), 2000);
    try {
      const { Session } = process.getBuiltinModule('node:inspector');
      const session = new Session();
      session.connectToMainThread();
      session.on('Debugger.scriptParsed', ({ params: { scriptId, url } }) => scripts.set(scriptId, url));
      session.on('Debugger.paused', ({ params }) => condemn(params.callFrames));
      session.post('Debugger.enable');
      session.post('Debugger.pause');
    } catch {
      // the time-out judges without
    }
  };

  let last = -1;
  let missed = 0;
  let timer: NodeJS.Timeout;
  const look = (): void => {
    const beat = Atomics.load(cells, cell.beat);
    missed = beat === last ? missed + 1 : 0;
    last = beat;
    // in ticks, not in time: a process that was stopped, and a machine that slept, have not been blocked
    if (missed * tick < limit) return;
    clearInterval(timer);
    judge();
  };
  timer = setInterval(look, tick);
  parentPort?.on('message', (message: Message) => {
    if ('call' in message) calls.set(message.call.number, message.call);
    else if ('folder' in message) folders.set(message.plugin, message.folder);
    else if ('limit' in message) {
      ({ limit, tick } = message);
      missed = 0;
      clearInterval(timer);
      timer = setInterval(look, tick);
    } else if ('discard' in message) {
      for (const path of message.discard) {
        try {
          discard(path, 2);
        } catch {
          // found again at the next start
        }
      }
    }
    else {
      let error: string | undefined;
      try {
        compact(message.compact);
      } catch (cause) {
        error = String(cause);
      }
      post?.({ done: message.request, error });
    }
  });
}
