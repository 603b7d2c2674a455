import path from 'node:path';
import { fail } from '../errors/index.ts';

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
