import { definePlugin } from '@engine/core/plugin';
import { createLocalDns } from './driver.ts';

export default definePlugin({
  create: (context) => ({ drivers: [createLocalDns(context)] }),
});
