import { definePlugin } from '@engine/core/plugin';
import { createFirewallIptables, type IptablesOptions } from './driver.ts';

export default definePlugin<IptablesOptions>({ create: ({ instance, options }) => ({ drivers: [createFirewallIptables({ instance }, options)] }) });
