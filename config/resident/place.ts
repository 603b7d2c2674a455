import { fstatSync, ftruncateSync, statSync, writeSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { ENGINED_FD, ENGINED_FILES } from '@engine/native/launch';
import { type Syscalls } from '@engine/native';

type Env = Readonly<Record<string, string | undefined>>;

/** Folder and path of the socket; the launcher has the same rule. Undefined: nowhere. */
export function socketPlace(env: Env, uid = process.geteuid?.() ?? 0): { readonly folder: string; readonly socket: string } | undefined {
  const own = env.ENGINE_SOCKET;
  if (own) return { folder: join(own, '..'), socket: own };
  const runtime = env.XDG_RUNTIME_DIR;
  const folder = env.ENGINE_RUN_ROOT ? env.ENGINE_RUN_ROOT : uid === 0 ? '/run/engine' : runtime && isAbsolute(runtime) ? join(runtime, 'engine') : undefined;
  return folder === undefined ? undefined : { folder, socket: join(folder, ENGINED_FILES.socket) };
}

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

/** The lock that says who serves this folder: the one we were born with, or taken now. Undefined: another engined has it. */
export function takeLock(folder: string, calls: Pick<Syscalls, 'lock'>): { readonly fd: number; readonly inherited: boolean } | undefined {
  const path = join(folder, ENGINED_FILES.lock);
  const given = inherited(path);
  const fd = given ?? calls.lock(path, { create: true, shared: false });
  if (fd === undefined) return undefined;
  ftruncateSync(fd, 0);
  writeSync(fd, `${process.pid}\n`, 0);
  return { fd, inherited: given !== undefined };
}
function inherited(path: string): number | undefined {
  try {
    const [there, ours] = [statSync(path), fstatSync(ENGINED_FD.lock)];
    return there.ino === ours.ino && there.dev === ours.dev ? ENGINED_FD.lock : undefined;
  } catch {
    return undefined;
  }
}
