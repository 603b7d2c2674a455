import { close as closeCallback, fstatSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '@engine/core/errors';

/** Written by the shim; older ones are `container.log.1` (newest) and up. */
export const CURRENT = 'container.log';

export interface LogFile {
  readonly fd: number;
  readonly ino: bigint;
  readonly size: number;
}

function openOne(path: string): LogFile | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (cause) {
    const errno = String((cause as NodeJS.ErrnoException).code);
    if (errno === 'ENOENT') return undefined;
    throw fail('ERR_STATE', `cannot read the log ${path}`, { operation: 'open', path, errno, plugin: 'log-cri', cause });
  }
  const { ino, size } = fstatSync(fd, { bigint: true });
  return { fd, ino, size: Number(size) };
}

export function closeFile(file: { readonly fd: number }): void {
  closeCallback(file.fd, () => {});
}

/**
 * Open all files of the log, newest first. In that order a rotation meanwhile only shows a file twice (and its second appearance is
 * dropped); in the other one it would hide one. `until`: stop before the file with this inode number.
 */
export function openAll(folder: string, until?: bigint): LogFile[] {
  const files: LogFile[] = [];
  const seen = new Set<bigint>();
  for (const name of [CURRENT, ...olderNames(folder)]) {
    const file = openOne(join(folder, name));
    if (!file) continue;
    if (file.ino === until) {
      closeFile(file);
      break;
    }
    if (seen.has(file.ino)) closeFile(file);
    else {
      seen.add(file.ino);
      files.push(file);
    }
  }
  return files;
}

/** One more than there are: a rotation may add one while we read. */
function olderNames(folder: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  const numbers = names.flatMap((name) => (/^container\.log\.(\d{1,4})$/.exec(name)?.[1] ?? [])).map(Number);
  return Array.from({ length: Math.max(0, ...numbers) + 1 }, (_, i) => `${CURRENT}.${i + 1}`);
}
