import { addressKey, subnetTest } from './address.ts';
import { type ContainerFile, type NetworkFile } from './files.ts';

/** Who asks: the container that has the address on the network by which he came, if it is known. */
export interface Asker {
  /** The networks that it is on, in its order; of somebody unknown, the one by which he came. */
  readonly networks: readonly string[];
  /** Name servers of its own. */
  readonly servers: readonly string[];
  /** All its networks are internal: nothing outside is to be known of it. */
  readonly internal: boolean;
}
export interface Zone {
  setNetwork(network: NetworkFile): void;
  removeNetwork(id: string): void;
  setContainer(container: ContainerFile): void;
  removeContainer(id: string): void;
  networks(): readonly NetworkFile[];
  asker(network: string, address: string): Asker;
  /** Addresses by that name on the first of the asker's networks that has it; rotated with each call. Undefined: nobody's name. */
  lookup(asker: Asker, name: string): readonly string[] | undefined;
  /** Who has the address, among those of whom the asker may hear. */
  reverse(asker: Asker, key: string): string | undefined;
  /** Is it of one of our networks, whoever asks? */
  isOurs(key: string): boolean;
  /** Does somebody on this network, or the host through its gateway, ask? */
  mayAsk(network: string, address: string): boolean;
}

interface Network {
  file: NetworkFile;
  inside(address: string): boolean;
}
interface Names {
  /** Lower case. container → its addresses. */
  readonly byName: Map<string, Map<string, readonly string[]>>;
  readonly byAddress: Map<string, { readonly container: string; readonly name: string }>;
}

export function createZone(): Zone {
  const networks = new Map<string, Network>();
  const containers = new Map<string, ContainerFile>();
  const names = new Map<string, Names>();
  let turn = 0;

  const namesOf = (network: string): Names => {
    let found = names.get(network);
    if (!found) names.set(network, (found = { byName: new Map(), byAddress: new Map() }));
    return found;
  };
  const removeContainer = (id: string): void => {
    for (const { network, name, names: more, addresses } of containers.get(id)?.endpoints ?? []) {
      const { byName, byAddress } = namesOf(network);
      for (const each of [name, ...more]) {
        const key = each.toLowerCase();
        const holders = byName.get(key);
        holders?.delete(id);
        if (holders?.size === 0) byName.delete(key);
      }
      for (const address of addresses) {
        const key = addressKey(address);
        if (key !== undefined && byAddress.get(key)?.container === id) byAddress.delete(key);
      }
      if (byName.size === 0 && byAddress.size === 0) names.delete(network);
    }
    containers.delete(id);
  };
  const find = (network: string, name: string): readonly string[] | undefined => {
    const holders = names.get(network)?.byName.get(name);
    return holders && [...holders.values()].flat();
  };

  return {
    setNetwork: (file) => void networks.set(file.id, { file, inside: subnetTest(file.subnets) }),
    removeNetwork: (id) => void networks.delete(id),
    setContainer(file) {
      removeContainer(file.container);
      containers.set(file.container, file);
      for (const { network, name, names: more, addresses } of file.endpoints) {
        const { byName, byAddress } = namesOf(network);
        for (const each of new Set([name, ...more].map((one) => one.toLowerCase()))) {
          if (each === '') continue;
          const holders = byName.get(each) ?? new Map<string, readonly string[]>();
          byName.set(each, holders.set(file.container, [...(holders.get(file.container) ?? []), ...addresses]));
        }
        for (const address of addresses) {
          const key = addressKey(address);
          if (key !== undefined) byAddress.set(key, { container: file.container, name });
        }
      }
    },
    removeContainer,
    networks: () => [...networks.values()].map(({ file }) => file),
    asker(network, address) {
      const key = addressKey(address);
      const own = containers.get((key !== undefined && names.get(network)?.byAddress.get(key)?.container) || '');
      const on = own ? [...new Set(own.endpoints.map((endpoint) => endpoint.network))] : [network];
      return { networks: on, servers: own?.servers ?? [], internal: on.every((id) => networks.get(id)?.file.internal ?? false) };
    },
    lookup(asker, asked) {
      const name = asked.toLowerCase();
      for (const network of asker.networks) {
        const called = networks.get(network)?.file.name.toLowerCase();
        const found = find(network, name) ?? (called !== undefined && name.endsWith(`.${called}`) ? find(network, name.slice(0, -called.length - 1)) : undefined);
        if (!found) continue;
        const first = found.length === 0 ? 0 : turn++ % found.length;
        return [...found.slice(first), ...found.slice(0, first)];
      }
      return undefined;
    },
    reverse: (asker, key) => asker.networks.map((network) => names.get(network)?.byAddress.get(key)?.name).find((name) => name !== undefined),
    isOurs: (key) => [...networks.values()].some(({ inside }) => inside(key)),
    mayAsk: (network, address) => networks.get(network)?.inside(address) ?? false,
  };
}
