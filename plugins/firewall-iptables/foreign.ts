import { effect, op, type Effect } from '@engine/core/plan';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { acceptText, commentOf, forgetAccepts, isEngineTable, neededAccepts, type NeededAccept } from '@engine/native/foreign-accepts';
import { describeChain, type Ruleset } from '@engine/native/foreign-chains';
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

export function createForeign({ instance, variant, chains, ruleset, nft }: ForeignDeps): Foreign {
  const comment = ({ link }: FirewallNetwork): string => commentOf(instance, link);
  const isOwn = (family: string, table: string): boolean => isEngineTable(family, table) || (variant === 'nft' && table === 'filter' && family !== 'inet');
  /** Without any, nobody has to parse a ruleset. */
  const isAny = (): boolean => chains().some(({ family, table, hook, type }) => HOOKS.includes(hook) && type === 'filter' && ['ip', 'ip6', 'inet'].includes(family) && !isOwn(family, table) && !(family !== 'inet' && ['mangle', 'raw', 'security'].includes(table)));
  const needed = (network: FirewallNetwork): readonly NeededAccept[] => (isAny() ? neededAccepts(ruleset(), network, isOwn) : []);

  return {
    ensure(network) {
      if (nft === undefined) return [];
      const text = acceptText(needed(network), comment(network));
      return text === '' ? [] : [effect(op.execHost({ argv: [nft, '-f', '-'], stdin: Buffer.from(text), deadline: DEADLINE }), forgetAccepts(nft, comment(network)))];
    },
    remove(network) {
      const isMarked = (): boolean => ruleset().chains.some((chain) => HOOKED.includes(chain.hook) && chain.rules.some((rule) => rule.comment === comment(network)));
      return nft !== undefined && isAny() && isMarked() ? [effect(forgetAccepts(nft, comment(network)), { none: 'the network goes' })] : [];
    },
    why: (network, family) => needed(network).filter(({ chain }) => chain.hook === 'forward' && chain.family !== (family === 4 ? 'ip6' : 'ip')).map(({ chain, match, there }) => {
      const what = `what goes ${match.iifname === undefined ? 'to' : 'from'} ${network.link}`;
      return there ? `${describeChain(chain)} lets pass ${what}, by a rule of its own` : `${describeChain(chain)} drops ${what}: nothing accepts it there`;
    }),
  };
}
