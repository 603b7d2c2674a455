import { type DriverDeps, type Probe } from '@engine/core/contracts/common';
import { type FirewallDriver, type FirewallNetwork } from '@engine/core/contracts/firewall';

/**
 * No rules at all: published ports are served by the relay of the held socket, containers reach what the host routes for them by itself, and nobody keeps
 * networks apart.
 */
export function createFirewallNone({ log }: Pick<DriverDeps, 'log'>): FirewallDriver {
  const told = new Set<string>();
  /** Once per network and engine: what is asked for and cannot be had. */
  const warn = (network: FirewallNetwork): void => {
    if (told.has(network.id)) return;
    told.add(network.id);
    const lacking = [
      ...(network.masquerade && !network.internal ? ['nothing is masqueraded (containers reach other hosts only when those know a way back)'] : []),
      ...(network.internal ? ['internal is not enforced'] : []),
      ...(network.icc ? [] : ['icc=false is not enforced']),
      ...(network.isolated ? ['it is not isolated from other networks'] : []),
    ];
    if (lacking.length > 0) log.warn({ network: network.name }, `firewall none makes no rules for network ${network.name}: ${lacking.join('; ')}`);
  };
  return {
    name: 'none',
    features: new Set(),
    probe: (): Probe => ({ available: true, score: 1, reasons: ['no rules: ports by a relay, networks are not kept apart, nothing is masqueraded'] }),
    ensure(network) {
      warn(network);
      return [];
    },
    remove: (network) => {
      told.delete(network.id);
      return [];
    },
    planPorts: () => [],
    why({ protocol, hostAddress, hostPort, containerPort }, _endpoint, { name, internal }) {
      const host = hostAddress.includes(':') ? `[${hostAddress}]` : hostAddress;
      const isLoopback = hostAddress === '::1' || hostAddress.startsWith('127.');
      return [
        `${host}:${hostPort}/${protocol}: by the relay of the socket that is held on the host, to port ${containerPort}; the container sees the gateway's address`,
        isLoopback ? 'from this host alone, as from any program that listens there' : 'from anywhere that reaches this address, unless another firewall of the host refuses it (firewall none makes no rules)',
        ...(internal ? [`network ${name} is internal, which firewall none does not enforce`] : []),
      ];
    },
  };
}
