import { statSync } from 'node:fs';
import { extname } from 'node:path';
import { fail, isEngineError } from '@engine/core/errors';
import { isRecord } from './json-schema.ts';
import { checkOwnership } from './ownership.ts';

/** Data only: whatever Node could run is refused by name, so that nobody wonders why it has no effect. */
export const executableExtensions = [
  '.js',
  '.cjs',
  '.mjs',
  '.ts',
  '.cts',
  '.mts',
  '.jsx',
  '.tsx',
  '.node',
  '.wasm',
  '.sh',
  '.json5',
  '.toml',
];
export const dataExtensions = ['', '.json', '.yaml', '.yml'];
const MAX_BYTES = 1 << 20;

/**
 * One configuration file as plain data. Errors: ERR_CONFIG_UNTRUSTED (somebody else could have written it), ERR_CONFIG_INVALID with line
 * and column. `trustworthy` exists for tests.
 */
export async function readConfigFile(
  path: string,
  trustworthy: (path: string) => void = (file) => checkOwnership(file, 'configuration file'),
): Promise<Record<string, unknown>> {
  checkPlainFile(path);
  const { cosmiconfigSync } = await import('cosmiconfig');
  const { parseDocument, LineCounter } = await import('yaml');

  const load = (file: string, content: string): Record<string, unknown> => {
    trustworthy(file);
    const lineCounter = new LineCounter();
    // JSON is YAML: one parser, one form of message, duplicate keys refused in both.
    const document = parseDocument(content, {
      lineCounter,
      prettyErrors: false,
      uniqueKeys: true,
      schema: extname(file) === '.json' ? 'json' : 'core',
    });
    const problem = document.errors[0] ?? document.warnings[0];
    if (problem) {
      const { line, col } = lineCounter.linePos(problem.pos[0]);
      throw fail('ERR_CONFIG_INVALID', `${file}:${line}:${col}: ${lowerFirst(problem.message)}`, { operation: 'config', path: file });
    }
    let data: unknown;
    try {
      data = document.toJS({ maxAliasCount: 50 });
    } catch (cause) {
      throw fail('ERR_CONFIG_INVALID', `${file} cannot be read`, { operation: 'config', path: file, cause });
    }
    if (data === null || data === undefined) return {};
    if (!isRecord(data)) throw fail('ERR_CONFIG_INVALID', `${file} does not hold keys and values`, { operation: 'config', path: file });
    refuseDangerousKeys(file, data);
    return data;
  };
  const refuse = (file: string): never => {
    throw fail('ERR_CONFIG_INVALID', `${file} is not read: configuration is data, not code`, {
      operation: 'config',
      path: file,
      hint: 'write it as YAML or JSON, in a file without extension, or .yaml, .yml or .json',
    });
  };
  const loaders = {
    ...Object.fromEntries(executableExtensions.map((extension) => [extension, refuse])),
    '.json': load,
    '.yaml': load,
    '.yml': load,
    noExt: load,
    default: refuse,
  };

  // At construction cosmiconfig runs `.config/config.js` of the cwd as its own meta-configuration, whatever the loaders: only / is safe.
  const explorer = atRoot(() => cosmiconfigSync('engine', { cache: false, stopDir: '/', searchPlaces: ['.enginerc'], loaders }));
  try {
    return (explorer.load(path)?.config ?? emptyFile(path, trustworthy)) as Record<string, unknown>;
  } catch (error) {
    if (isEngineError(error)) throw error;
    const errno = (error as NodeJS.ErrnoException).code;
    throw fail('ERR_CONFIG_INVALID', `cannot read ${path}`, { operation: 'config', path, cause: error, ...(errno ? { errno } : {}) });
  }
}

/** A repository can hold a link to /dev/zero, and a fifo that nobody writes to would stop the engine for good: neither is opened. */
function checkPlainFile(path: string): void {
  const wrong = (why: string, details: object = {}): Error => fail('ERR_CONFIG_INVALID', `${path} ${why}`, { operation: 'config', path, ...details });
  let size: number;
  try {
    const stat = statSync(path);
    if (!stat.isFile()) throw wrong('is not a regular file');
    size = stat.size;
  } catch (error) {
    if (isEngineError(error)) throw error;
    const errno = (error as NodeJS.ErrnoException).code;
    throw wrong('cannot be read', { cause: error, ...(errno ? { errno } : {}) });
  }
  if (size > MAX_BYTES) throw wrong('is larger than 1 MiB');
}

/** cosmiconfig calls no loader for an empty file. */
function emptyFile(path: string, trustworthy: (path: string) => void): Record<string, unknown> {
  trustworthy(path);
  return {};
}

/** Runs a synchronous function with `/` as what `process.cwd()` says; the real one stays (worker threads cannot change it). */
function atRoot<T>(run: () => T): T {
  const { cwd } = process;
  process.cwd = () => '/';
  try {
    return run();
  } finally {
    process.cwd = cwd;
  }
}

function refuseDangerousKeys(file: string, data: unknown, at = ''): void {
  if (typeof data !== 'object' || data === null) return;
  for (const [key, value] of Object.entries(data)) {
    if (key === '$import' || key === '__proto__') {
      throw fail('ERR_CONFIG_INVALID', `${file}: key "${key}" is not allowed`, { operation: 'config', path: `${file}#${at}/${key}` });
    }
    refuseDangerousKeys(file, value, `${at}/${key}`);
  }
}
const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1).replace(/\.$/, '');
