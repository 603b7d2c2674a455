import { definePlugin } from '@engine/core/plugin';
import { createBtrfsStorage, type BtrfsOptions } from './driver.ts';

export default definePlugin<BtrfsOptions>({
  create: (context) => ({ drivers: [createBtrfsStorage(context, context.options)] }),
});
