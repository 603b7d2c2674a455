import { definePlugin } from '@engine/core/plugin';
import { createRtnetlink } from '@engine/native/rtnetlink';
import { createLocalIpam, type IpamOptions } from './driver.ts';

export default definePlugin<IpamOptions>({
  create: ({ machine, options }) => ({ drivers: [createLocalIpam({ machine, rtnetlink: createRtnetlink() }, options)] }),
});
