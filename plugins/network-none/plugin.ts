import { definePlugin } from '@engine/core/plugin';
import { createNetworkNone } from './driver.ts';

export default definePlugin({ create: ({ log }) => ({ drivers: [createNetworkNone({ log })] }) });
