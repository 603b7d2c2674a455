import { definePlugin } from '@engine/core/plugin';
import { createVfsStorage, type VfsOptions } from './driver.ts';

export default definePlugin<VfsOptions>({
  create: (context) => ({ drivers: [createVfsStorage(context, context.options)] }),
});
