import { type Frontend, type Invocation } from '@engine/core/contracts/frontend';
import { type Engine } from '@engine/core/api';
import { fail } from '@engine/core/errors';
import { commands, findCommand } from './commands/index.ts';
import { type CommandContext } from './command.ts';
import { reachable } from './files.ts';
import { checkGlobals, DEFAULT_ROOT, globalFlags, parseGlobals } from './globals.ts';
import { commandHelp, overview } from './help.ts';
import { countArgs, parse, type Values } from './parse.ts';
import { messageOf } from './phrases.ts';
import { createReport, type Report } from './report.ts';
import { versionText } from './version.ts';

const print = (stream: NodeJS.WriteStream, text: string): Promise<void> =>
  new Promise((resolve) => (text === '' ? resolve() : void stream.write(text, () => resolve())));

/** What of the flags is about the log, also when others are wrong: an error is to be found where the caller looks for it. */
function reportFor(invocation: Invocation, flags: Pick<Values<typeof globalFlags>, 'log' | 'log-format' | 'debug'>): Report {
  return createReport(invocation, { log: flags.log, json: flags['log-format'] === 'json', debug: flags.debug });
}
const wantsHelp = (words: readonly string[], passThrough: boolean): boolean => {
  const asks = (word: string | undefined): boolean => word === '--help' || word === '-help' || word === '-h' || word === '-?';
  return passThrough ? asks(words[0]) : words.some(asks);
};

async function dispatch(context: Pick<CommandContext, 'invocation' | 'report' | 'print'>, open: () => Promise<Engine>, flags: Values<typeof globalFlags>, rest: readonly string[], say: (prefix: string, exitCode: number) => void): Promise<number> {
  const { invocation } = context;
  if (flags.version) {
    await context.print(versionText(invocation.version));
    return 0;
  }
  const [verb, ...words] = rest;
  const asked = verb === 'help' || verb === 'h' ? words[0] : undefined;
  if (verb === undefined || ((flags.help || verb === 'help' || verb === 'h') && asked === undefined)) {
    await context.print(overview(commands, globalFlags));
    return 0;
  }
  const format = flags['log-format'];
  if (format !== undefined && format !== 'text' && format !== 'json') throw fail('ERR_USAGE', `invalid log-format: ${format}`, { operation: 'parse', hint: 'text or json' });
  await context.report.open();
  const command = findCommand(asked ?? verb);
  if (!command) {
    say('', 3);
    throw fail('ERR_USAGE', `No help topic for '${asked ?? verb}'`, { operation: 'parse', hint: 'see: engine-oci --help' });
  }
  if (asked !== undefined || flags.help || wantsHelp(words, command.passThrough ?? false)) {
    await context.print(commandHelp(command));
    return 0;
  }
  const globals = checkGlobals(flags);
  const parsed = parse(command.name, command.flags, words, { passThrough: command.passThrough ?? false });
  countArgs(command.name, parsed.args, command.args[0], command.args[1]);
  say(command.prefix ?? '', command.exitCode ?? 1);
  const root = reachable(invocation, flags.root === undefined || flags.root === '' ? DEFAULT_ROOT : flags.root);
  const whole: CommandContext = { ...context, globals, ref: (id) => ({ root, id }), bundles: async () => (await open()).bundles };
  return command.run(whole, parsed.flags as never, parsed.args);
}

/** runc's command line. */
export function createOci(): Frontend {
  return {
    name: 'oci',
    features: new Set(),
    probe: () => ({ available: true, score: 1, reasons: ['needs nothing'] }),
    async run(open, invocation) {
      let report = createReport(invocation, { json: false, debug: false });
      let prefix = '';
      let exitCode = 1;
      try {
        const { flags, rest } = parseGlobals(invocation.argv);
        report = reportFor(invocation, flags);
        invocation.onLog?.(({ level, text }) => (level === 'debug' || level === 'trace' || level === 'info' ? report.debug(text) : report.warn(text)));
        return await dispatch({ invocation, report, print: (text) => print(invocation.stdout, text) }, open, flags, rest, (words, code) => {
          prefix = words;
          exitCode = code;
        });
      } catch (error) {
        await report.error(`${prefix}${messageOf(error)}`);
        return exitCode;
      } finally {
        invocation.onLog?.(undefined);
        await report.close();
      }
    },
  };
}
