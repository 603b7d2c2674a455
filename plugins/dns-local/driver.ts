import { readdirSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { BITS, effect, forgiving, op, step, type Effect, type Operation } from '@engine/core/plan';
import { type DriverDeps, type Machine } from '@engine/core/contracts/common';
import { type ContainerNames, type DnsDriver } from '@engine/core/contracts/dns';
import { type NetworkRecord } from '@engine/core/contracts/network';
import { FOLDERS, parseNetwork, type NetworkFile } from './files.ts';

const MODE = 0o600;
/** Shared by all networks and containers, and empty without them. */
const folderStays = { none: 'an empty folder below runRoot, gone with a reboot' } as const;

/** Names by a file per network and one per container; the plugin's service answers from them. */
export function createLocalDns({ serviceFolder }: Pick<DriverDeps, 'serviceFolder'>): DnsDriver {
  const networks = join(serviceFolder, FOLDERS.networks);
  const containers = join(serviceFolder, FOLDERS.containers);
  const networkPath = ({ id }: NetworkRecord): string => join(networks, `${id}.json`);
  const containerPath = (container: string): string => join(containers, `${container}.json`);
  /** Put in its place by a rename: the service may be reading the old one. */
  const replace = (path: string, text: string): Operation<'writeFile'> => op.writeFile({ path, data: Buffer.from(text), mode: MODE, how: BITS.WRITE.atomic });
  const gone = (path: string): Operation => forgiving(op.unlink({ path }));

  return {
    name: 'local',
    features: new Set(),
    probe(machine) {
      return { available: true, score: 50, reasons: ['names are answered on the gateway of each network by the keeper', ...unserved(networks, machine)] };
    },

    resolvers({ predefined, pools }) {
      if (predefined) return [];
      const gateways = (family: 4 | 6): string[] => pools.filter((pool) => pool.family === family).map(({ gateway }) => gateway);
      const four = gateways(4);
      return four.length > 0 ? four : gateways(6);
    },

    ensure(network) {
      if (network.predefined) return [];
      const path = networkPath(network);
      const text = networkText(network);
      const there = read(path);
      if (there === text) return [];
      const before = there === undefined ? gone(path) : replace(path, there);
      return [
        effect(op.mkdir({ path: networks, mode: 0o700, parents: 1 }), folderStays),
        effect(op.mkdir({ path: containers, mode: 0o700, parents: 1 }), folderStays),
        effect(replace(path, text), before),
      ];
    },
    remove(network) {
      if (network.predefined) return [];
      return [effect(forgiving(op.unlink({ path: networkPath(network) })), replace(networkPath(network), networkText(network)))];
    },

    planNames(names) {
      if (names.endpoints.length === 0) return [];
      const path = containerPath(names.container);
      // not by a rename, which would flush it to disk first: the service reads half of a file as none, and the container doesn't run before it is whole
      return [step('shim.links', op.writeFile({ path, data: Buffer.from(containerText(names)), mode: MODE, how: BITS.WRITE.create | BITS.WRITE.truncate }), gone(path))]; // a disconnect from the last network has taken it already
    },
    change(names, before) {
      const path = containerPath(names.container);
      const state = (of: ContainerNames): Operation => (of.endpoints.length === 0 ? gone(path) : replace(path, containerText(of)));
      const made: Effect[] = names.endpoints.length === 0 ? [] : [effect(op.mkdir({ path: containers, mode: 0o700, parents: 1 }), folderStays)];
      return [...made, effect(state(names), state(before))];
    },
  };
}

function networkText({ id, name, pools, internal }: NetworkRecord): string {
  const file: NetworkFile = { id, name, gateways: pools.map(({ gateway }) => gateway), subnets: pools.map(({ subnet }) => subnet), internal };
  return JSON.stringify(file);
}
function containerText({ container, servers, endpoints }: ContainerNames): string {
  return JSON.stringify({ container, servers, endpoints: endpoints.map(({ network, name, names, addresses }) => ({ network, name, names, addresses })) });
}
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** For `doctor`: networks on whose gateway nobody answers although containers run; somebody else may have the port. */
function unserved(folder: string, machine: Machine): string[] {
  const list = (path: string): string[] => {
    try {
      return readdirSync(path).filter((name) => !name.startsWith('.'));
    } catch {
      return [];
    }
  };
  if (list(join(machine.runRoot, 'runs')).length === 0) return [];
  const bound = machine.read('/proc/net/udp');
  if (bound === undefined) return [];
  return list(folder).flatMap((name) => {
    const network = parseNetwork(read(join(folder, name)) ?? '');
    const gateway = network?.gateways.find((address) => isIP(address) === 4);
    if (!network || gateway === undefined) return [];
    const [a = 0, b = 0, c = 0, d = 0] = gateway.split('.').map(Number);
    const hex = new DataView(Uint8Array.of(a, b, c, d).buffer).getUint32(0, littleEndian).toString(16).toUpperCase().padStart(8, '0');
    return new RegExp(`^ *\\d+: ${hex}:0035 `, 'm').test(bound) ? [] : [`network ${network.name}: nobody answers on ${gateway} port 53 at the moment, see ${join(machine.runRoot, 'keeper.log')}`];
  });
}
/** As /proc/net writes addresses: in the byte order of the machine. */
const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
