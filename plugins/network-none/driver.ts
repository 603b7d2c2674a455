import { op, step } from '@engine/core/plan';
import { type NetworkDriver } from '@engine/core/contracts/network';
import { type DriverDeps, type Machine, type Probe } from '@engine/core/contracts/common';

const NETLINK_ROUTE = 0;
const RTM_NEWLINK = 16;
const NLM_F_REQUEST_ACK = 1 | 4;
const IFF_UP = 1;
/** lo is the first interface of every net namespace. */
const LOOPBACK = 1;

/** RTM_NEWLINK that sets interface `index` up: nlmsghdr and ifinfomsg of <linux/rtnetlink.h>. */
export function linkUp(index: number): Uint8Array {
  const message = Buffer.alloc(32);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(RTM_NEWLINK, 4);
  message.writeUInt16LE(NLM_F_REQUEST_ACK, 6);
  message.writeUInt32LE(1, 8);
  message.writeInt32LE(index, 20);
  message.writeUInt32LE(IFF_UP, 24);
  message.writeUInt32LE(IFF_UP, 28);
  return message;
}

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
      return [step('init.netns', op.netlink({ protocol: NETLINK_ROUTE, messages: linkUp(LOOPBACK) }))];
    },
  };
}
