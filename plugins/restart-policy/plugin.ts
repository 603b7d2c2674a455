import { type ContainerRequest } from '@engine/core/api';
import { definePlugin } from '@engine/core/plugin';
import { createRestartPolicy } from './driver.ts';

/** Taps only: the core knows of no policy. */
export default definePlugin({
  create(context) {
    const policy = createRestartPolicy(context, { engine: () => context.engine?.() ?? Promise.reject(new Error('no engine')) });
    const when = ({ container }: { readonly container: Parameters<typeof policy.concerns>[0] }): boolean => policy.concerns(container);
    context.tap('request', (_, request) => policy.removing(request), { when: ({ verb, arguments: { force } }) => verb === 'remove' && force !== true });
    context.tap('request', (_, request) => policy.creating(request), { name: 'restart-policy create', when: ({ verb, arguments: { request } }) => verb === 'create' && (request as ContainerRequest).restart !== undefined });
    context.tap('prepareRootfs', (run) => policy.starting(run));
    context.tap('stop', (_, value) => policy.stopping(value), { when });
    context.tap('update', (_, { container }) => policy.updating(container));
    context.tap('exited', (_, { container }) => policy.exited(container), { when });
    context.tap('reconcile', () => policy.takeUp());
    context.tap('shutdown', () => policy.close());
    return { needed: () => policy.needed(), restarts: (container, running) => policy.restarts(container, running) };
  },
});
