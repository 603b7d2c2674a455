import { definePlugin } from '@engine/core/plugin';
import { createSampleStorage, type SampleOptions } from './driver.ts';

/** Hands the driver what it needs; `create` is synchronous and has no effects. */
export default definePlugin<SampleOptions>({
  create: (context) => ({ drivers: [createSampleStorage(context, context.options)] }),
});
