import { findAccept, foreignChains, type AcceptMatch, type ForeignChain, type Ruleset } from '@engine/native/foreign-chains';
import { type FirewallNetwork } from '@engine/core/contracts/firewall';
import { op, type Operation } from '@engine/core/plan';

/** Tables of this and of other engines: they drop only what belongs to their own links. */
export const isEngineTable = (_family: string, table: string): boolean => /^engine-[0-9a-f]{8}(?:-guard)?$/.test(table);

/** The one accept that a chain of other software needs, so that it does not drop what our own table lets through. */
export interface NeededAccept { readonly chain: ForeignChain; readonly match: AcceptMatch; readonly there: boolean }

/** In the comment of every rule that we put into somebody else's chain. */
export const commentOf = (instance: string, link: string): string => `${instance} ${link}`;

const hasFamily = (network: FirewallNetwork, family: ForeignChain['family']): boolean =>
  family === 'inet' || network.subnets.some((subnet) => subnet.includes(':') === (family === 'ip6'));

/** Where the traffic of a network would be dropped by others, with what is there against it already. */
export function neededAccepts(ruleset: Ruleset, network: FirewallNetwork): readonly NeededAccept[] {
  return foreignChains(ruleset, ['forward', 'input'], isEngineTable).filter(({ family }) => hasFamily(network, family)).flatMap((chain) => {
    const matches: AcceptMatch[] = chain.hook === 'forward'
      ? [{ iifname: network.link }, { oifname: network.link }]
      : network.dns ? (['udp', 'tcp'] as const).map((protocol) => ({ iifname: network.link, protocol, port: 53 })) : [];
    return matches.map((match) => ({ chain, match, there: findAccept(chain, match) !== undefined }));
  });
}

const conditions = ({ iifname, oifname, protocol, port }: AcceptMatch): string =>
  [iifname === undefined ? '' : `iifname "${iifname}"`, oifname === undefined ? '' : `oifname "${oifname}"`, protocol === undefined ? '' : `${protocol} dport ${port ?? 0}`].filter(Boolean).join(' ');

/** What is missing of these, for nft. iptables-nft reads such rules as its own (`counter` is what it expects of one). */
export function acceptText(needed: readonly NeededAccept[], comment: string): string {
  return needed.filter(({ there }) => !there).map(({ chain: { family, table, chain }, match }) => `insert rule ${family} ${table} ${chain} ${conditions(match)} counter accept comment "${comment}"\n`).join('');
}

/** Of a shell and what it starts. */
export const ENVIRONMENT = ['PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin', 'LC_ALL=C'];
const shell = (script: string, ...args: string[]): Operation => op.execHost({ argv: ['/bin/sh', '-c', script, 'sh', ...args], env: ENVIRONMENT, deadline: 10_000 });

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
/** Takes every rule with this comment out of whichever chain it is in. */
export const forgetAccepts = (nft: string, comment: string): Operation => shell(FORGET, nft, comment);

/**
 * The old iptables has tables of its own, which nft does not see. `/proc/net/ip_tables_names` lists those that exist; only a FORWARD chain that drops gets the accepts.
 */
const LEGACY = `
verb=$1 link=$2 comment=$3; shift 3
for program; do
  command -v "$program" >/dev/null || continue
  for direction in -i -o; do
    set -- FORWARD "$direction" "$link" -m comment --comment "$comment" -j ACCEPT
    if [ "$verb" = remove ]; then
      while "$program" -w -D "$@" 2>/dev/null; do :; done
    elif "$program" -w -S FORWARD | grep -qE '^-P FORWARD DROP|^-A FORWARD -j (DROP|REJECT)'; then
      "$program" -w -C "$@" 2>/dev/null || "$program" -w -I "$@" || exit 1
    fi
  done
done
exit 0
`;
export type LegacyProgram = 'iptables-legacy' | 'ip6tables-legacy';
export const legacyAccepts = (verb: 'add' | 'remove', link: string, comment: string, programs: readonly LegacyProgram[]): Operation => shell(LEGACY, verb, link, comment, ...programs);

/** Which programs of the old iptables have a table `filter` here. */
export function legacyPrograms(read: (path: string) => string | undefined): readonly LegacyProgram[] {
  const has = (path: string): boolean => read(path)?.split('\n').includes('filter') ?? false;
  return [...(has('/proc/net/ip_tables_names') ? ['iptables-legacy' as const] : []), ...(has('/proc/net/ip6_tables_names') ? ['ip6tables-legacy' as const] : [])];
}
