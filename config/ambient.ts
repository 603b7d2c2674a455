import { resolve } from 'node:path';
import { fail } from '@engine/core/errors';
import { didYouMean } from './json-schema.ts';
import { schema } from './schema.ts';

/** Settings on the command line, before the verb. */
export interface Flags {
  readonly root?: string;
  readonly runRoot?: string;
  /** `--no-daemon`: as `--set resident=off`. */
  readonly noDaemon?: boolean;
  /** `--set KEY=VALUE`, with dots between the parts of the key. */
  readonly set?: readonly string[];
}

/** Environment variable → path of the key. */
const variables: ReadonlyMap<string, readonly string[]> = new Map<string, readonly string[]>([
  ['ENGINE_ROOT', ['root']],
  ['ENGINE_RUN_ROOT', ['runRoot']],
  ['ENGINE_LOG_LEVEL', ['logLevel']],
  ['ENGINE_LOG_FORMAT', ['logFormat']],
  ['ENGINE_RESIDENT', ['resident']],
  ['ENGINE_IDLE', ['idle']],
  ['ENGINE_WATCHDOG', ['watchdog']],
  ['ENGINE_POOL', ['pool']],
  ['ENGINE_NO_DAEMON', ['resident']],
  ['ENGINE_PLUGINS', ['plugins']],
  ['ENGINE_OPTIONS', ['options']],
  ...(['drivers', 'security'] as const).flatMap((group) =>
    Object.keys(schema.properties[group].properties).map(
      (key) => [`ENGINE_${group.toUpperCase()}_${key.toUpperCase()}`, [group, key]] as [string, readonly string[]],
    ),
  ),
]);

/** What the environment sets. A variable that is nearly one of ours is an error; others with our prefix belong to somebody else. */
export function readEnvironment(env: Readonly<Record<string, string | undefined>>): {
  data: Record<string, unknown>;
  origins: Map<string, string>;
} {
  const data: Record<string, unknown> = {};
  const origins = new Map<string, string>();
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith('ENGINE_') || text === undefined || text === '') continue;
    const path = variables.get(name);
    if (name === 'ENGINE_NO_DAEMON') {
      if (/^(1|true|yes|on)$/i.test(text)) {
        put(data, ['resident'], 'off');
        origins.set('/resident', name);
      } else if (!/^(0|false|no|off)$/i.test(text))
        throw fail('ERR_CONFIG_INVALID', `${name}: must be 1 or 0`, { operation: 'config', path: name });
      continue;
    }
    if (path) {
      put(data, path, parse(path, text, name));
      origins.set(`/${path.join('/')}`, name);
      continue;
    }
    const near = name.startsWith('ENGINE_TEST_') || name === 'ENGINE_SOCKET' || name === 'ENGINE_NO_BUILD'
      ? undefined
      : didYouMean(
          name.slice('ENGINE_'.length),
          [...variables.keys()].map((known) => known.slice('ENGINE_'.length)),
        );
    if (near)
      throw fail('ERR_CONFIG_INVALID', `environment variable ${name} is not known, did you mean ENGINE_${near}?`, {
        operation: 'config',
        path: name,
      });
  }
  return { data, origins };
}

/** What the flags set; relative folders are relative to `cwd`. */
export function readFlags(flags: Flags, cwd: string): Record<string, unknown> {
  const data: Record<string, unknown> = {};
  for (const assignment of flags.set ?? []) {
    const equals = assignment.indexOf('=');
    if (equals < 1) throw fail('ERR_USAGE', `--set ${assignment}: must be KEY=VALUE`, { operation: 'config' });
    const path = assignment.slice(0, equals).split('.');
    if (path.includes('__proto__')) throw fail('ERR_USAGE', `--set ${assignment}: not a key`, { operation: 'config' });
    put(data, path, parse(path, assignment.slice(equals + 1), '--set'));
  }
  if (flags.noDaemon) data.resident = 'off';
  if (flags.root !== undefined) data.root = resolve(cwd, flags.root);
  if (flags.runRoot !== undefined) data.runRoot = resolve(cwd, flags.runRoot);
  return data;
}

function parse(path: readonly string[], text: string, source: string): unknown {
  const [group, key] = path;
  if (group === 'plugins')
    return text
      .split(',')
      .map((entry) => entry.trim())
      .filter(Boolean);
  if (group === 'drivers' && key === 'security') return text === 'auto' ? text : text.split(',').filter(Boolean);
  if ((group === 'idle' || group === 'watchdog' || group === 'pool') && /^\d+$/.test(text)) return Number(text);
  if (group !== 'options') return text;
  // Options have types of their own; what isn't JSON is a string.
  try {
    return JSON.parse(text);
  } catch (cause) {
    if (path.length > 1) return text;
    throw fail('ERR_CONFIG_INVALID', `${source} is not valid JSON`, { operation: 'config', cause });
  }
}

function put(data: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [key, ...rest] = path;
  if (key === undefined) return;
  if (rest.length === 0) data[key] = value;
  else put((data[key] ??= {}) as Record<string, unknown>, rest, value);
}

/** Names of the variables, for the docs and their test. */
export const environmentVariables: readonly string[] = [...variables.keys()];
