import { type Command } from './command.ts';
import { type Flags } from './parse.ts';

const rows = (pairs: readonly (readonly [string, string])[]): string => {
  const width = Math.max(0, ...pairs.map(([left]) => left.length));
  return pairs.map(([left, right]) => `   ${left.padEnd(width)}  ${right}\n`).join('');
};
const flagRows = (flags: Flags): string =>
  rows(Object.entries(flags).map(([name, { short, value, help, type }]) => [`--${name}${short === undefined ? '' : `, -${short}`}${value === undefined ? '' : ` ${value}`}`, `${help}${type === 'list' ? ' (repeatable)' : ''}`] as const));

/** `engine-oci --help`. */
export function overview(commands: readonly Command[], globals: Flags): string {
  return `NAME:\n   engine-oci - an OCI runtime: containers of bundles, for Docker, Podman, containerd and others\n\nUSAGE:\n   engine-oci [global options] command [command options] [arguments...]\n\nCOMMANDS:\n${rows(commands.map(({ name, summary }) => [name, summary] as const))}\nGLOBAL OPTIONS:\n${flagRows(globals)}\nSee: engine-oci COMMAND --help\n`;
}

/** `engine-oci COMMAND --help`. */
export function commandHelp({ name, usage, summary, description, flags }: Command): string {
  const options = flagRows(flags);
  return `NAME:\n   engine-oci ${name} - ${summary}\n\nUSAGE:\n   engine-oci ${name}${options === '' ? '' : ' [command options]'} ${usage}\n${description === undefined ? '' : `\nDESCRIPTION:\n${description.split('\n').map((line) => `   ${line}`.trimEnd()).join('\n')}\n`}${options === '' ? '' : `\nOPTIONS:\n${options}`}`;
}
