import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fail } from '@engine/core/errors';
import { isRecord } from './json-schema.ts';
import { checkOwnership } from './ownership.ts';

/** Where the sources lie. Tests hand in others. */
export interface Places {
  readonly system: string;
  /** Undefined when the caller has no home. */
  readonly user: string | undefined;
}

export function defaultPlaces(env: Readonly<Record<string, string | undefined>> = process.env): Places {
  const xdg = env.XDG_CONFIG_HOME;
  const base = xdg?.startsWith('/') ? xdg : env.HOME?.startsWith('/') ? join(env.HOME, '.config') : undefined;
  return { system: '/etc/engine', user: base && join(base, 'engine') };
}

/** Real paths of the folders that the system's and the user's source trust. */
export function trustedFolders(places: Places): Set<string> {
  const folders = [places.system, places.user].flatMap((place) => (place === undefined ? [] : readList(join(place, 'trust.json'))));
  return new Set(folders);
}

function readList(file: string): string[] {
  if (!existsSync(file)) return [];
  checkOwnership(file, 'the list of trusted folders');
  let data: unknown;
  try {
    data = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw fail('ERR_CONFIG_INVALID', `${file} is not valid JSON`, { operation: 'trust', path: file, cause });
  }
  const folders = isRecord(data) ? data.folders : undefined;
  if (!Array.isArray(folders) || !folders.every((folder) => typeof folder === 'string')) {
    throw fail('ERR_CONFIG_INVALID', `${file} does not hold {"folders": [...]}`, { operation: 'trust', path: file });
  }
  return folders;
}

/**
 * Trust `folder` (or no longer): its `.enginerc` may then load plugins, lower security, and is found from folders below it.
 * Written for the caller, with `system` for everybody. Returns the folder's real path. Errors: ERR_CONFIG_UNTRUSTED when others can write it.
 */
export function setTrust(folder: string, trusted: boolean, places: Places, options: { readonly system?: boolean } = {}): string {
  let path = resolve(folder);
  try {
    path = realpathSync(path);
  } catch (cause) {
    if (trusted) throw fail('ERR_INVALID_VALUE', `no such folder: ${folder}`, { operation: 'trust', path: folder, cause });
  }
  if (trusted) {
    if (!statSync(path).isDirectory()) throw fail('ERR_INVALID_VALUE', `not a folder: ${folder}`, { operation: 'trust', path });
    checkOwnership(path, 'the folder');
  }
  const place = options.system ? places.system : places.user;
  if (place === undefined)
    throw fail('ERR_CONFIG_INVALID', 'there is no home folder to remember trust in', {
      operation: 'trust',
      hint: 'set HOME, or use --system',
    });
  const file = join(place, 'trust.json');
  const folders = new Set(readList(file));
  if (trusted) folders.add(path);
  else folders.delete(path);
  replaceFile(file, `${JSON.stringify({ folders: [...folders].sort() }, null, 2)}\n`);
  return path;
}

function replaceFile(file: string, text: string): void {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
    const fd = openSync(temporary, 'wx', 0o644);
    try {
      writeSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, file);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw fail('ERR_CONFIG_INVALID', `cannot write ${file}`, {
      operation: 'trust',
      path: file,
      cause,
      hint: 'write it as the user who owns its folder',
    });
  }
}
