import { definePlugin } from '@engine/core/plugin';
import { createDockerSpec } from './driver.ts';
import { realHost } from './host-view.ts';

/** A tap only: it replaces no backend, it says what a request means. */
export default definePlugin({
  create({ machine, tap }) {
    const docker = createDockerSpec({ machine, host: realHost });
    tap('compile', (_, value) => docker.compile(value));
    return {};
  },
});
