import { Socket } from 'node:net';
import { createSyscalls, type Syscalls } from '@engine/native';
import { SERVE_FD } from '@engine/native/launch';
import { loadFrontend } from '../frontend.ts';
import { startEngined } from '../launch.ts';
import { createLog } from '../log.ts';
import { openEngine } from '../open.ts';
import { createInstances } from './instances.ts';
import { createServer } from './server.ts';

/** Longest time that is taken to undo what was begun for a launcher that has gone, ms. */
const PATIENCE = 60_000;

/**
 * `--serve-one`: serve the launcher whose connection is fd SERVE_FD as the resident engine would, then see to it that there is one for the next. Resolves when all is
 * done that was begun. The launcher asked for a process of its own: nothing is left to it.
 */
export async function serveOne(): Promise<number> {
  process.umask(0o022);
  for (const signal of ['SIGPIPE', 'SIGUSR1'] as const) process.on(signal, () => {});
  let loaded: Syscalls | undefined;
  const calls = (): Syscalls => (loaded ??= createSyscalls());
  let resident = false;
  const instances = createInstances({ open: (options) => openEngine({ ...options, passing: true }) });
  const server = createServer({
    alone: true,
    instances,
    calls: {
      // the socket was made by it
      peer: () => ({ pid: process.ppid, uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }),
      sendWithFd: (...args) => calls().sendWithFd(...args),
      sendWithFds: (...args) => calls().sendWithFds(...args),
      socketPair: () => calls().socketPair(),
    },
    frontend: loadFrontend,
    log: createLog({ level: 'warn', format: 'text' }),
    busyWith: () => undefined,
    wake: () => Promise.resolve(),
    onConfig: (config) => (resident = config.resident === 'auto'),
  });
  const socket = new Socket({ fd: SERVE_FD, readable: true, writable: true, allowHalfOpen: true });
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  const served = server.accept(socket).then(() => server.settled());
  await Promise.race([served, closed.then(() => new Promise((resolve) => setTimeout(resolve, PATIENCE).unref()))]);
  await instances.close();
  if (resident && process.geteuid?.() === 0) startEngined(process.env);
  return 0;
}
