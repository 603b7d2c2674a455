import { fail } from '@engine/core/errors';
import { op, step } from '@engine/core/plan';
import { type NetworkDriver, type NetworkRecord } from '@engine/core/contracts/network';
import { type DriverDeps, type Machine, type Probe } from '@engine/core/contracts/common';
import { loopbackUp, NETLINK_ROUTE } from '@engine/native/netlink';
import { type Rtnetlink } from '@engine/native/rtnetlink';
import { aliasOf, attachSteps, connectEffects, disconnectEffects, promoteEffects, tokensOf, type Attached } from './attach.ts';
import { createBridges, ownName } from './bridge.ts';
import { PLUGIN, readDesign, type BridgeSettings } from './options.ts';

export interface BridgeDriverOptions {
  /** Of networks that name none. */
  readonly mtu?: number;
}
export type BridgeDriverDeps = Pick<DriverDeps, 'machine' | 'instance'> & { readonly rtnetlink: Rtnetlink };

/** The engine that most people have gives its default network a name that one can remember; of engines on other roots there may be many. */
const USUAL_ROOT = '/var/lib/engine';
const DEFAULT_BRIDGE = 'br-engine';
const NO_INDEX = 0;

/** Networks as Linux bridges: one per network, a veth pair per container on it. */
export function createNetworkBridge({ machine, instance, rtnetlink }: BridgeDriverDeps, options: BridgeDriverOptions = {}): NetworkDriver {
  const bridges = createBridges({ machine, instance, rtnetlink });
  const settingsOf = (network: NetworkRecord): BridgeSettings => network.settings as unknown as BridgeSettings;
  let kernelIpv6: boolean | undefined;
  const attachedTo = (network: NetworkRecord): Attached => ({ ...settingsOf(network), kernelIpv6: (kernelIpv6 ??= machine.read('/proc/sys/net/ipv6/conf/all/forwarding') !== undefined) });
  const missing = (network: NetworkRecord): Error => fail('ERR_STATE', `the bridge ${settingsOf(network).bridge} of network ${network.name} is not there`, { path: settingsOf(network).bridge, plugin: PLUGIN, hint: 'somebody deleted it: try again' });

  return {
    name: 'bridge',
    features: new Set(['networks', 'own-netns']),
    probe: (on: Machine): Probe => {
      if (!on.namespaces.includes('net')) return { available: false, score: 0, reasons: ['this kernel has no net namespaces'] };
      return on.uid === 0 ? { available: true, score: 50, reasons: ['bridges and veth pairs by netlink'] } : { available: false, score: 0, reasons: ['making bridges needs root'] };
    },
    serves: () => false,
    namespace: () => ({ kind: 'new' }),
    planEndpoint: () => [step('init.netns', op.netlink({ protocol: NETLINK_ROUTE, messages: loopbackUp() }))],
    managed: {
      design: (request) => ({
        ...readDesign(request, { bridge: request.predefined && machine.root === USUAL_ROOT ? DEFAULT_BRIDGE : ownName(request.id), mtu: options.mtu, rtnetlink }),
      }),
      ensure: (network) => bridges.ensure(network),
      remove: (network) => bridges.remove(network),
      planAttach(endpoint, network, run) {
        const bridge = run.explain ? bridgeToShow(network) : bridges.find(network)?.index;
        if (bridge === undefined) throw missing(network);
        return attachSteps(endpoint, network, attachedTo(network), bridge, instance);
      },
      connect(endpoint, network, target) {
        const bridge = bridges.find(network);
        if (!bridge) throw missing(network);
        return connectEffects(endpoint, network, attachedTo(network), bridge.index, instance, target);
      },
      disconnect: (endpoint) => disconnectEffects(endpoint),
      promote: (endpoint, _, target) => promoteEffects(endpoint, target),
      interfacePrefix: (network) => settingsOf(network).interfacePrefix,
      isGone: (endpoint) => rtnetlink.link({ name: endpoint.link })?.alias !== aliasOf(instance, endpoint.run, endpoint.network),
      firewalled(network) {
        const { bridge, icc, isolated, masquerade } = settingsOf(network);
        return {
          id: network.id, name: network.name, link: bridge, subnets: network.pools.map(({ subnet }) => subnet), gateways: network.pools.map(({ gateway }) => gateway),
          internal: network.internal, icc, isolated, masquerade, dns: !network.predefined,
        };
      },
      tokens: tokensOf,
    },
  };

  /** `--explain` shows a plan before the network is made again, and to those who may not. */
  function bridgeToShow(network: NetworkRecord): number {
    try {
      return bridges.find(network)?.index ?? NO_INDEX;
    } catch {
      return NO_INDEX;
    }
  }
}
