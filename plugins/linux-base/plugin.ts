import { definePlugin } from '@engine/core/plugin';
import { createLinuxBase } from './driver.ts';
import { ociFeatures } from './features.ts';

/** Taps only: it replaces no backend, it compiles sections of the spec. */
export default definePlugin({
  create({ machine, tap }) {
    const base = createLinuxBase({ machine });
    tap('prepareRootfs', ({ plan, spec }) => base.planRootfs(plan, spec));
    tap('createNamespaces', ({ plan, spec, run }) => base.planNamespaces(plan, spec, run));
    tap('applyLimits', ({ plan, spec, run }) => base.planProcess(plan, spec, run));
    tap('exec', ({ plan, spec, run }) => base.planExec(plan, spec, run));
    return { ociFeatures };
  },
});
