import { definePlugin } from '@engine/core/plugin';
import { createCgroupSystemd, type SystemdOptions } from './driver.ts';
import { createScopeHandler, HANDLER } from './scope.ts';
import { createSystemd } from './systemd.ts';

export default definePlugin<SystemdOptions>({
  create({ machine, instance, options }) {
    const systemd = createSystemd();
    return {
      drivers: [createCgroupSystemd({ machine, instance }, options)],
      handlers: { [HANDLER]: createScopeHandler(systemd, (path) => machine.read(path)) },
      stop: () => systemd.close(),
    };
  },
});
