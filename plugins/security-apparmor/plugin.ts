import { definePlugin } from '@engine/core/plugin';
import { createAppArmor, type AppArmorOptions } from './driver.ts';
import { realFiles } from './kernel.ts';

export default definePlugin<AppArmorOptions>({
  create: ({ machine, state, log, options }) => ({ drivers: [createAppArmor({ machine, state, log, files: realFiles }, options)] }),
});
