import { effect, op, type Effect, type Operation } from '@engine/core/plan';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { describeChain, findAccept, foreignChains, type AcceptMatch, type ForeignChain, type Ruleset } from '@engine/native/foreign-chains';
import { type ListedChain } from '@engine/native/nfnetlink';
import { type Variant } from './programs.ts';

/**
 * Chains of nftables, and of the other iptables where that one is on nf_tables: what we accept in our own tables they may still drop. The one rule that is needed is put
 * into them, with a comment by which it is found again.
 */
export interface Foreign {
  /** Accepts that are missing. */
  ensure(network: FirewallNetwork): readonly Effect[];
  remove(network: FirewallNetwork): readonly Effect[];
  /** In words. */
  why(network: FirewallNetwork, family: 4 | 6): readonly string[];
}
export interface ForeignDeps {
  readonly instance: string;
  readonly variant: Variant;
  /** Cheap: which base chains there are. */
  chains(): readonly ListedChain[];
  ruleset(): Ruleset;
  /** Path of nft; undefined: not installed, and then nothing can be done about them. */
  readonly nft: string | undefined;
}

const HOOKS: readonly (number | undefined)[] = [1, 2];
const HOOKED: readonly (string | undefined)[] = ['input', 'forward'];
const DEADLINE = 10_000;
/** Rules are deleted by handles, which nobody knows beforehand; once more when somebody changed them in between. */
const FORGET = `
forget() {
  "$0" -a list ruleset | while read -r a b c rest; do
    case $a in
      table) family=$b table=$c ;;
      chain) chain=$b ;;
      *) case "$a $b $c $rest" in *"comment \\"$1\\" # handle "*) echo "delete rule $family $table $chain handle \${rest##* }" ;; esac ;;
    esac
  done | "$0" -f -
}
forget "$1" || forget "$1"`;

export function createForeign({ instance, variant, chains, ruleset, nft }: ForeignDeps): Foreign {
  const comment = ({ link }: FirewallNetwork): string => `${instance} ${link}`;
  const isOwn = (family: string, table: string): boolean => /^engine-[0-9a-f]{8}(?:-guard)?$/.test(table) || (variant === 'nft' && table === 'filter' && family !== 'inet');
  /** Without any, nobody has to parse a ruleset. */
  const isAny = (): boolean => chains().some(({ family, table, hook, type }) => HOOKS.includes(hook) && type === 'filter' && ['ip', 'ip6', 'inet'].includes(family) && !isOwn(family, table) && !(family !== 'inet' && ['mangle', 'raw', 'security'].includes(table)));
  const needed = (network: FirewallNetwork): { readonly chain: ForeignChain; readonly match: AcceptMatch; readonly there: boolean }[] => {
    if (!isAny()) return [];
    const hasFamily = (family: ForeignChain['family']): boolean => family === 'inet' || network.subnets.some((subnet) => subnet.includes(':') === (family === 'ip6'));
    return foreignChains(ruleset(), ['forward', 'input'], isOwn).filter(({ family }) => hasFamily(family)).flatMap((chain) => {
      const matches: AcceptMatch[] = chain.hook === 'forward'
        ? [{ iifname: network.link }, { oifname: network.link }]
        : network.dns ? (['udp', 'tcp'] as const).map((protocol) => ({ iifname: network.link, protocol, port: 53 })) : [];
      return matches.map((match) => ({ chain, match, there: findAccept(chain, match) !== undefined }));
    });
  };
  const forget = (program: string, network: FirewallNetwork): Operation<'execHost'> => op.execHost({ argv: ['/bin/sh', '-c', FORGET, program, comment(network)], env: ['LC_ALL=C'], deadline: DEADLINE });
  const conditions = ({ iifname, oifname, protocol, port }: AcceptMatch): string =>
    [iifname && `iifname "${iifname}"`, oifname && `oifname "${oifname}"`, protocol && `${protocol} dport ${port ?? 0}`].filter(Boolean).join(' ');

  return {
    ensure(network) {
      const missing = nft === undefined ? [] : needed(network).filter(({ there }) => !there);
      if (nft === undefined || missing.length === 0) return [];
      // the counter is what iptables-nft expects of a rule, which then reads it as its own
      const text = missing.map(({ chain: { family, table, chain }, match }) => `insert rule ${family} ${table} ${chain} ${conditions(match)} counter accept comment "${comment(network)}"\n`).join('');
      return [effect(op.execHost({ argv: [nft, '-f', '-'], stdin: Buffer.from(text), deadline: DEADLINE }), forget(nft, network))];
    },
    remove(network) {
      const isMarked = (): boolean => ruleset().chains.some((chain) => HOOKED.includes(chain.hook) && chain.rules.some((rule) => rule.comment === comment(network)));
      return nft !== undefined && isAny() && isMarked() ? [effect(forget(nft, network), { none: 'the network goes' })] : [];
    },
    why: (network, family) => needed(network).filter(({ chain }) => chain.hook === 'forward' && chain.family !== (family === 4 ? 'ip6' : 'ip')).map(({ chain, match, there }) => {
      const what = `what goes ${match.iifname === undefined ? 'to' : 'from'} ${network.link}`;
      return there ? `${describeChain(chain)} lets pass ${what}, by a rule of its own` : `${describeChain(chain)} drops ${what}: nothing accepts it there`;
    }),
  };
}
