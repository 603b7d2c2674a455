import path from 'node:path';
import { fail } from '../errors/index.ts';

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

/** A mount target, cleaned. Errors: ERR_INVALID_VALUE. */
export function cleanTarget(target: string): string {
  if (!target.startsWith('/')) throw fail('ERR_INVALID_VALUE', `invalid mount path: '${target}' mount path must be absolute`, { operation: 'mount', path: target });
  const clean = path.posix.normalize(target).replace(/(.)\/$/, '$1');
  if (clean === '/') throw fail('ERR_INVALID_VALUE', "invalid mount: destination can't be '/'", { operation: 'mount', path: target });
  return clean;
}

/** Signals by name and number (x86-64, arm64). */
export const SIGNALS: Readonly<Record<string, number>> = {
  HUP: 1, INT: 2, QUIT: 3, ILL: 4, TRAP: 5, ABRT: 6, BUS: 7, FPE: 8, KILL: 9, USR1: 10, SEGV: 11, USR2: 12, PIPE: 13, ALRM: 14, TERM: 15, STKFLT: 16,
  CHLD: 17, CONT: 18, STOP: 19, TSTP: 20, TTIN: 21, TTOU: 22, URG: 23, XCPU: 24, XFSZ: 25, VTALRM: 26, PROF: 27, WINCH: 28, IO: 29, POLL: 29, PWR: 30, SYS: 31, IOT: 6,
  RTMIN: 34, RTMAX: 64,
};

/** `TERM`, `SIGTERM`, `15`, `RTMIN+3`. Errors: ERR_INVALID_VALUE. */
export function parseSignal(text: string): number {
  const name = text.toUpperCase().replace(/^SIG/, '');
  const realTime = /^(RTMIN)\+(\d{1,2})$|^(RTMAX)-(\d{1,2})$/.exec(name);
  const number = /^\d+$/.test(name) ? Number(name) : realTime ? (realTime[1] ? 34 + Number(realTime[2]) : 64 - Number(realTime[4])) : SIGNALS[name];
  if (number === undefined || number < 1 || number > 64) throw fail('ERR_INVALID_VALUE', `invalid signal: ${text}`, { operation: 'signal' });
  return number;
}
