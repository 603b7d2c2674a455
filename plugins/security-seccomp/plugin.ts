import { definePlugin } from '@engine/core/plugin';
import { createSeccomp, type SeccompOptions } from './driver.ts';
import { createLibseccomp } from './libseccomp.ts';

export default definePlugin<SeccompOptions>({
  create: ({ machine, state, log, options }) => ({ drivers: [createSeccomp({ machine, state, log, library: createLibseccomp() }, options)] }),
});
