import { fail } from '../../errors/index.ts';
import { type Bundles } from '../../api/index.ts';
import { type Core } from '../core.ts';

/** Containers of OCI bundles below `root`s of their callers; see the interface. */
export function createBundles(_core: Core): Bundles {
  const not = (): never => { throw fail('ERR_NOT_SUPPORTED', 'bundles of other engines are not run yet'); };
  return { create: not, start: not, state: not, list: not, kill: not, delete: not, exec: not, processes: not, pause: not, resume: not, update: not, stats: not, oom: not, features: not };
}
