import { existsSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { until } from './wait.ts';

/** Is cgroup v2 all that this machine has? Then its files have other names, inside of containers too. */
export const unified = existsSync('/sys/fs/cgroup/cgroup.controllers');

/** Names of the groups in the group `path`. */
export const groupsBelow = (path: string): string[] => readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => name);

/**
 * Remove a group that was made in some hierarchies, or in all: of a parent that is named, an engine makes what is missing, and leaves it to whoever named it.
 * A run's own group below it goes a moment after its exit is told.
 */
export async function removeParent(name: string): Promise<void> {
  const tops = unified ? ['/sys/fs/cgroup'] : readdirSync('/sys/fs/cgroup').map((hierarchy) => join('/sys/fs/cgroup', hierarchy));
  for (const folder of tops.map((top) => join(top, name)).filter((path) => existsSync(path))) {
    await until(`${folder} to be empty`, () => groupsBelow(folder).length === 0);
    rmdirSync(folder);
  }
}
