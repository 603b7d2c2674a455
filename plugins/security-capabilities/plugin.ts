import { definePlugin } from '@engine/core/plugin';
import { createCapabilities, type CapabilityOptions } from './driver.ts';

export default definePlugin<CapabilityOptions>({
  create: ({ machine, log, options }) => ({ drivers: [createCapabilities({ machine, log }, options)] }),
});
