import { type Engine } from '@engine/core/api';
import { type Frontend, type Invocation } from '@engine/core/contracts/frontend';
import { describeError, exitCodeOf, fail } from '@engine/core/errors';
import { type Command, type CommandContext } from './command.ts';
import { commandNames, commands, findCommand, groups } from './commands/index.ts';
import { commandHelp, overview } from './help.ts';
import { countArgs, didYouMean, parse } from './parse.ts';

const print = (stream: NodeJS.WriteStream, text: string): Promise<void> =>
  // a reader that has gone (EPIPE) is no error of ours
  new Promise((resolve) => (text === '' ? resolve() : stream.write(text, () => resolve())));

const oneLine = (text: string): string => text.replaceAll(/\s*\n\s*/g, ' ');
const errorLine = (error: unknown): string => `engine: ${oneLine(describeError(error))}\n`;

function makeContext(open: () => Promise<Engine>, invocation: Invocation): CommandContext {
  return {
    open,
    invocation,
    print: (text) => print(invocation.stdout, text),
    warn: (text) => void invocation.stderr.write(`engine: warning: ${oneLine(text)}\n`),
    async forEach(refs, each) {
      let code = 0;
      for (const ref of refs) {
        try {
          await each(ref);
        } catch (error) {
          await print(invocation.stderr, errorLine(error));
          code ||= exitCodeOf(error);
        }
      }
      return code;
    },
  };
}

/** The command that the first words name, and what follows it. */
function locate(argv: readonly string[]): { command: Command; rest: readonly string[] } | undefined {
  const [first = '', second = ''] = argv;
  const pair = groups.has(first) ? findCommand(`${first} ${second}`) : undefined;
  if (pair) return { command: pair, rest: argv.slice(2) };
  const single = findCommand(first);
  return single && { command: single, rest: argv.slice(1) };
}

/** Is there a `--help` (or `-h`, where that is no flag of the command) among the engine's own words? */
function wantsHelp(command: Command, rest: readonly string[]): boolean {
  const short = Object.values(command.flags).some((flag) => flag.short === 'h') ? [] : ['-h'];
  const flags = { ...command.flags, help: { type: 'boolean', help: '' } as const };
  if (!rest.some((word) => word === '--help' || short.includes(word))) return false;
  if (rest[0] === '--help' || short.includes(rest[0] ?? '')) return true;
  return parse(command.name, flags, rest.filter((word) => !short.includes(word)), { passThrough: command.passThrough ?? false }).flags.help === true;
}

/** What people who know Docker type, and what does it here. */
const docker: Readonly<Record<string, string>> = {
  pull: 'load an image that docker or skopeo saved: engine load -i FILE', build: 'load an image that was built elsewhere: engine load -i FILE', save: 'the images lie as an OCI content store below the root: engine info',
  commit: 'see what was changed with: engine diff',
};

async function dispatch(context: CommandContext): Promise<number> {
  const { argv, commands: host, version } = context.invocation;
  const [first, second] = argv;
  if (first === undefined || first === 'help' || first === '--help' || first === '-h') {
    const found = first === 'help' && second !== undefined ? locate(argv.slice(1)) : undefined;
    if (first === 'help' && second !== undefined && !found) throw fail('ERR_USAGE', `unknown command: ${second}`, { hint: 'see: engine --help' });
    await context.print(found ? commandHelp(found.command) : overview(commands, host));
    return first === undefined ? 1 : 0;
  }
  if (first === '--version' || first === '-v') {
    await context.print(`engine ${version}\n`);
    return 0;
  }
  const found = locate(argv);
  const own = host.find(({ name }) => name === first);
  if (!found && own) return own.run(argv.slice(1));
  if (!found && groups.has(first)) {
    const members = commandNames().filter((name) => name.startsWith(`${first} `));
    if (second !== undefined && second !== '--help' && second !== '-h') throw fail('ERR_USAGE', `unknown command: ${first} ${second}${didYouMean(`${first} ${second}`, members)}`, { hint: `see: engine ${first} --help` });
    await context.print(`Usage: engine ${first} COMMAND\n\nCommands: ${members.map((name) => name.slice(first.length + 1)).join(', ')}\n`);
    return second === undefined ? 1 : 0;
  }
  if (!found) {
    const names = [...commandNames(), ...host.map(({ name }) => name)];
    const instead = docker[first];
    throw fail('ERR_USAGE', `${first.startsWith('-') ? 'unknown flag' : 'unknown command'}: ${first}${instead ? '' : didYouMean(first, names)}`, { hint: instead ?? 'see: engine --help' });
  }
  const { command, rest } = found;
  if (wantsHelp(command, rest)) {
    await context.print(commandHelp(command));
    return 0;
  }
  const { flags, args } = parse(command.name, command.flags, rest, { passThrough: command.passThrough ?? false });
  countArgs(command.name, args, command.args[0], command.args[1]);
  return command.run(context, flags as never, args);
}

/** The command line: Docker's names, short flags and meaning. */
export function createCli(): Frontend {
  return {
    name: 'cli',
    features: new Set(),
    probe: () => ({ available: true, score: 1, reasons: ['needs nothing'] }),
    async run(open, invocation) {
      // a closed pipe shows in the callbacks of write; without a listener it would end the process
      for (const stream of [invocation.stdout, invocation.stderr]) stream.on('error', () => {});
      try {
        return await dispatch(makeContext(open, invocation));
      } catch (error) {
        await print(invocation.stderr, errorLine(error));
        return exitCodeOf(error);
      }
    },
  };
}
