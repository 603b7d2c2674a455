import { definePlugin } from '@engine/core/plugin';
import { createRtnetlink } from '@engine/native/rtnetlink';
import { createNetworkBridge, type BridgeDriverOptions } from './driver.ts';

export default definePlugin<BridgeDriverOptions>({
  create: ({ machine, instance, options }) => ({ drivers: [createNetworkBridge({ machine, instance, rtnetlink: createRtnetlink() }, options)] }),
});
