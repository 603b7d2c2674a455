/** Groups below a container's own that a session asks for (`exec --cgroup`), as runc reads them. */
import { posix } from 'node:path';
import { fail } from '@engine/core/errors';

const wrong = (asked: string, why: string): Error => fail('ERR_INVALID_VALUE', `invalid --cgroup argument: ${asked} (${why})`, { operation: 'exec', path: asked });

/** Below `group`, never above it. Errors: ERR_INVALID_VALUE. */
function below(group: string, asked: string, path: string): string {
  if (path.split('/').includes('..')) throw wrong(asked, 'not a group below the container\'s');
  return posix.join(group, path);
}

/** By controller; under '' what is for all of them. Errors: ERR_INVALID_VALUE. */
export function parseExecGroups(asked: readonly string[], group: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const one of asked) {
    const parts = one.split(':');
    const [first = '', path] = parts;
    if (parts.length > 2) throw wrong(one, 'more than one colon');
    if (path === undefined && asked.length > 1) throw wrong(one, 'missing <controller>: prefix');
    for (const controller of path === undefined ? [''] : first.split(',')) {
      if (found.has(controller)) throw wrong(one, `controller ${controller} is named twice`);
      found.set(controller, below(group, one, path ?? first));
    }
  }
  return found;
}

/** v2 has one hierarchy: a path alone. Errors: ERR_INVALID_VALUE. */
export function parseUnifiedExecGroup(asked: readonly string[], group: string): string {
  const [one = '', ...more] = asked;
  if (more.length > 0 || one.includes(':')) throw wrong(asked.join(' '), 'cgroup v2 has one hierarchy: one path without a controller');
  return below(group, one, one);
}
