import { definePlugin } from '@engine/core/plugin';
import { createFirewallIptables, type IptablesOptions } from './driver.ts';

export default definePlugin<IptablesOptions>({ create: ({ instance, machine, serviceFolder, options }) => ({ drivers: [createFirewallIptables({ instance, machine, serviceFolder }, options)] }) });
