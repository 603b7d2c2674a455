import { endProcess } from '@engine/native/end';
import { FILES } from './place.ts';
import { boundedWriter, createPlainLog } from './log.ts';
import { keep } from './keeper.ts';
import { readWork } from './place.ts';
import { version } from '../version.ts';

const LOG_LIMIT = 1 << 20;

/** `node keeper.js RUNROOT`, started by the launcher: see README.md. */
async function main(runRoot: string): Promise<void> {
  process.umask(0o077);
  process.title = `engine-keeper ${runRoot}`;
  const log = createPlainLog(readWork(runRoot)?.level ?? 'info', boundedWriter(2, LOG_LIMIT));
  const ending = new AbortController();
  let running: { readonly fault: (error: unknown) => void; readonly reload: () => void } | undefined;
  const fault = (error: unknown): void => {
    if (running) running.fault(error);
    else log.error({ err: error }, 'an error that nobody caught');
  };
  process.on('uncaughtException', fault);
  process.on('unhandledRejection', fault);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => ending.abort());
  process.on('SIGHUP', () => running?.reload());
  process.on('SIGPIPE', () => {});
  // without a listener it would open Node's inspector to every local user
  process.on('SIGUSR1', () => {});
  const why = await keep({ runRoot, script: process.argv[1] ?? '', version, log, signal: ending.signal, onRunning: (it) => (running = it) });
  log.info({ pid: process.pid }, `the keeper ends: ${why}`);
}

const [, , runRoot] = process.argv;
if (runRoot === undefined || !runRoot.startsWith('/')) {
  process.stderr.write(`usage: keeper RUNROOT (the folder of ${FILES.lock})\n`);
  process.exitCode = 2;
} else {
  main(runRoot).then(
    () => endProcess(0),
    (error: unknown) => {
      process.stderr.write(`engine keeper: ${String((error as Error).stack ?? error)}\n`);
      endProcess(1);
    },
  );
}
