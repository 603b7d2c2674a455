import { definePlugin } from '@engine/core/plugin';
import { createCgroupV1 } from './driver.ts';

export default definePlugin({
  create: ({ machine, instance }) => ({ drivers: [createCgroupV1({ machine, instance })] }),
});
