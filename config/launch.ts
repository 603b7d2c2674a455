import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { socketPlace } from './resident/socket-place.ts';
import type { Config } from './schema.ts';

/** The launcher, seen from the sources or from the bundle. */
export function launcherPath(): string | undefined {
  for (const candidate of ['../bin/engine', '../../bin/engine']) {
    const path = join(import.meta.dirname, candidate);
    if (existsSync(path)) return path;
  }
  return undefined;
}

/**
 * Start the resident engine for the next command, without waiting: the launcher sees to it that there is only one, and that it starts clean. Nothing
 * is printed; without one, commands go on working in processes of their own.
 */
export function startEngined(env: Readonly<Record<string, string | undefined>>): void {
  const launcher = launcherPath();
  if (launcher === undefined) return;
  const names = ['PATH', 'HOME', 'XDG_RUNTIME_DIR', 'ENGINE_SOCKET', 'ENGINE_RUN_ROOT', 'ENGINE_NO_BUILD'];
  const child = spawn(launcher, ['engined', '--start'], {
    cwd: '/',
    detached: true,
    stdio: 'ignore',
    env: Object.fromEntries(names.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]]))),
  });
  child.on('error', () => {});
  child.unref();
}

/**
 * What a shim starts that ends without an engine: its run is to be collected. With `resident: off` only for containers that are to be started
 * again; the others wait for the next command, as they always did.
 */
export function wakeCommand({ resident }: Pick<Config, 'resident'>, restarts: boolean, { root, runRoot }: { readonly root: string; readonly runRoot: string }): readonly string[] | undefined {
  if (resident === 'off' && !restarts) return undefined;
  const launcher = launcherPath();
  if (launcher === undefined) return undefined;
  // a shim has no environment: the launcher would ask whoever is at the usual place
  const socket = resident === 'off' ? undefined : socketPlace(process.env)?.socket;
  return [launcher, '--no-daemon', 'engined', '--wake', root, runRoot, ...(socket === undefined ? [] : [socket])];
}
