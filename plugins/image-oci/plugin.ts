import { createNative } from '@engine/native';
import { definePlugin } from '@engine/core/plugin';
import { createImageOci, type ImageOciOptions } from './driver.ts';

export default definePlugin<ImageOciOptions>({
  create: (context) => ({ drivers: [createImageOci(context, context.options, () => createNative().pipe())] }),
});
