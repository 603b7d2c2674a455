import { definePlugin } from '@engine/core/plugin';
import { createNoneLog } from './driver.ts';

export default definePlugin({
  create: () => ({ drivers: [createNoneLog()] }),
});
