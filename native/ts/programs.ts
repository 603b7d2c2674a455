import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { type ProgramConnection, type StartProgram } from '@engine/core/native';
import { watchReadable } from './library.ts';
import { type Syscalls } from './syscalls.ts';

const FIRST = 3;
const LONGEST = 64 << 10;
/** What goes with a terminal's master, as the shim has it (CONSOLE_NAME). */
const TERMINAL = Buffer.from('/dev/ptmx');

/** See Native.startProgram. */
export async function startProgram(calls: Syscalls, { path, argv, env, by, fds, callerFds }: StartProgram): Promise<ProgramConnection> {
  let program: number;
  try {
    program = openSync(path, constants.O_RDONLY);
  } catch (cause) {
    const errno = String((cause as NodeJS.ErrnoException).code);
    throw fail('ERR_NATIVE', `cannot start ${path}: ${errno}`, { operation: 'start', path, errno, cause });
  }
  const [socket, theirs] = calls.packetPair();
  try {
    const pid = await by.spawn({ program, argv, env, fds: [theirs, ...fds], callerFds });
    return converse(calls, socket, pid, callerFds.console === undefined ? undefined : FIRST + 1 + fds.length);
  } catch (error) {
    calls.close(socket);
    throw error;
  } finally {
    closeSync(program);
    calls.close(theirs);
  }
}

function converse(calls: Syscalls, socket: number, pid: number, terminal: number | undefined): ProgramConnection {
  const buffer = Buffer.alloc(LONGEST);
  let wakeUp: (() => void) | undefined;
  let open = true;
  const readable = (): Promise<void> => new Promise((resolve) => {
    const watch = watchReadable(socket, () => wakeUp?.());
    wakeUp = () => {
      wakeUp = undefined;
      watch.close();
      resolve();
    };
  });
  return {
    pid,
    send(message) {
      try {
        writeSync(socket, message);
      } catch (cause) {
        const errno = String((cause as NodeJS.ErrnoException).code);
        throw fail('ERR_NATIVE', `the program with pid ${pid} does not listen any more`, { operation: 'send', errno, cause });
      }
    },
    async next() {
      while (open) {
        const got = calls.receive(socket, buffer);
        if (got?.size === 0) return undefined;
        if (got) return { message: Buffer.from(buffer.subarray(0, got.size)), ...(got.fd !== undefined && { fd: got.fd }) };
        await readable();
      }
      return undefined;
    },
    sendTerminal(fd) {
      if (terminal === undefined) throw fail('ERR_NATIVE', 'nobody waits for a terminal', { operation: 'send a terminal' });
      // the caller has connected it, and given it to the program, which has no use for it
      const receiver = calls.takeFd(pid, terminal);
      try {
        calls.sendWithFd(receiver, TERMINAL, fd);
      } finally {
        calls.close(receiver);
      }
    },
    close() {
      if (!open) return;
      open = false;
      wakeUp?.();
      calls.close(socket);
    },
  };
}
