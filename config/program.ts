import { describeError, exitCodeOf, isEngineError } from '@engine/core/errors';
import { type Engine } from '@engine/core/api';
import { type Frontend, type Invocation } from '@engine/core/contracts/frontend';
import { type PluginContext } from '@engine/core/plugin';
import { takeFlags } from './global-flags.ts';
import { builtins } from './builtins.ts';
import { hostCommands } from './host-commands.ts';
import { readPackage } from './read-package.ts';
import { version } from './version.ts';

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

/**
 * The program: flags that come before the verb, then the frontend. The engine is opened when the frontend asks for it, so that help and
 * the host's own commands work with a broken configuration or plugin.
 */
async function main(): Promise<number> {
  const { flags, rest } = takeFlags(process.argv.slice(2));
  if (single && rest[0] === 'plugin') return handOver();
  let opened: Promise<{ readonly engine: Engine }> | undefined;
  let usesInput = false;
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
      return process.stdout;
    },
    get stderr() {
      return process.stderr;
    },
    version,
    commands: hostCommands({ flags }),
  };
  const open = async (): Promise<Engine> => {
    opened ??= openAll();
    return (await opened).engine;
  };
  const openAll = async (): Promise<{ readonly engine: Engine }> => {
    const [{ openEngine }, { loadConfig }] = await Promise.all([import('./open.ts'), import('./sources.ts')]);
    const config = await loadConfig({ flags });
    if (single && config.value.plugins.length > 0) return handOver();
    return openEngine({ config, lenient: rest[0] === 'doctor' });
  };
  const frontend = await loadFrontend('cli');
  try {
    return await frontend.run(open, invocation);
  } finally {
    await opened?.then(
      ({ engine }) => engine.close(),
      () => {},
    );
    if (usesInput) process.stdin.unref?.();
  }
}

/** A built-in frontend. It gets no machine and no state: all it may do goes through the engine. */
async function loadFrontend(driver: string): Promise<Frontend> {
  for (const { packageJson, load } of builtins) {
    const { manifest } = readPackage(packageJson);
    if (!manifest.provides?.some((provided) => provided.contract === 'frontend' && provided.driver === driver)) continue;
    const { default: definition } = await load();
    const { drivers } = definition.create({ manifest, options: {} } as unknown as PluginContext<never>);
    const found = drivers?.find(({ name }) => name === driver);
    if (found) return found as Frontend;
  }
  throw new Error(`there is no frontend ${driver}`);
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
