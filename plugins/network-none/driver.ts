import { op, step } from '@engine/core/plan';
import { type NetworkDriver } from '@engine/core/contracts/network';
import { type DriverDeps, type Machine, type Probe } from '@engine/core/contracts/common';
import { encodeBatch, NETLINK_ROUTE, setLink } from '@engine/native/netlink';

/** lo is the first interface of every net namespace. */
const LOOPBACK = 1;

/** A net namespace with nothing but lo, which is up. Ports can't be reached there: they are left out with a warning, as Docker does. */
export function createNetworkNone(deps: Pick<DriverDeps, 'log'>): NetworkDriver {
  return {
    name: 'none',
    features: new Set(['own-netns']),
    probe: (machine: Machine): Probe =>
      machine.namespaces.includes('net') ? { available: true, score: 10, reasons: ['net namespaces'] } : { available: false, score: 0, reasons: ['this kernel has no net namespaces'] },
    serves: (mode) => mode === 'none',
    namespace: () => ({ kind: 'new' }),
    planEndpoint({ ports }, run) {
      if (ports.length > 0) deps.log.warn({ container: run.container }, 'published ports are discarded with network none');
      return [step('init.netns', op.netlink({ protocol: NETLINK_ROUTE, messages: encodeBatch([setLink({ index: LOOPBACK }, { up: true })]) }))];
    },
  };
}
