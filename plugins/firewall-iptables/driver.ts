import { fail } from '@engine/core/errors';
import { BITS, effect, op, step, type Effect, type Operation, type Step } from '@engine/core/plan';
import { ensureFolder, type DriverDeps, type Machine, type Probe } from '@engine/core/contracts/common';
import { type FirewallDriver, type FirewallNetwork } from '@engine/core/contracts/firewall';
import { type BoundPort, type Endpoint } from '@engine/core/contracts/network';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readRuleset } from '@engine/native/nft-ruleset';
import { addressBytes } from '@engine/native/netlink';
import { createNftables, type ListedChain } from '@engine/native/nfnetlink';
import { createRtnetlink, type Rtnetlink } from '@engine/native/rtnetlink';
import { createForeign, type Foreign } from './foreign.ts';
import { findProgram, findPrograms, type Programs, type Variant } from './programs.ts';
import { createReader, type Family, type RuleReader, type Rules } from './reader.ts';
import { bindingRule, chainNames, familyOf, relayedOf, relayedRule, restoreText, targetOf } from './rules.ts';
import { findMissing, hasHook, isPresent, removeNetwork, removeShared, type Change } from './state.ts';
import { explain } from './why.ts';

export interface IptablesOptions { readonly variant?: 'auto' | Variant }
/** For tests. */
export interface IptablesParts { readonly programs?: Programs; readonly reader?: RuleReader; readonly foreign?: Foreign; readonly rtnetlink?: Pick<Rtnetlink, 'addresses'> }

const DEADLINE = 10_000;
/** Seconds to wait for the lock of the old tables. */
const PATIENCE = '5';
/** Each argument is a text for iptables-restore, after a sign that says what its failure means, see Change. */
const SCRIPT = `
restore() { printf %s "\${t#?}" | "$r" --noflush -w ${PATIENCE}; }
r=$0
for t; do case $t in
  '!'*) restore || exit 1 ;;
  '|'*) if restore 2>/dev/null; then exit 0; fi ;;
  '<'*) if [ -e "\${t#?}" ]; then "$r" --noflush -w ${PATIENCE} <"\${t#?}" || :; fi ;;
  '+'*)
    c=\${t%% *} f=\${t#* }
    with() { while IFS= read -r l; do printf '%s\\n' "$l"; case $l in '*'*) printf -- '-N %s\\n' "\${c#?}" ;; esac; done; }
    # with the chain or without: whichever it is, others may change it at any time
    "$r" --noflush -w ${PATIENCE} <"$f" 2>/dev/null || with <"$f" | "$r" --noflush -w ${PATIENCE} 2>/dev/null || "$r" --noflush -w ${PATIENCE} <"$f" || exit 1 ;;
  *) restore 2>/dev/null || : ;;
esac; done`;
const SIGN = { must: '!', may: '?', all: '|', kept: '<', relayed: '+' } as const;
const FAMILIES: readonly Family[] = [4, 6];
const UDP = 17;

export function createFirewallIptables({ instance, machine, serviceFolder }: Pick<DriverDeps, 'instance' | 'machine' | 'serviceFolder'>, options: IptablesOptions = {}, parts: IptablesParts = {}): FirewallDriver {
  const wanted = options.variant ?? 'auto';
  const names = chainNames(instance);
  let programs = parts.programs;
  let reader = parts.reader;
  let foreign = parts.foreign;
  const rtnetlink = parts.rtnetlink ?? createRtnetlink();
  const installed = (): Programs | undefined => (programs ??= findPrograms(wanted));
  const rulesOf = (): RuleReader => (reader ??= createReader((installed() ?? fallen()).variant));
  const foreignOf = (): Foreign => {
    if (foreign) return foreign;
    const { variant } = installed() ?? fallen();
    const nftables = createNftables();
    const chains = (): readonly ListedChain[] => {
      try {
        return nftables.chains();
      } catch (error) {
        if (variant === 'legacy') return []; // a kernel without nf_tables
        throw error;
      }
    };
    return (foreign = createForeign({ instance, variant, nft: findProgram('nft'), chains, ruleset: readRuleset }));
  };
  const fallen = (): never => {
    throw fail('ERR_DRIVER_UNAVAILABLE', `iptables${wanted === 'auto' ? '' : `-${wanted}`}-restore is not installed`, { operation: 'iptables', hint: 'install iptables, or choose another firewall driver' });
  };
  const program = (family: Family): string => {
    const found = installed() ?? fallen();
    const path = family === 4 ? found.restore4 : found.restore6;
    if (path === undefined) throw fail('ERR_DRIVER_UNAVAILABLE', 'ip6tables-restore is not installed', { operation: 'iptables', hint: 'install it, or make networks without --ipv6' });
    return path;
  };

  /** Internal networks of a family that a container doesn't have would reach its ports by way of the host's own socket. Where there are none the rules wait for them. */
  const closeRelay = (endpoint: Endpoint, family: Family, chain: string): Step[] => {
    const relayed = relayedOf(endpoint, family);
    // without the program there are no networks of that family
    if (relayed.length === 0 || (family === 6 && (installed() ?? fallen()).restore6 === undefined)) return [];
    const path = join(serviceFolder, `${chain}.relayed${family}`);
    const text = restoreText([{ table: 'raw', lines: [`:${chain} - [0:0]`, ...relayed.map((port) => relayedRule(chain, port)), `-I ${names.relayed} 1 -j ${chain}`] }]);
    const dispatch = `-D ${names.relayed} -j ${chain}`;
    const drop = [`:${chain} - [0:0]`, `-X ${chain}`];
    const raw = (how: Change['how'], ...lines: string[]): Change => ({ how, text: restoreText([{ table: 'raw', lines }]) });
    const remove = change(family, [
      raw('all', dispatch, ...drop, `-X ${names.relayed}`),
      // as with what is bound
      raw('may', dispatch), raw('may', dispatch), raw('must', ...drop), raw('may', `-X ${names.relayed}`),
    ]);
    const forgotten = op.unlink({ path }, { okMissing: true });
    return [
      step('shim.attach', op.writeFile({ path, data: Buffer.from(text), mode: 0o600, how: BITS.WRITE.create | BITS.WRITE.truncate }), forgotten),
      step('shim.attach', change(family, [{ how: 'relayed', text: `${names.relayed} ${path}` }]), [forgotten, remove]),
    ];
  };

  const change = (family: Family, changes: readonly Change[]): Operation<'execHost'> =>
    op.execHost({ argv: ['/bin/sh', '-c', SCRIPT, program(family), ...changes.map(({ how, text }) => `${SIGN[how]}${text}`)], deadline: DEADLINE });
  /** What a running container publishes, as it was made: for when somebody takes the rules away. */
  const keptFile = (chain: string, family: Family): string => join(serviceFolder, `${chain}.${family}`);
  const lostPorts = (rules: Rules, family: Family, { internal }: FirewallNetwork): Change[] => {
    const files = readdirSync(serviceFolder);
    const lost = (suffix: string, table: 'nat' | 'raw', shared: string): Change[] => {
      const kept = files.filter((name) => name.endsWith(suffix) && !name.startsWith('.'));
      const jumps = kept.length === 0 ? [] : rules.rules(family, table, shared);
      return kept.filter((name) => !jumps.some((rule) => rule.mentions(name.slice(0, -suffix.length)))).map((name) => ({ how: 'kept', text: join(serviceFolder, name) }));
    };
    return [...lost(`.${family}`, 'nat', names.ports), ...(internal ? lost(`.relayed${family}`, 'raw', names.relayed) : [])];
  };
  /** Generations of the rules that were found complete, by network. */
  const complete = new Map<string, string>();
  const families = (network: FirewallNetwork): readonly Family[] => FAMILIES.filter((family) => network.subnets.some((subnet) => familyOf(subnet) === family));
  return {
    name: 'iptables',
    features: new Set(['ports']),
    probe({ uid }: Machine): Probe {
      const no = (reason: string): Probe => ({ available: false, score: 0, reasons: [reason] });
      if (uid !== 0) return no('rules need root');
      const found = installed();
      if (!found) return no(`iptables${wanted === 'auto' ? '' : `-${wanted}`}-restore is not installed`);
      const words = found.variant === 'nft' ? 'iptables on nf_tables' : 'iptables with tables of its own (legacy)';
      return { available: true, score: 30, reasons: [`${words}: ${found.restore4}`, ...(found.restore6 === undefined ? ['no ip6tables-restore: IPv4 only'] : []), 'a rule per published port'] };
    },

    ensure(network) {
      checkLink(network.link);
      const key = JSON.stringify(network);
      const generation = rulesOf().generation();
      const isFirst = !existsSync(serviceFolder);
      if (!isFirst && generation !== undefined && complete.get(network.id) === `${generation} ${key}`) return [];
      const rules = rulesOf().look();
      const effects = [...(isFirst ? [ensureFolder(serviceFolder)] : []), ...families(network).flatMap((family): Effect[] => {
        const { isNew, changes: missing } = findMissing(rules, family, network, names);
        const changes = [...missing, ...(isFirst ? [] : lostPorts(rules, family, network))];
        if (changes.length === 0) return [];
        return [effect(change(family, changes), isNew ? [change(family, removeNetwork(family, network, names)), change(family, removeShared(family, names))] : { none: 'rules of a network that is there are put back' })];
      }), ...foreignOf().ensure(network)];
      if (effects.length === 0) complete.set(network.id, `${generation} ${key}`);
      return effects;
    },

    remove(network) {
      checkLink(network.link);
      complete.delete(network.id);
      const rules = rulesOf().look();
      const own = families(network).filter((family) => isPresent(rules, family, network, names))
        .flatMap((family) => [removeNetwork(family, network, names), removeShared(family, names, hasHook(rules, family))].map((changes) => effect(change(family, changes), { none: 'the network goes' })));
      return [...own, ...foreignOf().remove(network)];
    },

    planPorts(endpoint) {
      if (!/^[0-9a-f]{1,16}$/.test(endpoint.run)) throw fail('ERR_INVALID_VALUE', `not a run's id: ${JSON.stringify(endpoint.run)}`, { operation: 'iptables', path: endpoint.run });
      const chain = names.endpoint(endpoint);
      return FAMILIES.flatMap((family): Step[] => {
        const bound = bindings(endpoint, family);
        if (bound.length === 0) return closeRelay(endpoint, family, chain);
        const path = keptFile(chain, family);
        const add = restoreText([{ table: 'nat', lines: [
          `:${chain} - [0:0]`, ...bound.map(({ port, target }) => bindingRule(chain, port, target)),
          // first: should a dead run have left the same port behind, it is this one's
          `-I ${names.ports} 1 -j ${chain}`,
        ] }]);
        const remove = change(family, [
          // twice: of two engine processes that put it back after a flush each may have added one
          ...[1, 2].map((): Change => ({ how: 'may', text: restoreText([{ table: 'nat', lines: [`-D ${names.ports} -j ${chain}`] }]) })),
          { how: 'must', text: restoreText([{ table: 'nat', lines: [`:${chain} - [0:0]`, `-X ${chain}`] }]) },
        ]);
        // a client that goes on sending keeps a connection alive that was there before the rule, and leads elsewhere
        const forget = bound.filter(({ port }) => port.protocol === 'udp').map(({ port: { hostAddress, hostPort } }) => op.forgetFlows({
          protocol: UDP, port: hostPort, ...(hostAddress === '0.0.0.0' || hostAddress === '::' ? {} : { address: addressBytes(hostAddress) }),
        }));
        return [
          step('shim.attach', op.execHost({ argv: [program(family), '--noflush', '-w', PATIENCE], stdin: Buffer.from(add), deadline: DEADLINE }), [remove, ...forget]),
          step('shim.attach', op.writeFile({ path, data: Buffer.from(add), mode: 0o600, how: BITS.WRITE.create | BITS.WRITE.truncate }), op.unlink({ path }, { okMissing: true })),
          ...forget.map((operation) => step('shim.attach', operation)),
        ];
      });
    },

    why: (binding, endpoint, network) => explain({
      binding, endpoint, network, names, reader: rulesOf().look(), variant: (installed() ?? fallen()).variant, foreign: foreignOf(), addresses: rtnetlink.addresses(), read: (path) => machine.read(path),
    }),
  };
}

/** A + at the end is any rest to iptables, and what else the kernel permits in a name would have to be quoted. */
function checkLink(link: string): void {
  if (!/^[\w.-]{1,15}$/.test(link)) throw fail('ERR_INVALID_VALUE', `iptables can't take ${JSON.stringify(link)} as the name of an interface`, { operation: 'iptables', path: link });
}

/** What of an endpoint is translated; the rest is served by the relay of the held socket. */
export function bindings(endpoint: Endpoint, family: Family): { readonly port: BoundPort; readonly target: string }[] {
  return endpoint.ports.flatMap((port) => {
    const target = familyOf(port.hostAddress) === family ? targetOf(port, endpoint) : undefined;
    return target === undefined ? [] : [{ port, target }];
  });
}
