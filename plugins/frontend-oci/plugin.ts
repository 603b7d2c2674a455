import { definePlugin } from '@engine/core/plugin';
import { createOci } from './driver.ts';

export default definePlugin({ create: () => ({ drivers: [createOci()] }) });
