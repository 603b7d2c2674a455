import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { fail, isEngineError } from '@engine/core/errors';
import { type ProgramConnection, type StartProgram } from '@engine/core/native';
import { watchReadable } from './library.ts';
import { type Syscalls } from './syscalls.ts';

const FIRST = 3;
const LONGEST = 64 << 10;
/** BINPRM_BUF_SIZE */
const LONGEST_LINE = 256;
/** What goes with a terminal's master, as the shim has it (CONSOLE_NAME). */
const TERMINAL = Buffer.from('/dev/ptmx');

/** See Native.startProgram. */
export async function startProgram(calls: Syscalls, { path, argv, env, by, fds, callerFds }: StartProgram): Promise<ProgramConnection> {
  const failed = (cause: unknown): Error => {
    const errno = (cause as { errno?: unknown; code?: unknown }).code === 'ERR_NATIVE' ? (cause as { errno?: string }).errno : (cause as NodeJS.ErrnoException).code;
    return fail('ERR_NATIVE', `cannot start ${path}: ${errno}`, { operation: 'start', path, ...(errno !== undefined && { errno }), cause });
  };
  let program: number;
  let words: readonly string[];
  try {
    ({ program, words } = open(path, argv));
  } catch (cause) {
    throw failed(cause);
  }
  const [socket, theirs] = calls.packetPair();
  try {
    const pid = await by.spawn({ program, argv: words, env, fds: [theirs, ...fds], callerFds }).catch((cause: unknown) => {
      throw isEngineError(cause, 'ERR_NATIVE') ? failed(cause) : cause;
    });
    return converse(calls, socket, pid, callerFds.console === undefined ? undefined : FIRST + 1 + fds.length);
  } catch (error) {
    calls.close(socket);
    throw error;
  } finally {
    closeSync(program);
    calls.close(theirs);
  }
}

/** The program, or, of a script, whose name an executable fd would hide from it, its interpreter. */
function open(path: string, argv: readonly string[]): { readonly program: number; readonly words: readonly string[] } {
  const program = openSync(path, constants.O_RDONLY);
  const head = Buffer.alloc(LONGEST_LINE);
  const [, interpreter, argument] = /^#![ \t]*([^\s\0]+)[ \t]*([^\n\0]*)\n/.exec(head.toString('utf8', 0, readSync(program, head, 0, LONGEST_LINE, 0))) ?? [];
  if (interpreter === undefined) return { program, words: argv };
  closeSync(program);
  return { program: openSync(interpreter, constants.O_RDONLY), words: [interpreter, ...(argument?.trim() ? [argument.trim()] : []), path, ...argv.slice(1)] };
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
