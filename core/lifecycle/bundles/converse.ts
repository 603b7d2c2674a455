import * as fs from 'node:fs';
import { join } from 'node:path';
import { type CheckpointDriver, type Conversation, type Occasion } from '../../contracts/checkpoint/index.ts';
import { fail } from '../../errors/index.ts';
import { type CheckpointFolders } from '../../api/index.ts';
import { type CallerFds, type ProgramConnection, type Spawner } from '../../native/index.ts';
import { type Core } from '../core.ts';
import { type ResolvedDriver } from '../parts.ts';

/** Most of a log that is looked at. */
const TAIL = 64 << 10;
/** What such a program starts itself (tar, iptables) is the system's. */
const ENV = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];

function tailOf(file: string): string {
  let fd: number;
  try {
    fd = fs.openSync(file, 'r');
  } catch {
    return '';
  }
  try {
    const { size } = fs.fstatSync(fd);
    const buffer = Buffer.alloc(Math.min(TAIL, size));
    return buffer.toString('utf8', 0, fs.readSync(fd, buffer, 0, buffer.length, size - buffer.length));
  } finally {
    fs.closeSync(fd);
  }
}

/** Folders of an image, open. */
export interface OpenFolders {
  readonly images: number;
  readonly work?: number;
  close(): void;
}
/** `make`: those that are not there. Errors: ERR_INVALID_VALUE with path and errno. */
export function openFolders({ images, work }: CheckpointFolders, make: boolean): OpenFolders {
  const open: number[] = [];
  const close = (): void => {
    for (const fd of open.splice(0)) fs.closeSync(fd);
  };
  const one = (folder: string, what: string, isMade: boolean): number => {
    try {
      if (isMade) fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
      const fd = fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
      open.push(fd);
      return fd;
    } catch (cause) {
      close();
      const errno = String((cause as NodeJS.ErrnoException).code);
      throw fail('ERR_INVALID_VALUE', `cannot use folder ${folder}: ${errno}`, { operation: what, path: folder, errno, cause, hint: '' });
    }
  };
  return { images: one(images, 'image-path', make), ...(work !== undefined && { work: one(work, 'work-path', true) }), close };
}

export interface Exchange {
  readonly what: 'checkpoint' | 'restore';
  readonly driver: ResolvedDriver<CheckpointDriver>;
  readonly talk: Conversation;
  readonly spawner: Spawner;
  readonly folders: CheckpointFolders;
  /** Of ours, as fds of the program from PROGRAM_FDS.first on. */
  readonly fds?: readonly number[];
  readonly callerFds?: CallerFds;
  /** What a file that comes along is closed after. */
  on(occasion: Occasion, context: { readonly pid: number; readonly fd: number | undefined; readonly connection: ProgramConnection }): Promise<void> | void;
}

/** Speak with the program until it is done. Errors: ERR_OPERATION_FAILED, with what its log says; those of `on`. */
export async function converse(core: Core, { what, driver, talk, spawner, folders, fds = [], callerFds = { preserve: 0 }, on }: Exchange): Promise<void> {
  const log = join(folders.work ?? folders.images, talk.log);
  const { plugin } = driver.choice;
  const failed = (why: string, cause?: unknown): Error => {
    const { reasons, hint } = talk.explain(tailOf(log));
    return fail('ERR_OPERATION_FAILED', [`${what}: ${why}`, ...reasons].join(': '), { operation: what, path: log, plugin, hint: hint ?? `the log is ${log}`, ...(cause !== undefined && { cause }) });
  };
  // an earlier one would be told as ours
  fs.rmSync(log, { force: true });
  const connection = await core.parts.native.startProgram({ path: talk.program, argv: talk.argv, env: ENV, by: spawner, fds, callerFds });
  const say = (message: Uint8Array): void => {
    try {
      connection.send(message);
    } catch (cause) {
      throw failed(`${talk.program} has ended`, cause);
    }
  };
  try {
    say(talk.begin());
    for (;;) {
      const got = await connection.next();
      if (!got) throw failed(`${talk.program} ended without an answer`);
      const { fd } = got;
      try {
        const turn = hear(talk, got.message, failed);
        if ('failed' in turn) throw failed(turn.failed);
        if ('occasion' in turn) await on(turn.occasion, { pid: turn.pid ?? 0, fd, connection });
        if (turn.reply) say(turn.reply);
        if ('done' in turn) return;
      } finally {
        if (fd !== undefined) core.parts.native.close(fd);
      }
    }
  } finally {
    connection.close();
  }
}
function hear(talk: Conversation, message: Uint8Array, failed: (why: string, cause: unknown) => Error): ReturnType<Conversation['hear']> {
  try {
    return talk.hear(message);
  } catch (cause) {
    throw failed(`${talk.program} said what is no message`, cause);
  }
}
