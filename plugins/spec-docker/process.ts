import path from 'node:path';
import { fail } from '@engine/core/errors';
import { type ContainerRequest } from '@engine/core/api';
import { type CompiledExec } from '@engine/core/hooks';
import { type ImageConfig } from '@engine/core/contracts/image';
import { type Process } from '@engine/core/spec';

/** Name of an environment entry, with or without a value. */
export function keyOf(entry: string): string {
  const at = entry.indexOf('=');
  return at < 0 ? entry : entry.slice(0, at);
}

/** `entries` over `base`: a key that is there is replaced in place, a new one appended; a bare `KEY` removes it. */
export function overlayEnv(base: readonly string[], entries: readonly string[]): string[] {
  const result: (string | undefined)[] = [...base];
  const positions = new Map(base.map((entry, i) => [keyOf(entry), i]));
  for (const entry of entries) {
    const key = keyOf(entry);
    if (key === '') throw fail('ERR_INVALID_VALUE', `invalid environment variable: ${entry}`, { operation: 'env' });
    if (entry.includes('\0')) throw fail('ERR_INVALID_VALUE', `environment variable ${key} contains a NUL byte`, { operation: 'env' });
    const at = positions.get(key);
    const value = entry.includes('=') ? entry : undefined;
    if (at !== undefined) result[at] = value;
    else if (value !== undefined) positions.set(key, result.push(value) - 1);
  }
  return result.filter((entry) => entry !== undefined);
}

/** The working directory, cleaned. Errors: ERR_INVALID_VALUE when the user gave a relative one. */
export function workingDir(requested: string | undefined, image?: string): string {
  if (requested && !requested.startsWith('/')) throw fail('ERR_INVALID_VALUE', `the working directory '${requested}' is invalid, it needs to be an absolute path`, { path: requested });
  return path.posix.normalize(path.posix.join('/', requested || image || '/')).replace(/(.)\/$/, '$1');
}

/** Docker's default search path. */
export const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The user's variables, then those of the image that the user didn't set. */
export function mergeImageEnv(own: readonly string[], image: readonly string[] = []): string[] {
  const taken = new Set(own.map(keyOf));
  return [...own, ...image.filter((entry) => !taken.has(keyOf(entry)))];
}

/** The environment of a container's first process: PATH, HOSTNAME and (with a terminal) TERM, then the user's and the image's. */
export function processEnv(request: { env: readonly string[]; terminal: boolean }, image: ImageConfig, hostname: string): string[] {
  const defaults = [`PATH=${DEFAULT_PATH}`, `HOSTNAME=${hostname}`, ...(request.terminal ? ['TERM=xterm'] : [])];
  return overlayEnv(defaults, mergeImageEnv(request.env, image.Env));
}

/**
 * Entrypoint and Cmd, as Docker merges them: a given entrypoint drops both of the image's; `['']` resets it; a given command replaces Cmd.
 * Errors: ERR_INVALID_VALUE when nothing is left to run.
 */
export function processArgs(request: { entrypoint?: string[]; command?: string[] }, image: ImageConfig): { entrypoint: string[]; command: string[]; args: string[] } {
  let entrypoint = request.entrypoint ?? [];
  let command = request.command ?? [];
  if (entrypoint.length === 0) {
    if (command.length === 0) command = [...(image.Cmd ?? [])];
    if (request.entrypoint === undefined) entrypoint = [...(image.Entrypoint ?? [])];
  }
  if (entrypoint.length === 1 && entrypoint[0] === '') entrypoint = [];
  const args = [...entrypoint, ...command];
  if (args.length === 0) throw fail('ERR_INVALID_VALUE', 'no command specified', { hint: 'the image has none of its own: give one after the image name' });
  for (const arg of args) if (arg.includes('\0')) throw fail('ERR_INVALID_VALUE', 'an argument contains a NUL byte');
  return { entrypoint, command, args };
}

/** The process of a session in a container: TERM follows the session's terminal, not the container's. */
export function compileExec({ own, request, process }: CompiledExec): CompiledExec {
  const env = (own.env ?? []).filter((entry) => request.terminal || !own.terminal || entry !== 'TERM=xterm');
  const hasTerm = env.some((entry) => entry.startsWith('TERM='));
  return {
    own, request,
    process: {
      ...process, env: overlayEnv(request.terminal && !hasTerm ? [...env, 'TERM=xterm'] : env, request.env),
      cwd: request.workdir === undefined ? own.cwd : workingDir(request.workdir),
    },
  };
}

/** Resource limits of setrlimit(2), as `--ulimit` spells them. */
const rlimitNames = new Set(['core', 'cpu', 'data', 'fsize', 'locks', 'memlock', 'msgqueue', 'nice', 'nofile', 'nproc', 'rss', 'rtprio', 'rttime', 'sigpending', 'stack', 'as']);

/** `--ulimit` values for the spec; -1 is unlimited. Errors: ERR_INVALID_VALUE. */
export function processRlimits(requested: ContainerRequest['rlimits']): NonNullable<Process['rlimits']> {
  return requested.map(({ name, soft, hard }) => {
    if (!rlimitNames.has(name)) throw fail('ERR_INVALID_VALUE', `invalid ulimit type: ${name}`, { operation: 'ulimit' });
    if (hard !== -1 && (soft === -1 || soft > hard)) throw fail('ERR_INVALID_VALUE', `ulimit ${name}: the soft limit must be less than or equal to the hard limit: ${soft} > ${hard}`, { operation: 'ulimit' });
    return { type: `RLIMIT_${name.toUpperCase()}`, soft, hard };
  });
}
