import { type NetworkDriver } from '@engine/core/contracts/network';
import { type DriverDeps } from '@engine/core/contracts/common';

/** The host's own network: no namespace, nothing to plan. A server inside listens on the host, so that publishing ports means nothing. */
export function createNetworkHost(deps: Pick<DriverDeps, 'log'>): NetworkDriver {
  return {
    name: 'host',
    features: new Set(),
    probe: () => ({ available: true, score: 5, reasons: ['shares the network of the host'] }),
    serves: (mode) => mode === 'host',
    namespace: () => ({ kind: 'host' }),
    planEndpoint({ ports }, run) {
      if (ports.length > 0) deps.log.warn({ container: run.container }, 'published ports are discarded with network host');
      return [];
    },
  };
}
