import { definePlugin } from '@engine/core/plugin';
import { createFirewallNone } from './driver.ts';

export default definePlugin({ create: ({ log }) => ({ drivers: [createFirewallNone({ log })] }) });
