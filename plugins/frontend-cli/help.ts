import { type HostCommand } from '@engine/core/contracts/frontend';
import { type Command } from './command.ts';
import { table } from './text.ts';

/** `engine --help`. */
export function overview(commands: readonly Command[], host: readonly HostCommand[]): string {
  const rows = [...commands.filter(({ name }) => !/^(container|image) /.test(name)), ...host].map(({ name, summary }) => [`  ${name}`, summary]);
  return `Usage: engine [--root DIR] [--run-root DIR] [--no-daemon] [--set KEY=VALUE] COMMAND\n\nA plugin-driven container engine.\n\nCommands:\n${table(rows)}\nSee: engine COMMAND --help\n`;
}

/** `engine COMMAND --help`. */
export function commandHelp(command: Command): string {
  const flags = Object.entries(command.flags).map(([name, flag]) => {
    const value = flag.type === 'optional' ? `[=${flag.value ?? 'VALUE'}]` : flag.value ? ` ${flag.value}` : '';
    return [`  ${flag.short ? `-${flag.short}, ` : '    '}--${name}${value}`, `${flag.help}${flag.type === 'list' ? ' (repeatable)' : ''}${flag.also ? `; also --${flag.also}` : ''}`];
  });
  const aliases = command.aliases?.length ? `\nAlso: ${command.aliases.map((alias) => `engine ${alias}`).join(', ')}\n` : '';
  return `Usage: engine ${command.name} ${command.usage}\n\n${command.summary}\n${aliases}${flags.length ? `\nFlags:\n${table(flags)}` : ''}`;
}
