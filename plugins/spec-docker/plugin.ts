import { definePlugin } from '@engine/core/plugin';
import { changeFiles, planFiles } from './attach.ts';
import { createDockerSpec } from './driver.ts';
import { realHost } from './host-view.ts';
import { dockerJson } from './inspect.ts';
import { compileUpdate } from './limits.ts';
import { compileExec } from './process.ts';

/** Taps only: it replaces no backend, it says what a request means, and shows what came of it in the same words. */
export default definePlugin({
  create({ machine, tap }) {
    const deps = { machine, host: realHost };
    const docker = createDockerSpec(deps);
    tap('compile', (_, value) => docker.compile(value));
    tap('attachNetwork', (context, value) => planFiles(context, value, deps), { when: ({ endpoints }) => endpoints.length > 0 });
    tap('networksChanged', (_, value) => changeFiles(value, deps));
    tap('compileExec', (_, value) => compileExec(value));
    tap('compileUpdate', (_, value) => compileUpdate(value, realHost));
    tap('inspect', (_, value) => dockerJson(value));
    return {};
  },
});
