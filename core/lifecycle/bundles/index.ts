import { type Bundles } from '../../api/index.ts';
import { type Core } from '../core.ts';
import { checkpointBundle } from './checkpoint.ts';
import { createBundle } from './create.ts';
import { deleteBundle, killBundle } from './end.ts';
import { execInBundle } from './exec.ts';
import { featuresOf } from './features.ts';
import { nextOom, pauseBundle, processesOf, statsOf, updateBundle } from './limits.ts';
import { restoreBundle } from './restore.ts';
import { startBundle } from './start.ts';
import { listBundles, readState } from './status.ts';

/** Containers of OCI bundles below `root`s of their callers; see the interface. */
export function createBundles(core: Core): Bundles {
  return {
    create: (request) => createBundle(core, request),
    start: (ref, options) => startBundle(core, ref, options?.onWarning),
    state: (ref) => readState(core, ref),
    list: (root, options) => listBundles(core, root, options?.onWarning),
    kill: (ref, signal, options) => killBundle(core, ref, signal, options?.all),
    delete: (ref, options) => deleteBundle(core, ref, options),
    exec: (ref, request) => execInBundle(core, ref, request),
    processes: (ref) => processesOf(core, ref),
    pause: (ref) => pauseBundle(core, ref, true),
    resume: (ref) => pauseBundle(core, ref, false),
    update: (ref, resources) => updateBundle(core, ref, resources),
    stats: (ref) => statsOf(core, ref),
    oom: (ref, signal, since) => nextOom(core, ref, signal, since),
    checkpoint: (ref, request) => checkpointBundle(core, ref, request),
    restore: (request) => restoreBundle(core, request),
    features: () => featuresOf(core),
  };
}
