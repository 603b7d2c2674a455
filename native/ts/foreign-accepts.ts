import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { op, type Operation } from '@engine/core/plan';
import { findAccept, foreignChains, type AcceptMatch, type ForeignChain, type Ruleset } from './foreign-chains.ts';

/** Tables of this and of other engines: they drop only what belongs to their own links. */
export const isEngineTable = (_family: string, table: string): boolean => /^engine-[0-9a-f]{8}(?:-guard)?$/.test(table);

/** The one accept that a chain of other software needs, so that it does not drop what our own rules let through. */
export interface NeededAccept { readonly chain: ForeignChain; readonly match: AcceptMatch; readonly there: boolean }

/** In the comment of every rule that we put into somebody else's chain. */
export const commentOf = (instance: string, link: string): string => `${instance} ${link}`;

/** Where the traffic of a network would be dropped by others, with what is there against it already. `isOwn`: tables to leave out. */
export function neededAccepts(ruleset: Ruleset, { link, subnets, dns }: Pick<FirewallNetwork, 'link' | 'subnets' | 'dns'>, isOwn: (family: string, table: string) => boolean = isEngineTable): readonly NeededAccept[] {
  const hasFamily = (family: ForeignChain['family']): boolean => family === 'inet' || subnets.some((subnet) => subnet.includes(':') === (family === 'ip6'));
  return foreignChains(ruleset, ['forward', 'input'], isOwn).filter(({ family }) => hasFamily(family)).flatMap((chain) => {
    const matches: AcceptMatch[] = chain.hook === 'forward'
      ? [{ iifname: link }, { oifname: link }]
      : dns ? (['udp', 'tcp'] as const).map((protocol) => ({ iifname: link, protocol, port: 53 })) : [];
    return matches.map((match) => ({ chain, match, there: findAccept(chain, match) !== undefined }));
  });
}

const conditions = ({ iifname, oifname, protocol, port }: AcceptMatch): string =>
  [iifname === undefined ? '' : `iifname "${iifname}"`, oifname === undefined ? '' : `oifname "${oifname}"`, protocol === undefined ? '' : `${protocol} dport ${port ?? 0}`].filter(Boolean).join(' ');

/** What is missing of these, for nft; empty: nothing. iptables-nft reads such rules as its own (`counter` is what it expects of one). */
export function acceptText(needed: readonly NeededAccept[], comment: string): string {
  return needed.filter(({ there }) => !there).map(({ chain: { family, table, chain }, match }) => `insert rule ${family} ${table} ${chain} ${conditions(match)} counter accept comment "${comment}"\n`).join('');
}

/** Of a shell and what it starts. */
export const ENVIRONMENT = ['PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin', 'LC_ALL=C'];

/** Rules are deleted by handles, which nobody knows beforehand. Tried twice: somebody may change the ruleset in between. */
const FORGET = `
forget() {
  "$1" -a list ruleset | while read -r a b c rest; do
    case $a in
      table) family=$b table=$c ;;
      chain) chain=$b ;;
      *) case "$a $b $c $rest" in
        *"comment \\"$2\\" # handle "*) echo "delete rule $family $table $chain handle \${rest##* }" ;;
      esac ;;
    esac
  done | "$1" -f -
}
forget "$1" "$2" || forget "$1" "$2"
`;
/** Takes every rule with this comment out of whichever chain it is in. `nft`: path of the program. */
export const forgetAccepts = (nft: string, comment: string): Operation<'execHost'> => op.execHost({ argv: ['/bin/sh', '-c', FORGET, 'sh', nft, comment], env: ENVIRONMENT, deadline: 10_000 });
