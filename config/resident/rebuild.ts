import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Logger } from 'pino';

/** The checkout that the bundle `script` was built in and can be built anew in; undefined elsewhere. */
function checkoutOf(script: string): string | undefined {
  const home = join(dirname(script), '..');
  if (process.env.ENGINE_NO_BUILD || !script.endsWith('/dist/start.cjs') || !existsSync(join(home, 'node_modules/rolldown')) || !existsSync(join(home, 'config/setup/build.ts'))) return undefined;
  try {
    accessSync(home, constants.W_OK);
    return home;
  } catch {
    return undefined;
  }
}

const foldersIn = (folder: string): string[] => {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && entry.name !== 'node_modules')
      .map((entry) => join(folder, entry.name));
  } catch {
    return [];
  }
};

/** Folders with sources of the program, when it runs in a checkout: the same ones that the launcher looks at. */
export function sourceFolders(script: string): string[] {
  const home = checkoutOf(script);
  if (home === undefined) return [];
  const core = foldersIn(join(home, 'core'));
  const plugins = foldersIn(join(home, 'plugins'));
  return [join(home, 'config'), ...foldersIn(join(home, 'config')), ...core, ...core.flatMap(foldersIn), join(home, 'native/ts'), ...plugins, ...plugins.flatMap(foldersIn)];
}

/** Build the program anew, as the launcher would; what has changed then is seen by the next look at the program's files. */
export async function rebuild(script: string, log: Logger): Promise<void> {
  const home = checkoutOf(script);
  if (home === undefined) return;
  const build = spawn('flock', [join(home, 'dist/.build.lock'), process.execPath, '--disable-warning=ExperimentalWarning', join(home, 'config/setup/build.ts')], {
    stdio: ['ignore', 'ignore', 'inherit'],
    cwd: home,
  });
  const code = await new Promise<number | null>((resolve) => build.on('error', () => resolve(null)).on('exit', resolve));
  log.info({ code }, 'the sources have changed: built anew');
}
