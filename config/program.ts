import { describeError, exitCodeOf, isEngineError } from '@engine/core/errors';
import { type Engine } from '@engine/core/api';
import { type Invocation } from '@engine/core/contracts/frontend';
import { loadFrontend } from './frontend.ts';
import { takeFlags } from './global-flags.ts';
import { hostCommands } from './host-commands.ts';
import { startEngined } from './launch.ts';
import type { OpenedEngine } from './open.ts';
import { createOutputs } from './outputs.ts';
import { startupSpans, type Startup } from './startup.ts';
import { version } from './version.ts';

/** After `start`: what Node does at its natural end, taking its heap apart, is of no use to anybody. */
export { endProcess as end } from '@engine/native/end';

declare const ENGINE_SINGLE: boolean | undefined;
/** Are we the program in one file? Set by the build. */
const single = typeof ENGINE_SINGLE !== 'undefined' && ENGINE_SINGLE;

/**
 * Start again from the bundle whose parts plugins from outside share, and which brings what plugin authors need. Nothing has been touched so
 * far; the other tells the exit status.
 */
async function handOver(): Promise<never> {
  await import(new URL('./engine.js', import.meta.url).href);
  return new Promise(() => {});
}

/** One connection of a launcher, instead of a command line of our own. */
async function serve(): Promise<number> {
  if (single) {
    const { loadConfig } = await import('./sources.ts');
    // what is wrong with it is told to who asks for it
    const config = await loadConfig({ cwd: '/', flags: {} }).catch(() => undefined);
    if (config && config.value.plugins.length > 0) return handOver();
  }
  return (await import('./resident/serve-one.ts')).serveOne();
}

/**
 * The program: flags that come before the verb, then the frontend. The engine is opened when the frontend asks for it, so that help and
 * the host's own commands work with a broken configuration or plugin.
 */
async function main(): Promise<number> {
  if (process.argv[2] === '--serve-one') return serve();
  const { flags, rest } = takeFlags(process.argv.slice(2));
  if (single && (rest[0] === 'plugin' || rest[0] === 'engined')) return handOver();
  if (rest[0] === 'engined') return (await import('./resident/main.ts')).engined(rest.slice(1));
  let opened: Promise<OpenedEngine> | undefined;
  let usesInput = false;
  const outputs = createOutputs();
  const startup: Startup = { loaded: performance.now() };
  const invocation: Invocation = {
    argv: rest,
    cwd: process.cwd(),
    env: process.env,
    // Making a stream of fd 0 costs time and changes its mode: only for those who read.
    get stdin() {
      usesInput = true;
      return process.stdin;
    },
    get stdout() {
      return outputs.use(process.stdout);
    },
    get stderr() {
      return outputs.use(process.stderr);
    },
    version,
    startup: () => startupSpans(startup),
    commands: hostCommands({ flags }),
  };
  const open = async (): Promise<Engine> => {
    opened ??= openAll();
    return (await opened).engine;
  };
  const openAll = async (): Promise<OpenedEngine> => {
    const [{ openEngine }, { loadConfig }] = await Promise.all([import('./open.ts'), import('./sources.ts')]);
    const from = performance.now();
    const config = await loadConfig({ flags });
    startup.config = [from, performance.now()];
    if (single && config.value.plugins.length > 0) return handOver();
    return openEngine({ config, lenient: rest[0] === 'doctor', passing: true });
  };
  const frontend = await loadFrontend('cli');
  try {
    const code = await frontend.run(open, invocation);
    return (await outputs.finished()) || code !== 0 ? code : 1;
  } finally {
    await opened?.then(
      async ({ engine, config }) => {
        await engine.close();
        if (config.value.resident === 'auto' && process.geteuid?.() === 0) startEngined(process.env);
      },
      () => {},
    );
    if (usesInput) process.stdin.unref?.();
  }
}

/** Run the command of this process; the exit status is set, nothing is thrown. */
export async function start(): Promise<void> {
  try {
    process.exitCode = await main();
  } catch (error) {
    process.stderr.write(`engine: ${describeError(error)}\n`);
    if (!isEngineError(error) && process.env.ENGINE_LOG_LEVEL === 'debug') process.stderr.write(`${(error as Error).stack}\n`);
    process.exitCode = exitCodeOf(error);
  }
}
