import { describeError, isEngineError } from '@engine/core/errors';
import { type Engine } from '@engine/core/api';
import { type Frontend, type Invocation } from '@engine/core/contracts/frontend';
import { type PluginContext } from '@engine/core/plugin';
import { takeFlags } from './global-flags.ts';
import { builtins } from './builtins.ts';
import { hostCommands } from './host-commands.ts';
import { readPackage } from './read-package.ts';
import { version } from './version.ts';

/**
 * The program: flags that come before the verb, then the frontend. The engine is opened when the frontend asks for it, so that help and
 * the host's own commands work with a broken configuration or plugin.
 */
async function main(): Promise<number> {
  const { flags, rest } = takeFlags(process.argv.slice(2));
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
    opened ??= import('./open.ts').then(({ openEngine }) => openEngine({ flags, lenient: rest[0] === 'doctor' }));
    return (await opened).engine;
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

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`engine: ${describeError(error)}\n`);
  if (!isEngineError(error) && process.env.ENGINE_LOG_LEVEL === 'debug') process.stderr.write(`${(error as Error).stack}\n`);
  process.exitCode = isEngineError(error) ? error.exitCode : 125;
}
