import { definePlugin } from '@engine/core/plugin';
import { createCgroupV2 } from './driver.ts';

export default definePlugin({
  create: ({ machine, instance }) => ({ drivers: [createCgroupV2({ machine, instance })] }),
});
