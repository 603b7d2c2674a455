import { fail } from '@engine/core/errors';
import { type Flags } from './ambient.ts';

/** Flags that come before the verb, for the help. */
export const globalFlags = [
  { usage: '--root DIR', summary: 'where images, volumes, logs and the database are' },
  { usage: '--run-root DIR', summary: 'where what runs is written down' },
  { usage: '--no-daemon', summary: 'work in a process of its own, whatever "resident" says' },
  { usage: '--set KEY=VALUE', summary: 'any setting of .enginerc, e.g. --set drivers.storage=vfs' },
] as const;

/** Take them off the front of `argv`; the first word that is none of them ends it. Errors: ERR_USAGE. */
export function takeFlags(argv: readonly string[]): { flags: Flags; rest: readonly string[] } {
  const flags: { root?: string; runRoot?: string; set?: string[]; noDaemon?: boolean } = {};
  let i = 0;
  for (; i < argv.length; i++) {
    if (argv[i] === '--no-daemon') {
      flags.noDaemon = true;
      continue;
    }
    const [, name, attached] = /^(--root|--run-root|--set)(?:=(.*))?$/s.exec(argv[i] ?? '') ?? [];
    if (name === undefined) break;
    const value = attached ?? argv[++i];
    if (value === undefined || value === '') throw fail('ERR_USAGE', `flag ${name} needs a value`, { operation: 'parse' });
    if (name === '--root') flags.root = value;
    else if (name === '--run-root') flags.runRoot = value;
    else (flags.set ??= []).push(value);
  }
  return { flags, rest: argv.slice(i) };
}
