// Made by config/setup/builtins.ts from the manifests of plugins/. A test compares them.
import { type ServiceDefinition } from '@engine/core/plugin';

/** Services of the plugins that come with the engine. */
export const services: Readonly<Record<string, () => Promise<{ readonly default: ServiceDefinition<never> }>>> = {
  'dns-local': () => import('../../plugins/dns-local/service.ts'),
  'firewall-nftables': () => import('../../plugins/firewall-nftables/service.ts'),
};
