import { watch } from 'node:fs';
import { posix } from 'node:path';
import { fail } from '@engine/core/errors';

/** Tell of every change of `memory.events` in the group at `folder`: the kernel says it by inotify, after it has counted. See CgroupDriver.watchKills. Errors: ERR_FEATURE_MISSING. */
export function watchUnifiedKills(folder: string, told: () => void): { close(): void } {
  const path = posix.join(folder, 'memory.events');
  const nobody = { close: (): void => {} };
  try {
    const watcher = watch(path, () => told());
    // the file has gone, with its group
    watcher.on('error', () => watcher.close());
    return { close: () => watcher.close() };
  } catch (error) {
    const errno = String((error as NodeJS.ErrnoException).code);
    if (errno === 'ENOENT' || errno === 'ENODEV') return nobody;
    throw fail('ERR_FEATURE_MISSING', `cannot watch ${path} for kills for want of memory: ${errno}`, {
      operation: 'events', path, errno, cause: error, hint: 'raise fs.inotify.max_user_watches and max_user_instances',
    });
  }
}
