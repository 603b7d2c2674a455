import { definePlugin } from '@engine/core/plugin';
import { createCli } from './driver.ts';

export default definePlugin({ create: () => ({ drivers: [createCli()] }) });
