/**
 * Chains of other software that would drop what goes to or from a network of ours: an accept in one nftables table does not override a drop in another one on the same hook.
 * Pure functions over a ruleset: as readRuleset of nft-ruleset.ts reads it, or out of the JSON of `nft -j list ruleset`.
 */

export type ForeignHook = 'forward' | 'input';

/** A rule, as nft shows it. `expr`: its statements, each an object with one key. */
export interface RulesetRule { readonly family: string; readonly table: string; readonly chain: string; readonly handle: number; readonly comment?: string; readonly expr: readonly Readonly<Record<string, unknown>>[] }
/** A chain; `hook`, `priority` and `policy` only where it is a base chain. */
export interface RulesetChain { readonly family: string; readonly table: string; readonly name: string; readonly handle: number; readonly type?: string; readonly hook?: string; readonly priority?: number; readonly policy?: string; readonly rules: readonly RulesetRule[] }
export interface Ruleset { readonly tables: readonly { readonly family: string; readonly name: string }[]; readonly chains: readonly RulesetChain[] }

/** A base chain that drops in the end what no rule of it has let through. */
export interface ForeignChain {
  readonly family: 'ip' | 'ip6' | 'inet';
  readonly table: string;
  readonly chain: string;
  readonly hook: ForeignHook;
  readonly priority: number;
  /** Its policy drops, or its last word is a rule (handle) that drops or rejects. */
  readonly by: 'policy' | { readonly handle: number };
  /** Kept by iptables-nft: only iptables may change it (nft would leave something behind that iptables cannot read). */
  readonly managed: 'iptables' | 'nft';
  readonly rules: readonly RulesetRule[];
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);

/** From the text of `nft -j list ruleset`, or what JSON.parse made of it. What is not understood is left out. */
export function parseRuleset(json: unknown): Ruleset {
  const root: unknown = typeof json === 'string' ? JSON.parse(json) : json;
  const list = isObject(root) && Array.isArray(root['nftables']) ? (root['nftables'] as unknown[]) : [];
  const tables: { family: string; name: string }[] = [];
  const chains = new Map<string, RulesetChain & { rules: RulesetRule[] }>();
  for (const entry of list) {
    if (!isObject(entry)) continue;
    const { table, chain, rule } = entry;
    if (isObject(table)) tables.push({ family: String(table['family']), name: String(table['name']) });
    if (isObject(chain)) {
      chains.set(`${String(chain['family'])} ${String(chain['table'])} ${String(chain['name'])}`, {
        family: String(chain['family']), table: String(chain['table']), name: String(chain['name']), handle: Number(chain['handle']), rules: [],
        ...(typeof chain['hook'] === 'string' ? { hook: chain['hook'], type: String(chain['type']), priority: Number(chain['prio']), policy: String(chain['policy'] ?? 'accept') } : {}),
      });
    }
    if (isObject(rule)) {
      const expr = Array.isArray(rule['expr']) ? rule['expr'].filter(isObject) : [];
      chains.get(`${String(rule['family'])} ${String(rule['table'])} ${String(rule['chain'])}`)?.rules.push({
        family: String(rule['family']), table: String(rule['table']), chain: String(rule['chain']), handle: Number(rule['handle']), expr,
        ...(typeof rule['comment'] === 'string' ? { comment: rule['comment'] } : {}),
      });
    }
  }
  return { tables, chains: [...chains.values()] };
}

type Verdict = { readonly verdict: 'accept' | 'drop'; readonly rule: RulesetRule } | { readonly verdict: 'return' } | undefined;

/** What stands in a rule without making it apply to less. */
const unconditional = new Set(['counter', 'log', 'comment', 'mangle', 'notrack']);
const verdicts = new Set(['accept', 'drop', 'reject', 'jump', 'goto', 'return', 'queue', 'continue']);
const isComment = (value: unknown): boolean => isObject(value) && value['type'] === 'match' && value['name'] === 'comment';
const isTarget = (value: unknown): value is Record<string, unknown> => isObject(value) && value['type'] === 'target';

/** The statement by which a rule ends, when the rule applies to everything. */
function verdictOf(rule: RulesetRule): readonly [string, unknown] | undefined {
  let found: readonly [string, unknown] | undefined;
  for (const statement of rule.expr) {
    const [key, value] = Object.entries(statement)[0] ?? ['', null];
    if (key === 'xt' && isTarget(value)) found = [value['name'] === 'REJECT' ? 'reject' : String(value['name']), value];
    else if (verdicts.has(key)) found = [key, value];
    else if (!unconditional.has(key) && !(key === 'xt' && isComment(value))) return undefined;
  }
  return found;
}

/** Where a packet ends that no condition of these rules applies to. */
function walk(rules: readonly RulesetRule[], chainOf: (rule: RulesetRule, name: string) => readonly RulesetRule[], depth = 0): Verdict {
  for (const rule of rules) {
    const [verdict, value] = verdictOf(rule) ?? [];
    if (verdict === 'accept' || verdict === 'queue') return { verdict: 'accept', rule };
    if (verdict === 'drop' || verdict === 'reject') return { verdict: 'drop', rule };
    if (verdict === 'return') return { verdict };
    if ((verdict === 'jump' || verdict === 'goto') && isObject(value) && depth < 16) {
      const inner = walk(chainOf(rule, String(value['target'])), chainOf, depth + 1);
      if (inner && inner.verdict !== 'return') return inner;
      if (verdict === 'goto') return { verdict: 'return' };
    }
  }
  return undefined;
}

const iptablesTables = new Set(['filter', 'nat', 'mangle', 'raw', 'security']);
const families = new Set(['ip', 'ip6', 'inet']);

/**
 * Base chains on `hooks` that drop in the end, by policy or by an unconditional last rule (also one in a chain that is jumped to without condition). Conditional drops are their
 * owner's intention and not looked at. `isOwn`: tables to leave out.
 */
export function foreignChains(ruleset: Ruleset, hooks: readonly ForeignHook[], isOwn: (family: string, table: string) => boolean = () => false): ForeignChain[] {
  const byName = new Map(ruleset.chains.map((chain) => [`${chain.family} ${chain.table} ${chain.name}`, chain]));
  // only what is come across: reading rules may cost something, see nft-ruleset.ts
  const chainOf = (rule: RulesetRule, name: string): readonly RulesetRule[] => byName.get(`${rule.family} ${rule.table} ${name}`)?.rules ?? [];
  return ruleset.chains.flatMap((chain): ForeignChain[] => {
    const hook = hooks.find((wanted) => wanted === chain.hook);
    if (!hook || chain.type === 'nat' || !families.has(chain.family) || isOwn(chain.family, chain.table)) return [];
    const end = walk(chain.rules, chainOf);
    const decided = end && end.verdict !== 'return' ? end : undefined;
    if (decided ? decided.verdict === 'accept' : chain.policy !== 'drop') return [];
    return [{
      family: chain.family as ForeignChain['family'], table: chain.table, chain: chain.name, hook, priority: chain.priority ?? 0,
      by: decided ? { handle: decided.rule.handle } : 'policy',
      managed: chain.family !== 'inet' && iptablesTables.has(chain.table) && chain.name === hook.toUpperCase() ? 'iptables' : 'nft',
      rules: chain.rules,
    }];
  });
}

/** What an accept must match: one interface, and a port of a protocol where given. */
export interface AcceptMatch { readonly iifname?: string; readonly oifname?: string; readonly protocol?: 'tcp' | 'udp'; readonly port?: number }

const isMatch = (statement: Readonly<Record<string, unknown>>, left: (value: Record<string, unknown>) => boolean, right: unknown): boolean => {
  const { match } = statement;
  return isObject(match) && match['op'] === '==' && match['right'] === right && isObject(match['left']) && left(match['left']);
};
const isMeta = (key: string) => (left: Record<string, unknown>): boolean => isObject(left['meta']) && left['meta']['key'] === key;
const isPort = (protocol: string) => (left: Record<string, unknown>): boolean => isObject(left['payload']) && left['payload']['protocol'] === protocol && left['payload']['field'] === 'dport';
const isProtocol = (left: Record<string, unknown>): boolean => (isObject(left['payload']) && ['protocol', 'nexthdr'].includes(String(left['payload']['field']))) || isMeta('l4proto')(left);

/** The rule that accepts exactly this, before anything that decides for all; also as iptables-nft writes it. */
export function findAccept(chain: ForeignChain, { iifname, oifname, protocol, port }: AcceptMatch): RulesetRule | undefined {
  return chain.rules.find(({ expr }) => {
    const wanted: ((statement: Readonly<Record<string, unknown>>) => boolean)[] = [
      ...(iifname === undefined ? [] : [(s: Readonly<Record<string, unknown>>) => isMatch(s, isMeta('iifname'), iifname)]),
      ...(oifname === undefined ? [] : [(s: Readonly<Record<string, unknown>>) => isMatch(s, isMeta('oifname'), oifname)]),
      ...(protocol === undefined || port === undefined ? [] : [(s: Readonly<Record<string, unknown>>) => isMatch(s, isPort(protocol), port) || (isObject(s['xt']) && s['xt']['name'] === protocol)]),
    ];
    if (!wanted.every((matches) => expr.some(matches)) || !expr.some((statement) => 'accept' in statement)) return false;
    return expr.every((statement) => 'accept' in statement || 'counter' in statement || isComment(statement['xt']) || wanted.some((matches) => matches(statement)) || (protocol !== undefined && isMatch(statement, isProtocol, protocol)));
  });
}

/** In words, for people: `chain filter_FORWARD of table inet firewalld (policy drop)`. */
export function describeChain({ family, table, chain, by }: ForeignChain): string {
  return `chain ${chain} of table ${family} ${table} (${by === 'policy' ? 'policy drop' : `rule with handle ${by.handle}`})`;
}
