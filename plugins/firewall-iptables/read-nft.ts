import { attribute, be32Of, decodeAttributes, encodeMessage, NETLINK_NETFILTER, NLM_F, textOf } from '@engine/native/netlink';
import { openNetlink, type NetlinkSocket } from '@engine/native/netlink-socket';
import { type Family, type Rule, type RuleReader, type TableName } from './reader.ts';

/** linux/netfilter/nf_tables.h, in subsystem 10. */
const MSG = { getChain: 0xa04, getRule: 0xa07, newRule: 0xa06, getGeneration: 0xa10 } as const;
const ATTR = { table: 1, chain: 2, chainName: 3, expressions: 4, generation: 1 } as const;
const ENOENT = 2;
const AF = { 4: 2, 6: 10 } as const;
/** struct nfgenmsg. */
const header = (family: number): Uint8Array => Uint8Array.of(family, 0, 0, 0);
const attributesOf = ({ body }: { readonly body: Buffer }): Map<number, Buffer> => decodeAttributes(body.subarray(4));

/** What iptables-nft has made. Names stand in its expressions as text with a NUL: neither a chain's nor an interface's can be part of a longer one. */
export function createNftReader(): RuleReader {
  let socket: NetlinkSocket | undefined;
  const open = (): NetlinkSocket => (socket ??= openNetlink(NETLINK_NETFILTER));
  return {
    generation() {
      const answer = open().ask(encodeMessage(MSG.getGeneration, 0, header(0)));
      return answer && be32Of(attributesOf(answer).get(ATTR.generation));
    },
    look() {
      const known = new Map<string, readonly Rule[]>();
      return {
        rules(family, table, chain) {
          const key = `${family} ${table} ${chain}`;
          let found = known.get(key);
          if (!found) known.set(key, (found = readRules(open(), family, table, chain)));
          return found;
        },
        hasChain: (family, table, chain) => open().ask(encodeMessage(MSG.getChain, 0, header(AF[family]), [attribute(ATTR.table, table), attribute(ATTR.chainName, chain)]), [ENOENT]) !== undefined,
      };
    },
  };
}
function readRules(socket: NetlinkSocket, family: Family, table: TableName, chain: string): Rule[] {
  const answers = socket.dump(encodeMessage(MSG.getRule, NLM_F.DUMP, header(AF[family]), [attribute(ATTR.table, table), attribute(ATTR.chain, chain)]));
  return answers.flatMap((answer) => {
    if (answer.type !== MSG.newRule) return [];
    const attributes = attributesOf(answer);
    // kernels before 5.1 don't filter by chain
    if (textOf(attributes.get(ATTR.chain)) !== chain || textOf(attributes.get(ATTR.table)) !== table) return [];
    const expressions = attributes.get(ATTR.expressions) ?? Buffer.alloc(0);
    return [{ mentions: (name: string) => hasName(expressions, name) }];
  });
}
/** Whole names only: what stands before is a length or a header, never a character of a name. */
function hasName(bytes: Buffer, name: string): boolean {
  const wanted = Buffer.from(`${name}\0`);
  for (let at = bytes.indexOf(wanted); at >= 0; at = bytes.indexOf(wanted, at + 1)) if (at === 0 || (bytes[at - 1] as number) <= 0x20) return true;
  return false;
}
