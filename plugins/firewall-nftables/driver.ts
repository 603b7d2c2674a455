import { existsSync } from 'node:fs';
import { fail } from '@engine/core/errors';
import { BITS, effect, forgiving, op, step, type Effect, type Operation } from '@engine/core/plan';
import { ensureFolder, type DriverDeps } from '@engine/core/contracts/common';
import { type FirewallDriver, type FirewallNetwork } from '@engine/core/contracts/firewall';
import { acceptText, commentOf, ENVIRONMENT, forgetAccepts, isEngineTable, neededAccepts } from '@engine/native/foreign-accepts';
import { type Ruleset } from '@engine/native/foreign-chains';
import { addressBytes, NETLINK_NETFILTER } from '@engine/native/netlink';
import { createNftables, type Nftables } from '@engine/native/nfnetlink';
import { readRuleset } from '@engine/native/nft-ruleset';
import { createRtnetlink, type Rtnetlink } from '@engine/native/rtnetlink';
import { bindingLines, bindingsOf, linkKey, PROTOCOLS, relayedOf, tokensOf } from './bindings.ts';
import { allMembers, bindingsFile, bindingsFolder, networkFile, networksFolder, readNetworks } from './files.ts';
import { legacyAccepts, legacyPrograms } from './foreign.ts';
import { addBatch, isTolerant, removeOperations, type Element } from './messages.ts';
import { deleteText, digestOf, isLinkName, membersOf, tableText, versionMember, type Member } from './ruleset.ts';
import { explain } from './why.ts';

const PLUGIN = 'firewall-nftables';
const NFT_PLACES = ['/usr/sbin/nft', '/sbin/nft', '/usr/bin/nft', '/usr/local/sbin/nft', '/run/current-system/sw/bin/nft'];
/** The interface of a packet that leaves (nat postrouting, `iifname`): Linux 5.7. */
const NEEDS = [5, 7] as const;
/** Numbers of netfilter's hooks. */
const INPUT = 1;
const FORWARD = 2;
const DELETE_WHEN_EMPTY = 'if [ -z "$(ls "$1" 2>/dev/null)" ]; then printf "add table inet %s\\ndelete table inet %s\\n" "$2" "$2" | "$0" -f -; fi';
const REMOVAL = { none: 'a removal is repeated until it is done' } as const;

export interface NftablesOptions {
  /** How the kernel is read; default: netlink, in the net namespace of the process. */
  readonly nftables?: Pick<Nftables, 'hasTable' | 'hasElement' | 'generation' | 'chains'>;
  /** The live ruleset. */
  readonly ruleset?: () => Ruleset;
  readonly rtnetlink?: Pick<Rtnetlink, 'addresses'>;
  /** Path of the program; default: the first that is there. Undefined: none. */
  readonly program?: string;
}
type Deps = Pick<DriverDeps, 'machine' | 'serviceFolder' | 'instance' | 'log'>;

/** Firewall by one nftables table, whose rules are fixed: networks and published ports are elements of its sets. See docs/decisions/port-bindings.md. */
export function createNftablesFirewall(deps: Deps, options: NftablesOptions = {}): FirewallDriver {
  const { instance: table, serviceFolder, machine } = deps;
  const tolerant = isTolerant(machine.kernel);
  const nftables = options.nftables ?? createNftables();
  const rtnetlink = options.rtnetlink ?? createRtnetlink();
  const ruleset = options.ruleset ?? readRuleset;
  const find = (): string | undefined => options.program ?? NFT_PLACES.find((path) => existsSync(path));
  let found: string | undefined;
  const program = (): string => {
    found ??= find();
    if (found === undefined) throw fail('ERR_DRIVER_UNAVAILABLE', 'the program nft is not there', { path: NFT_PLACES[0] as string, plugin: PLUGIN, hint: 'install nftables, or choose another firewall driver' });
    return found;
  };
  const runText = (text: string): Operation => op.execHost({ argv: [program(), '-f', '-'], stdin: Buffer.from(text), deadline: 20_000 });
  const takeOut = (members: readonly Member[]): readonly Operation[] => removeOperations(table, members.map(elementOf), tolerant);

  const live = (): Ruleset => {
    try {
      return ruleset();
    } catch (error) {
      deps.log.warn({ err: error }, 'the rules of other software cannot be read: they may drop what goes to or from containers');
      return { tables: [], chains: [] };
    }
  };
  /** Chains of others that could drop, as they were when the networks were last looked at. */
  const checked = new Map<string, { generation: number; chains: string }>();
  const foreignBases = (): string => nftables.chains()
    .filter(({ family, table: of, hook, type }) => (hook === INPUT || hook === FORWARD) && type !== 'nat' && (family === 'inet' || family === 'ip' || family === 'ip6') && !isEngineTable(family, of))
    .map(({ family, table: of, name, policy }) => `${family} ${of} ${name} ${policy ?? ''}`).join('\n');

  /** For a network whose own rules are there: has another firewall come meanwhile? What changes inside of its chains is the service's business. */
  function passForeign(network: FirewallNetwork): readonly Effect[] {
    const generation = nftables.generation();
    const last = checked.get(network.id);
    if (last?.generation === generation) return [];
    const chains = foreignBases();
    const comment = commentOf(table, network.link);
    const text = chains === (last?.chains ?? '') ? '' : acceptText(neededAccepts(live(), network), comment);
    if (text === '') checked.set(network.id, { generation, chains });
    return text === '' ? [] : [effect(runText(text), { none: 'it belongs to a network that was there before, and goes with it' })];
  }

  return {
    name: 'nftables',
    features: new Set(['ports', 'restore']),

    probe({ kernel, uid }) {
      const path = find();
      if (path === undefined) return { available: false, score: 0, reasons: ['the program nft is not there (package nftables)'] };
      if (kernel[0] < NEEDS[0] || (kernel[0] === NEEDS[0] && kernel[1] < NEEDS[1])) return { available: false, score: 0, reasons: [`needs Linux ${NEEDS.join('.')}, this is ${kernel.join('.')}`] };
      if (uid === 0) {
        try {
          nftables.hasElement(table, 'known', linkKey('probe'));
        } catch (error) {
          return { available: false, score: 0, reasons: [`the kernel's nf_tables cannot be used: ${error instanceof Error ? error.message : String(error)}`] };
        }
      }
      return { available: true, score: 60, reasons: [`one table inet ${table}, made by ${path}`, tolerant ? 'published ports are elements of maps' : 'published ports are elements of maps; before Linux 6.3 each is undone by a message of its own'] };
    },

    ensure(network) {
      check(network);
      const file = networkFile(serviceFolder, network.id);
      const known = existsSync(file);
      if (known && nftables.hasElement(table, 'known', linkKey(digestOf(network)))) return passForeign(network);

      const members = membersOf(network);
      const isCurrent = nftables.hasElement(table, 'known', linkKey(versionMember.text.slice(1, -1)));
      const grows = isCurrent && !known;
      const others = readNetworks(serviceFolder).some(({ id }) => id !== network.id);
      const comment = commentOf(table, network.link);
      const accepts = acceptText(neededAccepts(live(), network), comment);
      const legacy = legacyPrograms((path) => machine.read(path));
      // rules again even so: whoever removes the last network takes the table along
      const text = `${grows ? tableText(table, [versionMember, ...members]) : tableText(table, [versionMember, ...allMembers(serviceFolder, [network])], { anew: isCurrent || nftables.hasTable(table) })}${accepts}`;
      // what was there before stays: the undo of a table that was put back for others too takes this network out of it alone
      const forgotten = op.unlink({ path: file }, { okMissing: true });
      // the file first, so that the service does not put back what is on its way out
      const undo = [forgotten, ...(others || grows ? takeOut(members) : [runText(deleteText(table))]), ...(accepts === '' ? [] : [forgetAccepts(program(), comment)])];
      return [
        ensureFolder(serviceFolder), ensureFolder(networksFolder(serviceFolder)), ensureFolder(bindingsFolder(serviceFolder)),
        effect(op.writeFile({ path: file, data: Buffer.from(JSON.stringify(network)), mode: 0o600, how: BITS.WRITE.create | BITS.WRITE.atomic }), known ? { none: 'it was there before' } : forgotten),
        effect(runText(text), known ? { none: 'it was there before' } : undo),
        ...(legacy.length ? [effect(legacyAccepts('add', network.link, comment, legacy), legacyAccepts('remove', network.link, comment, legacy))] : []),
      ];
    },

    remove(network) {
      check(network);
      const last = readNetworks(serviceFolder).every(({ id }) => id === network.id);
      const comment = commentOf(table, network.link);
      const legacy = legacyPrograms((path) => machine.read(path));
      const operations: Operation[] = [
        forgiving(op.unlink({ path: networkFile(serviceFolder, network.id) })),
        ...takeOut(membersOf(network)),
        // unless another one has come since
        ...(last ? [op.execHost({ argv: ['/bin/sh', '-c', DELETE_WHEN_EMPTY, program(), networksFolder(serviceFolder), table], env: ENVIRONMENT, deadline: 10_000 })] : []),
        forgetAccepts(program(), comment),
        ...(legacy.length ? [legacyAccepts('remove', network.link, comment, legacy)] : []),
      ];
      return operations.map((operation): Effect => ({ operation, undo: [], noUndo: REMOVAL.none }));
    },

    planPorts(endpoint, network, run) {
      check(network);
      const bindings = bindingsOf(endpoint);
      const elements = [...bindings, ...relayedOf(endpoint)];
      if (elements.length === 0) return [];
      const path = bindingsFile(serviceFolder, run.run, endpoint.interface);
      // holdPort came first, so the port is ours: an element in its place is a dead run's. SCTP is not held where the kernel has no such sockets
      const instead = tolerant ? elements.filter(({ text }) => !text.startsWith('sctp')) : [];
      // one walk through conntrack serves all that stand in a row; those of all addresses are the same for both families
      const datagrams = new Map(bindings.filter(({ port }) => port.protocol === 'udp').map(({ port: { hostAddress, hostPort }, set }) => [`${set.startsWith('any') ? '' : hostAddress} ${hostPort}`, { hostPort, ...(set.startsWith('any') ? {} : { hostAddress }) }] as const));
      const flows = [...datagrams.values()].map(({ hostPort, hostAddress }) => op.forgetFlows({ protocol: PROTOCOLS.udp, port: hostPort, ...(hostAddress === undefined ? {} : { address: addressBytes(hostAddress) }) }));
      const forgotten = op.unlink({ path }, { okMissing: true });
      return [
        step('shim.links', op.writeFile({ path, data: Buffer.from(bindingLines(elements)), mode: 0o600, how: BITS.WRITE.create | BITS.WRITE.atomic }), forgotten),
        // the file goes first, so that the service does not put back what is on its way out
        step('shim.attach', op.netlink({ protocol: NETLINK_NETFILTER, messages: addBatch(table, elements, instead) }), [forgotten, ...removeOperations(table, elements, tolerant), ...flows]),
        // clients that sent before the port was published have a flow to the host itself, which would go on there
        ...flows.map((operation) => step('shim.attach', operation)),
      ];
    },

    tokens: tokensOf,

    why(binding, endpoint, network) {
      check(network);
      return explain({ binding, endpoint, network, table, ruleset: ruleset(), addresses: rtnetlink.addresses(), hasElement: (...of) => nftables.hasElement(...of), read: (path) => machine.read(path) });
    },
  };
}

function check({ link, id }: FirewallNetwork): void {
  if (!isLinkName(link)) throw fail('ERR_INVALID_VALUE', `not a link name: ${JSON.stringify(link)}`, { path: link, plugin: PLUGIN });
  if (!/^[0-9a-f]{1,64}$/.test(id)) throw fail('ERR_INVALID_VALUE', `not a network id: ${JSON.stringify(id)}`, { path: id, plugin: PLUGIN });
}

/** Members of networks are names of links, alone or in pairs. */
function elementOf({ set, text }: Member): Element {
  const name = text.split('"')[1] ?? '';
  return { set, key: linkKey(name, text.includes(' . ')) };
}
