import { fstatSync, ftruncateSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { ENGINED_FD, ENGINED_FILES } from '@engine/native/launch';
import { type Syscalls } from '@engine/native';

/** Did somebody give us a listening socket, as sd_listen_fds(3) has it? Takes the variables away: they are not for our children. */
export function takeListenFd(env: NodeJS.ProcessEnv): number | undefined {
  const { LISTEN_FDS: count, LISTEN_PID: pid } = env;
  delete env.LISTEN_FDS;
  delete env.LISTEN_PID;
  delete env.LISTEN_FDNAMES;
  if (!count || Number(count) < 1) return undefined;
  if (pid && Number(pid) !== process.pid) return undefined;
  return ENGINED_FD.listen;
}

/** The lock of who serves this folder: the one we were born with, or taken now; not signed yet. Undefined: another engined has it. */
export function takeLock(folder: string, calls: Pick<Syscalls, 'lock'>): { readonly fd: number; readonly inherited: boolean } | undefined {
  const path = join(folder, ENGINED_FILES.lock);
  const given = inherited(path);
  const fd = given ?? calls.lock(path, { create: true, shared: false });
  if (fd === undefined) return undefined;
  return { fd, inherited: given !== undefined };
}
/** From now on it is this process that serves, and gets the signals. */
export function signLock(fd: number): void {
  ftruncateSync(fd, 0);
  writeSync(fd, `${process.pid}\n`, 0);
}
function inherited(path: string): number | undefined {
  try {
    const [there, ours] = [statSync(path), fstatSync(ENGINED_FD.lock)];
    return there.ino === ours.ino && there.dev === ours.dev ? ENGINED_FD.lock : undefined;
  } catch {
    return undefined;
  }
}
