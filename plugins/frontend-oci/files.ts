import { closeSync, openSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { basename, dirname, join, resolve } from 'node:path';
import { type Invocation } from '@engine/core/contracts/frontend';
import { fail } from '@engine/core/errors';

const DESCRIPTORS = /^(?:\/dev\/fd|\/proc\/self\/fd|\/proc\/thread-self\/fd)\/(\d+)$/;
const STANDARD: Readonly<Record<string, number>> = { '/dev/stdin': 0, '/dev/stdout': 1, '/dev/stderr': 2 };
const descriptorOf = (path: string): number | undefined => {
  const [, fd] = DESCRIPTORS.exec(path) ?? [];
  return fd === undefined ? STANDARD[path] : Number(fd);
};

/** The caller's own standard output or error, when `path` names one. */
export function streamOf(invocation: Invocation, path: string): (() => NodeJS.WriteStream) | undefined {
  const fd = descriptorOf(path);
  return fd === 1 ? () => invocation.stdout : fd === 2 ? () => invocation.stderr : undefined;
}

/** A path that the caller names, as this process reaches it: from the caller's folder, and what is the caller's own is not ours. */
export function reachable({ cwd, caller }: Pick<Invocation, 'cwd' | 'caller'>, path: string): string {
  const whole = resolve(cwd, path);
  return caller ? caller.path(whole) : whole;
}

export interface PidFile {
  write(pid: number): void;
  /** What was begun goes away. */
  abandon(): void;
}

/** `--pid-file`: begun beside its place before anything is made, renamed into it. Errors: ERR_INVALID_VALUE. */
export function claimPidFile(invocation: Invocation, file: string | undefined): PidFile | undefined {
  if (file === undefined || file === '') return undefined;
  const path = reachable(invocation, file);
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(4).toString('hex')}`);
  const failed = (cause: unknown): Error => fail('ERR_INVALID_VALUE', `cannot write the pid file ${file}`, { operation: '--pid-file', path: file, errno: (cause as NodeJS.ErrnoException).code ?? 'EIO', hint: '' });
  let fd: number | undefined;
  try {
    fd = openSync(temporary, 'wx', 0o666 & ~(invocation.umask ?? 0));
  } catch (cause) {
    throw failed(cause);
  }
  const abandon = (): void => {
    if (fd === undefined) return;
    closeSync(fd);
    fd = undefined;
    unlinkSync(temporary);
  };
  return {
    write(pid) {
      if (fd === undefined) return;
      try {
        writeSync(fd, String(pid));
        renameSync(temporary, path);
      } catch (cause) {
        abandon();
        throw failed(cause);
      }
      closeSync(fd);
      fd = undefined;
    },
    abandon,
  };
}
