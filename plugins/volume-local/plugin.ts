import { definePlugin } from '@engine/core/plugin';
import { createLocalVolumes } from './driver.ts';

export default definePlugin({
  create: (context) => ({ drivers: [createLocalVolumes(context)] }),
});
