import { definePlugin } from '@engine/core/plugin';
import { createCriu } from './driver.ts';

export default definePlugin<{ readonly program?: string }>({
  create: ({ options }) => ({ drivers: [createCriu(options)] }),
});
