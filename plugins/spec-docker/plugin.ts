import { definePlugin } from '@engine/core/plugin';
import { createDockerSpec } from './driver.ts';
import { realHost } from './host-view.ts';
import { dockerJson } from './inspect.ts';
import { compileExec } from './process.ts';

/** Taps only: it replaces no backend, it says what a request means, and shows what came of it in the same words. */
export default definePlugin({
  create({ machine, tap }) {
    const docker = createDockerSpec({ machine, host: realHost });
    tap('compile', (_, value) => docker.compile(value));
    tap('compileExec', (_, value) => compileExec(value));
    tap('inspect', (_, value) => dockerJson(value));
    return {};
  },
});
