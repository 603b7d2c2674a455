import { join } from 'node:path';
import { type Attachment, type NetworksChanged, type RunHookContext } from '@engine/core/hooks';
import { BITS, op, type Operation } from '@engine/core/plan';
import { type DockerSpecDeps } from './driver.ts';
import { changedHosts, networkHosts, networkResolvConf, resolvConf } from './hosts-files.ts';

const FILES = { none: 'goes with the container' } as const;
const file = (path: string, text: string): Operation<'writeFile'> => op.writeFile({ path, data: Buffer.from(text), mode: 0o644, how: BITS.WRITE.create | BITS.WRITE.truncate });

/**
 * What of `/etc/hosts` and `/etc/resolv.conf` follows from where a container is in this run: with each run it has other addresses. Says the same bytes for
 * the same endpoints, so that plans can be remembered.
 */
export function planFiles({ container, spec, plan }: Pick<RunHookContext, 'container' | 'spec' | 'plan'>, { endpoints, resolvers, folder }: Attachment, { machine, host }: DockerSpecDeps): void {
  const { request } = container;
  plan.add('shim.links', file(join(folder, 'hosts'), networkHosts(request, endpoints, spec.hostname ?? machine.hostname)), FILES);
  if (resolvers.length > 0) plan.add('shim.links', file(join(folder, 'resolv.conf'), networkResolvConf(request, resolvers, host)), FILES);
  // in its first run it has what was written when it was made; since then the host may have moved, or the container
  else if (container.starts > 0) plan.add('shim.links', file(join(folder, 'resolv.conf'), resolvConf(request, false, host)), FILES);
}

/** The same files of a container that runs. What somebody in it has changed of them stays. */
export function changeFiles(changed: NetworksChanged, { machine, host }: DockerSpecDeps): NetworksChanged {
  const { container: { request, spec }, before, after, files } = changed;
  const { hosts, 'resolv.conf': current } = files;
  const resolver = ({ resolvers }: Attachment): string => (resolvers.length > 0 ? networkResolvConf(request, resolvers, host) : resolvConf(request, false, host));
  return {
    ...changed, files: {
      ...files,
      ...(hosts === undefined ? {} : { hosts: changedHosts(hosts, request, before.endpoints, after.endpoints, spec.hostname ?? machine.hostname) }),
      ...(current === resolver(before) ? { 'resolv.conf': resolver(after) } : {}),
    },
  };
}
