import { attribute, be32Of, decodeAttributes, encodeMessage, listAttributes, NETLINK_NETFILTER, textOf } from './netlink-codec.ts';
import { openNetlink } from './netlink-socket.ts';
import { decodeChain, nfgenmsg, NFPROTO, NFT_MSG, type NftFamily } from './nfnetlink.ts';
import { type Ruleset, type RulesetChain, type RulesetRule } from './foreign-chains.ts';

/**
 * The ruleset that is there, by netlink: as far as one has to know others' rules. Not `list ruleset` of libnftables with JSON: 1.0.6 (Debian 12) damages its heap over every
 * table with flags (`owner`, `dormant`), whoever made it, and ends the process some time later.
 */

const NFT_MSG_NEWRULE = 0xa06;
const NFT_MSG_GETRULE = 0xa07;
const NFTA_RULE = { TABLE: 1, CHAIN: 2, HANDLE: 3, EXPRESSIONS: 4, USERDATA: 7 } as const;
const NFTA_EXPR = { NAME: 1, DATA: 2 } as const;
const NFTA_IMMEDIATE = { DREG: 1, DATA: 2 } as const;
const NFTA_DATA = { VALUE: 1, VERDICT: 2 } as const;
const NFTA_VERDICT = { CODE: 1, CHAIN: 2 } as const;
const NFTA_META = { DREG: 1, KEY: 2, SREG: 3 } as const;
const NFTA_PAYLOAD = { DREG: 1, BASE: 2, OFFSET: 3, LEN: 4 } as const;
const NFTA_CMP = { SREG: 1, OP: 2, DATA: 3 } as const;
const NFTA_LOOKUP_SET = 1;
const NFTA_XT_NAME = 1;
const META_KEYS: Readonly<Record<number, string>> = { 4: 'iif', 5: 'oif', 6: 'iifname', 7: 'oifname', 15: 'nfproto', 16: 'l4proto' };
const TRANSPORT_HEADER = 2;
const PROTOCOLS: Readonly<Record<number, string>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };
const VERDICTS: Readonly<Record<number, string>> = { 0: 'drop', 1: 'accept', [-1]: 'continue', [-3]: 'jump', [-4]: 'goto', [-5]: 'return' };
const VERDICT_REGISTER = 0;
const UDATA_COMMENT = 0;

type Statement = Record<string, unknown>;
const hooks = ['prerouting', 'input', 'forward', 'output', 'postrouting', 'ingress'] as const;

/** Expressions of a rule as statements in the form of `nft -j`; what has no form here is a condition `{ <name>: null }`. */
export function decodeExpressions(bytes: Uint8Array): Statement[] {
  const statements: Statement[] = [];
  const registers = new Map<number, Statement>();
  let protocol: string | undefined;
  for (const { value: expression } of listAttributes(bytes)) {
    const outer = decodeAttributes(expression);
    const name = textOf(outer.get(NFTA_EXPR.NAME)) ?? '';
    const data = decodeAttributes(outer.get(NFTA_EXPR.DATA) ?? Buffer.alloc(0));
    const number = (type: number): number | undefined => be32Of(data.get(type));
    if (name === 'immediate' && number(NFTA_IMMEDIATE.DREG) === VERDICT_REGISTER) {
      const verdict = decodeAttributes(decodeAttributes(data.get(NFTA_IMMEDIATE.DATA) ?? Buffer.alloc(0)).get(NFTA_DATA.VERDICT) ?? Buffer.alloc(0));
      const code = (be32Of(verdict.get(NFTA_VERDICT.CODE)) ?? 0) | 0;
      const target = textOf(verdict.get(NFTA_VERDICT.CHAIN));
      statements.push({ [VERDICTS[code] ?? 'queue']: target === undefined ? null : { target } });
    } else if (name === 'meta' && data.has(NFTA_META.DREG)) {
      registers.set(number(NFTA_META.DREG) ?? -1, { meta: { key: META_KEYS[number(NFTA_META.KEY) ?? -1] ?? 'other' } });
    } else if (name === 'payload' && data.has(NFTA_PAYLOAD.DREG)) {
      const isPort = number(NFTA_PAYLOAD.BASE) === TRANSPORT_HEADER && number(NFTA_PAYLOAD.OFFSET) === 2 && number(NFTA_PAYLOAD.LEN) === 2;
      registers.set(number(NFTA_PAYLOAD.DREG) ?? -1, isPort ? { payload: { protocol: protocol ?? 'th', field: 'dport' } } : { payload: { base: number(NFTA_PAYLOAD.BASE), offset: number(NFTA_PAYLOAD.OFFSET), len: number(NFTA_PAYLOAD.LEN) } });
    } else if (name === 'cmp') {
      const left = registers.get(number(NFTA_CMP.SREG) ?? -1) ?? {};
      const right = decodeAttributes(data.get(NFTA_CMP.DATA) ?? Buffer.alloc(0)).get(NFTA_DATA.VALUE) ?? Buffer.alloc(0);
      const value = valueOf(left, right);
      if (isMeta(left, 'l4proto') && number(NFTA_CMP.OP) === 0) protocol = typeof value === 'string' ? value : undefined;
      statements.push({ match: { op: number(NFTA_CMP.OP) === 0 ? '==' : 'other', left, right: value } });
    } else if (name === 'lookup') {
      statements.push({ match: { op: 'in', left: {}, right: `@${textOf(data.get(NFTA_LOOKUP_SET)) ?? ''}` } });
    } else if (name === 'target') {
      statements.push({ xt: { type: 'target', name: textOf(data.get(NFTA_XT_NAME)) ?? '' } });
    } else if (name === 'match') {
      statements.push({ xt: { type: 'match', name: textOf(data.get(NFTA_XT_NAME)) ?? '' } });
    } else {
      // it may have written to any register
      if (name !== 'counter') registers.clear();
      statements.push({ [name]: null });
    }
  }
  return statements;
}
const isMeta = (left: Statement, key: string): boolean => (left['meta'] as { key?: string } | undefined)?.key === key;
function valueOf(left: Statement, bytes: Buffer): unknown {
  if (isMeta(left, 'iifname') || isMeta(left, 'oifname')) {
    const end = bytes.indexOf(0);
    // without a NUL it is the beginning of names: `eth*`
    return end === -1 && bytes.length < 16 ? `${bytes.toString('latin1')}*` : bytes.toString('latin1', 0, end === -1 ? bytes.length : end);
  }
  if (isMeta(left, 'l4proto')) return PROTOCOLS[bytes[0] ?? 0] ?? bytes[0];
  if (left['payload'] && bytes.length === 2) return bytes.readUInt16BE(0);
  return bytes.toString('hex');
}

function decodeRule(body: Buffer, family: string): RulesetRule {
  const found = decodeAttributes(body.subarray(4));
  const handle = found.get(NFTA_RULE.HANDLE);
  const userdata = found.get(NFTA_RULE.USERDATA);
  const comment = userdata && userdata[0] === UDATA_COMMENT ? textOf(userdata.subarray(2, 2 + (userdata[1] ?? 0))) : undefined;
  return {
    family, table: textOf(found.get(NFTA_RULE.TABLE)) ?? '', chain: textOf(found.get(NFTA_RULE.CHAIN)) ?? '', handle: handle ? Number(handle.readBigUInt64BE(0)) : 0,
    expr: decodeExpressions(found.get(NFTA_RULE.EXPRESSIONS) ?? Buffer.alloc(0)), ...(comment === undefined ? {} : { comment }),
  };
}

/** Chains of all families in the net namespace of the calling thread; the rules of each are read when they are first looked at. Synchronous. Errors: ERR_NATIVE. */
export function readRuleset(): Ruleset {
  // a socket for each use: a ruleset may lie about for as long as somebody likes
  const dump = (type: number, family: number, attributes: Parameters<typeof encodeMessage>[3] = []): readonly { readonly type: number; readonly body: Buffer }[] => {
    const socket = openNetlink(NETLINK_NETFILTER);
    try {
      return socket.dump(encodeMessage(type, 0, nfgenmsg(family), attributes));
    } finally {
      socket.close();
    }
  };
  const rulesOf = (family: NftFamily, table: string, chain: string): RulesetRule[] => {
    try {
      return dump(NFT_MSG_GETRULE, NFPROTO[family], [attribute(NFTA_RULE.TABLE, table), attribute(NFTA_RULE.CHAIN, chain)])
        // older kernels give more than was asked for
        .flatMap(({ type, body }) => (type === NFT_MSG_NEWRULE ? [decodeRule(body, family)] : [])).filter((rule) => rule.table === table && rule.chain === chain);
    } catch {
      return []; // the chain has gone meanwhile
    }
  };
  const chains = dump(NFT_MSG.GETCHAIN, NFPROTO.unspec).flatMap(({ type, body }): RulesetChain[] => {
    const chain = type === NFT_MSG.NEWCHAIN ? decodeChain(body) : undefined;
    if (!chain) return [];
    const { family, table, name, hook, priority, policy } = chain;
    let rules: RulesetRule[] | undefined;
    const hookName = hook === undefined || !['inet', 'ip', 'ip6'].includes(family) ? undefined : hooks[hook];
    return [{
      family, table, name, handle: 0,
      ...(hook === undefined ? {} : { hook: hookName ?? 'other', type: chain.type ?? 'filter', priority: priority ?? 0, policy: policy ?? 'accept' }),
      get rules() {
        return (rules ??= rulesOf(family, table, name));
      },
    }];
  });
  return { tables: [...new Map(chains.map(({ family, table }) => [`${family} ${table}`, { family, name: table }])).values()], chains };
}
