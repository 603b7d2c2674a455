import { definePlugin } from '@engine/core/plugin';
import { createCriLog } from './driver.ts';

export default definePlugin({
  create: () => ({ drivers: [createCriLog()] }),
});
