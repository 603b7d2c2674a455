import { isAbsolute, join } from 'node:path';

type Env = Readonly<Record<string, string | undefined>>;

/** Folder and path of the socket; the launcher has the same rule. Undefined: nowhere. */
export function socketPlace(env: Env, uid = process.geteuid?.() ?? 0): { readonly folder: string; readonly socket: string } | undefined {
  const own = env.ENGINE_SOCKET;
  if (own) return { folder: join(own, '..'), socket: own };
  const runtime = env.XDG_RUNTIME_DIR;
  const folder = env.ENGINE_RUN_ROOT ? env.ENGINE_RUN_ROOT : uid === 0 ? '/run/engine' : runtime && isAbsolute(runtime) ? join(runtime, 'engine') : undefined;
  return folder === undefined ? undefined : { folder, socket: join(folder, 'engined.sock') };
}
