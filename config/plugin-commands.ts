import { fail } from '@engine/core/errors';
import { contractKinds } from '@engine/core/plugin';
import { type Flags } from './ambient.ts';
import { parse, print } from './config-commands.ts';

const help = `Usage: engine plugin ls [--json]
       engine plugin new NAME [--contract CONTRACT]
       engine plugin check [DIR]

  ls      every plugin that the configuration names; loads none of them
  new     make folder NAME with a plugin that works, to be changed
  check   manifest, loading, and the suite of each contract that it provides: on a fake machine, and as root on this one

Contracts: ${Object.keys(contractKinds).join(', ')}
`;

export async function runPlugin(argv: readonly string[], flags: Flags): Promise<number> {
  const [verb, ...rest] = argv;
  if (verb === undefined) {
    print(help);
    return 1;
  }
  if (verb === '--help' || verb === '-h' || rest.includes('--help') || rest.includes('-h')) return print(help);
  if (verb === 'ls' || verb === 'list') return list(rest, flags);
  if (verb === 'new') return create(rest);
  if (verb === 'check') return check(rest);
  throw fail('ERR_USAGE', `unknown command: plugin ${verb}`, { operation: 'plugin', hint: 'see: engine plugin --help' });
}

async function list(argv: readonly string[], flags: Flags): Promise<number> {
  const { values } = parse('plugin ls', argv, { json: { type: 'boolean' } });
  const [{ loadConfig }, { listPlugins }] = await Promise.all([import('./sources.ts'), import('./plugin-kit.ts')]);
  const lines = await listPlugins(await loadConfig({ flags }));
  if (values.json) return print(`${JSON.stringify(lines, null, 2)}\n`);
  const rows = [
    ['NAME', 'VERSION', 'PROVIDES', 'SOURCE'],
    ...lines.map((line) => [line.name, line.version || '-', line.provides.join(' ') || '-', line.builtin ? 'built in' : line.source]),
  ];
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  print(
    rows
      .map(
        (row) =>
          `${row
            .map((cell, i) => (i < 3 ? cell.padEnd(widths[i] ?? 0) : cell))
            .join('   ')
            .trimEnd()}\n`,
      )
      .join(''),
  );
  for (const { name, error } of lines) if (error !== undefined) process.stderr.write(`engine: ${name} is not usable: ${error}\n`);
  return lines.some(({ error }) => error !== undefined) ? 1 : 0;
}

async function create(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parse('plugin new', argv, { contract: { type: 'string' } }, 1);
  const [name] = positionals;
  if (name === undefined)
    throw fail('ERR_USAGE', 'engine plugin new: the plugin needs a name', { operation: 'plugin', hint: 'e.g. engine plugin new mystore' });
  const { newPlugin } = await import('./plugin-kit.ts');
  const folder = newPlugin(name, values.contract === undefined ? {} : { contract: values.contract });
  const short = folder.split('/').at(-1) ?? name;
  return print(`made ${folder}
  driver.ts is the place to start; check it with: engine plugin check ${name}
  to use it, put into .enginerc:   plugins: [./${short}]
                                   drivers: { ${values.contract ?? 'storage'}: ${short} }
  and trust the folder of that .enginerc once: engine trust
`);
}

async function check(argv: readonly string[]): Promise<number> {
  const { positionals } = parse('plugin check', argv, {}, 1);
  const { checkPlugin } = await import('./plugin-kit.ts');
  let failed = 0;
  for await (const { state, what, detail } of checkPlugin(positionals[0] ?? '.')) {
    if (state === 'failed') failed++;
    print(`${state.padEnd(8)}${what}${detail ? `: ${detail}` : ''}\n`);
  }
  print(failed === 0 ? 'the plugin is good\n' : 'the plugin is not good\n');
  return failed === 0 ? 0 : 1;
}
