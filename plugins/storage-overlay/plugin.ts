import { definePlugin } from '@engine/core/plugin';
import { createOverlayStorage, type OverlayOptions } from './driver.ts';

export default definePlugin<OverlayOptions>({
  create: (context) => ({ drivers: [createOverlayStorage(context, context.options)] }),
});
