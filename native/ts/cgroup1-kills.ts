import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import { posix } from 'node:path';
import { fail } from '@engine/core/errors';
import { defineLibrary, errnoName, watchReadable, type Library } from './library.ts';

const libc = { eventfd: { args: ['u32', 'int'], result: 'int' } } as const;
let calls: Library<typeof libc> | undefined;

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;
/** The kernel tells before it kills and counts: when to look again, ms after it has told. */
const COUNTED_BY = [0, 10, 100, 1000] as const;

/**
 * Tell of kills in the group at `folder` of a v1 memory hierarchy: an eventfd that is registered for memory.oom_control (Documentation/admin-guide/cgroup-v1/memory.rst, 10). The end
 * of the group is told too. The registration goes with the eventfd. See CgroupDriver.watchKills. Errors: ERR_FEATURE_MISSING.
 */
export function watchMemoryKills(folder: string, told: () => void): { close(): void } {
  const path = posix.join(folder, 'memory.oom_control');
  calls ??= defineLibrary(['libc.so.6', `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`], libc);
  const { value: fd, errno } = calls.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw fail('ERR_FEATURE_MISSING', `cannot watch ${path} for kills for want of memory: eventfd failed`, { operation: 'events', path, errno: errnoName(errno) });
  try {
    const control = openSync(path, 'r');
    try {
      writeFileSync(posix.join(folder, 'cgroup.event_control'), `${fd} ${control}`);
    } finally {
      closeSync(control);
    }
  } catch (error) {
    closeSync(fd);
    const code = String((error as NodeJS.ErrnoException).code);
    if (code === 'ENOENT' || code === 'ENODEV') return { close: () => {} };
    throw fail('ERR_FEATURE_MISSING', `cannot watch ${path} for kills for want of memory: ${code}`, { operation: 'events', path, errno: code, cause: error });
  }
  const looks = new Set<NodeJS.Timeout>();
  const counter = Buffer.alloc(8);
  let open = true;
  const watch = watchReadable(fd, () => {
    if (!open) return;
    readSync(fd, counter, 0, 8, null);
    for (const after of COUNTED_BY) {
      const look: NodeJS.Timeout = setTimeout(() => {
        looks.delete(look);
        told();
      }, after);
      looks.add(look);
    }
  });
  return {
    close() {
      if (!open) return;
      open = false;
      for (const look of looks) clearTimeout(look);
      watch.close();
      closeSync(fd);
    },
  };
}
