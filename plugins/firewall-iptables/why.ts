import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { type BoundPort, type Endpoint } from '@engine/core/contracts/network';
import { type Variant } from './programs.ts';
import { type Rules } from './reader.ts';
import { bindingRule, familyOf, networkChains, sharedChains, targetOf, type Names } from './rules.ts';

export interface Question {
  readonly binding: BoundPort;
  readonly endpoint: Endpoint;
  readonly network: FirewallNetwork;
  readonly names: Names;
  readonly reader: Rules;
  readonly variant: Variant;
}

/** Who can reach a binding, by which rules, as the kernel has them now; what of them is missing. */
export function explain({ binding, endpoint, network, names, reader, variant }: Question): string[] {
  const { protocol, hostAddress, hostPort, containerPort } = binding;
  const family = familyOf(hostAddress);
  const at = `${family === 6 ? `[${hostAddress}]` : hostAddress}:${hostPort}/${protocol}`;
  const target = targetOf(binding, endpoint);
  if (target === undefined) {
    return [`${at}: by the relay of the socket that is held on the host, to port ${containerPort}: ${hostAddress === '::1' ? '::1 cannot be translated' : `the container has no IPv${family} address`}; the container sees the gateway's address`];
  }
  const command = `${family === 4 ? 'iptables' : 'ip6tables'}-${variant}`;
  const chain = names.endpoint(endpoint);
  const rule = bindingRule(chain, binding, target);
  const wanted = endpoint.ports.filter((port) => familyOf(port.hostAddress) === family && targetOf(port, endpoint) !== undefined).length;
  const found = reader.rules(family, 'nat', chain).length;
  const isJumped = reader.rules(family, 'nat', names.ports).some((one) => one.mentions(chain));
  const missing = [
    ...sharedChains(family, names).flatMap(({ hooks }) => hooks.filter((hook) => !reader.rules(family, hook.table, hook.from).some((one) => one.mentions(hook.mentions))).map(({ table, from, spec }) => `${table}: -A ${from} ${spec}`)),
    ...networkChains(family, network, names).flatMap(({ table, chain: own, rules }) => (reader.rules(family, table, own).length === rules.length ? [] : [`${table}: chain ${own}`])),
    ...(isJumped ? [] : [`nat: -A ${names.ports} -j ${chain}`]),
    ...(found === wanted ? [] : [`nat: ${rule}`]),
  ];
  const isLoopback = family === 4 && hostAddress.startsWith('127.');
  const isEvery = hostAddress === '0.0.0.0' || hostAddress === '::';
  const before = reader.rules(family, 'filter', 'FORWARD').findIndex((one) => one.mentions(names.forward));
  return [
    ...missing.map((line) => `missing in ${command}, ${line}`),
    ...(missing.length > 0 ? [`${at}: until it is back (with the next start on network ${network.name}) only the relay of the held socket serves it; the container sees the gateway's address`] : []),
    ...(isLoopback
      ? [`${at}: from this host alone, by ${hostAddress}; the container sees the gateway's address`]
      : [
          `${at}: from anywhere that reaches ${isEvery ? `an IPv${family} address of this host` : hostAddress}, containers of other networks included; the container sees the client's address`,
          ...(isEvery ? [family === 4 ? `${at}: from this host by 127.0.0.1; the container sees the gateway's address` : `${at}: from this host by ::1 through the relay of the held socket; the container sees the gateway's address`] : []),
          `${at}: from its own network ${network.name}; the container sees the gateway's address`,
        ]),
    `by ${command} -t nat ${rule}`,
    `let through by ${command} -t filter chain ${names.network('F', network)}${before > 0 ? `, after ${before} rule${before === 1 ? '' : 's'} of others in FORWARD` : ''}`,
    ...(isLoopback ? [`kept from others by ${command} -t mangle chain ${names.loopback}`] : []),
  ];
}
