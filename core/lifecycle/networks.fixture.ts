import { existsSync } from 'node:fs';
import path from 'node:path';
import { BITS, effect, op, step } from '../plan/index.ts';
import { type ContainerNames, type DnsDriver } from '../contracts/dns/index.ts';
import { type FirewallDriver } from '../contracts/firewall/index.ts';
import { type IpamDriver } from '../contracts/ipam/index.ts';
import { type Endpoint, type NetworkDriver, type NetworkRecord } from '../contracts/network/index.ts';
import { fail } from '../errors/index.ts';
import { type PluginEntry } from './parts.ts';

const available = () => ({ available: true, score: 10, reasons: [] });
const CREATE = BITS.WRITE.create | BITS.WRITE.exclusive;
const file = (at: string, data = 'x') => effect(op.writeFile({ path: at, data: Buffer.from(data), how: CREATE, mode: 0o600 }), op.unlink({ path: at }, { okMissing: true }));

/** Networks of a fake machine: a link, a rule and a name are a file each, a network is a folder. */
export function fakeNetworks(folder: string, hosts = 250): { readonly network: NetworkDriver; readonly ipam: IpamDriver; readonly firewall: FirewallDriver; readonly dns: DnsDriver; readonly links: string; readonly conflicts: string[] } {
  const links = path.join(folder, 'links');
  const wire = ({ id }: Pick<NetworkRecord, 'id'>): string => path.join(folder, 'wires', id);
  const link = (endpoint: Pick<Endpoint, 'link'>): string => path.join(links, endpoint.link);
  const rule = (endpoint: Endpoint): string => path.join(folder, 'rules', endpoint.run);
  const names = (container: string): string => path.join(folder, 'names', container);
  const none = { none: 'kept' } as const;
  const folders = ['links', 'wires', 'rules', 'names'].map((name) => effect(op.mkdir({ path: path.join(folder, name), mode: 0o700, parents: 1 }), none));
  const text = (endpoint: Endpoint): string => endpoint.addresses.map(({ address }) => `\n${address}\t${endpoint.container.slice(0, 12)}`).join('');
  const network: NetworkDriver = {
    name: 'wire', features: new Set(['networks', 'own-netns']), probe: available, serves: () => false, namespace: () => ({ kind: 'new' }), planEndpoint: () => [],
    managed: {
      design: ({ options }) => {
        if (options['wrong'] !== undefined) throw fail('ERR_INVALID_VALUE', 'unknown option: wrong');
        return { mtu: 1500 };
      },
      ensure: (record) => (existsSync(wire(record)) ? [] : [...folders, effect(op.mkdir({ path: wire(record), mode: 0o700 }), op.rmdir({ path: wire(record) }, { okMissing: true }))]),
      remove: (record) => [effect(op.rmdir({ path: wire(record) }, { okMissing: true }), none)],
      planAttach: (endpoint) => [{ slot: 'shim.attach', ...file(link(endpoint), `${endpoint.mac}${text(endpoint)}`) }, step('init.netns', op.linkIndex({ name: endpoint.interface, out: `wire.${endpoint.interface}` }))],
      connect: (endpoint) => [file(link(endpoint), text(endpoint))],
      disconnect: (endpoint) => [effect(op.unlink({ path: link(endpoint) }, { okMissing: true }), none)],
      isGone: (endpoint) => !existsSync(link(endpoint)),
      firewalled: ({ id, name, internal, pools }) => ({ id, name, link: `w-${id.slice(0, 12)}`, subnets: pools.map((p) => p.subnet), gateways: pools.map((p) => p.gateway), internal, icc: true, isolated: true, masquerade: true, dns: true }),
      tokens: (endpoint) => [Buffer.from(endpoint.link), Buffer.from(endpoint.mac)],
    },
  };
  const conflicts: string[] = [];
  const ipam: IpamDriver = {
    name: 'fake', features: new Set(), probe: available,
    choosePools: ({ pools, taken }) => {
      const subnet = pools[0]?.subnet ?? Array.from({ length: 200 }, (_, i) => `10.1.${i}.0/24`).find((s) => !taken.some((t) => t.subnet === s)) ?? '';
      return [{ family: 4, subnet, gateway: subnet.replace('.0/24', '.1') }];
    },
    conflict: () => conflicts.shift(),
    * candidates({ subnet }, last) {
      const base = subnet.replace('.0/24', '');
      const from = Number(last?.split('.')[3] ?? 1);
      for (let i = 0; i < hosts; i++) yield `${base}.${2 + ((from - 1 + i) % hosts)}`;
    },
    check: ({ subnet }, address) => {
      if (!address.startsWith(subnet.replace('0/24', ''))) throw fail('ERR_INVALID_VALUE', `${address} is not in ${subnet}`);
      return address;
    },
  };
  const firewall: FirewallDriver = {
    name: 'fake', features: new Set(['ports']), probe: available, ensure: () => [], remove: () => [],
    planPorts: (endpoint) => [{ slot: 'shim.attach', ...file(rule(endpoint)) }],
    why: ({ hostPort }) => [`rule for ${hostPort}`],
  };
  const dns: DnsDriver = {
    name: 'fake', features: new Set(), probe: available, resolvers: ({ pools }) => pools.map((p) => p.gateway), ensure: () => [], remove: () => [],
    planNames: (told) => [{ slot: 'shim.links', ...file(names(told.container), JSON.stringify(told)) }],
    change(told, before) {
      const tell = (what: ContainerNames) => (what.endpoints.length === 0 ? op.unlink({ path: names(told.container) }, { okMissing: true }) : op.writeFile({ path: names(told.container), data: Buffer.from(JSON.stringify(what)), how: BITS.WRITE.create | BITS.WRITE.truncate, mode: 0o600 }));
      return [effect<'unlink' | 'writeFile'>(tell(told), tell(before))];
    },
  };
  return { network, ipam, firewall, dns, links, conflicts };
}

/** As one plugin. */
export function networkPlugin({ network, ipam, firewall, dns }: ReturnType<typeof fakeNetworks>): PluginEntry {
  const drivers = [['network', network], ['ipam', ipam], ['firewall', firewall], ['dns', dns]] as const;
  return {
    manifest: { name: 'wires', version: '1.0.0', main: './x.ts', provides: drivers.map(([contract, { name, features }]) => ({ contract, driver: name, features: [...features] })) },
    builtin: false, source: 'wires', optionsDigest: 'd', eager: false, load: async () => ({ drivers: drivers.map(([, driver]) => driver) }),
  };
}
