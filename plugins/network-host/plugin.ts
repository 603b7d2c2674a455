import { definePlugin } from '@engine/core/plugin';
import { createNetworkHost } from './driver.ts';

export default definePlugin({ create: ({ log }) => ({ drivers: [createNetworkHost({ log })] }) });
