import { definePlugin } from '@engine/core/plugin';
import { createNetworkContainer } from './driver.ts';

export default definePlugin({ create: () => ({ drivers: [createNetworkContainer()] }) });
