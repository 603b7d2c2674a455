import { definePlugin } from '@engine/core/plugin';
import { createRtnetlink } from '@engine/native/rtnetlink';
import { createLinuxBase } from './driver.ts';
import { ociFeatures } from './features.ts';

/** Taps only: it replaces no backend, it compiles sections of the spec. */
export default definePlugin({
  create({ machine, tap }) {
    let rtnetlink: ReturnType<typeof createRtnetlink> | undefined;
    const base = createLinuxBase({ machine, rtnetlink: () => (rtnetlink ??= createRtnetlink()) });
    tap('prepareRootfs', ({ plan, spec, run }) => base.planRootfs(plan, spec, run));
    tap('createNamespaces', ({ plan, spec, run }) => base.planNamespaces(plan, spec, run));
    tap('applyLimits', ({ plan, spec, run }) => base.planProcess(plan, spec, run));
    tap('exec', ({ plan, spec, run }) => base.planExec(plan, spec, run));
    return { ociFeatures, stop: async () => rtnetlink?.close() };
  },
});
