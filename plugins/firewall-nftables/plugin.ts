import { definePlugin } from '@engine/core/plugin';
import { createNftablesFirewall } from './driver.ts';

export default definePlugin({
  create: (context) => ({ drivers: [createNftablesFirewall(context)] }),
});
