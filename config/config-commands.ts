import { parseArgs, type ParseArgsConfig } from 'node:util';
import { fail } from '@engine/core/errors';
import { type Flags } from './ambient.ts';
import { loadConfig, printConfig } from './sources.ts';
import { defaultPlaces, setTrust, trustedFolders } from './trust.ts';

/** `parseArgs` with our errors. */
export function parse<T extends NonNullable<ParseArgsConfig['options']>>(command: string, argv: readonly string[], options: T, most = 0) {
  try {
    const { values, positionals } = parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
    if (positionals.length > most) throw new Error(`unexpected argument "${positionals[most]}"`);
    return { values, positionals };
  } catch (error) {
    const [text = ''] = (error as Error).message.split('. ');
    throw fail('ERR_USAGE', `engine ${command}: ${text.charAt(0).toLowerCase()}${text.slice(1).replaceAll("'", '"')}`, {
      operation: command,
      hint: `see: engine ${command} --help`,
    });
  }
}

export async function runConfig(argv: readonly string[], flags: Flags): Promise<number> {
  const { values } = parse('config', argv, { host: { type: 'string' }, json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } });
  if (values.help) {
    return print(`Usage: engine config [--host NAME] [--json]

Print the configuration and where each value comes from: built-in, /etc/engine/enginerc, ~/.config/engine/enginerc, the project's
.enginerc, ENGINE_* variables, flags. A JSON Schema for editors is in config/enginerc.schema.json.

  --host NAME   as if this machine had that name (for "hosts:" blocks)
  --json        values, origins and files as JSON
`);
  }
  const loaded = await loadConfig({ flags, ...(values.host === undefined ? {} : { hostname: values.host }) });
  const { value, origins, files } = loaded;
  return print(values.json ? `${JSON.stringify({ value, origins: Object.fromEntries(origins), files }, null, 2)}\n` : printConfig(loaded));
}

export async function runTrust(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parse(
    'trust',
    argv,
    {
      remove: { type: 'boolean' },
      system: { type: 'boolean' },
      list: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    1,
  );
  if (values.help) {
    return print(`Usage: engine trust [--remove] [--system] [DIR]
       engine trust --list

Trust the .enginerc of DIR (default: this folder): it may then load plugins, set options and lower security, and it is found
from the folders below it. Read it first. DIR must be writable by root or by you alone.

  --remove   no longer trust it
  --system   for everybody (/etc/engine/trust.json) instead of for you (~/.config/engine/trust.json)
  --list     the folders that are trusted
`);
  }
  const places = defaultPlaces();
  if (values.list) return print([...trustedFolders(places)].map((folder) => `${folder}\n`).join(''));
  const folder = setTrust(positionals[0] ?? '.', !values.remove, places, { system: values.system ?? false });
  return print(`${values.remove ? 'no longer trusted' : 'trusted'}: ${folder}\n`);
}

export function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
