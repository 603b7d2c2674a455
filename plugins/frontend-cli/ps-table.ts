import { readFileSync } from 'node:fs';

/** What `ps -ef` prints of processes, for machines without ps(1). Those that have ended meanwhile are left out. */
export const HEADINGS = ['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD'] as const;

/** USER_HZ: 100 on every architecture that Linux containers run on. */
const TICKS = 100;

const two = (n: number): string => String(Math.floor(n)).padStart(2, '0');
/** `[DD-]HH:MM:SS`. */
export function cpuTime(seconds: number): string {
  const days = Math.floor(seconds / 86_400);
  return `${days > 0 ? `${days}-` : ''}${two((seconds / 3600) % 24)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}`;
}
/** `HH:MM` of the last day, `Jan02` of this year, else the year. */
export function startTime(start: Date, now: Date): string {
  if (now.getTime() - start.getTime() < 86_400_000) return `${two(start.getHours())}:${two(start.getMinutes())}`;
  if (start.getFullYear() !== now.getFullYear()) return String(start.getFullYear());
  return `${start.toLocaleString('en-US', { month: 'short' })}${two(start.getDate())}`;
}
/** As ps: a name that is too long is cut. */
export const userName = (name: string): string => (name.length > 8 ? `${name.slice(0, 7)}+` : name);

/** By the number of the controlling terminal. */
function terminalOf(number: number): string {
  if (number === 0) return '?';
  const [major, minor] = [(number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00)];
  if (major >= 136 && major <= 143) return `pts/${minor + (major - 136) * 256}`;
  return major === 4 ? `tty${minor}` : '?';
}

function names(): ReadonlyMap<number, string> {
  try {
    return new Map(readFileSync('/etc/passwd', 'utf8').split('\n').map((line) => line.split(':')).filter((parts) => parts.length > 2).reverse().map(([name = '', , uid]) => [Number(uid), name]));
  } catch {
    return new Map();
  }
}

function rowOf(pid: number, users: ReadonlyMap<number, string>, boot: number, now: Date): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
    const [state, parent, , , terminal] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ').map(Number);
    const [ticks, started] = [(fields[11] ?? 0) + (fields[12] ?? 0), fields[19] ?? 0];
    const uid = Number(/^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]);
    const start = new Date((boot + started / TICKS) * 1000);
    const age = Math.max(1, (now.getTime() - start.getTime()) / 1000);
    const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim() || `[${name}]${state === 'Z' ? ' <defunct>' : ''}`;
    return [userName(users.get(uid) ?? String(uid)), String(pid), parent ?? '', String(Math.min(99, Math.floor(ticks / TICKS / age * 100))), startTime(start, now), terminalOf(Number(terminal)), cpuTime(ticks / TICKS), line];
  } catch {
    return undefined;
  }
}

export function processTable(pids: readonly number[]): string[][] {
  const boot = Number(/^btime (\d+)/m.exec(readFileSync('/proc/stat', 'latin1'))?.[1]);
  const users = names();
  const now = new Date();
  return pids.flatMap((pid) => {
    const row = rowOf(pid, users, boot, now);
    return row ? [row] : [];
  });
}
