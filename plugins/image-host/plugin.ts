import { definePlugin } from '@engine/core/plugin';
import { createImageHost, type ImageHostOptions } from './driver.ts';

export default definePlugin<ImageHostOptions>({
  create: (context) => ({ drivers: [createImageHost(context, context.options)] }),
});
